//! Which nodes hold which shard.

use super::{Member, NodeId, Placement};
use crate::storage::GroupId;

/// Spreads `shards` over `members`, each on `replication_factor` of them (or on all, if there are
/// fewer), and the catalog over 3 or 5 (over all, if there are fewer).
///
/// Replicas are chosen by rendezvous hashing (Thaler and Ravishankar, 1996), so that every node
/// finds the same and a change of members moves little; but no zone gives a second one while there is
/// another that gives none. Preferred owners go round, so that each node owns the same number give or take
/// one, where zones leave the choice.
pub fn plan(members: &[Member], shards: u16, replication_factor: usize) -> Vec<Placement> {
    let mut members: Vec<&Member> = members.iter().collect();
    members.sort_unstable_by_key(|member| member.node);
    let nodes: Vec<NodeId> = members.iter().map(|member| member.node).collect();
    let mut owned = vec![0_u32; nodes.len()];
    let mut placements = vec![catalog(&members)];
    for shard in 0..shards {
        let group = GroupId(shard);
        let mut ranked = members.clone();
        ranked.sort_by_cached_key(|member| std::cmp::Reverse(score(group, member.node)));
        let replicas = spread(ranked, replication_factor.max(1));
        let least = replicas.iter().copied().min_by_key(|node| owned[index(&nodes, *node)]);
        let preferred = least.unwrap_or_default();
        owned[index(&nodes, preferred)] += 1;
        placements.push(placement(group, replicas, preferred));
    }
    placements
}

fn catalog(members: &[&Member]) -> Placement {
    let of = |count| spread(members.to_vec(), count);
    let mut replicas = of(match members.len() {
        count @ 0..=2 => count,
        3..=4 => 3,
        _ => 5,
    });
    // Where the other zones are small, of 5 three are in one; of 3 none need be.
    if replicas.len() == 5 && has_majority_in_one_zone(&replicas, members) {
        replicas = Some(of(3)).filter(|three| !has_majority_in_one_zone(three, members)).unwrap_or(replicas);
    }
    let preferred = replicas.first().copied().unwrap_or_default();
    placement(GroupId::CATALOG, replicas, preferred)
}

fn placement(group: GroupId, mut replicas: Vec<NodeId>, preferred: NodeId) -> Placement {
    replicas.sort_unstable();
    Placement { group, replicas, preferred, epoch: 0 }
}

fn has_majority_in_one_zone(voters: &[NodeId], members: &[&Member]) -> bool {
    let zone_of = |voter: &NodeId| members.iter().find(|m| m.node == *voter).and_then(|member| member.zone.as_deref());
    let in_zone = |zone| voters.iter().filter(|voter| zone_of(voter) == Some(zone)).count();
    voters.iter().filter_map(zone_of).any(|zone| in_zone(zone) * 2 > voters.len())
}

