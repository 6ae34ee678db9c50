//! Lists of entities over all shards: each shard keeps its own in order, here they are merged.
//!
//! ```text
//! shard 0 ─ a few entries at a time ─┐
//! shard 1 ───────────────────────────┼─▶ the lowest of the first ones ─▶ page
//! shard 2 ───────────────────────────┘
//! ```
//!
//! A shard is asked again when its entries are used up and not before, so that no more than a few
//! of each are in memory. Every shard must answer: a part of a list is never given for the whole.

use super::{
    entity_ref::EntityRef,
    handle::Cluster,
    inspection::{OWNERS_ASKED, Page},
    types::{Consistency, Unavailable},
};
use crate::{
    entity::{Entity, Place},
    shard::{ENTRIES_MAX, ListEntry, ListPart, ListQuery, ListRequest, Router},
    storage::GroupId,
};
use futures::{StreamExt, TryStreamExt, stream};
use std::{collections::VecDeque, ops::RangeInclusive};
use tokio::time::Instant;

/// The most entries of a page.
const LIMIT_MAX: usize = 100;
const LIMIT_DEFAULT: usize = 20;
/// Bytes of states in one page; one entry is given in any case.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// Which list, and which part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "it is a question; ask it with `Cluster::list`"]
pub struct Listing {
    lists: Vec<(String, String)>,
    orders: RangeInclusive<u64>,
    after: Option<Place>,
    limit: usize,
    consistency: Consistency,
}

/// An entity in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<S> {
    /// Where it stands: what goes on behind it begins [`Listing::after`] it.
    pub place: Place,
    /// What the list carries of it ([`Entity::listed`]).
    pub state: S,
    pub version: u64,
}

impl Listing {
    /// The first entries of one list, as an entity's rows name it.
    pub fn of(list: impl Into<String>, of: impl Into<String>) -> Self {
        Self {
            lists: vec![(list.into(), of.into())],
            orders: 0..=u64::MAX,
            after: None,
            limit: LIMIT_DEFAULT,
            consistency: Consistency::default(),
        }
    }

    /// Only what is in this list too, with the same order. The first list is walked and this one
    /// looked into: begin with the shorter one.
    pub fn and(mut self, list: impl Into<String>, of: impl Into<String>) -> Self {
        self.lists.push((list.into(), of.into()));
        self
    }

    pub fn orders(mut self, orders: RangeInclusive<u64>) -> Self {
        self.orders = orders;
        self
    }

    pub fn after(mut self, place: Option<Place>) -> Self {
        self.after = place;
        self
    }

    /// At most so many; 20 if nothing is said, 100 at most.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit.clamp(1, LIMIT_MAX);
        self
    }

    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.consistency = consistency;
        self
    }

    fn query(&self, entity_type: &str, shards: u16) -> ListQuery {
        // What each shard has of a page on average, twice, and a few: most pages take one round.
        let share = (2 * self.limit).div_ceil(usize::from(shards.max(1))) + 4;
        ListQuery {
            entity_type: entity_type.to_owned(),
            lists: self.lists.clone(),
            orders: (*self.orders.start(), *self.orders.end()),
            after: self.after.clone(),
            limit: u32::try_from(share.min(self.limit + 1)).unwrap_or(ENTRIES_MAX),
        }
    }
}

impl Cluster {
    /// A page of entities of a type, from all shards. Each shard answers for a moment of its own:
    /// there is none at which all of it was true at once. A page may be shorter than its limit if
    /// its states are large; `has_more` is right in any case.
    ///
    /// # Errors
    /// If one shard does not answer, there is no page.
    pub async fn list<E: Entity>(&self, listing: &Listing) -> Result<Page<Listed<E::State>>, Unavailable> {
        let (router, timeout) = self.way().await?;
        let fan = Fan {
            query: listing.query(E::TYPE, router.shards()),
            consistency: listing.consistency,
            deadline: Instant::now() + timeout,
            router,
        };
        let page = fan.page(listing.limit).await?;
        let mut data = Vec::with_capacity(page.data.len());
        for ListEntry { place, state } in page.data {
            let entity = EntityRef::<E>::new(self.node().clone(), place.id.clone());
            let found = entity.snapshot(&fan.router, state, listing.consistency).await?;
            data.push(Listed { place, state: found.state, version: found.version });
        }
        Ok(Page { data, has_more: page.has_more })
    }
}

/// Asks the shards for their parts of one page.
struct Fan {
    query: ListQuery,
    consistency: Consistency,
    deadline: Instant,
    router: Router,
}

impl Fan {
    async fn page(&self, limit: usize) -> Result<Page<ListEntry>, Unavailable> {
        let mut merge = Merge::of(self.router.shards(), self.query.after.as_ref());
        let (mut data, mut bytes) = (Vec::new(), 0);
        loop {
            self.fill(&mut merge).await?;
            while merge.is_filled() {
                let Some(entry) = merge.pop() else { return Ok(Page { data, has_more: false }) };
                bytes += entry.state.bytes();
                if data.len() == limit || (bytes > PAGE_BYTES_MAX && !data.is_empty()) {
                    return Ok(Page { data, has_more: true });
                }
                data.push(entry);
            }
        }
    }

    /// Has every shard whose entries are used up asked for more.
    async fn fill(&self, merge: &mut Merge) -> Result<(), Unavailable> {
        let asked = merge.empty().map(|(shard, after)| {
            let asked = ListQuery { after, ..self.query.clone() };
            let request = ListRequest { group: GroupId(shard), asked, consistency: self.consistency };
            async move { Ok((shard, self.router.list(&request, self.deadline).await?)) }
        });
        let asked: Vec<_> = asked.collect();
        let parts = stream::iter(asked).buffer_unordered(OWNERS_ASKED).try_collect::<Vec<_>>().await;
        for (shard, part) in parts.map_err(|error| self.explain(error, merge))? {
            merge.add(shard, part);
        }
        Ok(())
    }

