//! What readers see of every group: vote, purge mark, and where each entry is. Entries that are
//! still queued are served from memory.

use super::{
    EntryRecord, GroupId, GroupState,
    admission::Bounds,
    ledger::span,
    pipeline::{Job, View},
    runs::{At, Run, Runs},
};
use bytes::Bytes;
use std::{collections::HashMap, ops::Range, sync::Arc};

/// Where entries of the index are.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Queued { ticket: u64, entries: Arc<Vec<EntryRecord>> },
    Stored(At),
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Place::Queued { ticket: a, .. }, Place::Queued { ticket: b, .. }) => a == b,
            (Place::Stored(a), Place::Stored(b)) => a == b,
            _ => false,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Group {
    pub vote: Option<Bytes>,
    pub purged: Option<(u64, Bytes)>,
    pub runs: Runs<Place>,
}

impl Group {
    pub fn entries(&self) -> Range<u64> {
        let next = self.purged.as_ref().map_or(0, |(upto, _)| upto + 1);
        self.runs.range().unwrap_or(next..next)
    }
}

/// All groups of the journal.
#[derive(Debug, Default)]
pub(super) struct Index {
    groups: HashMap<GroupId, Group>,
}

impl Index {
    pub fn group_mut(&mut self, group: GroupId) -> &mut Group {
        self.groups.entry(group).or_default()
    }

    pub fn state(&self, group: GroupId) -> GroupState {
        self.groups.get(&group).map_or_else(GroupState::default, |g| GroupState {
            vote: g.vote.clone(),
            purged: g.purged.clone(),
            entries: g.entries(),
        })
    }

    /// Where the entries of `range` are.
    pub fn places(&self, group: GroupId, range: Range<u64>) -> Vec<Run<Place>> {
        match self.groups.get(&group) {
            Some(group) if !range.is_empty() => group.runs.within(range).collect(),
            _ => Vec::new(),
        }
    }

    /// The record that holds the group's oldest entry, if that one is stored.
    pub fn oldest_record(&self, group: GroupId) -> Option<u64> {
        match &self.groups.get(&group)?.runs.iter().next()?.place {
            Place::Stored(at) => Some(at.seq),
            Place::Queued { .. } => None,
        }
    }

    /// The queued entries of `ticket` are stored now.
    pub fn settle(&mut self, group: GroupId, ticket: u64, stored: Vec<Run<At>>) {
        let (Some(first), Some(last)) = (stored.first().map(|run| run.first), stored.last().map(|run| run.end - 1))
        else {
            return;
        };
        let runs = &mut self.group_mut(group).runs;
        // A purge may have cut the front off since: what is left is found by the last entry too.
        let Some(left) = runs
            .within(first..last + 1)
            .find(|run| matches!(run.place, Place::Queued { ticket: t, .. } if t == ticket))
        else {
            return;
        };
        let pieces =
            stored.into_iter().map(|run| Run { first: run.first, end: run.end, place: Place::Stored(run.place) });
        runs.replace(left.first, &left.place, pieces);
    }
}

impl View for Index {
    fn bounds(&self, group: GroupId) -> Bounds {
        self.groups.get(&group).map_or(Bounds { entries: 0..0, purged: None }, |g| Bounds {
            entries: g.entries(),
            purged: g.purged.as_ref().map(|(upto, _)| *upto),
        })
    }

    fn admit(&mut self, ticket: u64, job: &Job) {
        let Some(group) = job.group() else { return };
        let group = self.group_mut(group);
        match job {
            Job::Append { entries, .. } if !entries.is_empty() => {
                let (first, end) = span(entries);
                group.runs.truncate(first, |_, _| ());
                group.runs.push(first, end, Place::Queued { ticket, entries: entries.clone() });
            }
            Job::Truncate { from, .. } => group.runs.truncate(*from, |_, _| ()),
            Job::Vote { vote, .. } => group.vote = Some(vote.clone()),
            Job::Purge { upto, mark, .. } if group.purged.as_ref().is_none_or(|(present, _)| upto >= present) => {
                group.runs.purge(*upto, |_, _| ());
                group.purged = Some((*upto, mark.clone()));
            }
            Job::Append { .. } | Job::Purge { .. } | Job::State(_) | Job::StateReached(_) => {}
        }
    }
}
