//! The card gateway of nodes that are real processes: how they get to know it, and how what they
//! say is compared with its books.
//!
//! The gateway lives in the test, so that no kill reaches it: it is the witness.

use crate::{
    harness::Cluster,
    https::Https,
    till::{API_KEY, Intent, Till},
};
use std::{collections::BTreeMap, time::Duration};

/// What a node waits for an answer of the gateway.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// Three nodes that charge cards at `till`, which has its certificate of `https`.
pub async fn cluster_at(till: &Till, https: &Https) -> Cluster {
    let keys = [
        "gateway.kind=http".to_owned(),
        format!("gateway.base_url={}", till.url),
        format!("gateway.api_key={API_KEY}"),
        format!("outbound.ca_file={}", https.ca_file().display()),
        format!("gateway.request_timeout={}ms", REQUEST_TIMEOUT.as_millis()),
    ];
    let arguments: Vec<&str> = keys.iter().flat_map(|key| ["--set", key]).collect();
    Cluster::start_with(3, &arguments).await
}

/// What the gateway holds of each payment: one authorization at most, and no offence.
pub fn accounts(till: &Till) -> BTreeMap<String, Intent> {
    let ledger = till.ledger();
    assert_eq!(ledger.offences, Vec::<String>::new());
    let mut accounts = BTreeMap::new();
    for intent in ledger.intents.values() {
        let other = accounts.insert(intent.payment_id.clone(), intent.clone());
        assert_eq!(other, None, "{} was authorized twice", intent.payment_id);
    }
    accounts
}

/// 0 to `sides` − 1, the same for the same `what` for ever.
pub fn dice(what: &str, sides: u64) -> u64 {
    let hash = blake3::hash(what.as_bytes());
    let (first, _) = hash.as_bytes().split_first_chunk().expect("32 bytes");
    u64::from_le_bytes(*first) % sides
}
