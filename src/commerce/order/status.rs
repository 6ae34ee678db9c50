//! The order's state machine: one explicit table.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Where an order is.
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
    /// A part is on its way to the customer.
    PartiallyFulfilled,
    /// Everything is.
    Fulfilled,
    /// A part came back.
    PartiallyReturned,
    /// Everything did.
    Returned,
    /// There was no stock.
    Rejected,
    /// A reservation ran out.
    Expired,
    /// Giving back stock and money.
    Compensating,
    Cancelled,
    /// A compensation, or the refund of a return, cannot finish without help.
    NeedsAttention,
}

/// What a client may ask of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Take everything back before anything has shipped; or try again what needs attention.
    Cancel,
    Fulfill,
    Return,
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
            PartiallyReturned => &[Returned, NeedsAttention],
            Returned => &[NeedsAttention],
            Compensating => &[Cancelled, Expired, NeedsAttention],
            // Back to where it was: which of them, [`super::State::next`] knows.
            NeedsAttention => &[Compensating, PartiallyReturned, Returned],
            Rejected | Expired | Cancelled => &[],
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

impl Action {
    pub const ALL: [Action; 3] = [Self::Cancel, Self::Fulfill, Self::Return];

    /// Where a client may ask for it.
    pub fn allowed_in(self) -> &'static [Status] {
        use Status::*;
        match self {
            Self::Cancel => &[Pending, Backordered, Reserved, Authorized, Confirmed, NeedsAttention],
            Self::Fulfill => &[Confirmed, PartiallyFulfilled],
            Self::Return => &[Fulfilled, PartiallyReturned],
        }
    }

    /// Where it leads in the end, for who asks at the wrong time.
    pub fn leads_to(self) -> Status {
        match self {
            Self::Cancel => Status::Compensating,
            Self::Fulfill => Status::Fulfilled,
            Self::Return => Status::Returned,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Fulfill => "fulfill",
            Self::Return => "return",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
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

    /// But for needs_attention, which returns to where it came from:
    /// `random_orders` shows that an order does.
    #[test]
    fn what_has_shipped_is_never_compensated() {
        use Status::*;
        for status in [PartiallyFulfilled, Fulfilled, PartiallyReturned, Returned] {
            let directly = reachable(status).into_iter().filter(|status| *status != NeedsAttention);
            assert!(!directly.into_iter().any(|status| status.may_become(Compensating)), "{status}");
        }
    }

    #[test]
    fn what_may_be_asked_for_leads_somewhere_in_the_table() {
        for action in Action::ALL {
            for from in action.allowed_in() {
                assert!(from.may_become(action.leads_to()), "{action:?} in {from}");
            }
        }
    }

    #[test]
    fn an_order_can_be_cancelled_wherever_it_may_be_compensated() {
        for status in Status::ALL {
            let cancelled = Action::Cancel.allowed_in().contains(&status);
            assert_eq!(cancelled, status.may_become(Status::Compensating), "{status}");
        }
    }
}
