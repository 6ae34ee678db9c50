//! One charge on one card: authorize, capture, give back. It talks to the gateway through durable
//! tasks and answers the order that asked for it.
//!
//! ```text
//! order ─ Authorize / Capture / Reverse ─▶ payment ─▶ task ─▶ gateway
//!   ▲      client ─ Ask ─────────────────▶    │  ▲               │
//!   └──────── what became of it ──────────────┘  └─ GatewayAnswered
//! ```
//!
//! A payment belongs to an order, whose saga alone drives it, or it is one of its own, which
//! clients create, capture (a part, too), void and refund in parts ([`Ask`]). An order refunds the
//! price of what came back (`parts`). One of its own
//! cannot be captured past its validity: a durable timer then has the gateway let go of it.
//!
//! At most one gateway operation is in flight, beside the refunds of the ledger ([`Refund`]).
//! When its task gives up without an answer the outcome is *unknown*, never guessed: the gateway
//! is queried under the same key, ever more slowly, until it answers; every
//! [`QUERIES_BEFORE_NOTICE`] fruitless rounds the order hears of it. `Reverse` means "see to it
//! that no money is kept": void, refund or nothing, as soon as what is in flight has settled. It
//! may overtake the `Authorize` it takes back; the payment is then voided before it began and the
//! late `Authorize` finds it so.
//!
//! Invariants: ONE-KEY-PER-CHARGE; `refunded + pending refunds ≤ captured ≤ authorized`.

mod ask;
mod expiry;
mod messages;
mod parts;
mod refund;
mod request;
mod state;
mod status;
mod view;

pub use messages::{Ask, Authorize, Command, Event, Fact, NewPayment, Rejection, Reply};
pub use refund::{Refund, RefundStatus};
pub use request::{Amount, CreatePayment, PartOfPayment, VoidPayment};
pub use state::{InFlight, State};
pub use status::{Action, Status};
pub use view::{PaymentView, RefundView};

use super::{
    draft::Draft,
    gateway::{self, GatewayRequest, GatewayResponse, Operation},
    order::{self, Order, Reversal},
};
use crate::entity::{Context, Decision, Effect, Entity, Retry, Row, TaskOutcome};
use state::AUTHORIZATION_EXPIRED;
use std::collections::BTreeMap;

/// After so many queries in a row without an answer the order is told, and again after as many.
pub const QUERIES_BEFORE_NOTICE: u32 = 3;
/// The wait before the first query; doubles with each further one.
const QUERY_WAIT_MIN_MS: u64 = 5_000;
const QUERY_WAIT_MAX_MS: u64 = 600_000;
const QUERY_TIMER: &str = "query";
/// How long one attempt at the gateway may take, in milliseconds.
pub const ATTEMPT_TIMEOUT_MS: u64 = 10_000;
/// One task: about a minute of attempts before the outcome counts as unknown.
const RETRY: Retry =
    Retry { attempts_max: 8, backoff_min_ms: 100, backoff_max_ms: 10_000, attempt_timeout_ms: ATTEMPT_TIMEOUT_MS };
/// What is kept of a gateway's reason or a task's error.
const REASON_BYTES_MAX: usize = 200;
/// The most refunds in one payment's ledger, refused ones included.
pub const REFUNDS_MAX: u16 = 100;
/// The longest id of a payment of its own, in bytes; with the step behind it, it is a gateway key.
pub const ID_BYTES_MAX: usize = 64;

/// The entity; its id is `pay_` and the order's own suffix, or one of its own.
pub struct Payment;

impl Entity for Payment {
    const TYPE: &'static str = "payment";
    const STATE_VERSION: u16 = 2;
    const LISTS_VERSION: u16 = 1;

    type State = State;
    type Command = Command;
    type Event = Event;
    type Reply = Reply;
    type Rejection = Rejection;

    fn decide(state: &State, command: Command, context: &Context<'_>) -> Decision<Self> {
        let mut step = Step { draft: Draft::new(state), context };
        let own = |id: &str| !state.exists() || state.order_id.as_deref() == Some(id);
        if command.order_id().is_some_and(|id| !own(id)) {
            return Decision::reject(Rejection::OtherOrder);
        }
        match command {
            Command::Authorize(request) => step.authorize(request),
            Command::Capture { order_id } => step.capture(order_id),
            Command::Reverse { order_id } => step.reverse(order_id),
            Command::GatewayAnswered { tag, result } => step.gateway_answered(&tag, result),
            Command::QueryDue { round } => step.query_due(round),
            Command::RefundQueryDue { number, round } => step.refund_query_due(number, round),
            Command::RefundPart { order_id, refund_id, amount } => step.refund_part(order_id, refund_id, amount),
            Command::ExpiryDue => step.expiry_due(),
            Command::Ask(ask) => {
                return match step.ask(ask) {
                    Ok(()) => step.draft.accept_with(|after| Reply::Payment(Box::new(after.clone()))),
                    Err(rejection) => Decision::reject(rejection),
                };
            }
        }
        step.draft.accept(Reply::Ack)
    }

