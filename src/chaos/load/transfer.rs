//! A bank of a kind: units are held on two accounts at once, then taken or given back, and what
//! was taken is put on a third.
//!
//! An account is a SKU. Whatever fails on the way, what all accounts hold together is what they
//! began with, less what was taken and not yet put.

use super::{Workload, client::Client, skus};
use serde_json::json;
use std::time::Duration;

const TRANSFER_PAUSE: Duration = Duration::from_millis(150);
/// Longer than any run: what is left held is seen as held.
const TTL: &str = "24h";

pub(super) async fn run(mut client: Client) {
    let accounts = skus(Workload::Transfer);
    while client.pause(TRANSFER_PAUSE).await {
        let first = client.draw(accounts.len());
        let at = |offset: usize| accounts[(first + offset) % accounts.len()];
        let (units, more) = (1 + client.draw(5), 1 + client.draw(5));
        let body = json!({"ttl": TTL, "items": [
            {"sku": at(0), "quantity": units}, {"sku": at(1), "quantity": more},
        ]});
        let key = client.key("hold");
        let held = client.post("/v1/reservations".into(), key.clone(), &body).await;
        if client.one_in(4) {
            client.post("/v1/reservations".into(), key, &body).await;
        }
        let Some((201, held)) = held else { continue };
        let Some(id) = held["id"].as_str() else { continue };
        if client.one_in(4) {
            let key = client.key("release");
            client.post(format!("/v1/reservations/{id}/release"), key, &json!({})).await;
        } else if commit(&mut client, id).await {
            put(&mut client, at(2), units + more).await;
        }
    }
}

async fn commit(client: &mut Client, id: &str) -> bool {
    let (key, path) = (client.key("take"), format!("/v1/reservations/{id}/commit"));
    let taken = client.post(path.clone(), key.clone(), &json!({})).await;
    if client.one_in(4) {
        client.post(path, key, &json!({})).await;
    }
    matches!(taken, Some((200, _)))
}

/// The reason is the key: a reader of the account's history sees whether it was put once.
async fn put(client: &mut Client, account: &str, units: usize) {
    let key = client.key("put");
    let body = json!({"delta": units, "reason": key});
    let path = format!("/v1/inventory/{account}/adjustments");
    client.post(path.clone(), key.clone(), &body).await;
    if client.one_in(4) {
        client.post(path, key, &body).await;
    }
}
