//! Schemas of what happens in the cluster. As in `schemas`, nothing here is ever made: the real types are
//! in `ingress::events`.
#![allow(dead_code)]

use super::{Fault, Violation};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct ClusterStreamHeaders {
    /// `text/event-stream` for the events as they happen.
    #[param(rename = "Accept", example = "text/event-stream")]
    accept: Option<String>,
    /// On a stream: the id of the last event that was seen. Goes before `starting_after`.
    #[param(rename = "Last-Event-ID", example = "8c3f1d5e9a7b2c44-17")]
    last_event_id: Option<String>,
}

/// Something happened, as the node that was asked sees it.
#[derive(Serialize, ToSchema)]
pub struct ClusterEvent {
    /// Boot id of the node's process and a number, without gaps.
    #[schema(example = "8c3f1d5e9a7b2c44-17")]
    id: String,
    r#type: ClusterEventType,
    #[schema(format = DateTime)]
    at: String,
    data: ClusterNews,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClusterEventType {
    Membership,
    Leadership,
    Fault,
}

/// By `type`: `membership`, `leadership`, `fault`.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum ClusterNews {
    Membership(MembershipNews),
    Leadership(LeadershipNews),
    Fault(FaultNews),
}

/// A member has changed.
#[derive(Serialize, ToSchema)]
pub struct MembershipNews {
    #[schema(inline)]
    change: MemberChange,
    node: u64,
    name: String,
    address: String,
    http: String,
    zone: Option<String>,
    /// `alive`, `suspect` or `down`, as this node sees it.
    gossip: String,
    linked: bool,
    is_self: bool,
    leaving: bool,
    /// Random number of its process, 16 hexadecimal digits; `null` while this node has not heard of it.
    #[schema(example = "8c3f1d5e9a7b2c44")]
    boot_id: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemberChange {
    /// It is in the roster.
    Joined,
    /// It is not any more.
    Removed,
    /// It is another process than before.
    Restarted,
    Alive,
    Suspect,
    Down,
    /// The node link with it is up.
    Linked,
    Unlinked,
    /// Its addresses, or that its process became known.
    Updated,
}

/// A shard of which this node holds a replica has an owner, or has lost it; or the replica is closed.
#[derive(Serialize, ToSchema)]
pub struct LeadershipNews {
    #[schema(inline)]
    change: LeaderChange,
    shard: u16,
    owner: Option<u64>,
    owner_name: Option<String>,
    term: u64,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeaderChange {
    Elected,
    Lost,
}

/// Something is wrong with this node, or was found by it; or is not any more.
#[derive(Serialize, ToSchema)]
pub struct FaultNews {
    #[schema(inline)]
    change: FaultChange,
    #[schema(inline)]
    kind: FaultKind,
    /// Of `injected`.
    #[schema(nullable = false)]
    injected: Option<Fault>,
    /// Of `violation`.
    #[schema(nullable = false)]
    violation: Option<Violation>,
    /// Of `node_failed`.
    #[schema(nullable = false)]
    reason: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FaultChange {
    Began,
    Ended,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// On purpose.
    Injected,
    /// A broken invariant.
    Violation,
    /// The node cannot go on; its process ends.
    NodeFailed,
}

/// The `data` of a `snapshot`: what stands, with all events up to its id.
#[derive(Serialize, ToSchema)]
pub struct ClusterSnapshot {
    /// As in `membership` events, without `change`.
    members: Vec<MemberNow>,
    /// Those of which this node holds a replica; as in `leadership` events, without `change`.
    shards: Vec<ShardNow>,
    /// As in `fault` events, without `change`; 256 broken invariants at most.
    faults: Vec<FaultNow>,
}

#[derive(Serialize, ToSchema)]
pub struct MemberNow {
    node: u64,
    name: String,
    address: String,
    http: String,
    zone: Option<String>,
    gossip: String,
    linked: bool,
    is_self: bool,
    leaving: bool,
    boot_id: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct ShardNow {
    shard: u16,
    owner: Option<u64>,
    owner_name: Option<String>,
    term: u64,
}

#[derive(Serialize, ToSchema)]
pub struct FaultNow {
    #[schema(inline)]
    kind: FaultKind,
    #[schema(nullable = false)]
    injected: Option<Fault>,
    #[schema(nullable = false)]
    violation: Option<Violation>,
    #[schema(nullable = false)]
    reason: Option<String>,
}

/// The `data` of a `reset`: events are missing behind the last one that the client has. A `snapshot`
/// follows, or with `too_slow` the end of the stream.
#[derive(Serialize, ToSchema)]
pub struct StreamReset {
    #[schema(inline)]
    reason: ResetReason,
    /// What the client named, or was sent last.
    last_event_id: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResetReason {
    /// The node was restarted, or it is another one.
    AnotherProcess,
    /// The node does not keep what came behind it any more.
    TooOld,
    /// Events came faster than the client read them.
    TooSlow,
}

/// A server-sent event: one entry of a page, a `snapshot`, or a `reset`, which has no `id`.
#[derive(Serialize, ToSchema)]
pub struct StreamedClusterEvent {
    #[schema(example = "8c3f1d5e9a7b2c44-17")]
    id: Option<String>,
    /// Its `type`: `membership`, `leadership`, `fault`, `snapshot` or `reset`.
    #[schema(example = "leadership")]
    event: String,
    /// JSON with `id`, `type`, `at` and `data`.
    data: String,
}