    fn evolve(state: &mut State, event: &Event) {
        state.apply(event);
    }

    fn rows(state: &State) -> Vec<Row> {
        state.rows()
    }

    fn check(state: &State) -> Result<(), String> {
        state.check()
    }

    fn task_finished(outcome: TaskOutcome) -> Option<Command> {
        let answer = outcome.result.and_then(|bytes| {
            // An answer nobody can read tells nothing about what happened.
            GatewayResponse::decode(&bytes).map_err(|e| format!("unreadable answer: {e}"))
        });
        Some(Command::GatewayAnswered { tag: outcome.tag, result: answer })
    }
}

struct Step<'a> {
    draft: Draft<Payment>,
    context: &'a Context<'a>,
}

impl Step<'_> {
    fn authorize(&mut self, request: Authorize) {
        // Here already, or taken back before it came: whoever asked has been or will be answered.
        if self.draft.state.exists() {
            return;
        }
        self.emit(Fact::AuthorizationRequested(request));
        self.run_in_flight();
    }

    fn capture(&mut self, order_id: String) {
        let state = &self.draft.state;
        if state.in_flight.is_some() || state.reverse_wanted {
            return;
        }
        match state.status {
            Status::Authorized => {
                self.emit(Fact::CaptureRequested);
                self.run_in_flight();
            }
            Status::Captured => self.tell(order_id, order::Command::PaymentCaptured),
            other => {
                let reason = format!("payment is {}", other.name());
                self.tell(order_id, order::Command::CaptureDeclined { reason });
            }
        }
    }

    fn reverse(&mut self, order_id: String) {
        if !self.draft.state.exists() {
            self.emit(Fact::VoidedBeforeAuthorization { order_id });
        } else if !self.draft.state.reverse_wanted {
            self.emit(Fact::ReversalRequested);
        }
        match self.draft.state.in_flight {
            // Somebody cares right now: do not wait for the timer.
            Some(in_flight) if self.draft.state.status == Status::Unknown => {
                self.run(Operation::Query, in_flight);
            }
            _ => self.advance_reversal(),
        }
    }

    fn gateway_answered(&mut self, tag: &str, result: Result<GatewayResponse, String>) {
        let Some((in_flight, round)) = self.draft.state.awaited(tag) else { return };
        // Whoever wrote the gateway, what it says is kept and shown.
        let result = match result {
            Ok(GatewayResponse::Declined { reason }) => Ok(GatewayResponse::Declined { reason: clipped(reason) }),
            other => other.map_err(clipped),
        };
        let outcome = match result {
            // An answer to this key is good whichever round asked for it.
            Ok(GatewayResponse::Approved { reference }) => Ok(reference),
            Ok(GatewayResponse::Declined { reason }) => Err(reason),
            // It never got there, so sending it now, under the same key, cannot do it twice.
            Ok(GatewayResponse::NotFound) if round == in_flight.round => {
                return self.run(in_flight.operation, in_flight);
            }
            Err(error) if round == in_flight.round => return self.unanswered(error, in_flight),
            Ok(GatewayResponse::NotFound) | Err(_) => return,
        };
        match self.draft.state.refund_of(in_flight).map(|refund| refund.id.clone()) {
            Some(refund_id) => self.refund_settled(refund_id, outcome),
            None => self.settled(outcome, in_flight),
        }
    }

    fn unanswered(&mut self, error: String, in_flight: InFlight) {
        match self.draft.state.refund_of(in_flight).map(|refund| refund.id.clone()) {
            Some(refund_id) => self.refund_unanswered(refund_id, error, in_flight.number),
            None => self.outcome_unknown(error),
        }
    }

    fn query_due(&mut self, round: u32) {
        let Some(in_flight) = self.draft.state.in_flight else { return };
        if in_flight.round == round {
            self.run(Operation::Query, in_flight);
        }
    }

    fn outcome_unknown(&mut self, error: String) {
        self.emit(Fact::OutcomeUnknown { error: error.clone() });
        let Some(InFlight { round, operation, .. }) = self.draft.state.in_flight else { return };
        let at_ms = self.context.now_ms + query_wait_ms(round);
        self.draft.effect(Effect::schedule::<Payment>(QUERY_TIMER, at_ms, &Command::QueryDue { round }));
        if round.is_multiple_of(QUERIES_BEFORE_NOTICE) {
            let reason = format!("the gateway does not say what became of the {operation}: {error}");
            self.tell_order(order::Command::PaymentUnresolved { reason });
        }
    }

    /// The gateway has said for good what became of the operation in flight.
    fn settled(&mut self, outcome: Result<String, String>, in_flight: InFlight) {
        let reversing = self.draft.state.reverse_wanted;
        let (fact, answer) = match (in_flight.operation, outcome) {
            (Operation::Authorize, Ok(reference)) => {
                (Fact::Authorized { reference }, Some(order::Command::PaymentAuthorized))
            }
            (Operation::Authorize, Err(reason)) => {
                (Fact::Declined { reason: reason.clone() }, Some(order::Command::PaymentDeclined { reason }))
            }
            (Operation::Capture, Ok(reference)) => {
                (Fact::Captured { reference }, Some(order::Command::PaymentCaptured))
            }
            (Operation::Capture, Err(reason)) => {
                let answer = order::Command::CaptureDeclined { reason: reason.clone() };
                (Fact::CaptureDeclined { reason }, Some(answer))
            }
            (Operation::Void, Ok(_)) if self.draft.state.expiring => (Fact::AuthorizationExpired, None),
            (Operation::Void, Ok(reference)) => (Fact::Voided { reference }, None),
            // Nothing is held any more: what a void is for.
            (Operation::Void, Err(reason)) if reason == AUTHORIZATION_EXPIRED => (Fact::AuthorizationExpired, None),
            (Operation::Refund, Ok(reference)) => (Fact::Refunded { reference }, None),
            (Operation::Void | Operation::Refund | Operation::Query, Err(reason)) => {
                let wait_ms = self.wait_after_refusal_ms();
                self.emit(Fact::ReversalDeclined { reason: reason.clone() });
                self.watch_expiry(wait_ms);
                return self.tell_order(order::Command::PaymentUnresolved { reason });
            }
            (Operation::Query, Ok(_)) => return,
        };
        self.emit(fact);
        if in_flight.operation == Operation::Authorize && self.captures_at_once() {
            self.emit(Fact::CaptureRequested);
            self.run_in_flight();
        }
        self.watch_expiry(0);
        // An order that wants its money back does not care how far the charge had come.
        if reversing {
            self.advance_reversal();
        } else if let Some(answer) = answer {
            self.tell_order(answer);
        }
    }

    fn captures_at_once(&self) -> bool {
        self.draft.state.capture_at_once && self.draft.state.status == Status::Authorized
    }

    /// Starts the reversal that is wanted, or reports that nothing is left to reverse.
    fn advance_reversal(&mut self) {
        let state = &self.draft.state;
        if state.in_flight.is_some() || state.refunds_pending() > 0 {
            return;
        }
        let outcome = match state.status {
            Status::Authorized => {
                self.emit(Fact::VoidRequested);
                return self.run_in_flight();
            }
            Status::Captured if state.refunded < state.captured => {
                self.emit(Fact::RefundRequested);
                return self.run_in_flight();
            }
            Status::Captured => Reversal::Refunded,
            Status::Declined => Reversal::Declined,
            Status::AuthorizationExpired => Reversal::AuthorizationExpired,
            _ => Reversal::Voided,
        };
        self.tell_order(order::Command::PaymentReversed { outcome });
    }

    fn run_in_flight(&mut self) {
        if let Some(in_flight) = self.draft.state.in_flight {
            self.run(in_flight.operation, in_flight);
        }
    }

    /// Runs `operation` (the one in flight, or a query for it) under the key in flight.
    fn run(&mut self, operation: Operation, in_flight: InFlight) {
        let state = &self.draft.state;
        let Some(amount) = state.amount_of(in_flight) else { return };
        let request = GatewayRequest {
            operation,
            key: gateway::key(self.context.id, in_flight.operation, in_flight.number),
            payment_method: state.payment_method.clone(),
            amount,
            authorization: state.authorization.clone(),
            metadata: if operation == Operation::Authorize { told_to_gateway(state) } else { BTreeMap::new() },
        };
        self.draft.effect(task(&request, in_flight.tag()));
    }

    fn emit(&mut self, fact: Fact) {
        self.draft.emit(Event { at_ms: self.context.now_ms, fact });
    }

    fn tell_order(&mut self, command: order::Command) {
        if let Some(order_id) = self.draft.state.order_id.clone() {
            self.tell(order_id, command);
        }
    }

    fn tell(&mut self, order_id: String, command: order::Command) {
        self.draft.effect(Effect::tell::<Order>(order_id, &command));
    }
}

/// What the gateway keeps with the charge, for people who compare the books.
fn told_to_gateway(state: &State) -> BTreeMap<String, String> {
    let order_id = state.order_id.clone().map(|order_id| ("order_id".to_owned(), order_id));
    state.metadata.clone().into_iter().chain(order_id).collect()
}

/// The first [`REASON_BYTES_MAX`] bytes, or a little less where they would end inside of a character.
fn clipped(mut reason: String) -> String {
    let end = (0..=REASON_BYTES_MAX).rev().find(|at| reason.is_char_boundary(*at));
    reason.truncate(end.unwrap_or(0));
    reason
}

fn query_wait_ms(round: u32) -> u64 {
    let doublings = round.saturating_sub(1).min(20);
    QUERY_WAIT_MIN_MS.saturating_mul(1 << doublings).min(QUERY_WAIT_MAX_MS)
}

#[expect(clippy::expect_used, reason = "a request that cannot be encoded is a defect of its type, as in Effect::tell")]
fn task(request: &GatewayRequest, tag: String) -> Effect {
    let payload = request.encode().expect("a gateway request must be encodable");
    Effect::task_with_retry(gateway::HANDLER, tag, payload, RETRY)
}
