//! Who may know whom: DESIGN's arrows between the modules, read off the sources.
//!
//! Every path that begins with `crate::` (or climbs up to the root by `super::`) is an arrow from
//! the module that its file belongs to. Each third-party engine has one module that may name it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// What a module may use beside itself: a module, or one item of it. `lib.rs` and `main.rs` are
/// above all of them.
const ARROWS: &[(&str, &[&str])] = &[
    ("entity", &[]),
    // A constant `false` in builds for use.
    ("sabotage", &[]),
    ("commerce", &["entity"]),
    ("telemetry", &[]),
    // Nothing above them: of the catalog they know the ids only.
    ("storage", &["sabotage"]),
    // Faults on purpose, which links and gossip share.
    ("impairment", &[]),
    ("transport", &["catalog::NodeId", "impairment"]),
    ("membership", &["catalog::NodeId", "catalog::ClusterId", "impairment", "telemetry"]),
    ("replication", &["storage", "transport", "catalog::NodeId", "catalog::ClusterId"]),
    ("catalog", &["entity", "storage", "transport"]),
    // Of the cluster the vocabulary of its answers, which the callers get to see unchanged.
    (
        "shard",
        &[
            "entity",
            "storage",
            "transport",
            "replication",
            "catalog",
            "cluster::Unavailable",
            "cluster::Consistency",
            "cluster::Idempotency",
            "cluster::Receipt",
            "sabotage",
        ],
    ),
    // Every part owns its options; the configuration composes them.
    (
        "config",
        &[
            "storage::Options",
            "transport::Options",
            "membership::Options",
            "replication::Options",
            "shard::Options",
            "telemetry::Options",
            "ingress::Options",
            "gateway::Options",
            "outbound::Options",
        ],
    ),
    (
        "cluster",
        &[
            "entity",
            "catalog",
            "impairment",
            "storage",
            "transport",
            "membership",
            "replication",
            "shard",
            "config",
            "Config",
            "telemetry",
        ],
    ),
    // It carries what payments ask for, as a task of the runtime.
    ("gateway", &["commerce", "cluster::TaskContext", "cluster::TaskError", "config::Secret", "outbound", "sabotage"]),
    ("outbound", &[]),
    // The runtime knows taps, and nothing of webhooks.
    ("webhooks", &["entity", "commerce", "cluster", "Cluster", "outbound"]),
    (
        "ingress",
        &["entity", "commerce", "cluster", "Cluster", "config", "gateway", "outbound", "telemetry", "webhooks"],
    ),
    // It knows a cluster as its clients do; nothing that runs in production knows it.
    ("chaos", &["cli::http", "ingress::identity", "sabotage"]),
    // What builds for use do not have: it runs what the modules have beside them for it.
    (
        "fuzzing",
        &["storage", "transport", "membership", "replication", "commerce", "gateway", "Cluster", "ingress", "webhooks"],
    ),
    // The command line may use anything, and nothing uses it.
    (
        "cli",
        &[
            "chaos",
            "entity",
            "commerce",
            "catalog",
            "storage",
            "transport",
            "membership",
            "replication",
            "shard",
            "config",
            "Config",
            "cluster",
            "Cluster",
            "gateway",
            "ingress",
            "outbound",
            "sabotage",
            "telemetry",
            "webhooks",
            "chaos",
        ],
    ),
];

/// Single files that may use more than their module.
const EXCEPTIONS: &[(&str, &str)] = &[
    // `Cluster::http_router` is how an app of one's own gets at the routes.
    ("src/cluster/handle.rs", "ingress::routes"),
    // Damage is shown to be damage by the store that must find it.
    ("src/chaos/faults/journal.rs", "storage"),
    // openraft's suite runs on the machine that the log is really for.
    ("src/replication/tests.rs", "shard::Registry"),
    ("src/replication/tests.rs", "shard::ShardMachine"),
    ("src/storage/fuzzing.rs", "fuzzing"),
    ("src/transport/fuzzing.rs", "fuzzing"),
    ("src/transport/ractor_wire/fuzzing.rs", "fuzzing"),
    ("src/membership/fuzzing.rs", "fuzzing"),
];

/// Engines, and the modules that may name them.
const ENGINES: &[(&str, &[&str])] = &[
    ("openraft", &["replication"]),
    ("foca", &["membership"]),
    ("sled", &["storage"]),
    ("ractor_cluster", &["transport"]),
    ("tokio_rustls", &["transport", "outbound"]),
    ("rustls_native_certs", &["outbound"]),
    ("rcgen", &["transport"]),
    ("x509_parser", &["transport"]),
    ("ractor", &["shard", "transport"]),
    ("tokio_io_timeout", &["ingress"]),
    ("axum", &["ingress", "cluster", "cli", "fuzzing"]),
    ("clap", &["cli"]),
];

#[test]
fn modules_know_only_what_is_below_them() {
    let mut wrong = Vec::new();
    for file in sources() {
        let text = fs::read_to_string(&file.path).expect("a source file");
        let arrows = arrows(&text, file.depth);
        wrong.extend(arrows.iter().filter(|to| !may_use(&file, to)).map(|to| format!("{} uses {to}", file.name)));
    }
    assert!(wrong.is_empty(), "arrows against the design (see ARROWS):\n{}", wrong.join("\n"));
}

#[test]
fn each_engine_is_named_by_one_module_only() {
    let mut wrong = Vec::new();
    for file in sources() {
        let code = without_comments(&fs::read_to_string(&file.path).expect("a source file"));
        for (engine, allowed) in ENGINES {
            if !allowed.contains(&file.module.as_str()) && names_crate(&code, engine) {
                wrong.push(format!("{} names {engine}", file.name));
            }
        }
    }
    assert!(wrong.is_empty(), "engines outside of their modules (see ENGINES):\n{}", wrong.join("\n"));
}

