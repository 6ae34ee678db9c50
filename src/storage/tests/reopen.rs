//! What survives closing and opening, and who may open.

use super::*;

const A: GroupId = GroupId(1);
const B: GroupId = GroupId(2);

fn state(key: &str, bytes: usize, fill: u8) -> (Vec<u8>, Option<Bytes>) {
    (key.as_bytes().to_vec(), Some(Bytes::from(vec![fill; bytes])))
}

#[test]
fn everything_survives_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let (before, entries) = {
        let store = open(dir.path()).unwrap();
        write(&store, append(A, 1..500, 1)).unwrap();
        write(&store, append(A, 300..400, 2)).unwrap();
        write(&store, Write::Truncate { group: A, from: 390 }).unwrap();
        write(&store, Write::Purge { group: A, upto: 10, mark: Bytes::from_static(b"ten") }).unwrap();
        write(&store, Write::Vote { group: B, vote: Bytes::from_static(b"vote") }).unwrap();
        write(
            &store,
            Write::Append {
                group: B,
                entries: vec![EntryRecord { index: 7, term: 3, payload: vec![9; 1 << 20].into() }],
            },
        )
        .unwrap();
        write(&store, Write::State(vec![state("small", 10, 1), state("large", 1 << 20, 2)])).unwrap();
        ([store.group(A), store.group(B)], [store.entries(A, 0..1000).unwrap(), store.entries(B, 0..1000).unwrap()])
    };
    for _ in 0..2 {
        let store = open(dir.path()).unwrap();
        assert_eq!([store.group(A), store.group(B)], before);
        assert_eq!([store.entries(A, 0..1000).unwrap(), store.entries(B, 0..1000).unwrap()], entries);
        assert_eq!(store.get(b"large").unwrap(), state("large", 1 << 20, 2).1);
        assert_eq!(store.get(b"small").unwrap(), state("small", 10, 1).1);
    }
}

#[test]
fn the_journal_stays_bounded_over_many_lives() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: bytesize::ByteSize::kib(8), ..Options::default() };
    let (mut next, mut kept) = (1, 1);
    for life in 1..=12u64 {
        let store = SledStorage::open(dir.path(), &options).unwrap();
        if life > 1 {
            assert_eq!(store.group(A).entries, next - 5..next);
            assert_eq!(store.group(A).vote, Some(Bytes::from(format!("vote {}", life - 1))));
            assert_eq!(store.group(B).entries, kept..life, "one entry of every life");
        }
        for _ in 0..200 {
            write(&store, append(A, next..next + 3, life)).unwrap();
            next += 3;
        }
        write(&store, append(B, life..life + 1, life)).unwrap();
        write(&store, Write::Vote { group: A, vote: Bytes::from(format!("vote {life}")) }).unwrap();
        write(&store, Write::Purge { group: A, upto: next - 6, mark: Bytes::from_static(b"m") }).unwrap();
        // Group B's oldest entry holds every segment behind it.
        let segments = std::fs::read_dir(dir.path().join("journal")).unwrap().count() as u64;
        assert!(segments < (life - kept + 2) * 6 + 5, "life {life}: {segments} segments");
        let (held, by_a) = (store.segments_held(B) as u64, store.segments_held(A));
        assert!((life - kept) * 2 <= held && held < segments, "life {life}: {held} of {segments} segments are held");
        assert!(by_a <= 1, "the busy group lets go: {by_a}");
        if life % 4 == 0 {
            kept = life;
            write(&store, Write::Purge { group: B, upto: kept - 1, mark: Bytes::from_static(b"b") }).unwrap();
        }
    }
    let store = SledStorage::open(dir.path(), &options).unwrap();
    assert_eq!(store.group(A).purged, Some((next - 6, Bytes::from_static(b"m"))));
    let found: Vec<u64> = store.entries(A, 0..u64::MAX).unwrap().iter().map(|e| e.index).collect();
    assert_eq!(found, (next - 5..next).collect::<Vec<_>>());
}

#[test]
fn a_second_opener_is_told_that_the_store_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    assert!(matches!(open(dir.path()), Err(Error::InUse { .. })));
    drop(store);
    open(dir.path()).unwrap();
}

#[test]
fn a_file_in_place_of_the_directory_is_unusable() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "not a directory").unwrap();
    let error = open(&path).err().unwrap();
    assert!(matches!(&error, Error::Unusable { path, .. } if path.contains("file")), "{error}");
    assert!(matches!(open(&path.join("below")), Err(Error::Unusable { .. })));
}

#[test]
fn a_large_checkpoint_is_written_in_one_batch() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { cache_bytes_max: bytesize::ByteSize::mib(8), ..Options::default() };
    let changes = |fill: u8| (0..600).map(|n| state(&format!("key {n:04}"), 90_000, fill)).collect();
    let store = SledStorage::open(dir.path(), &options).unwrap();
    for fill in 1..4 {
        write(&store, Write::State(changes(fill))).unwrap();
    }
    drop(store);
    let store = SledStorage::open(dir.path(), &options).unwrap();
    let found = store.scan(b"", b"z", 1000).unwrap();
    assert_eq!(found.len(), 600);
    assert!(found.iter().all(|(_, value)| value.len() == 90_000 && value.iter().all(|byte| *byte == 3)));
}
