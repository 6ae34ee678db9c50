//! `GET /admin/v1/events`: what happens in the cluster as this node sees it, as a page of the last events
//! or as server-sent events.
//!
//! ```text
//! no place to go on from ─▶ snapshot ─▶ events as they come
//! Last-Event-ID, kept ────────────────▶ events behind it
//! Last-Event-ID, gone ───▶ reset, snapshot ─▶ events as they come
//! slower than they come ─▶ reset, end
//! ```
//!
//! A stream keeps the number of the last event that it sent, and nothing of what is to come: the events
//! are in the node's [`Feed`], which drops the oldest whoever has not read them yet.

use super::{
    Api, Draining,
    evidence::ViolationView,
    extract::{Params, invalid},
    openapi::{self, ClusterStreamHeaders, PageParams, ProblemResponse},
    problem::Problem,
    sse,
};
use crate::{
    cluster::{
        Cluster, ClusterEvent, ClusterSnapshot, EventId, Fault, FaultStatus, Feed, MemberSeen, MemberStatus, News,
        ShardSeen,
    },
    commerce::time::rfc3339,
    entity::ShardId,
};
use axum::{
    Extension, Json, Router,
    extract::State,
    http::{HeaderMap, HeaderValue, Uri, header},
    response::{IntoResponse, Response, sse::Event as Sent},
    routing::get,
};
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

const LIMIT_DEFAULT: u64 = 20;

pub fn routes() -> Router<Api> {
    Router::new().route("/admin/v1/events", get(events))
}

/// What happens in the cluster, as this node sees it: members, owners of shards, faults.
///
/// A page of the last events, oldest first; the node keeps 1,024 until its process ends. With `Accept:
/// text/event-stream` live: first a `snapshot` of the members, of the shards that this node holds and of
/// what is wrong, then a `membership`, `leadership` or `fault` event whenever that changes.
/// `Last-Event-ID` (or `starting_after`) goes on behind an event, without a snapshot. If that cannot be,
/// because it is another process's or too old, there is a `reset` first, and then a snapshot. A client
/// that reads more slowly than events come gets a `reset` and the end of the stream, and comes back.
#[utoipa::path(
    get, operation_id = "list_cluster_events", path = "/admin/v1/events", tag = "administration",
    params(PageParams, ClusterStreamHeaders),
    responses(
        (status = 200, description = "A page of events, or what stands and all that happens", content(
            (openapi::List<openapi::ClusterEvent> = "application/json"),
            (openapi::StreamedClusterEvent = "text/event-stream", example = json!("id: 8c3f1d5e9a7b2c44-17\nevent: leadership\ndata: {}\n\n")),
        )),
        (status = 429, response = ProblemResponse),
    )
)]
pub async fn events(
    State(api): State<Api>,
    uri: Uri,
    request: HeaderMap,
    draining: Option<Extension<Draining>>,
) -> Result<Response, Problem> {
    let vary = [(header::VARY, HeaderValue::from_static("accept"))];
    if sse::is_wanted(&request) {
        let opened = open(&api, &uri, &request, draining.map(|Extension(draining)| draining))?;
        return Ok((vary, opened).into_response());
    }
    Ok((vary, page(api.cluster.feed(), &uri)?).into_response())
}

fn page(feed: &Feed, uri: &Uri) -> Result<Json<Value>, Problem> {
    let mut params = Params::of(uri)?;
    let limit = params.number("limit", 1..=100)?.unwrap_or(LIMIT_DEFAULT);
    let after = starting_after(&mut params)?;
    params.finish()?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    // One more than is shown tells whether there is more.
    let found = match after {
        None => feed.oldest(limit + 1),
        Some(after) => kept_after(feed, after, limit + 1).ok_or_else(|| {
            let detail = format!("`{after}` is no event that this node still keeps; ask without it for the oldest");
            invalid("starting_after", detail)
        })?,
    };
    let data: Vec<EventView> = found.iter().take(limit).map(|event| EventView::of(event)).collect();
    Ok(Json(json!({"data": data, "has_more": found.len() > limit})))
}

/// The events behind one of this process, if all of them are kept.
fn kept_after(feed: &Feed, after: EventId, limit: usize) -> Option<Vec<Arc<ClusterEvent>>> {
    let (_, last) = feed.span();
    if after.boot == feed.boot() && after.number <= last { feed.after(after.number, limit) } else { None }
}

fn starting_after(params: &mut Params) -> Result<Option<EventId>, Problem> {
    let Some(text) = params.take("starting_after")? else { return Ok(None) };
    let shown: String = text.chars().take(64).collect();
    let bad = |error| invalid("starting_after", format!("`{shown}`: {error}"));
    text.parse().map(Some).map_err(bad)
}

