//! Judges what was recorded, once all is quiet.

use super::{history::History, verdict::Verdict};

/// Every invariant that can be judged.
pub async fn check(history: &History, _urls: &[String]) -> Vec<Verdict> {
    let mut served = Verdict::new("served");
    let acknowledged = history.operations.iter().filter(|one| one.acknowledged().is_some()).count();
    served.expect(acknowledged > 0, || "not one request was answered".into(), Vec::new);
    vec![served]
}
