//! How many at once, how fast, how often, when, and where.

use super::*;
use parking_lot::Mutex;
use quorate::{
    cluster::{StartError, TaskContext, TaskError, TaskQueue, TaskState},
    telemetry::names,
    transport::memory::Network,
};
use std::sync::{Arc, atomic::AtomicUsize};
use tokio::sync::Semaphore;

/// What happened to a handler: the attempts it was given, in their order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Attempt>>>);

#[derive(Clone)]
struct Attempt {
    context: TaskContext,
    begun: Instant,
    begun_at_ms: u64,
}

impl Log {
    /// How many there were with this one.
    fn note(&self, context: &TaskContext) -> usize {
        let mut attempts = self.0.lock();
        attempts.push(Attempt { context: context.clone(), begun: Instant::now(), begun_at_ms: now_ms() });
        attempts.len()
    }

    fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// When the attempts began, in order.
    fn begun(&self) -> Vec<Instant> {
        let mut begun: Vec<_> = self.0.lock().iter().map(|attempt| attempt.begun).collect();
        begun.sort_unstable();
        begun
    }
}

/// The handler: notes, answers with whom the mail went to.
async fn send(log: Log, context: TaskContext, mail: Mail) -> Result<String, TaskError> {
    log.note(&context);
    Ok(mail.to)
}

