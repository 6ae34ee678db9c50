//! Links with certificates: what is on the wire, and who gets in.

use super::*;
use crate::transport::tls::{self, Tls, tests::overwrite};
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

async fn node(number: u64, name: &str, tls: tls::Options) -> Node {
    Node::ractor(number, name, &Options { tls, ..eager() }, Arc::new(Obedient::default())).await
}

/// A node that goes by `name` and shows the certificate of `shows`, with what it knows of the files.
async fn certified(number: u64, name: &str, certificates: &Certificates, shows: &str) -> (Node, Tls) {
    let tls = Tls::open(&certificates.issue(shows), shows).unwrap().expect("certificates");
    let identity = Identity { tls: Some(tls.clone()), ..Identity::new(name, "secret") };
    (Node::ractor_as(number, identity, &eager(), Arc::new(Doorman)).await, tls)
}

/// A handler that tells whoever introduces itself as whom it may come.
struct Doorman;

impl Handler for Doorman {
    fn handle(&self, _: NodeId, _: Class, request: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async move { Ok(request) })
    }

    fn introduce(&self, caller: Counterpart, _: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async move { Ok(caller.to_string().into()) })
    }
}

/// What `b` answers `a`, who needs no link for it.
async fn introduction(a: &Node, b: &Node) -> Result<Bytes, String> {
    a.transport.introduce(b.peer.address.clone(), "a".into(), PATIENCE).await.map(|(answer, _)| answer)
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
        let (met, by) = a.transport.introduce(tap.address.clone(), words.to_vec().into(), PATIENCE).await.unwrap();
        assert_eq!((by.may_be(&two), by.may_be("another")), (true, !encrypted));
        assert!(met.ends_with(words));
        assert_eq!(tap.heard(words), !encrypted, "encrypted: {encrypted}");
        assert_eq!(tap.heard(one.as_bytes()), !encrypted, "names are not to be seen, either");
        tokio::join!(a.transport.close(PATIENCE), b.transport.close(PATIENCE));
    }
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
    let ((a, ours_seen), (b, theirs_seen)) =
        (certified(1, &one, &ours, &one).await, certified(2, &two, &theirs, &two).await);
    for (from, to) in [(&a, &b), (&b, &a)] {
        let error = introduction(from, to).await.unwrap_err();
        assert!(error.contains("is of an authority that is not in transport.tls.ca_file"), "{error}");
    }
    // From one authority to another, without a stop: both are trusted while certificates are exchanged.
    ours.trust(&theirs);
    ours_seen.reload();
    let error = introduction(&a, &b).await.unwrap_err();
    assert!(error.contains("does not trust the authority of this node's certificate"), "{error}");
    theirs.trust(&ours);
    theirs_seen.reload();
    assert_eq!(introduction(&a, &b).await.unwrap(), one);
    assert_eq!(introduction(&b, &a).await.unwrap(), two);
    tokio::join!(a.transport.close(PATIENCE), b.transport.close(PATIENCE));
}

/// Dials `to` for a while, and expects no link, and a word why.
async fn gets_no_link(from: &Node, to: &Node, why: &str) {
    let wire_says = from.transport.introduce(to.peer.address.clone(), "x".into(), PATIENCE);
    assert!(wire_says.await.is_ok(), "{why}: it is let in as what its certificate says");
    from.transport.set_peers(from.peer.node, vec![to.peer.clone()]);
    let mut links = from.transport.links();
    let node = to.peer.node;
    let up = links.wait_for(|links| links.get(&node).is_some_and(|link| link.up));
    assert!(timeout(Duration::from_millis(500), up).await.is_err(), "{why}: it got a link");
    from.transport.set_peers(from.peer.node, vec![]);
}

