//! Takes a backup: one cut over all shards, then their states of that moment, one shard after the other.
//!
//! ```text
//! hold all shards ─▶ pin all shards ─▶ header ─▶ (chunk* ─▶ end) per shard ─▶ trailer
//! ╰── writes wait ─────────────────╯   ╰── writes go on ────────────────────────────╯
//! ```

use super::{
    BackupHeader, BackupId, ShardHead,
    file::{BackupWriter, STATE_FORMAT},
};
use crate::{
    catalog::NodeId,
    cluster::{Unavailable, handle::Cluster},
    entity::ShardId,
    shard::{
        Answer, Ask, Router, ShardRequest,
        backup::{CutAnswer, CutAsk, HOLD_MAX, Part},
        now_ms,
    },
    storage::GroupId,
};
use bytes::Bytes;
use futures::{
    StreamExt, TryStreamExt,
    future::join_all,
    stream::{self, BoxStream},
};
use std::{future::ready, ops::Range, time::Duration};
use tokio::time::Instant;

/// Attempts at a cut: an owner that changes meanwhile spoils one.
const ATTEMPTS: u32 = 6;
/// About the pause behind the first attempt; it grows with each.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(200);
const PROBE_WAIT: Duration = Duration::from_secs(2);
/// What is not held by then will not be held for long enough.
const HOLD_WAIT: Duration = HOLD_MAX.checked_div(2).expect("two is not zero");
const PIN_WAIT: Duration = HOLD_MAX;
const ONE_CUT: &str = "cuts at one time";
const MANY: &str = "backups at one time";
/// For a chunk, which is read on demand.
const READ_WAIT: Duration = Duration::from_secs(30);
/// Between two times that the pins of shards to come are kept.
const KEEP_EVERY: Duration = Duration::from_secs(10);
const END_WAIT: Duration = Duration::from_secs(2);
/// Owners asked at once: all of them, as a rule.
const ASKED: usize = 256;

/// Everything at one moment, to be read.
pub struct Backup {
    header: BackupHeader,
    pins: Pins,
}

/// The backup cannot go on: one of its shards is not to be had any more. What was read of it is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the backup broke off: {detail}")]
pub struct BrokenOff {
    pub detail: String,
}

impl Cluster {
    /// Takes a backup of all shards, as they are at one moment during this call. Writes wait while it is taken:
    /// two rounds to the shards' owners, as a rule some milliseconds. What is returned is to be read at once: a
    /// part that is not asked for within a minute is lost.
    ///
    /// # Errors
    /// A shard has no quorum, owners keep changing, or ([`Unavailable::Overloaded`]) other backups are being read.
    pub async fn backup(&self) -> Result<Backup, Unavailable> {
        let router = self.founded_way().await?;
        let mut attempt = 1;
        let pins = loop {
            match Box::pin(Pins::take(&router)).await {
                Ok(pins) => break pins,
                Err(unavailable @ Unavailable::Restoring { .. }) => return Err(unavailable),
                Err(unavailable) if attempt == ATTEMPTS => return Err(unavailable),
                Err(unavailable) => tracing::info!(attempt, %unavailable, "a cut was spoiled; trying again"),
            }
            // Of two that were in each other's way, one comes first.
            let share = 0.25 + rand::random::<f64>();
            tokio::time::sleep(ATTEMPT_PAUSE.mul_f64(share * f64::from(attempt))).await;
            attempt += 1;
        };
        let types = self.node().registry().entity_types();
        let header = BackupHeader {
            backup: pins.backup,
            cluster: router.cluster(),
            taken_at_ms: now_ms(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state_format: STATE_FORMAT,
            entity_types: types.map(|of| (of.name().to_owned(), of.versions())).collect(),
            shards: pins.shards.iter().map(|(head, _)| head.clone()).collect(),
        };
        Ok(Backup { header, pins })
    }
}

impl Backup {
    pub fn header(&self) -> &BackupHeader {
        &self.header
    }

