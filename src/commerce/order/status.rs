//! The order's state machine: one explicit table.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Where an order is. The whole machine is here; which parts the saga drives today is in
/// docs/shop.md.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Placed; its stock is being reserved.
    #[default]
    Pending,
    /// Waiting for stock to come in.
    Backordered,
    /// All stock is held; the payment is being authorized.
    Reserved,
    /// The payment is authorized; stock is being committed, then the payment captured.
    Authorized,
    /// Stock is committed and the payment captured.
    Confirmed,
    PartiallyFulfilled,
    Fulfilled,
    PartiallyReturned,
    Returned,
    /// There was no stock.
    Rejected,
    /// A reservation ran out.
    Expired,
    /// Giving back stock and money.
    Compensating,
    Cancelled,
    /// Compensation cannot finish without help.
    NeedsAttention,
}

impl Status {
    pub const ALL: [Status; 14] = [
        Self::Pending,
        Self::Backordered,
        Self::Reserved,
        Self::Authorized,
        Self::Confirmed,
        Self::PartiallyFulfilled,
        Self::Fulfilled,
        Self::PartiallyReturned,
        Self::Returned,
        Self::Rejected,
        Self::Expired,
        Self::Compensating,
        Self::Cancelled,
        Self::NeedsAttention,
    ];

    /// The transition table: where an order may go from here.
    pub fn allowed(self) -> &'static [Status] {
        use Status::*;
        match self {
            Pending => &[Reserved, Backordered, Rejected, Expired, Compensating],
            Backordered => &[Reserved, Rejected, Expired, Compensating],
            Reserved => &[Authorized, Compensating],
            Authorized => &[Confirmed, Compensating],
            Confirmed => &[PartiallyFulfilled, Fulfilled, Compensating],
            PartiallyFulfilled => &[Fulfilled],
            Fulfilled => &[PartiallyReturned, Returned],
            PartiallyReturned => &[Returned],
            Compensating => &[Cancelled, Expired, NeedsAttention],
            NeedsAttention => &[Compensating],
            Returned | Rejected | Expired | Cancelled => &[],
        }
    }

    pub fn may_become(self, next: Status) -> bool {
        self.allowed().contains(&next)
    }

    /// True where the saga has nothing left to do by itself: `Prefer: wait` may stop waiting.
    pub fn is_settled(self) -> bool {
        !matches!(self, Self::Pending | Self::Backordered | Self::Reserved | Self::Authorized | Self::Compensating)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Backordered => "backordered",
            Self::Reserved => "reserved",
            Self::Authorized => "authorized",
            Self::Confirmed => "confirmed",
            Self::PartiallyFulfilled => "partially_fulfilled",
            Self::Fulfilled => "fulfilled",
            Self::PartiallyReturned => "partially_returned",
            Self::Returned => "returned",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Compensating => "compensating",
            Self::Cancelled => "cancelled",
            Self::NeedsAttention => "needs_attention",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that can be reached from a status, itself included.
    fn reachable(from: Status) -> Vec<Status> {
        let mut seen = vec![from];
        let mut at = 0;
        while at < seen.len() {
            for &next in seen[at].allowed() {
                if !seen.contains(&next) {
                    seen.push(next);
                }
            }
            at += 1;
        }
        seen
    }

    #[test]
    fn every_status_can_be_reached_from_pending() {
        let reached = reachable(Status::Pending);
        assert!(Status::ALL.iter().all(|status| reached.contains(status)), "{reached:?}");
    }

    #[test]
    fn every_status_that_is_not_settled_can_still_settle() {
        for status in Status::ALL {
            assert!(reachable(status).iter().any(|s| s.is_settled()), "{status}");
        }
    }

    #[test]
    fn names_are_what_is_serialised() {
        for status in Status::ALL {
            let json = serde_json::to_string(&status).expect("serialises");
            assert_eq!(json, format!("\"{status}\""));
        }
    }

    #[test]
    fn what_has_shipped_is_never_compensated() {
        use Status::*;
        for status in [PartiallyFulfilled, Fulfilled, PartiallyReturned, Returned] {
            assert!(!reachable(status).contains(&Compensating), "{status}");
        }
    }
}
