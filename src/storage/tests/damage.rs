//! Damaged bytes: nothing wrong is served, nothing acknowledged is lost in silence.

use super::*;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::Arc,
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
    wait_until("the journal notes that the state is durable", || store.table().all().len() as u64 == NEWEST);
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

/// A record of the journal in its file.
struct Found {
    seq: u64,
    file: Arc<File>,
    offset: u64,
    bytes: Vec<u8>,
}

impl Found {
    fn write(&self, bytes: &[u8]) {
        self.file.write_all_at(bytes, self.offset).unwrap();
    }
}

fn records(store: &SledStorage) -> Vec<Found> {
    let all = store.table().all().into_iter();
    let found = all.map(|(seq, file, offset, length)| {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, offset).unwrap();
        Found { seq, file, offset, bytes }
    });
    found.collect()
}

/// Every byte of every record, read back at run time.
#[test]
fn a_flipped_byte_of_a_record_is_noticed_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    check(&store).unwrap();
    let records = records(&store);
    assert!(records.len() >= 26, "{} records", records.len());
    for record in records {
        let with_entries = record.seq <= 24;
        for at in 0..record.bytes.len() {
            let mut damaged = record.bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            record.write(&damaged);
            match check(&store) {
                Err(Error::Corrupt { place, .. }) => {
                    assert!(place.starts_with(&format!("journal record {}", record.seq)), "{place}")
                }
                other => assert!(!with_entries && other.is_ok(), "record {}, byte {at}: {other:?}", record.seq),
            }
        }
        record.write(&record.bytes);
    }
    check(&store).unwrap();
}

/// Every byte of every record and of the segment's head, through the walk that opening does.
#[test]
fn a_flipped_byte_of_the_journal_is_noticed_by_recovery() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    let (records, newest) = (records(&store), store.table().all().last().unwrap().0);
    drop(store);
    let (_, noted) = head::HeadFile::open(dir.path()).unwrap();
    assert_eq!(noted.unwrap().seq, newest, "everything was acknowledged");
    let replay = || {
        let (mut segments, found) = segment::SegmentDir::open(dir.path().join("journal"), 8 << 20).unwrap();
        replay::Replay::run(&mut segments, &found, noted).map(drop)
    };
    replay().unwrap();
    for record in &records {
        for at in 0..record.bytes.len() {
            let mut damaged = record.bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            record.write(&damaged);
            let error = replay().expect_err("served a damaged record");
            assert!(
                error.to_string().starts_with(&format!("journal record {}", record.seq)),
                "record {}, byte {at}: {error}",
                record.seq
            );
        }
        record.write(&record.bytes);
    }
    let first = &records[0];
    for at in 0..first.offset {
        let mut byte = [0];
        first.file.read_exact_at(&mut byte, at).unwrap();
        first.file.write_all_at(&[byte[0] ^ 16], at).unwrap();
        let error = replay().expect_err("a damaged head");
        assert!(error.to_string().starts_with("journal segment 1"), "byte {at}: {error}");
        first.file.write_all_at(&byte, at).unwrap();
    }
    replay().unwrap();
}

#[test]
fn missing_swapped_and_rewritten_records_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let damage = |what: &str, change: &dyn Fn(&[Found]), expected: &str| {
        let dir = dir.path().join(what);
        let store = filled(&dir);
        change(&records(&store));
        drop(store);
        let message = reopen(&dir).unwrap_or_else(|| panic!("{what}: not noticed"));
        assert!(message.contains(expected), "{what}: {message}");
    };
    let zeros = |found: &Found| found.write(&vec![0; found.bytes.len()]);
    damage("cleared in the middle", &|r| zeros(&r[4]), "journal record 5: missing");
    damage("first cleared", &|r| zeros(&r[0]), "journal record 1: missing");
    damage("newest cleared", &|r| zeros(&r[r.len() - 1]), &format!("journal record {NEWEST}: missing"));
    let swap = |r: &[Found]| {
        assert_eq!(r[4].bytes.len(), r[5].bytes.len());
        r[4].write(&r[5].bytes);
        r[5].write(&r[4].bytes);
    };
    damage("swapped", &swap, "journal record 5: holds record 6");
    let rewrite = |at: usize| {
        move |r: &[Found]| {
            let mut bytes = r[at].bytes.clone();
            let header = record::Header::read(r[at].seq, &bytes).unwrap();
            // An empty block more: every checksum is right, the content is another.
            bytes.resize(bytes.len() + record::BLOCK_HEADER, 0);
            let start = bytes.len() - record::BLOCK_HEADER;
            record::write_block_header(&mut bytes[start..], GroupId(9), record::Kind::Truncate, 0, 1, 0);
            let body = (bytes.len() - record::RECORD_HEADER) as u32;
            record::Header { body, blocks: header.blocks + 1, ..header }.write(&mut bytes);
            r[at].write(&bytes);
        }
    };
    damage("rewritten with valid checksums", &rewrite(6), "journal record 8");
    damage(
        "newest rewritten with valid checksums",
        &rewrite(NEWEST as usize - 1),
        &format!("journal record {NEWEST}: its hash is not the one in the head file"),
    );
}

