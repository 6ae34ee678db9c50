//! What a request for a fault says, held against what its kind takes.

use super::super::{
    openapi,
    problem::{FieldError, Problem},
};
use crate::cluster::{FAULT_DURATION_MAX, FaultDirection, FaultKind, FaultPath};
use serde::Deserialize;
use std::time::Duration;
use utoipa::openapi::schema::{Object, ObjectBuilder, Schema, SchemaType, Type};

/// The longest that a sync or a packet may be held up.
const DELAY_MS_MAX: u64 = 10_000;
/// The farthest that a clock may be off.
const OFFSET_MS_MAX: i64 = 600_000;
/// Names in one request: more than any roster that gossip carries by name.
const PEERS_MAX: usize = 100;

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"fault": "slow-disk", "delay_ms": 50, "duration_ms": 10_000}))]
pub struct NewFault {
    /// `slow-disk` (with `delay_ms`), `full-disk`, `failed-fsync`, `clock-jump` (with `offset_ms`); of the
    /// network, with `peers` and `direction` if need be: `cut`, `delay` (with `delay_ms`), `loss`,
    /// `reorder`, `duplicate` (with `probability`).
    #[schema(schema_with = kinds)]
    fault: String,
    /// It ends by itself after so long.
    #[schema(minimum = 1, maximum = 600_000)]
    duration_ms: u64,
    /// How much longer every sync, or everything on the network, takes.
    #[schema(minimum = 1, maximum = 10_000)]
    delay_ms: Option<u64>,
    /// How far the clock is off, either way.
    #[schema(schema_with = offsets, required = false)]
    offset_ms: Option<i64>,
    /// Of each packet: more than 0.
    #[schema(exclusive_minimum = 0, maximum = 1)]
    probability: Option<f64>,
    /// Names of other members, as `/admin/v1/members` has them. Left out: all others.
    #[schema(min_items = 1, max_items = 100)]
    peers: Option<Vec<String>>,
    /// `both` (if left out), `outgoing`: what this node sends, `incoming`: what it is sent. Duplicates
    /// are made of what it sends, and take none.
    #[schema(schema_with = directions, required = false)]
    direction: Option<String>,
}

/// What the directions are called.
const DIRECTIONS: &[(&str, FaultDirection)] =
    &[("both", FaultDirection::Both), ("outgoing", FaultDirection::Outgoing), ("incoming", FaultDirection::Incoming)];

/// Each kind, and the members beside `fault` and `duration_ms` that mean something to it. Those with
/// an exclamation mark it needs.
const KINDS: &[(&str, &[&str])] = &[
    ("slow-disk", &["delay_ms!"]),
    ("full-disk", &[]),
    ("failed-fsync", &[]),
    ("clock-jump", &["offset_ms!"]),
    ("cut", &["peers", "direction"]),
    ("loss", &["probability!", "peers", "direction"]),
    ("delay", &["delay_ms!", "peers", "direction"]),
    ("reorder", &["probability!", "peers", "direction"]),
    ("duplicate", &["probability!", "peers"]),
];

impl NewFault {
    /// The fault and its length, or everything that is wrong with it.
    pub(super) fn read(&self) -> Result<(FaultKind, Duration), Problem> {
        let mut errors = Vec::new();
        let duration = Duration::from_millis(self.duration_ms);
        if duration.is_zero() || duration > FAULT_DURATION_MAX {
            let most = FAULT_DURATION_MAX.as_millis();
            errors.push(wrong("duration_ms", format!("must be from 1 to {most}, is {}", self.duration_ms)));
        }
        match KINDS.iter().find(|(name, _)| *name == self.fault) {
            Some((_, takes)) => self.check(takes, &mut errors),
            None => {
                let known = KINDS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
                errors.push(wrong("fault", format!("must be one of {known}, is `{}`", self.fault)));
            }
        }
        match self.kind() {
            Some(kind) if errors.is_empty() => Ok((kind, duration)),
            _ => Err(Problem::validation(errors)),
        }
    }

