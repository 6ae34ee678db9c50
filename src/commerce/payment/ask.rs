//! What a client may ask of a payment that belongs to no order: create, capture, void, refund.

use super::{Action, Ask, Fact, ID_BYTES_MAX, NewPayment, Rejection, Status, Step, refund::refund_id};
use crate::commerce::Money;

impl Step<'_> {
    pub(super) fn ask(&mut self, ask: Ask) -> Result<(), Rejection> {
        match ask {
            Ask::Create(payment) => self.create(payment),
            Ask::Capture { amount } => {
                self.may(Action::Capture)?;
                self.capture_part(amount)
            }
            Ask::Void => {
                self.may(Action::Void)?;
                self.emit(Fact::VoidRequested);
                self.run_in_flight();
                Ok(())
            }
            Ask::Refund { amount } => {
                self.may(Action::Refund)?;
                let refund_id = refund_id(self.context.id, &self.draft.state);
                self.open_refund(refund_id, amount)
            }
        }
    }

    fn create(&mut self, payment: Box<NewPayment>) -> Result<(), Rejection> {
        if self.draft.state.exists() {
            return Err(Rejection::AlreadyExists);
        }
        // A command need not come from `CreatePayment::validate`.
        if self.context.id.len() > ID_BYTES_MAX {
            return Err(Rejection::Invalid { detail: format!("a payment id has at most {ID_BYTES_MAX} bytes") });
        }
        if payment.amount.amount() == 0 || payment.authorization_valid_ms == 0 {
            let detail = "a payment has an amount above 0 and an authorization that is valid for a while";
            return Err(Rejection::Invalid { detail: detail.to_owned() });
        }
        self.emit(Fact::Created(payment));
        self.run_in_flight();
        Ok(())
    }

    fn capture_part(&mut self, amount: Option<Money>) -> Result<(), Rejection> {
        let Some(authorized) = self.draft.state.amount else { return Err(Rejection::NotFound) };
        let amount = self.in_own_currency(amount.unwrap_or(authorized))?;
        if amount.amount() > authorized.amount() {
            return Err(Rejection::ExceedsAuthorized { amount, authorized });
        }
        if amount.amount() == 0 {
            return Err(Rejection::Invalid { detail: "to capture nothing, void the payment".to_owned() });
        }
        self.emit(if amount == authorized { Fact::CaptureRequested } else { Fact::PartCaptureRequested { amount } });
        self.run_in_flight();
        Ok(())
    }

    /// Whether a client may ask for it now: on a payment of its own, where the table allows it,
    /// and while the gateway has not been asked for something else.
    fn may(&self, action: Action) -> Result<(), Rejection> {
        let state = &self.draft.state;
        if !state.exists() {
            return Err(Rejection::NotFound);
        }
        if let Some(order_id) = state.order_id.clone() {
            return Err(Rejection::BelongsToOrder { order_id });
        }
        let from = state.status;
        let late = action == Action::Capture && state.has_run_out(self.context.now_ms);
        if from != action.needs() || late {
            let stays = |next: &Status| !(late && *next == Status::Capturing);
            let allowed = from.allowed().iter().copied().filter(stays).collect();
            return Err(Rejection::IllegalTransition { action, from, allowed });
        }
        match state.in_flight {
            Some(in_flight) => Err(Rejection::OperationInProgress { operation: in_flight.operation }),
            None => Ok(()),
        }
    }

    pub(super) fn in_own_currency(&self, amount: Money) -> Result<Money, Rejection> {
        match self.draft.state.amount.map(|own| own.currency()) {
            Some(currency) if currency != amount.currency() => Err(Rejection::OtherCurrency { currency }),
            _ => Ok(amount),
        }
    }

    /// So many minor units of the payment's currency.
    pub(super) fn part(&self, units: i64) -> Result<Money, Rejection> {
        let currency = self.draft.state.amount.ok_or(Rejection::NotFound)?.currency();
        Money::new(units, currency).map_err(|error| Rejection::Invalid { detail: error.to_string() })
    }
}
