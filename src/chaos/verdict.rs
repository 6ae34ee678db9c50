//! What a checker says.

use serde::Serialize;

/// How many violations a verdict lists one by one; the last line then says how many more there are.
pub const VIOLATIONS_LISTED_MAX: usize = 100;

/// One invariant, judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub invariant: &'static str,
    /// How many things were looked at. An invariant that nothing was checked for is not shown to hold.
    pub checked: u64,
    pub violations: Vec<Violation>,
    /// Why it could not be judged, or what of it could not.
    pub skipped: Option<String>,
    #[serde(skip)]
    unlisted: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    pub detail: String,
    /// Ids of the operations that show it, as in the history.
    pub operations: Vec<u64>,
}

impl Verdict {
    /// Nothing checked yet.
    #[must_use]
    pub fn new(invariant: &'static str) -> Self {
        Self { invariant, checked: 0, violations: Vec::new(), skipped: None, unlisted: 0 }
    }

    /// Not judged at all, and why.
    #[must_use]
    pub fn skipped(invariant: &'static str, reason: impl Into<String>) -> Self {
        Self { skipped: Some(reason.into()), ..Self::new(invariant) }
    }

    /// Judged something, and found nothing wrong.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.checked > 0 && self.violations.is_empty()
    }

    pub fn violated(&mut self, detail: impl Into<String>, operations: Vec<u64>) {
        if self.violations.len() < VIOLATIONS_LISTED_MAX {
            self.violations.push(Violation { detail: detail.into(), operations });
            return;
        }
        self.unlisted += 1;
        let more = Violation { detail: format!("and {} more", self.unlisted), operations: Vec::new() };
        if self.unlisted == 1 {
            self.violations.push(more);
        } else if let Some(last) = self.violations.last_mut() {
            *last = more;
        }
    }

    /// Counts one thing as checked; it is a violation unless `good`.
    pub fn expect(&mut self, good: bool, detail: impl FnOnce() -> String, operations: impl FnOnce() -> Vec<u64>) {
        self.checked += 1;
        if !good {
            self.violated(detail(), operations());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_checked_is_not_shown_to_hold() {
        assert!(!Verdict::new("x").holds());
        assert!(!Verdict::skipped("x", "not offered").holds());
        let mut verdict = Verdict::new("x");
        verdict.expect(true, String::new, Vec::new);
        assert!(verdict.holds());
        verdict.expect(false, || "broken".into(), || vec![7]);
        assert!(!verdict.holds());
        assert_eq!((verdict.checked, &verdict.violations[0].operations[..]), (2, &[7][..]));
    }

    #[test]
    fn the_list_of_violations_is_bounded_and_says_how_many_more_there_are() {
        let mut verdict = Verdict::new("x");
        for number in 0..VIOLATIONS_LISTED_MAX + 25 {
            verdict.violated(number.to_string(), Vec::new());
        }
        assert_eq!(verdict.violations.len(), VIOLATIONS_LISTED_MAX + 1);
        assert_eq!(verdict.violations.last().map(|last| last.detail.as_str()), Some("and 25 more"));
    }
}