/// Records of [`filled`]: 24 appends, a vote, and the note of the state store's batch.
const NEWEST: u64 = 26;

#[test]
fn missing_segments_are_noticed_and_forgotten_ones_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: bytesize::ByteSize::kib(4), ..Options::default() };
    let open = |dir: &Path| SledStorage::open(dir, &options);
    let original = dir.path().join("original");
    let store = open(&original).unwrap();
    (0..60).for_each(|n| write(&store, append(GROUPS[0], n * 3 + 1..n * 3 + 4, 1)).unwrap());
    write(&store, Write::Purge { group: GROUPS[0], upto: 120, mark: Bytes::new() }).unwrap();
    (60..120).for_each(|n| write(&store, append(GROUPS[0], n * 3 + 1..n * 3 + 4, 1)).unwrap());
    drop(store);
    let segments = |dir: &Path| {
        let names = fs::read_dir(dir.join("journal")).unwrap().map(|item| item.unwrap().path());
        let mut names: Vec<PathBuf> = names.filter(|path| path.extension().is_some_and(|e| e == "segment")).collect();
        names.sort();
        names
    };
    let count = segments(&original).len();
    assert!(count >= 4, "{count} segments");
    for missing in 0..count {
        let copied = dir.path().join(format!("without {missing}"));
        copy(&original, &copied);
        fs::remove_file(&segments(&copied)[missing]).unwrap();
        assert!(matches!(open(&copied), Err(Error::Corrupt { .. })), "segment {missing} of {count}");
    }
    // What a crash left between the new head and the retirement of what it no longer needs.
    let first = segments(&original)[0].clone();
    let mut forgotten = segment::SegmentDir::open(original.join("journal"), 4 << 10).unwrap().0;
    let head = segment::SegmentHead { first: 1, oldest: 1, previous: [0; 16], meta: meta::Meta::default() };
    assert!(!first.ends_with(format!("{:020}.segment", 1)), "the first segment has been let go");
    drop(forgotten.create(&head).unwrap());
    let store = open(&original).unwrap();
    assert_eq!(store.group(GROUPS[0]).entries, 121..361);
    assert_eq!(segments(&original)[0], first);
}

#[test]
fn a_write_that_was_cut_short_is_cleared_and_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    let last = records(&store).pop().unwrap();
    let end = last.offset + last.bytes.len() as u64;
    drop(store);
    // Half a record, and a whole one behind it that belongs to the same torn group.
    last.file.write_all_at(&last.bytes[..60], end).unwrap();
    last.file.write_all_at(&last.bytes, end + 100).unwrap();
    let store = open(dir.path()).unwrap();
    check(&store).unwrap();
    let mut rest = vec![1; 1000];
    last.file.read_exact_at(&mut rest, end).unwrap();
    assert!(rest.iter().all(|byte| *byte == 0), "not cleared");
    write(&store, append(GROUPS[0], 37..38, 13)).unwrap();
    drop(store);
    assert_eq!(open(dir.path()).unwrap().group(GROUPS[0]).entries, 1..38);
}

