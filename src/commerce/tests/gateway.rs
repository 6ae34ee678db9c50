//! A card gateway with a ledger, for the little world: the independent witness of what was
//! charged. It checks ONE-KEY-PER-CHARGE itself.

use crate::commerce::gateway::{self, GatewayRequest, GatewayResponse, Operation};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Gateway {
    /// By key: what was asked first, and the answer that every repetition gets.
    pub ledger: BTreeMap<String, (GatewayRequest, GatewayResponse)>,
}

/// What one task comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Approve,
    Decline(&'static str),
    /// Does it, but every answer is lost until the retries are used up.
    Lose,
    /// Does nothing, until the retries are used up.
    Away,
}

/// Where a payment stands at the gateway, in minor units.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Held on the card, neither captured nor let go.
    pub held: i64,
    pub captured: i64,
    pub refunded: i64,
}

impl Gateway {
    pub fn run(&mut self, request: GatewayRequest, mood: Mood) -> Result<GatewayResponse, String> {
        if mood == Mood::Away {
            return Err("connection refused".into());
        }
        let known = self.ledger.get(&request.key).cloned();
        if request.operation == Operation::Query {
            let answer = known.map_or(GatewayResponse::NotFound, |(_, response)| response);
            return if mood == Mood::Lose { Err("timed out".into()) } else { Ok(answer) };
        }
        let response = match (known, mood) {
            (Some((first, response)), _) => {
                assert_eq!(first, request, "one key stands for one operation");
                response
            }
            (None, Mood::Decline(reason)) => GatewayResponse::Declined { reason: reason.into() },
            (None, _) => GatewayResponse::Approved { reference: format!("ref_{}", request.key) },
        };
        self.ledger.insert(request.key.clone(), (request, response.clone()));
        if mood == Mood::Lose { Err("timed out".into()) } else { Ok(response) }
    }

    pub fn balance(&self, payment_id: &str) -> Balance {
        let mut balance = Balance::default();
        let mut released = false;
        let own = |key: &str| key.rsplit_once(':').is_some_and(|(id, _)| id == payment_id);
        // Key order is not time order, but sums do not mind.
        for (request, response) in self.ledger.iter().filter(|(key, _)| own(key)).map(|(_, entry)| entry) {
            let amount = request.amount.amount();
            let approved = match response {
                GatewayResponse::Approved { .. } => true,
                GatewayResponse::Declined { reason } if reason == "authorization_expired" => {
                    released |= matches!(request.operation, Operation::Capture | Operation::Void);
                    false
                }
                _ => false,
            };
            match request.operation {
                Operation::Authorize if approved => balance.held += amount,
                // Whatever a capture does not take is let go.
                Operation::Capture if approved => {
                    released = true;
                    balance.captured += amount;
                }
                Operation::Void if approved => released = true,
                Operation::Refund if approved => balance.refunded += amount,
                _ => {}
            }
        }
        if released {
            // One authorization, however often it is let go: a second one would still be held.
            balance.held -= self.authorized(payment_id);
        }
        balance
    }

    fn authorized(&self, payment_id: &str) -> i64 {
        let authorization = self.ledger.get(&gateway::key(payment_id, Operation::Authorize, 1));
        authorization.map_or(0, |(request, _)| request.amount.amount())
    }
}
