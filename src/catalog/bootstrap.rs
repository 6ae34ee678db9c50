//! From a seed list to one cluster.
//!
//! A blank node asks its seeds. If one of them belongs to a cluster, it joins that one. Only when
//! *every* seed answers, is blank and lists the same seeds, does the first of them by name found
//! the cluster. So two clusters can never form from one list, in whatever order nodes start.

use super::{ClusterId, Founding, Identity, InstanceId, Member, NodeId, View, plan};
use crate::{
    entity::codec,
    transport::{Counterpart, Transport},
};
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
        let clusters = answers.iter().filter_map(|(seed, hello)| Some((seed, hello.as_ref().ok()?.0.cluster?)));
        if let Some((seed, _)) = clusters.into_iter().next() {
            return self.join(seed).await;
        }
        let silent: Vec<String> =
            answers.iter().filter_map(|(seed, h)| Some(format!("{seed} ({})", h.as_ref().err()?))).collect();
        if !silent.is_empty() {
            return Round::Waiting(format!("no answer from {}", silent.join(", ")));
        }
        let founders: Vec<(&str, &Hello)> =
            answers.iter().filter_map(|(seed, hello)| Some((seed.as_str(), &hello.as_ref().ok()?.0))).collect();
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
            Ok((Welcome::Joined { node, view }, by)) => match is_of(&view, &by) {
                true => Round::Member(Box::new(self.identity(node, view))),
                false => Round::Waiting(format!("{seed} ({by}) is no member of the cluster that it lets nodes into")),
            },
            Ok((Welcome::Refused(why) | Welcome::NotAMember(why), _)) => Round::Refused(Refused(why)),
            Ok((Welcome::NotYet(why), _)) => Round::Waiting(format!("{seed}: {why}")),
            Ok((Welcome::Hello(_), _)) => Round::Waiting(format!("{seed} answers another question")),
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

/// Whether it is a member of the cluster that speaks, as far as certificates tell.
pub fn is_of(view: &View, speaker: &Counterpart) -> bool {
    *speaker == Counterpart::Anyone || view.members.iter().any(|member| speaker.may_be(&member.name))
}

/// Looks for a seed of another cluster: this node's data directory does not belong here then. A node that
/// serves already believes only `members`: whoever else has come by the address of a seed must not end it.
pub async fn check_cluster(
    transport: &Arc<dyn Transport>,
    hello: &Hello,
    mine: ClusterId,
    members: Option<&View>,
) -> Result<(), Refused> {
    for (seed, answer) in ask_all(transport, hello).await {
        let Ok((answer, by)) = answer else { continue };
        if members.is_some_and(|view| !is_of(view, &by)) {
            continue;
        }
        if let Some(theirs) = answer.cluster.filter(|theirs| *theirs != mine) {
            return Err(Refused(format!(
                "the data directory of {} belongs to cluster {mine}, but the seed {seed} is a member of cluster \
                 {theirs}; start with the seeds of its own cluster, or with an empty `node.data_dir`",
                hello.name
            )));
        }
    }
    Ok(())
}

/// Tells a member of the cluster this node's present addresses, and asks whether it is still a member. Says
/// whom the one that answers may claim to be.
pub async fn rejoin(
    transport: &Arc<dyn Transport>,
    seed: &str,
    member: Member,
    cluster: ClusterId,
) -> Result<(Welcome, Counterpart), String> {
    let join = Introduction::Join { member, cluster: Some(cluster), replace: false };
    introduce(transport, seed, &join, JOIN_TIMEOUT).await
}

/// Asks every seed at once; this node answers for itself. Why one did not is for the log.
async fn ask_all(transport: &Arc<dyn Transport>, hello: &Hello) -> Vec<(String, Result<(Hello, Counterpart), String>)> {
    let ask = |seed: String| async move {
        if seed == hello.address {
            return (seed, Ok((hello.clone(), Counterpart::Anyone)));
        }
        let question = Introduction::Hello(hello.clone());
        let answer = match introduce(transport, &seed, &question, ASK_TIMEOUT).await {
            Ok((Welcome::Hello(answer), by)) => by.check(&answer.name).map(|()| (answer, by)),
            Ok(_) => Err("answers another question".into()),
            Err(error) => Err(error),
        };
        if let Err(error) = &answer {
            tracing::debug!(seed, error, "a seed does not answer");
        }
        (seed, answer)
    };
    join_all(hello.seeds.iter().cloned().map(ask)).await
}

