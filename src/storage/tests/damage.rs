//! Damaged bytes: nothing wrong is served, nothing acknowledged is lost in silence.

use super::{
    super::{engine::journal_key, record::Header},
    *,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
};

const GROUPS: [GroupId; 2] = [GroupId(1), GroupId(2)];

/// A store with entries of several records, and what it acknowledged.
fn filled(dir: &Path) -> SledStorage {
    let store = open(dir).unwrap();
    for round in 0..12 {
        for group in GROUPS {
            write(&store, append(group, round * 3 + 1..round * 3 + 4, round + 1)).unwrap();
        }
    }
    write(&store, Write::Vote { group: GROUPS[0], vote: Bytes::from_static(b"vote") }).unwrap();
    write(&store, Write::State((0..50u8).map(|n| (vec![b'k', n], Some(Bytes::from(vec![n; 100])))).collect())).unwrap();
    store
}

/// All of it is there and right, or the first error.
fn check(store: &SledStorage) -> Result<(), Error> {
    for group in GROUPS {
        let entries = store.entries(group, 0..u64::MAX)?;
        let expected: Vec<_> = (1..37).map(|index| entry(index, (index - 1) / 3 + 1)).collect();
        assert_eq!(entries, expected, "served something else than was acknowledged");
    }
    assert_eq!(store.group(GROUPS[0]).vote, Some(Bytes::from_static(b"vote")));
    let state = store.scan(b"k", b"l", 100)?;
    assert_eq!(state, (0..50u8).map(|n| (vec![b'k', n], Bytes::from(vec![n; 100]))).collect::<Vec<_>>());
    Ok(())
}

/// Opens what is damaged and checks it; the message if either fails as corrupt.
fn reopen(dir: &Path) -> Option<String> {
    match open(dir).and_then(|store| check(&store)) {
        Ok(()) => None,
        Err(Error::Corrupt { place, detail }) => Some(format!("{place}: {detail}")),
        Err(other) => panic!("expected intact or corrupt, got: {other}"),
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        match item.file_type().unwrap().is_dir() {
            true => copy(&item.path(), &to.join(item.file_name())),
            false => drop(fs::copy(item.path(), to.join(item.file_name())).unwrap()),
        }
    }
}

/// All records: sequence number, key, bytes.
fn records(store: &sled::Tree) -> Vec<(u64, sled::IVec, sled::IVec)> {
    let pairs = store.scan_prefix([engine::JOURNAL_PREFIX]).map(Result::unwrap);
    pairs.map(|(key, value)| (u64::from_be_bytes(key[1..].try_into().unwrap()), key, value)).collect()
}

/// Every byte of every record, read back at run time.
#[test]
fn a_flipped_byte_of_a_record_is_noticed_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    check(&store).unwrap();
    let journal = &store.trees().store;
    for (seq, key, value) in records(journal) {
        let with_entries = seq <= 24;
        for at in 0..value.len() {
            let mut damaged = value.to_vec();
            damaged[at] ^= 1 << (at % 8);
            journal.insert(&key, damaged).unwrap();
            match check(&store) {
                Err(Error::Corrupt { place, .. }) => {
                    assert!(place.starts_with(&format!("journal record {seq}")), "{place}")
                }
                other => assert!(!with_entries && other.is_ok(), "record {seq}, byte {at}: {other:?}"),
            }
        }
        journal.insert(&key, value).unwrap();
    }
    check(&store).unwrap();
}

/// Every byte of every record, through the walk that opening does.
#[test]
fn a_flipped_byte_of_a_record_is_noticed_by_recovery() {
    let dir = tempfile::tempdir().unwrap();
    drop(filled(dir.path()));
    let recovered = recover::open(dir.path(), &Options::default(), Faults::none()).unwrap();
    let trees = recovered.engine.trees;
    let journal = trees.store.clone();
    let replay = || recover::check_for_test(dir.path(), &trees);
    replay().unwrap();
    for (seq, key, value) in records(&journal) {
        for at in 0..value.len() {
            let mut damaged = value.to_vec();
            damaged[at] ^= 1 << (at % 8);
            journal.insert(&key, damaged).unwrap();
            let error = replay().expect_err("served a damaged record");
            assert!(
                error.to_string().starts_with(&format!("journal record {seq}")),
                "record {seq}, byte {at}: {error}"
            );
        }
        journal.insert(&key, value).unwrap();
    }
    replay().unwrap();
}

