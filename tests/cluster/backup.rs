//! Backups of real nodes that die meanwhile, and restores that are killed halfway.

use crate::{
    audit::audit_on,
    harness::{Cluster, Node, PATIENCE, run, turn, wait_until},
    shop::{self, Customer, Load, Placed},
};
use futures::future::join_all;
use std::{
    path::{Path, PathBuf},
    process::Output,
};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

async fn quorate(command: &str, file: &Path, node: &Node) -> Output {
    run(&[command, &file.display().to_string(), "--url", &node.url, "--json"]).await
}

/// The backup is there and whole, or there is none and it says why.
fn is_whole(output: &Output, file: &Path) -> bool {
    let (said, complained) = (text(&output.stdout), text(&output.stderr));
    let part = file.with_extension("backup.part");
    assert!(!part.exists(), "{} was left behind: {complained}", part.display());
    match output.status.code() {
        Some(0) => {
            assert!(file.exists() && said.contains("\"pairs\""), "{said}{complained}");
            true
        }
        code => {
            // Cut off, or in the way of one that was.
            let is_excuse = code == Some(3) || (code == Some(1) && complained.contains("overloaded"));
            assert!(is_excuse && !file.exists() && complained.contains("error: "), "{code:?} {complained}");
            false
        }
    }
}

/// Tries until there is one, as a script would.
async fn take(file: &Path, node: &Node, reason: &str) {
    wait_until(reason, PATIENCE, || async { is_whole(&quorate("backup", file, node).await, file) }).await;
}

#[tokio::test]
async fn what_was_acknowledged_before_a_backup_is_in_it_whoever_dies_meanwhile() {
    let _turn = turn().await;
    let cluster = Cluster::start(3).await;
    shop::stock_up(cluster.node(0)).await;
    let load = Load::start(&cluster, "backup", 8);
    load.wait_more(40, "before the first backup").await;
    let mut files: Vec<PathBuf> = Vec::new();
    for victim in 0..3 {
        let asked = cluster.node((victim + 1) % 3);
        let [during, without] = ["during", "without"].map(|when| cluster.dir().join(format!("{when}{victim}.backup")));
        let (output, ()) = tokio::join!(quorate("backup", &during, asked), async {
            cluster.node(victim).kill9();
        });
        if is_whole(&output, &during) {
            files.push(during);
        }
        take(&without, asked, "two of three nodes are enough").await;
        files.push(without);
        cluster.node(victim).restart();
        cluster.node(victim).wait_ready("after it was killed").await;
        load.wait_more(10, "with three nodes again").await;
    }
    let acknowledged = load.acknowledged();
    let last = cluster.dir().join("last.backup");
    take(&last, cluster.node(2), "all nodes are there").await;
    let placed = load.finish().await;
    assert!(acknowledged <= placed.len());
    for file in &files {
        let replaced = quorate("backup", file, cluster.node(0)).await;
        assert_eq!(replaced.status.code(), Some(2), "a backup is not overwritten: {}", text(&replaced.stderr));
    }
    drop(cluster.nodes().iter().map(Node::kill9).collect::<Vec<_>>());

    let into = Cluster::start(3).await;
    restore_though_killed(&into, &last).await;
    // Everybody asks again for everything: what is in the backup is answered from it.
    let again = order_again(&into, &placed).await;
    let replays = placed.iter().zip(&again).filter(|(first, again)| first.answer == again.answer).count();
    assert!(replays >= acknowledged, "{replays} of {acknowledged} that were acknowledged before it are in it");
    audit_on(into.nodes(), &again).await;
}

/// In a cluster of which a node is killed while it takes it in, and then again.
async fn restore_though_killed(into: &Cluster, file: &Path) {
    let refused_so = |code: &'static str| async move {
        let answer = into.node(1).get("/v1/inventory/mug").await;
        answer.is_ok_and(|answer| answer.json()["code"] == code)
    };
    let (first, ()) = tokio::join!(quorate("restore", file, into.node(0)), async {
        wait_until("it says that it is being restored", PATIENCE, || refused_so("restoring")).await;
        into.node(0).kill9();
    });
    let (first, complained) = (first.status.code(), text(&first.stderr));
    // On a slow day it is through before it is killed.
    assert!(first == Some(0) || (first == Some(3) && complained.contains("same file")), "{first:?} {complained}");
    let second = quorate("restore", file, into.node(1)).await;
    assert_eq!(second.status.code(), Some(0), "{}", text(&second.stderr));
    into.node(0).restart();
    into.node(0).wait_ready("with what was restored without it").await;
    let third = quorate("restore", file, into.node(0)).await;
    let (second, third) = (text(&second.stdout), (third.status.code(), text(&third.stdout)));
    assert!(second.contains(&format!("\"was_before\":{}", first == Some(0))), "{second}");
    assert_eq!(third, (Some(0), second.replace("false", "true")), "it is there");
}

async fn order_again(cluster: &Cluster, placed: &[Placed]) -> Vec<Placed> {
    const CUSTOMERS: usize = 16;
    let customers = placed.chunks(placed.len().div_ceil(CUSTOMERS)).enumerate().map(|(number, part)| async move {
        let mut customer = Customer::new(cluster.nodes(), number);
        let mut again = Vec::new();
        for order in part {
            again.push(customer.place(&order.key, order.request.clone()).await);
        }
        again
    });
    join_all(customers).await.into_iter().flatten().collect()
}
