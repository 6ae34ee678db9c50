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
//! | `l` type, list, of, order, id | a row of a list |
//! | `v` | versions of the lists, by type |
//! | `g` number | a page of the ledger: what was applied at 64 places of the log |
//! | `c` | the running hash over what apply writes |
//! | `br` | how far a restore is, while there is one |
//! | `bo` | which numbers of effects another cluster gave out: this shard was restored |

use crate::{
    entity::{EntityKey, Row},
    storage::{GroupId, STATE_KEY_BYTES_MAX},
};

pub const META: &[u8] = b"m";
pub const LISTS: &[u8] = b"v";
pub const CHAIN: &[u8] = b"c";
pub const RESTORING: &[u8] = b"br";
pub const ORIGINS: &[u8] = b"bo";
/// The longest key, without the prefix of its group.
pub const BYTES_MAX: usize = STATE_KEY_BYTES_MAX - 6;
/// What a list is of is in its keys up to this length, and beyond it by its hash.
const OF_BYTES_MAX: usize = 1024;

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
        push_short(key, part);
    }
}

fn push_short(key: &mut Vec<u8>, part: &str) {
    key.push(u8::try_from(part.len()).unwrap_or(u8::MAX));
    key.extend_from_slice(part.as_bytes());
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
    numbered(b'g', page)
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

/// Before every key of an entity of this type, or of a row of its lists.
fn of_type(kind: u8, entity_type: &str) -> Vec<u8> {
    let mut key = vec![kind];
    push_short(&mut key, entity_type);
    key
}

/// The range of every entity of a type.
pub fn entities_of(entity_type: &str) -> (Vec<u8>, Vec<u8>) {
    all_below(of_type(b'e', entity_type))
}

/// The id of an entity's key in [`entities_of`].
pub fn parse_entity_of<'a>(entity_type: &str, key: &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(key.get(2 + entity_type.len() + 1..)?).ok()
}

/// The range of every row of every list.
pub fn all_rows() -> (Vec<u8>, Vec<u8>) {
    all_below(vec![b'l'])
}

/// The range of every row of a type.
pub fn rows_of(entity_type: &str) -> (Vec<u8>, Vec<u8>) {
    all_below(of_type(b'l', entity_type))
}

/// A type's name ends in a byte below 0x7f, so that one more is still a byte.
fn all_below(prefix: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    let mut end = prefix.clone();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    (prefix, end)
}

/// Before every row of one list.
pub fn list(entity_type: &str, list: &str, of: &str) -> Vec<u8> {
    let mut key = of_type(b'l', entity_type);
    push_short(&mut key, list);
    match u16::try_from(of.len()) {
        Ok(length) if usize::from(length) <= OF_BYTES_MAX => {
            key.extend_from_slice(&length.to_be_bytes());
            key.extend_from_slice(of.as_bytes());
        }
        _ => {
            key.extend_from_slice(&u16::MAX.to_be_bytes());
            key.extend_from_slice(blake3::hash(of.as_bytes()).as_bytes());
        }
    }
    key
}

/// One place in a list, given what [`list()`] made.
pub fn place(list: &[u8], order: u64, id: &str) -> Vec<u8> {
    [list, &order.to_be_bytes(), id.as_bytes()].concat()
}

pub fn row(entity: &EntityKey, row: &Row) -> Vec<u8> {
    place(&list(&entity.entity_type, row.list, &row.of), row.order, &entity.id)
}

/// Order and id of a row in a list.
pub fn parse_place<'a>(list: &[u8], key: &'a [u8]) -> Option<(u64, &'a str)> {
    let (order, id) = key.strip_prefix(list)?.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*order), std::str::from_utf8(id).ok()?))
}

/// The entity of an entity key.
pub fn parse_entity(key: &[u8]) -> Option<EntityKey> {
    split_entity(b'e', key).filter(|(_, rest)| rest.is_empty()).map(|(entity, _)| entity)
}

/// The entity in a key of this kind, and what stands behind it.
pub fn split_entity(kind: u8, key: &[u8]) -> Option<(EntityKey, &[u8])> {
    let part = |bytes: &'_ [u8]| -> Option<(String, usize)> {
        let length = usize::from(*bytes.first()?);
        let text = std::str::from_utf8(bytes.get(1..=length)?).ok()?;
        Some((text.to_owned(), length + 1))
    };
    let rest = key.strip_prefix(&[kind])?;
    let (entity_type, read) = part(rest)?;
    let (id, read_too) = part(&rest[read..])?;
    Some((EntityKey { entity_type: entity_type.into(), id: id.into() }, &rest[read + read_too..]))
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

    #[test]
    fn rows_sort_by_order_then_id_and_lists_with_a_common_prefix_do_not_mix() {
        let status = list("order", "status", "pending");
        let places = [(1, "b"), (2, "a"), (2, "ab"), (2, "b"), (300, "a")].map(|(order, id)| place(&status, order, id));
        assert!(places.is_sorted());
        assert_eq!(parse_place(&status, &places[2]), Some((2, "ab")));
        let others =
            [list("order", "status", "pendin"), list("order", "statu", "s"), list("orde", "rstatus", "pending")];
        assert!(others.iter().all(|other| !status.starts_with(other) && !other.starts_with(&status)));
        let (start, end) = rows_of("order");
        assert!(places.iter().all(|key| (&start..&end).contains(&key)));
        assert!(!(start..end).contains(&list("orders", "status", "pending")));
    }

    #[test]
    fn what_a_list_is_of_may_be_long_and_stays_apart() {
        let long = |end: &str| list("order", "customer", &format!("{}{end}", "x".repeat(OF_BYTES_MAX)));
        assert_ne!(long("a"), long("b"));
        assert!(place(&long("a"), 1, &"i".repeat(255)).len() < 1500);
    }

    #[test]
    fn an_entity_is_found_among_those_of_its_type() {
        let found = entity(&EntityKey::new("order", "ord_1").unwrap());
        let (start, end) = entities_of("order");
        assert!((start..end).contains(&found));
        assert_eq!(parse_entity_of("order", &found), Some("ord_1"));
        let (start, end) = entities_of("orde");
        assert!(!(start..end).contains(&found));
    }
}
