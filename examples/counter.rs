//! An entity of one's own on three nodes in this process: `cargo run --example counter`.

#![allow(clippy::print_stdout)] // an example talks to whoever runs it

use quorate::{Cluster, Context, Decision, Entity};
use serde::{Deserialize, Serialize};

struct Counter;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Added(u64);

#[derive(Debug, Clone, Serialize, Deserialize, thiserror::Error)]
#[error("adding 0 changes nothing")]
struct Nothing;

impl Entity for Counter {
    const TYPE: &'static str = "counter";
    type State = u64;
    type Command = Added;
    type Event = Added;
    type Reply = u64;
    type Rejection = Nothing;

    fn decide(count: &u64, Added(n): Added, _: &Context<'_>) -> Decision<Self> {
        match n {
            0 => Decision::reject(Nothing),
            n => Decision::accept(vec![Added(n)], count + n),
        }
    }

    fn evolve(count: &mut u64, Added(n): &Added) {
        *count += n;
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cluster = Cluster::in_memory(3).entity::<Counter>().start().await?;
    for node in 0..3 {
        let reply = cluster.on_node(node).entity::<Counter>("visits").ask(Added(1)).await?;
        println!("asked through node {node}: {reply}");
    }
    if let Err(refused) = cluster.entity::<Counter>("visits").ask(Added(0)).await {
        println!("adding nothing: {refused}");
    }
    cluster.shutdown().await;
    Ok(())
}
