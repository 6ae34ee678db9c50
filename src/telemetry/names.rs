//! The names of all metrics, their labels, and what they mean. Dashboards depend on them.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Counter {route, status}: `route` is the template, never the path as requested.
pub const HTTP_REQUESTS: &str = "quorate_http_requests_total";
/// Histogram {route}.
pub const HTTP_REQUEST_SECONDS: &str = "quorate_http_request_seconds";
/// Counter {reason}: `no_token`, `unknown_token`, `role`.
pub const HTTP_REFUSED: &str = "quorate_http_refused_total";
/// Counter {type, outcome}.
pub const COMMANDS: &str = "quorate_commands_total";
/// Histogram {type}.
pub const COMMAND_SECONDS: &str = "quorate_command_seconds";
/// Gauge.
pub const ENTITIES_ACTIVE: &str = "quorate_entities_active";
/// Counter.
pub const PROPOSALS: &str = "quorate_proposals_total";
/// Histogram.
pub const PROPOSAL_BATCH_SIZE: &str = "quorate_proposal_batch_size";
/// Histogram: of cuts that this node was asked for.
pub const BACKUP_PAUSE_SECONDS: &str = "quorate_backup_pause_seconds";
/// Histogram.
pub const JOURNAL_GROUP_SIZE: &str = "quorate_journal_group_size";
/// Histogram.
pub const JOURNAL_SYNC_SECONDS: &str = "quorate_journal_sync_seconds";
/// Gauge {shard}.
pub const RAFT_TERM: &str = "quorate_raft_term";
/// Gauge {shard}: 1 on the owner, 0 elsewhere.
pub const RAFT_LEADER: &str = "quorate_raft_leader";
/// Gauge {shard}: on the owner, 0 elsewhere.
pub const OUTBOX_PENDING: &str = "quorate_outbox_pending";
/// Counter {handler, outcome}.
pub const TASKS: &str = "quorate_tasks_total";
/// Gauge {handler}: on this node.
pub const TASK_QUEUE_DEPTH: &str = "quorate_task_queue_depth";
/// Gauge {handler}: on this node.
pub const TASKS_RUNNING: &str = "quorate_tasks_running";
/// Counter {handler}.
pub const TASK_RETRIES: &str = "quorate_task_retries_total";
/// Counter {reason}: `unknown_type`, `entity_failed`, `invalid`.
pub const TELLS_REFUSED: &str = "quorate_tells_refused_total";
/// Counter {kind, handler}: `task` with its handler, or `tell`.
pub const DEAD_LETTERS_TOTAL: &str = "quorate_dead_letters_total";
/// Gauge {shard}: on the owner, 0 elsewhere.
pub const DEAD_LETTERS: &str = "quorate_dead_letters";
/// Counter {outcome}: `delivered`, `failed`.
pub const WEBHOOK_REQUESTS: &str = "quorate_webhook_requests_total";
/// Histogram.
pub const WEBHOOK_SECONDS: &str = "quorate_webhook_seconds";
/// Gauge {state}: `alive`, `suspect`, `down`.
pub const GOSSIP_MEMBERS: &str = "quorate_gossip_members";
/// Counter {reason}.
pub const GOSSIP_REJECTED: &str = "quorate_gossip_rejected_total";
/// Gauge {peer}: 1 up, 0 down.
pub const LINK_UP: &str = "quorate_link_up";
/// Counter {direction}.
pub const LINK_FRAMES: &str = "quorate_link_frames_total";
/// Counter {invariant}: `conservation`, `state_hash`.
pub const INVARIANT_VIOLATIONS: &str = "quorate_invariant_violations_total";
/// Gauge: on this node's replicas.
pub const ENTITIES_FROZEN: &str = "quorate_entities_frozen";
/// Gauge {version}: always 1.
pub const BUILD_INFO: &str = "quorate_build_info";

/// Added when the text is rendered, under the names that every Prometheus client uses.
pub const PROCESS_RSS: &str = "process_resident_memory_bytes";
pub const PROCESS_CPU: &str = "process_cpu_seconds_total";

/// Tells the recorder in place what each metric means.
pub(super) fn describe() {
    describe_counter!(HTTP_REQUESTS, "HTTP requests answered, by route template and status");
    describe_histogram!(HTTP_REQUEST_SECONDS, Unit::Seconds, "Time from request to response, by route template");
    describe_counter!(HTTP_REFUSED, "HTTP requests that were not let in, by reason");
    describe_counter!(COMMANDS, "Commands handled for entities, by type and outcome");
    describe_histogram!(COMMAND_SECONDS, Unit::Seconds, "Time from command to reply, replication included");
    describe_gauge!(ENTITIES_ACTIVE, "Entity actors alive on this node");
    describe_counter!(PROPOSALS, "Raft entries proposed by this node");
    describe_histogram!(PROPOSAL_BATCH_SIZE, "Commands packed into one Raft entry");
    describe_histogram!(BACKUP_PAUSE_SECONDS, Unit::Seconds, "Time writes waited for the moment of a backup");
    describe_histogram!(JOURNAL_GROUP_SIZE, "Writes made durable by one sync of the journal");
    describe_histogram!(JOURNAL_SYNC_SECONDS, Unit::Seconds, "Time one sync of the journal took");
    describe_gauge!(RAFT_TERM, "Current Raft term, by shard");
    describe_gauge!(RAFT_LEADER, "1 where this node leads the shard");
    describe_gauge!(OUTBOX_PENDING, "Effects waiting for delivery, by shard");
    describe_counter!(TASKS, "Task attempts, by handler and outcome");
    describe_gauge!(TASK_QUEUE_DEPTH, "Tasks that wait for their time, their turn or their next attempt, by handler");
    describe_gauge!(TASKS_RUNNING, "Task attempts that run, by handler");
    describe_counter!(TASK_RETRIES, "Failed task attempts that are followed by another, by handler");
    describe_counter!(TELLS_REFUSED, "Tells that their receivers could not take, by reason; each is tried again");
    describe_counter!(DEAD_LETTERS_TOTAL, "Effects given up, by kind and handler");
    describe_gauge!(DEAD_LETTERS, "Dead letters kept, by shard");
    describe_counter!(WEBHOOK_REQUESTS, "Requests to webhook endpoints, by outcome");
    describe_histogram!(WEBHOOK_SECONDS, Unit::Seconds, "Time one request to a webhook endpoint took");
    describe_gauge!(GOSSIP_MEMBERS, "Other members as gossip sees them, by state");
    describe_counter!(GOSSIP_REJECTED, "Gossip packets thrown away unanswered, by reason");
    describe_gauge!(LINK_UP, "1 while the link with the peer is up");
    describe_counter!(LINK_FRAMES, "Frames carried by node links");
    describe_counter!(INVARIANT_VIOLATIONS, "Broken invariants that this node has found, by invariant");
    describe_gauge!(ENTITIES_FROZEN, "Entities that take no commands because they break their own laws");
    describe_gauge!(BUILD_INFO, "1, labelled with the version of this build");
}
