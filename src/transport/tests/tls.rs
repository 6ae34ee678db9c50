//! Links with certificates: what is on the wire, and who gets in.

use super::*;
use crate::transport::tls::Tls;
use std::sync::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Passes everything on between whoever connects and `target`, and keeps it.
struct Wiretap {
    address: String,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Wiretap {
    async fn start(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, heard) = (listener.local_addr().unwrap().to_string(), Arc::<Mutex<Vec<u8>>>::default());
        let all = heard.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(&target).await.expect("the target listens");
                let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
                tokio::spawn(pass(near_read, far_write, all.clone()));
                tokio::spawn(pass(far_read, near_write, all.clone()));
            }
        });
        Self { address, heard }
    }

    fn heard(&self, what: &[u8]) -> bool {
        self.heard.lock().unwrap().windows(what.len()).any(|window| window == what)
    }
}

async fn pass(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    all: Arc<Mutex<Vec<u8>>>,
) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        all.lock().unwrap().extend_from_slice(&bytes[..read]);
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

/// Dials again at once.
fn eager() -> Options {
    Options { redial_max: Duration::from_millis(100), ..Options::default() }
}

/// A name that no other test has: ractor's registries belong to the process.
fn name() -> String {
    format!("{:016x}", rand::random::<u64>())
}

