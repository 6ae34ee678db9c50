//! A durable node inside an axum app of one's own, its routes beside the cluster's:
//!
//! ```text
//! cargo run --example embed_axum -- /tmp/guests 127.0.0.1:3000
//! curl -X POST 127.0.0.1:3000/guests/hall -d Ada
//! curl 127.0.0.1:3000/guests/hall
//! curl 127.0.0.1:3000/readyz
//! ```
//!
//! It runs until Ctrl-C, then finishes what is in flight. Start it again with the same directory,
//! and the guests are still there.

#![allow(clippy::print_stdout)] // an example talks to whoever runs it

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::post,
};
use quorate::{
    Cluster, Context, Decision, Entity,
    cluster::{AskError, Consistency},
    ingress,
};
use serde::{Deserialize, Serialize};

/// Who came, in the order of their coming.
struct Guestbook;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Signed(String);

#[derive(Debug, Clone, Serialize, Deserialize, thiserror::Error)]
#[error("a guest has a name of 1 to 80 characters")]
struct Nameless;

impl Entity for Guestbook {
    const TYPE: &'static str = "guestbook";
    type State = Vec<String>;
    type Command = Signed;
    type Event = Signed;
    type Reply = usize;
    type Rejection = Nameless;

    fn decide(guests: &Vec<String>, Signed(name): Signed, _: &Context<'_>) -> Decision<Self> {
        match name.chars().count() {
            1..=80 => Decision::accept(vec![Signed(name)], guests.len() + 1),
            _ => Decision::reject(Nameless),
        }
    }

    fn evolve(guests: &mut Vec<String>, Signed(name): &Signed) {
        guests.push(name.clone());
    }
}

async fn sign(
    State(cluster): State<Cluster>,
    Path(book): Path<String>,
    name: String,
) -> Result<Json<usize>, (StatusCode, String)> {
    let signed = cluster.entity::<Guestbook>(book).ask(Signed(name)).await;
    signed.map(Json).map_err(|error| match error {
        AskError::Rejected(reason) => (StatusCode::UNPROCESSABLE_ENTITY, reason.to_string()),
        other => (StatusCode::SERVICE_UNAVAILABLE, other.to_string()),
    })
}

async fn guests(
    State(cluster): State<Cluster>,
    Path(book): Path<String>,
) -> Result<Json<Vec<String>>, (StatusCode, String)> {
    let found = cluster.entity::<Guestbook>(book).state(Consistency::Linearizable).await;
    found.map(|found| Json(found.state)).map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, error.to_string()))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let data_dir = arguments.next().unwrap_or_else(|| "quorate-data/guests".into());
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:3000".into());
    // `register` adds the shop; leave it out and its routes answer `unknown-entity-type`.
    let node = ingress::shop::register(Cluster::single_node(&data_dir).entity::<Guestbook>());
    let cluster = node.start().await?;

    let app = Router::new()
        .route("/guests/{book}", post(sign).get(guests))
        .with_state(cluster.clone())
        .merge(cluster.http_router());

    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("http://{} (data in {data_dir}); Ctrl-C to stop", listener.local_addr()?);
    let interrupted = async { _ = tokio::signal::ctrl_c().await };
    axum::serve(listener, app).with_graceful_shutdown(interrupted).await?;
    cluster.shutdown().await;
    Ok(())
}
