//! How a command fails.

use std::process::ExitCode;

/// Why a command did not do what it was asked, with the exit code that scripts rely on. The text
/// is one line that says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Exit code 1.
    #[error("{0}")]
    Operation(String),
    /// A node wants a token, or one with another role: exit code 1. Asking another node is of no use.
    #[error("{0}")]
    Refused(String),
    /// Bad usage or configuration: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The cluster cannot be reached or has no quorum: exit code 3.
    #[error("{0}")]
    Unavailable(String),
}

impl Failure {
    pub fn operation(text: impl Into<String>) -> Self {
        Self::Operation(one_line(&text.into()))
    }

    pub fn refused(text: impl Into<String>) -> Self {
        Self::Refused(one_line(&text.into()))
    }

    pub fn usage(text: impl Into<String>) -> Self {
        Self::Usage(one_line(&text.into()))
    }

    pub fn unavailable(text: impl Into<String>) -> Self {
        Self::Unavailable(one_line(&text.into()))
    }

    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Operation(_) | Self::Refused(_) => 1,
            Self::Usage(_) => 2,
            Self::Unavailable(_) => 3,
        })
    }
}

impl From<crate::config::Error> for Failure {
    fn from(error: crate::config::Error) -> Self {
        Self::usage(error.to_string())
    }
}

fn one_line(text: &str) -> String {
    text.split('\n').map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}
