//! What goes wrong, when, drawn from the seed.

use crate::{
    disk::Speed,
    world::{World, address},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{sync::Arc, time::Duration};

const CALM_MS: std::ops::RangeInclusive<u64> = 500..=12_000;
const TROUBLE_MS: std::ops::RangeInclusive<u64> = 200..=15_000;

#[derive(Debug, Clone, Copy)]
enum Fault {
    Crash,
    CrashAll,
    /// Several crashes of one node in a row.
    CrashLoop,
    Isolate,
    CutPair,
    CutOneWay,
    Loss,
    Delay,
    Disconnect,
    SlowDisk,
    /// Trouble in gossip only.
    GossipLoss,
    /// A clock that is off, and jumps back when it is healed.
    ClockJump,
}

const FAULTS: [Fault; 12] = [
    Fault::Crash,
    Fault::CrashAll,
    Fault::CrashLoop,
    Fault::Isolate,
    Fault::CutPair,
    Fault::CutOneWay,
    Fault::Loss,
    Fault::Delay,
    Fault::Disconnect,
    Fault::SlowDisk,
    Fault::GossipLoss,
    Fault::ClockJump,
];

/// Troubles the world until `end`, then leaves it whole: every node up, every path open.
pub async fn trouble(world: &Arc<World>, end: tokio::time::Instant, seed: u64) -> u32 {
    let mut random = StdRng::seed_from_u64(seed ^ 0xFA17);
    let mut count = 0;
    while tokio::time::Instant::now() < end {
        pause(&mut random, CALM_MS).await;
        let fault = FAULTS[random.random_range(0..FAULTS.len())];
        tracing::info!(?fault, "begins");
        inflict(world, fault, &mut random).await;
        count += 1;
        // Now and then the next trouble comes on top of this one.
        if random.random_bool(0.7) {
            heal(world).await;
        }
    }
    heal(world).await;
    count
}

async fn inflict(world: &Arc<World>, fault: Fault, random: &mut StdRng) {
    let nodes = world.size();
    let one = random.random_range(0..nodes);
    let other = (one + random.random_range(1..nodes)) % nodes;
    let (here, there) = (address(one), address(other));
    match fault {
        Fault::Crash => world.crash(one),
        Fault::CrashAll => (0..nodes).for_each(|i| world.crash(i)),
        Fault::CrashLoop => {
            for _ in 0..3 {
                world.crash(one);
                pause(random, 0..=300).await;
                world.start(one).await;
                pause(random, 0..=2_000).await;
            }
        }
        Fault::Isolate => {
            world.network.isolate(&here);
            world.cut_gossip(one);
        }
        Fault::CutPair => world.network.partition(&here, &there),
        Fault::CutOneWay => world.network.cut(&here, &there),
        Fault::Loss => {
            for i in (0..nodes).filter(|i| *i != one) {
                let probability = random.random_range(0.01..0.3);
                world.network.drop_probability(&here, &address(i), probability);
                world.network.drop_probability(&address(i), &here, probability);
            }
        }
        Fault::Delay => {
            let delay = Duration::from_millis(random.random_range(5..=700));
            world.network.delay(&here, &there, delay);
            world.network.delay(&there, &here, delay / 2);
        }
        Fault::Disconnect => world.network.disconnect(&here, &there),
        Fault::SlowDisk => world.set_disk_speed(one, Speed::SLOW),
        Fault::ClockJump => world.set_clock_off_ms(one, random.random_range(-60_000..=60_000)),
        Fault::GossipLoss => world.set_gossip_loss(random.random_range(0.1..0.9)),
    }
    pause(random, TROUBLE_MS).await;
}

/// Ends every trouble.
async fn heal(world: &Arc<World>) {
    world.network.heal_all();
    world.set_gossip_loss(0.0);
    for i in 0..world.size() {
        world.reconnect_gossip(i);
        world.set_disk_speed(i, Speed::USUAL);
        world.set_clock_off_ms(i, 0);
        if world.node(i).is_none() {
            world.start(i).await;
        }
    }
}

async fn pause(random: &mut StdRng, range_ms: std::ops::RangeInclusive<u64>) {
    tokio::time::sleep(Duration::from_millis(random.random_range(range_ms))).await;
}
