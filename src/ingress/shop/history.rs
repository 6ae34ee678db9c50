//! Pages of an entity's history as the API shows them.
//!
//! An entity's events are Rust enums; here they become a `type` and `data`. Inside, times are
//! milliseconds in members named `…_ms`; outside they are RFC 3339 without that ending.

use crate::{
    commerce::time::rfc3339,
    ingress::{
        extract::{Params, invalid},
        problem::{Code, Problem},
    },
};
use serde::Serialize;
use serde_json::{Map, Value};

const LIMIT_DEFAULT: u64 = 20;
const LIMIT_MAX: u64 = 100;

/// Which page is asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    /// Events up to this number have been seen.
    pub after: u64,
    pub limit: usize,
}

#[derive(Debug, Serialize)]
pub struct Page {
    data: Vec<Event>,
    has_more: bool,
}

/// One event as the API shows it.
#[derive(Debug, Serialize)]
pub struct Event {
    pub id: String,
    pub sequence: u64,
    #[serde(rename = "type")]
    pub kind: String,
    at: String,
    data: Value,
}

impl Asked {
    /// Takes `limit` and `starting_after` for the history of the entity `id`.
    pub fn of(params: &mut Params, id: &str) -> Result<Self, Problem> {
        let limit = params.number("limit", 1..=LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT);
        Ok(Self { after: starting_after(params, id)?, limit: limit as usize })
    }

    /// The page, from up to `limit` + 1 events (sequence, time, what happened): one more than
    /// fits says that there is more.
    pub fn page<F: Serialize>(&self, id: &str, events: impl Iterator<Item = (u64, u64, F)>) -> Result<Page, Problem> {
        let show = |(sequence, at_ms, fact)| Event::of(id, sequence, at_ms, &fact);
        let mut data = events.map(show).collect::<Result<Vec<_>, _>>()?;
        let has_more = data.len() > self.limit;
        data.truncate(self.limit);
        Ok(Page { data, has_more })
    }
}

impl Event {
    pub fn of<F: Serialize>(id: &str, sequence: u64, at_ms: u64, fact: &F) -> Result<Self, Problem> {
        Self::shown(id, sequence, at_ms, fact).map_err(|error| {
            tracing::error!(%id, %error, "an event cannot be shown as JSON");
            Problem::new(Code::Internal, "an event cannot be shown")
        })
    }

    fn shown<F: Serialize>(id: &str, sequence: u64, at_ms: u64, fact: &F) -> Result<Self, serde_json::Error> {
        // An enum's JSON is its variant's name, alone or as the only member of an object.
        let (kind, data) = match serde_json::to_value(fact)? {
            Value::String(kind) => (kind, Value::Object(Map::new())),
            Value::Object(members) if members.len() == 1 => members.into_iter().next().unwrap_or_default(),
            other => ("unknown".to_owned(), other),
        };
        Ok(Self { id: event_id(id, sequence), sequence, kind, at: rfc3339(at_ms), data: times_for_people(data) })
    }
}

/// Takes `starting_after`: the number of the last event of the entity `id` that has been seen.
pub fn starting_after(params: &mut Params, id: &str) -> Result<u64, Problem> {
    let Some(event) = params.take("starting_after")? else { return Ok(0) };
    sequence_of(id, &event).ok_or_else(|| invalid("starting_after", format!("`{event}` is no event of {id}")))
}

/// `evt_`, the entity's id without its own prefix, the event's number.
fn event_id(id: &str, sequence: u64) -> String {
    format!("evt_{}_{sequence}", suffix(id))
}

/// The number of an event, if it is one of the entity `id`.
pub fn sequence_of(id: &str, event: &str) -> Option<u64> {
    let (of, sequence) = event.strip_prefix("evt_")?.rsplit_once('_')?;
    let sequence = sequence.parse().ok()?;
    (of == suffix(id) && event == event_id(id, sequence)).then_some(sequence)
}

fn suffix(id: &str) -> &str {
    id.split_once('_').map_or(id, |(_, suffix)| suffix)
}

fn times_for_people(value: Value) -> Value {
    match value {
        Value::Object(members) => Value::Object(members.into_iter().map(time_for_people).collect()),
        Value::Array(items) => Value::Array(items.into_iter().map(times_for_people).collect()),
        other => other,
    }
}

fn time_for_people((name, value): (String, Value)) -> (String, Value) {
    match (name.strip_suffix("_ms"), value.as_u64()) {
        (Some(name), Some(ms)) => (name.to_owned(), rfc3339(ms).into()),
        _ => (name, times_for_people(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Serialize)]
    #[serde(rename_all = "snake_case")]
    enum Fact {
        Placed { total: u32, until_ms: u64 },
        StockReserved,
    }

    fn asked(query: &str) -> Result<Asked, Problem> {
        let mut params = Params::of(&format!("/x?{query}").parse().expect("a URI"))?;
        Asked::of(&mut params, "ord_a_b")
    }

    #[test]
    fn an_event_is_shown_with_its_type_its_data_and_times_for_people() {
        let events = [(1, 0, Fact::Placed { total: 3, until_ms: 1000 }), (2, 1, Fact::StockReserved)];
        let page = Asked { after: 0, limit: 2 }.page("ord_a_b", events.into_iter()).expect("shown");
        let expected = json!({"has_more": false, "data": [
            {"id": "evt_a_b_1", "sequence": 1, "type": "placed", "at": "1970-01-01T00:00:00.000Z",
             "data": {"total": 3, "until": "1970-01-01T00:00:01.000Z"}},
            {"id": "evt_a_b_2", "sequence": 2, "type": "stock_reserved", "at": "1970-01-01T00:00:00.001Z", "data": {}},
        ]});
        assert_eq!(json!(page), expected);
    }

    #[test]
    fn one_event_more_than_fits_says_that_there_is_more() {
        let events = (1..=3).map(|sequence| (sequence, 0, Fact::StockReserved));
        let page = Asked { after: 0, limit: 2 }.page("ord_1", events).expect("shown");
        assert_eq!((page.data.len(), page.has_more), (2, true));
    }

    #[test]
    fn a_page_starts_after_an_event_of_the_same_entity() {
        assert_eq!(asked("").expect("valid"), Asked { after: 0, limit: 20 });
        assert_eq!(asked("limit=100&starting_after=evt_a_b_7").expect("valid"), Asked { after: 7, limit: 100 });
        for bad in ["evt_c_7", "evt_a_b_07", "evt_a_b_", "evt_a_b_-1", "7", "ord_a_b_7"] {
            let problem = asked(&format!("starting_after={bad}")).expect_err("refused");
            assert_eq!(problem.errors[0].field, "starting_after", "{bad}");
        }
        assert_eq!(asked("limit=101").expect_err("refused").errors[0].field, "limit");
    }
}
