//! What is given up: always visible, and retried or discarded once.

use super::*;
use parking_lot::Mutex;
use quorate::cluster::{EffectId, Idempotency, ResolveError, Resolved, TaskContext, TaskError};
use std::{collections::BTreeSet, sync::Arc};

/// Fails until it is mended; notes the keys it is given.
#[derive(Clone, Default)]
struct Outside {
    works: Arc<AtomicBool>,
    keys: Arc<Mutex<Vec<String>>>,
}

impl Outside {
    fn mend(&self) {
        self.works.store(true, Ordering::SeqCst);
    }

    async fn take(self, context: TaskContext, mail: Mail) -> Result<String, TaskError> {
        self.keys.lock().push(context.idempotency_key);
        match self.works.load(Ordering::SeqCst) {
            true => Ok(mail.to),
            false => Err(TaskError::Retry("out of order".into())),
        }
    }

    fn register(&self, builder: Builder) -> Builder {
        let outside = self.clone();
        builder.task_handler("send-email", move |context, mail: Mail| outside.clone().take(context, mail))
    }
}

/// What is refused is given up soon, and not after a quarter of an hour.
fn impatient(builder: Builder) -> Builder {
    builder.configure(|config| {
        config.shard.refusals_max = 3;
        config.shard.refusals_for = Duration::ZERO;
    })
}

