//! What was asked of the cluster and what it said: one operation per attempt.
//!
//! An attempt whose answer never came stays [`Outcome::Unknown`] for ever. A retry under the same
//! idempotency key is an attempt of its own; together they are one [`Operation::logical`] operation.

use super::load::Workload;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    borrow::Cow,
    collections::BTreeMap,
    io::{self, BufRead, Write},
};

/// Everything that was recorded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// By the time of their invocation, with ids from 0.
    pub operations: Vec<Operation>,
    /// Every node looked at, once a second.
    pub samples: Vec<NodeSample>,
}

/// One request, sent once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    pub id: u64,
    pub client: u32,
    pub workload: Workload,
    /// URL of the node it was sent to.
    pub node: String,
    /// Microseconds since the start of the run.
    pub invoked_us: u64,
    /// When its answer was complete, or when the client gave up.
    pub returned_us: u64,
    pub request: Request,
    pub outcome: Outcome,
    /// `x-receipt` of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    pub method: Method,
    pub path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_match: Option<u64>,
    #[serde(default, skip_serializing_if = "Json::is_null")]
    pub body: Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    Get,
    Put,
    Post,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Outcome {
    /// The cluster has decided: done (2xx), or refused for good (4xx).
    Answered { status: u16, replayed: bool, body: Json },
    /// The cluster promises that nothing happened (429, 503), or nothing was sent.
    Refused { status: u16, code: String },
    /// It may have happened, may still happen, or never will.
    Unknown { reason: String },
}

/// A node as it showed itself at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSample {
    pub node: String,
    pub at_us: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resident_bytes: Option<u64>,
    /// Its number in the cluster, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// Shards that it takes itself for the owner of, with the term.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owns: Vec<(u64, u64)>,
}

/// A JSON document, kept as its text: a tenth of the memory of a parsed one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json(Box<str>);

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Line<'a> {
    Operation(Cow<'a, Operation>),
    Sample(Cow<'a, NodeSample>),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum OwnedLine {
    Operation(Box<Operation>),
    Sample(NodeSample),
}

impl History {
    /// One JSON document a line.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, mut out: impl Write) -> io::Result<()> {
        let operations = self.operations.iter().map(|one| Line::Operation(Cow::Borrowed(one)));
        for line in operations.chain(self.samples.iter().map(|one| Line::Sample(Cow::Borrowed(one)))) {
            serde_json::to_writer(&mut out, &line)?;
            out.write_all(b"\n")?;
        }
        out.flush()
    }

    /// # Errors
    /// Those of `input`; `InvalidData` names the first line that is not of a history.
    pub fn read(input: impl BufRead) -> io::Result<Self> {
        let mut history = Self::default();
        for (number, line) in input.lines().enumerate() {
            let bad = |error| io::Error::new(io::ErrorKind::InvalidData, format!("line {}: {error}", number + 1));
            match serde_json::from_str(&line?).map_err(bad)? {
                OwnedLine::Operation(operation) => history.operations.push(*operation),
                OwnedLine::Sample(sample) => history.samples.push(sample),
            }
        }
        Ok(history)
    }

    /// Attempts at the same thing, oldest first, by method, path and key. Requests without a key
    /// are not in it: each of them stands for itself.
    #[must_use]
    pub fn by_key(&self) -> BTreeMap<(Method, &str, &str), Vec<&Operation>> {
        let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for operation in &self.operations {
            if let Some(logical) = operation.logical() {
                all.entry(logical).or_default().push(operation);
            }
        }
        all
    }
}

impl Operation {
    /// What makes two attempts one operation.
    #[must_use]
    pub fn logical(&self) -> Option<(Method, &str, &str)> {
        let Request { method, path, key, .. } = &self.request;
        Some((*method, path, key.as_deref()?))
    }

    /// The body of a 2xx answer.
    #[must_use]
    pub fn acknowledged(&self) -> Option<&Json> {
        match &self.outcome {
            Outcome::Answered { status, body, .. } if (200..300).contains(status) => Some(body),
            _ => None,
        }
    }

    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self.outcome, Outcome::Unknown { .. })
    }

    #[must_use]
    pub fn is_write(&self) -> bool {
        self.request.method != Method::Get
    }
}

impl Method {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Post => "POST",
        }
    }
}

impl Json {
    #[must_use]
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.0).unwrap_or_default()
    }

    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.len()
    }

    fn is_null(&self) -> bool {
        &*self.0 == "null"
    }
}

impl From<&Value> for Json {
    fn from(value: &Value) -> Self {
        Self(value.to_string().into())
    }
}

impl Default for Json {
    fn default() -> Self {
        Self("null".into())
    }
}

impl Serialize for Json {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from(&Value::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::check::testing::{answered, unknown};
    use serde_json::json;

    #[test]
    fn a_history_is_read_as_it_was_written() {
        let mut unanswered = unknown(1, Method::Post, "/v1/orders", json!({"items": []}));
        unanswered.request.key = Some("k".into());
        let sample =
            NodeSample { node: "http://a".into(), at_us: 5, resident_bytes: Some(7), id: None, owns: vec![(1, 2)] };
        let operations = vec![answered(0, Method::Get, "/v1/inventory/a", 200, json!({"on_hand": 1})), unanswered];
        let history = History { operations, samples: vec![sample] };
        let mut written = Vec::new();
        history.write(&mut written).expect("written");
        assert_eq!(written.iter().filter(|byte| **byte == b'\n').count(), 3);
        assert_eq!(History::read(&written[..]).expect("read"), history);
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let error = History::read(&b"{\"operation\":{}}\n"[..]).expect_err("not an operation");
        assert!(error.to_string().starts_with("line 1: "), "{error}");
    }

    #[test]
    fn attempts_under_one_key_are_one_operation() {
        let with_key = |id, key: &str| {
            let mut operation = answered(id, Method::Post, "/v1/orders", 201, json!({}));
            operation.request.key = Some(key.into());
            operation
        };
        let operations = vec![
            with_key(0, "a"),
            with_key(1, "b"),
            with_key(2, "a"),
            answered(3, Method::Get, "/v1/orders", 200, json!({})),
        ];
        let history = History { operations, samples: Vec::new() };
        let attempts: Vec<usize> = history.by_key().values().map(Vec::len).collect();
        assert_eq!(attempts, [2, 1]);
    }
}