async fn send_mail(_: TaskContext, mail: Mail) -> Result<String, TaskError> {
    match mail.to.as_str() {
        "nobody" => Err(TaskError::Fatal("no such mailbox".into())),
        to => Ok(format!("sent to {to}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_of_typed_values_is_a_handler_and_its_result_comes_back_typed() {
    let cluster = desk(1).task_handler("send-email", send_mail).start().await.expect("starts");
    run(&cluster, "d", task("send-email", "ada")).await;
    run(&cluster, "e", task("send-email", "nobody")).await;
    assert_eq!(ends(&cluster, "d", 1, "done").await, [("ada".into(), Ok("sent to ada".into()))]);
    assert_eq!(ends(&cluster, "e", 1, "given up").await, [("nobody".into(), Err("no such mailbox".into()))]);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_cannot_be_read_is_given_up_at_once() {
    let cluster = desk(1).task_handler("send-email", send_mail).start().await.expect("starts");
    run(&cluster, "d", TimedTask::new("send-email", "bad", vec![255_u8; 3])).await;
    let (_, result) = &ends(&cluster, "d", 1, "given up").await[0];
    assert!(result.as_ref().is_err_and(|error| error.contains("the payload cannot be read")), "{result:?}");
    assert_eq!(letters(&cluster, 1, "a dead letter").await.len(), 1);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_concurrency_of_a_queue_is_reached_and_not_passed() {
    const TASKS: usize = 12;
    let (running, most, gate) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let handler = {
        let (running, most, gate) = (running.clone(), most.clone(), gate.clone());
        move |_: TaskContext, mail: Mail| {
            let (running, most, gate) = (running.clone(), most.clone(), gate.clone());
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                gate.acquire().await.expect("never closed").forget();
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(mail.to)
            }
        }
    };
    let queue = TaskQueue { concurrency: Some(3), ..TaskQueue::default() };
    let cluster = desk(1).task_handler("slow", handler).task_queue("slow", queue).start().await.expect("starts");
    // Desks of all four shards share the one queue of the node.
    for i in 0..TASKS {
        run(&cluster, &format!("d{i}"), task("slow", "t")).await;
    }
    eventually("three run", || async { (running.load(Ordering::SeqCst) == 3).then_some(()) }).await;
    let states = waiting(&cluster).await;
    let count = |state| states.iter().filter(|task| task.state == state).count();
    assert_eq!((count(TaskState::Running), count(TaskState::Queued)), (3, TASKS - 3));
    let shards: std::collections::BTreeSet<_> = states.iter().map(|task| task.id.shard).collect();
    assert!(shards.len() > 1, "{shards:?}");
    gate.add_permits(TASKS);
    for i in 0..TASKS {
        ends(&cluster, &format!("d{i}"), 1, "every task gets its turn").await;
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);
    eventually("nothing is left", || async { waiting(&cluster).await.is_empty().then_some(()) }).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_begin_no_faster_than_the_rate_of_their_queue() {
    let log = Log::default();
    let noting = log.clone();
    let queue = TaskQueue { rate_per_second: Some(20.0), ..TaskQueue::default() };
    let handler = move |context, mail| send(noting.clone(), context, mail);
    let cluster = desk(1).task_handler("paced", handler).task_queue("paced", queue).start().await.expect("starts");
    let asked = Instant::now();
    for i in 0..8 {
        run(&cluster, &format!("d{i}"), task("paced", "t")).await;
    }
    for i in 0..8 {
        ends(&cluster, &format!("d{i}"), 1, "done").await;
    }
    for (i, begun) in log.begun().into_iter().enumerate() {
        let earliest = Duration::from_millis(50) * u32::try_from(i).expect("few");
        assert!(begun - asked >= earliest, "attempt {i} began after {:?}", begun - asked);
    }
    assert_eq!(log.len(), 8);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_of_the_cluster_holds_over_all_its_nodes() {
    const NODES: usize = 3;
    const TASKS: usize = 40;
    let log = Log::default();
    let noting = log.clone();
    let queue = TaskQueue { cluster_rate_per_second: Some(40.0), ..TaskQueue::default() };
    let handler = move |context, mail| send(noting.clone(), context, mail);
    let cluster = desk(NODES).task_handler("paced", handler).task_queue("paced", queue).start().await.expect("starts");
    let asked = Instant::now();
    let ids: Vec<_> = (0..TASKS).map(|i| format!("d{i}")).collect();
    futures::future::join_all(ids.iter().map(|id| run(&cluster, id, task("paced", "t")))).await;
    for id in &ids {
        ends(&cluster, id, 1, "done").await;
    }
    // Each node begins one at once; a shard that changes hands may add one more.
    let at_once = u32::try_from(NODES + 4).expect("few");
    for (i, begun) in (1_u32..).zip(log.begun()) {
        let earliest = Duration::from_millis(25) * i.saturating_sub(at_once);
        assert!(begun - asked >= earliest, "attempt {i} began after {:?}", begun - asked);
    }
    assert_eq!(log.len(), TASKS);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_would_run_nothing_is_refused_at_the_start() {
    let queue = TaskQueue { concurrency: Some(0), ..TaskQueue::default() };
    let Err(StartError::Config(why)) = desk(1).task_queue("send-email", queue).start().await else {
        panic!("it started")
    };
    assert!(why.contains("send-email") && why.contains("concurrency"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_panics_has_failed_an_attempt_and_is_tried_again() {
    let log = Log::default();
    let noting = log.clone();
    let handler = move |context: TaskContext, mail: Mail| {
        let attempt = noting.note(&context);
        async move {
            assert!(attempt > 2, "attempt {attempt} breaks");
            Ok(mail.to)
        }
    };
    let retry = Retry { backoff_min_ms: 5, ..Retry::default() };
    let queue = TaskQueue { retry, ..TaskQueue::default() };
    let cluster = desk(1).task_handler("frail", handler).task_queue("frail", queue).start().await.expect("starts");
    run(&cluster, "d", task("frail", "ada")).await;
    assert_eq!(ends(&cluster, "d", 1, "the third attempt works").await, [("ada".into(), Ok("ada".into()))]);
    let attempts: Vec<_> = log.0.lock().iter().map(|attempt| attempt.context.attempt).collect();
    assert_eq!(attempts, [1, 2, 3]);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_fails_each_time_ends_after_its_attempts_with_its_last_error() {
    let log = Log::default();
    let noting = log.clone();
    let handler = move |context: TaskContext, mail: Mail| {
        let attempt = noting.note(&context);
        async move { if attempt > 0 { panic!("attempt {attempt} breaks") } else { Ok(mail.to) } }
    };
    let retry = Retry { attempts_max: 3, backoff_min_ms: 1, ..Retry::default() };
    let queue = TaskQueue { retry, ..TaskQueue::default() };
    let cluster = desk(1).task_handler("broken", handler).task_queue("broken", queue).start().await.expect("starts");
    run(&cluster, "d", task("broken", "ada")).await;
    let error = "the handler panicked: attempt 3 breaks";
    assert_eq!(ends(&cluster, "d", 1, "given up").await, [("ada".into(), Err(error.into()))]);
    let letters = letters(&cluster, 1, "a dead letter").await;
    assert_eq!((letters[0].error.as_str(), log.len()), (error, 3));
    assert!(matches!(letters[0].what, DeadEffect::Task { attempts: 3, .. }), "{letters:?}");
    let counted = "quorate_dead_letters_total{kind=\"task\",handler=\"broken\"} 1";
    let text = eventually("the owner counts what it gave up", || async {
        Some(quorate::telemetry::metrics().render()).filter(|text| text.contains(counted))
    })
    .await;
    for line in [
        "quorate_task_retries_total{handler=\"broken\"} 2",
        "quorate_tasks_total{handler=\"broken\",outcome=\"failed\"} 3",
        "quorate_tasks_running{handler=\"broken\"} 0",
        "quorate_task_queue_depth{handler=\"broken\"} 0",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    for name in [names::DEAD_LETTERS, names::OUTBOX_PENDING] {
        assert!(
            text.contains(&format!("# HELP {name} ")) && text.contains(&format!("{name}{{shard=")),
            "{name}: {text}"
        );
    }
    for name in [names::TASKS_RUNNING, names::TASK_QUEUE_DEPTH, names::TASK_RETRIES, names::DEAD_LETTERS_TOTAL] {
        assert!(text.contains(&format!("# HELP {name} ")), "{name}: {text}");
    }
    cluster.shutdown().await;
}

async fn never(_: TaskContext, _: Mail) -> Result<String, TaskError> {
    Err(TaskError::Retry("not today".into()))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_done_by_its_deadline_is_given_up() {
    let retry = Retry { attempts_max: 1_000_000, backoff_min_ms: 5, backoff_max_ms: 5, ..Retry::default() };
    let queue = TaskQueue { retry, deadline: Some(Duration::from_secs(1)), ..TaskQueue::default() };
    let cluster = desk(1).task_handler("never", never).task_queue("never", queue).start().await.expect("starts");
    let began = Instant::now();
    run(&cluster, "of-queue", task("never", "a")).await;
    let (_, result) = &ends(&cluster, "of-queue", 1, "the queue's deadline").await[0];
    // Less than a backoff before it, as no further attempt would have begun in time.
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    let error = result.as_ref().expect_err("given up");
    assert_eq!(error, "not done by its deadline; the last attempt: not today");
    // Its own deadline counts before its queue's; it is over before the task may begin.
    let in_an_hour = now_ms() + 3_600_000;
    run(&cluster, "own", task("never", "b").run_at_ms(in_an_hour).deadline_ms(in_an_hour)).await;
    let (_, result) = &ends(&cluster, "own", 1, "no attempt fits before the deadline").await[0];
    assert_eq!(result.as_ref().expect_err("given up"), "its deadline passed before its first attempt");
    assert_eq!(letters(&cluster, 2, "a dead letter each").await.len(), 2);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_cuts_an_attempt_short() {
    let handler = |_: TaskContext, _: Mail| std::future::pending::<Result<String, TaskError>>();
    let cluster = desk(1).task_handler("hangs", handler).start().await.expect("starts");
    run(&cluster, "d", task("hangs", "a").deadline_ms(now_ms() + 1500)).await;
    let (_, result) = &ends(&cluster, "d", 1, "long before an attempt's own limit").await[0];
    assert!(result.as_ref().is_err_and(|error| error.contains("no result within")), "{result:?}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_does_not_begin_before_its_time() {
    let log = Log::default();
    let noting = log.clone();
    let handler = move |context, mail| send(noting.clone(), context, mail);
    let cluster = desk(1).task_handler("later", handler).start().await.expect("starts");
    let (soon, in_an_hour) = (now_ms() + 250, now_ms() + 3_600_000);
    run(&cluster, "late", task("later", "late").run_at_ms(in_an_hour)).await;
    run(&cluster, "soon", task("later", "soon").run_at_ms(soon)).await;
    ends(&cluster, "soon", 1, "its time comes").await;
    let attempts = log.0.lock().clone();
    assert_eq!(attempts.len(), 1);
    assert!(attempts[0].begun_at_ms >= soon, "at {} instead of {soon}", attempts[0].begun_at_ms);
    let late = waiting(&cluster).await.into_iter().find(|task| task.tag == "late").expect("it waits");
    assert_eq!((late.state, late.next_attempt_at_ms, late.attempts), (TaskState::Scheduled, Some(in_an_hour), 0));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_waits_for_its_next_attempt_is_listed_with_its_error() {
    let retry = Retry { backoff_min_ms: 3_600_000, backoff_max_ms: 3_600_000, ..Retry::default() };
    let cluster = desk(1).task_handler("never", never).start().await.expect("starts");
    run(&cluster, "d", task("never", "a").retry(retry)).await;
    let listed = eventually("the first attempt fails", || async {
        waiting(&cluster).await.into_iter().find(|task| task.state == TaskState::Retrying)
    })
    .await;
    assert_eq!((listed.attempts, listed.attempts_max, &*listed.handler), (1, 10, "never"));
    assert_eq!((listed.last_error.as_deref(), &*listed.entity.id), (Some("not today"), "d"));
    assert!(listed.next_attempt_at_ms.is_some_and(|at| at > now_ms()), "{listed:?}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_survives_the_node_that_ran_it_and_keeps_its_key() {
    let log = Log::default();
    let noting = log.clone();
    let network = Network::new();
    let handler = move |context: TaskContext, mail: Mail| {
        let attempt = noting.note(&context);
        async move {
            if attempt == 1 {
                // On the node that is about to be lost.
                std::future::pending::<()>().await;
            }
            Ok(mail.to)
        }
    };
    crate::logs();
    let builder = Cluster::in_memory_over(network.clone(), 3).entity::<Desk>().task_handler("mail", handler);
    let cluster = builder.start().await.expect("three nodes start");
    run(&cluster, "d", task("mail", "ada")).await;
    eventually("the owner begins", || async { (log.len() == 1).then_some(()) }).await;
    let (status, _) = cluster.inspect("desk", "d", Consistency::Linearizable).await.expect("answers");
    let owner = status.owner.expect("it has an owner");
    let name = cluster.members().into_iter().find(|m| m.node == owner).expect("a member").name;
    network.isolate(&name);
    let elsewhere = (0..3).map(|i| cluster.on_node(i)).find(|node| node.name() != name).expect("two others");
    let noted = ends(&elsewhere, "d", 1, "the next owner runs it").await;
    assert_eq!(noted, [("ada".into(), Ok("ada".into()))]);
    let attempts = log.0.lock().clone();
    assert_eq!(attempts.len(), 2);
    assert_eq!(attempts[0].context.idempotency_key, attempts[1].context.idempotency_key);
    network.heal_all();
    cluster.shutdown().await;
}
