//! Random writes, with closing and opening in between: the store on sled shows the same as the one
//! in memory, which is simple enough to be the model.

use super::*;
use rand::{RngExt, SeedableRng, rngs::StdRng};

const GROUPS: u16 = 3;
const WRITES: u32 = 400;
const KEYS: u8 = 12;

struct Pair {
    real: SledStorage,
    model: MemoryStorage,
}

impl Pair {
    fn write(&self, what: Write, trace: &str) {
        let real = write(&self.real, what.clone());
        let model = write(&self.model, what);
        assert_eq!(format!("{real:?}"), format!("{model:?}"), "{trace}");
    }

    fn compare(&self, trace: &str) {
        for group in (0..GROUPS).map(GroupId) {
            assert_eq!(self.real.group(group), self.model.group(group), "{trace}, group {}", group.0);
            let (real, model) = (self.real.entries(group, 0..u64::MAX), self.model.entries(group, 0..u64::MAX));
            assert_eq!(real.unwrap(), model.unwrap(), "{trace}, group {}", group.0);
        }
        let (real, model) = (self.real.scan(b"", b"\xff", 100), self.model.scan(b"", b"\xff", 100));
        assert_eq!(real.unwrap(), model.unwrap(), "{trace}");
    }
}

#[test]
fn random_writes_and_reopens_agree_with_the_model() {
    for seed in 0..8 {
        let dir = tempfile::tempdir().unwrap();
        let mut random = StdRng::seed_from_u64(seed);
        // Small segments, so that most writes of some size begin a new one.
        let segment_bytes = bytesize::ByteSize::kib(16 << (seed % 4));
        let options = Options { segment_bytes, ..Options::default() };
        let open = |dir: &Path| SledStorage::open(dir, &options);
        let mut pair = Pair { real: open(dir.path()).unwrap(), model: MemoryStorage::new() };
        for step in 0..WRITES {
            let trace = format!("seed {seed}, step {step}");
            let group = GroupId(random.random_range(0..GROUPS));
            let what = any_write(&mut random, group, &pair.model.group(group), step);
            pair.write(what, &trace);
            if random.random_range(0..40) == 0 {
                drop(pair.real);
                pair.real = open(dir.path()).unwrap_or_else(|error| panic!("{trace}: {error}"));
                pair.compare(&trace);
            }
        }
        pair.compare(&format!("seed {seed}, end"));
    }
}

/// Mostly sensible writes; some that are refused.
fn any_write(random: &mut StdRng, group: GroupId, state: &GroupState, step: u32) -> Write {
    let (first, end) = (state.entries.start, state.entries.end);
    let mut near = |reach: u64| random.random_range(first.saturating_sub(1)..end + reach);
    let (near_1, near_2, near_3) = (near(1), near(2), near(3));
    match random.random_range(0..100) {
        0..50 => any_append(random, group, end, step),
        50..58 => any_append(random, group, near_2, step),
        58..68 => Write::Truncate { group, from: near_3 },
        68..82 => Write::Purge { group, upto: near_1, mark: Bytes::from(format!("mark {step}")) },
        82..85 => Write::Purge { group, upto: end + random.random_range(0..20), mark: Bytes::new() },
        85..92 => Write::Vote { group, vote: Bytes::from(format!("vote {step}")) },
        _ => Write::State((0..random.random_range(0..6)).map(|_| any_change(random)).collect()),
    }
}

fn any_append(random: &mut StdRng, group: GroupId, first: u64, step: u32) -> Write {
    let count = random.random_range(0..8);
    let entries = (first..first + count).map(|index| EntryRecord {
        index,
        term: u64::from(step / 3) + index % 2,
        payload: any_bytes(random),
    });
    Write::Append { group, entries: entries.collect() }
}

fn any_change(random: &mut StdRng) -> (Vec<u8>, Option<Bytes>) {
    let key = vec![b'k', random.random_range(0..KEYS)];
    let value = if random.random_range(0..4) == 0 { None } else { Some(any_bytes(random)) };
    (key, value)
}

/// Usually small; now and then larger than a record.
fn any_bytes(random: &mut StdRng) -> Bytes {
    let length = match random.random_range(0..40) {
        0 => random.random_range(90_000..400_000),
        1..4 => random.random_range(10_000..60_000),
        _ => random.random_range(0..400),
    };
    let fill: u8 = random.random();
    Bytes::from(vec![fill; length])
}
