//! Whether the one owner of a hot SKU is what limits it: how many reservations per second one SKU
//! takes, and how many a thousand SKUs take, under the same load on the same cluster.
//!
//! ```text
//! cargo run --release --example hot_owner                         three nodes in this process
//! cargo run --release --example hot_owner -- URL[,URL…]           running nodes, as of `quorate dev`
//! WORKERS=64 SECONDS=5 ROUNDS=5 cargo run --release --example hot_owner
//! ```
//!
//! A reservation here is made and then committed. In this process the stocks are told directly:
//! two steps of a stock and its two answers. On running nodes it is a reservation of its own over
//! HTTP, with the steps of its own entity, which are spread over all shards in either case. Rounds
//! alternate, because what shares the machine does not hold still. A ratio near 1 says that the
//! cluster, and not the owner, is the limit; where it is far below, a stock would have to be split.
#![allow(clippy::print_stdout)] // an example talks to whoever runs it

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;
use quorate::{
    Cluster,
    cli::http::Client,
    commerce::{
        Stock,
        stock::{Command, Leg, Owner, Route},
    },
    ingress,
};
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::task::JoinSet;

const SPREAD: u64 = 1000;
const ON_HAND: u64 = 1_000_000_000;
const NODES: usize = 3;
/// As many as a cluster has by default.
const SHARDS: u16 = 16;
/// SKUs put in place at a time.
const STOCKERS: u64 = 32;
/// Past what a reservation is held for while the program runs.
const TTL_MS: u64 = 3_600_000;

/// Where the stocks are, and how they are talked to.
#[derive(Clone)]
enum Way {
    InProcess(Cluster),
    /// One client per worker: each has one connection.
    Http(Vec<Arc<Client>>),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let workers = setting("WORKERS", 256)?;
    let time = Duration::from_secs(setting("SECONDS", 3)?);
    let rounds = setting("ROUNDS", 3)?;
    let way = match std::env::args().nth(1) {
        Some(urls) => Way::Http(clients(&urls, workers)?),
        None => Way::InProcess(
            ingress::shop::register(Cluster::in_memory(NODES))
                .configure(|config| config.cluster.shards = SHARDS)
                .start()
                .await?,
        ),
    };
    try_join_all((0..STOCKERS).map(|share| stock_up(&way, share))).await?;
    println!(
        "{workers} workers, {time:?} each\n{:>6} {:>14} {:>10} {:>6}",
        "round", "1000 SKUs /s", "1 SKU /s", "ratio"
    );
    for round in 1..=rounds {
        let spread = rate(&way, workers, time, SPREAD).await?;
        let hot = rate(&way, workers, time, 1).await?;
        println!("{round:>6} {spread:>14.0} {hot:>10.0} {:>6.2}", hot / spread);
    }
    if let Way::InProcess(cluster) = way {
        cluster.shutdown().await;
    }
    Ok(())
}

fn setting(name: &str, default: u64) -> anyhow::Result<u64> {
    let text = std::env::var(name).ok();
    text.map_or(Ok(default), |text| text.parse().with_context(|| format!("{name} must be a whole number, not {text}")))
}

fn clients(urls: &str, workers: u64) -> anyhow::Result<Vec<Arc<Client>>> {
    let urls: Vec<&str> = urls.split(',').collect();
    let one_each = urls.iter().cycle().take(usize::try_from(workers)?);
    one_each.map(|url| Ok(Arc::new(Client::new(url)?))).collect()
}

/// Puts every [`STOCKERS`]th SKU in place.
async fn stock_up(way: &Way, share: u64) -> anyhow::Result<()> {
    for number in (share..SPREAD).step_by(usize::try_from(STOCKERS)?) {
        match way {
            Way::InProcess(cluster) => {
                let put = Command::Put { on_hand: ON_HAND, backorder_limit: 0 };
                cluster.entity::<Stock>(sku(number)).ask(put).await?;
            }
            Way::Http(clients) => {
                let client = &clients[usize::try_from(share)? % clients.len()];
                let path = format!("/v1/inventory/{}", sku(number));
                let put = client.put(&path, &json!({"on_hand": ON_HAND}), &[]).await?;
                ensure!(put.is_success(), "PUT {path}: {}", put.text());
            }
        }
    }
    Ok(())
}

/// Reservations per second over so many SKUs.
async fn rate(way: &Way, workers: u64, time: Duration, skus: u64) -> anyhow::Result<f64> {
    let done = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let mut running = JoinSet::new();
    for worker in 0..workers {
        let (way, done) = (way.clone(), done.clone());
        running.spawn(async move {
            // Workers start at different SKUs and walk them in the same order.
            let mut number = worker * 7919;
            while began.elapsed() < time {
                reserve(&way, worker, &sku(number % skus)).await?;
                // A count, which orders nothing. What ends after the time does not count.
                done.fetch_add(u64::from(began.elapsed() < time), Ordering::Relaxed);
                number += 1;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    let done = u32::try_from(done.load(Ordering::Relaxed))?;
    Ok(f64::from(done) / time.as_secs_f64())
}

fn sku(number: u64) -> String {
    format!("owner-{number:04}")
}

/// Makes a reservation and commits it.
async fn reserve(way: &Way, worker: u64, sku: &str) -> anyhow::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    match way {
        Way::InProcess(cluster) => {
            let stock = cluster.on_node(usize::try_from(worker)? % NODES).entity::<Stock>(sku);
            // Nobody has made it: its entity hears of it, and does not care.
            let owner = Owner::reservation(&format!("res_{}", NEXT.fetch_add(1, Ordering::Relaxed)));
            let route = Route { owner, done: 0, legs: vec![Leg { sku: sku.to_owned(), quantity: 1 }] };
            let until_ms = Some(now_ms()? + TTL_MS);
            stock.ask(Command::Reserve { route: route.clone(), until_ms, may_wait: false }).await?;
            stock.ask(Command::Commit(route)).await?;
        }
        Way::Http(clients) => {
            let client = &clients[usize::try_from(worker)?];
            let body = json!({"items": [{"sku": sku, "quantity": 1}], "ttl": "1h"});
            let made = client.post("/v1/reservations", &body, &[]).await?;
            ensure!(made.status == 201, "a reservation of {sku}: {}", made.text());
            let path = format!("/v1/reservations/{}/commit", made.json()["id"].as_str().context("an id")?);
            let taken = client.post(&path, &json!({}), &[]).await?;
            ensure!(taken.is_success(), "POST {path}: {}", taken.text());
        }
    }
    Ok(())
}

fn now_ms() -> anyhow::Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?)
}
