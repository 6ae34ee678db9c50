//! What the command line says when it cannot do what it was asked: one line, and an exit code.

use crate::harness::{assert_one_line, free_ports, run};
use quorate::{
    catalog::ClusterId,
    cluster::backup::{BackupHeader, BackupId, BackupWriter, STATE_FORMAT, ShardHead},
    entity::ShardId,
};
use std::{
    fs,
    net::{TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::Output,
};

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Arguments for a node that would start, were it not for what the test changes.
fn node(dir: &Path, listen: u16, http: u16) -> Vec<String> {
    let [listen, http] = [listen, http].map(|port| format!("127.0.0.1:{port}"));
    let data = dir.join("data").display().to_string();
    let pairs =
        [("--name", "a"), ("--listen", &listen), ("--http", &http), ("--data-dir", &data), ("--seeds", &listen)];
    std::iter::once("node")
        .chain(pairs.into_iter().flat_map(|(flag, value)| [flag, value]))
        .map(str::to_owned)
        .collect()
}

async fn run_node(arguments: &[String]) -> Output {
    run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await
}

#[tokio::test]
async fn a_configuration_with_an_unknown_key_is_refused_by_name_and_line() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("node.toml");
    fs::write(&file, "[node]\nname = \"a\"\nlistn = \"127.0.0.1:1\"\n").expect("writing");
    let file = file.to_str().expect("a path");
    let output = run(&["node", "--config", file]).await;
    assert_one_line(&output, 2, &["`node.listn`", "node.toml:3", "did you mean `node.listen`?"]);
    let output = run(&["config", "check", file]).await;
    assert_one_line(&output, 2, &["`node.listn`"]);
}

#[tokio::test]
async fn a_configuration_that_contradicts_itself_is_refused_with_both_keys() {
    let output = run(&["node", "--set", "replication.election_min=3s", "--seeds", "127.0.0.1:7101"]).await;
    assert_one_line(&output, 2, &["replication.election_min", "replication.election_max", "flag --set"]);
}

#[tokio::test]
async fn a_file_that_is_not_there_is_named() {
    let output = run(&["node", "--config", "/nonexistent/node.toml"]).await;
    assert_one_line(&output, 2, &["/nonexistent/node.toml", "--config"]);
}

#[tokio::test]
async fn a_node_without_seeds_is_told_how_to_be_alone() {
    let output = run(&["node"]).await;
    assert_one_line(&output, 2, &["node.seeds", "--seeds 127.0.0.1:7101"]);
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::write(dir.path().join("data"), "a file where a directory should be").expect("writing");
    let ports = free_ports(2);
    let output = run_node(&node(dir.path(), ports[0], ports[1])).await;
    assert_one_line(&output, 1, &["`node.data_dir`", "--data-dir"]);
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_flag() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = holder.local_addr().expect("its number").port();
    let free = free_ports(1)[0];
    let output = run_node(&node(dir.path(), free, taken)).await;
    assert_one_line(&output, 1, &["is taken", &taken.to_string(), "node.http", "--http"]);
    let output = run_node(&node(dir.path(), taken, free)).await;
    assert_one_line(&output, 1, &["is taken", "(TCP)", "node.listen", "--listen"]);
    let holder = UdpSocket::bind(("127.0.0.1", free)).expect("a port that was free just now");
    let output = run_node(&node(dir.path(), free, free_ports(1)[0])).await;
    assert_one_line(&output, 1, &["is taken", "(UDP)", "--listen"]);
    drop(holder);
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let ports = free_ports(2);
    let mut arguments = node(dir.path(), ports[0], ports[1]);
    arguments.extend(["--secret-file".into(), "/nonexistent/secret".into()]);
    assert_one_line(&run_node(&arguments).await, 2, &["cluster.secret_file", "/nonexistent/secret"]);
}

#[tokio::test]
async fn a_cluster_that_is_not_there_is_exit_code_3() {
    // Bound, so that no other test's node takes the port, but nobody listens on it.
    let nobody = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    nobody.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("some port");
    let port = nobody.local_addr().expect("bound").as_socket().expect("an IP address").port();
    let url = format!("http://127.0.0.1:{port}");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let [free, written] = ["free", "written"].map(|name| dir.path().join(name).to_str().expect("a path").to_owned());
    fs::write(&written, empty_backup()).expect("writing");
    let commands = [
        &["status"][..],
        &["members"],
        &["shards"],
        &["entity", "order", "ord_1"],
        &["tasks"],
        &["sagas", "--status", "needs_attention"],
        &["dead-letters", "list"],
        &["dead-letters", "retry", "dl_0_1"],
        &["backup", &free],
        &["restore", &written],
        &["bench"],
    ];
    for command in commands {
        let arguments: Vec<&str> = command.iter().copied().chain(["--url", &url]).collect();
        assert_one_line(&run(&arguments).await, 3, &[&url, "quorate dev"]);
    }
    assert!(!Path::new(&free).exists() && !dir.path().join("free.part").exists());
}