async fn node(number: u64, name: &str, tls: crate::transport::tls::Options) -> Node {
    Node::ractor(number, name, &Options { tls, ..eager() }, Arc::new(Obedient::default())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_said_can_be_read_on_the_way() {
    let words = b"the goods are in the blue van";
    for encrypted in [false, true] {
        let certificates = Certificates::new();
        let (one, two) = (name(), name());
        let files = |name: &str| if encrypted { certificates.issue(name) } else { Default::default() };
        let (a, b) = (node(1, &one, files(&one)).await, node(2, &two, files(&two)).await);
        let tap = Wiretap::start(b.peer.address.clone()).await;
        a.transport.set_peers(NodeId(1), vec![Peer { address: tap.address.clone(), ..b.peer.clone() }]);
        b.transport.set_peers(NodeId(2), vec![a.peer.clone()]);
        a.wait_link(&b, "up through the tap", |state| state.up).await;
        assert_eq!(a.ask(&b, words.to_vec()).await.unwrap(), &words[..]);
        let met = a.transport.introduce(tap.address.clone(), words.to_vec().into(), PATIENCE).await.unwrap();
        assert!(met.ends_with(words));
        assert_eq!(tap.heard(words), !encrypted, "encrypted: {encrypted}");
        assert_eq!(tap.heard(one.as_bytes()), !encrypted, "names are not to be seen, either");
        tokio::join!(a.transport.close(PATIENCE), b.transport.close(PATIENCE));
    }
}

/// Why a link from `a` to `b` does not come up, as `a` has it in an introduction, which needs no name.
async fn introduction(a: &Node, b: &Node) -> Result<Bytes, String> {
    a.transport.introduce(b.peer.address.clone(), "a".into(), PATIENCE).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_side_without_a_certificate_is_no_connection() {
    let certificates = Certificates::new();
    let (one, two) = (name(), name());
    let (with, without) = (node(1, &one, certificates.issue(&one)).await, node(2, &two, Default::default()).await);
    for (from, to) in [(&with, &without), (&without, &with)] {
        let error = introduction(from, to).await.unwrap_err();
        assert_eq!(
            error,
            format!(
                "{}: one side has a certificate for node links (transport.tls), the other has none",
                to.peer.address
            )
        );
    }
    tokio::join!(with.transport.close(PATIENCE), without.transport.close(PATIENCE));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_another_authority_opens_nothing_until_both_are_trusted() {
    let (ours, theirs) = (Certificates::new(), Certificates::new());
    let (one, two) = (name(), name());
    let (a, b) = (node(1, &one, ours.issue(&one)).await, node(2, &two, theirs.issue(&two)).await);
    for (from, to) in [(&a, &b), (&b, &a)] {
        let error = introduction(from, to).await.unwrap_err();
        assert!(error.contains("is of an authority that is not in transport.tls.ca_file"), "{error}");
    }
    // From one authority to another, without a stop: both are trusted while certificates are exchanged.
    ours.trust(&theirs);
    let error = introduction(&a, &b).await.unwrap_err();
    assert!(error.contains("does not trust the authority of this node's certificate"), "{error}");
    theirs.trust(&ours);
    assert_eq!(introduction(&a, &b).await.unwrap(), "nice to meet you, a");
    assert_eq!(introduction(&b, &a).await.unwrap(), "nice to meet you, a");
    tokio::join!(a.transport.close(PATIENCE), b.transport.close(PATIENCE));
}

/// A handler that tells whoever introduces itself as whom it may come.
struct Doorman;

impl Handler for Doorman {
    fn handle(&self, _: NodeId, _: Class, request: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async move { Ok(request) })
    }

    fn introduce(&self, caller: Caller, _: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async move { Ok(caller.to_string().into()) })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_goes_by_no_name_but_its_own() {
    let certificates = Certificates::new();
    let (one, two, three) = (name(), name(), name());
    let b = Node::ractor(2, &two, &Options { tls: certificates.issue(&two), ..eager() }, Arc::new(Doorman)).await;
    // It has the secret and a certificate of the cluster, and says that it is another node.
    let impostor = {
        let tls = Tls::open(&certificates.issue(&three), &three).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let identity = Identity { tls, ..Identity::new(&one, "secret") };
        let handler = Arc::new(Obedient::default());
        let transport = start(&eager(), identity, listener, handler, Impairments::none()).await.unwrap();
        Node { transport, peer: Peer { node: NodeId(1), name: one.clone(), address } }
    };
    assert_eq!(introduction(&impostor, &b).await.unwrap(), three, "joins are checked with the name of the certificate");

    // It dials, and is turned away; then a true node 1 dials, and is let in.
    impostor.transport.set_peers(NodeId(1), vec![b.peer.clone()]);
    b.transport.set_peers(NodeId(2), vec![impostor.peer.clone()]);
    let mut links = impostor.transport.links();
    let up = links.wait_for(|links| links.get(&NodeId(2)).is_some_and(|link| link.up));
    assert!(timeout(Duration::from_millis(500), up).await.is_err(), "an impostor got a link");
    let a = node(1, &one, certificates.issue(&one)).await;
    a.transport.set_peers(NodeId(1), vec![b.peer.clone()]);
    b.transport.set_peers(NodeId(2), vec![a.peer.clone()]);
    a.wait_link(&b, "up for the true one", |state| state.up).await;

    // The other way round: who listens at node 2's address is not node 2.
    a.transport.set_peers(NodeId(1), vec![]);
    a.transport.set_peers(NodeId(1), vec![Peer { address: impostor.peer.address.clone(), ..b.peer.clone() }]);
    let mut links = a.transport.links();
    let up = links.wait_for(|links| links.get(&NodeId(2)).is_some_and(|link| link.up));
    assert!(timeout(Duration::from_millis(500), up).await.is_err(), "linked with whoever was there");
    tokio::join!(a.transport.close(PATIENCE), b.transport.close(PATIENCE), impostor.transport.close(PATIENCE));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_is_used_for_the_next_connection() {
    let (old, new) = (Certificates::new(), Certificates::new());
    let (one, two) = (name(), name());
    let (a, b) = (node(1, &one, old.issue(&one)).await, node(2, &two, old.issue(&two)).await);
    assert!(introduction(&a, &b).await.is_ok());
    // Everyone trusts both; then each gets a certificate of the new authority; then the old one goes.
    old.trust(&new);
    for name in [&one, &two] {
        let renewed = new.issue(name);
        for (from, to) in [
            (&renewed.certificate_file, &old.files(name).certificate_file),
            (&renewed.key_file, &old.files(name).key_file),
        ] {
            std::fs::copy(from.as_ref().unwrap(), to.as_ref().unwrap()).unwrap();
        }
        assert!(introduction(&a, &b).await.is_ok() && introduction(&b, &a).await.is_ok(), "in the midst of it");
    }
    std::fs::copy(new.files("").ca_file.unwrap(), old.files("").ca_file.unwrap()).unwrap();
    assert!(introduction(&a, &b).await.is_ok() && introduction(&b, &a).await.is_ok(), "the old authority is gone");
    tokio::join!(a.transport.close(PATIENCE), b.transport.close(PATIENCE));
}
