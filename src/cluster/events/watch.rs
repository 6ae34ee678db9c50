//! Who looks, and tells the feed.

use super::MemberSeen;
use crate::{
    catalog::NodeId,
    cluster::{node::Node, types::MemberStatus},
    entity::ShardId,
    membership,
    replication::{Group, Leadership},
    transport::LinkView,
};
use std::sync::Arc;
use tokio::sync::watch;

/// Looks at the members whenever gossip, a link or the roster has changed, until the node stops.
pub(in crate::cluster) async fn follow_members(
    node: Arc<Node>,
    mut links: watch::Receiver<LinkView>,
    mut gossip: Option<watch::Receiver<membership::View>>,
) {
    loop {
        // Marked before the look: a change during it is looked at again.
        links.mark_unchanged();
        gossip.iter_mut().for_each(watch::Receiver::mark_unchanged);
        node.feed().note_members(node.members_seen());
        tokio::select! {
            changed = links.changed() => if changed.is_err() {
                return;
            },
            () = changed(&mut gossip) => {}
            () = node.feed().roster_change() => {}
        }
    }
}

/// Never, where there is no gossip or no more of it.
async fn changed(gossip: &mut Option<watch::Receiver<membership::View>>) {
    if let Some(view) = gossip
        && view.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// Tells who leads a shard, as its replica here knows, until that replica stops.
pub(in crate::cluster) async fn follow_leader(node: Arc<Node>, group: Arc<Group>) {
    let shard = ShardId(group.id().0);
    let mut leadership = group.leadership();
    // One that was closed on purpose has nothing more to say.
    while node.is_open(&group) {
        let Leadership { leader, term, .. } = *leadership.borrow_and_update();
        let owner = leader.map(|leader| (leader, node.name_of(leader)));
        node.feed().note_leader(shard, owner, term);
        if leadership.changed().await.is_err() {
            return;
        }
    }
}

impl Node {
    fn members_seen(&self) -> Vec<MemberSeen> {
        let (links, gossip, me) = (self.links(), self.gossip(), self.feed().boot());
        let seen = |status: MemberStatus| {
            let by_gossip = gossip.get(&status.node).map(|member| member.record.boot_id);
            let by_link = || links.get(&status.node).filter(|link| link.up).map(|link| link.boot_id);
            let boot_id = if status.is_self { Some(me) } else { by_gossip.or_else(by_link) };
            MemberSeen { status, boot_id }
        };
        self.members().into_iter().map(seen).collect()
    }

    /// The name of a member; of one that is not in the roster as it is known here, its number.
    fn name_of(&self, node: NodeId) -> String {
        let member = self.known_members().into_iter().find(|member| member.node == node);
        member.map_or_else(|| node.to_string(), |member| member.name)
    }
}
