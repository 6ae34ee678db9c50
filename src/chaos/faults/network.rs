//! The network between the nodes.

use super::{
    super::{
        fault::Fault,
        network::{Change, Condition},
    },
    Stage, Trouble,
};
use std::time::Duration;

/// Between two resets of the same node's connections: it can just dial again meanwhile.
const RESET_EVERY: Duration = Duration::from_millis(500);

pub async fn change(stage: &Stage<'_>, fault: &Fault) -> Result<(), Trouble> {
    let effect = effect(fault, stage.cluster.nodes().len() as u16);
    stage.network.apply(stage.number, effect).await.map_err(Trouble::NotDone)?;
    stage.begun();
    stage.last().await;
    stage.network.restore(stage.number).await.map_err(Trouble::NotDone)?;
    stage.healed();
    for node in stage.cluster.nodes() {
        // Others may be doing something to it; then it is theirs to wait for.
        if node.busy.try_lock().is_ok() {
            node.wait_ready(stage.recover_within).await.map_err(Trouble::NotHealed)?;
        }
    }
    Ok(())
}

pub async fn reset(stage: &Stage<'_>, node: u16) -> Result<(), Trouble> {
    stage.begun();
    let ends = tokio::time::Instant::now() + stage.lasts;
    while tokio::time::Instant::now() < ends {
        stage.network.reset(node).map_err(Trouble::NotDone)?;
        tokio::time::sleep(RESET_EVERY.min(stage.lasts)).await;
    }
    stage.healed();
    stage.cluster.node(node).wait_ready(stage.recover_within).await.map_err(Trouble::NotHealed)
}

/// What a fault does to which directions.
fn effect(fault: &Fault, nodes: u16) -> Change {
    let pairs = |reaches: &dyn Fn(u16, u16) -> bool| -> Vec<(u16, u16)> {
        let all = (1..=nodes).flat_map(|from| (1..=nodes).map(move |to| (from, to)));
        all.filter(|(from, to)| from != to && !reaches(*from, *to)).collect()
    };
    let blocked = Condition::blocked();
    let everywhere = |condition| Change { pairs: pairs(&|_, _| false), condition };
    match fault {
        Fault::Partition { nodes: side } => {
            Change { pairs: pairs(&|from, to| side.contains(&from) == side.contains(&to)), condition: blocked }
        }
        Fault::PartitionOneWay { node } => Change { pairs: pairs(&|from, _| from != *node), condition: blocked },
        Fault::PartitionPartial { node, peer } => {
            let between = |from, to| (from, to) == (*node, *peer) || (from, to) == (*peer, *node);
            Change { pairs: pairs(&|from, to| !between(from, to)), condition: blocked }
        }
        Fault::Loss { probability } => everywhere(Condition { loss: *probability, ..Condition::default() }),
        Fault::Delay { delay_ms } => {
            everywhere(Condition { delay: Duration::from_millis(*delay_ms), ..Condition::default() })
        }
        Fault::Reorder { probability } => everywhere(Condition { reorder: *probability, ..Condition::default() }),
        Fault::Duplicate { probability } => everywhere(Condition { duplicate: *probability, ..Condition::default() }),
        _ => Change { pairs: Vec::new(), condition: Condition::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_blocks_what_crosses_it_and_nothing_else() {
        assert_eq!(effect(&Fault::Partition { nodes: vec![2] }, 3).pairs, [(1, 2), (2, 1), (2, 3), (3, 2)]);
        assert_eq!(effect(&Fault::PartitionOneWay { node: 2 }, 3).pairs, [(2, 1), (2, 3)]);
        assert_eq!(effect(&Fault::PartitionPartial { node: 1, peer: 3 }, 3).pairs, [(1, 3), (3, 1)]);
        let slow = effect(&Fault::Delay { delay_ms: 5 }, 3);
        assert_eq!((slow.pairs.len(), slow.condition.blocked), (6, false));
    }
}
