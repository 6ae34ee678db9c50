//! The books: an independent witness of what was charged.
//!
//! One key is one operation, whose first answer every repetition gets. What a gateway would have to
//! refuse, a capture beyond the authorization for one, is written down as an offence.

use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Operations that are kept. Beyond that the gateway answers 503, which a node takes for "not now".
const OPERATIONS_MAX: usize = 1_000_000;
pub const OK: u16 = 200;
const DECLINED: u16 = 402;
const NOT_FOUND: u16 = 404;
const FULL: u16 = 503;

/// What a gateway was asked to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// A query asks what became of a key.
    pub is_query: bool,
    pub path: String,
    pub key: String,
    pub form: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Ledger {
    #[serde(skip)]
    operations: BTreeMap<String, (Asked, u16, Value)>,
    /// Authorizations that were granted.
    pub intents: BTreeMap<String, Intent>,
    pub offences: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Intent {
    pub payment_id: String,
    pub authorized: i64,
    pub captured: Option<i64>,
    pub refunded: i64,
    pub canceled: bool,
}

impl Ledger {
    /// Books that say just this.
    #[cfg(test)]
    pub fn of(intents: BTreeMap<String, Intent>, offences: Vec<String>) -> Self {
        Self { operations: BTreeMap::new(), intents, offences }
    }

    /// Carries it out, or answers as the first time. A status and a body.
    pub fn carry_out(&mut self, asked: &Asked) -> (u16, Value) {
        if let Some((first, status, said)) = self.operations.get(&asked.key) {
            if !asked.is_query && first != asked {
                self.offences.push(format!("{} stands for {first:?} and for {asked:?}", asked.key));
            }
            return (*status, said.clone());
        }
        if asked.is_query {
            return (NOT_FOUND, json!({"error": {"code": "resource_missing"}}));
        }
        if self.operations.len() >= OPERATIONS_MAX {
            return (FULL, json!({"error": {"code": "full"}}));
        }
        let (status, said) = self.decide(asked);
        self.operations.insert(asked.key.clone(), (asked.clone(), status, said.clone()));
        (status, said)
    }

    /// Authorizations of each payment.
    #[must_use]
    pub fn by_payment(&self) -> BTreeMap<&str, Vec<&Intent>> {
        let mut all: BTreeMap<&str, Vec<&Intent>> = BTreeMap::new();
        self.intents.values().for_each(|intent| all.entry(&intent.payment_id).or_default().push(intent));
        all
    }

    fn decide(&mut self, asked: &Asked) -> (u16, Value) {
        let path: Vec<&str> = asked.path.trim_start_matches('/').split('/').collect();
        match path[..] {
            ["v1", "payment_intents"] => self.authorize(asked),
            ["v1", "payment_intents", id, "capture"] => self.capture(id, asked.number("amount_to_capture")),
            ["v1", "payment_intents", id, "cancel"] => self.cancel(id),
            ["v1", "refunds"] => self.refund(asked),
            _ => (NOT_FOUND, json!({"error": {"code": "no_such_route"}})),
        }
    }

    fn authorize(&mut self, asked: &Asked) -> (u16, Value) {
        let text = |name: &str| asked.form.get(name).cloned().unwrap_or_default();
        if !["pm_card_ok", "pm_card_timeout", "pm_card_flaky", "pm_card_slow"]
            .contains(&text("payment_method").as_str())
        {
            return declined("card_declined");
        }
        if text("capture") != "false" {
            self.offences.push(format!("{} captures at once", asked.key));
        }
        let id = format!("pi_{}", self.intents.len() + 1);
        let intent = Intent {
            payment_id: text("metadata[payment_id]"),
            authorized: asked.number("amount"),
            ..Intent::default()
        };
        self.intents.insert(id.clone(), intent);
        (OK, json!({"id": id, "status": "requires_capture"}))
    }

    fn capture(&mut self, id: &str, amount: i64) -> (u16, Value) {
        let Some(intent) = self.intents.get_mut(id) else { return self.offence(format!("{id} was never authorized")) };
        if intent.captured.is_some() || intent.canceled || amount <= 0 || amount > intent.authorized {
            let what = format!("{id}: a capture of {amount} from {intent:?}");
            return self.offence(what);
        }
        intent.captured = Some(amount);
        (OK, json!({"id": id, "status": "succeeded"}))
    }

    fn cancel(&mut self, id: &str) -> (u16, Value) {
        let Some(intent) = self.intents.get_mut(id) else { return self.offence(format!("{id} was never authorized")) };
        if intent.captured.is_some() || intent.canceled {
            let what = format!("{id}: a second end for {intent:?}");
            return self.offence(what);
        }
        intent.canceled = true;
        (OK, json!({"id": id, "status": "canceled"}))
    }

    fn refund(&mut self, asked: &Asked) -> (u16, Value) {
        let id = asked.form.get("payment_intent").cloned().unwrap_or_default();
        let amount = asked.number("amount");
        let Some(intent) = self.intents.get_mut(&id) else { return self.offence(format!("{id} was never authorized")) };
        if amount <= 0 || intent.refunded + amount > intent.captured.unwrap_or(0) {
            let what = format!("{id}: a refund of {amount} from {intent:?}");
            return self.offence(what);
        }
        intent.refunded += amount;
        (OK, json!({"id": format!("re_{}", asked.key), "status": "succeeded"}))
    }

    fn offence(&mut self, what: String) -> (u16, Value) {
        self.offences.push(what);
        declined("offence")
    }
}

impl Asked {
    fn number(&self, name: &str) -> i64 {
        self.form.get(name).and_then(|value| value.parse().ok()).unwrap_or(0)
    }
}

fn declined(code: &str) -> (u16, Value) {
    (DECLINED, json!({"error": {"code": code, "decline_code": code}}))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn asked(path: &str, key: &str, form: &[(&str, &str)]) -> Asked {
        let form = form.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Asked { is_query: false, path: path.into(), key: key.into(), form }
    }

    pub fn authorization(payment: &str, key: &str) -> Asked {
        let form = [
            ("amount", "500"),
            ("payment_method", "pm_card_ok"),
            ("capture", "false"),
            ("metadata[payment_id]", payment),
        ];
        asked("/v1/payment_intents", key, &form)
    }

    #[test]
    fn one_key_is_one_operation() {
        let mut ledger = Ledger::default();
        let first = ledger.carry_out(&authorization("pay_1", "a"));
        assert_eq!((first.0, ledger.carry_out(&authorization("pay_1", "a"))), (OK, first.clone()));
        let query = Asked { is_query: true, key: "a".into(), ..Asked::default() };
        assert_eq!(ledger.carry_out(&query), first);
        assert_eq!(ledger.carry_out(&Asked { key: "b".into(), ..query }).0, NOT_FOUND);
        assert_eq!((ledger.intents.len(), ledger.offences.len()), (1, 0));
        ledger.carry_out(&authorization("pay_2", "a"));
        assert_eq!(ledger.offences.len(), 1);
    }

    #[test]
    fn what_must_not_happen_is_written_down() {
        let mut ledger = Ledger::default();
        ledger.carry_out(&authorization("pay_1", "a"));
        let capture =
            |key: &str, amount: &str| asked("/v1/payment_intents/pi_1/capture", key, &[("amount_to_capture", amount)]);
        let refund =
            |key: &str, amount: &str| asked("/v1/refunds", key, &[("payment_intent", "pi_1"), ("amount", amount)]);
        let steps = [
            (refund("early", "1"), DECLINED),
            (capture("dear", "501"), DECLINED),
            (capture("b", "500"), OK),
            (capture("twice", "500"), DECLINED),
            (asked("/v1/payment_intents/pi_1/cancel", "c", &[]), DECLINED),
            (refund("d", "400"), OK),
            (refund("e", "101"), DECLINED),
            (capture("unknown", "1"), DECLINED),
        ];
        for (step, status) in steps {
            assert_eq!(ledger.carry_out(&step).0, status, "{step:?}");
        }
        assert_eq!(ledger.offences.len(), 6, "{:?}", ledger.offences);
        let declined = asked("/v1/payment_intents", "z", &[("payment_method", "pm_card_declined")]);
        assert_eq!((ledger.carry_out(&declined).0, ledger.intents.len()), (DECLINED, 1));
    }
}