async fn gets_a_link(from: &Node, to: &Node) {
    from.transport.set_peers(from.peer.node, vec![to.peer.clone()]);
    to.transport.set_peers(to.peer.node, vec![from.peer.clone()]);
    from.wait_link(to, "up", |state| state.up).await;
    from.transport.set_peers(from.peer.node, vec![]);
    to.transport.set_peers(to.peer.node, vec![]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_goes_by_no_name_but_its_own() {
    let certificates = Certificates::new();
    let (one, two, three) = (name(), name(), name());
    let (a, _) = certified(1, &one, &certificates, &one).await;
    let (b, _) = certified(2, &two, &certificates, &two).await;
    // Each has the secret, and a certificate of the cluster for node 3.
    let (false_a, _) = certified(1, &one, &certificates, &three).await;
    let (false_b, _) = certified(2, &two, &certificates, &three).await;
    assert_eq!(introduction(&false_a, &b).await.unwrap(), three, "a join is checked with this");

    // Who dials under another's name is turned away by who listens ...
    b.transport.set_peers(NodeId(2), vec![false_a.peer.clone()]);
    gets_no_link(&false_a, &b, "a caller that is not node 1").await;
    // ... and who listens under another's name, by who dials.
    false_b.transport.set_peers(NodeId(2), vec![a.peer.clone()]);
    gets_no_link(&a, &false_b, "a listener that is not node 2").await;
    // The true ones are let in, in the same way.
    gets_a_link(&a, &b).await;
    for node in [a, b, false_a, false_b] {
        node.transport.close(PATIENCE).await;
    }
}

/// Shakes hands with `to` as a client of one's own: the certificate may be any, or none.
async fn knock(to: &Node, trust: &Certificates, shows: Option<&tls::Options>) -> Result<Vec<u8>, std::io::Error> {
    use tokio_rustls::rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    };
    let read = |file: &Option<std::path::PathBuf>| std::fs::read(file.as_ref().unwrap()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&read(&trust.files("").ca_file)).unwrap()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots);
    let config = match shows {
        None => config.with_no_client_auth(),
        Some(files) => {
            let certificate = CertificateDer::from_pem_slice(&read(&files.certificate_file)).unwrap();
            let key = PrivateKeyDer::from_pem_slice(&read(&files.key_file)).unwrap();
            config.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    };
    let stream = TcpStream::connect(&to.peer.address).await?;
    let name = to.peer.name.clone().try_into().unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    // The beginning of an introduction, which is answered with 42 bytes.
    stream.write_all(&[&b"QUORATE\n\x00\x01\x02"[..], &[7; 32]].concat()).await?;
    stream.flush().await?;
    let mut answer = vec![0; 42];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_without_a_certificate_or_with_an_expired_one_is_not_even_answered() {
    let certificates = Certificates::new();
    let two = name();
    let (b, _) = certified(2, &two, &certificates, &two).await;
    let hour = Duration::from_secs(3600);
    let good = certificates.issue("good");
    assert!(knock(&b, &certificates, Some(&good)).await.unwrap().starts_with(b"QUORATE\n"), "so it is done");
    let expired = certificates.issue_as("late", "late", std::time::SystemTime::now() - hour / 2);
    let foreign = Certificates::new();
    for (shows, who) in [
        (None, "without a certificate"),
        (Some(&expired), "with an expired one"),
        (Some(&foreign.issue("other")), "with one of another authority"),
    ] {
        let answer = knock(&b, &certificates, shows).await;
        assert!(answer.is_err(), "{who}: {answer:?}");
    }
    b.transport.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_one_authority_to_the_next_without_a_stop() {
    let (old, new) = (Certificates::new(), Certificates::new());
    let (one, two) = (name(), name());
    let ((a, seen_by_a), (b, seen_by_b)) = (certified(1, &one, &old, &one).await, certified(2, &two, &old, &two).await);
    let reload = || [&seen_by_a, &seen_by_b].map(Tls::reload);
    let both_ways = async |when: &str| {
        assert_eq!(introduction(&a, &b).await.as_deref(), Ok(one.as_bytes()), "{when}");
        assert_eq!(introduction(&b, &a).await.as_deref(), Ok(two.as_bytes()), "{when}");
    };
    both_ways("at first").await;
    // Everyone trusts both; then each gets a certificate of the new authority; then the old one goes.
    old.trust(&new);
    reload();
    for name in [&one, &two] {
        let (renewed, used) = (new.issue(name), old.files(name));
        for (from, to) in [(renewed.certificate_file, used.certificate_file), (renewed.key_file, used.key_file)] {
            overwrite(&to, &std::fs::read_to_string(from.unwrap()).unwrap());
        }
        reload();
        both_ways("in the midst of it").await;
    }
    overwrite(&old.files("").ca_file, &std::fs::read_to_string(new.files("").ca_file.unwrap()).unwrap());
    reload();
    both_ways("without the old one").await;
    assert!(Tls::open(&old.issue("n3"), "n3").is_err(), "and what it issues is good for nothing any more");
    tokio::join!(a.transport.close(PATIENCE), b.transport.close(PATIENCE));
}