    /// The file, in parts of any size. It is whole only if it ends without an error.
    pub fn into_stream(self) -> BoxStream<'static, Result<Bytes, BrokenOff>> {
        let begun = BackupWriter::begin(&self.header).map_err(|error| BrokenOff { detail: error.to_string() });
        let first = begun.map(|(writer, first)| {
            let reading =
                Reading { pins: self.pins, writer: Some(writer), shard: 0, after: None, kept: Instant::now() };
            stream::once(ready(Ok(first))).chain(reading.into_stream())
        });
        stream::once(ready(first)).try_flatten().boxed()
    }
}

/// The shards of a backup where they are pinned, in their order. Dropped, they are let go.
struct Pins {
    router: Router,
    backup: BackupId,
    shards: Vec<(ShardHead, NodeId)>,
    /// Who holds what, or has pinned it.
    asked: Vec<(GroupId, NodeId)>,
}

impl Pins {
    async fn take(router: &Router) -> Result<Self, Unavailable> {
        let mut pins =
            Self { router: router.clone(), backup: BackupId::random(), shards: Vec::new(), asked: Vec::new() };
        pins.probe().await?;
        let begun = Instant::now();
        pins.hold_all().await?;
        let held = begun.elapsed();
        pins.pin_all().await?;
        tracing::info!(backup = %pins.backup, ?held, pinned = ?begun.elapsed(), "a cut over all shards");
        metrics::histogram!("quorate_backup_pause_seconds").record(begun.elapsed().as_secs_f64());
        Ok(pins)
    }

    /// Whether all shards have owners who could hold: if one has not, the others' writes need not wait to find out.
    async fn probe(&self) -> Result<(), Unavailable> {
        self.ask_owners(0..self.router.shards(), CutAsk::Probe, PROBE_WAIT).try_for_each(|_| ready(Ok(()))).await
    }

    /// The first shard before all others: of two backups at one time, one holds it and the other one nothing.
    async fn hold_all(&mut self) -> Result<(), Unavailable> {
        for shards in [0..1, 1..self.router.shards()] {
            let mut answers = self.ask_owners(shards, CutAsk::Hold, HOLD_WAIT);
            while let Some(answer) = answers.next().await {
                if let (group, CutAnswer::Held { by }) = answer? {
                    self.asked.push((group, by));
                }
            }
        }
        Ok(())
    }

    /// Asks the owners of some shards. Whatever keeps one of them from it is an error.
    fn ask_owners(
        &self,
        shards: Range<u16>,
        ask: CutAsk,
        timeout: Duration,
    ) -> BoxStream<'static, Result<(GroupId, CutAnswer), Unavailable>> {
        let (router, backup) = (self.router.clone(), self.backup);
        let ask = move |shard: u16| {
            let (router, ask) = (router.clone(), Ask::Cut { backup, ask: ask.clone() });
            async move {
                let (group, shard) = (GroupId(shard), ShardId(shard));
                match router.ask_shard(ShardRequest { group, ask }, timeout).await? {
                    Answer::Cut(answer @ (CutAnswer::Held { .. } | CutAnswer::Done)) => Ok((group, answer)),
                    Answer::Cut(CutAnswer::Busy) => Err(Unavailable::Overloaded { limit: ONE_CUT.into() }),
                    Answer::Cut(CutAnswer::Full) => Err(Unavailable::Overloaded { limit: MANY.into() }),
                    Answer::Cut(CutAnswer::Restoring) => Err(Unavailable::Restoring { shard }),
                    _ => Err(Unavailable::NoQuorum { shard }),
                }
            }
        };
        stream::iter(shards).map(ask).buffer_unordered(ASKED).boxed()
    }

    async fn pin_all(&mut self) -> Result<(), Unavailable> {
        let deadline = Instant::now() + PIN_WAIT;
        let (router, backup) = (&self.router, self.backup);
        let pin = |(group, node): (GroupId, NodeId)| async move {
            (group, node, router.ask_cut(node, (group, backup), CutAsk::Pin, deadline).await)
        };
        let asked = self.asked.clone();
        let answers: Vec<_> = stream::iter(asked).map(pin).buffer_unordered(ASKED).collect().await;
        for (group, node, answer) in answers {
            match answer {
                Some(CutAnswer::Pinned(head)) => self.shards.push((head, node)),
                Some(CutAnswer::Full) => return Err(Unavailable::Overloaded { limit: MANY.into() }),
                _ => return Err(Unavailable::NoQuorum { shard: ShardId(group.0) }),
            }
        }
        self.shards.sort_unstable_by_key(|(head, _)| head.shard);
        Ok(())
    }

    /// The chunk of a shard behind a key.
    async fn part(&self, at: usize, after: Option<Vec<u8>>) -> Result<(ShardId, Part), BrokenOff> {
        let Some((head, node)) = self.shards.get(at) else { return Err(broken_off("no such shard")) };
        let (shard, deadline) = (head.shard, Instant::now() + READ_WAIT);
        let place = (GroupId(shard.0), self.backup);
        match self.router.ask_cut(*node, place, CutAsk::Read { after }, deadline).await {
            Some(CutAnswer::Part(part)) => Ok((shard, part)),
            Some(_) => Err(broken_off(&format!("node {node} has not kept shard {shard}"))),
            None => Err(broken_off(&format!("node {node}, which has shard {shard}, does not answer"))),
        }
    }

    /// Has the pins from here on kept for another while.
    async fn keep_from(&self, at: usize) {
        let deadline = Instant::now() + KEEP_EVERY;
        for some in self.shards[at..].chunks(ASKED) {
            let keep = some.iter().map(|(head, node)| {
                self.router.ask_cut(*node, (GroupId(head.shard.0), self.backup), CutAsk::Keep, deadline)
            });
            // Whether one is gone shows when it is read.
            join_all(keep).await;
        }
    }
}

