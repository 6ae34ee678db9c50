//! Keys of a shard's applied state.
//!
//! In the state store every key has a prefix: group (u16), generation (u32), both big endian. A
//! received snapshot is written under the next generation; one batch then flips the pointer.
//!
//! | key | value |
//! |---|---|
//! | `m` | progress, counters |
//! | `e` entity | version, time, state |
//! | `h` entity, sequence | one event |
//! | `o` number | one effect in the outbox |
//! | `r` source group, number | an effect that was received; number 0: everything below the value |
//! | `t` due, number | a timer |
//! | `n` entity, name | due and number of the timer of that name |
//! | `i` entity, key | the answer under an idempotency key |
//! | `x` expiry, entity, key | index of the above by expiry |
//! | `d` number | a dead letter |
//! | `l` number | a page of the ledger: what was applied at 64 places of the log |
//! | `c` | the running hash over what apply writes |

use crate::{entity::EntityKey, storage::GroupId};

pub const META: &[u8] = b"m";
pub const CHAIN: &[u8] = b"c";

pub fn prefix(group: GroupId, generation: u32) -> Vec<u8> {
    let mut key = Vec::with_capacity(6);
    key.extend_from_slice(&group.0.to_be_bytes());
    key.extend_from_slice(&generation.to_be_bytes());
    key
}

/// Where a group's current generation is written: beside, not below, its generations.
pub fn generation(group: GroupId) -> Vec<u8> {
    let mut key = b"generation:".to_vec();
    // Keys of shards begin with a group number; those of generations with an 'g', group 26,469.
    // Shards are at most 4,096, so the two never meet.
    key.extend_from_slice(&group.0.to_be_bytes());
    key
}

fn with_entity(kind: u8, entity: &EntityKey, room: usize) -> Vec<u8> {
    let mut key = Vec::with_capacity(3 + entity.entity_type.len() + entity.id.len() + room);
    key.push(kind);
    push_entity(&mut key, entity);
    key
}

/// Length-prefixed, so that no entity's keys lie between another's.
fn push_entity(key: &mut Vec<u8>, entity: &EntityKey) {
    for part in [&entity.entity_type, &entity.id] {
        key.push(u8::try_from(part.len()).unwrap_or(u8::MAX));
        key.extend_from_slice(part.as_bytes());
    }
}

fn numbered(kind: u8, number: u64) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend_from_slice(&number.to_be_bytes());
    key
}

pub fn entity(entity: &EntityKey) -> Vec<u8> {
    with_entity(b'e', entity, 0)
}

pub fn history(entity: &EntityKey, sequence: u64) -> Vec<u8> {
    let mut key = with_entity(b'h', entity, 8);
    key.extend_from_slice(&sequence.to_be_bytes());
    key
}

pub fn outbox(number: u64) -> Vec<u8> {
    numbered(b'o', number)
}

pub fn dead_letter(number: u64) -> Vec<u8> {
    numbered(b'd', number)
}

pub fn ledger(page: u64) -> Vec<u8> {
    numbered(b'l', page)
}

pub fn received(source: GroupId, number: u64) -> Vec<u8> {
    let mut key = vec![b'r'];
    key.extend_from_slice(&source.0.to_be_bytes());
    key.extend_from_slice(&number.to_be_bytes());
    key
}

pub fn timer(at_ms: u64, number: u64) -> Vec<u8> {
    let mut key = numbered(b't', at_ms);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// Due time and number of a timer key.
pub fn parse_timer(key: &[u8]) -> Option<(u64, u64)> {
    let (due, number) = key.strip_prefix(b"t")?.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*due), u64::from_be_bytes(number.try_into().ok()?)))
}

pub fn timer_name(entity: &EntityKey, name: &str) -> Vec<u8> {
    let mut key = with_entity(b'n', entity, name.len());
    key.extend_from_slice(name.as_bytes());
    key
}

pub fn answer(entity: &EntityKey, idempotency_key: &str) -> Vec<u8> {
    let mut key = with_entity(b'i', entity, idempotency_key.len());
    key.extend_from_slice(idempotency_key.as_bytes());
    key
}

pub fn answer_expiry(expires_at_ms: u64, entity: &EntityKey, idempotency_key: &str) -> Vec<u8> {
    let mut key = numbered(b'x', expires_at_ms);
    push_entity(&mut key, entity);
    key.extend_from_slice(idempotency_key.as_bytes());
    key
}

/// The answer key that an expiry key points to, and when it expires.
pub fn parse_answer_expiry(key: &[u8]) -> Option<(u64, Vec<u8>)> {
    let (due, entity_and_key) = key.strip_prefix(b"x")?.split_first_chunk::<8>()?;
    let mut answer = vec![b'i'];
    answer.extend_from_slice(entity_and_key);
    Some((u64::from_be_bytes(*due), answer))
}

/// The entity of an entity key.
pub fn parse_entity(key: &[u8]) -> Option<EntityKey> {
    let part = |bytes: &'_ [u8]| -> Option<(String, usize)> {
        let length = usize::from(*bytes.first()?);
        let text = std::str::from_utf8(bytes.get(1..=length)?).ok()?;
        Some((text.to_owned(), length + 1))
    };
    let rest = key.strip_prefix(b"e")?;
    let (entity_type, read) = part(rest)?;
    let (id, read_too) = part(&rest[read..])?;
    let whole = read + read_too == rest.len();
    whole.then(|| EntityKey { entity_type: entity_type.into(), id: id.into() })
}

/// The number at the end of an outbox, dead-letter or ledger key.
pub fn parse_number(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(1..)?.try_into().ok()?))
}

pub fn parse_received(key: &[u8]) -> Option<(GroupId, u64)> {
    let (source, number) = key.strip_prefix(b"r")?.split_first_chunk::<2>()?;
    Some((GroupId(u16::from_be_bytes(*source)), u64::from_be_bytes(number.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histories_of_entities_with_a_common_prefix_do_not_mix() {
        let key = |id: &str| EntityKey::new("order", id).unwrap();
        let (a, ab) = (key("a"), key("ab"));
        assert!(!(history(&a, 0)..history(&a, u64::MAX)).contains(&history(&ab, 7)));
        assert!(!(history(&ab, 0)..history(&ab, u64::MAX)).contains(&history(&a, 7)));
    }

    #[test]
    fn timers_sort_by_due_time_and_parse_back() {
        assert!(timer(9, 5) < timer(10, 1));
        assert_eq!(parse_timer(&timer(77, 3)), Some((77, 3)));
        let entity = EntityKey::new("order", "a").unwrap();
        let expiry = answer_expiry(5, &entity, "k");
        assert_eq!(parse_answer_expiry(&expiry), Some((5, answer(&entity, "k"))));
        assert_eq!(parse_entity(&super::entity(&entity)), Some(entity.clone()));
        assert_eq!(parse_entity(&history(&entity, 1)), None);
        assert_eq!(parse_received(&received(GroupId(3), 8)), Some((GroupId(3), 8)));
    }
}
