//! Random worlds: many orders at once, mail in random order, a moody gateway, cancels, clock
//! jumps, and people who change the stock. However it goes, it must end well.

use super::{
    gateway::Mood,
    new_order, sagas,
    world::{Mail, World},
};
use crate::commerce::{
    order::{self, NewOrder, Order, Status},
    reservation::{self, NewReservation, Reservation},
    stock::{self, Leg},
};
use proptest::prelude::*;
use std::collections::BTreeSet;

const SKUS: [&str; 4] = ["apple", "bread", "cheese", "unlisted"];

/// SplitMix64 (Steele, Lea, Flood 2014): a world's only source of chance.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn mood(&mut self) -> Mood {
        match self.roll(20) {
            0 => Mood::Lose,
            1 => Mood::Away,
            2 => Mood::Decline("card_declined"),
            3 => Mood::Decline("authorization_expired"),
            _ => Mood::Approve,
        }
    }
}

/// A world in which `steps` random things happened and the rest is still under way.
fn busy_world(seed: u64, steps: usize) -> World {
    let mut world = World::new();
    let mut dice = Dice(seed);
    // In some worlds the gateway has a bad day.
    let bad_day = dice.roll(4) == 0;
    for sku in &SKUS[..3] {
        world.put_stock(sku, dice.roll(30)).expect("nothing is reserved yet");
    }
    for _ in 0..steps {
        match dice.roll(48) {
            0..=3 => place(&mut world, &mut dice),
            4 => reserve(&mut world, &mut dice),
            5 => cancel(&mut world, &mut dice),
            6 => change_stock(&mut world, &mut dice),
            7 => world.advance(dice.roll(400)),
            8 => world.advance(dice.roll(2 * order_ttl())),
            9 | 10 => end_reservation(&mut world, &mut dice),
            11..=13 => fulfill(&mut world, &mut dice),
            14 | 15 => take_back(&mut world, &mut dice),
            16 => repeat(&mut world, &mut dice),
            _ => deliver(&mut world, &mut dice, bad_day),
        }
        sagas::under_way(&world);
    }
    world
}

fn order_ttl() -> u64 {
    new_order(&[("apple", 1)]).reservation_ttl_ms
}

fn place(world: &mut World, dice: &mut Dice) {
    let lines: Vec<_> = (0..=dice.roll(3))
        .map(|_| {
            let sku = SKUS[if dice.roll(12) == 0 { 3 } else { dice.roll(3) as usize }];
            (sku, 1 + dice.roll(4) as i64)
        })
        .collect();
    let id = format!("ord_{}", world.orders.len());
    let order = NewOrder { backorder: dice.roll(3) == 0, ..new_order(&lines) };
    world.ask::<Order>(&id, &order::Command::Place(Box::new(order))).expect("a new id");
}

fn reserve(world: &mut World, dice: &mut Dice) {
    let items = (0..=dice.roll(3))
        .map(|_| Leg { sku: SKUS[dice.roll(3) as usize].to_owned(), quantity: 1 + dice.roll(4) as u32 })
        .collect();
    let id = format!("res_{}", world.reservations.len());
    let wanted = NewReservation { items, ttl_ms: 1000 + dice.roll(order_ttl()) };
    world.ask::<Reservation>(&id, &reservation::Command::Hold(wanted)).expect("a new id");
}

fn end_reservation(world: &mut World, dice: &mut Dice) {
    let Some(last) = (world.reservations.len() as u64).checked_sub(1) else { return };
    let id = format!("res_{}", dice.roll(last + 1));
    let command = match dice.roll(4) {
        0 => reservation::Command::Release,
        1 => reservation::Command::Extend { ttl_ms: dice.roll(order_ttl()) },
        _ => reservation::Command::Commit,
    };
    let before = world.reservation(&id).clone();
    if let Err(rejection) = world.ask::<Reservation>(&id, &command) {
        assert_eq!(rejection.code(), "illegal-transition");
        assert_eq!(world.reservation(&id), &before, "a rejection changes nothing");
    }
}

fn cancel(world: &mut World, dice: &mut Dice) {
    let Some(at) = (world.orders.len() as u64).checked_sub(1) else { return };
    let id = format!("ord_{}", dice.roll(at + 1));
    let before = world.order(&id).clone();
    let cancelled = world.ask::<Order>(&id, &order::Command::Cancel { reason: "changed my mind".into() });
    if let Err(rejection) = cancelled {
        assert_eq!(rejection.code(), "illegal-transition");
        assert_eq!(world.order(&id), &before, "a rejection changes nothing");
    }
}

fn fulfill(world: &mut World, dice: &mut Dice) {
    ship(world, dice, |items| order::Command::Fulfill { items, tracking: None });
}

fn take_back(world: &mut World, dice: &mut Dice) {
    ship(world, dice, |items| order::Command::Return { items, reason: None });
}

/// Everything that is left of an order, or some of one of its SKUs.
fn ship(world: &mut World, dice: &mut Dice, command: impl FnOnce(Vec<Leg>) -> order::Command) {
    let Some(last) = (world.orders.len() as u64).checked_sub(1) else { return };
    let id = format!("ord_{}", dice.roll(last + 1));
    let before = world.order(&id).clone();
    let mut items = Vec::new();
    if dice.roll(3) > 0 && !before.reservations.is_empty() {
        let leg = &before.reservations[dice.roll(before.reservations.len() as u64) as usize];
        items.push(Leg { sku: leg.sku.clone(), quantity: 1 + dice.roll(u64::from(leg.quantity)) as u32 });
    }
    if let Err(rejection) = world.ask::<Order>(&id, &command(items)) {
        assert!(["illegal-transition", "more-than-left"].contains(&rejection.code()), "{rejection:?}");
        assert_eq!(world.order(&id), &before, "a rejection changes nothing");
    }
}