fn key(key: &str, fingerprint: u8) -> Option<Idempotency> {
    Some(Idempotency { key: key.into(), fingerprint: [fingerprint; 16] })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_task_that_is_given_up_leaves_a_letter_whatever_its_entity_makes_of_it() {
    let outside = Outside::default();
    let cluster = impatient(outside.register(desk(1))).start().await.expect("starts");
    for tag in ["told", "silent", "unwanted", "poison"] {
        run(&cluster, tag, once("send-email", tag)).await;
    }
    let letters = letters(&cluster, 4, "a letter each").await;
    let tags: BTreeSet<_> = letters.iter().map(tag).collect();
    assert_eq!(tags, ["poison", "silent", "told", "unwanted"].into());
    for letter in &letters {
        assert!(letter.error.starts_with("out of order"), "{letter:?}");
        assert_eq!(tag(letter) == "poison", letter.error.contains("`task_finished` panicked: asked to"), "{letter:?}");
        assert!(letter.at_ms.is_some_and(|at| at <= now_ms()));
        assert_eq!((&*letter.entity.entity_type, &*letter.entity.id), ("desk", tag(letter)));
    }
    assert!(waiting(&cluster).await.is_empty(), "and nothing in the outbox");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_that_nobody_wants_to_hear_of_leaves_none_and_one_that_cannot_be_told_does() {
    let outside = Outside::default();
    outside.mend();
    let cluster = impatient(outside.register(desk(1))).start().await.expect("starts");
    for tag in ["silent", "unwanted", "poison"] {
        run(&cluster, tag, once("send-email", tag)).await;
    }
    let letters = letters(&cluster, 1, "of the one that cannot be told").await;
    assert!(letters[0].error.starts_with("done, but its entity cannot take the result"), "{letters:?}");
    eventually("the others are done", || async { waiting(&cluster).await.is_empty().then_some(()) }).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_letter_takes_effect_once_under_the_same_key() {
    let outside = Outside::default();
    let cluster = outside.register(desk(3)).start().await.expect("starts");
    run(&cluster, "d", once("send-email", "ada")).await;
    let letter = letters(&cluster, 1, "given up").await.remove(0);
    assert_eq!(ends(&cluster, "d", 1, "its entity hears of it").await[0].1, Err("out of order".into()));
    outside.mend();
    // Through every node, at the same time, under one key.
    let retries = (0..6).map(|i| {
        let node = cluster.on_node(i);
        async move { node.retry_dead_letter(letter.id, key("again", 1)).await.expect("retried") }
    });
    let resolved = futures::future::join_all(retries).await;
    assert_eq!(resolved.iter().filter(|r| !r.replayed).count(), 1, "{resolved:?}");
    let noted = ends(&cluster, "d", 2, "the retry works").await;
    assert_eq!(noted[1], ("ada".into(), Ok("ada".into())));
    eventually("nothing is left", || async { waiting(&cluster).await.is_empty().then_some(()) }).await;
    assert_eq!(ends(&cluster, "d", 2, "no more").await.len(), 2, "it takes effect once");
    let keys = outside.keys.lock().clone();
    assert_eq!((keys.len(), keys.iter().collect::<BTreeSet<_>>().len()), (2, 1), "{keys:?}");
    let reused = cluster.discard_dead_letter(letter.id, key("again", 2)).await;
    assert_eq!(reused, Err(ResolveError::IdempotencyKeyReused));
    let gone = cluster.retry_dead_letter(letter.id, None).await;
    assert_eq!(gone, Err(ResolveError::NotFound(letter.id)));
    assert_eq!(letters(&cluster, 0, "it is not listed").await, []);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_fails_again_is_a_new_letter() {
    let outside = Outside::default();
    let cluster = outside.register(desk(1)).start().await.expect("starts");
    run(&cluster, "d", once("send-email", "silent")).await;
    let first = letters(&cluster, 1, "given up").await.remove(0);
    assert_eq!(cluster.retry_dead_letter(first.id, None).await, Ok(Resolved { replayed: false }));
    let second = eventually("given up again", || async {
        let page = cluster.dead_letters(None, 10).await.ok()?;
        page.data.into_iter().find(|letter| letter.id != first.id)
    })
    .await;
    assert!(second.id > first.id);
    assert_eq!(outside.keys.lock().iter().collect::<BTreeSet<_>>().len(), 1, "the key stays");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discarded_letter_is_gone_and_its_task_never_runs() {
    let outside = Outside::default();
    let cluster = outside.register(desk(3)).start().await.expect("starts");
    run(&cluster, "d", once("send-email", "silent")).await;
    let letter = letters(&cluster, 1, "given up").await.remove(0);
    let (shown, payload) = cluster.dead_letter(letter.id).await.expect("answers").expect("there");
    assert_eq!(shown, letter);
    let expected = quorate::entity::encode_payload(mail("silent")).expect("encodes");
    assert_eq!(payload, expected);
    assert_eq!(cluster.discard_dead_letter(letter.id, key("k", 1)).await, Ok(Resolved { replayed: false }));
    assert_eq!(cluster.discard_dead_letter(letter.id, key("k", 1)).await, Ok(Resolved { replayed: true }));
    assert_eq!(cluster.dead_letter(letter.id).await, Ok(None));
    assert_eq!(cluster.discard_dead_letter(letter.id, None).await, Err(ResolveError::NotFound(letter.id)));
    assert_eq!(outside.keys.lock().len(), 1);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_of_no_shard_is_not_found() {
    let cluster = desk(1).start().await.expect("starts");
    let id: EffectId = "4000_1".parse().expect("well-formed");
    assert_eq!(cluster.dead_letter(id).await, Ok(None));
    assert_eq!(cluster.retry_dead_letter(id, None).await, Err(ResolveError::NotFound(id)));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tell_that_its_receiver_cannot_take_becomes_a_letter_and_can_be_retried() {
    let cluster = impatient(desk(3)).start().await.expect("starts");
    let pass = |entity_type: &str, id: &str| Command::Pass { entity_type: entity_type.into(), id: id.into() };
    cluster.entity::<Desk>("from").ask(pass("unheard_of", "x")).await.expect("taken");
    PASSING_FAILS.store(true, Ordering::SeqCst);
    cluster.entity::<Desk>("from").ask(pass("desk", "frail")).await.expect("taken");
    let letters = letters(&cluster, 2, "both are given up").await;
    let receiver = |letter: &DeadLetterStatus| match &letter.what {
        DeadEffect::Tell { to, .. } => to.entity_type.to_string(),
        DeadEffect::Task { .. } => panic!("not a tell"),
    };
    let of = |name: &str| letters.iter().find(|letter| receiver(letter) == name).expect("given up").clone();
    assert!(of("unheard_of").error.contains("no entity type `unheard_of` is registered"), "{letters:?}");
    assert!(of("desk").error.contains("failed while deciding"), "{letters:?}");
    PASSING_FAILS.store(false, Ordering::SeqCst);
    cluster.retry_dead_letter(of("desk").id, None).await.expect("retried");
    assert_eq!(ends(&cluster, "frail", 1, "the mended receiver takes it").await, [("pass".into(), Ok("frail".into()))]);
    cluster.retry_dead_letter(of("unheard_of").id, None).await.expect("retried");
    let again = eventually("given up again", || async {
        let page = cluster.dead_letters(None, 10).await.ok()?;
        page.data.into_iter().find(|letter| letter.id != of("unheard_of").id)
    })
    .await;
    assert_eq!(receiver(&again), "unheard_of");
    assert_eq!(ends(&cluster, "frail", 1, "once").await.len(), 1);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_hold_every_letter_of_all_shards_once_and_in_order() {
    const LETTERS: usize = 25;
    let outside = Outside::default();
    let cluster = outside.register(desk(3)).start().await.expect("starts");
    for i in 0..LETTERS {
        run(&cluster, &format!("d{i}"), once("send-email", "silent")).await;
    }
    letters(&cluster, LETTERS, "all are given up").await;
    for limit in [1, 7, 25] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = cluster.dead_letters(after, limit).await.expect("answers");
            seen.extend(page.data.iter().map(|letter| letter.id));
            after = seen.last().copied();
            if !page.has_more {
                break;
            }
            assert_eq!(page.data.len(), limit, "a page with more behind it is full");
        }
        assert_eq!(seen.len(), LETTERS, "limit {limit}");
        assert!(seen.is_sorted() && seen.windows(2).all(|pair| pair[0] != pair[1]), "{seen:?}");
    }
    cluster.shutdown().await;
}