/// So many of the members (or all, if there are fewer): one after the other the first of those whose zone has
/// given the fewest. A member without a zone is one of its own.
fn spread(mut ranked: Vec<&Member>, count: usize) -> Vec<NodeId> {
    let mut taken: Vec<&Member> = Vec::with_capacity(count);
    while taken.len() < count {
        let given = |member: &Member| taken.iter().filter(|t| t.zone.is_some() && t.zone == member.zone).count();
        let Some(next) = (0..ranked.len()).min_by_key(|at| given(ranked[*at])) else { break };
        taken.push(ranked.remove(next));
    }
    taken.into_iter().map(|member| member.node).collect()
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

    /// Members with these zones, `-` for none, and ids from 1.
    fn in_zones(zones: &str) -> Vec<Member> {
        let zones = zones.chars().map(|zone| (zone != '-').then(|| zone.to_string()));
        let unzoned = members(zones.clone().count() as u64);
        zones.zip(unzoned).map(|(zone, member)| Member { zone, ..member }).collect()
    }

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

    #[test]
    fn no_zone_holds_two_replicas_while_another_holds_none() {
        for (zones, replication_factor) in [
            ("aab", 3),
            ("aabbc", 3),
            ("aaabbc", 3),
            ("abcabc", 3),
            ("aabb", 3),
            ("aaaaaab", 3),
            ("aabbccdd", 5),
            ("aa-", 2),
        ] {
            let members = in_zones(zones);
            let zone_of = |node: &NodeId| members[node.0 as usize - 1].zone.clone().unwrap_or_else(|| node.to_string());
            let all: std::collections::BTreeSet<String> = members.iter().map(|member| zone_of(&member.node)).collect();
            for placement in plan(&members, 64, replication_factor) {
                let held: std::collections::BTreeSet<String> = placement.replicas.iter().map(zone_of).collect();
                assert_eq!(held.len(), all.len().min(placement.replicas.len()), "{zones}: {placement:?}");
                assert!(placement.replicas.windows(2).all(|w| w[0] < w[1]), "distinct and sorted: {placement:?}");
            }
        }
    }

    #[test]
    fn zones_hold_alike_and_no_zone_holds_a_majority_where_three_need_not() {
        let held = |zones: &str, placement: &Placement| {
            let mut held = std::collections::BTreeMap::new();
            for zone in zones.chars() {
                held.insert(zone, 0);
            }
            for node in &placement.replicas {
                *held.entry(zones.as_bytes()[node.0 as usize - 1] as char).or_insert(0) += 1;
            }
            held
        };
        for (zones, replication_factor) in [("aaaabbbb", 5), ("aabbcc", 5), ("aaaabbbbcccc", 7)] {
            for placement in &plan(&in_zones(zones), 32, replication_factor)[1..] {
                let held = held(zones, placement);
                assert!(held.values().max().unwrap() - held.values().min().unwrap() <= 1, "{zones}: {held:?}");
            }
        }
        for (zones, voters) in
            [("aaabc", 3), ("aaaabc", 3), ("aabbc", 5), ("abcde", 5), ("aaaab", 5), ("aab", 3), ("aa-b-", 5)]
        {
            let catalog = &plan(&in_zones(zones), 1, 3)[0];
            assert_eq!(catalog.replicas.len(), voters, "{zones}: {catalog:?}");
            let most = held(zones, catalog).into_iter().filter(|(zone, _)| *zone != '-').map(|(_, held)| held).max();
            // Two zones cannot do better.
            assert!(most <= Some(voters / 2) || ["aaaab", "aab"].contains(&zones), "{zones}: {catalog:?}");
        }
    }

    #[test]
    fn members_without_a_zone_and_members_of_as_many_zones_are_placed_alike() {
        for (zones, count) in [("-------", 7), ("abcdefg", 7), ("a-b-c--", 7)] {
            assert_eq!(
                plan(&in_zones(zones), 32, 3).iter().map(|p| &p.replicas).collect::<Vec<_>>(),
                plan(&members(count), 32, 3).iter().map(|p| &p.replicas).collect::<Vec<_>>()
            );
        }
        // By rendezvous alone, as it was before there were zones.
        for placement in &plan(&members(7), 32, 3)[1..] {
            let mut ranked: Vec<NodeId> = (1..=7).map(NodeId).collect();
            ranked.sort_by_key(|node| std::cmp::Reverse(score(placement.group, *node)));
            assert!(ranked[..3].iter().all(|node| placement.is_on(*node)), "{placement:?}");
        }
    }

    #[test]
    fn in_zones_of_one_size_each_node_holds_and_owns_about_the_same() {
        let placements = plan(&in_zones("aabbcc"), 128, 3);
        for node in (1..=6).map(NodeId) {
            let held = placements[1..].iter().filter(|p| p.is_on(node)).count();
            let owned = placements[1..].iter().filter(|p| p.preferred == node).count();
            assert!((48..=80).contains(&held), "{node} holds {held} of 128, an even share is 64");
            assert!((20..=22).contains(&owned), "{node} owns {owned} of 128");
        }
    }

    #[test]
    fn a_member_that_joins_takes_replicas_and_moves_few_others() {
        let before = plan(&in_zones("abcabc"), 128, 3);
        let after = plan(&in_zones("abcabca"), 128, 3);
        let moved = before[1..].iter().zip(&after[1..]).map(|(was, is)| {
            let gone = was.replicas.iter().filter(|node| !is.is_on(**node)).count();
            (gone, is.is_on(NodeId(7)))
        });
        let (mut taken, mut others) = (0, 0);
        for (gone, is_on_new) in moved {
            taken += usize::from(is_on_new);
            others += gone - usize::from(is_on_new);
        }
        assert!((25..=60).contains(&taken), "a third of the 128 replicas in its zone would be 43: {taken}");
        assert_eq!(others, 0, "replicas in other zones stay where they are");
    }
}