fn repeat(world: &mut World, dice: &mut Dice) {
    if !world.mail.is_empty() {
        world.repeat(dice.roll(world.mail.len() as u64) as usize);
    }
}

fn change_stock(world: &mut World, dice: &mut Dice) {
    let sku = SKUS[dice.roll(3) as usize];
    let command = match dice.roll(2) {
        0 => stock::Command::Put { on_hand: dice.roll(30), backorder_limit: dice.roll(20) },
        _ => stock::Command::Adjust { delta: dice.roll(20) as i64 - 10, reason: "counted".into() },
    };
    // May be refused, because of what is reserved.
    let _ = world.supply(sku, &command);
}

fn deliver(world: &mut World, dice: &mut Dice, bad_day: bool) {
    let under_way = world.mail.len() as u64;
    if under_way == 0 {
        return world.advance(dice.roll(20));
    }
    let mood = if bad_day && dice.roll(3) > 0 { Mood::Away } else { dice.mood() };
    world.deliver(dice.roll(under_way) as usize, mood);
    world.advance(dice.roll(3));
}

/// The gateway recovers, all mail is delivered in random order, operators look after what needs
/// attention.
fn finish(world: &mut World, seed: u64) {
    let mut dice = Dice(!seed);
    for _ in 0..10 {
        while !world.mail.is_empty() {
            let at = dice.roll(world.mail.len() as u64) as usize;
            world.deliver(at, Mood::Approve);
        }
        world.run_to_the_end();
        let stuck = |(id, kept): (&String, &super::world::Kept<Order>)| {
            (kept.state.status == Status::NeedsAttention).then(|| id.clone())
        };
        let stuck: Vec<_> = world.orders.iter().filter_map(stuck).collect();
        let waiting = world.orders.values().any(|kept| kept.state.status == Status::Backordered);
        if stuck.is_empty() && !waiting {
            return;
        }
        // What was waited for comes in, all of it.
        for sku in SKUS[..3].iter().filter(|_| waiting) {
            let plenty = stock::Command::Adjust { delta: 100_000, reason: "delivery".into() };
            world.supply(sku, &plenty).expect("there is room");
        }
        for id in stuck {
            let again = order::Command::Cancel { reason: "operator".into() };
            world.ask::<Order>(&id, &again).expect("needs_attention can be tried again");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_world_ends_well(seed: u64, steps in 1..800usize) {
        let mut world = busy_world(seed, steps);
        finish(&mut world, seed);
        prop_assert_eq!(world.verdict(), Ok(()), "busy_world({}, {})", seed, steps);
        prop_assert_eq!(sagas::under_way(&world), [], "busy_world({}, {})", seed, steps);
    }
}

#[test]
fn random_worlds_visit_every_status_the_saga_drives() {
    let (mut visited, mut undone_money, mut held) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for seed in 0..60 {
        let mut world = busy_world(seed, 700);
        finish(&mut world, seed);
        assert_eq!(world.verdict(), Ok(()), "busy_world({seed}, 700)");
        for kept in world.orders.values() {
            let mut state = order::State::default();
            for fact in &kept.facts {
                <Order as crate::entity::Entity>::evolve(&mut state, fact);
                visited.insert(state.status.name());
                undone_money.insert(format!("{:?}", state.payment));
            }
        }
        held.extend(world.reservations.values().map(|kept| kept.state.status.name()));
    }
    assert_eq!(held, BTreeSet::from(["committed", "expired", "rejected", "released"]));
    let expected = [
        "authorized",
        "backordered",
        "cancelled",
        "compensating",
        "confirmed",
        "expired",
        "fulfilled",
        "needs_attention",
        "partially_fulfilled",
        "partially_returned",
        "pending",
        "rejected",
        "reserved",
        "returned",
    ];
    assert_eq!(visited, BTreeSet::from(expected));
    for money in ["Declined", "Voided", "Refunded", "Refunding", "PartiallyRefunded", "Unknown", "AuthorizationExpired"]
    {
        assert!(undone_money.contains(money), "{money} was never seen: {undone_money:?}");
    }
}

/// The checker can fail: without one effect, the verdict says what is missing.
#[test]
fn a_lost_effect_is_noticed() {
    let mut noticed = 0;
    for seed in 0..40 {
        let mut world = busy_world(seed, 300);
        if world.mail.is_empty() {
            continue;
        }
        let lost = world.mail.remove(0);
        finish(&mut world, seed);
        // Sweeps, queries and expiry notices heal: nothing waits for the one that is lost.
        if world.verdict().is_err() {
            noticed += 1;
        } else {
            assert!(matches!(lost, Mail::Command { .. } | Mail::Task { .. }));
        }
    }
    assert!(noticed >= 20, "only {noticed} of 40 losses were noticed");
}

/// The checker can fail: a charge behind the payment's back does not balance.
#[test]
fn a_double_charge_is_noticed() {
    let mut world = World::new();
    world.put_stock("apple", 5).expect("put");
    let place = order::Command::Place(Box::new(new_order(&[("apple", 1)])));
    world.ask::<Order>("ord_1", &place).expect("placed");
    world.run_to_the_end();
    assert_eq!(world.verdict(), Ok(()));
    let mut second = world.gateway.ledger["pay_1:capture"].clone();
    second.0.key = "pay_1:capture-2".into();
    world.gateway.ledger.insert(second.0.key.clone(), second);
    let verdict = world.verdict().expect_err("not balanced");
    assert!(verdict.contains("ord_1 is confirmed"), "{verdict}");
}
