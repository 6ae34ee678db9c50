//! Asks every node about every receipt.

use super::judge::{Outcome, Said, judge};
use crate::{
    cli::{
        Failure,
        args::Verify,
        http::{self, Client},
        operator::{failure, get, list},
    },
    config::Secret,
};
use futures::future::join_all;
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::Instant;

/// Connections per node, each with one question at a time.
const CONNECTIONS: usize = 4;
/// Between two rounds of questions about what is undecided.
const ROUND_PAUSE: Duration = Duration::from_millis(250);

/// What the cluster says of each receipt.
pub(super) struct Verdicts {
    pub outcomes: BTreeMap<String, (Outcome, String)>,
    pub nodes: Vec<String>,
    /// Those that did not answer in the last round, and why.
    pub silent: BTreeMap<String, String>,
}

/// The nodes given, or all that the only one given knows.
pub(super) async fn nodes(args: &Verify) -> Result<Vec<String>, Failure> {
    let given: Vec<String> =
        args.urls.iter().map(|url| http::authority(url)).collect::<Result<_, _>>().map_err(|error| failure(&error))?;
    let [only] = given.as_slice() else { return Ok(given) };
    let members = get(&client(only, args)?, "/admin/v1/members").await?;
    // Those that are said to be down, too: they may be back.
    let found: Vec<String> = list(&members).iter().filter_map(|m| http::authority(m["http"].as_str()?).ok()).collect();
    Ok(if found.is_empty() { given } else { found })
}

/// Asks until every receipt is decided or the time is up.
pub(super) async fn ask(args: &Verify, nodes: Vec<String>, receipts: Vec<String>) -> Result<Verdicts, Failure> {
    let deadline = Instant::now() + args.wait;
    let mut verdicts = Verdicts { outcomes: BTreeMap::new(), nodes, silent: BTreeMap::new() };
    let mut open = receipts;
    loop {
        let (said, silent) = round(args, &verdicts.nodes, &open).await?;
        verdicts.silent = silent;
        for (receipt, said) in open.iter().zip(said) {
            verdicts.outcomes.insert(receipt.clone(), judge(&said));
        }
        open.retain(|receipt| verdicts.outcomes.get(receipt).is_none_or(|(outcome, _)| !outcome.is_final()));
        if open.is_empty() || Instant::now() + ROUND_PAUSE >= deadline {
            return Ok(verdicts);
        }
        tokio::time::sleep(ROUND_PAUSE).await;
    }
}

type Silent = BTreeMap<String, String>;

/// One question per receipt and node.
async fn round(args: &Verify, nodes: &[String], receipts: &[String]) -> Result<(Vec<Vec<Said>>, Silent), Failure> {
    let said = RefCell::new(vec![Vec::new(); receipts.len()]);
    let silent = RefCell::new(Silent::new());
    let next: Vec<Cell<usize>> = nodes.iter().map(|_| Cell::new(0)).collect();
    let mut asking = Vec::new();
    for (node, next) in nodes.iter().zip(&next) {
        for _ in 0..CONNECTIONS.min(receipts.len()) {
            let client = client(node, args)?;
            let (said, silent) = (&said, &silent);
            asking.push(async move {
                while next.get() < receipts.len() && !silent.borrow().contains_key(node) {
                    let at = next.replace(next.get() + 1);
                    match one(&client, &receipts[at]).await {
                        Ok(word) => said.borrow_mut()[at].extend(word),
                        Err(why @ (Failure::Usage(_) | Failure::Refused(_))) => return Err(why),
                        // It is not asked again in this round: each question would take its time.
                        Err(why) => drop(silent.borrow_mut().insert(node.clone(), why.to_string())),
                    }
                }
                Ok(())
            });
        }
    }
    join_all(asking).await.into_iter().collect::<Result<Vec<()>, Failure>>()?;
    Ok((said.into_inner(), silent.into_inner()))
}

async fn one(client: &Client, receipt: &str) -> Result<Option<Said>, Failure> {
    Ok(Said::of(&get(client, &format!("/admin/v1/receipts/{receipt}")).await?))
}

fn client(node: &str, args: &Verify) -> Result<Client, Failure> {
    let client = Client::new(node).map_err(|error| failure(&error))?;
    let token = args.credentials.token()?;
    Ok(client.with_token(token.as_ref().map(Secret::expose)).with_timeout(args.timeout))
}

impl Verdicts {
    /// The shards that the receipts are of.
    pub fn shards(&self) -> usize {
        self.outcomes.keys().filter_map(|receipt| receipt.split('-').next()).collect::<BTreeSet<_>>().len()
    }
}
