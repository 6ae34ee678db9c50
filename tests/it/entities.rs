//! The programming model on three in-process nodes.

use quorate::{
    Cluster, Context, Decision, Effect, Entity,
    cluster::{AskError, AskOptions, Consistency, Idempotency, Unavailable},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Counts; can be told to count elsewhere, later, or to fail.
pub struct Counter;

#[derive(Default, Clone, Serialize, Deserialize)]
pub struct Count {
    value: i64,
}

impl Count {
    pub fn value(&self) -> i64 {
        self.value
    }
}

#[derive(Serialize, Deserialize)]
pub enum Command {
    Add(i64),
    AddTo { id: String, amount: i64 },
    AddLater { amount: i64, after_ms: u64 },
    AddByTask(i64),
    TaskEnded(Result<i64, String>),
    Panic,
    Refuse,
    Read,
}

#[derive(Clone, Serialize, Deserialize)]
pub enum Event {
    Added(i64),
    Noted,
}

impl Entity for Counter {
    const TYPE: &'static str = "counter";
    type State = Count;
    type Command = Command;
    type Event = Event;
    type Reply = i64;
    type Rejection = String;

    fn decide(state: &Count, command: Command, context: &Context<'_>) -> Decision<Self> {
        match command {
            Command::Add(n) | Command::TaskEnded(Ok(n)) => Decision::accept(vec![Event::Added(n)], state.value + n),
            Command::TaskEnded(Err(_)) => Decision::accept(vec![Event::Added(-1000)], 0),
            Command::AddTo { id, amount } => {
                Decision::accept(vec![Event::Noted], state.value)
                    .with(Effect::tell::<Counter>(id, &Command::Add(amount)))
            }
            Command::AddLater { amount, after_ms } => Decision::accept(vec![Event::Noted], state.value)
                .with(Effect::schedule::<Counter>("later", context.now_ms + after_ms, &Command::Add(amount))),
            Command::AddByTask(n) => Decision::accept(vec![Event::Noted], state.value).with(Effect::task(
                "double",
                "tag",
                n.to_le_bytes().to_vec(),
            )),
            Command::Panic => panic!("asked to"),
            Command::Refuse => Decision::reject("no"),
            Command::Read => Decision::reply(state.value),
        }
    }

    fn evolve(state: &mut Count, event: &Event) {
        if let Event::Added(n) = event {
            state.value += n;
        }
    }

    fn task_finished(outcome: quorate::entity::TaskOutcome) -> Option<Command> {
        let read = |bytes: Vec<u8>| i64::from_le_bytes(bytes.try_into().unwrap_or_default());
        Some(Command::TaskEnded(outcome.result.map(read)))
    }
}

async fn cluster(nodes: usize) -> Cluster {
    crate::logs();
    Cluster::in_memory(nodes)
        .entity::<Counter>()
        .task_handler("double", |_, payload: Vec<u8>| async move {
            let n = i64::from_le_bytes(payload.try_into().unwrap_or_default());
            Ok((2 * n).to_le_bytes().to_vec())
        })
        .start()
        .await
        .expect("three nodes in memory start")
}

/// Waits until the counter has a value; the reason is for the failure message.
pub async fn wait_value(cluster: &Cluster, id: &str, value: i64, why: &str) {
    let counter = cluster.entity::<Counter>(id);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    let mut version = 0;
    loop {
        let now = counter.changed(version, Duration::from_secs(5)).await.expect(why);
        if now.state.value == value {
            return;
        }
        version = now.version;
        assert!(tokio::time::Instant::now() < deadline, "{why}: {} instead of {value}", now.state.value);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_answers_for_any_entity_and_all_see_the_same() {
    let cluster = cluster(3).await;
    for i in 0..30 {
        let id = format!("c{}", i % 10);
        let reply = cluster.on_node(i).entity::<Counter>(&*id).ask(Command::Add(1)).await.unwrap();
        assert_eq!(reply, i as i64 / 10 + 1);
    }
    for i in 0..10 {
        let read = cluster.on_node(i + 1).entity::<Counter>(format!("c{i}"));
        assert_eq!(read.state(Consistency::Linearizable).await.unwrap().state.value, 3);
        assert_eq!(read.ask(Command::Read).await.unwrap(), 3);
        let history = read.history(0, 100, Consistency::Linearizable).await.unwrap();
        assert_eq!(history.iter().map(|e| e.sequence).collect::<Vec<_>>(), [1, 2, 3]);
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_entity_takes_concurrent_commands_without_losing_one() {
    let cluster = cluster(3).await;
    let asks = (0..500).map(|i| {
        let hot = cluster.on_node(i).entity::<Counter>("hot");
        async move { hot.ask(Command::Add(1)).await.unwrap() }
    });
    let mut replies = futures::future::join_all(asks).await;
    replies.sort_unstable();
    assert_eq!(replies, (1..=500).collect::<Vec<i64>>(), "each reply is of its own moment");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn effects_reach_other_entities_timers_fire_and_tasks_report() {
    let cluster = cluster(3).await;
    let from = cluster.entity::<Counter>("from");
    for i in 0..20 {
        from.ask(Command::AddTo { id: format!("to{i}"), amount: 7 }).await.unwrap();
    }
    for i in 0..20 {
        wait_value(&cluster, &format!("to{i}"), 7, "a tell arrives once").await;
    }
    cluster.entity::<Counter>("timed").ask(Command::AddLater { amount: 5, after_ms: 50 }).await.unwrap();
    wait_value(&cluster, "timed", 5, "a timer fires").await;
    cluster.entity::<Counter>("tasked").ask(Command::AddByTask(21)).await.unwrap();
    wait_value(&cluster, "tasked", 42, "a task reports").await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_gives_the_first_answer_again_and_another_request_is_refused() {
    let cluster = cluster(3).await;
    let with = |fingerprint| AskOptions {
        idempotency: Some(Idempotency { key: "k1".into(), fingerprint: [fingerprint; 16] }),
        ..AskOptions::default()
    };
    let asks = (0..20).map(|i| {
        let counter = cluster.on_node(i).entity::<Counter>("once");
        async move { counter.ask_with(Command::Add(5), with(1)).await.unwrap() }
    });
    let answers = futures::future::join_all(asks).await;
    assert!(answers.iter().all(|a| a.reply == 5), "concurrent duplicates have one effect and one answer");
    assert_eq!(answers.iter().filter(|a| !a.replayed).count(), 1);
    let once = cluster.entity::<Counter>("once");
    once.ask(Command::Add(1)).await.unwrap();
    let again = once.ask_with(Command::Add(5), with(1)).await.unwrap();
    assert_eq!((again.replayed, again.reply, again.version), (true, 5, 1), "as it was, and not as it is now");
    let reused = once.ask_with(Command::Add(6), with(2)).await;
    assert_eq!(reused, Err(AskError::IdempotencyKeyReused));
    let no = |i: usize| {
        let counter = cluster.on_node(i).entity::<Counter>("once");
        let idempotency = Some(Idempotency { key: "no".into(), fingerprint: [1; 16] });
        async move { counter.ask_with(Command::Refuse, AskOptions { idempotency, ..AskOptions::default() }).await }
    };
    assert_eq!(no(0).await, Err(AskError::Rejected("no".into())));
    for i in 0..3 {
        let again = no(i).await;
        assert_eq!(again, Err(AskError::RejectedBefore("no".into())));
        assert_eq!(again.unwrap_err().rejection().map(String::as_str), Some("no"));
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_restarts_the_entity_from_its_applied_state() {
    let cluster = cluster(1).await;
    let counter = cluster.entity::<Counter>("frail");
    counter.ask(Command::Add(3)).await.unwrap();
    let failed = counter.ask(Command::Panic).await;
    assert!(matches!(failed, Err(AskError::Unavailable(Unavailable::EntityFailed { .. }))), "{failed:?}");
    // It rests for a moment before it is restarted.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    let value = loop {
        match counter.ask(Command::Add(1)).await {
            Ok(value) => break value,
            Err(AskError::Unavailable(Unavailable::EntityFailed { .. })) => tokio::task::yield_now().await,
            Err(other) => panic!("{other:?}"),
        }
        assert!(tokio::time::Instant::now() < deadline, "the entity is not restarted");
    };
    assert_eq!(value, 4);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rejections_and_version_conditions_change_nothing() {
    let cluster = cluster(1).await;
    let counter = cluster.entity::<Counter>("c");
    assert_eq!(counter.ask(Command::Refuse).await, Err(AskError::Rejected("no".into())));
    counter.ask(Command::Add(1)).await.unwrap();
    let stale = AskOptions { if_version: Some(0), ..AskOptions::default() };
    let refused = counter.ask_with(Command::Add(1), stale).await;
    assert_eq!(refused, Err(AskError::VersionMismatch { actual: 1 }));
    let fresh = AskOptions { if_version: Some(1), ..AskOptions::default() };
    assert_eq!(counter.ask_with(Command::Add(1), fresh).await.unwrap().version, 2);
    cluster.shutdown().await;
}