#[test]
fn every_module_has_its_arrows_written_down() {
    let modules: BTreeSet<String> = sources().into_iter().map(|file| file.module).collect();
    let known: BTreeSet<String> = ARROWS.iter().map(|(module, _)| (*module).to_owned()).collect();
    assert_eq!(modules, known);
}

#[test]
fn the_reading_of_sources_sees_every_form_of_an_arrow() {
    let text = "
        //! [`crate::comment`] is no arrow, nor is
        use crate::one; // crate::trailing
        use crate::{two::{a::B, C}, three as four, self_evident};
        fn f() -> crate::five::T { super::super::storage::g() }
        mod tests { use super::*; }
    ";
    let found = arrows(text, 2);
    let expected =
        ["five::T", "one", "self_evident", "storage::g", "three", "two::C", "two::a::B"].map(str::to_owned).into();
    assert_eq!(found, expected);
    let file = |module: &str| Source { module: module.into(), name: String::new(), path: PathBuf::new(), depth: 2 };
    assert!(may_use(&file("commerce"), "entity::Entity") && may_use(&file("commerce"), "commerce::Money"));
    assert!(!may_use(&file("commerce"), "storage::Storage") && !may_use(&file("commerce"), "entity_like"));
    assert!(may_use(&file("transport"), "catalog::NodeId") && !may_use(&file("transport"), "catalog::View"));
    assert!(names_crate("use sled::Db;", "sled") && names_crate("x(sled::open())", "sled"));
    assert!(!names_crate("assembled::x; \"sled\"", "sled") && !names_crate("ractor_cluster::x", "ractor"));
}

struct Source {
    module: String,
    /// As shown to people.
    name: String,
    path: PathBuf,
    /// How many `super` lead from the file's own module to the crate's root.
    depth: usize,
}

/// Every file of every module.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    collect(&root.join("src"), root, &mut found);
    assert!(found.len() > 100, "the sources are found");
    found
}

fn collect(dir: &Path, root: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(dir).expect("a source directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, root, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).expect("below the root").display().to_string();
            let steps: Vec<&str> = name.trim_end_matches(".rs").trim_end_matches("/mod").split('/').collect();
            if let ["src", module, rest @ ..] = &steps[..]
                && !["lib", "main"].contains(module)
            {
                let (module, depth) = ((*module).to_owned(), rest.len() + 1);
                found.push(Source { module, name, path, depth });
            }
        }
    }
}

fn may_use(file: &Source, to: &str) -> bool {
    let leads_to =
        |allowed: &str| to.strip_prefix(allowed).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    let allowed = ARROWS.iter().find(|(module, _)| *module == file.module).map_or(&[][..], |(_, allowed)| allowed);
    leads_to(&file.module)
        || allowed.iter().any(|allowed| leads_to(allowed))
        || EXCEPTIONS.iter().any(|(name, allowed)| *name == file.name && leads_to(allowed))
}

/// The paths from the crate's root that a source names, `use` trees unfolded.
fn arrows(text: &str, depth: usize) -> BTreeSet<String> {
    let code = without_comments(text);
    let mut found = BTreeSet::new();
    paths_from("crate::", &code, &mut found);
    // From an inline module the same climb ends below the root: then what follows is no module.
    let mut climbed = BTreeSet::new();
    paths_from(&"super::".repeat(depth), &code, &mut climbed);
    let is_module = |path: &String| ARROWS.iter().any(|(module, _)| path.split("::").next() == Some(module));
    found.extend(climbed.into_iter().filter(is_module));
    found
}

fn paths_from(root: &str, code: &str, found: &mut BTreeSet<String>) {
    for (at, _) in code.match_indices(root) {
        let before = code[..at].chars().next_back();
        // Else it is a part of a longer path or word.
        if before.is_none_or(|before| !is_word(before) && before != ':') {
            unfold(&code[at + root.len()..], "", found);
        }
    }
}

/// Reads one branch of a `use` tree (or a path in code); answers how much of the text it took.
fn unfold(text: &str, prefix: &str, found: &mut BTreeSet<String>) -> usize {
    let mut path = prefix.to_owned();
    let mut at = 0;
    loop {
        let word: usize = text[at..].chars().take_while(|c| is_word(*c)).map(char::len_utf8).sum();
        if word > 0 {
            path = if path.is_empty() {
                text[at..at + word].to_owned()
            } else {
                format!("{path}::{}", &text[at..at + word])
            };
            at += word;
            if text[at..].starts_with("::") {
                at += 2;
                continue;
            }
        } else if text[at..].starts_with('{') {
            return at + unfold_group(&text[at..], &path, found);
        }
        found.insert(path);
        return at;
    }
}

/// `{branch, branch, …}`.
fn unfold_group(text: &str, prefix: &str, found: &mut BTreeSet<String>) -> usize {
    let mut at = 1;
    while at < text.len() && !text[at..].starts_with('}') {
        let next = text[at..].chars().next().unwrap_or_default();
        if is_word(next) {
            at += unfold(&text[at..], prefix, found);
            // `as name`
            at += text[at..].find([',', '}']).unwrap_or(0);
        } else {
            at += next.len_utf8();
        }
    }
    at + 1
}

fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = &code[at + name.len()..];
        let starts = before.is_none_or(|before| !is_word(before) && before != ':');
        starts && (after.starts_with("::") || (code[..at].ends_with("use ") && !after.starts_with(is_word)))
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn without_comments(text: &str) -> String {
    // A `//` inside of a string cuts that line short, which hides no path that begins before it.
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}
