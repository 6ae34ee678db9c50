//! Which nodes hold which shard.

use super::{Member, NodeId, Placement};
use crate::storage::GroupId;

/// Spreads `shards` over `members`, each on `replication_factor` of them (or on all, if there are
/// fewer), and the catalog over the first 3 or 5 (over all, if there are fewer).
///
/// Replicas are chosen by rendezvous hashing (Thaler and Ravishankar, 1996), so that every node
/// finds the same and a change of members moves little. Preferred owners go round, so that each
/// node owns the same number give or take one.
pub fn plan(members: &[Member], shards: u16, replication_factor: usize) -> Vec<Placement> {
    let mut nodes: Vec<NodeId> = members.iter().map(|m| m.node).collect();
    nodes.sort_unstable();
    let mut owned = vec![0_u32; nodes.len()];
    let mut placements = vec![catalog(&nodes)];
    for shard in 0..shards {
        let group = GroupId(shard);
        let mut ranked = nodes.clone();
        ranked.sort_by_key(|node| std::cmp::Reverse(score(group, *node)));
        ranked.truncate(replication_factor.max(1));
        let least = ranked.iter().copied().min_by_key(|node| owned[index(&nodes, *node)]);
        let preferred = least.unwrap_or_default();
        owned[index(&nodes, preferred)] += 1;
        ranked.sort_unstable();
        placements.push(Placement { group, replicas: ranked, preferred, epoch: 0 });
    }
    placements
}

fn catalog(nodes: &[NodeId]) -> Placement {
    let voters = match nodes.len() {
        count @ 0..=2 => count,
        3..=4 => 3,
        _ => 5,
    };
    let replicas: Vec<NodeId> = nodes.iter().copied().take(voters).collect();
    let preferred = replicas.first().copied().unwrap_or_default();
    Placement { group: GroupId::CATALOG, replicas, preferred, epoch: 0 }
}

fn index(nodes: &[NodeId], node: NodeId) -> usize {
    nodes.binary_search(&node).unwrap_or(0)
}

fn score(group: GroupId, node: NodeId) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&group.0.to_le_bytes()).update(&node.0.to_le_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::InstanceId;

    fn members(count: u64) -> Vec<Member> {
        let member = |n| Member {
            node: NodeId(n),
            name: format!("n{n}"),
            instance: InstanceId(u128::from(n)),
            address: String::new(),
            http: String::new(),
            zone: None,
        };
        (1..=count).map(member).collect()
    }

    #[test]
    fn every_shard_has_distinct_replicas_and_ownership_is_even() {
        for nodes in [1, 2, 3, 5, 7] {
            let placements = plan(&members(nodes), 16, 3);
            assert_eq!(placements.len(), 17, "16 shards and the catalog");
            let mut owned = std::collections::BTreeMap::new();
            for p in &placements[1..] {
                assert_eq!(p.replicas.len() as u64, nodes.min(3));
                assert!(p.replicas.windows(2).all(|w| w[0] < w[1]), "distinct and sorted");
                assert!(p.replicas.contains(&p.preferred));
                *owned.entry(p.preferred).or_insert(0_u32) += 1;
            }
            let (least, most) = (owned.values().min(), owned.values().max());
            assert!(most.unwrap() - least.unwrap() <= 2, "{nodes} nodes: {owned:?}");
        }
    }

    #[test]
    fn the_plan_does_not_depend_on_the_order_of_members() {
        let forward = members(5);
        let mut backward = forward.clone();
        backward.reverse();
        assert_eq!(plan(&forward, 16, 3), plan(&backward, 16, 3));
    }
}
