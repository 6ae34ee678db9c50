//! Whether what a backup holds can be read, all the way down: what cannot must not get into a log that every
//! replica applies, and neither must a key that the store would refuse later.

use super::types::{Pairs, ShardHead, decode_chunk};
use crate::{
    entity::EntityKey,
    shard::{
        applied::{Delivery, EntityRecord, EventRecord, Outgoing, Timer, decode},
        dead_letters,
        entry::Kept,
        keys,
    },
};
use bytes::Bytes;

/// The pairs of a chunk, if all are those of the shard that the head describes.
pub fn read_chunk(head: &ShardHead, chunk: &[u8]) -> Option<Pairs> {
    decode_chunk(chunk).ok().filter(|pairs| pairs.iter().all(|(key, value)| is_sound(head, key, value)))
}

fn is_sound(head: &ShardHead, key: &[u8], value: &Bytes) -> bool {
    let is_effect = keys::parse_number(key).is_some_and(|number| number <= head.effects);
    match key.first() {
        Some(b'd') => is_effect && dead_letters::read(value).is_ok_and(|letter| is_sendable(&letter.outgoing)),
        Some(b'e') => keys::parse_entity(key).is_some_and(|entity| is_name(&entity)) && EntityRecord::is_sound(value),
        Some(b'h') => {
            let sequence = of_entity(b'h', key).and_then(|rest| rest.try_into().ok()).map(u64::from_be_bytes);
            sequence.is_some_and(|sequence| sequence > 0) && EventRecord::is_readable(value)
        }
        Some(b'i') => is_answer(key) && Kept::decode(value).is_ok(),
        Some(b'n') => {
            of_entity(b'n', key).is_some_and(|name| std::str::from_utf8(name).is_ok())
                && decode::<(u64, u64)>(value).is_ok_and(|(_, number)| number <= head.timers)
        }
        Some(b'o') => is_effect && decode::<Outgoing>(value).is_ok_and(|outgoing| is_sendable(&outgoing)),
        Some(b'r') => match keys::parse_received(key) {
            Some((_, 0)) => decode::<u64>(value).is_ok(),
            found => found.is_some() && value.is_empty(),
        },
        Some(b't') => {
            let is_timer = keys::parse_timer(key).is_some_and(|(_, number)| number <= head.timers);
            is_timer && decode::<Timer>(value).is_ok_and(|timer| is_settable(&timer))
        }
        Some(b'x') => keys::parse_answer_expiry(key).is_some_and(|(_, answer)| is_answer(&answer)) && value.is_empty(),
        _ => false,
    }
}

/// What stands behind the entity in a key of this kind.
fn of_entity(kind: u8, key: &[u8]) -> Option<&[u8]> {
    keys::split_entity(kind, key).filter(|(entity, _)| is_name(entity)).map(|(_, rest)| rest)
}

fn is_answer(key: &[u8]) -> bool {
    of_entity(b'i', key).is_some_and(|key| !key.is_empty() && key.len() <= 255 && key.is_ascii())
}

/// Whether keys can be made of it. Of types nobody asks more than that, here or anywhere.
fn is_name(entity: &EntityKey) -> bool {
    entity.entity_type.len() <= usize::from(u8::MAX) && has_id(entity)
}

fn has_id(entity: &EntityKey) -> bool {
    EntityKey::new(entity.entity_type.clone(), entity.id.clone()).is_ok()
}

fn is_sendable(outgoing: &Outgoing) -> bool {
    let to = match &outgoing.delivery {
        // Of a type that nobody knows, it is refused where it arrives.
        Delivery::Tell { to, .. } => has_id(to),
        Delivery::Task { .. } | Delivery::Queued(_) => true,
    };
    to && is_name(&outgoing.from)
}

fn is_settable(timer: &Timer) -> bool {
    is_name(&timer.entity) && keys::timer_name(&timer.entity, &timer.name).len() <= keys::BYTES_MAX
}
