//! Builds that break one promise on purpose, to see that `quorate chaos` notices.
//!
//! Only with the cargo feature `sabotage`; without it [`is`] is a constant `false`, and whoever sets
//! `QUORATE_SABOTAGE` is told that this build cannot be sabotaged. docs/chaos.md has the list.

use std::fmt;

/// Says which promise is broken.
pub const VARIABLE: &str = "QUORATE_SABOTAGE";

/// A promise that can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// Forgets keys and effects that were there before.
    SkipDedup,
    /// A new key at the gateway for each attempt but the first.
    DoubleCharge,
}

impl Sabotage {
    pub const ALL: [Self; 2] = [Self::SkipDedup, Self::DoubleCharge];

    pub fn name(self) -> &'static str {
        match self {
            Self::SkipDedup => "skip-dedup",
            Self::DoubleCharge => "double-charge",
        }
    }
}

impl fmt::Display for Sabotage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether this process breaks that promise.
#[cfg(not(feature = "sabotage"))]
pub const fn is(_: Sabotage) -> bool {
    false
}

/// Whether this process breaks that promise.
#[cfg(feature = "sabotage")]
pub fn is(what: Sabotage) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<Sabotage>> = std::sync::OnceLock::new();
    *CHOSEN.get_or_init(|| chosen().ok().flatten()) == Some(what)
}

/// What the environment asks for.
///
/// # Errors
/// One line for the operator: this build cannot do it, or nobody can.
pub fn chosen() -> Result<Option<Sabotage>, String> {
    match std::env::var(VARIABLE) {
        Ok(name) => read(&name).map(Some),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(error) => Err(format!("`{VARIABLE}`: {error}")),
    }
}

fn read(name: &str) -> Result<Sabotage, String> {
    if !cfg!(feature = "sabotage") {
        return Err(format!("`{VARIABLE}` is set, but this build keeps its promises; unset it"));
    }
    let found = Sabotage::ALL.into_iter().find(|sabotage| sabotage.name() == name);
    found.ok_or_else(|| {
        let names = Sabotage::ALL.map(Sabotage::name).join(", ");
        format!("`{VARIABLE}` = {name}: must be one of {names}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_for_use_breaks_nothing_and_says_so() {
        if cfg!(feature = "sabotage") {
            assert_eq!(read("skip-dedup"), Ok(Sabotage::SkipDedup));
            assert!(read("everything").expect_err("unknown").contains("double-charge"));
        } else {
            assert!(Sabotage::ALL.into_iter().all(|what| !is(what)));
            assert!(read("skip-dedup").expect_err("not this build").contains("keeps its promises"));
        }
    }
}