/// A backup of a cluster in which there is nothing.
fn empty_backup() -> Vec<u8> {
    let shard = ShardHead { shard: ShardId(0), term: 1, index: 1, effects: 0, timers: 0, origins: vec![] };
    let header = BackupHeader {
        state_format: STATE_FORMAT,
        backup: BackupId(1),
        cluster: ClusterId(1),
        taken_at_ms: 0,
        version: "0.1.0".into(),
        entity_types: [].into(),
        shards: vec![shard],
    };
    let (mut writer, first) = BackupWriter::begin(&header).expect("encodes");
    let end = writer.end(ShardId(0));
    [first, end, writer.finish()].concat()
}

#[tokio::test]
async fn backups_are_refused_by_file_before_anybody_is_asked() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| dir.path().join(name).to_str().expect("a path").to_owned();
    let (taken, damaged, absent) = (path("taken"), path("damaged"), path("absent"));
    fs::write(&taken, "a backup").expect("writing");
    let mut bytes = empty_backup();
    *bytes.last_mut().expect("a trailer") ^= 1;
    fs::write(&damaged, bytes).expect("writing");
    assert_one_line(&run(&["backup", &taken]).await, 2, &[&taken, "never written over"]);
    assert_eq!(fs::read(&taken).expect("still there"), b"a backup");
    assert_one_line(&run(&["backup", "/nonexistent/b"]).await, 2, &["/nonexistent/b.part"]);
    assert_one_line(&run(&["restore", &absent]).await, 2, &[&absent]);
    assert_one_line(&run(&["restore", &damaged]).await, 1, &[&damaged, "at byte", "nothing was sent"]);
}

#[tokio::test]
async fn bad_usage_is_exit_code_2_and_help_is_0() {
    assert_eq!(run(&["no-such-command"]).await.status.code(), Some(2));
    assert_eq!(run(&["bench", "--workload", "nonsense"]).await.status.code(), Some(2));
    assert_eq!(run(&["dead-letters", "discard"]).await.status.code(), Some(2), "it discards nothing unnamed");
    assert_one_line(&run(&["bench", "--url", "https://127.0.0.1:1"]).await, 2, &["no TLS"]);
    for command in
        [&["--help"][..], &["--version"], &["dev", "--help"], &["bench", "--help"], &["config", "show", "--help"]]
    {
        let output = run(command).await;
        assert_eq!(output.status.code(), Some(0), "{command:?}: {}", stderr(&output));
        assert!(output.stderr.is_empty() && !output.stdout.is_empty(), "{command:?}");
    }
}

/// A build that can be sabotaged does as it is told: tests/sabotage.
#[cfg(not(feature = "sabotage"))]
#[tokio::test]
async fn a_build_for_use_keeps_its_promises_and_refuses_to_be_told_otherwise() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let ports = free_ports(2);
    let node = node(dir.path(), ports[0], ports[1]);
    let node: Vec<&str> = node.iter().map(String::as_str).collect();
    for command in [&node[..], &["chaos", "--duration", "5s", "--faults", "kill"]] {
        let output = crate::harness::run_with(&[("QUORATE_SABOTAGE", "skip-fsync")], command).await;
        assert_one_line(&output, 2, &["`QUORATE_SABOTAGE`", "keeps its promises"]);
    }
    assert!(!dir.path().join("data").exists(), "it was refused before it did anything");
    assert!(!stdout(&run(&["--version"]).await).contains("sabotage"));
}

#[tokio::test]
async fn every_example_configuration_passes_the_check() {
    let files = examples();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        let file = file.to_str().expect("a path");
        let output = run(&["config", "check", file]).await;
        assert_eq!(output.status.code(), Some(0), "{file}: {}", stderr(&output));
    }
}

fn examples() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster-config");
    let entries = fs::read_dir(dir).expect("cluster-config/").map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect()
}

#[tokio::test]
async fn the_configuration_shown_says_where_each_value_came_from() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster-config/node-2.toml");
    let output = run(&["config", "show", "--config", file.to_str().expect("a path"), "--zone", "z9"]).await;
    let shown = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let line = |key: &str| shown.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{key}: {shown}"));
    assert!(line("name").contains("node-2.toml:"), "{shown}");
    assert!(line("zone").ends_with("flag --zone"), "{shown}");
    assert!(line("heartbeat").ends_with("# default"), "{shown}");
}

#[tokio::test]
async fn dev_says_which_port_is_taken_before_it_starts_anything() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = holder.local_addr().expect("its address");
    let data = dir.path().to_str().expect("a path");
    let output = run(&["dev", "--nodes", "1", "--data-dir", data, "--http", &taken.to_string()]).await;
    assert_one_line(&output, 1, &[&taken.port().to_string(), "is taken", "--http"]);
    assert!(!dir.path().join("n1/log").exists(), "nothing was started");
}