    /// A shard that has answered before is there: it is the list that takes too long.
    fn explain(&self, error: Unavailable, merge: &Merge) -> Unavailable {
        match error {
            Unavailable::NoQuorum { shard } if Instant::now() >= self.deadline && merge.has_answered(shard.0) => {
                Unavailable::Overloaded { limit: "the time for a list (shard.command_timeout)".into() }
            }
            other => other,
        }
    }
}

/// The parts of one page as they come in.
struct Merge(Vec<Branch>);

/// One shard's part.
#[derive(Default)]
struct Branch {
    ready: VecDeque<ListEntry>,
    rest_after: Option<Place>,
    has_answered: bool,
}

impl Branch {
    /// Nothing comes behind what is ready.
    fn is_whole(&self) -> bool {
        self.has_answered && self.rest_after.is_none()
    }

    fn is_empty(&self) -> bool {
        self.ready.is_empty() && !self.is_whole()
    }
}

impl Merge {
    fn of(shards: u16, after: Option<&Place>) -> Self {
        let branch = |_| Branch { rest_after: after.cloned(), ..Branch::default() };
        Self((0..shards).map(branch).collect())
    }

    /// The shards that must be asked before the next entry is known, and after what.
    fn empty(&self) -> impl Iterator<Item = (u16, Option<Place>)> {
        let numbered = (0_u16..).zip(&self.0).filter(|(_, branch)| branch.is_empty());
        numbered.map(|(shard, branch)| (shard, branch.rest_after.clone()))
    }

    fn is_filled(&self) -> bool {
        !self.0.iter().any(Branch::is_empty)
    }

    fn has_answered(&self, shard: u16) -> bool {
        self.0.get(usize::from(shard)).is_some_and(|branch| branch.has_answered)
    }

    fn add(&mut self, shard: u16, part: ListPart) {
        if let Some(branch) = self.0.get_mut(usize::from(shard)) {
            branch.has_answered = true;
            branch.ready.extend(part.entries);
            branch.rest_after = part.rest_after;
        }
    }

    /// The next entry of all, once every branch is filled.
    fn pop(&mut self) -> Option<ListEntry> {
        let first = self.0.iter_mut().filter(|branch| !branch.ready.is_empty());
        first.min_by(|a, b| a.ready[0].place.cmp(&b.ready[0].place))?.ready.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::StoredState;
    use proptest::{collection::vec, prelude::*};

    fn entry(order: u64, id: usize) -> ListEntry {
        let state = StoredState { state: None, version: 1, applied_index: 0 };
        ListEntry { place: Place { order, id: format!("{id:03}") }, state }
    }

    /// Merges lists that are asked for `step` entries at a time.
    fn merged(shards: &[Vec<ListEntry>], step: usize) -> Vec<Place> {
        let mut merge = Merge::of(u16::try_from(shards.len()).expect("few"), None);
        let mut found = Vec::new();
        loop {
            for (shard, after) in merge.empty().collect::<Vec<_>>() {
                let all = shards[usize::from(shard)].iter();
                let rest: Vec<_> =
                    all.filter(|entry| after.as_ref().is_none_or(|after| entry.place > *after)).collect();
                let entries: Vec<_> = rest.iter().take(step).map(|entry| (*entry).clone()).collect();
                let rest_after = (rest.len() > step).then(|| entries[step - 1].place.clone());
                merge.add(shard, ListPart { entries, rest_after });
            }
            while merge.is_filled() {
                match merge.pop() {
                    Some(entry) => found.push(entry.place),
                    None => return found,
                }
            }
        }
    }

    proptest! {
        #[test]
        fn parts_of_any_size_merge_into_one_order(orders in vec((0..4_usize, 0..9_u64), 0..60), step in 1..9_usize) {
            let mut shards = vec![Vec::new(); 4];
            for (id, (shard, order)) in orders.iter().enumerate() {
                shards[*shard].push(entry(*order, id));
            }
            shards.iter_mut().for_each(|shard: &mut Vec<ListEntry>| shard.sort_by(|a, b| a.place.cmp(&b.place)));
            let mut expected: Vec<_> = shards.iter().flatten().map(|entry| entry.place.clone()).collect();
            expected.sort();
            prop_assert_eq!(merged(&shards, step), expected);
        }
    }

    #[test]
    fn a_part_without_entries_is_not_the_end() {
        let mut merge = Merge::of(1, None);
        let rest_after = Some(Place { order: 7, id: "a".into() });
        merge.add(0, ListPart { entries: Vec::new(), rest_after: rest_after.clone() });
        assert_eq!(merge.empty().collect::<Vec<_>>(), [(0, rest_after)], "it looked, and found nothing so far");
        merge.add(0, ListPart { entries: vec![entry(9, 1)], rest_after: None });
        assert!(merge.is_filled() && merge.pop().is_some() && merge.pop().is_none());
    }

    #[test]
    fn a_shard_is_asked_for_its_share_of_a_page() {
        let limit = |limit, shards| Listing::of("all", "").limit(limit).query("order", shards).limit;
        assert_eq!((limit(100, 1), limit(100, 16), limit(100, 4096), limit(1, 16)), (101, 17, 5, 2));
        assert_eq!(limit(1000, 1), 101, "a page has at most {LIMIT_MAX}");
    }
}
