//! Packs what a shard's actors decide into log entries, and gives the answers out when they are
//! committed.
//!
//! While `entries_in_flight` entries are under way, further items gather into the next one. That
//! makes entries large when there is much to do, and immediate when there is little.

use super::{
    actor::{Marks, Ticket},
    backup::Pause,
    entry::{self, Item, Outcome, Pack},
    host::OwnerLost,
    request::CommandReply,
};
use crate::{
    cluster::Receipt,
    entity::ShardId,
    replication::{Group, Position, ProposeError, Proposed},
    sabotage::{self, Sabotage},
};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::task::TaskTracker;

/// The largest encoded item: with its header it fits one journal record.
pub const ITEM_BYTES_MAX: usize = 90 << 10;

/// Items that wait for the proposer; past it actors wait.
const QUEUE_MAX: usize = 4096;

/// Whoever waits for a command's reply.
pub struct Answer {
    pub reply: oneshot::Sender<CommandReply>,
    pub _ticket: Ticket,
}

impl Answer {
    pub fn send(self, reply: CommandReply) {
        // The caller may have given up waiting.
        let _ = self.reply.send(reply);
    }
}

/// What the entity says to a command, once that is durable.
pub enum Said {
    Done(Vec<u8>),
    Rejected(Vec<u8>),
}

enum Work {
    Change {
        item: Vec<u8>,
        answer: Answer,
        said: Said,
        marks: Marks,
    },
    /// Answer once everything before is committed and this node is known to lead.
    Barrier {
        answer: Answer,
        reply: CommandReply,
    },
    /// An item of the shard itself.
    Upkeep {
        item: Vec<u8>,
        done: Option<oneshot::Sender<bool>>,
    },
    /// Nothing behind it is proposed until it ends.
    Pause(Pause),
}

/// Where actors and the shard's own tasks hand their items in.
#[derive(Clone)]
pub struct Submitter(mpsc::Sender<Work>);

impl Submitter {
    pub async fn propose(&self, item: Vec<u8>, answer: Answer, said: Said, marks: Marks) {
        // If the proposer is gone, dropping the answer tells the caller.
        let _ = self.0.send(Work::Change { item, answer, said, marks }).await;
    }

    pub async fn barrier(&self, answer: Answer, reply: CommandReply) {
        let _ = self.0.send(Work::Barrier { answer, reply }).await;
    }

    /// Once everything before has ended, nothing is proposed until the pause ends.
    pub async fn pause(&self, pause: Pause) {
        let _ = self.0.send(Work::Pause(pause)).await;
    }

    /// Proposes an item of the shard itself; true once it is applied.
    pub async fn upkeep(&self, item: &Item) -> bool {
        let Ok(item) = entry::encode(item) else { return false };
        let (tx, rx) = oneshot::channel();
        if self.0.send(Work::Upkeep { item, done: Some(tx) }).await.is_err() {
            return false;
        }
        rx.await.unwrap_or(false)
    }
}

pub struct Options {
    pub pack_count: usize,
    pub pack_bytes: usize,
    pub entries_in_flight: usize,
}

pub struct Proposer {
    pub shard: ShardId,
    pub group: Arc<Group>,
    pub options: Options,
    /// Told when a proposal fails, so that the session ends: its actors ran ahead of the log.
    pub lost: OwnerLost,
    pub tasks: TaskTracker,
}

/// How the last entry under way ended: `None` while it is.
type Tail = watch::Receiver<Option<bool>>;