    /// Each member alone: whether this kind takes it, needs it, and what it may be.
    fn check(&self, takes: &[&str], errors: &mut Vec<FieldError>) {
        let fault = &self.fault;
        let members = [
            ("delay_ms", self.delay_ms.map(|ms| (1..=DELAY_MS_MAX).contains(&ms)), format!("from 1 to {DELAY_MS_MAX}")),
            (
                "offset_ms",
                self.offset_ms.map(|ms| ms != 0 && ms.unsigned_abs() <= OFFSET_MS_MAX.unsigned_abs()),
                format!("from -{OFFSET_MS_MAX} to {OFFSET_MS_MAX}, and not 0"),
            ),
            ("probability", self.probability.map(|p| p > 0.0 && p <= 1.0), "more than 0 and at most 1".to_owned()),
            (
                "peers",
                self.peers.as_ref().map(|names| (1..=PEERS_MAX).contains(&names.len())),
                format!("1 to {PEERS_MAX} names; leave it out for all other members"),
            ),
            (
                "direction",
                self.direction.as_ref().map(|_| self.way().is_some()),
                "one of both, outgoing, incoming".to_owned(),
            ),
        ];
        for (member, is_good, must) in members {
            let needed = takes.iter().any(|taken| taken.strip_suffix('!') == Some(member));
            match (is_good, needed || takes.contains(&member)) {
                (Some(_), false) => errors.push(wrong(member, format!("{fault} does not take it"))),
                (Some(false), true) => errors.push(wrong(member, format!("must be {must}"))),
                (None, true) if needed => errors.push(wrong(member, format!("{fault} needs it: {must}"))),
                _ => {}
            }
        }
    }

    /// `None` where something is missing or wrong, which [`NewFault::check`] tells.
    fn kind(&self) -> Option<FaultKind> {
        let path = || Some(FaultPath { peers: self.peers.clone(), direction: self.way()? });
        Some(match self.fault.as_str() {
            "slow-disk" => FaultKind::SlowDisk { delay_ms: self.delay_ms? },
            "full-disk" => FaultKind::FullDisk,
            "failed-fsync" => FaultKind::FailedFsync,
            "clock-jump" => FaultKind::ClockJump { offset_ms: self.offset_ms? },
            "cut" => FaultKind::Cut(path()?),
            "loss" => FaultKind::Loss { path: path()?, probability: self.probability? },
            "delay" => FaultKind::Delay { path: path()?, delay_ms: self.delay_ms? },
            "reorder" => FaultKind::Reorder { path: path()?, probability: self.probability? },
            "duplicate" => {
                let path = FaultPath { direction: FaultDirection::Outgoing, ..path()? };
                FaultKind::Duplicate { path, probability: self.probability? }
            }
            _ => return None,
        })
    }

    fn way(&self) -> Option<FaultDirection> {
        let Some(name) = &self.direction else { return Some(FaultDirection::Both) };
        DIRECTIONS.iter().find(|(known, _)| known == name).map(|(_, direction)| *direction)
    }
}

/// The schema of `fault`.
fn kinds() -> Object {
    let names = KINDS.iter().map(|(name, _)| *name);
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).build()
}

/// The schema of `direction`.
fn directions() -> Object {
    let names = DIRECTIONS.iter().map(|(name, _)| Some(*name)).chain([None]);
    ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::String, Type::Null])).enum_values(Some(names)).build()
}

/// The schema of `offset_ms`.
fn offsets() -> Schema {
    let nothing = ObjectBuilder::new().schema_type(Type::Null);
    openapi::either_way(OFFSET_MS_MAX).item(nothing).build().into()
}

