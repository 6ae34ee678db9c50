//! What can be wrong with a configuration.

use super::{Source, secret};
use std::{fmt, path::PathBuf};

/// How the value of a key without one is shown: that is no secret.
pub(super) const UNSET: &str = "unset";

/// Why a configuration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}: {reason}; check the path given with --config", path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error("{}:{line}: not valid TOML: {reason}", path.display())]
    Syntax { path: PathBuf, line: usize, reason: String },
    /// Never empty. Shows the first problem; [`Error::problems`] has them all.
    #[error("{}{}", .0[0], more(.0.len()))]
    Invalid(Vec<Problem>),
}

impl Error {
    /// Every problem, one line each.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        match self {
            Self::Invalid(problems) => problems.iter().map(ToString::to_string).collect(),
            other => vec![other.to_string()],
        }
    }
}

fn more(problems: usize) -> String {
    match problems {
        0 | 1 => String::new(),
        n => format!(" (and {} more: `quorate config check FILE` lists them)", n - 1),
    }
}

/// One thing that is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The values concerned: one, or the two that disagree.
    settings: Vec<Setting>,
    what: String,
    fix: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub key: String,
    /// As TOML; `None` where the key itself is the problem.
    pub value: Option<String>,
    pub source: Source,
}

impl Problem {
    pub(super) fn new(settings: Vec<Setting>, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { settings, what: what.into(), fix: fix.into() }
    }

    /// The keys concerned.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.settings.iter().map(|setting| setting.key.as_str())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, setting) in self.settings.iter().enumerate() {
            let separator = if i == 0 { "" } else { " and " };
            write!(f, "{separator}{setting}")?;
        }
        write!(f, ": {}; {}", self.what, self.fix)
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.key)?;
        match &self.value {
            Some(value) if secret::is_secret(&self.key) && value != UNSET => write!(f, " = {}", secret::REDACTED)?,
            Some(value) => write!(f, " = {value}")?,
            None => {}
        }
        write!(f, " ({})", self.source)
    }
}
