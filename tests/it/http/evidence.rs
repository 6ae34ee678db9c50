//! Receipts: every write gives one, every replica can be asked about it.

use super::{Answer, Shop, order};
use serde_json::{Value, json};
use std::time::Instant;

/// What a node says of a receipt, once its replica has come so far.
async fn verdict(shop: &Shop, node: usize, receipt: &str) -> Value {
    let began = Instant::now();
    loop {
        let answer = shop.send_to(node, "GET", &format!("/admin/v1/receipts/{receipt}")).await_answer().await.is(200);
        if answer.text("verdict") != "not-applied-yet" || began.elapsed() > super::PATIENCE {
            return answer.body;
        }
        tokio::task::yield_now().await;
    }
}

fn receipt(answer: &Answer) -> String {
    let receipt = answer.header("x-receipt");
    assert!(!receipt.is_empty(), "an acknowledged write carries a receipt: {} {:?}", answer.text, answer.headers);
    receipt.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_write_of_the_shop_carries_a_receipt_that_every_replica_confirms() {
    let shop = Shop::start(3).await;
    let mut receipts = Vec::new();
    let mut keep = |answer: Answer| {
        receipts.push(receipt(&answer));
        answer
    };
    let put = shop.send("PUT", "/v1/inventory/mug").json(&json!({"on_hand": 50})).await_answer().await.is(200);
    keep(put);
    let adjust = shop.send("POST", "/v1/inventory/mug/adjustments").json(&json!({"delta": 5, "reason": "found"}));
    keep(adjust.await_answer().await.is(200));
    let place = || shop.send("POST", "/v1/orders").key("k1").header("prefer", "wait=10").json(&order("mug", 2));
    let placed = keep(place().await_answer().await.is(201));
    let (id, first) = (placed.text("id").to_owned(), receipt(&placed));
    let replayed = place().await_answer().await.is(201);
    assert_eq!(
        (replayed.header("idempotent-replayed"), receipt(&replayed)),
        ("true", first),
        "the first receipt again"
    );
    for action in ["fulfillments", "returns"] {
        keep(shop.send("POST", &format!("/v1/orders/{id}/{action}")).json(&json!({})).await_answer().await.is(200));
    }
    let second = shop.send("POST", "/v1/orders").key("k2").header("prefer", "wait=10").json(&order("mug", 1));
    let second = keep(second.await_answer().await.is(201));
    let cancel = shop.send("POST", &format!("/v1/orders/{}/cancel", second.text("id"))).json(&json!({}));
    keep(cancel.await_answer().await.is(200));
    let payment = json!({"amount": {"amount": 500, "currency": "USD"}, "payment_method": "pm_card_ok"});
    let pay = |key: &str| {
        shop.send("POST", "/v1/payments").key(key).header("prefer", "wait=10").json(&payment).await_answer()
    };
    let (captured, voided) = (keep(pay("p1").await.is(201)), keep(pay("p2").await.is(201)));
    for (paid, action) in [(&captured, "capture"), (&captured, "refunds"), (&voided, "void")] {
        let change = shop.send("POST", &format!("/v1/payments/{}/{action}", paid.text("id")));
        keep(change.header("prefer", "wait=10").json(&json!({})).await_answer().await.is(200));
    }
    let hold = json!({"items": [{"sku": "mug", "quantity": 1}], "ttl": "5m"});
    for end in ["commit", "release"] {
        let held = keep(shop.send("POST", "/v1/reservations").key(end).json(&hold).await_answer().await.is(201));
        let id = held.text("id");
        let extend = shop.send("POST", &format!("/v1/reservations/{id}/extend")).json(&json!({"ttl": "15m"}));
        keep(extend.await_answer().await.is(200));
        let ended = shop.send("POST", &format!("/v1/reservations/{id}/{end}")).json(&json!({}));
        keep(ended.await_answer().await.is(200));
    }
    assert_eq!(receipts.len(), 18);
    for receipt in &receipts {
        for node in 0..3 {
            let said = verdict(&shop, node, receipt).await;
            assert_eq!((&said["verdict"], &said["receipt"]), (&json!("confirmed"), &json!(receipt)), "{said}");
            assert_eq!((said["replicas"].as_array().map(Vec::len), said["node"].is_u64()), (Some(3), true), "{said}");
        }
    }
    let read = shop.get("/v1/inventory/mug").await_answer().await.is(200);
    assert!(!read.headers.contains_key("x-receipt"), "a read proves nothing");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_receipt_is_told_from_a_real_one() {
    let shop = Shop::start(1).await;
    let put = shop.send("PUT", "/v1/inventory/mug").json(&json!({"on_hand": 5})).await_answer().await.is(200);
    let real = receipt(&put);
    let parts: Vec<u64> = real.split('-').take(3).map(|part| part.parse().expect("a number")).collect();
    let (shard, term, index) = (parts[0], parts[1], parts[2]);
    let hash = u32::from_str_radix(real.rsplit('-').next().expect("a hash"), 16).expect("hexadecimal");
    let written = |shard: u64, term: u64, index: u64, hash: u32| format!("{shard}-{term}-{index}-{hash:08x}");
    let cases = [
        (written(shard, term, index, hash), "confirmed"),
        (written(shard, term, index, hash ^ 1), "contradicted"),
        (written(shard, term + 1, index, hash), "contradicted"),
        (written(shard, term, index - 1, hash), "contradicted"),
        (written(shard, term, index + 1_000_000, hash), "not-applied-yet"),
        (written(4000, term, index, hash), "not-a-replica"),
        (written(65535, term, index, hash), "not-a-replica"),
    ];
    for (receipt, verdict) in cases {
        let said = shop.get(&format!("/admin/v1/receipts/{receipt}")).await_answer().await.is(200);
        assert_eq!(said.text("verdict"), verdict, "{receipt}: {}", said.text);
        let beyond = said.body["last_log_index"].as_u64().is_some_and(|last| last < index + 1_000_000);
        assert!(verdict != "not-applied-yet" || beyond, "{}", said.text);
    }
    for bad in ["x", "1-2-3", "1-2-3-xyz", "01-2-3-0000000a"] {
        let refused = shop.get(&format!("/admin/v1/receipts/{bad}")).problem().await;
        assert_eq!(refused, (400, "invalid-parameter".into(), "receipt".into()), "{bad}");
    }
    let wrong = shop.send("POST", &format!("/admin/v1/receipts/{real}")).problem().await;
    assert_eq!((wrong.0, wrong.1.as_str()), (405, "method-not-allowed"));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_older_than_what_is_kept_are_forgotten() {
    let builder = quorate::ingress::shop::register(quorate::Cluster::in_memory(1)).configure(|config| {
        config.shard.receipts_kept = 64;
        config.shard.checkpoint_bytes = bytesize::ByteSize::kib(4);
    });
    let shop = Shop::start_on(builder, 1).await;
    let put = |on_hand: u64| shop.send("PUT", "/v1/inventory/mug").json(&json!({"on_hand": on_hand})).await_answer();
    let first = receipt(&put(1).await.is(200));
    let began = Instant::now();
    let mut on_hand = 1;
    while verdict(&shop, 0, &first).await["verdict"] != "forgotten" {
        on_hand += 1;
        let last = receipt(&put(on_hand).await.is(200));
        assert_eq!(verdict(&shop, 0, &last).await["verdict"], "confirmed");
        assert!(began.elapsed() < super::PATIENCE, "{on_hand} writes later, {first} is still known");
    }
    shop.stop().await;
}
