//! Each node's copy of the endpoints, and who has which.
//!
//! A node follows the entity and notes in another one how far it has come, so that whoever changes
//! an endpoint can wait until the others know. A copy counts for [`COPY_VALID`] after it was last
//! confirmed: a node that is cut off from the endpoints and still decides orders then takes the way
//! of [`super::announcement`], and nothing is lost on it.

use super::{
    COPY_VALID,
    delivery::Never,
    endpoints::{ALL, Endpoint, Endpoints},
};
use crate::{
    Cluster,
    cluster::{Consistency, Snapshot, Unavailable},
    entity::{Context, Decision, Entity},
};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::Instant;

/// A copy is confirmed this often where nothing changes.
const CONFIRM_EVERY: Duration = Duration::from_secs(2);
const OWNER_PAUSE: Duration = Duration::from_millis(100);
/// How often whoever waits for the others looks at who is there at all.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The endpoints as one node knows them.
#[derive(Default)]
pub struct Copy(RwLock<Option<Known>>);

struct Known {
    endpoints: Arc<Vec<Endpoint>>,
    until: Instant,
}

impl Copy {
    /// `None` if it is not there, or too old to act on.
    pub fn get(&self) -> Option<Arc<Vec<Endpoint>>> {
        let known = self.0.read();
        known.as_ref().filter(|known| Instant::now() < known.until).map(|known| known.endpoints.clone())
    }

    pub(super) fn set(&self, endpoints: Vec<Endpoint>, until: Instant) {
        *self.0.write() = Some(Known { endpoints: Arc::new(endpoints), until });
    }
}

/// The copy, or, if it does not count, what the owner has.
pub async fn current(copy: &Copy, cluster: &Cluster) -> Result<Arc<Vec<Endpoint>>, Unavailable> {
    match copy.get() {
        Some(endpoints) => Ok(endpoints),
        None => {
            let found = cluster.entity::<Endpoints>(ALL).state(Consistency::Linearizable).await?;
            Ok(Arc::new(found.state.endpoints))
        }
    }
}

/// Follows the endpoints for as long as the node runs.
pub async fn watch(cluster: Cluster, copy: Arc<Copy>) {
    let (mut seen, mut noted) = (None, 0);
    loop {
        match follow(&cluster, &copy, seen).await {
            Ok(version) => seen = Some(version),
            Err(error) => {
                tracing::debug!(%error, "the webhook endpoints cannot be followed just now");
                tokio::time::sleep(OWNER_PAUSE).await;
                continue;
            }
        }
        // Where there never was an endpoint there is nothing to note.
        if let Some(version) = seen.filter(|version| *version > noted) {
            let note = Seen { node: cluster.name().to_owned(), version };
            match cluster.entity::<Copies>(ALL).ask(note).await {
                Ok(()) => noted = version,
                Err(error) => tracing::debug!(%error, "cannot note which webhook endpoints are known here"),
            }
        }
    }
}

async fn follow(cluster: &Cluster, copy: &Copy, seen: Option<u64>) -> Result<u64, Unavailable> {
    let entity = cluster.entity::<Endpoints>(ALL);
    // What is answered was true after this.
    let asked = Instant::now();
    let found = match seen {
        Some(version) => entity.changed(version, CONFIRM_EVERY).await?,
        None => entity.state(Consistency::Linearizable).await?,
    };
    copy.set(found.state.endpoints, asked + COPY_VALID);
    Ok(found.version)
}

/// Waits until every node that this one is linked with knows the endpoints at this version, at most
/// for [`COPY_VALID`]: by then what they knew before counts no longer.
pub async fn spread(cluster: &Cluster, version: u64) {
    let copies = cluster.entity::<Copies>(ALL);
    let deadline = Instant::now() + COPY_VALID;
    let mut found = Snapshot { state: BTreeMap::new(), version: 0, applied_index: 0 };
    while Instant::now() < deadline {
        let knows = |name: &str| found.state.get(name).is_some_and(|known| *known >= version);
        let mut linked = cluster.members().into_iter().filter(|member| member.linked);
        if found.version > 0 && linked.all(|member| knows(&member.name)) {
            return;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        match copies.changed(found.version, left.min(LOOK_EVERY)).await {
            Ok(newer) => found = newer,
            Err(_) => tokio::time::sleep(OWNER_PAUSE).await,
        }
    }
    tracing::warn!(version, "not every node knows the webhook endpoints yet");
}

/// The entity that says which nodes know the endpoints, and at which version.
pub struct Copies;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub node: String,
    pub version: u64,
}

impl Entity for Copies {
    const TYPE: &'static str = "webhook_copies";

    type State = BTreeMap<String, u64>;
    type Command = Seen;
    type Event = Seen;
    type Reply = ();
    type Rejection = Never;

    fn decide(state: &Self::State, seen: Seen, _: &Context<'_>) -> Decision<Self> {
        match state.get(&seen.node) {
            Some(known) if *known >= seen.version => Decision::reply(()),
            _ => Decision::accept(vec![seen], ()),
        }
    }

    fn evolve(state: &mut Self::State, seen: &Seen) {
        state.insert(seen.node.clone(), seen.version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_copy_that_was_not_confirmed_for_long_does_not_count() {
        let copy = Copy::default();
        assert!(copy.get().is_none(), "not there yet");
        copy.set(Vec::new(), Instant::now() + COPY_VALID);
        assert_eq!(copy.get().as_deref(), Some(&Vec::new()));
        copy.set(Vec::new(), Instant::now());
        assert!(copy.get().is_none(), "too old");
    }

    #[test]
    fn who_knows_it_already_leaves_no_trace() {
        let context = Context { id: ALL, version: 0, now_ms: 1, random: 1 };
        let seen = |version| Seen { node: "node-1".into(), version };
        let mut state = BTreeMap::new();
        Copies::evolve(&mut state, &seen(3));
        for (version, events) in [(2, 0), (3, 0), (4, 1)] {
            let Decision::Accept { events: found, .. } = Copies::decide(&state, seen(version), &context);
            assert_eq!(found.len(), events, "{version}");
        }
    }
}
