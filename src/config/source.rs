//! Where a value came from.

use super::Config;
use std::{collections::BTreeMap, fmt, path::PathBuf};

/// Where a value came from, most specific last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Default,
    /// Set by the program that embeds the node.
    Code,
    /// A line (1-based) of a file.
    File {
        path: PathBuf,
        line: usize,
    },
    /// An environment variable, by its name.
    Env(String),
    /// A command-line flag, as `--name`.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Code => f.write_str("set in code"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Env(name) => write!(f, "environment {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// The source of every value that is not a default, by key (`section.key`).
#[derive(Debug, Clone, Default)]
pub struct Sources(BTreeMap<String, Source>);

impl Sources {
    /// Where the value of `key` came from.
    #[must_use]
    pub fn of(&self, key: &str) -> Source {
        self.0.get(key).cloned().unwrap_or(Source::Default)
    }

    /// For a configuration that was not loaded: what differs from the default was set in code.
    #[must_use]
    pub fn in_code(config: &Config) -> Self {
        let defaults = super::schema::leaves(&Config::default());
        let set = super::schema::leaves(config).into_iter().filter(|(key, value)| defaults.get(key) != Some(value));
        Self(set.map(|(key, _)| (key, Source::Code)).collect())
    }

    pub(super) fn set(&mut self, key: &str, source: Source) {
        self.0.insert(key.to_owned(), source);
    }
}