async fn introduce(
    transport: &Arc<dyn Transport>,
    seed: &str,
    question: &Introduction,
    timeout: Duration,
) -> Result<(Welcome, Counterpart), String> {
    let question = codec::encode("introduction", question).map_err(|e| e.to_string())?;
    let (answer, by) = transport.introduce(seed.to_owned(), Bytes::from(question), timeout).await?;
    codec::decode("introduction", &answer).map(|welcome| (welcome, by)).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        catalog::Placement,
        transport::{Class, Error, Introduced, LinkView, Peer},
    };
    use futures::future::BoxFuture;
    use std::collections::BTreeMap;

    /// Who listens where: what it answers to a hello and to a join, and for whom its certificate is.
    struct Seeds(BTreeMap<String, (Welcome, Welcome, Counterpart)>);

    impl Transport for Seeds {
        fn introduce(&self, address: String, request: Bytes, _: Duration) -> BoxFuture<'static, Introduced> {
            let found = self.0.get(&address).cloned();
            Box::pin(async move {
                let (hello, join, by) = found.ok_or("nobody listens there")?;
                let question = codec::decode("introduction", &request).map_err(|error| error.to_string())?;
                let answer = if matches!(question, Introduction::Hello(_)) { hello } else { join };
                let answer = codec::encode("introduction", &answer).map_err(|error| error.to_string())?;
                Ok((answer.into(), by))
            })
        }

        fn request(&self, to: NodeId, _: Class, _: Bytes, _: Duration) -> BoxFuture<'static, Result<Bytes, Error>> {
            Box::pin(async move { Err(Error::NotConnected(to)) })
        }

        fn set_peers(&self, _: NodeId, _: Vec<Peer>) {}

        fn links(&self) -> tokio::sync::watch::Receiver<LinkView> {
            tokio::sync::watch::channel(LinkView::new()).1
        }

        fn close(&self, _: Duration) -> BoxFuture<'static, ()> {
            Box::pin(async {})
        }
    }

    fn named(name: &str) -> Counterpart {
        Counterpart::Named([name.to_owned()].into())
    }

    fn hello(name: &str, cluster: Option<ClusterId>) -> Hello {
        Hello {
            name: name.into(),
            instance: InstanceId(1),
            seeds: ["a".into(), "b".into()].into(),
            cluster,
            address: name.into(),
            http: String::new(),
            zone: None,
        }
    }

    fn view(members: &[&str]) -> View {
        let members: Vec<Member> =
            (1..).zip(members).map(|(node, name)| hello(name, None).member(NodeId(node))).collect();
        View::founded(Founding {
            cluster: ClusterId(7),
            shards: 1,
            replication_factor: 1,
            members,
            placements: Vec::<Placement>::new(),
        })
    }

    /// What a blank node `b` makes of a seed `a` with this certificate.
    async fn round(hello_back: Hello, joined: Welcome, by: Counterpart) -> Round {
        let seeds = Seeds([("a".to_owned(), (Welcome::Hello(hello_back), joined, by))].into());
        let transport: Arc<dyn Transport> = Arc::new(seeds);
        let hello = hello("b", None);
        Bootstrap { hello, shards: 1, replication_factor: 1, replace: false, transport }.round().await
    }

    #[tokio::test]
    async fn a_seed_is_who_its_certificate_says_or_it_is_as_if_it_were_silent() {
        let joined = Welcome::NotYet("busy".into());
        let Round::Waiting(why) = round(hello("a", None), joined.clone(), named("z")).await else { panic!("believed") };
        assert_eq!(why, "no answer from a (the certificate is for z, not for a)");
        for by in [named("a"), Counterpart::Anyone] {
            let Round::Waiting(why) = round(hello("a", None), joined.clone(), by).await else { panic!("founded") };
            assert_eq!(why, "a founds the cluster");
        }
    }

    #[tokio::test]
    async fn a_node_is_let_in_by_members_only() {
        let let_in = |members: &[&str]| Welcome::Joined { node: NodeId(3), view: view(members) };
        let there = || hello("a", Some(ClusterId(7)));
        let Round::Waiting(why) = round(there(), let_in(&["c"]), named("a")).await else { panic!("let in") };
        assert!(why.contains("no member of the cluster"), "{why}");
        assert!(matches!(round(there(), let_in(&["a", "c"]), named("a")).await, Round::Member(_)));
        assert!(matches!(round(there(), let_in(&["c"]), Counterpart::Anyone).await, Round::Member(_)));
    }

    #[tokio::test]
    async fn a_serving_node_believes_of_another_cluster_what_members_say() {
        let other = Welcome::Hello(hello("a", Some(ClusterId(9))));
        for (by, members, is_believed) in [
            (named("a"), Some(view(&["a", "b"])), true),
            (named("a"), Some(view(&["b", "c"])), false),
            (named("a"), None, true),
            (named("z"), None, false),
            (Counterpart::Anyone, Some(view(&["b", "c"])), true),
        ] {
            let seeds = Seeds([("a".to_owned(), (other.clone(), other.clone(), by.clone()))].into());
            let transport: Arc<dyn Transport> = Arc::new(seeds);
            let checked = check_cluster(&transport, &hello("b", None), ClusterId(7), members.as_ref()).await;
            assert_eq!(checked.is_err(), is_believed, "{by}, {members:?}");
        }
    }
}
