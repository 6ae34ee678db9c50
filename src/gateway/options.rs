//! `[gateway]`: which card gateway a node talks to, and how.

use super::http::{BaseUrl, bearer};
use crate::{commerce::payment::ATTEMPT_TIMEOUT_MS, config::Secret};
use serde::{Deserialize, Serialize};
use std::time::Duration;

const VALIDITY_MIN: Duration = Duration::from_secs(60);
const VALIDITY_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Which card gateway, and how it is talked to. The same on every node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// `sandbox`: the embedded one, which moves no money. `http`: the one at `base_url`.
    pub kind: Kind,
    /// Where the gateway is, as `https://host` or `http://host:port`, with or without a path before `/v1`.
    pub base_url: Option<String>,
    /// Sent to it as `Authorization: Bearer …`.
    pub api_key: Option<Secret>,
    /// To open a connection to it, name lookup and TLS included.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// For one whole exchange with it, connecting included.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// How long a payment of its own may be captured after its creation: as long as the gateway
    /// holds an authorization, or less. After that it is told to let go of it.
    #[serde(with = "humantime_serde")]
    pub authorization_validity: Duration,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    #[default]
    Sandbox,
    Http,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            kind: Kind::Sandbox,
            base_url: None,
            api_key: None,
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(8),
            authorization_validity: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

/// Keys that contradict each other or are not what they must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} ({}); {fix}", keys.join(", "))]
pub struct Invalid {
    pub keys: &'static [&'static str],
    pub what: String,
    pub fix: &'static str,
}

impl Options {
    /// Everything that is wrong.
    #[must_use]
    pub fn problems(&self) -> Vec<Invalid> {
        let mut found = Vec::new();
        let mut refuse = |keys, what: &str, fix| found.push(Invalid { keys, what: what.to_owned(), fix });
        match (self.kind, &self.base_url) {
            (Kind::Http, None) => refuse(
                &["gateway.kind", "gateway.base_url"],
                "an http gateway needs an address",
                "set `base_url` to https://HOST",
            ),
            (Kind::Http, Some(url)) => {
                if let Err(why) = BaseUrl::parse(url) {
                    refuse(&["gateway.base_url"], &why, "write it as https://HOST or http://HOST:PORT");
                }
            }
            (Kind::Sandbox, Some(_)) => refuse(
                &["gateway.kind", "gateway.base_url"],
                "the sandbox has no address, and would charge nobody",
                "set `kind` to \"http\" to use it, or leave `base_url` out",
            ),
            (Kind::Sandbox, None) => {}
        }
        match &self.api_key {
            None if self.kind == Kind::Http => refuse(
                &["gateway.kind", "gateway.api_key"],
                "an http gateway needs a key",
                "set QUORATE__GATEWAY__API_KEY in the node's environment, or `api_key` in a file that only its user can read",
            ),
            Some(key) if bearer(key).is_none() => refuse(
                &["gateway.api_key"],
                "it cannot be sent in a header",
                "give visible ASCII characters, without blanks or line breaks",
            ),
            _ => {}
        }
        if self.connect_timeout > self.request_timeout {
            refuse(
                &["gateway.connect_timeout", "gateway.request_timeout"],
                "connecting is a part of the request",
                "make `connect_timeout` the smaller one",
            );
        }
        if self.request_timeout >= Duration::from_millis(ATTEMPT_TIMEOUT_MS) {
            refuse(
                &["gateway.request_timeout"],
                "an attempt is given up after 10s, and would never see this timeout",
                "choose less than 10s",
            );
        }
        if !(VALIDITY_MIN..=VALIDITY_MAX).contains(&self.authorization_validity) {
            refuse(
                &["gateway.authorization_validity"],
                "out of range",
                "choose 1m to 366days; card networks hold most authorizations for 7days",
            );
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http() -> Options {
        Options {
            kind: Kind::Http,
            base_url: Some("http://127.0.0.1:9".into()),
            api_key: Some(Secret::new("sk_test")),
            ..Options::default()
        }
    }

    /// The keys of each problem.
    fn blamed(change: impl FnOnce(&mut Options)) -> Vec<Vec<&'static str>> {
        let mut options = http();
        change(&mut options);
        options.problems().into_iter().map(|problem| problem.keys.to_vec()).collect()
    }

    #[test]
    fn the_sandbox_needs_nothing_and_an_http_gateway_an_address_and_a_key() {
        assert_eq!(Options::default().problems(), []);
        assert_eq!(http().problems(), []);
        assert_eq!(blamed(|o| o.base_url = None), [["gateway.kind", "gateway.base_url"]]);
        assert_eq!(blamed(|o| o.api_key = None), [["gateway.kind", "gateway.api_key"]]);
        assert_eq!(blamed(|o| o.kind = Kind::Sandbox), [["gateway.kind", "gateway.base_url"]]);
    }

    #[test]
    fn what_cannot_work_is_refused_before_it_is_tried() {
        for url in ["ftp://x", "x", "http://", "http://u:p@x", "http://x/?a=1", "http://x/#a"] {
            assert_eq!(blamed(|o| o.base_url = Some(url.into())), [["gateway.base_url"]], "{url}");
        }
        for key in ["", "two words", "line\nbreak", "é"] {
            assert_eq!(blamed(|o| o.api_key = Some(Secret::new(key))), [["gateway.api_key"]], "{key:?}");
        }
        assert_eq!(blamed(|o| o.request_timeout = Duration::from_secs(10)), [["gateway.request_timeout"]]);
        let timeouts = ["gateway.connect_timeout", "gateway.request_timeout"];
        assert_eq!(blamed(|o| o.connect_timeout = Duration::from_secs(9)), [timeouts]);
        for validity in [Duration::ZERO, Duration::from_secs(367 * 24 * 3600)] {
            assert_eq!(blamed(|o| o.authorization_validity = validity), [["gateway.authorization_validity"]]);
        }
    }

    #[test]
    fn https_is_taken_and_the_key_is_never_shown() {
        let options = Options { base_url: Some("https://api.example".into()), ..http() };
        assert_eq!(options.problems(), []);
        assert!(!format!("{options:?}").contains("sk_test"));
    }
}
