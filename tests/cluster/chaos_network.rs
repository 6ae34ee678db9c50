//! `quorate chaos` in a network namespace of its own: packets are really dropped, nothing is violated,
//! and nothing of it is left, whichever way it ends. Where no namespace can be made it says why, and
//! uses the proxy.

use crate::harness::{BINARY, PATIENCE, quorate, run, turn, wait_until};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    sync::Mutex,
};

/// CAP_NET_ADMIN and CAP_SYS_ADMIN, as bits of what `/proc` shows.
const MAY_MAKE_NAMESPACES: u64 = 1 << 12 | 1 << 21;

/// Whether this process may make namespaces, so that one must be made. Others may yet be allowed to.
fn is_privileged() -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("/proc");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("capabilities");
    let bits = u64::from_str_radix(effective.trim(), 16).expect("hexadecimal");
    bits & MAY_MAKE_NAMESPACES == MAY_MAKE_NAMESPACES
}

/// Network namespaces that some process is in.
fn namespaces() -> BTreeSet<String> {
    let processes = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    let links = processes.filter_map(|process| fs::read_link(process.path().join("ns/net")).ok());
    links.map(|link| link.display().to_string()).collect()
}

/// Names of namespaces, and rules, that a run could leave behind in this one.
fn traces() -> (Vec<String>, String) {
    let named =
        fs::read_dir("/run/netns").map(|names| names.filter_map(Result::ok).collect()).unwrap_or_else(|_| Vec::new());
    let tables = Command::new("nft").args(["list", "tables"]).output();
    let tables = tables.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    (named.iter().map(|name| name.file_name().display().to_string()).collect(), tables)
}

fn report(dir: &Path) -> Value {
    serde_json::from_slice(&fs::read(dir.join("report.json")).expect("a report")).expect("JSON")
}

/// A short run with these arguments, and its report.
async fn chaos(arguments: &[&str], dir: &Path) -> (Output, String) {
    let common = ["chaos", "--clients", "6", "--report", dir.to_str().expect("a path")];
    let output = run(&[&common[..], arguments].concat()).await;
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    (output, String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test]
async fn partitions_in_a_namespace_violate_nothing_and_leave_nothing_behind() {
    let _turn = turn().await;
    let dir = tempfile::tempdir().expect("a directory");
    let plan = dir.path().join("plan.toml");
    let event = |at: u32, rest: &str| format!("[[fault]]\nat = \"{at}s\"\nlasts = \"3s\"\n{rest}\n");
    let events = [
        event(2, "kind = \"partition\"\nnode = 1"),
        event(8, "kind = \"partition-one-way\"\nnode = 2"),
        event(14, "kind = \"partition-partial\"\nnode = 1\npeer = 3"),
    ];
    fs::write(&plan, format!("duration = \"20s\"\nseed = 7\n{}", events.concat())).expect("written");
    let before = traces();
    let target = dir.path().join("report");
    let (output, said) = chaos(&["--plan", plan.to_str().expect("a path")], &target).await;
    assert_eq!(output.status.code(), Some(0), "{said}");
    let report = report(&target);
    let network = &report["network"];
    assert_eq!((&report["verdict"], report["faults"].as_array().map(Vec::len)), (&"passed".into(), Some(3)));
    if is_privileged() || network["way"] == "namespace" {
        assert_eq!(network["way"], "namespace", "this process may make one: {network}");
        assert!(network["packets_dropped"].as_u64().is_some_and(|count| count > 100), "{network}");
        let own = network["namespace"].as_str().expect("its name");
        assert!(!namespaces().contains(own), "{own} has outlived its run");
    } else {
        let about = network["about"].as_str().expect("a sentence");
        assert!(about.contains("without privileges: no network namespace can be made here: "), "{about}");
        let (refused, said) = chaos(&["--network", "namespace"], &target).await;
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains("error: --network namespace: no network namespace can be made here: "), "{said}");
    }
    let command = report["command"].as_str().expect("a command");
    assert!(command.contains(&format!("--network {}", network["way"].as_str().expect("a way"))), "{command}");
    assert_eq!(traces(), before);
}

