use super::*;
use proptest::prelude::*;

/// A delivery, and the tasks that it asks for.
#[derive(Default)]
struct Driven {
    state: State,
    tasks: Vec<(String, Round)>,
}

impl Driven {
    fn tell(&mut self, command: Command) {
        let context = Context { id: "we_1:order:ord_7", version: 0, now_ms: 1, random: 1 };
        let decision = Delivery::decide(&self.state, command, &context);
        let Decision::Accept { events, effects, .. } = decision;
        events.iter().for_each(|event| Delivery::evolve(&mut self.state, event));
        for effect in effects {
            let Effect::Task(task) = effect else { panic!("a task") };
            assert_eq!(task.handler, "webhook-3");
            let round = crate::entity::decode_payload(task.payload).expect("a round");
            self.tasks.push((task.tag, round));
        }
    }

    fn poke(&mut self, first: u64, last: u64) {
        self.tell(Command::Poke { first, last, slot: 3 });
    }

    /// The round under way, as (after, from, skip); there must be one.
    fn round(&self) -> (u64, u64, bool) {
        assert!(self.state.round.is_some());
        let (_, round) = self.tasks.last().expect("a task");
        (round.after, round.from, round.skip)
    }

    fn end(&mut self, result: Result<Progress, &str>) {
        let tag = self.tasks.last().expect("a task").0.clone();
        self.tell(Command::RoundEnded { tag, result: result.map_err(str::to_owned) });
    }

    fn reach(&mut self, reached: u64, sent_from: Option<u64>) {
        self.end(Ok(Progress::Reached { reached, sent_from }));
    }

    fn is_idle(&self) -> bool {
        self.state.round.is_none()
    }
}

#[test]
fn the_first_poke_begins_a_round_over_the_whole_history() {
    let mut driven = Driven::default();
    driven.poke(4, 5);
    assert_eq!(driven.round(), (0, 4, false));
    let (_, round) = &driven.tasks[0];
    let subject = (round.endpoint.as_str(), round.subject_type.as_str(), round.subject_id.as_str());
    assert_eq!(subject, ("we_1", "order", "ord_7"));
    driven.reach(5, None);
    assert!(driven.is_idle());
}

#[test]
fn there_is_one_round_at_a_time_and_the_next_goes_on_where_it_ended() {
    let mut driven = Driven::default();
    driven.poke(1, 1);
    driven.poke(2, 2);
    driven.poke(3, 4);
    assert_eq!(driven.tasks.len(), 1);
    driven.reach(2, None);
    assert_eq!(driven.round(), (2, 3, false));
    driven.reach(4, None);
    assert!(driven.is_idle());
    assert_eq!(driven.tasks.len(), 2);
}

#[test]
fn a_poke_for_what_was_sent_is_nothing_new() {
    let mut driven = Driven::default();
    driven.poke(2, 2);
    driven.reach(6, None);
    let before = driven.state.clone();
    driven.poke(1, 1);
    driven.poke(5, 6);
    assert_eq!((driven.state, driven.tasks.len()), (before, 1));
}

#[test]
fn a_late_poke_for_what_was_left_out_goes_back_to_it() {
    let mut driven = Driven::default();
    driven.poke(5, 5);
    driven.reach(5, Some(5));
    driven.poke(3, 3);
    assert_eq!(driven.round(), (2, 3, false));
    driven.reach(5, None);
    assert!(driven.is_idle());
    driven.poke(4, 4);
    assert!(driven.is_idle(), "sent with the third");

    let mut driven = Driven::default();
    driven.poke(5, 5);
    driven.poke(3, 3);
    driven.reach(5, Some(5));
    assert_eq!(driven.round(), (2, 3, false), "also if it came while the round was under way");
}

#[test]
fn going_back_sends_everything_after_it_again_whether_it_was_poked_or_not() {
    let mut driven = Driven::default();
    driven.poke(5, 5);
    driven.reach(9, Some(4));
    driven.poke(3, 3);
    driven.reach(5, None);
    assert_eq!(driven.round(), (5, 6, false), "up to the ninth");
    driven.reach(9, None);
    assert!(driven.is_idle());
}

