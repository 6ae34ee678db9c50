//! Authorizations that run out. A durable timer has the gateway let go, and its answer, not the
//! clock alone, ends the payment: else money would stay held that nobody here knows of.

use super::{Command, Fact, Payment, Status, Step};
use crate::entity::Effect;

const TIMER: &str = "expiry";
/// The wait before the gateway is asked again to let go of what has run out, if it refused.
const REFUSED_WAIT_MS: u64 = 3_600_000;

impl Step<'_> {
    /// Sees to it that an authorization does not last for ever: the timer is set while there is
    /// one that nothing is being done about, for `wait_ms` from now at the earliest.
    pub(super) fn watch_expiry(&mut self, wait_ms: u64) {
        let state = &self.draft.state;
        let Some(expires_at_ms) = state.expires_at_ms else { return };
        self.draft.effect(if state.status == Status::Authorized {
            let at_ms = expires_at_ms.max(self.context.now_ms.saturating_add(wait_ms));
            Effect::schedule::<Payment>(TIMER, at_ms, &Command::ExpiryDue)
        } else {
            Effect::cancel_schedule(TIMER)
        });
    }

    /// What is in flight settles first; if it leaves the authorization standing, it sets the
    /// timer again.
    pub(super) fn expiry_due(&mut self) {
        let state = &self.draft.state;
        let due = state.status == Status::Authorized && state.has_run_out(self.context.now_ms);
        if due && state.in_flight.is_none() {
            self.emit(Fact::ExpiryRequested);
            self.run_in_flight();
        }
    }

    /// How long the timer waits at least, should the void in flight have been refused.
    pub(super) fn wait_after_refusal_ms(&self) -> u64 {
        if self.draft.state.expiring { REFUSED_WAIT_MS } else { 0 }
    }
}