#[test]
fn missing_swapped_and_rewritten_records_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let damage = |what: &str, change: &dyn Fn(&sled::Tree), expected: &str| {
        let dir = dir.path().join(what);
        let store = filled(&dir);
        change(&store.trees().store);
        store.trees().db.flush().unwrap();
        drop(store);
        let message = reopen(&dir).unwrap_or_else(|| panic!("{what}: not noticed"));
        assert!(message.contains(expected), "{what}: {message}");
    };
    let key = journal_key;
    let newest = 26;
    damage("missing in the middle", &|j| drop(j.remove(key(5))), "journal record 5: missing");
    damage("first missing", &|j| drop(j.remove(key(1))), "journal record 1: missing");
    damage("newest missing", &|j| drop(j.remove(key(newest))), "journal record 26: missing");
    damage(
        "all missing",
        &|j| records(j).into_iter().for_each(|(_, key, _)| drop(j.remove(key))),
        "journal record 1: missing",
    );
    let swap = |j: &sled::Tree| {
        let (a, b) = (j.get(key(5)).unwrap().unwrap(), j.get(key(6)).unwrap().unwrap());
        j.insert(key(5), b).unwrap();
        j.insert(key(6), a).unwrap();
    };
    damage("swapped", &swap, "journal record 5: holds record 6");
    let rewrite = |seq: u64| {
        move |j: &sled::Tree| {
            let mut bytes = j.get(key(seq)).unwrap().unwrap().to_vec();
            let header = Header::read(seq, &bytes).unwrap();
            Header { meta_digest: header.meta_digest ^ 1, ..header }.write(&mut bytes);
            j.insert(key(seq), bytes).unwrap();
        }
    };
    damage("rewritten with a valid checksum", &rewrite(7), "journal record 7: record 8 is not chained");
    damage(
        "newest rewritten with a valid checksum",
        &rewrite(newest),
        "journal record 26: its hash is not the one in the head file",
    );
}

#[test]
fn old_or_missing_meta_and_state_values_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let damage = |what: &str, change: &dyn Fn(&engine::Trees), expected: &str| {
        let dir = dir.path().join(what);
        let store = filled(&dir);
        let old = store.trees().state.values.get(b"k\x05").unwrap().unwrap();
        let old_vote = store.trees().store.get(b"mv\0\x01").unwrap().unwrap();
        write(&store, Write::Vote { group: GROUPS[0], vote: Bytes::from_static(b"newer vote") }).unwrap();
        write(&store, Write::State(vec![(b"k\x05".to_vec(), Some(Bytes::from_static(b"new")))])).unwrap();
        if what == "old state" {
            store.trees().state.values.insert(b"k\x05", old).unwrap();
        }
        if what == "old vote" {
            store.trees().store.insert(b"mv\0\x01", old_vote).unwrap();
        }
        change(store.trees());
        store.trees().db.flush().unwrap();
        drop(store);
        let message = reopen(&dir).unwrap_or_else(|| panic!("{what}: not noticed"));
        assert!(message.contains(expected), "{what}: {message}");
    };
    let flip = |tree: &sled::Tree, key: &[u8]| {
        let mut value = tree.get(key).unwrap().unwrap().to_vec();
        *value.last_mut().unwrap() ^= 4;
        tree.insert(key, value).unwrap();
    };
    damage("old vote", &|_| (), "votes, purge marks and digests: they are not those of journal record");
    damage("old state", &|_| (), "the state store: 50 values do not add up");
    damage("lost state", &|t| drop(t.state.values.remove(b"k\x07")), "the state store: 49 values do not add up");
    damage("lost meta", &|t| drop(t.store.remove(b"mv\0\x01")), "votes, purge marks and digests");
    damage("flipped vote", &|t| flip(&t.store, b"mv\0\x01"), "the vote of group 1: the checksum does not match");
    damage(
        "flipped state",
        &|t| flip(&t.state.values, b"k\x07"),
        "state value \"k\\x07\": the checksum does not match",
    );
}