fn open(api: &Api, uri: &Uri, request: &HeaderMap, draining: Option<Draining>) -> Result<Response, Problem> {
    let mut params = Params::of(uri)?;
    let starting_after = starting_after(&mut params)?;
    params.finish()?;
    // The header is what a client adds when it comes back to the address it started with.
    let named = match sse::last_event_id(request) {
        Some(event) => Some(event.parse().map_err(|_| sse::no_such_event(event, "this node"))?),
        None => starting_after,
    };
    let place = sse::admit(api)?;
    let follower = Follower::begin(api.cluster.clone(), named)?;
    Ok(sse::respond(api, place, draining, follower))
}

/// One client's place among the events.
struct Follower {
    cluster: Cluster,
    /// The number of the last event that was sent, or is in what is sent first.
    after: u64,
    /// What is sent first.
    first: VecDeque<Sent>,
    is_cut: bool,
}

impl Follower {
    fn begin(cluster: Cluster, named: Option<EventId>) -> Result<Self, Problem> {
        let feed = cluster.feed();
        let (gone, last) = feed.span();
        let reset = match named {
            None => None,
            Some(id) if id.boot != feed.boot() => Some(Reset::new("another_process", id)),
            Some(id) if id.number > last => return Err(sse::no_such_event(&id.to_string(), "this node")),
            Some(id) if id.number < gone => Some(Reset::new("too_old", id)),
            Some(EventId { number, .. }) => {
                return Ok(Self { cluster, after: number, first: VecDeque::new(), is_cut: false });
            }
        };
        let snapshot = feed.snapshot();
        let after = snapshot.id.number;
        let mut first: VecDeque<Sent> = reset.into_iter().map(Reset::sent).collect();
        first.push_back(EventView::snapshot(snapshot).sent());
        Ok(Self { cluster, after, first, is_cut: false })
    }
}

impl sse::Source for Follower {
    async fn next(&mut self) -> Option<Sent> {
        if let Some(first) = self.first.pop_front() {
            return Some(first);
        }
        if self.is_cut {
            return None;
        }
        let feed = self.cluster.feed();
        feed.later_than(self.after).await;
        let Some(events) = feed.after(self.after, 1) else {
            self.is_cut = true;
            return Some(Reset::new("too_slow", EventId { boot: feed.boot(), number: self.after }).sent());
        };
        let event = events.first()?;
        self.after = event.id.number;
        Some(EventView::of(event).sent())
    }
}

/// One event as the API shows it.
#[derive(Serialize)]
struct EventView {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    at: String,
    data: Data,
}

impl EventView {
    fn of(event: &ClusterEvent) -> Self {
        let (kind, data) = match event.news.clone() {
            News::Membership { change, member } => {
                ("membership", Data::Membership { change: change.as_str(), member: member.into() })
            }
            News::Leadership { change, shard } => {
                ("leadership", Data::Leadership { change: change.as_str(), shard: shard.into() })
            }
            News::Fault { change, fault } => ("fault", Data::Fault { change: change.as_str(), fault: fault.into() }),
        };
        Self { id: event.id.to_string(), kind, at: rfc3339(event.at_ms), data }
    }

    fn snapshot(snapshot: ClusterSnapshot) -> Self {
        let ClusterSnapshot { id, at_ms, members, shards, faults } = snapshot;
        let data = Data::Snapshot {
            members: members.into_iter().map(MemberView::from).collect(),
            shards: shards.into_iter().map(ShardView::from).collect(),
            faults: faults.into_iter().map(FaultView::from).collect(),
        };
        Self { id: id.to_string(), kind: "snapshot", at: rfc3339(at_ms), data }
    }

    fn sent(&self) -> Sent {
        let data = serde_json::to_string(self).unwrap_or_default();
        Sent::default().id(&self.id).event(self.kind).data(data)
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Data {
    Membership {
        change: &'static str,
        #[serde(flatten)]
        member: MemberView,
    },
    Leadership {
        change: &'static str,
        #[serde(flatten)]
        shard: ShardView,
    },
    Fault {
        change: &'static str,
        #[serde(flatten)]
        fault: FaultView,
    },
    Snapshot {
        members: Vec<MemberView>,
        shards: Vec<ShardView>,
        faults: Vec<FaultView>,
    },
}

#[derive(Serialize)]
struct MemberView {
    #[serde(flatten)]
    status: MemberStatus,
    boot_id: Option<String>,
}

impl From<MemberSeen> for MemberView {
    fn from(MemberSeen { status, boot_id }: MemberSeen) -> Self {
        Self { status, boot_id: boot_id.map(|boot_id| format!("{boot_id:016x}")) }
    }
}

#[derive(Serialize)]
struct ShardView {
    shard: ShardId,
    owner: Option<u64>,
    owner_name: Option<String>,
    term: u64,
}

impl From<ShardSeen> for ShardView {
    fn from(ShardSeen { shard, owner, term }: ShardSeen) -> Self {
        let (owner, owner_name) = owner.map(|(node, name)| (node.0, name)).unzip();
        Self { shard, owner, owner_name, term }
    }
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum FaultView {
    Injected { injected: FaultStatus },
    Violation { violation: ViolationView },
    NodeFailed { reason: String },
}

impl From<Fault> for FaultView {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Injected(injected) => Self::Injected { injected },
            Fault::Violation(finding) => Self::Violation { violation: finding.into() },
            Fault::NodeFailed(reason) => Self::NodeFailed { reason },
        }
    }
}

/// Events are missing between the last one that the client has and what comes. It has no id of its own:
/// who comes back after it names what it named before.
#[derive(Serialize)]
struct Reset {
    #[serde(rename = "type")]
    kind: &'static str,
    at: String,
    data: Missed,
}

#[derive(Serialize)]
struct Missed {
    reason: &'static str,
    last_event_id: String,
}

impl Reset {
    fn new(reason: &'static str, last: EventId) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = rfc3339(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        Self { kind: "reset", at, data: Missed { reason, last_event_id: last.to_string() } }
    }