#[tokio::test]
async fn the_proxy_does_beside_the_kernel_what_the_kernel_cannot() {
    let _turn = turn().await;
    let dir = tempfile::tempdir().expect("a directory");
    let arguments = ["--duration", "14s", "--faults", "loss,delay,reset,partition", "--seed", "5"];
    let (output, said) = chaos(&arguments, dir.path()).await;
    assert_eq!(output.status.code(), Some(0), "{said}");
    let network = &report(dir.path())["network"];
    let about = network["about"].as_str().expect("a sentence");
    if is_privileged() || network["way"] == "namespace" {
        assert!(about.contains("nft drops packets; a proxy delays"), "{about}");
        assert!(network["packets_dropped"].as_u64().is_some_and(|count| count > 100), "{network}");
    } else {
        assert!(about.contains("a proxy between the nodes"), "{about}");
    }
}

#[tokio::test]
async fn a_run_that_is_killed_takes_its_namespace_along() {
    let _turn = turn().await;
    let dir = tempfile::tempdir().expect("a directory");
    for signal in ["INT", "KILL"] {
        let mut command = quorate(&["chaos", "--duration", "60s", "--faults", "partition", "--seed", "1"]);
        command.arg("--report").arg(dir.path().join("report")).env("TMPDIR", dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let runner = Mutex::new(command.spawn().expect("started"));
        let pid = runner.lock().expect("nobody panics").id();
        let ours = fs::read_link("/proc/self/ns/net").expect("/proc");
        let of_run = || fs::read_link(format!("/proc/{pid}/ns/net")).ok().filter(|net| *net != ours);
        wait_until("the nodes run", PATIENCE, || async { nodes_of(pid) == 3 }).await;
        let own = of_run().map(|net| net.display().to_string());
        assert!(own.is_some() || !is_privileged(), "this process may make a namespace");
        let sent = Command::new("sh").args(["-c", "kill -s \"$1\" \"$2\"", "kill", signal, &pid.to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()));
        wait_until("the runner has ended", PATIENCE, || async {
            runner.lock().expect("nobody panics").try_wait().expect("a child of ours").is_some()
        })
        .await;
        // Nodes whose runner was killed drain by themselves.
        wait_until("no node is left", PATIENCE, || async { nodes_of(pid) == 0 }).await;
        if let Some(own) = own {
            wait_until("its namespace is gone", PATIENCE, || async { !namespaces().contains(&own) }).await;
        }
    }
}

/// What to put before a command so that it can make no network namespace, whoever runs this test.
fn without_namespaces() -> Vec<&'static str> {
    let no_more = "echo 0 > /proc/sys/user/max_net_namespaces && exec \"$0\" \"$@\"";
    let in_user_namespace = vec!["unshare", "--user", "--map-root-user", "sh", "-c", no_more];
    let possible = Command::new("unshare").args(["--user", "--map-root-user", "true"]).output();
    match (possible.is_ok_and(|output| output.status.success()), is_privileged()) {
        (true, _) => in_user_namespace,
        (false, true) => vec!["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"],
        (false, false) => vec!["env"],
    }
}

#[tokio::test]
async fn where_no_namespace_can_be_made_the_reason_is_told_and_the_proxy_is_used() {
    let _turn = turn().await;
    let dir = tempfile::tempdir().expect("a directory");
    let target = dir.path().join("report");
    let target_path = target.to_str().expect("a path");
    let prefix = without_namespaces();
    let chaos = |network: &'static str| {
        let arguments = ["chaos", "--duration", "6s", "--faults", "partition", "--clients", "4", "--seed", "2"];
        let mut command = Command::new(prefix[0]);
        command.args(&prefix[1..]).arg(BINARY).args(arguments).args(["--network", network, "--report", target_path]);
        command.stdin(Stdio::null()).output().expect("it runs")
    };
    let refused = chaos("namespace");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("error: --network namespace: no network namespace can be made here: unshare: "), "{said}");
    let output = chaos("auto");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let network = &report(&target)["network"];
    assert_eq!((&network["way"], &network["namespace"]), (&"proxy".into(), &Value::Null));
    let about = network["about"].as_str().expect("a sentence");
    assert!(about.contains("without privileges: no network namespace can be made here: unshare: "), "{about}");
}

#[tokio::test]
async fn a_process_that_was_not_put_into_a_namespace_changes_nothing_in_the_one_it_is_in() {
    let here = fs::read_link("/proc/self/ns/net").expect("/proc").display().to_string();
    let output = run(&["chaos", "--left-network", &here]).await;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("not in a network namespace of its own"), "{said}");
}

/// Processes of nodes whose directories are those of the runner with this process id.
fn nodes_of(runner: u32) -> usize {
    let home = format!("quorate-chaos-{runner}-");
    let processes = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    let commands = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    commands.filter(|command| String::from_utf8_lossy(command).contains(&home)).count()
}
