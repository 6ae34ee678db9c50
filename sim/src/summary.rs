//! What a world came to, in numbers: a line that its process prints and that the run over many
//! worlds reads again.

use std::{fmt, ops::AddAssign};

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    pub faults: u64,
    pub orders: u64,
    pub unknown: u64,
    pub touches: u64,
    pub requests: u64,
    pub excuses: u64,
    /// Whole ones.
    pub backups: u64,
}

const NAMES: [&str; 7] =
    ["faults", "orders acknowledged", "unknown", "register operations", "requests", "of them excused", "backups"];

impl Summary {
    /// Of what [`Display`](fmt::Display) has written.
    pub fn read(line: &str) -> Option<Self> {
        let mut counts = [0; NAMES.len()];
        let mut parts = line.split(", ");
        for (count, name) in counts.iter_mut().zip(NAMES) {
            *count = parts.next()?.strip_suffix(name)?.trim_end().parse().ok()?;
        }
        let [faults, orders, unknown, touches, requests, excuses, backups] = counts;
        parts.next().is_none().then_some(Self { faults, orders, unknown, touches, requests, excuses, backups })
    }

    fn counts(&self) -> [u64; NAMES.len()] {
        [self.faults, self.orders, self.unknown, self.touches, self.requests, self.excuses, self.backups]
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (count, name)) in self.counts().into_iter().zip(NAMES).enumerate() {
            write!(f, "{}{count} {name}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.faults += other.faults;
        self.orders += other.orders;
        self.unknown += other.unknown;
        self.touches += other.touches;
        self.requests += other.requests;
        self.excuses += other.excuses;
        self.backups += other.backups;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_again_and_nothing_else() {
        let one = Summary { faults: 1, orders: 20, unknown: 3, touches: 400, requests: 5_000, excuses: 60, backups: 7 };
        assert_eq!(Summary::read(&one.to_string()), Some(one));
        let mut sum = one;
        sum += one;
        assert_eq!(sum.requests, 10_000);
        for other in ["", "1 faults", &format!("{one}, 7 more"), &one.to_string().replace("20", "many")] {
            assert_eq!(Summary::read(other), None, "{other}");
        }
    }
}
