//! What one step of a stock costs while many reservations are open on it: decide, encode the
//! events, fold them. `cargo run --release --example hot_stock`.
//!
//! A step must not depend on how many are open. The last two columns are what it would cost to
//! copy or to encode the whole state, which no step may do.
#![allow(clippy::print_stdout)] // an example talks to whoever runs it

use quorate::{
    Context, Decision, Entity,
    commerce::stock::{Command, Event, Leg, Owner, RESERVATIONS_MAX, Route, State, Stock},
    entity::{codec, encode_event},
};
use std::{
    hint::black_box,
    time::{Duration, Instant},
};

const NOW_MS: u64 = 1_800_000_000_000;
const TTL_MS: u64 = 900_000;
const STEPS: u32 = 1000;

fn main() {
    println!("{:>6} {:>10} {:>10} {:>10} {:>10} {:>10}", "open", "reserve", "commit", "sweep of 1", "copy", "encode");
    for open in [0, 100, 1000, RESERVATIONS_MAX - 1] {
        let mut state = crowded(open);
        let (mut reserve, mut commit, mut sweep) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        for n in 0..STEPS {
            let owner = Owner::order(&format!("ord_{n:0>26}"));
            let leg = Leg { sku: "mug".into(), quantity: 1 };
            let route = Route { owner, done: 0, legs: vec![leg] };
            let hold = |until_ms| Command::Reserve { route: route.clone(), until_ms: Some(until_ms), may_wait: false };
            reserve += step(&mut state, hold(NOW_MS + TTL_MS), NOW_MS);
            commit += step(&mut state, Command::Commit(route.clone()), NOW_MS);
            step(&mut state, hold(NOW_MS + 1), NOW_MS);
            sweep += step(&mut state, Command::Sweep, NOW_MS + 1000);
        }
        let copy = timed(|| drop(black_box(state.clone())));
        let encode = timed(|| drop(black_box(codec::encode("state", &state))));
        let [reserve, commit, sweep] = [reserve, commit, sweep].map(|all| all / STEPS);
        println!("{open:>6} {reserve:>10.1?} {commit:>10.1?} {sweep:>10.1?} {copy:>10.1?} {encode:>10.1?}");
    }
}

/// A stock on which so many reservations are open.
fn crowded(open: usize) -> State {
    let mut state = State::default();
    Stock::evolve(&mut state, &Event::Put { on_hand: 1 << 32, backorder_limit: 0, previous: 0 });
    for n in 0..open {
        let owner = Owner::order(&format!("ord_open{n:0>22}"));
        Stock::evolve(&mut state, &Event::Reserved { owner, quantity: 1, until_ms: Some(NOW_MS + TTL_MS + n as u64) });
    }
    state
}

/// Decides, encodes and folds, as an entity's actor does.
fn step(state: &mut State, command: Command, now_ms: u64) -> Duration {
    let began = Instant::now();
    let context = Context { id: "mug", version: state.version, now_ms, random: 7 };
    let Decision::Accept { events, effects, .. } = Stock::decide(state, command, &context) else {
        return Duration::ZERO;
    };
    for event in &events {
        drop(black_box(encode_event::<Stock>(event)));
        Stock::evolve(state, event);
    }
    drop(black_box(effects));
    began.elapsed()
}

fn timed(work: impl Fn()) -> Duration {
    const TIMES: u32 = 20;
    let began = Instant::now();
    (0..TIMES).for_each(|_| work());
    began.elapsed() / TIMES
}
