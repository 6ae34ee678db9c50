//! Answers what other nodes ask of this one.

use super::node::Node;
use crate::{
    catalog::{
        Catalog, Command, Member, NodeId, Rejection, Reply, View,
        bootstrap::{Hello, Introduction, Welcome},
    },
    entity::{Entity, codec},
    replication::{Service, parse_raft},
    shard::CommandReply,
    transport::{self, Class, Counterpart, Handler},
};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::sync::{Arc, OnceLock, Weak};

/// The node behind it is set once it exists; requests before that are refused.
#[derive(Default)]
pub(super) struct Gateway(OnceLock<Weak<Node>>);

impl Gateway {
    pub fn attach(&self, node: &Arc<Node>) {
        // Set once, by the one who made both.
        let _ = self.0.set(Arc::downgrade(node));
    }

    fn node(&self) -> Result<Arc<Node>, String> {
        self.0.get().and_then(Weak::upgrade).ok_or_else(|| "this node is not running".into())
    }
}

impl Handler for Gateway {
    fn handle(&self, _from: NodeId, _class: Class, request: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        let node = self.node();
        Box::pin(async move {
            let node = node?;
            let member = node.membership_of_cluster().ok_or("this node is not a member yet")?;
            let (service, body) = member.peers.open(request)?;
            match service {
                Service::Raft => {
                    let (group, kind, body) = parse_raft(body)?;
                    let group = node.group(group).ok_or("no replica of that group is here")?;
                    group.handle(kind, body).await
                }
                Service::Command => member.router.handle_command(body).await,
                Service::Query => member.router.handle_query(body).await,
                Service::Shard => member.router.handle_ask(body).await,
                Service::List => member.router.handle_list(body).await,
                Service::Owners => member.router.handle_owners(),
            }
        })
    }

    fn introduce(&self, caller: Counterpart, request: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        let node = self.node();
        Box::pin(async move {
            let node = node?;
            let introduction = codec::decode("introduction", &request).map_err(|e| e.to_string())?;
            let welcome = match introduction {
                Introduction::Hello(hello) => Welcome::Hello(hello_back(&node, &hello)),
                Introduction::Join { member, cluster, replace } => match caller.check(&member.name) {
                    Ok(()) => join(&node, member, cluster, replace).await,
                    Err(other) => Welcome::Refused(format!("{} may not join: {other}", member.name)),
                },
            };
            codec::encode("introduction", &welcome).map(Bytes::from).map_err(|e| e.to_string())
        })
    }
}

fn hello_back(node: &Node, caller: &Hello) -> Hello {
    tracing::debug!(caller = caller.name, "an introduction");
    let mut hello = node.hello();
    hello.cluster = node.membership_of_cluster().map(|m| m.peers.cluster);
    hello
}

async fn join(node: &Arc<Node>, joining: Member, cluster: Option<crate::catalog::ClusterId>, replace: bool) -> Welcome {
    let Some(member) = node.membership_of_cluster() else {
        return Welcome::NotYet("not a member of a cluster itself".into());
    };
    if let Some(theirs) = cluster.filter(|theirs| *theirs != member.peers.cluster) {
        let mine = member.peers.cluster;
        return Welcome::Refused(format!("{} belongs to cluster {theirs}, this node to {mine}", joining.name));
    }
    let view = node.view();
    if let Some(known) = view.member_named(&joining.name) {
        // A founding member, or one that comes back as it was: it may join before there is a quorum.
        if *known == (Member { node: known.node, ..joining.clone() }) {
            return Welcome::Joined { node: known.node, view };
        }
        if known.instance != joining.instance && replace && is_up(node, known.node) {
            return Welcome::NotYet(format!("{}, which it is to replace, is up: stop that one for good", known.name));
        }
    }
    // Whether a name is taken is for the catalog to say: this node's view of it may be old.
    let join = match (cluster, replace) {
        (Some(_), _) => Command::Return(joining),
        (None, true) => Command::Replace(joining),
        (None, false) => Command::Join(joining),
    };
    propose_join(node, join).await
}

fn is_up(node: &Node, other: NodeId) -> bool {
    let me = node.membership_of_cluster().map(|member| member.node);
    me == Some(other) || transport::is_up(&node.links(), other)
}

async fn propose_join(node: &Arc<Node>, join: Command) -> Welcome {
    let reply = match node.ask_catalog(&join).await {
        Ok(reply) => reply,
        Err(why) => return Welcome::NotYet(why),
    };
    match reply {
        CommandReply::Done { reply, .. } => match codec::decode("reply", &reply) {
            Ok(Reply::Member(id)) => match node.read_catalog().await {
                Some(view) => Welcome::Joined { node: id, view },
                None => Welcome::NotYet("the catalog cannot be read at the moment".into()),
            },
            _ => Welcome::NotYet("the catalog answered another question".into()),
        },
        CommandReply::Rejected(bytes) => {
            let rejection = codec::decode::<<Catalog as Entity>::Rejection>("rejection", &bytes);
            match rejection {
                Ok(Rejection::NotFounded) | Err(_) => Welcome::NotYet("the cluster is not founded yet".into()),
                Ok(rejection @ Rejection::NotAMember { .. }) => Welcome::NotAMember(rejection.to_string()),
                Ok(rejection) => Welcome::Refused(rejection.to_string()),
            }
        }
        _ => Welcome::NotYet("the catalog has no quorum at the moment".into()),
    }
}

