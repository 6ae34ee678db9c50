//! Tasks and dead letters over HTTP.

use super::{Shop, Value, json, order, paid_with};
use quorate::{
    Cluster, Context, Decision, Effect, Entity,
    cluster::{Builder, TaskContext, TaskError},
    entity::{Retry, TimedTask},
    ingress,
};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Asks for a task that fails at once, or for one that is due in an hour.
struct Asker;

impl Entity for Asker {
    const TYPE: &'static str = "asker";
    type State = ();
    type Command = bool;
    type Event = ();
    type Reply = ();
    type Rejection = String;

    fn decide((): &(), later: bool, context: &Context<'_>) -> Decision<Self> {
        let payload = vec![0x51_u8, 0x75];
        let once = Retry { attempts_max: 1, ..Retry::default() };
        match later {
            true => {
                Decision::reply(()).with(TimedTask::new("fails", "late", payload).run_at_ms(context.now_ms + 3_600_000))
            }
            false => Decision::reply(()).with(Effect::task_with_retry("fails", "now", payload, once)),
        }
    }

    fn evolve((): &mut (), (): &()) {}
}

/// Three nodes with the shop, and the number of attempts that have failed.
pub(super) async fn start() -> (Shop, Arc<AtomicUsize>) {
    start_on(Cluster::in_memory(3)).await
}

pub(super) async fn start_on(builder: Builder) -> (Shop, Arc<AtomicUsize>) {
    crate::logs();
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = attempts.clone();
    let fails = move |_: TaskContext, _: Vec<u8>| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Err::<(), _>(TaskError::Retry("the outside is shut".into())) }
    };
    let builder = ingress::shop::register(builder).entity::<Asker>().task_handler("fails", fails);
    let cluster = builder.start().await.expect("a cluster in memory starts");
    let routers = (0..3).map(|node| ingress::router(cluster.on_node(node), &ingress::Options::default())).collect();
    (Shop { cluster, routers }, attempts)
}

pub(super) async fn ask(shop: &Shop, id: &str, later: bool) {
    shop.cluster.entity::<Asker>(id).ask(later).await.expect("a healthy cluster takes it");
}

const LETTERS: &str = "/admin/v1/dead-letters";