fn broken_off(detail: &str) -> BrokenOff {
    BrokenOff { detail: detail.to_owned() }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let (router, backup, mut asked) = (self.router.clone(), self.backup, std::mem::take(&mut self.asked));
        // Those who were asked to hold, and had not answered yet.
        let unknown = (0..router.shards()).map(GroupId).filter(|group| asked.iter().all(|(known, _)| known != group));
        let unknown: Vec<_> = unknown.filter_map(|group| Some((group, router.owner(group)?))).collect();
        asked.extend(unknown);
        let end = async move {
            let deadline = Instant::now() + END_WAIT;
            let all = asked.iter().map(|(group, node)| router.ask_cut(*node, (*group, backup), CutAsk::End, deadline));
            // Who does not hear of it lets go by itself.
            join_all(all).await;
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(end);
        }
    }
}

/// A backup that is being read.
struct Reading {
    pins: Pins,
    /// Until the trailer is written.
    writer: Option<BackupWriter>,
    /// The shard at hand,
    shard: usize,
    /// behind this key; at its beginning without one.
    after: Option<Vec<u8>>,
    kept: Instant,
}

impl Reading {
    fn into_stream(self) -> BoxStream<'static, Result<Bytes, BrokenOff>> {
        let parts = stream::try_unfold(self, |mut reading| async move {
            let next = reading.next().await?;
            Ok(next.map(|bytes| (bytes, reading)))
        });
        parts.boxed()
    }

    async fn next(&mut self) -> Result<Option<Bytes>, BrokenOff> {
        let Some(writer) = &mut self.writer else { return Ok(None) };
        if self.shard == self.pins.shards.len() {
            return Ok(self.writer.take().map(BackupWriter::finish));
        }
        if self.kept.elapsed() >= KEEP_EVERY {
            self.pins.keep_from(self.shard).await;
            self.kept = Instant::now();
        }
        let (id, part) = self.pins.part(self.shard, self.after.take()).await?;
        let mut bytes = Vec::with_capacity(part.chunk.len() + 128);
        if !part.chunk.is_empty() {
            bytes.extend_from_slice(&writer.chunk(&part.chunk, part.pairs as usize));
        }
        self.after = part.last;
        if self.after.is_none() {
            bytes.extend_from_slice(&writer.end(id));
            self.shard += 1;
        }
        Ok(Some(bytes.into()))
    }
}