#[test]
fn a_state_value_that_was_damaged_later_is_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    let large = (b"large".to_vec(), Some(Bytes::from(vec![7; 300_000])));
    write(&store, Write::State(vec![large.clone()])).unwrap();
    assert_eq!(store.get(b"large").unwrap(), large.1);
    let parts = &store.trees().state.parts;
    let (key, mut part) = parts.iter().nth(1).unwrap().map(|(k, v)| (k, v.to_vec())).unwrap();
    part[100] ^= 1;
    parts.insert(&key, part).unwrap();
    assert!(matches!(store.get(b"large"), Err(Error::Corrupt { place, .. }) if place.contains("large")));
    parts.remove(&key).unwrap();
    assert!(matches!(store.scan(b"l", b"m", 1), Err(Error::Corrupt { place, .. }) if place.contains("large")));
    store.get(b"k\x01").unwrap().unwrap();
}

#[test]
fn a_lost_head_file_is_noticed_and_a_lagging_one_is_fine() {
    let dir = tempfile::tempdir().unwrap();
    drop(filled(dir.path()));
    let head = dir.path().join(head::FILE);
    let bytes = fs::read(&head).unwrap();
    let mut torn = bytes.clone();
    torn[..100].fill(0);
    fs::write(&head, torn).unwrap();
    assert_eq!(reopen(dir.path()), None);
    fs::write(&head, b"").unwrap();
    assert_eq!(reopen(dir.path()), None, "a head that never reached the disk bounds nothing");
    fs::remove_file(&head).unwrap();
    assert!(reopen(dir.path()).unwrap().contains("the head file"));
}

/// Random bytes of sled's own files. Whatever sled makes of it, no acknowledged write is lost or
/// altered without an error.
#[test]
fn flipped_bytes_of_the_database_file_never_lose_anything_in_silence() {
    let root = tempfile::tempdir().unwrap();
    let original = root.path().join("original");
    drop(filled(&original));
    let mut random = StdRng::seed_from_u64(0x5EED);
    let mut noticed = Vec::new();
    for (file, rounds) in sled_files(&original) {
        let written = written_bytes(&original.join("sled").join(&file));
        for round in 0..rounds {
            let dir = root.path().join(format!("copy {round} of {file}"));
            copy(&original, &dir);
            let at = written[random.random_range(0..written.len())];
            flip(&dir.join("sled").join(&file), at, random.random_range(0..8));
            noticed.extend(reopen(&dir));
            fs::remove_dir_all(&dir).unwrap();
        }
    }
    assert!(noticed.len() > 20, "{} flips were noticed, the rest did no harm: {noticed:#?}", noticed.len());
    let by_head = noticed.iter().filter(|message| message.contains("is known to be durable"));
    assert!(by_head.count() > 0, "no flip cut off the tail, which the head file guards against: {noticed:#?}");
}

/// sled's database file with many flips, its snapshot and settings with a few.
fn sled_files(dir: &Path) -> Vec<(String, u32)> {
    let names = fs::read_dir(dir.join("sled")).unwrap().map(|item| item.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != "blobs").map(|name| if name == "db" { (name, 150) } else { (name, 15) }).collect()
}

/// Offsets of the file that hold something; most of a segment is padding.
fn written_bytes(path: &Path) -> Vec<u64> {
    let bytes = fs::read(path).unwrap();
    (0u64..).zip(bytes).filter(|(_, byte)| *byte != 0).map(|(at, _)| at).collect()
}

fn flip(path: &Path, at: u64, bit: u32) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    byte[0] ^= 1 << bit;
    file.write_all_at(&byte, at).unwrap();
}