async fn first_letter(shop: &Shop) -> Value {
    let listed = |body: &Value| body["data"].as_array().is_some_and(|data| !data.is_empty());
    shop.wait_until(LETTERS, "it is given up", listed).await["data"][0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_listed_and_shown_by_every_node() {
    let (shop, _) = start().await;
    ask(&shop, "a", false).await;
    let listed = first_letter(&shop).await;
    let id = listed["id"].as_str().expect("an id").to_owned();
    assert!(id.starts_with("dl_"), "{id}");
    assert_eq!((&listed["kind"], &listed["handler"], &listed["tag"]), (&json!("task"), &json!("fails"), &json!("now")));
    assert_eq!(listed["entity"], json!({"entity_type": "asker", "id": "a"}));
    assert_eq!((&listed["attempts"], &listed["error"]), (&json!(1), &json!("the outside is shut")));
    assert!(listed.get("payload_hex").is_none(), "a list is short: {listed}");
    for node in 0..3 {
        let shown = shop.send_to(node, "GET", &format!("{LETTERS}/{id}")).await_answer().await.is(200);
        assert_eq!((&shown.body["id"], &shown.body["payload_hex"]), (&json!(id), &json!("5175")));
    }
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_and_a_discard_happen_once_per_key_on_any_node() {
    let (shop, attempts) = start().await;
    ask(&shop, "a", false).await;
    let first = first_letter(&shop).await["id"].as_str().expect("an id").to_owned();
    let retry = format!("{LETTERS}/{first}/retry");
    let done = shop.send("POST", &retry).key("k1").await_answer().await.is(200);
    assert_eq!(done.body, json!({"id": first, "resolution": "retried"}));
    assert_eq!(done.header("idempotent-replayed"), "");
    for node in 0..3 {
        let again = shop.send_to(node, "POST", &retry).key("k1").json(&json!({})).await_answer().await.is(200);
        assert_eq!((again.header("idempotent-replayed"), &again.body), ("true", &done.body));
    }
    let discard_first = format!("{LETTERS}/{first}/discard");
    let reused = shop.send("POST", &discard_first).key("k1").problem().await;
    assert_eq!((reused.0, reused.1.as_str()), (422, "idempotency-key-reused"));
    assert_eq!(shop.send("POST", &discard_first).key("k2").problem().await.0, 404);

    let other = |body: &Value| body["data"][0]["id"].as_str().is_some_and(|id| id != first);
    let listed = shop.wait_until(LETTERS, "it is given up again", other).await;
    let second = listed["data"][0]["id"].as_str().expect("an id").to_owned();
    let discard = format!("{LETTERS}/{second}/discard");
    let gone = shop.send_to(1, "POST", &discard).await_answer().await.is(200);
    assert_eq!(gone.body, json!({"id": second, "resolution": "discarded"}));
    assert_eq!(shop.get(&format!("{LETTERS}/{second}")).problem().await.1, "not-found");
    assert_eq!(shop.get(LETTERS).await_answer().await.is(200).body, json!({"data": [], "has_more": false}));
    assert_eq!(attempts.load(Ordering::SeqCst), 2);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_for_dead_letters_that_cannot_be_meant_are_refused_by_name() {
    let (shop, _) = start().await;
    for id in ["x", "dl_3", "dl_9999_1", "dl_0_1", "task_0_1"] {
        for (method, path) in [("GET", ""), ("POST", "/retry"), ("POST", "/discard")] {
            let (status, code, _) = shop.send(method, &format!("{LETTERS}/{id}{path}")).problem().await;
            assert_eq!((status, code.as_str()), (404, "not-found"), "{method} {id}{path}");
        }
    }
    for (query, field) in
        [("limit=0", "limit"), ("limit=101", "limit"), ("starting_after=x", "starting_after"), ("x=1", "x")]
    {
        for list in [LETTERS, "/admin/v1/tasks"] {
            let problem = shop.get(&format!("{list}?{query}")).problem().await;
            assert_eq!((problem.0, problem.1.as_str(), problem.2.as_str()), (400, "invalid-parameter", field));
        }
    }
    let body = shop.send("POST", &format!("{LETTERS}/dl_0_1/retry")).json(&json!({"why": 1})).problem().await;
    assert_eq!((body.0, body.2.as_str()), (422, "why"));
    let version = shop.send("POST", &format!("{LETTERS}/dl_0_1/retry")).header("if-match", "\"1\"").problem().await;
    assert_eq!(version.1, "version-mismatch");
    assert_eq!(shop.send("DELETE", &format!("{LETTERS}/dl_0_1")).problem().await.1, "method-not-allowed");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_wait_are_listed_page_by_page() {
    let (shop, _) = start().await;
    for i in 0..5 {
        ask(&shop, &format!("a{i}"), true).await;
    }
    let (mut seen, mut path) = (Vec::new(), "/admin/v1/tasks?limit=2".to_owned());
    loop {
        let page = shop.send_to(seen.len() % 3, "GET", &path).await_answer().await.is(200);
        for task in page.body["data"].as_array().expect("a list") {
            assert_eq!(
                (&task["state"], &task["handler"], &task["attempts"]),
                (&json!("scheduled"), &json!("fails"), &json!(0))
            );
            assert!(task["next_attempt_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{task}");
            seen.push(task["id"].as_str().expect("an id").to_owned());
        }
        if page.body["has_more"] == false {
            break;
        }
        path = format!("/admin/v1/tasks?limit=2&starting_after={}", seen.last().expect("a full page"));
    }
    assert_eq!(seen.len(), 5);
    assert!(seen.iter().all(|id| id.starts_with("task_")));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shop_leaves_no_dead_letters_when_its_gateway_loses_answers() {
    let (shop, _) = start().await;
    shop.stock("mug", 5).await;
    for method in ["pm_card_timeout", "pm_card_flaky", "pm_card_declined"] {
        let order = paid_with(method, order("mug", 1));
        let placed = shop.send("POST", "/v1/orders").key(method).json(&order).await_answer().await.is(201);
        let path = format!("/v1/orders/{}", placed.text("id"));
        let ended = |body: &Value| ["confirmed", "cancelled", "rejected"].iter().any(|end| body["status"] == *end);
        shop.wait_until(&path, "the order ends", ended).await;
    }
    let letters = shop.get(LETTERS).await_answer().await.is(200);
    assert_eq!(letters.body["data"], json!([]));
    shop.stop().await;
}

/// `quorate …` against this node: exit code, stdout, stderr.
async fn quorate(url: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_quorate"));
    let output = command.args(arguments).args(["--url", url]).kill_on_drop(true).output().await.expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_lists_shows_retries_and_discards() {
    let (shop, attempts) = start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let (router, options) = (shop.routers[0].clone(), ingress::Options::default());
    let serving = tokio::spawn(async move { ingress::serve(listener, router, &options, std::future::pending()).await });

    ask(&shop, "late", true).await;
    let (code, shown, error) = quorate(&url, &["tasks"]).await;
    assert_eq!(code, Some(0), "{error}");
    for word in ["task_", "fails", "asker/late", "scheduled", "0/10"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    let (_, json, _) = quorate(&url, &["tasks", "--json", "--limit", "1"]).await;
    let listed: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(listed["data"][0]["tag"], "late");

    ask(&shop, "a", false).await;
    let first = first_letter(&shop).await["id"].as_str().expect("an id").to_owned();
    let (_, shown, _) = quorate(&url, &["dead-letters", "list"]).await;
    assert!(shown.contains(&first) && shown.contains("the outside is shut"), "{shown}");
    let (_, shown, _) = quorate(&url, &["dead-letters", "show", &first]).await;
    assert_eq!(serde_json::from_str::<Value>(&shown).expect("JSON")["payload_hex"], "5175");
    let (code, shown, error) = quorate(&url, &["dead-letters", "retry", &first]).await;
    assert_eq!((code, shown), (Some(0), format!("{first} retried\n")), "{error}");
    let (code, _, error) = quorate(&url, &["dead-letters", "retry", &first]).await;
    assert_eq!(code, Some(1), "it is gone");
    assert!(error.starts_with("error: not-found: ") && error.lines().count() == 1, "{error}");

    let other = |body: &Value| body["data"][0]["id"].as_str().is_some_and(|id| id != first);
    let second = shop.wait_until(LETTERS, "it is given up again", other).await["data"][0]["id"].clone();
    let (_, json, _) = quorate(&url, &["dead-letters", "discard", "--json", second.as_str().expect("an id")]).await;
    let discarded: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(discarded, json!({"id": second, "resolution": "discarded"}));
    assert_eq!(attempts.load(Ordering::SeqCst), 2);
    serving.abort();
    shop.stop().await;
}
