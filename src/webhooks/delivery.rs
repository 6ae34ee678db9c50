//! One per endpoint and subject: how far the subject's events have been sent to the endpoint.
//!
//! ```text
//!            poke: a wanted event was committed
//!   idle ────────────────────────────────────▶ round: a task that sends in order
//!     ▲                                         │  │  ▲
//!     └──────── nothing more is waited for ─────┘  │  └── dead letter retried, or discarded (skips one)
//!                                                  ▼
//!                                    halted: a dead letter, and whatever comes waits
//! ```
//!
//! At most one round is under way, and a round sends one event after the other: that is the order.
//! The queue is the subject's own history; kept here are numbers.
//!
//! Pokes come in any order. A round sends what was poked, and what was committed since the
//! endpoint counts even if its poke is still on its way: so a late poke finds its event sent.
//! Where a clock was wrong and it was not, the delivery goes back to it: then what came after it
//! is sent once more, in order, under the same ids.

use crate::entity::{Context, Decision, Effect, Entity, TaskOutcome};
use serde::{Deserialize, Serialize};

/// The queue of the endpoint in this slot.
pub fn handler(slot: u8) -> String {
    format!("webhook-{slot}")
}

/// The entity; its id is `<endpoint>:<type>:<id>`.
pub struct Delivery;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Events up to this number are done with.
    pub done: u64,
    /// Wanted events from this number to `done` were sent; those before it were not, as the
    /// endpoint was not there then.
    pub sent_from: u64,
    pub slot: u8,
    pub rounds: u64,
    pub round: Option<Under>,
    /// The lowest number poked since the round began.
    pub poked: Option<u64>,
    /// The highest number that was poked or sent: a round that ends before it is followed by another.
    pub last: u64,
    /// The round's task was given up.
    pub halted: bool,
}

/// A round under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Under {
    pub number: u64,
    pub after: u64,
    pub from: u64,
}

/// What a round is to do: the payload of its task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    pub endpoint: String,
    pub subject_type: String,
    pub subject_id: String,
    /// Begin after this event.
    pub after: u64,
    /// Events from this one on were poked; earlier ones are sent if they are not too old.
    pub from: u64,
    /// Leave out the first that is to be sent: its dead letter was discarded.
    pub skip: bool,
}

/// What came of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Progress {
    /// Done up to `reached`. Where some were left out as too old, none before `sent_from` was sent.
    Reached { reached: u64, sent_from: Option<u64> },
    /// The endpoint is gone, or disabled.
    Stopped,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// The endpoint wants the subject's events of these numbers, and perhaps some between them.
    Poke {
        first: u64,
        last: u64,
        slot: u8,
    },
    RoundEnded {
        tag: String,
        result: Result<Progress, String>,
    },
    RoundDiscarded {
        tag: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    Poked { first: u64, last: u64, slot: u8 },
    RoundStarted { after: u64, from: u64 },
    Reached { reached: u64, sent_from: Option<u64> },
    Stopped,
    Halted { error: String },
    Skipped,
}

/// Nothing is ever refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Never {}

impl Entity for Delivery {
    const TYPE: &'static str = "webhook_delivery";

    type State = State;
    type Command = Command;
    type Event = Event;
    type Reply = ();
    type Rejection = Never;

    fn decide(state: &State, command: Command, context: &Context<'_>) -> Decision<Self> {
        let mut step = Step { state: state.clone(), events: Vec::new(), start: None };
        match command {
            Command::Poke { first, last, slot } => step.poke(first, last, slot),
            Command::RoundEnded { tag, result } if state.is_under_way(&tag) => step.end(result),
            Command::RoundDiscarded { tag } if state.is_under_way(&tag) => step.skip(),
            // Of a round that is over.
            Command::RoundEnded { .. } | Command::RoundDiscarded { .. } => {}
        }
        let task = step.task(context.id);
        Decision::accept(step.events, ()).with_all(task)
    }

