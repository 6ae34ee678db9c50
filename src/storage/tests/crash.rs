//! SIGKILL and power cuts at any moment: every acknowledged write survives.
//!
//! The test binary starts itself as a child that runs [`the_child_writes_until_it_is_killed`] with
//! a directory in its environment. The child writes and prints what was acknowledged; the parent
//! kills it (or cuts its power: power_cut.c), opens the store and compares.

use super::*;
use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader, Write as _},
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

const DIR: &str = "QUORATE_TEST_STORAGE_DIR";
const GROUPS: u16 = 4;
const KEEP: u64 = 40;
const KILLS: u32 = 20;
const CUTS: u32 = 10;

/// Per group, one past the last index that was acknowledged.
type Acked = BTreeMap<u16, u64>;

/// Does nothing unless it is the child.
#[test]
fn the_child_writes_until_it_is_killed() {
    let Some(dir) = env::var_os(DIR) else { return };
    // Segments of a few records, so that the end often comes between two of them.
    let options = Options { segment_bytes: bytesize::ByteSize::kib(32), ..Options::default() };
    let store = Arc::new(SledStorage::open(Path::new(&dir), &options).unwrap());
    let (tx, rx) = mpsc::channel();
    let threads: Vec<_> = (0..GROUPS)
        .map(|group| {
            let (store, tx) = (store.clone(), tx.clone());
            std::thread::spawn(move || write_forever(store.as_ref(), GroupId(group), &tx))
        })
        .collect();
    let mut out = std::io::stderr();
    rx.iter().for_each(|line: String| out.write_all(line.as_bytes()).unwrap());
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn write_forever(store: &dyn Storage, group: GroupId, acked: &mpsc::Sender<String>) {
    let mut next = store.group(group).entries.end.max(1);
    loop {
        let count = 1 + next % 5;
        let range = next..next + count;
        next += count;
        let vote = Bytes::from(next.to_string());
        let state = (vec![group.0 as u8], Some(vote.clone()));
        let answers = [
            submit(store, append(group, range, 1)),
            submit(store, Write::Vote { group, vote }),
            submit(store, Write::State(vec![state])),
        ];
        answers.into_iter().for_each(|answer| answer.recv().unwrap().unwrap());
        acked.send(format!("acked {} {}\n", group.0, next)).unwrap();
        if next.is_multiple_of(7) && next > KEEP {
            write(store, Write::Purge { group, upto: next - KEEP, mark: Bytes::from_static(b"mark") }).unwrap();
        }
    }
}

#[test]
fn acknowledged_writes_survive_sigkill() {
    let dir = tempfile::tempdir().unwrap();
    let mut acked = Acked::new();
    for round in 0..KILLS {
        acked.extend(run_child(dir.path(), 20 + 37 * round % 90, &End::Kill));
        let lost = losses(dir.path(), &acked);
        assert_eq!(lost, [""; 0], "round {round}");
    }
}

#[test]
fn acknowledged_writes_survive_a_power_cut() {
    let dir = tempfile::tempdir().unwrap();
    let cut = PowerCut::build(dir.path());
    for percent in [50, 100] {
        let store = dir.path().join(format!("store {percent}"));
        let mut acked = Acked::new();
        for round in 0..CUTS {
            acked.extend(run_child(
                &store,
                5 + 37 * round % 60,
                &End::PowerCut { cut: &cut, percent, lying_disk: false },
            ));
            let lost = losses(&store, &acked);
            assert_eq!(lost, [""; 0], "round {round}, {percent} % of the unsynced writes undone");
        }
    }
}

/// The test above can fail: with a disk that lies about its syncs, everything is lost.
#[test]
fn a_power_cut_on_a_disk_that_lies_is_noticed_by_this_test() {
    let dir = tempfile::tempdir().unwrap();
    let cut = PowerCut::build(dir.path());
    let store = dir.path().join("store");
    drop(open(&store).unwrap());
    let acked = run_child(&store, 30, &End::PowerCut { cut: &cut, percent: 100, lying_disk: true });
    assert_ne!(losses(&store, &acked), [""; 0]);
}

/// What is missing of what was acknowledged; also the reason why the store does not open.
fn losses(dir: &Path, acked: &Acked) -> Vec<String> {
    match open(dir) {
        Ok(store) => acked.iter().filter_map(|(group, next)| check(&store, GroupId(*group), *next).err()).collect(),
        Err(error) => vec![error.to_string()],
    }
}

fn check(store: &SledStorage, group: GroupId, acked: u64) -> Result<(), String> {
    let state = store.group(group);
    let number = |bytes: Option<Bytes>| String::from_utf8_lossy(&bytes.unwrap_or_default()).parse::<u64>().unwrap_or(0);
    let value = number(store.get(&[group.0 as u8]).map_err(|error| error.to_string())?);
    let vote = number(state.vote);
    if state.entries.end < acked || vote < acked || value < acked {
        return Err(format!(
            "group {}: {acked} was acknowledged; entries {:?}, vote {vote}, value {value}",
            group.0, state.entries
        ));
    }
    let expected: Vec<_> = state.entries.clone().map(|index| entry(index, 1)).collect();
    assert_eq!(store.entries(group, 0..u64::MAX).map_err(|error| error.to_string())?, expected);
    Ok(())
}

/// How a child ends.
enum End<'a> {
    Kill,
    PowerCut { cut: &'a PowerCut, percent: u32, lying_disk: bool },
}

/// The preloaded library that undoes writes that were not synced.
struct PowerCut {
    library: PathBuf,
    flag: PathBuf,
}

impl PowerCut {
    /// Compiles it with the compiler driver that Rust links with.
    fn build(dir: &Path) -> Self {
        let (source, library) = (dir.join("power_cut.c"), dir.join("power_cut.so"));
        std::fs::write(&source, include_str!("power_cut.c")).unwrap();
        let output = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&library)
            .arg(&source)
            .args(["-ldl", "-lpthread"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self { library, flag: dir.join("CUT") }
    }
}

/// Ends the child after `acks` acknowledgements; gives the last one of every group.
fn run_child(dir: &Path, acks: u32, end: &End<'_>) -> Acked {
    let name = format!("{}::the_child_writes_until_it_is_killed", module_path!().split_once("::").unwrap().1);
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([name.as_str(), "--exact", "--nocapture"]).env(DIR, dir).stdout(Stdio::null()).stderr(Stdio::piped());
    if let End::PowerCut { cut, percent, lying_disk } = end {
        drop(std::fs::remove_file(&cut.flag));
        command
            .env("LD_PRELOAD", &cut.library)
            .env("CUT_DIR", dir)
            .env("CUT_FLAG", &cut.flag)
            .env("CUT_PERCENT", percent.to_string());
        if *lying_disk {
            command.env("CUT_LYING_DISK", "1");
        }
    }
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let (tx, rx) = mpsc::channel();
    let reader = std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(tx.send(line))));
    let mut found = Acked::new();
    let mut log = Vec::new();
    let mut take = |line: String| match line.strip_prefix("acked ").and_then(|rest| rest.split_once(' ')) {
        Some((group, next)) => drop(found.insert(group.parse().unwrap(), next.parse().unwrap())),
        None => log.push(line),
    };
    for _ in 0..acks {
        match rx.recv_timeout(Duration::from_secs(60)) {
            Ok(line) => take(line),
            Err(_) => break,
        }
    }
    match end {
        End::Kill => child.kill().unwrap(),
        End::PowerCut { cut, .. } => std::fs::write(&cut.flag, "").unwrap(),
    }
    let status = child.wait().unwrap();
    reader.join().unwrap();
    rx.try_iter().for_each(&mut take);
    assert!(!found.is_empty(), "the child ({status}) acknowledged nothing and said: {log:?}");
    found
}
