//! After each call: what foca asked for is carried out, and the view follows.

use super::{
    super::{
        identity::{ANYONE, Identity},
        record::RECORDS_MAX,
        timers::Due,
        view,
        wire::Message,
    },
    Engine, Packet,
};
use crate::catalog::NodeId;
use foca::{Codec, Header, OwnedNotification, PostcardCodec};
use std::{collections::BTreeSet, time::Duration};

impl Engine {
    /// Carries out what foca asked for, and brings the view up to date.
    pub(super) fn settle(&mut self, now: Duration) {
        while let Some((to, bytes)) = self.runtime.to_send() {
            self.send_swim(to, &bytes);
        }
        while let Some((after, timer)) = self.runtime.to_schedule() {
            self.timers.schedule(now, after, Due::Swim(timer));
        }
        while let Some(notification) = self.runtime.to_notify() {
            self.heed(now, notification);
        }
        if self.own.generation != self.foca.identity().generation {
            self.publish(now);
        }
        self.refresh_view();
    }

    fn send_swim(&mut self, to: Identity, bytes: &[u8]) {
        let header = <PostcardCodec as Codec<Identity>>::decode_header(&mut PostcardCodec, bytes);
        let message = header.ok().map(|header| header.message);
        if self.is_spurious_undead(&to, message.as_ref()) {
            self.counts.undead_withheld += 1;
            return;
        }
        if let Some(foca::Message::Ping(_)) = message {
            self.tell_suspect(&to);
        }
        let to_all = to.node == ANYONE;
        self.packets.push(Packet { to: to.address, to_all, bytes: Message::Swim(bytes).encode() });
    }

    /// foca 2.0 tells a member that it is down when a suspicion runs out, also when the member
    /// has refuted it by then. The member would believe it and start a new life for nothing.
    fn is_spurious_undead(&self, to: &Identity, message: Option<&foca::Message<Identity>>) -> bool {
        #[cfg(test)]
        if !self.withhold_undead {
            return false;
        }
        message == Some(&foca::Message::TurnUndead) && self.foca.iter_members().any(|member| member.id() == to)
    }

    /// Whoever is probed while it is suspected hears of the suspicion, and can refute it: the buddy
    /// system of Lifeguard (Dadgar, Phillips and Currey, 2018). foca 2.0 passes a suspicion on a few
    /// times and no more. A member that heard none of these answers every probe and stays a suspect
    /// for ever, if the suspicion cannot run out because the suspecting node began a new life.
    fn tell_suspect(&mut self, to: &Identity) {
        let Some(suspect) = self.foca.iter_members().find(|member| member.id() == to) else { return };
        if suspect.state() != foca::State::Suspect {
            return;
        }
        let src = self.foca.identity().clone();
        // Of this node's incarnation it says nothing: zero is never news.
        let header = Header { src, src_incarnation: 0, dst: to.clone(), message: foca::Message::Gossip };
        let mut bytes = Vec::new();
        let written = PostcardCodec.encode_header(&header, &mut bytes).and_then(|()| {
            bytes.extend(1_u16.to_be_bytes());
            PostcardCodec.encode_member(suspect, &mut bytes)
        });
        match written {
            Ok(()) => self.push(to.address.clone(), &Message::Swim(&bytes)),
            Err(error) => {
                self.counts.faults += 1;
                tracing::debug!(%error, "a suspicion could not be written");
            }
        }
    }

    fn heed(&mut self, now: Duration, notification: OwnedNotification<Identity>) {
        match notification {
            OwnedNotification::MemberUp(id) | OwnedNotification::Rename(_, id) => {
                let known = self.shelf.records.lock().get(id.node).map(|r| r.generation);
                if known.is_none_or(|generation| generation < id.generation) {
                    self.ask(id.address);
                }
            }
            OwnedNotification::Rejoin(_) => self.counts.rejoins += 1,
            // Alone: look for the others quickly again. Not after `leave`, which ends in Defunct.
            OwnedNotification::Idle => self.announce_later(now),
            _ => {}
        }
    }

    fn refresh_view(&mut self) {
        let me = self.own.node;
        let mut records = self.shelf.records.lock();
        let mut seen = 0;
        for member in self.foca.iter_membership_state().filter(|m| m.id().node != me) {
            let Some(record) = records.get(member.id().node) else { continue };
            seen += 1;
            self.view_changed |= view::update(&mut self.view, member, record);
        }
        if self.view.len() > seen || records.len() >= RECORDS_MAX {
            let known: BTreeSet<NodeId> = self.foca.iter_membership_state().map(|m| m.id().node).collect();
            records.retain(|node| known.contains(&node));
            let listed = self.view.len();
            self.view.retain(|node, _| known.contains(node));
            self.view_changed |= self.view.len() != listed;
        }
    }
}
