//! SIGKILL at any moment: every acknowledged write survives.
//!
//! The test binary starts itself as a child that runs [`the_child_writes_until_it_is_killed`] with
//! a directory in its environment. The child writes and prints what was acknowledged; the parent
//! kills it, opens the store and compares.

use super::*;
use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader, Write as _},
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

const DIR: &str = "QUORATE_TEST_STORAGE_DIR";
const GROUPS: u16 = 4;
const KEEP: u64 = 40;
const KILLS: u32 = 20;

/// Does nothing unless it is the child.
#[test]
fn the_child_writes_until_it_is_killed() {
    let Some(dir) = env::var_os(DIR) else { return };
    let store = Arc::new(open(Path::new(&dir)).unwrap());
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
        if next % 7 == 0 && next > KEEP {
            write(store, Write::Purge { group, upto: next - KEEP, mark: Bytes::from_static(b"mark") }).unwrap();
        }
    }
}

#[test]
fn acknowledged_writes_survive_sigkill() {
    let dir = tempfile::tempdir().unwrap();
    let mut acked: BTreeMap<u16, u64> = BTreeMap::new();
    for round in 0..KILLS {
        let fresh = run_child_and_kill_it(dir.path(), 20 + 37 * round % 90);
        assert!(!fresh.is_empty(), "round {round}: the child acknowledged nothing");
        acked.extend(fresh);
        let store = open(dir.path()).unwrap_or_else(|error| panic!("round {round}: {error}"));
        acked.iter().for_each(|(group, next)| check(&store, GroupId(*group), *next, round));
    }
}

fn check(store: &SledStorage, group: GroupId, acked: u64, round: u32) {
    let state = store.group(group);
    assert!(state.entries.end >= acked, "round {round}, group {}: {acked} was acknowledged, found {:?}", group.0, state.entries);
    let number = |bytes: Option<Bytes>| String::from_utf8_lossy(&bytes.unwrap_or_default()).parse::<u64>().unwrap_or(0);
    assert!(number(state.vote) >= acked, "round {round}: an acknowledged vote is lost");
    assert!(number(store.get(&[group.0 as u8]).unwrap()) >= acked, "round {round}: an acknowledged value is lost");
    let expected: Vec<_> = state.entries.clone().map(|index| entry(index, 1)).collect();
    assert_eq!(store.entries(group, 0..u64::MAX).unwrap(), expected);
}

/// Kills the child after `acks` acknowledgements; gives the last one of every group.
fn run_child_and_kill_it(dir: &Path, acks: u32) -> BTreeMap<u16, u64> {
    let name = format!("{}::the_child_writes_until_it_is_killed", module_path!().split_once("::").unwrap().1);
    let mut child = Command::new(env::current_exe().unwrap())
        .args([name.as_str(), "--exact", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let (tx, rx) = mpsc::channel();
    let reader = std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(tx.send(line))));
    let mut found = BTreeMap::new();
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
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap();
    rx.try_iter().for_each(&mut take);
    assert!(!found.is_empty(), "the child said: {log:?}");
    found
}
