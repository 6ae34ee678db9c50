//! Readers and writers of a few values: what linearizability is judged by.
//!
//! A register is the `on_hand` of a SKU that nobody orders. Every value is written by one
//! operation only, and none has an idempotency key: an attempt is an operation.

use super::{Workload, client::Client, skus};
use crate::chaos::history::{Json, Method, Outcome, Request};
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};

/// Operations a second on one register: many enough to meet, few enough to be checked.
const RATE_PER_REGISTER: u32 = 10;
/// Nobody is faster than this, however few there are.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// Between two looks of a node's reader.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// How long a node's reader waits: a node that is cut off answers at once what it still takes for
/// its own, if it does so, and the rest never.
const LOOK_MAX: Duration = Duration::from_millis(300);

/// One of `clients` that share the registers.
pub(super) async fn run(mut client: Client, clients: usize) {
    let registers = skus(Workload::Register);
    let rate = RATE_PER_REGISTER * u32::try_from(registers.len()).unwrap_or(1);
    let pause = (Duration::from_secs(1) * u32::try_from(clients).unwrap_or(u32::MAX) / rate).max(PAUSE_MIN);
    // The version that this client saw last.
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    while client.pause(pause).await {
        let register = client.pick(registers);
        let path = format!("/v1/inventory/{register}");
        let outcome = match client.draw(10) {
            0..5 => client.get(path).await,
            5..8 => write(&mut client, path, None).await,
            _ => {
                let condition = seen.get(register).copied();
                write(&mut client, path, condition).await
            }
        };
        if let Outcome::Answered { body, .. } = outcome
            && let Some(version) = body.value()["version"].as_u64()
        {
            seen.insert(register, version);
        }
    }
}

/// Reads at one node only. The other clients, cut off with it, would soon all be waiting for writes
/// that cannot end, and nobody would see what it tells meanwhile.
pub(super) async fn read_at(mut client: Client, node: usize) {
    while client.pause(LOOK_PAUSE).await {
        let register = client.pick(skus(Workload::Register));
        client.glance(node, format!("/v1/inventory/{register}"), LOOK_MAX).await;
    }
}

async fn write(client: &mut Client, path: String, if_match: Option<u64>) -> Outcome {
    let body = Json::from(&json!({"on_hand": client.unique()}));
    client.once(Request { method: Method::Put, path, key: None, if_match, body }).await
}
