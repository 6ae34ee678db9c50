//! What a connection says of who is at its other end.

use std::{fmt, sync::Arc};

/// Whom the other side of a connection may claim to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Counterpart {
    /// There is no TLS here: whoever knows the cluster secret.
    Anyone,
    /// One of those that its certificate names.
    Named(Arc<[String]>),
}

impl Counterpart {
    /// Whether it may go by this name.
    pub fn may_be(&self, name: &str) -> bool {
        match self {
            Self::Anyone => true,
            Self::Named(names) => names.iter().any(|one| one == name),
        }
    }

    /// # Errors
    /// It may not go by this name; one line that says who it may be.
    pub fn check(&self, name: &str) -> Result<(), String> {
        match self.may_be(name) {
            true => Ok(()),
            false => Err(format!("the certificate is for {self}, not for {name}")),
        }
    }
}

impl fmt::Display for Counterpart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anyone => f.write_str("anyone"),
            Self::Named(names) if names.is_empty() => f.write_str("no name"),
            Self::Named(names) => f.write_str(&names.join(", ")),
        }
    }
}
