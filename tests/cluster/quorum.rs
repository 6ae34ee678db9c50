//! Two of three nodes are gone: the last one says so, and shows what it has.

use crate::{
    audit::audit,
    harness::{Cluster, turn},
    shop::{self, Customer, Placed, assert_is_problem},
};
use futures::future::join_all;
use std::time::Duration;

/// Within which a node that cannot write must say so.
const SAYS_NO_WITHIN: Duration = Duration::from_secs(3);
const ORDERS: usize = 12;
/// What there is to say about two dead peers, however long they stay dead.
const LOG_LINES_MAX: usize = 100;

#[tokio::test]
async fn without_a_quorum_writes_are_refused_in_time_and_local_reads_answered() {
    let _turn = turn().await;
    let cluster = Cluster::start(3).await;
    shop::stock_up(cluster.node(0)).await;
    let mut placed = place(&cluster, "before").await;
    audit(&cluster, &placed).await;
    let lines = || cluster.node(0).log_text().lines().count();
    let lines_before = lines();
    cluster.node(1).kill9();
    cluster.node(2).kill9();
    // Thrice: while it may still think itself an owner, in between, and when it knows better.
    for round in 0..3 {
        let refused = (0..ORDERS).map(|number| refused_write(&cluster, round, number));
        let codes = join_all(refused).await;
        assert!(round < 2 || codes.iter().all(|code| code == "no-quorum"), "it knows by now: {codes:?}");
    }
    check_survivor(&cluster, &placed).await;
    let new_lines = lines() - lines_before;
    assert!(new_lines <= LOG_LINES_MAX, "{new_lines} lines about dead peers: {}", cluster.node(0).log_tail());
    for node in [cluster.node(2), cluster.node(1)] {
        node.restart();
    }
    cluster.wait_ready("when the two are back").await;
    for round in 0..3 {
        // The outcome was unknown or nothing: with the same key, each takes effect once.
        for number in 0..ORDERS {
            let mut customer = Customer::new(cluster.nodes(), number);
            placed.push(customer.place(&refused_key(round, number), shop::order(number)).await);
        }
    }
    placed.extend(place(&cluster, "after").await);
    audit(&cluster, &placed).await;
}

async fn place(cluster: &Cluster, name: &str) -> Vec<Placed> {
    let order = |number: usize| async move {
        Customer::new(cluster.nodes(), number).place(&format!("{name}-{number}"), shop::order(number)).await
    };
    join_all((0..ORDERS).map(order)).await
}

fn refused_key(round: usize, number: usize) -> String {
    format!("refused-{round}-{number}")
}

/// Returns the problem's code.
async fn refused_write(cluster: &Cluster, round: usize, number: usize) -> String {
    let (node, key) = (cluster.node(0), refused_key(round, number));
    let client = node.client().with_timeout(SAYS_NO_WITHIN);
    let answer = client.post("/v1/orders", &shop::order(number), &[("idempotency-key", &key)]).await;
    let answer = answer.unwrap_or_else(|error| panic!("{} says nothing in time: {error}", node.name));
    assert_is_problem(&answer);
    let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
    let expected = [(503, "no-quorum"), (504, "outcome-unknown")];
    assert!(expected.contains(&(answer.status, code.as_str())), "{}", answer.text());
    assert!(answer.header("retry-after").is_some(), "{:?}", answer.headers);
    code
}

async fn check_survivor(cluster: &Cluster, placed: &[Placed]) {
    let client = cluster.node(0).client().with_timeout(SAYS_NO_WITHIN);
    let get = async |path: &str| client.get(path).await.unwrap_or_else(|error| panic!("GET {path}: {error}"));
    assert_eq!(get("/livez").await.status, 200, "it lives, whoever else does");
    for order in placed {
        let path = format!("/v1/orders/{}", order.id());
        let local = get(&format!("{path}?consistency=local")).await;
        assert_eq!(local.status, 200, "{}", local.text());
        assert_eq!(local.json()["total"], order.answer["total"]);
        assert!(local.header("x-applied-index").is_some(), "{:?}", local.headers);
    }
    let linearizable = get(&format!("/v1/orders/{}", placed[0].id())).await;
    assert_is_problem(&linearizable);
    assert_eq!(linearizable.json()["code"], "no-quorum", "{}", linearizable.text());
}