/// The catalog as `View`, for whoever joins.
pub(super) fn decode_view(bytes: &[u8], version: u64) -> Option<View> {
    let state = codec::decode::<<Catalog as Entity>::State>("state", bytes).ok()?;
    View::of(&state, version)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Cluster,
            builder::{in_memory_configs, in_memory_links},
            node::Engines,
        },
        *,
    };
    use crate::{
        catalog::InstanceId,
        impairment::Impairments,
        shard::Registry,
        storage::MemoryStorage,
        transport::{Error, Introduced, LinkView, Peer, Transport, memory::Network},
    };
    use std::time::Duration;
    use tokio::sync::watch;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_joins_or_takes_a_place_does_so_under_the_name_of_its_certificate() {
        let cluster = Cluster::in_memory(1).start().await.expect("a cluster");
        let gateway = Gateway::default();
        gateway.attach(cluster.node());
        let known = cluster.node().view().members[0].clone();
        let ask = async |names: &[&str], member: &Member, replace: bool| {
            let join = Introduction::Join { member: member.clone(), cluster: None, replace };
            let question = codec::encode("introduction", &join).expect("encoded");
            let caller = Counterpart::Named(names.iter().map(ToString::to_string).collect());
            let answer = gateway.introduce(caller, question.into()).await.expect("an answer");
            codec::decode::<Welcome>("introduction", &answer).expect("a welcome")
        };
        let stranger = Member { instance: InstanceId(1), address: "elsewhere".into(), ..known.clone() };
        for replace in [false, true] {
            let refused = ask(&["n7"], &stranger, replace).await;
            let words = format!("{0} may not join: the certificate is for n7, not for {0}", known.name);
            assert_eq!(refused, Welcome::Refused(words));
        }
        assert!(matches!(ask(&["n7", &known.name], &known, false).await, Welcome::Joined { .. }), "its own name");
        cluster.shutdown().await;
    }

    /// Answers every introduction with "you are no member", under a certificate for `by`.
    struct Liar {
        links: Arc<dyn Transport>,
        by: Counterpart,
        told: watch::Sender<usize>,
    }

    impl Transport for Liar {
        fn introduce(&self, _: String, _: Bytes, _: Duration) -> BoxFuture<'static, Introduced> {
            let lie = codec::encode("introduction", &Welcome::NotAMember("you are none of us".into()));
            self.told.send_modify(|told| *told += 1);
            let answer = lie.map(|lie| (lie.into(), self.by.clone())).map_err(|error| error.to_string());
            Box::pin(async move { answer })
        }

        fn request(
            &self,
            to: NodeId,
            class: Class,
            request: Bytes,
            timeout: Duration,
        ) -> BoxFuture<'static, Result<Bytes, Error>> {
            self.links.request(to, class, request, timeout)
        }

        fn set_peers(&self, me: NodeId, peers: Vec<Peer>) {
            self.links.set_peers(me, peers);
        }

        fn links(&self) -> watch::Receiver<LinkView> {
            self.links.links()
        }

        fn close(&self, timeout: Duration) -> BoxFuture<'static, ()> {
            self.links.close(timeout)
        }
    }

    /// Two nodes on these storages; the second one is told lies by `liar`. With how often it was.
    async fn start(
        network: &Network,
        storages: &[Arc<MemoryStorage>],
        liar: Option<Counterpart>,
    ) -> (Cluster, watch::Receiver<usize>) {
        let mut registry = Registry::default();
        registry.add_entity::<Catalog>();
        let (registry, told) = (Arc::new(registry), watch::Sender::new(0));
        let mut nodes = Vec::new();
        for (number, (config, storage)) in in_memory_configs(2).into_iter().zip(storages).enumerate() {
            let mut links = in_memory_links(network, &config, Impairments::none());
            if let Some(by) = liar.clone().filter(|_| number == 1) {
                let told = told.clone();
                links = Box::new(move |handler| {
                    Box::pin(async move {
                        let links = links(handler).await?;
                        Ok(Arc::new(Liar { links, by, told }) as Arc<dyn Transport>)
                    })
                });
            }
            let clock = crate::cluster::Clock::default();
            let engines = Engines { storage: storage.clone(), links, gossip: None, clock, faults: None, boot_id: 1 };
            nodes.push(Node::start(config, registry.clone(), engines).await.expect("a node starts"));
        }
        (Cluster::of(nodes), told.subscribe())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn that_it_is_no_member_a_node_believes_of_members_only() {
        let network = Network::new();
        let mut storages: Vec<_> = (0..2).map(|_| Arc::new(MemoryStorage::new())).collect();
        let (cluster, _) = start(&network, &storages, None).await;
        for node in 0..2 {
            cluster.on_node(node).ready(PATIENCE).await.expect("both get ready");
        }
        cluster.shutdown().await;
        for (by, is_believed) in [("node-7", false), ("node-1", true)] {
            storages = storages.iter().map(|storage| Arc::new(storage.crash())).collect();
            let liar = Counterpart::Named([by.to_owned()].into());
            let (cluster, mut told) = start(&network, &storages, Some(liar)).await;
            let second = cluster.on_node(1);
            match is_believed {
                true => {
                    let why = tokio::time::timeout(PATIENCE, second.failed()).await;
                    assert_eq!(why.as_deref(), Ok("you are none of us"));
                }
                false => {
                    // Two of seeds, and one of members.
                    tokio::time::timeout(PATIENCE, told.wait_for(|told| *told >= 3))
                        .await
                        .expect("told")
                        .expect("open");
                    second.ready(PATIENCE).await.expect("it serves on");
                    let ended = async {
                        tokio::select! {
                            why = second.failed() => why,
                            () = second.node().left() => "it has left".to_owned(),
                        }
                    };
                    let ended = tokio::time::timeout(Duration::from_millis(500), ended).await;
                    assert!(ended.is_err(), "{ended:?}");
                }
            }
            cluster.shutdown().await;
        }
    }
}
