//! Changing who replicates a group: one step at a time, each safe to repeat by another leader.
//!
//! ```text
//! voters a b c, wanted a b d:  add learner d ─▶ d is filled ─▶ joint {abc, abd} ─▶ {abd} ─▶ c is out
//! ```
//!
//! Joint consensus (Ongaro, *Consensus: Bridging Theory and Practice*, 4.3) is openraft's.

use super::{
    group::Group,
    machine::Applied,
    types::{encode, log_id},
};
use crate::{
    catalog::NodeId,
    storage::{GroupId, Storage, Write},
};
use openraft::{ChangeMembers, Precondition, async_runtime::watch::WatchReceiver};
use std::{collections::BTreeSet, fmt, sync::Arc};

/// A new replica may vote once it is this close behind.
const FILLED_LAG_MAX: u64 = 64;

/// What was done about a group's replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// They are being filled.
    Adding(Vec<NodeId>),
    /// These vote, and nobody else.
    Settled(Vec<NodeId>),
    /// These were added once, and are not wanted any more.
    Dropped(Vec<NodeId>),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, nodes) = match self {
            Self::Adding(nodes) => ("filling new replicas on nodes", nodes),
            Self::Settled(nodes) => ("the voters are now nodes", nodes),
            Self::Dropped(nodes) => ("no replicas any more on nodes", nodes),
        };
        write!(f, "{what}")?;
        nodes.iter().try_for_each(|node| write!(f, " {node}"))
    }
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    /// New replicas are on their way.
    Wait,
    Add(BTreeSet<u64>),
    Vote(BTreeSet<u64>),
    Drop(BTreeSet<u64>),
}

/// `voters`: one set, or two while a change is under way. `nodes`: voters and learners.
///
/// From the first entry of a change of voters on, nothing is committed without a majority of the new
/// ones: they have to be up before it is proposed.
fn next_step(
    voters: &[BTreeSet<u64>],
    nodes: &BTreeSet<u64>,
    wanted: &BTreeSet<u64>,
    is_filled: impl Fn(u64) -> bool,
    is_up: impl Fn(u64) -> bool,
) -> Step {
    let missing: BTreeSet<u64> = wanted.difference(nodes).copied().collect();
    if !missing.is_empty() {
        return Step::Add(missing);
    }
    if voters != [wanted.clone()] {
        let votes = |node: &u64| voters.iter().any(|set| set.contains(node));
        let all_filled = wanted.iter().all(|node| votes(node) || is_filled(*node));
        let has_majority = wanted.iter().filter(|node| is_up(**node)).count() > wanted.len() / 2;
        return if all_filled && has_majority { Step::Vote(wanted.clone()) } else { Step::Wait };
    }
    let extra: BTreeSet<u64> = nodes.difference(wanted).copied().collect();
    if extra.is_empty() { Step::Nothing } else { Step::Drop(extra) }
}

impl Group {
    /// Takes the next step towards replicas on exactly these nodes, and waits until it is committed.
    /// Only the leader of `term` can; `None` if there is nothing to be done, or nothing yet.
    ///
    /// # Errors
    /// This replica does not lead in that term, or another change is under way: try again later.
    pub async fn change_replicas(
        &self,
        wanted: &[NodeId],
        term: u64,
        is_up: impl Fn(NodeId) -> bool,
    ) -> Result<Option<Change>, String> {
        let (members, change) = match self.step_towards(&numbers(wanted), |node| is_up(NodeId(node))) {
            Step::Nothing | Step::Wait => return Ok(None),
            Step::Add(nodes) => {
                let added = nodes.iter().map(|node| (*node, ())).collect();
                (ChangeMembers::AddNodes(added), Change::Adding(ids(&nodes)))
            }
            Step::Vote(nodes) => (ChangeMembers::ReplaceAllVoters(nodes.clone()), Change::Settled(ids(&nodes))),
            Step::Drop(nodes) => (ChangeMembers::RemoveNodes(nodes.clone()), Change::Dropped(ids(&nodes))),
        };
        let leads = Precondition::CommittedLeaderId { committed_leader_id: term.into() };
        self.raft.change_membership_if(members, false, [leads]).await.map_err(|e| e.to_string())?;
        Ok(Some(change))
    }