#[test]
fn after_a_dead_letter_everything_waits_until_it_is_retried() {
    let mut driven = Driven::default();
    driven.poke(1, 1);
    driven.end(Err("the endpoint answered 500"));
    assert!(driven.state.halted);
    driven.poke(2, 2);
    assert_eq!(driven.tasks.len(), 1);
    driven.end(Err("again"));
    driven.reach(1, None);
    assert_eq!(driven.round(), (1, 2, false));
    assert!(!driven.state.halted);
}

#[test]
fn a_discarded_dead_letter_skips_its_event_and_goes_on() {
    let mut driven = Driven::default();
    driven.poke(1, 1);
    driven.end(Err("no"));
    driven.poke(2, 2);
    let tag = driven.tasks[0].0.clone();
    driven.tell(Command::RoundDiscarded { tag: tag.clone() });
    assert_eq!(driven.round(), (0, 1, true));
    driven.tell(Command::RoundDiscarded { tag });
    assert_eq!(driven.tasks.len(), 2, "a round that is over is nobody's");
    driven.reach(1, None);
    assert_eq!(driven.round(), (1, 2, false), "what came meanwhile is not forgotten");
}

#[test]
fn who_stops_forgets_what_waited_but_not_what_came_since() {
    let mut driven = Driven::default();
    driven.poke(1, 3);
    driven.end(Ok(Progress::Stopped));
    assert!(driven.is_idle());
    driven.poke(7, 7);
    driven.poke(8, 8);
    driven.end(Ok(Progress::Stopped));
    assert_eq!(driven.round(), (0, 8, false), "whoever poked knew that it counts again");
}

/// What a sender would do, on a subject whose events up to `first` were before the endpoint's time.
struct Model {
    events: u64,
    since: u64,
    sent: Vec<u64>,
}

impl Model {
    /// As `Sender`: it may end after anything that it sent.
    fn run(&mut self, round: &Round, up_to: u64) -> Progress {
        let (mut reached, mut sent_from, mut too_old, mut moved) = (round.after, None, false, false);
        for number in round.after + 1..=self.events {
            if number < round.from && number < self.since {
                too_old = true;
            } else if moved && number > up_to {
                break;
            } else {
                if too_old {
                    sent_from.get_or_insert(number);
                }
                self.sent.push(number);
                moved = true;
            }
            reached = number;
        }
        if too_old {
            sent_from.get_or_insert(reached + 1);
        }
        Progress::Reached { reached, sent_from }
    }
}

proptest! {
    /// Whatever the order of the pokes and however rounds are cut: all that was poked is sent, and
    /// the last time that each event was sent is in order.
    #[test]
    fn everything_poked_is_sent_and_in_order(
        pokes in Just((1_u64..=12).collect::<Vec<_>>()).prop_shuffle(),
        first_poked in 1_u64..6,
        clock_error in 0_u64..4,
        cuts in prop::collection::vec(1_u64..13, 40),
        busy in prop::collection::vec(any::<bool>(), 40),
    ) {
        let mut driven = Driven::default();
        // The clock may say that the endpoint came later than it did.
        let mut model = Model { events: 12, since: first_poked + clock_error, sent: Vec::new() };
        let mut pokes = pokes.into_iter().filter(|number| *number >= first_poked);
        let (mut steps, mut waiting) = (cuts.into_iter().zip(busy), pokes.next());
        for _ in 0..200 {
            let (cut, busy) = steps.next().unwrap_or((12, false));
            match waiting {
                Some(number) if driven.is_idle() || busy => {
                    driven.poke(number, number);
                    waiting = pokes.next();
                }
                None if driven.is_idle() => break,
                _ => {
                    let round = driven.tasks.last().expect("under way").1.clone();
                    let progress = model.run(&round, cut);
                    driven.end(Ok(progress));
                }
            }
        }
        prop_assert!(driven.is_idle() && waiting.is_none(), "{:?}", driven.state);
        let mut last_sent: Vec<u64> = Vec::new();
        for number in model.sent {
            last_sent.retain(|earlier| *earlier != number);
            last_sent.push(number);
        }
        prop_assert_eq!(last_sent, (first_poked..=12).collect::<Vec<_>>());
    }
}