fn wrong(field: &str, detail: String) -> FieldError {
    FieldError { field: field.into(), detail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use utoipa::PartialSchema;

    fn read(text: &str) -> Result<(FaultKind, Duration), Problem> {
        serde_json::from_str::<NewFault>(text).expect("well-formed").read()
    }

    fn fields(text: &str) -> String {
        let errors = read(text).expect_err(text).errors;
        errors.into_iter().map(|error| error.field).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_fault_says_all_that_is_wrong_with_it() {
        assert_eq!(
            read(r#"{"fault":"slow-disk","delay_ms":5,"duration_ms":7}"#),
            Ok((FaultKind::SlowDisk { delay_ms: 5 }, Duration::from_millis(7)))
        );
        assert_eq!(fields(r#"{"fault":"slow-disk","duration_ms":0}"#), "duration_ms delay_ms");
        assert_eq!(fields(r#"{"fault":"full-disk","duration_ms":1,"delay_ms":1}"#), "delay_ms");
        assert_eq!(fields(r#"{"fault":"clock-jump","duration_ms":1,"offset_ms":0}"#), "offset_ms");
        assert_eq!(fields(r#"{"fault":"murder","duration_ms":1}"#), "fault");
    }

    #[test]
    fn faults_of_the_network_are_between_this_node_and_others() {
        let kind = |text: &str| read(text).map(|(kind, _)| kind);
        let all = FaultPath { peers: None, direction: FaultDirection::Both };
        assert_eq!(kind(r#"{"fault":"cut","duration_ms":1}"#), Ok(FaultKind::Cut(all.clone())));
        let some = FaultPath { peers: Some(vec!["n2".into()]), direction: FaultDirection::Incoming };
        assert_eq!(
            kind(r#"{"fault":"cut","duration_ms":1,"peers":["n2"],"direction":"incoming"}"#),
            Ok(FaultKind::Cut(some))
        );
        assert_eq!(
            kind(r#"{"fault":"loss","duration_ms":1,"probability":1}"#),
            Ok(FaultKind::Loss { path: all.clone(), probability: 1.0 })
        );
        assert_eq!(
            kind(r#"{"fault":"duplicate","duration_ms":1,"probability":0.5}"#),
            Ok(FaultKind::Duplicate {
                path: FaultPath { direction: FaultDirection::Outgoing, ..all },
                probability: 0.5
            })
        );
        for (wrong, named) in [
            (r#"{"fault":"cut","duration_ms":1,"peers":[],"direction":"up","delay_ms":1}"#, "delay_ms peers direction"),
            (r#"{"fault":"loss","duration_ms":1}"#, "probability"),
            (r#"{"fault":"reorder","duration_ms":1,"probability":0}"#, "probability"),
            (r#"{"fault":"loss","duration_ms":1,"probability":1.1,"offset_ms":1}"#, "offset_ms probability"),
            (r#"{"fault":"delay","duration_ms":1,"delay_ms":10001}"#, "delay_ms"),
            (r#"{"fault":"duplicate","duration_ms":1,"probability":0.5,"direction":"both"}"#, "direction"),
            (r#"{"fault":"full-disk","duration_ms":1,"peers":["n2"]}"#, "peers"),
        ] {
            assert_eq!(fields(wrong), named, "{wrong}");
        }
    }

    #[test]
    fn the_description_has_the_bounds_that_are_checked() {
        let schema = serde_json::to_value(NewFault::schema()).expect("JSON");
        let described = |member: &str| schema["properties"][member].clone();
        assert_eq!(described("fault")["enum"], json!(KINDS.iter().map(|(kind, _)| kind).collect::<Vec<_>>()));
        assert_eq!(described("direction")["enum"], json!(["both", "outgoing", "incoming", null]));

        let delayed = json!({"fault": "delay", "delay_ms": 1, "duration_ms": 1});
        let jumped = json!({"fault": "clock-jump", "offset_ms": 1, "duration_ms": 1});
        let [below, above] = [&described("offset_ms")["oneOf"][0], &described("offset_ms")["oneOf"][1]];
        for (bounds, member, asked) in [
            (&described("duration_ms"), "duration_ms", &delayed),
            (&described("delay_ms"), "delay_ms", &delayed),
            (below, "offset_ms", &jumped),
            (above, "offset_ms", &jumped),
        ] {
            let [least, most] = ["minimum", "maximum"].map(|end| bounds[end].as_i64().expect("bounded"));
            for (value, is_good) in [(least - 1, false), (least, true), (most, true), (most + 1, false)] {
                let mut asked = asked.clone();
                asked[member] = json!(value);
                // Below what an unsigned number holds, serde refuses it.
                let taken = serde_json::from_value::<NewFault>(asked).is_ok_and(|fault| fault.read().is_ok());
                assert_eq!(taken, is_good, "{member}: {value}");
            }
        }

        let described = [described("probability"), described("peers")];
        assert_eq!([&described[0]["exclusiveMinimum"], &described[0]["maximum"]], [&json!(0), &json!(1)]);
        assert_eq!([&described[1]["minItems"], &described[1]["maxItems"]], [&json!(1), &json!(PEERS_MAX)]);
        let peers = |count: usize| json!({"fault": "cut", "duration_ms": 1, "peers": vec!["n2"; count]});
        assert!(read(&peers(PEERS_MAX).to_string()).is_ok());
        assert_eq!(fields(&peers(PEERS_MAX + 1).to_string()), "peers");
    }

    #[test]
    fn every_kind_can_be_asked_for() {
        for (kind, takes) in KINDS {
            let mut asked = json!({"fault": kind, "duration_ms": 1});
            for needed in takes.iter().filter_map(|taken| taken.strip_suffix('!')) {
                asked[needed] = json!(1);
            }
            let (read, _) = read(&asked.to_string()).unwrap_or_else(|problem| panic!("{kind}: {problem:?}"));
            assert_eq!(serde_json::to_value(&read).expect("JSON")["fault"], *kind);
        }
    }
}