impl Proposer {
    /// Runs until `stop`. Work that was not proposed by then is dropped, its answers unsent; work
    /// that was proposed is answered by the task that waits for it, which `stop` does not touch.
    pub fn start(self, stop: tokio_util::sync::CancellationToken) -> Submitter {
        let (tx, rx) = mpsc::channel(QUEUE_MAX);
        self.tasks.clone().spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.run(rx) => {}
            }
        });
        Submitter(tx)
    }

    async fn run(self, mut queue: mpsc::Receiver<Work>) {
        let proposer = Arc::new(self);
        let slots = Arc::new(Semaphore::new(proposer.options.entries_in_flight));
        let (_, mut tail): (_, Tail) = watch::channel(Some(true));
        let mut held_over = None;
        loop {
            let first = match held_over.take() {
                Some(work) => work,
                None => match queue.recv().await {
                    Some(work) => work,
                    None => return,
                },
            };
            if let Work::Pause(pause) = first {
                proposer.pause(&slots, pause).await;
                continue;
            }
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            // Whoever else is ready to run may hand in its item first. Under load that makes entries
            // larger; where nobody is ready it costs nothing.
            tokio::task::yield_now().await;
            let (pack, mut works) = proposer.gather(first, &mut queue, &mut held_over);
            let (done, next_tail) = watch::channel(None);
            let before = std::mem::replace(&mut tail, next_tail);
            let proposed = match pack.count {
                0 => None,
                _ => {
                    let command = pack.finish();
                    metrics::counter!("quorate_proposals_total").increment(1);
                    metrics::histogram!("quorate_proposal_batch_size").record(works.len() as f64);
                    let hash = crc32c::crc32c(&command);
                    Some((proposer.group.propose(command).await, hash))
                }
            };
            let mut slot = Some(slot);
            if sabotage::is(Sabotage::AckBeforeQuorum) && matches!(proposed, Some((Ok(_), _))) {
                works.iter_mut().for_each(answer_too_early);
                slot = None;
            }
            let proposer = proposer.clone();
            proposer.tasks.clone().spawn(async move {
                let fine = proposer.finish(proposed, before, works).await;
                done.send_replace(Some(fine));
                if !fine {
                    proposer.lost.tell();
                }
                drop(slot);
            });
        }
    }

    async fn pause(&self, slots: &Semaphore, pause: Pause) {
        let all = u32::try_from(self.options.entries_in_flight).unwrap_or(u32::MAX);
        // An entry under way keeps its slot until it has ended.
        if slots.acquire_many(all).await.is_ok() {
            pause.last().await;
        }
    }

    /// Takes what waits, up to the bounds of one entry.
    fn gather(&self, first: Work, queue: &mut mpsc::Receiver<Work>, held_over: &mut Option<Work>) -> (Pack, Vec<Work>) {
        let mut pack = Pack::default();
        let mut works = Vec::new();
        let mut next = Some(first);
        while let Some(work) = next.take() {
            let item = match &work {
                Work::Change { item, .. } | Work::Upkeep { item, .. } => Some(item),
                Work::Barrier { .. } => None,
                Work::Pause(_) => {
                    *held_over = Some(work);
                    break;
                }
            };
            if let Some(item) = item {
                if pack.count > 0 && pack.len() + item.len() > self.options.pack_bytes {
                    *held_over = Some(work);
                    break;
                }
                pack.push(item);
            }
            works.push(work);
            if pack.count < self.options.pack_count && works.len() < self.options.pack_count * 2 {
                next = queue.try_recv().ok();
            }
        }
        (pack, works)
    }

    /// Waits for the entry and answers everyone in it. False if the session cannot go on.
    async fn finish(
        &self,
        proposed: Option<(Result<Proposed, ProposeError>, u32)>,
        before: Tail,
        works: Vec<Work>,
    ) -> bool {
        match proposed {
            None => self.finish_barriers(before, works).await,
            Some((proposed, hash)) => {
                let result = match proposed {
                    Ok(proposed) => proposed.done().await,
                    Err(error) => Err(error),
                };
                match result {
                    Ok((position, outcomes)) => self.answer_all(works, position, hash, &outcomes),
                    Err(error) => {
                        tracing::debug!(shard = %self.shard, %error, "a proposal failed");
                        works.into_iter().for_each(|work| fail(work, &error));
                        false
                    }
                }
            }
        }
    }

    /// Barriers alone: everything before must be committed, and this node must still lead.
    async fn finish_barriers(&self, mut before: Tail, works: Vec<Work>) -> bool {
        let committed = matches!(before.wait_for(Option::is_some).await.map(|r| *r), Ok(Some(true)));
        let leads = committed && self.group.read_barrier().await.is_ok();
        for work in works {
            if let Work::Barrier { answer, reply } = work {
                answer.send(if leads { reply } else { CommandReply::TryAgain });
            }
        }
        committed
    }

    fn answer_all(&self, works: Vec<Work>, position: Position, entry_hash: u32, outcomes: &Bytes) -> bool {
        let receipt = Receipt { shard: self.shard, term: position.term, index: position.index, entry_hash };
        let mut outcomes = entry::decode_outcomes(outcomes).into_iter();
        let mut fine = true;
        for work in works {
            match work {
                Work::Barrier { answer, reply } => answer.send(if fine { reply } else { CommandReply::TryAgain }),
                // Never in an entry.
                Work::Pause(_) => {}
                Work::Upkeep { done, .. } => {
                    outcomes.next();
                    done.map(|d| d.send(true));
                }
                Work::Change { answer, said, .. } => match outcomes.next() {
                    Some(Outcome::Changed { version }) => {
                        answer.send(said.reply(version, receipt));
                    }
                    Some(Outcome::Duplicate) => answer.send(CommandReply::Duplicate),
                    Some(Outcome::Refused { actual }) => {
                        // The actor ran on a state that never came to be. Nothing happened.
                        tracing::debug!(shard = %self.shard, actual, "a change was refused: decided on another version");
                        fine = false;
                        answer.send(CommandReply::TryAgain);
                    }
                    Some(Outcome::Done | Outcome::Declined(_)) | None => {
                        fine = false;
                        answer.send(CommandReply::Unknown);
                    }
                },
            }
        }
        fine
    }
}

impl Said {
    fn reply(self, version: u64, receipt: Receipt) -> CommandReply {
        match self {
            Self::Done(reply) => CommandReply::Done { reply, version, replayed: false, receipt: Some(receipt) },
            Self::Rejected(reason) => CommandReply::Rejected(reason),
        }
    }
}

/// Tells a client that its change is durable, which nobody knows. Whoever waits for it afterwards is
/// not told again.
fn answer_too_early(work: &mut Work) {
    let Work::Change { item, answer, said: Said::Done(reply), marks } = work else { return };
    let Ok(Item::Change(change)) = entry::decode(item) else { return };
    // What shards tell each other stays as it is: they would wait for ever for what is lost.
    if marks.is_of_client() {
        let version = change.base_version + change.events.len() as u64;
        let done = CommandReply::Done { reply: reply.clone(), version, replayed: false, receipt: None };
        let (nobody, _) = oneshot::channel();
        // The caller may have given up waiting.
        let _ = std::mem::replace(&mut answer.reply, nobody).send(done);
    }
}

fn fail(work: Work, error: &ProposeError) {
    let reply = match error {
        ProposeError::NotLeader { leader } => CommandReply::NotOwner { hint: *leader },
        ProposeError::Unknown | ProposeError::Stopped(_) => CommandReply::Unknown,
    };
    match work {
        Work::Change { answer, .. } => answer.send(reply),
        Work::Barrier { answer, .. } => answer.send(CommandReply::TryAgain),
        Work::Upkeep { done, .. } => {
            done.map(|d| d.send(false));
        }
        Work::Pause(_) => {}
    }
}
