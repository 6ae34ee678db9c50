//! What a run needs before it starts: nodes, stock, and orders to read.

use super::{
    super::{
        Failure,
        args::{Bench, Workload},
        http::{self, Client, Response},
        operator::{failure, list},
    },
    wire::{Connection, string_field},
    workload::{Envelope, Requests, sku},
};
use crate::config::Secret;
use rand::Rng as _;
use serde_json::json;
use std::time::Duration;

/// Enough stock that no run uses it up.
const ON_HAND: u64 = 1_000_000_000;
/// Requests at a time while preparing.
const PARALLEL: u32 = 32;
/// Orders that `read` reads.
const ORDERS_TO_READ: u32 = 512;
const TIMEOUT: Duration = Duration::from_secs(10);

/// A random name for this run, so that its idempotency keys are new.
pub(super) fn run_id() -> String {
    format!("bench-{:016x}", rand::rng().next_u64())
}

/// `host:port` of the nodes to put under load: those given, or all that the only one given knows.
pub(super) async fn nodes(args: &Bench) -> Result<Vec<String>, Failure> {
    let given: Vec<String> =
        args.urls.iter().map(|url| http::authority(url)).collect::<Result<_, _>>().map_err(|error| failure(&error))?;
    let [only] = given.as_slice() else { return Ok(given) };
    let answer = client(only, args)?.get("/admin/v1/members").await.map_err(|error| failure(&error))?;
    let members = expect_success("listing the members", &answer).map(|()| answer.json())?;
    let alive = list(&members).iter().filter(|member| member["gossip"] != "down");
    let found: Vec<String> = alive.filter_map(|member| http::authority(member["http"].as_str()?).ok()).collect();
    Ok(if found.is_empty() { given } else { found })
}

/// Puts stock in place; for `read`, also orders, whose ids are returned.
pub(super) async fn data(args: &Bench, nodes: &[String], run: &str) -> Result<Vec<String>, Failure> {
    let skus = if args.workload == Workload::HotSku { 1 } else { args.skus };
    in_parallel(|share| stock(args, &nodes[share as usize % nodes.len()], share, skus)).await?;
    if args.workload != Workload::Read {
        return Ok(Vec::new());
    }
    let ids = in_parallel(|share| orders(args, &nodes[share as usize % nodes.len()], share, run)).await?;
    Ok(ids.concat())
}

/// Does `PARALLEL` shares of some work at a time, in this task.
async fn in_parallel<T, F: Future<Output = Result<T, Failure>>>(work: impl Fn(u32) -> F) -> Result<Vec<T>, Failure> {
    futures::future::try_join_all((0..PARALLEL).map(work)).await
}

/// Stocks every `PARALLEL`th SKU, beginning with `share`.
async fn stock(args: &Bench, node: &str, share: u32, skus: u32) -> Result<(), Failure> {
    let client = client(node, args)?;
    for number in (share..skus).step_by(PARALLEL as usize) {
        let path = format!("/v1/inventory/{}", sku(number));
        let answer = client.put(&path, &json!({ "on_hand": ON_HAND }), &[]).await.map_err(|error| failure(&error))?;
        expect_success("putting stock in place", &answer)?;
    }
    Ok(())
}

async fn orders(args: &Bench, node: &str, share: u32, run: &str) -> Result<Vec<String>, Failure> {
    let broken = |error: std::io::Error| Failure::unavailable(format!("placing orders to read: {node}: {error}"));
    let envelope = Envelope { authority: node.to_owned(), token: args.credentials.token()? };
    let mut requests = Requests::orders(&envelope, Workload::Place, run, share, args.skus);
    let mut connection = Connection::open(node).await.map_err(broken)?;
    let mut ids = Vec::new();
    for _ in 0..ORDERS_TO_READ / PARALLEL {
        let answer = connection.exchange(requests.next()).await.map_err(broken)?;
        let id = string_field(answer.body, "id").filter(|_| answer.status == 201);
        ids.push(id.map(str::to_owned).ok_or_else(|| refused("placing orders to read", answer.status, answer.body))?);
    }
    Ok(ids)
}

fn client(node: &str, args: &Bench) -> Result<Client, Failure> {
    let client = Client::new(node).map_err(|error| failure(&error))?;
    let token = args.credentials.token()?;
    Ok(client.with_token(token.as_ref().map(Secret::expose)).with_timeout(TIMEOUT))
}

fn expect_success(doing: &str, answer: &Response) -> Result<(), Failure> {
    if answer.is_success() { Ok(()) } else { Err(refused(doing, answer.status, &answer.body)) }
}

fn refused(doing: &str, status: u16, body: &[u8]) -> Failure {
    let code = string_field(body, "code").unwrap_or("no code");
    let text =
        format!("{doing}: status {status}, {code}: {}", string_field(body, "detail").unwrap_or("no detail given"));
    match status {
        401 | 403 => Failure::refused(format!("{text}; give a token with --token-file, --token or QUORATE_TOKEN")),
        503 | 504 => Failure::unavailable(text),
        _ => Failure::operation(text),
    }
}