    fn sent(self) -> Sent {
        Sent::default().event(self.kind).data(serde_json::to_string(&self).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::{FaultChange, FaultKind, Finding, LeaderChange, MemberChange, Violation},
        ingress::openapi::describes,
    };
    use serde::de::DeserializeOwned;

    /// A value of a type that this module has no name for.
    fn read<T: DeserializeOwned>(json: Value) -> T {
        serde_json::from_value(json).expect("its JSON")
    }

    fn shown(news: News) -> Value {
        let event = ClusterEvent { id: EventId { boot: 7, number: 3 }, at_ms: 1, news };
        let shown = serde_json::to_value(EventView::of(&event)).expect("JSON");
        assert_eq!((&shown["id"], &shown["at"]), (&json!("0000000000000007-3"), &json!("1970-01-01T00:00:00.001Z")));
        describes("ClusterEvent", &shown);
        shown
    }

    fn member() -> MemberSeen {
        let status = json!({
            "node": 2, "name": "b", "address": "b:1", "http": "b:2", "zone": null, "gossip": "down", "linked": false,
            "is_self": false, "leaving": false,
        });
        MemberSeen { status: read(status), boot_id: Some(0xab) }
    }

    fn shard() -> ShardSeen {
        ShardSeen { shard: ShardId(3), owner: Some((read(json!(2)), "b".into())), term: 4 }
    }

    fn faults() -> [Fault; 3] {
        let injected = FaultStatus { id: 1, kind: FaultKind::SlowDisk { delay_ms: 5 }, duration_ms: 7 };
        let violation = Violation::StateHash { peer: read(json!(2)), index: 64 };
        let finding = Finding { shard: ShardId(3), violation, found_at_ms: 1 };
        [Fault::Injected(injected), Fault::Violation(finding), Fault::NodeFailed("no disk".into())]
    }

    #[test]
    fn what_happens_is_shown_as_it_is_described() {
        let shown_member = shown(News::Membership { change: MemberChange::Down, member: member() });
        assert_eq!(shown_member["type"], "membership");
        assert_eq!((&shown_member["data"]["change"], &shown_member["data"]["name"]), (&json!("down"), &json!("b")));
        assert_eq!(shown_member["data"]["boot_id"], "00000000000000ab");
        describes("MembershipNews", &shown_member["data"]);
        let shown_shard = shown(News::Leadership { change: LeaderChange::Elected, shard: shard() });
        let expected = json!({"change": "elected", "shard": 3, "owner": 2, "owner_name": "b", "term": 4});
        assert_eq!(shown_shard["data"], expected);
        describes("LeadershipNews", &shown_shard["data"]);
        for (fault, kind) in faults().into_iter().zip(["injected", "violation", "node_failed"]) {
            let shown_fault = shown(News::Fault { change: FaultChange::Began, fault });
            assert_eq!((&shown_fault["data"]["change"], &shown_fault["data"]["kind"]), (&json!("began"), &json!(kind)));
            describes("FaultNews", &shown_fault["data"]);
        }
    }

    #[test]
    fn what_stands_and_what_is_missing_is_shown_as_it_is_described() {
        let id = EventId { boot: 7, number: 0 };
        let (members, shards) = (vec![member()], vec![shard()]);
        let snapshot = ClusterSnapshot { id, at_ms: 1, members, shards, faults: faults().into() };
        let data = serde_json::to_value(EventView::snapshot(snapshot)).expect("JSON")["data"].clone();
        describes("ClusterSnapshot", &data);
        describes("MemberNow", &data["members"][0]);
        describes("ShardNow", &data["shards"][0]);
        for fault in data["faults"].as_array().expect("faults") {
            describes("FaultNow", fault);
        }
        let reset = serde_json::to_value(Reset::new("too_old", id)).expect("JSON");
        describes("StreamReset", &reset["data"]);
    }

    #[test]
    fn a_place_to_go_on_from_that_is_none_is_named() {
        let mut params = Params::of(&Uri::from_static("/x?starting_after=evt_a_7")).expect("well-formed");
        let problem = starting_after(&mut params).expect_err("refused");
        assert_eq!(problem.errors[0].field, "starting_after");
    }
}
