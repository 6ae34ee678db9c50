//! Certificates: made on the command line, shown by nodes to each other, and refused where they should be.

use crate::{
    harness::{Cluster, Node, PATIENCE, Response, assert_one_line, quorate, run, run_with, wait_until},
    https::{Entered, Https},
};
use serde_json::{Value, json};
use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Output};

/// Runs `quorate certs …` in a directory.
async fn certs(dir: &Path, arguments: &[&str]) -> Output {
    let dir = dir.display().to_string();
    run(&[&["certs"], arguments, &["--dir", &dir]].concat()).await
}

/// The same, which must go well.
async fn make(dir: &Path, arguments: &[&str]) -> String {
    let output = certs(dir, arguments).await;
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Flags for a node that shows the certificate `certificate`, from `dir`.
fn shows(dir: &Path, certificate: &str) -> Vec<String> {
    let file = |key: &str, name: String| {
        ["--set".to_owned(), format!("transport.tls.{key}={}", dir.join(name).display())].into_iter()
    };
    file("ca_file", "ca.crt".into())
        .chain(file("certificate_file", format!("{certificate}.crt")))
        .chain(file("key_file", format!("{certificate}.key")))
        .collect()
}

fn start(node: &Node, flags: &[String]) {
    node.restart_with(&flags.iter().map(String::as_str).collect::<Vec<_>>());
}

/// Nodes with certificates, running and ready.
async fn cluster(nodes: usize) -> Cluster {
    let cluster = Cluster::plan(nodes, &[]);
    make(cluster.dir(), &["init"]).await;
    for node in cluster.nodes() {
        make(cluster.dir(), &["node", &node.name]).await;
        start(node, &shows(cluster.dir(), &node.name));
    }
    cluster.wait_ready("with certificates").await;
    cluster
}

async fn order(node: &Node, key: &str) -> Response {
    let body = json!({
        "customer_id": "cus_1", "currency": "USD", "payment_method": "pm_card_ok",
        "items": [{ "sku": "mug", "quantity": 1, "unit_price": 1999 }],
    });
    node.post("/v1/orders", &body, &[("idempotency-key", key), ("prefer", "wait=10")]).await
}

/// Orders, as a client does: again with the same key, until it is confirmed.
async fn confirm(node: &Node, key: &str) {
    wait_until(&format!("{key} is confirmed through {}", node.name), PATIENCE, || async {
        let answer = order(node, key).await;
        assert!([200, 201, 503, 504].contains(&answer.status), "{}: {}", answer.status, answer.text());
        serde_json::from_slice::<Value>(&answer.body).is_ok_and(|order| order["status"] == "confirmed")
    })
    .await;
}

async fn metric(node: &Node, name: &str) -> f64 {
    let answer = node.http_get("/metrics").await;
    let text = answer.text();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} is missing"));
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_with_certificates_sells_through_a_kill_and_a_renewal() {
    const NOT_AFTER: &str = "quorate_tls_certificate_not_after_timestamp_seconds";
    let cluster = cluster(3).await;
    let dir = cluster.dir();
    cluster.node(0).put("/v1/inventory/mug", &json!({ "on_hand": 100 })).await;
    for (number, node) in cluster.nodes().iter().enumerate() {
        confirm(node, &format!("at-first-{number}")).await;
    }
    let before = metric(cluster.node(2), NOT_AFTER).await;
    make(dir, &["node", "n3", "--days", "20", "--overwrite"]).await;
    wait_until("n3 has read it", PATIENCE, || async {
        // 20 days from now instead of 365.
        metric(cluster.node(2), NOT_AFTER).await < before - 300.0 * 24.0 * 3600.0
    })
    .await;
    wait_until("it says so", PATIENCE, || async {
        let log = cluster.node(2).log_text();
        log.contains("certificates of the node links were read again") && log.contains("ends soon")
    })
    .await;
    // Whoever comes back meets the others anew.
    for dead in [0, 1] {
        cluster.node(dead).kill9();
        confirm(cluster.node(2), &format!("without-{dead}")).await;
        start(cluster.node(dead), &shows(dir, &cluster.node(dead).name));
        cluster.node(dead).wait_ready("again").await;
        confirm(cluster.node(dead), &format!("again-{dead}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_has_a_certificate_of_the_authority_for_its_own_name_gets_in() {
    let cluster = cluster(2).await;
    let dir = cluster.dir();
    let foreign = dir.join("foreign");
    make(&foreign, &["init"]).await;
    make(&foreign, &["node", "n9"]).await;
    let newcomer = |flags: &[String]| {
        let ports = crate::harness::free_ports(2);
        let mut arguments = vec!["node".to_owned(), "--name".into(), "n9".into()];
        let seeds = cluster.nodes().iter().map(|node| node.listen.clone()).collect::<Vec<_>>().join(",");
        for (flag, value) in [
            ("--listen", format!("127.0.0.1:{}", ports[0])),
            ("--http", format!("127.0.0.1:{}", ports[1])),
            ("--data-dir", dir.join("n9").join("data").display().to_string()),
            ("--secret-file", dir.join("secret").display().to_string()),
            ("--seeds", seeds),
        ] {
            arguments.extend([flag.to_owned(), value]);
        }
        arguments.extend_from_slice(flags);
        Node::other(&cluster, "n9", &format!("http://127.0.0.1:{}", ports[1]), arguments)
    };

    // Another authority; none at all: it waits, and both sides say why.
    for (flags, here, there) in [
        (
            shows(&foreign, "n9"),
            "of an authority that is not in transport.tls.ca_file",
            "does not trust the authority of this node's certificate",
        ),
        (Vec::new(), "one side has a certificate for node links (transport.tls)", "one side has a certificate"),
    ] {
        let node = newcomer(&flags);
        node.restart();
        wait_until("the one outside says why", PATIENCE, || async { node.log_text().contains(here) }).await;
        wait_until("the one inside says why", PATIENCE, || async {
            cluster.nodes().iter().any(|member| member.log_text().contains(there))
        })
        .await;
        assert_ne!(node.http_get("/readyz").await.status, 200);
        node.kill9();
    }

    // The certificate of another node: it does not even start.
    let node = newcomer(&shows(dir, "n1"));
    let output = run(&node.arguments().iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_one_line(&output, 2, &["`transport.tls.certificate_file`", "is for \"n1\", and this node is \"n9\""]);

    // Its own: it joins.
    make(dir, &["node", "n9"]).await;
    let node = newcomer(&shows(dir, "n9"));
    node.restart();
    node.wait_ready("with a certificate of its own").await;
}

#[tokio::test]
async fn certificates_are_made_once_and_keys_are_for_their_owner_only() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let dir = dir.path().join("certs");
    let output = certs(&dir, &["node", "n1"]).await;
    assert_one_line(&output, 1, &["ca.crt", "No such file", "quorate certs init"]);

    let said = make(&dir, &["init"]).await;
    assert!(said.contains("ca.crt") && said.contains("good until 20"), "{said}");
    let said: Value = serde_json::from_str(&make(&dir, &["node", "n1", "--json"]).await).expect("JSON");
    for member in ["certificate", "key", "not_after"] {
        assert!(said[member].is_string(), "{member}: {said}");
    }
    for (file, mode) in [("ca.key", 0o600), ("ca.crt", 0o644), ("n1.key", 0o600), ("n1.crt", 0o644)] {
        let found = fs::metadata(dir.join(file)).expect(file).permissions().mode() & 0o777;
        // Whoever runs this may have a stricter umask.
        assert_eq!(found & !mode, 0, "{file}: {found:o}");
        assert_ne!(found & 0o400, 0, "{file}: {found:o}");
    }
    let mut all: Vec<_> =
        fs::read_dir(&dir).expect("a directory").map(|entry| entry.expect("one").file_name()).collect();
    all.sort();
    assert_eq!(all, ["ca.crt", "ca.key", "n1.crt", "n1.key"], "and nothing else");

    let before = fs::read(dir.join("ca.key")).expect("the key");
    assert_one_line(&certs(&dir, &["init"]).await, 1, &["ca.crt is there already"]);
    assert_one_line(&certs(&dir, &["node", "n1"]).await, 1, &["n1.crt is there already", "--overwrite"]);
    assert_eq!(fs::read(dir.join("ca.key")).expect("the key"), before);
    assert_one_line(&certs(&dir, &["node", "N 1"]).await, 2, &["\"N 1\" is not a node name", "1 to 63 of a-z"]);
    assert_one_line(&certs(&dir, &["node", "ca", "--overwrite"]).await, 2, &["of the authority"]);
    assert_eq!(certs(&dir, &["node", "n2", "--days", "0"]).await.status.code(), Some(2));

    fs::write(dir.join("ca.key"), fs::read(dir.join("n1.key")).expect("a key")).expect("written");
    assert_one_line(&certs(&dir, &["node", "n2"]).await, 1, &["ca.key", "the key is not the one of the certificate"]);
    assert!(!dir.join("n2.key").exists());

    // A link that leads nowhere is in the way, too, and nothing is written beside it.
    let dir = dir.join("other");
    fs::create_dir_all(&dir).expect("a directory");
    std::os::unix::fs::symlink(dir.join("nowhere").join("ca.crt"), dir.join("n1.crt")).expect("a link");
    make(&dir, &["init"]).await;
    assert_one_line(&certs(&dir, &["node", "n1"]).await, 1, &["n1.crt is there already"]);
    assert!(!dir.join("n1.key").exists());
}

#[test]
fn half_of_a_configuration_is_refused_with_what_is_missing() {
    let output = quorate(&["node", "--seeds", "127.0.0.1:1", "--set", "transport.tls.ca_file=ca.crt"]).output();
    assert_one_line(
        &output.expect("it runs"),
        2,
        &["transport.tls.ca_file", "transport.tls.certificate_file", "flag --set", "all three, or none"],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_goes_through_a_proxy_with_tls_and_no_further_than_it_trusts_it() {
    let cluster = Cluster::start(1).await;
    let node = cluster.node(0).url.trim_start_matches("http://").to_owned();
    let https = Https::new();
    let door = https.listen().await;
    let url = door.url();
    let proxy = tokio::spawn(async move {
        while let Some(knock) = door.accept().await {
            let node = node.clone();
            tokio::spawn(async move {
                let Some(Entered::Tls(mut client)) = knock.enter().await else { return };
                let mut node = tokio::net::TcpStream::connect(node).await.expect("the node listens");
                // However it ends, it has ended.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut node).await;
            });
        }
    });
    let file = https.ca_file().display().to_string();
    let trusting = [("SSL_CERT_FILE", file.as_str())];
    let shown = run_with(&trusting, &["status", "--url", &url, "--json"]).await;
    assert_eq!(shown.status.code(), Some(0), "{}", String::from_utf8_lossy(&shown.stderr));
    assert!(serde_json::from_slice::<Value>(&shown.stdout).is_ok_and(|status| status["name"] == "n1"));
    let backup = cluster.dir().join("backup").display().to_string();
    let taken = run_with(&trusting, &["backup", &backup, "--url", &url]).await;
    assert_eq!(taken.status.code(), Some(0), "{}", String::from_utf8_lossy(&taken.stderr));
    assert_one_line(&run(&["status", "--url", &url]).await, 3, &["cannot reach https://", "SSL_CERT_FILE"]);
    proxy.abort();
}
