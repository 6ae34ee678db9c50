//! Whether a cluster kept its word: one file per invariant.
//!
//! ```text
//! history ─▶ observe: reads, when all is quiet ─▶ Observed ─┐
//!    └──────────────────────────────────────────────────────┴─▶ judge, one per invariant ─▶ Verdict
//! ```
//!
//! Judges are pure functions of the history and of what was read, so that each is tested against
//! histories that are good and histories that are not. What a node does not offer is skipped with
//! the reason; what could not be read is a violation, since by then it must be readable.

mod acknowledged;
mod charges;
mod idempotency;
pub mod linearizable;
mod memory;
mod money;
pub mod observe;
mod owners;
mod receipts;
mod replicas;
mod sagas;
mod stock;
mod targets;
#[cfg(test)]
pub mod testing;

use super::{
    gateway::{Gateway, Ledger},
    history::History,
    verdict::Verdict,
};
use observe::Observed;
use std::time::Duration;

/// Reads what there is to read, and judges every invariant. To be called when every node runs, no
/// fault is in force and the load has stopped.
///
/// It changes nothing, and takes as long as the last order takes to end, within
/// [`observe::QUIET_MAX`].
pub async fn check(history: &History, urls: &[String]) -> Vec<Verdict> {
    check_with(history, urls, None, observe::QUIET_MAX).await
}

/// The same within another time, with the books of the gateway that took the money.
pub async fn check_with(
    history: &History,
    urls: &[String],
    gateway: Option<&Gateway>,
    quiet_max: Duration,
) -> Vec<Verdict> {
    let seen = observe::observe(history, urls, quiet_max).await;
    // Not before all is quiet: until then orders are still being charged.
    let ledger = gateway.map(Gateway::ledger);
    judge(history, &seen, ledger.as_ref())
}

/// Every verdict, in the order in which reports show them.
#[must_use]
pub fn judge(history: &History, seen: &Observed, ledger: Option<&Ledger>) -> Vec<Verdict> {
    vec![
        acknowledged::judge(history, seen),
        receipts::judge(history, seen),
        linearizable::judge(history, seen),
        stock::judge(history, seen),
        money::judge(history, seen),
        charges::judge(history, seen, ledger),
        sagas::judge(history, seen),
        idempotency::judge(history),
        replicas::judge(seen),
        owners::judge(history),
        memory::judge(history),
    ]
}
