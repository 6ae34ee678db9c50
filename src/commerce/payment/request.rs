//! Bodies of the payment routes, and what is left of them once they are checked.

use super::{Ask, NewPayment};
use crate::commerce::{
    Currency, Money,
    fields::{Checks, FieldError, PAYMENT_METHOD_CHARS_MAX},
    money::AMOUNT_MAX,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Body of `POST /v1/payments`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreatePayment {
    pub amount: Amount,
    pub payment_method: String,
    /// Capture at once; else the payment waits to be captured or voided.
    #[serde(default)]
    pub capture: bool,
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

/// Money as it was sent: signed and in any currency, so that what is wrong can be named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amount {
    pub amount: i64,
    pub currency: String,
}

/// Body of `POST /v1/payments/{id}/capture` and `…/refunds`; without an amount, all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartOfPayment {
    #[serde(default)]
    pub amount: Option<Amount>,
}

/// Body of `POST /v1/payments/{id}/void`: nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VoidPayment {}

impl CreatePayment {
    /// Names every wrong field at once.
    pub fn validate(self, authorization_valid_ms: u64) -> Result<Ask, Vec<FieldError>> {
        let mut checks = Checks::default();
        let amount = self.amount.check(&mut checks);
        checks.text("payment_method", &self.payment_method, PAYMENT_METHOD_CHARS_MAX);
        checks.metadata(&self.metadata);
        let Some(amount) = amount else { return checks.finish(()).and(Err(Vec::new())) };
        checks.finish(Ask::Create(Box::new(NewPayment {
            amount,
            payment_method: self.payment_method,
            capture: self.capture,
            metadata: self.metadata,
            authorization_valid_ms,
        })))
    }
}

impl PartOfPayment {
    pub fn validate(self) -> Result<Option<Money>, Vec<FieldError>> {
        let mut checks = Checks::default();
        let amount = self.amount.and_then(|amount| amount.check(&mut checks));
        checks.finish(amount)
    }
}

impl Amount {
    /// A payment of nothing is none: the least is 1.
    fn check(self, checks: &mut Checks) -> Option<Money> {
        let units = checks.range("amount.amount", self.amount, 1, AMOUNT_MAX);
        match self.currency.parse::<Currency>() {
            Ok(currency) => Money::new(units, currency).ok(),
            Err(unknown) => {
                checks.wrong("amount.currency", unknown.to_string());
                None
            }
        }
    }
}
