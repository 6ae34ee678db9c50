//! Puts a word for each endpoint that wants an event into the entry that holds the event.

use super::{
    announcement::{Announcement, Notice},
    copy::Copy,
    delivery::{self, Delivery},
    events::{Announced, type_of},
};
use crate::{
    cluster::{Tap, Tapped},
    entity::Effect,
};
use std::sync::Arc;

/// The tap of one node.
pub struct Announcer {
    copy: Arc<Copy>,
}

impl Announcer {
    pub fn new(copy: Arc<Copy>) -> Self {
        Self { copy }
    }
}

impl<E: Announced> Tap<E> for Announcer {
    fn effects(&self, decided: &Tapped<'_, E>) -> Vec<Effect> {
        let known = self.copy.get();
        if known.as_ref().is_some_and(|endpoints| !endpoints.iter().any(|endpoint| endpoint.enabled)) {
            return Vec::new();
        }
        let (subject, events) = (decided.context.id, announced(decided));
        if events.is_empty() {
            return Vec::new();
        }
        let Some(endpoints) = known else {
            let id = format!("{}:{subject}", E::TYPE);
            let notice = Notice { subject_type: E::TYPE.to_owned(), subject_id: subject.to_owned(), events };
            return vec![Effect::tell::<Announcement>(id, &notice)];
        };
        let poke = |endpoint: &super::Endpoint| {
            let mut wanted = events.iter().filter(|(_, kind)| endpoint.wants(kind)).map(|(number, _)| *number);
            let first = wanted.next()?;
            let last = wanted.next_back().unwrap_or(first);
            let command = delivery::Command::Poke { first, last, slot: endpoint.slot };
            Some(Effect::tell::<Delivery>(delivery::id(&endpoint.id, E::TYPE, subject), &command))
        };
        endpoints.iter().filter_map(poke).collect()
    }
}

/// Numbers and types of the events that people may want, oldest first.
fn announced<E: Announced>(decided: &Tapped<'_, E>) -> Vec<(u64, String)> {
    let mut state = decided.state.clone();
    let mut announced = Vec::new();
    for (number, event) in (decided.context.version + 1..).zip(decided.events) {
        let before = E::mark(&state);
        E::evolve(&mut state, event);
        announced.extend(E::word(before, event, E::mark(&state)).map(|word| (number, type_of::<E>(word))));
    }
    announced
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        commerce::{Order, PlaceOrder, order},
        entity::{Context, Decision, Entity},
        webhooks::{
            COPY_VALID,
            endpoints::{Command, Endpoints, Settings, State, What},
            secret::Secret,
        },
    };
    use serde_json::json;
    use tokio::time::Instant;

    const CONTEXT: Context<'_> = Context { id: "ord_1", version: 0, now_ms: 1, random: 1 };

    fn endpoints(patterns: &[&str]) -> Vec<super::super::Endpoint> {
        let mut state = State::default();
        for (number, pattern) in patterns.iter().enumerate() {
            let settings = Settings {
                url: "http://x/".into(),
                enabled_events: vec![(*pattern).to_owned()],
                description: None,
                enabled: !pattern.is_empty(),
            };
            let what = What::Create { settings, secret: Secret::random() };
            let command = Command { id: format!("we_{number}"), if_version: None, what };
            let Decision::Accept { events, .. } = Endpoints::decide(&state, command, &CONTEXT) else {
                panic!("it is made")
            };
            events.iter().for_each(|event| Endpoints::evolve(&mut state, event));
        }
        state.endpoints
    }

    /// Whom the placing of an order is told, by what a node knows.
    fn told(known: Option<&[&str]>) -> Vec<String> {
        let body = json!({"customer_id": "c", "currency": "USD", "payment_method": "pm",
            "items": [{"sku": "mug", "quantity": 1, "unit_price": 1}]});
        let place: PlaceOrder = serde_json::from_value(body).expect("an order");
        let command = order::Command::Place(Box::new(place.validate().expect("valid")));
        let state = order::State::default();
        let Decision::Accept { events, .. } = Order::decide(&state, command, &CONTEXT) else { panic!("placed") };
        let copy = Arc::new(Copy::default());
        if let Some(patterns) = known {
            copy.set(endpoints(patterns), Instant::now() + COPY_VALID);
        }
        let effects =
            Announcer::new(copy).effects(&Tapped::<Order> { context: &CONTEXT, state: &state, events: &events });
        let to = |effect: Effect| match effect {
            Effect::Tell { entity_type, id, .. } => format!("{entity_type}/{id}"),
            other => panic!("{other:?}"),
        };
        effects.into_iter().map(to).collect()
    }

    #[tokio::test]
    async fn endpoints_that_want_it_are_told_and_no_others() {
        let patterns = ["order.created", "payment.*", "*", "order.confirmed", ""];
        assert_eq!(told(Some(&patterns)), ["webhook_delivery/we_0:order:ord_1", "webhook_delivery/we_2:order:ord_1"]);
    }

    #[tokio::test]
    async fn without_endpoints_nothing_is_added() {
        assert!(told(Some(&[])).is_empty());
        assert!(told(Some(&[""])).is_empty(), "a disabled one is none");
    }

    #[tokio::test]
    async fn who_does_not_know_the_endpoints_leaves_it_for_later() {
        assert_eq!(told(None), ["webhook_announcement/order:ord_1"]);
    }
}