    fn evolve(state: &mut State, event: &Event) {
        match event {
            Event::Poked { first, last, slot } => {
                state.poked = Some(state.poked.map_or(*first, |lowest| lowest.min(*first)));
                state.last = state.last.max(*last);
                state.slot = *slot;
            }
            Event::RoundStarted { after, from } => {
                state.rounds += 1;
                state.done = *after;
                state.sent_from = state.sent_from.min(*from);
                state.round = Some(Under { number: state.rounds, after: *after, from: *from });
                state.poked = None;
                state.halted = false;
            }
            Event::Reached { reached, sent_from } => {
                state.done = state.done.max(*reached);
                // What was sent ahead of its poke is sent again if the delivery goes back before it.
                state.last = state.last.max(*reached);
                state.sent_from = sent_from.unwrap_or(state.sent_from);
                state.round = None;
            }
            Event::Stopped => {
                state.round = None;
                state.last = state.done;
            }
            Event::Halted { .. } => state.halted = true,
            Event::Skipped => {}
        }
    }

    fn task_finished(outcome: TaskOutcome) -> Option<Command> {
        Some(Command::RoundEnded { tag: outcome.tag.clone(), result: outcome.read() })
    }

    fn task_discarded(_handler: &str, tag: &str) -> Option<Command> {
        Some(Command::RoundDiscarded { tag: tag.to_owned() })
    }
}

impl State {
    /// Whether the task of that name is the one that the delivery waits for.
    fn is_under_way(&self, tag: &str) -> bool {
        self.round.is_some_and(|round| tag == round.number.to_string())
    }
}

/// One decision.
struct Step {
    state: State,
    events: Vec<Event>,
    /// The round that begins with it: whether it skips.
    start: Option<bool>,
}

impl Step {
    fn happen(&mut self, event: Event) {
        Delivery::evolve(&mut self.state, &event);
        self.events.push(event);
    }

    fn poke(&mut self, first: u64, last: u64, slot: u8) {
        let sent = first >= self.state.sent_from && last <= self.state.done;
        if self.state.round.is_none() && sent {
            return;
        }
        self.happen(Event::Poked { first, last, slot });
        self.go_on(None);
    }

    fn end(&mut self, result: Result<Progress, String>) {
        let mut before = self.state.round;
        match result {
            Ok(Progress::Reached { reached, sent_from }) => self.happen(Event::Reached { reached, sent_from }),
            Ok(Progress::Stopped) => {
                // Whoever poked since knew that it counts.
                let since = self.state.poked.map(|first| (first, self.state.last));
                before = None;
                self.happen(Event::Stopped);
                if let Some((first, last)) = since {
                    self.happen(Event::Poked { first, last, slot: self.state.slot });
                }
            }
            Err(error) => return self.happen(Event::Halted { error }),
        }
        self.go_on(before);
    }

    /// Begins a round if there is something to send and none under way. What one round was to send
    /// and did not come to, the next one sends, however old: hence the one `before` it.
    fn go_on(&mut self, before: Option<Under>) {
        let State { done, sent_from, poked, last, round, .. } = self.state;
        let (after, from) = match poked {
            _ if round.is_some() => return,
            // It came late, and was left out.
            Some(first) if first < sent_from => (done.min(first.saturating_sub(1)), first),
            _ if last <= done => return,
            _ => {
                let from = [poked, before.map(|round| round.from)].into_iter().flatten().min();
                (done, from.unwrap_or(0).max(done + 1))
            }
        };
        self.begin(after, from, false);
    }

    /// The same round again, without the event that could not be sent.
    fn skip(&mut self) {
        let Some(Under { after, from, .. }) = self.state.round else { return };
        let poked = self.state.poked.map(|first| (first, self.state.last));
        self.happen(Event::Skipped);
        self.begin(after, from, true);
        if let Some((first, last)) = poked {
            // Still to be looked at when the round is over.
            self.happen(Event::Poked { first, last, slot: self.state.slot });
        }
    }

    fn begin(&mut self, after: u64, from: u64, skip: bool) {
        self.happen(Event::RoundStarted { after, from });
        self.start = Some(skip);
    }

    fn task(&self, id: &str) -> Option<Effect> {
        let (skip, Under { number, after, from }) = (self.start?, self.state.round?);
        let mut parts = id.splitn(3, ':').map(str::to_owned);
        let (endpoint, subject_type, subject_id) = (parts.next()?, parts.next()?, parts.next()?);
        let round = Round { endpoint, subject_type, subject_id, after, from, skip };
        Some(Effect::task(handler(self.state.slot), number.to_string(), round))
    }
}

/// The id of the delivery to an endpoint of what happens to a subject.
pub fn id(endpoint: &str, subject_type: &str, subject_id: &str) -> String {
    format!("{endpoint}:{subject_type}:{subject_id}")
}

#[cfg(test)]
mod tests;