    /// Whether these vote and nobody else has a replica, and that is committed.
    pub fn is_settled_on(&self, wanted: &[NodeId]) -> bool {
        let is_committed = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            *metrics.membership_config.log_id() <= metrics.last_applied
        };
        is_committed && self.step_towards(&numbers(wanted), |_| false) == Step::Nothing
    }

    /// Who votes, as of the newest change in this replica's log: both sets while one is under way.
    pub fn voters(&self) -> Vec<NodeId> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let voters: BTreeSet<u64> = metrics.membership_config.membership().voter_ids().collect();
        ids(&voters)
    }

    /// Whether this replica votes, and no change of voters is under way as far as it knows.
    pub fn is_voter(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let voters = metrics.membership_config.membership().get_joint_config();
        voters.len() == 1 && voters.iter().all(|set| set.contains(&self.me().0))
    }

    fn step_towards(&self, wanted: &BTreeSet<u64>, is_up: impl Fn(u64) -> bool) -> Step {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let nodes: BTreeSet<u64> = membership.nodes().map(|(node, ())| *node).collect();
        let last = metrics.last_log_index.unwrap_or(0);
        let progress = metrics.replication.as_ref();
        let is_filled = |node: u64| {
            let matched = progress.and_then(|progress| progress.get(&node)?.as_ref());
            matched.is_some_and(|matched| matched.index() + FILLED_LAG_MAX >= last)
        };
        next_step(membership.get_joint_config(), &nodes, wanted, is_filled, is_up)
    }
}

/// Lets the journal go that the log of a closed replica holds back. What its machine has made durable is
/// purged; the entries behind that, which are few, are written again at the journal's end. Nothing is
/// forgotten: should the group come back to this node, the replica knows what it acknowledged, and whom it
/// took for voters.
///
/// # Errors
/// Those of storage.
pub async fn tidy_closed(storage: &Arc<dyn Storage>, group: GroupId, durable: &Applied) -> Result<(), String> {
    if let Some(position) = durable.position {
        let mark = encode(&log_id(position)).map_err(|e| e.to_string())?.into();
        storage.write(Write::Purge { group, upto: position.index, mark }).await.map_err(|e| e.to_string())?;
    }
    let entries = storage.entries(group, storage.group(group).entries).map_err(|e| e.to_string())?;
    match entries.is_empty() {
        true => Ok(()),
        false => storage.write(Write::Append { group, entries }).await.map_err(|e| e.to_string()),
    }
}

fn numbers(nodes: &[NodeId]) -> BTreeSet<u64> {
    nodes.iter().map(|node| node.0).collect()
}

fn ids(nodes: &BTreeSet<u64>) -> Vec<NodeId> {
    nodes.iter().copied().map(NodeId).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(nodes: &[u64]) -> BTreeSet<u64> {
        nodes.iter().copied().collect()
    }

    #[test]
    fn a_replacement_is_filled_before_it_votes_and_the_other_goes_with_the_same_change() {
        let (old, wanted, both) = (set(&[1, 2, 3]), set(&[1, 2, 4]), set(&[1, 2, 3, 4]));
        let step = |voters: &[BTreeSet<u64>], nodes: &BTreeSet<u64>, filled: bool| {
            next_step(voters, nodes, &wanted, |_| filled, |_| true)
        };
        assert_eq!(step(std::slice::from_ref(&old), &old, false), Step::Add(set(&[4])));
        assert_eq!(step(std::slice::from_ref(&old), &both, false), Step::Wait);
        assert_eq!(step(std::slice::from_ref(&old), &both, true), Step::Vote(wanted.clone()));
        // A leader that died in the middle left a joint configuration.
        assert_eq!(step(&[old.clone(), wanted.clone()], &both, false), Step::Vote(wanted.clone()));
        assert_eq!(step(std::slice::from_ref(&wanted), &wanted, false), Step::Nothing);
    }

    #[test]
    fn a_replica_that_was_added_for_nothing_is_dropped() {
        let (voters, nodes) = (set(&[1, 2, 4]), set(&[1, 2, 4, 5]));
        let step = next_step(std::slice::from_ref(&voters), &nodes, &voters, |_| true, |_| true);
        assert_eq!(step, Step::Drop(set(&[5])));
    }

    #[test]
    fn voters_do_not_change_to_those_of_which_too_few_are_up() {
        let (old, wanted) = (set(&[1, 2, 3]), set(&[1, 2]));
        let step = |up: &'static [u64]| {
            next_step(std::slice::from_ref(&old), &old, &wanted, |_| true, |node| up.contains(&node))
        };
        assert_eq!(step(&[2, 3]), Step::Wait, "one of two would not be enough");
        assert_eq!(step(&[1, 2]), Step::Vote(wanted.clone()));
    }
}
