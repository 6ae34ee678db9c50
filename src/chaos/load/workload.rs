//! What there is to buy, write and move: the kinds of load and their stock.

use super::client::Client;
use crate::chaos::history::{Method, Request};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{fmt, str::FromStr};

/// A kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Orders of several SKUs and cards, repeated, cancelled, sent and returned.
    Checkout,
    /// Orders for one scarce SKU, which is filled up now and then.
    HotSku,
    /// Reads, writes and conditional writes of a few values, for linearizability.
    Register,
    /// Units are reserved on two accounts, taken or given back, and put on a third.
    Transfer,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is no workload; there are {}", Workload::ALL.map(Workload::name).join(", "))]
pub struct UnknownWorkload {
    name: String,
}

impl Workload {
    pub const ALL: [Self; 4] = [Self::Checkout, Self::HotSku, Self::Register, Self::Transfer];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Checkout => "checkout",
            Self::HotSku => "hot-sku",
            Self::Register => "register",
            Self::Transfer => "transfer",
        }
    }

    /// What is on hand of each of its SKUs at first. A register has no first value: it is written.
    fn supply(self) -> u64 {
        match self {
            Self::Checkout => 1_000_000,
            Self::HotSku => 100,
            Self::Register => 0,
            Self::Transfer => 1000,
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Workload {
    type Err = UnknownWorkload;

    fn from_str(text: &str) -> Result<Self, UnknownWorkload> {
        Self::ALL.into_iter().find(|one| one.name() == text).ok_or_else(|| UnknownWorkload { name: text.to_owned() })
    }
}

/// The SKUs that a workload is about. No two workloads share one.
#[must_use]
pub fn skus(workload: Workload) -> &'static [&'static str] {
    match workload {
        Workload::Checkout => &["chaos-mug", "chaos-plate", "chaos-bowl", "chaos-cup", "chaos-jar", "chaos-pot"],
        Workload::HotSku => &["chaos-hot"],
        Workload::Register => {
            // In as many shards: so many that each node will own some.
            &[
                "chaos-reg-a",
                "chaos-reg-b",
                "chaos-reg-c",
                "chaos-reg-d",
                "chaos-reg-e",
                "chaos-reg-f",
                "chaos-reg-g",
                "chaos-reg-h",
            ]
        }
        Workload::Transfer => &["chaos-acc-a", "chaos-acc-b", "chaos-acc-c", "chaos-acc-d", "chaos-acc-e"],
    }
}

/// Puts the stock on the shelves, before anyone takes from it. False if the load was stopped first.
pub(super) async fn stock_up(client: &mut Client) -> bool {
    let workload = client.workload();
    for sku in skus(workload).iter().filter(|_| workload != Workload::Register) {
        let request = Request {
            method: Method::Put,
            path: format!("/v1/inventory/{sku}"),
            key: Some(format!("chaos-supply-{sku}")),
            if_match: None,
            body: (&json!({"on_hand": workload.supply()})).into(),
        };
        while client.insist(request.clone()).await.is_none() {
            if client.is_stopped() {
                return false;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_read_back_and_a_wrong_one_is_told_the_right_ones() {
        for workload in Workload::ALL {
            assert_eq!(workload.name().parse(), Ok(workload));
            assert_eq!(serde_json::to_value(workload).expect("serialises"), workload.name());
        }
        let error = "chekout".parse::<Workload>().expect_err("misspelt").to_string();
        assert!(error.contains("`chekout`") && error.contains("checkout, hot-sku"), "{error}");
    }

    #[test]
    fn no_two_workloads_share_a_sku() {
        let all: Vec<&str> = Workload::ALL.into_iter().flat_map(skus).copied().collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }
}