#[test]
fn old_or_missing_parts_of_the_state_store_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let damage = |what: &str, old: &[&[u8]], change: &dyn Fn(&sled::Tree), expected: &str| {
        let dir = dir.path().join(what);
        let store = filled(&dir);
        let tree = store.state_tree().clone();
        let before: Vec<_> = old.iter().map(|key| (*key, tree.get(key).unwrap().unwrap())).collect();
        let records = store.table().all().len();
        write(&store, Write::State(vec![(b"k\x05".to_vec(), Some(Bytes::from_static(b"new")))])).unwrap();
        wait_until("the journal notes that the state is durable", || store.table().all().len() > records);
        before.into_iter().for_each(|(key, value)| drop(tree.insert(key, value).unwrap()));
        change(&tree);
        tree.flush().unwrap();
        drop((tree, store));
        let message = reopen(&dir).unwrap_or_else(|| panic!("{what}: not noticed"));
        assert!(message.contains(expected), "{what}: {message}");
    };
    let block = |tree: &sled::Tree| tree.scan_prefix(b"b").keys().next().unwrap().unwrap();
    let flip = |tree: &sled::Tree, key: &[u8]| {
        let mut value = tree.get(key).unwrap().unwrap().to_vec();
        *value.last_mut().unwrap() ^= 4;
        tree.insert(key, value).unwrap();
    };
    damage("old list", &[b"mk\x05"], &|_| (), "the state store: the lists of its runs are not those");
    damage("old as a whole", &[b"mk\x05", b"s"], &|_| (), "the state store: it is at epoch 1; epoch 2 was durable");
    damage("lost block", &[], &|t| drop(t.remove(block(t))), "run 1 of the state store: block 0: missing");
    damage("lost root", &[], &|t| drop(t.remove(b"s")), "the state store: the lists of its runs are not those");
    damage("flipped root", &[], &|t| flip(t, b"s"), "the state store: its root is damaged");
    damage("flipped block", &[], &|t| flip(t, &block(t)), "run 1 of the state store: block 0: the checksum");
}

#[test]
fn a_block_of_state_that_was_damaged_later_is_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    let large = (b"large".to_vec(), Some(Bytes::from(vec![7; 300_000])));
    write(&store, Write::State(vec![large.clone()])).unwrap();
    assert_eq!(store.get(b"large").unwrap(), large.1);
    let tree = store.state_tree();
    let (key, mut chunk) = tree.scan_prefix(b"b").last().unwrap().map(|(k, v)| (k, v.to_vec())).unwrap();
    chunk[100] ^= 1;
    tree.insert(&key, chunk).unwrap();
    assert!(matches!(store.get(b"large"), Err(Error::Corrupt { place, .. }) if place.contains("of the state store")));
    tree.remove(&key).unwrap();
    assert!(matches!(store.scan(b"l", b"m", 1), Err(Error::Corrupt { place, .. }) if place.contains("state store")));
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

/// Random bytes of all files. Whatever sled makes of its own, no acknowledged write is lost or
/// altered without an error.
#[test]
fn flipped_bytes_of_any_file_never_lose_anything_in_silence() {
    let root = tempfile::tempdir().unwrap();
    let original = root.path().join("original");
    drop(filled(&original));
    let mut random = StdRng::seed_from_u64(0x5EED);
    let mut noticed = Vec::new();
    for (file, rounds) in files(&original) {
        let written = written_bytes(&original.join(&file));
        for round in 0..rounds {
            let dir = root.path().join("copy");
            copy(&original, &dir);
            let at = written[random.random_range(0..written.len())];
            flip(&dir.join(&file), at, random.random_range(0..8));
            noticed.extend(reopen(&dir).map(|message| format!("{file}, round {round}: {message}")));
            fs::remove_dir_all(&dir).unwrap();
        }
    }
    let of = |file: &str| noticed.iter().filter(|message| message.starts_with(file)).count();
    assert_eq!(of("journal/"), 40, "every byte of the journal counts: {noticed:#?}");
    assert!(of("sled/") > 5, "{} flips in sled were noticed, the rest did no harm: {noticed:#?}", of("sled/"));
}

/// Files below the store's directory, and how many flips each gets.
fn files(dir: &Path) -> Vec<(String, u32)> {
    let mut found = Vec::new();
    for below in ["journal", "sled"] {
        for item in fs::read_dir(dir.join(below)).unwrap() {
            let name = format!("{below}/{}", item.unwrap().file_name().into_string().unwrap());
            match name.as_str() {
                "sled/blobs" => {}
                "sled/db" => found.push((name, 60)),
                _ if below == "journal" => found.push((name, 40)),
                _ => found.push((name, 15)),
            }
        }
    }
    found
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
