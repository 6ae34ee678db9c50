//! The in-memory twin of UDP, for many nodes in one process.
//!
//! A [`Network`] carries packets between the addresses that joined it, and can be told to lose
//! some or to cut nodes off. Like UDP it never waits and never promises.

use super::Datagrams;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};
use tokio::sync::Notify;

/// The most packets that wait at one endpoint; further ones are lost.
const QUEUE_MAX: usize = 1024;

/// A network of endpoints. Clones are the same network.
#[derive(Clone)]
pub struct Network {
    wires: Arc<Mutex<Wires>>,
}

struct Wires {
    endpoints: HashMap<String, Arc<Queue>>,
    cut_off: HashSet<String>,
    loss: f64,
    random: StdRng,
}

#[derive(Default)]
struct Queue {
    packets: Mutex<VecDeque<Vec<u8>>>,
    arrived: Notify,
}

/// One address on a [`Network`]. Dropping it takes the address off the network.
pub struct Endpoint {
    network: Network,
    address: String,
    queue: Arc<Queue>,
}

impl Default for Network {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Network {
    /// `random_seed` decides which packets get lost.
    pub fn new(random_seed: u64) -> Self {
        let random = StdRng::seed_from_u64(random_seed);
        let wires = Wires { endpoints: HashMap::new(), cut_off: HashSet::new(), loss: 0.0, random };
        Self { wires: Arc::new(Mutex::new(wires)) }
    }

    /// Takes an address, for [`super::start_with`]. Whoever had it before hears nothing any more.
    pub fn join(&self, address: &str) -> Arc<Endpoint> {
        let queue = Arc::new(Queue::default());
        self.wires.lock().endpoints.insert(address.to_owned(), queue.clone());
        Arc::new(Endpoint { network: self.clone(), address: address.to_owned(), queue })
    }

    /// The endpoint at an address vanishes: what it still has to say is lost.
    pub fn crash(&self, address: &str) {
        self.wires.lock().endpoints.remove(address);
    }

    /// Loses this share of all packets, 0.0 to 1.0.
    pub fn set_loss(&self, share: f64) {
        self.wires.lock().loss = share.clamp(0.0, 1.0);
    }

    /// Loses every packet to and from an address, until [`Network::reconnect`].
    pub fn cut_off(&self, address: &str) {
        self.wires.lock().cut_off.insert(address.to_owned());
    }

    pub fn reconnect(&self, address: &str) {
        self.wires.lock().cut_off.remove(address);
    }
}

impl Wires {
    fn carry(&mut self, from: &str, to: &str, packet: Vec<u8>) {
        let lost = self.random.random::<f64>() < self.loss;
        if lost || self.cut_off.contains(from) || self.cut_off.contains(to) {
            return;
        }
        let Some(queue) = self.endpoints.get(to) else { return };
        let mut packets = queue.packets.lock();
        if packets.len() < QUEUE_MAX {
            packets.push_back(packet);
            queue.arrived.notify_one();
        }
    }
}

impl Datagrams for Endpoint {
    fn send(&self, address: &str, packet: Vec<u8>) {
        let mut wires = self.network.wires.lock();
        // Whoever lost its address, to a crash or to a successor, is not heard any more.
        if wires.endpoints.get(&self.address).is_some_and(|queue| Arc::ptr_eq(queue, &self.queue)) {
            wires.carry(&self.address, address, packet);
        }
    }

    fn send_to_all(&self, name: &str, packet: Vec<u8>) {
        self.send(name, packet);
    }

    fn readable(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            while self.queue.packets.lock().is_empty() {
                self.queue.arrived.notified().await;
            }
        })
    }

    fn try_receive(&self, buffer: &mut [u8]) -> Option<usize> {
        let packet = self.queue.packets.lock().pop_front()?;
        let length = packet.len().min(buffer.len());
        buffer[..length].copy_from_slice(&packet[..length]);
        Some(length)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let mut wires = self.network.wires.lock();
        // Somebody else may have taken the address by now.
        if wires.endpoints.get(&self.address).is_some_and(|queue| Arc::ptr_eq(queue, &self.queue)) {
            wires.endpoints.remove(&self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(endpoint: &Endpoint) -> Option<Vec<u8>> {
        let mut buffer = [0; 4];
        endpoint.try_receive(&mut buffer).map(|length| buffer[..length].to_vec())
    }

    #[test]
    fn packets_reach_the_address_until_it_is_cut_off_or_full() {
        let network = Network::new(1);
        let (a, b) = (network.join("a:1"), network.join("b:1"));
        a.send("b:1", vec![1, 2, 3, 4, 5]);
        a.send("nobody:1", vec![1]);
        assert_eq!(received(&b), Some(vec![1, 2, 3, 4]), "cut to the buffer, as UDP does");
        for cut in ["a:1", "b:1"] {
            network.cut_off(cut);
            a.send("b:1", vec![1]);
            assert_eq!(received(&b), None);
            network.reconnect(cut);
        }
        for _ in 0..QUEUE_MAX + 10 {
            a.send("b:1", vec![1]);
        }
        assert_eq!(std::iter::from_fn(|| received(&b)).count(), QUEUE_MAX);
        network.set_loss(1.0);
        a.send("b:1", vec![1]);
        assert_eq!(received(&b), None);
    }

    #[test]
    fn an_address_taken_over_survives_its_former_holder() {
        let network = Network::new(1);
        let (a, former) = (network.join("a:1"), network.join("b:1"));
        let holder = network.join("b:1");
        former.send("a:1", vec![2]);
        assert_eq!(received(&a), None, "the former holder is not heard");
        drop(former);
        a.send("b:1", vec![1]);
        assert_eq!(received(&holder), Some(vec![1]));
        network.crash("a:1");
        a.send("b:1", vec![1]);
        assert_eq!(received(&holder), None);
        drop(holder);
        a.send("b:1", vec![1]);
        assert!(!network.wires.lock().endpoints.contains_key("b:1"));
    }
}
