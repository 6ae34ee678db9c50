//! Task queues, deadlines and dead letters over clusters in memory.

mod dead_letters;
mod queues;

use quorate::{
    Cluster, Context, Decision, Effect, Entity,
    cluster::{Builder, Consistency, DeadEffect, DeadLetterStatus, TaskStatus},
    entity::{Retry, Task, TaskOutcome, TimedTask},
};
use serde::{Deserialize, Serialize};
use std::{
    future::Future,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant, SystemTime},
};

const PATIENCE: Duration = Duration::from_secs(20);
const ONE_ATTEMPT: Retry = Retry { attempts_max: 1, backoff_min_ms: 0, backoff_max_ms: 0, attempt_timeout_ms: 0 };

/// Asks for tasks, and notes how they end. What it does with an end, the task's tag says.
struct Desk;

/// Ends that were noted: tag, and what was read of the result.
type Ends = Vec<(String, Result<String, String>)>;

#[derive(Serialize, Deserialize)]
enum Command {
    Run(TimedTask),
    /// Tell another entity to note something.
    Pass {
        entity_type: String,
        id: String,
    },
    Note(String, Result<String, String>),
    Unwanted,
}

/// While it is on, [`Command::Note`] of `pass` panics.
static PASSING_FAILS: AtomicBool = AtomicBool::new(false);

impl Entity for Desk {
    const TYPE: &'static str = "desk";
    type State = Ends;
    type Command = Command;
    type Event = (String, Result<String, String>);
    type Reply = ();
    type Rejection = String;

    fn decide(_: &Ends, command: Command, _: &Context<'_>) -> Decision<Self> {
        match command {
            Command::Run(task) => Decision::reply(()).with(task),
            Command::Pass { entity_type, id } => {
                let Effect::Tell { command, .. } =
                    Effect::tell::<Desk>("-", &Command::Note("pass".into(), Ok(id.clone())))
                else {
                    unreachable!("made of a tell")
                };
                Decision::reply(()).with(Effect::Tell { entity_type, id, command })
            }
            Command::Note(tag, _) if tag == "pass" && PASSING_FAILS.load(Ordering::SeqCst) => panic!("asked to"),
            Command::Note(tag, result) => Decision::accept(vec![(tag, result)], ()),
            Command::Unwanted => Decision::reject("not wanted"),
        }
    }

    fn evolve(ends: &mut Ends, event: &Self::Event) {
        ends.push(event.clone());
    }

    fn task_finished(outcome: TaskOutcome) -> Option<Command> {
        match outcome.tag.as_str() {
            "silent" => None,
            "unwanted" => Some(Command::Unwanted),
            "poison" => panic!("asked to"),
            _ => Some(Command::Note(outcome.tag.clone(), outcome.read())),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Mail {
    to: String,
    urgent: bool,
}

fn mail(to: &str) -> Mail {
    Mail { to: to.into(), urgent: true }
}

fn task(handler: &str, tag: &str) -> TimedTask {
    TimedTask::new(handler, tag, mail(tag))
}

fn desk(nodes: usize) -> Builder {
    crate::logs();
    Cluster::in_memory(nodes).entity::<Desk>()
}

async fn run(cluster: &Cluster, id: &str, task: TimedTask) {
    cluster.entity::<Desk>(id).ask(Command::Run(task)).await.expect("a healthy cluster takes it");
}

/// Asks again and again until there is something; the reason is for the failure message.
async fn eventually<T, F: Future<Output = Option<T>>>(why: &str, mut look: impl FnMut() -> F) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{why}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The ends that a desk has noted, once there are so many.
async fn ends(cluster: &Cluster, id: &str, count: usize, why: &str) -> Ends {
    eventually(why, || async {
        let read = cluster.entity::<Desk>(id).state(Consistency::Linearizable).await.ok()?;
        (read.state.len() >= count).then_some(read.state)
    })
    .await
}

/// All dead letters, once there are so many.
async fn letters(cluster: &Cluster, count: usize, why: &str) -> Vec<DeadLetterStatus> {
    eventually(why, || async {
        let page = cluster.dead_letters(None, 100).await.ok()?;
        (page.data.len() == count).then_some(page.data)
    })
    .await
}

async fn waiting(cluster: &Cluster) -> Vec<TaskStatus> {
    cluster.tasks(None, 100).await.expect("a healthy cluster answers").data
}

fn tag(letter: &DeadLetterStatus) -> &str {
    match &letter.what {
        DeadEffect::Task { tag, .. } => tag,
        DeadEffect::Tell { .. } => "a tell",
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("before the end of time")
}

/// A task of another policy than its queue's.
fn once(handler: &str, tag: &str) -> TimedTask {
    task(handler, tag).retry(ONE_ATTEMPT)
}

#[test]
fn effects_of_tasks_are_made_of_values() {
    let effect = Effect::task("send", "welcome", mail("ada"));
    assert_eq!(effect, Effect::Task(Task::new("send", "welcome", mail("ada"))));
}
