//! The payment's state machine: one explicit table, and what a client may ask for where.

use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    #[default]
    Created,
    Authorizing,
    Authorized,
    Capturing,
    Captured,
    Declined,
    Voided,
    AuthorizationExpired,
    /// The gateway has not said what became of the operation in flight.
    Unknown,
}

/// What a client may ask of a payment once it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Capture,
    Void,
    Refund,
}

impl Status {
    pub const ALL: [Status; 9] = [
        Self::Created,
        Self::Authorizing,
        Self::Authorized,
        Self::Capturing,
        Self::Captured,
        Self::Declined,
        Self::Voided,
        Self::AuthorizationExpired,
        Self::Unknown,
    ];

    /// Where a payment may go from here. The table of docs/shop.md.
    pub fn allowed(self) -> &'static [Status] {
        use Status::*;
        match self {
            Created => &[Authorizing, Voided],
            Authorizing => &[Authorized, Declined, Unknown],
            Authorized => &[Capturing, Voided, AuthorizationExpired, Unknown],
            Capturing => &[Captured, Authorized, AuthorizationExpired, Unknown],
            Captured => &[Unknown],
            Unknown => &[Authorized, Declined, Captured, Voided, AuthorizationExpired],
            Declined | Voided | AuthorizationExpired => &[],
        }
    }

    pub fn may_become(self, next: Status) -> bool {
        self.allowed().contains(&next)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Authorizing => "authorizing",
            Self::Authorized => "authorized",
            Self::Capturing => "capturing",
            Self::Captured => "captured",
            Self::Declined => "declined",
            Self::Voided => "voided",
            Self::AuthorizationExpired => "authorization_expired",
            Self::Unknown => "unknown",
        }
    }
}

impl Action {
    pub const ALL: [Action; 3] = [Self::Capture, Self::Void, Self::Refund];

    /// The one state in which it may be asked for.
    pub fn needs(self) -> Status {
        match self {
            Self::Capture | Self::Void => Status::Authorized,
            Self::Refund => Status::Captured,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Void => "void",
            Self::Refund => "refund",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reachable(from: Status) -> Vec<Status> {
        let mut seen = vec![from];
        let mut at = 0;
        while at < seen.len() {
            let next: Vec<_> = seen[at].allowed().iter().filter(|next| !seen.contains(next)).copied().collect();
            seen.extend(next);
            at += 1;
        }
        seen
    }

    #[test]
    fn every_status_can_be_reached_and_names_are_what_is_serialised() {
        let reached = reachable(Status::Created);
        for status in Status::ALL {
            assert!(reached.contains(&status), "{status}");
            assert_eq!(serde_json::to_string(&status).expect("serialises"), format!("\"{status}\""));
        }
        for action in Action::ALL {
            assert_eq!(serde_json::to_string(&action).expect("serialises"), format!("\"{action}\""));
        }
    }

    #[test]
    fn money_that_was_taken_is_never_voided_and_the_end_is_final() {
        assert!(!Status::Captured.may_become(Status::Voided), "void only before capture");
        for last in [Status::Declined, Status::Voided, Status::AuthorizationExpired] {
            assert_eq!(reachable(last), [last]);
        }
    }

    #[test]
    fn what_may_be_asked_for_leads_somewhere_in_the_table() {
        assert!(Action::Capture.needs().may_become(Status::Capturing));
        assert!(Action::Void.needs().may_become(Status::Voided));
        assert_eq!(Action::Refund.needs(), Status::Captured);
    }
}
