//! The network between the nodes, and what is done to it.
//!
//! ```text
//! namespace:  n1 ─ 127.0.1.1 ────── nft drops ──────▶ 127.0.1.2 ─ n2      cuts, loss
//! proxy:      n1 ─ 127.0.1.1 ─▶ 127.0.2.2 (proxy) ──▶ 127.0.1.2 ─ n2      everything
//! both:       n1 ─ 127.0.1.1 ─ nft ─▶ 127.0.2.2 (proxy) ─▶ 127.0.1.2 ─ n2
//! ```
//!
//! Where the run has a network namespace of its own, packets are lost in the kernel: TCP sends again,
//! backs off and gives up as it does in a real network. What nft cannot do (delay, reordering,
//! duplication, resets) is a proxy's to do; without a namespace it does everything. Without faults
//! that need it, there is none in a namespace: the nodes are linked with each other.

mod filter;
mod namespace;
mod proxy;

pub use namespace::{Entrance, Namespace};
pub use proxy::{Change, Condition};

use super::plan::Plan;
use filter::Filter;
use proxy::Proxies;
use std::net::SocketAddrV4;

/// How the nodes of a run are kept apart.
#[derive(Debug, Clone)]
pub enum Way {
    /// Without privileges; and why not in a namespace.
    Proxy { why: String },
    /// This process is in it.
    Namespace(Namespace),
}

impl Way {
    /// Its name on the command line.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Proxy { .. } => "proxy",
            Self::Namespace(_) => "namespace",
        }
    }

    /// Whether proxies are needed for what a plan asks for.
    pub fn needs_proxies(&self, plan: &Plan) -> bool {
        match self {
            Self::Proxy { .. } => true,
            Self::Namespace(_) => plan.events.iter().any(|event| event.fault.needs_proxy()),
        }
    }
}

/// Where a node listens, and where a proxy does in its place.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub listen: SocketAddrV4,
    pub proxied: SocketAddrV4,
}

/// What is between the nodes. At least one of the two is there.
pub struct Network {
    filter: Option<Filter>,
    proxies: Option<Proxies>,
    /// For people: the way, and why.
    pub about: String,
}

impl Network {
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// An address that cannot be listened on, or a namespace that cannot be set up.
    pub async fn start(way: &Way, plan: &Plan, places: &[Place]) -> Result<Self, String> {
        let proxies = match way.needs_proxies(plan) {
            true => Some(Proxies::start(places, plan.seed).await.map_err(|error| error.to_string())?),
            false => None,
        };
        let filter = match way {
            Way::Proxy { .. } => None,
            Way::Namespace(namespace) => Some(Filter::start(namespace.nft(), places).await?),
        };
        let about = match (way, &proxies) {
            (Way::Proxy { why }, _) => format!("a proxy between the nodes, on loopback, without privileges: {why}"),
            (Way::Namespace(namespace), None) => {
                format!("a network namespace of the run's own ({}), where nft drops packets", namespace.id())
            }
            (Way::Namespace(namespace), Some(_)) => format!(
                "a network namespace of the run's own ({}), where nft drops packets; a proxy delays, doubles, reorders \
                 and resets",
                namespace.id()
            ),
        };
        Ok(Self { filter, proxies, about })
    }

    /// From now on, until [`Network::restore`] with the same number.
    ///
    /// # Errors
    /// It could not be done, or not all of it.
    pub async fn apply(&self, number: u64, change: Change) -> Result<(), String> {
        let (dropped, rest) = match self.filter {
            Some(_) => split(&change),
            None => (None, Some(change)),
        };
        if let (Some(filter), Some(change)) = (&self.filter, dropped) {
            filter.apply(number, change).await?;
        }
        match (&self.proxies, rest) {
            (Some(proxies), Some(change)) => proxies.apply(number, change),
            (None, Some(_)) => return Err("there is no proxy between the nodes".into()),
            (_, None) => {}
        }
        Ok(())
    }

    /// # Errors
    /// Packets are still dropped.
    pub async fn restore(&self, number: u64) -> Result<(), String> {
        if let Some(proxies) = &self.proxies {
            proxies.restore(number);
        }
        match &self.filter {
            Some(filter) => filter.restore(number).await,
            None => Ok(()),
        }
    }

    /// # Errors
    /// Packets are still dropped.
    pub async fn restore_all(&self) -> Result<(), String> {
        if let Some(proxies) = &self.proxies {
            proxies.restore_all();
        }
        match &self.filter {
            Some(filter) => filter.restore_all().await,
            None => Ok(()),
        }
    }

    /// Ends every connection from or to a node (counted from 1), with a reset.
    ///
    /// # Errors
    /// There is no proxy that could.
    pub fn reset(&self, node: u16) -> Result<(), String> {
        let proxies = self.proxies.as_ref().ok_or("there is no proxy between the nodes")?;
        proxies.reset(node);
        Ok(())
    }

    /// How many packets the kernel has dropped, where it is the kernel that does.
    pub async fn packets_dropped(&self) -> Option<u64> {
        self.filter.as_ref()?.packets_dropped().await.ok()
    }
}

/// What the kernel does of a change, and what is left for proxies.
fn split(change: &Change) -> (Option<Change>, Option<Change>) {
    let Condition { blocked, loss, .. } = change.condition;
    let dropped = Condition { blocked, loss, ..Condition::default() };
    let rest = Condition { blocked: false, loss: 0.0, ..change.condition };
    let part =
        |condition| (condition != Condition::default()).then(|| Change { pairs: change.pairs.clone(), condition });
    (part(dropped), part(rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::{fault::Kind, plan::Wanted};
    use std::time::Duration;

    #[test]
    fn the_kernel_drops_and_proxies_do_the_rest() {
        let all = Condition { blocked: true, loss: 0.2, delay: Duration::from_millis(5), ..Condition::default() };
        let change = |condition| Change { pairs: vec![(1, 2)], condition };
        let (dropped, rest) = split(&change(all));
        assert_eq!(dropped, Some(change(Condition { delay: Duration::ZERO, ..all })));
        assert_eq!(rest, Some(change(Condition { delay: all.delay, ..Condition::default() })));
        assert_eq!(split(&change(Condition::blocked())), (Some(change(Condition::blocked())), None));
    }

    #[test]
    fn a_namespace_needs_proxies_only_for_what_nft_cannot_do() {
        let plan =
            |kinds: &[Kind]| Wanted { faults: Some(kinds.to_vec()), ..Wanted::default() }.decide(1).expect("a plan");
        let namespace = Way::Namespace(Namespace::for_tests());
        assert!(!namespace.needs_proxies(&plan(&[Kind::Kill, Kind::Partition, Kind::PartitionOneWay, Kind::Loss])));
        for kind in [Kind::Delay, Kind::Reorder, Kind::Duplicate, Kind::Reset] {
            assert!(namespace.needs_proxies(&plan(&[Kind::Kill, kind])), "{kind}");
        }
        assert!(Way::Proxy { why: String::new() }.needs_proxies(&plan(&[Kind::Kill])));
    }

    #[tokio::test]
    async fn what_nobody_is_there_for_is_an_error_and_not_done() {
        let network = Network { filter: None, proxies: None, about: String::new() };
        let slow = Condition { delay: Duration::from_millis(5), ..Condition::default() };
        let applied = network.apply(1, Change { pairs: vec![(1, 2)], condition: slow }).await;
        assert!(applied.is_err() && network.reset(1).is_err());
    }
}
