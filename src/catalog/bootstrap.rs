//! From a seed list to one cluster.
//!
//! A blank node asks its seeds. If one of them belongs to a cluster, it joins that one. Only when
//! *every* seed answers, is blank and lists the same seeds, does the first of them by name found
//! the cluster. So two clusters can never form from one list, in whatever order nodes start.

use super::{ClusterId, Founding, Identity, InstanceId, Member, NodeId, View, plan};
use crate::{entity::codec, transport::Transport};
use bytes::Bytes;
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

const ASK_TIMEOUT: Duration = Duration::from_secs(2);
const JOIN_TIMEOUT: Duration = Duration::from_secs(5);
const ROUND_MIN: Duration = Duration::from_millis(25);
const ROUND_MAX: Duration = Duration::from_millis(500);

/// How one node introduces itself to another, before there is a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Introduction {
    Hello(Hello),
    Join {
        member: Member,
        cluster: Option<ClusterId>,
        /// It takes the place of the node that has its name.
        replace: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub name: String,
    pub instance: InstanceId,
    pub seeds: BTreeSet<String>,
    pub cluster: Option<ClusterId>,
    pub address: String,
    pub http: String,
    pub zone: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Welcome {
    Hello(Hello),
    Joined {
        node: NodeId,
        view: View,
    },
    /// Ask again later.
    NotYet(String),
    /// Never: the reason is for the operator.
    Refused(String),
    /// It was a member, and is not any more.
    NotAMember(String),
}

/// Why a node can never become a member. The text is one line for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// A blank node on its way into a cluster.
pub struct Bootstrap {
    pub hello: Hello,
    pub shards: u16,
    pub replication_factor: u8,
    pub replace: bool,
    pub transport: Arc<dyn Transport>,
}

/// What a round of questions came to.
enum Round {
    Member(Box<Identity>),
    Refused(Refused),
    /// Not decided yet; the reason is for the log.
    Waiting(String),
}

impl Bootstrap {
    /// Asks until this node belongs to a cluster, or can never.
    pub async fn settle(&self) -> Result<Identity, Refused> {
        let (mut wait, mut last) = (ROUND_MIN, String::new());
        loop {
            match self.round().await {
                Round::Member(identity) => return Ok(*identity),
                Round::Refused(refused) => return Err(refused),
                Round::Waiting(why) if why != last => {
                    tracing::info!(node = self.hello.name, "not a member yet: {why}");
                    (wait, last) = (ROUND_MIN, why);
                }
                Round::Waiting(_) => wait = (wait * 2).min(ROUND_MAX),
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn round(&self) -> Round {
        let answers = ask_all(&self.transport, &self.hello).await;
        let clusters = answers.iter().filter_map(|(seed, hello)| Some((seed, hello.as_ref().ok()?.cluster?)));
        if let Some((seed, _)) = clusters.into_iter().next() {
            return self.join(seed).await;
        }
        let silent: Vec<String> =
            answers.iter().filter_map(|(seed, h)| Some(format!("{seed} ({})", h.as_ref().err()?))).collect();
        if !silent.is_empty() {
            return Round::Waiting(format!("no answer from {}", silent.join(", ")));
        }
        let founders: Vec<(&str, &Hello)> =
            answers.iter().filter_map(|(seed, hello)| Some((seed.as_str(), hello.as_ref().ok()?))).collect();
        if let Some((seed, other)) = founders.iter().find(|(_, h)| h.seeds != self.hello.seeds) {
            let theirs = other.seeds.iter().cloned().collect::<Vec<_>>().join(",");
            return Round::Waiting(format!("{} at {seed} lists other seeds: {theirs}", other.name));
        }
        self.found(&founders)
    }

    /// Founds the cluster, if that is this node's part.
    fn found(&self, founders: &[(&str, &Hello)]) -> Round {
        let names: BTreeSet<&str> = founders.iter().map(|(_, h)| h.name.as_str()).collect();
        if names.len() < founders.len() {
            return Round::Refused(Refused(format!(
                "two seeds have the same name or address; `node.name` must be unique: {}",
                founders.iter().map(|(seed, h)| format!("{} at {seed}", h.name)).collect::<Vec<_>>().join(", ")
            )));
        }
        let first = names.first().copied().unwrap_or_default();
        if first != self.hello.name {
            return Round::Waiting(match names.contains(self.hello.name.as_str()) {
                true => format!("{first} founds the cluster"),
                false => "this node is not among its seeds, and none of them belongs to a cluster".into(),
            });
        }
        let member = |(index, name): (usize, &&str)| {
            let hello = founders.iter().find(|(_, h)| h.name == **name).map(|(_, h)| *h)?;
            Some(hello.member(NodeId(index as u64 + 1)))
        };
        let members: Vec<Member> = names.iter().enumerate().filter_map(member).collect();
        let view = View::founded(Founding {
            cluster: ClusterId(rand::random()),
            shards: self.shards,
            replication_factor: self.replication_factor,
            placements: plan(&members, self.shards, usize::from(self.replication_factor)),
            members,
        });
        tracing::info!(cluster = %view.cluster, members = view.members.len(), "founding the cluster");
        Round::Member(Box::new(self.identity(NodeId(1), view)))
    }

    async fn join(&self, seed: &str) -> Round {
        let member = self.hello.member(NodeId(0));
        let join = Introduction::Join { member, cluster: None, replace: self.replace };
        match introduce(&self.transport, seed, &join, JOIN_TIMEOUT).await {
            Ok(Welcome::Joined { node, view }) => Round::Member(Box::new(self.identity(node, view))),
            Ok(Welcome::Refused(why) | Welcome::NotAMember(why)) => Round::Refused(Refused(why)),
            Ok(Welcome::NotYet(why)) => Round::Waiting(format!("{seed}: {why}")),
            Ok(Welcome::Hello(_)) => Round::Waiting(format!("{seed} answers another question")),
            Err(why) => Round::Waiting(why),
        }
    }

    fn identity(&self, node: NodeId, view: View) -> Identity {
        Identity { node, name: self.hello.name.clone(), instance: self.hello.instance, view }
    }
}

impl Hello {
    pub fn member(&self, node: NodeId) -> Member {
        Member {
            node,
            name: self.name.clone(),
            instance: self.instance,
            address: self.address.clone(),
            http: self.http.clone(),
            zone: self.zone.clone(),
        }
    }
}

/// Looks for a seed of another cluster: this node's data directory does not belong here then.
pub async fn check_cluster(transport: &Arc<dyn Transport>, hello: &Hello, mine: ClusterId) -> Result<(), Refused> {
    for (seed, answer) in ask_all(transport, hello).await {
        if let Some(theirs) = answer.ok().and_then(|h| h.cluster).filter(|theirs| *theirs != mine) {
            return Err(Refused(format!(
                "the data directory of {} belongs to cluster {mine}, but the seed {seed} is a member of cluster \
                 {theirs}; start with the seeds of its own cluster, or with an empty `node.data_dir`",
                hello.name
            )));
        }
    }
    Ok(())
}

/// Tells a member of the cluster this node's present addresses, and asks whether it is still a member.
pub async fn rejoin(
    transport: &Arc<dyn Transport>,
    seed: &str,
    member: Member,
    cluster: ClusterId,
) -> Result<Welcome, String> {
    let join = Introduction::Join { member, cluster: Some(cluster), replace: false };
    introduce(transport, seed, &join, JOIN_TIMEOUT).await
}

/// Asks every seed at once; this node answers for itself. Why one did not is for the log.
async fn ask_all(transport: &Arc<dyn Transport>, hello: &Hello) -> Vec<(String, Result<Hello, String>)> {
    let ask = |seed: String| async move {
        if seed == hello.address {
            return (seed, Ok(hello.clone()));
        }
        let question = Introduction::Hello(hello.clone());
        let answer = match introduce(transport, &seed, &question, ASK_TIMEOUT).await {
            Ok(Welcome::Hello(answer)) => Ok(answer),
            Ok(_) => Err("answers another question".into()),
            Err(error) => Err(error),
        };
        (seed, answer)
    };
    join_all(hello.seeds.iter().cloned().map(ask)).await
}

async fn introduce(
    transport: &Arc<dyn Transport>,
    seed: &str,
    question: &Introduction,
    timeout: Duration,
) -> Result<Welcome, String> {
    let question = codec::encode("introduction", question).map_err(|e| e.to_string())?;
    let answer = transport.introduce(seed.to_owned(), Bytes::from(question), timeout).await?;
    codec::decode("introduction", &answer).map_err(|e| e.to_string())
}
