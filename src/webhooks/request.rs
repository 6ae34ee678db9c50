//! Bodies of /v1/webhook_endpoints, and what is left of them once they are checked.

use super::{
    endpoints::{Changes, Settings},
    events::{is_pattern, types},
};
use crate::{
    commerce::{
        fields::{Checks, FieldError},
        time::duration_ms,
    },
    outbound::{BadUrl, HttpUrl},
};
use serde::{Deserialize, Serialize};

pub const URL_BYTES_MAX: usize = 2048;
pub const DESCRIPTION_CHARS_MAX: usize = 500;
/// Entries of `enabled_events`.
pub const PATTERNS_MAX: usize = 64;
/// How long a replaced secret goes on signing, unless the request says otherwise.
pub const GRACE_MS: u64 = 24 * 3_600_000;
pub const GRACE_MAX_MS: u64 = 7 * 24 * 3_600_000;

/// Body of `POST /v1/webhook_endpoints`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateEndpoint {
    pub url: String,
    /// Types, families (`order.*`) or `*`; all if it is left out.
    pub enabled_events: Option<Vec<String>>,
    pub description: Option<String>,
    #[serde(default)]
    pub disabled: bool,
}

/// Body of `POST /v1/webhook_endpoints/{id}`. What is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateEndpoint {
    pub url: Option<String>,
    pub enabled_events: Option<Vec<String>>,
    /// `""` takes it away.
    pub description: Option<String>,
    pub disabled: Option<bool>,
}

/// Body of `POST /v1/webhook_endpoints/{id}/rotate-secret`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateSecret {
    /// A duration such as `"24h"`; `"0s"` ends every earlier secret at once.
    pub grace: Option<String>,
}

impl CreateEndpoint {
    /// Names every wrong field at once.
    pub fn validate(self) -> Result<Settings, Vec<FieldError>> {
        let mut checks = Checks::default();
        check_url(&mut checks, &self.url);
        let enabled_events = self.enabled_events.unwrap_or_else(|| vec!["*".to_owned()]);
        check_events(&mut checks, &enabled_events);
        if let Some(description) = &self.description {
            checks.text("description", description, DESCRIPTION_CHARS_MAX);
        }
        let (url, description, enabled) = (self.url, self.description, !self.disabled);
        checks.finish(Settings { url, enabled_events, description, enabled })
    }
}

impl UpdateEndpoint {
    /// Names every wrong field at once.
    pub fn validate(self) -> Result<Changes, Vec<FieldError>> {
        let mut checks = Checks::default();
        if let Some(url) = &self.url {
            check_url(&mut checks, url);
        }
        if let Some(events) = &self.enabled_events {
            check_events(&mut checks, events);
        }
        if let Some(description) = self.description.as_ref().filter(|text| !text.is_empty()) {
            checks.text("description", description, DESCRIPTION_CHARS_MAX);
        }
        let Self { url, enabled_events, description, disabled } = self;
        checks.finish(Changes { url, enabled_events, description, enabled: disabled.map(|disabled| !disabled) })
    }
}

impl RotateSecret {
    /// The grace in milliseconds.
    pub fn validate(self) -> Result<u64, Vec<FieldError>> {
        let mut checks = Checks::default();
        let grace_ms = match &self.grace {
            None => Some(GRACE_MS),
            Some(grace) => duration_ms(grace).filter(|ms| *ms <= GRACE_MAX_MS),
        };
        if grace_ms.is_none() {
            let shown: String = self.grace.unwrap_or_default().chars().take(40).collect();
            checks.wrong("grace", format!("must be a duration from \"0s\" to \"7d\", such as \"24h\", is {shown:?}"));
        }
        checks.finish(grace_ms.unwrap_or(GRACE_MS))
    }
}

fn check_url(checks: &mut Checks, url: &str) {
    if url.len() > URL_BYTES_MAX {
        checks.wrong("url", format!("must have at most {URL_BYTES_MAX} bytes, has {}", url.len()));
        return;
    }
    let detail = match HttpUrl::parse(url) {
        Ok(_) => return,
        Err(BadUrl::Credentials) => "must not carry credentials; the receiver checks the signature instead".to_owned(),
        Err(bad) => format!("{bad}; must be an absolute address such as \"https://shop.example/hooks\""),
    };
    checks.wrong("url", detail);
}

fn check_events(checks: &mut Checks, patterns: &[String]) {
    if patterns.is_empty() || patterns.len() > PATTERNS_MAX {
        checks.wrong("enabled_events", format!("must have 1 to {PATTERNS_MAX} entries, has {}", patterns.len()));
    }
    let types = types();
    for (at, pattern) in patterns.iter().take(PATTERNS_MAX).enumerate() {
        if !is_pattern(pattern, &types) {
            let shown: String = pattern.chars().take(40).collect();
            let detail =
                format!("must be \"*\", a family such as \"order.*\", or one of {}; is {shown:?}", types.join(", "));
            checks.wrong(format!("enabled_events[{at}]"), detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn created(body: Value) -> Result<Settings, Vec<String>> {
        let body: CreateEndpoint = serde_json::from_value(body).expect("of the right types");
        body.validate().map_err(|errors| errors.into_iter().map(|error| error.field).collect())
    }

    #[test]
    fn what_is_left_out_means_everything_and_enabled() {
        let settings = created(json!({"url": "http://127.0.0.1:9/in?a=1"})).expect("valid");
        assert_eq!((settings.enabled_events, settings.enabled), (vec!["*".to_owned()], true));
        assert_eq!(UpdateEndpoint::default().validate(), Ok(Changes::default()));
        assert_eq!(RotateSecret::default().validate(), Ok(GRACE_MS));
    }

    #[test]
    fn every_wrong_field_is_named() {
        let body = json!({"url": "ftp://x", "enabled_events": ["*", "order.x"], "description": "a\nb"});
        assert_eq!(created(body), Err(["url", "enabled_events[1]", "description"].map(str::to_owned).to_vec()));
        let ok = "http://x/";
        assert_eq!(created(json!({"url": ok, "enabled_events": []})), Err(vec!["enabled_events".to_owned()]));
        let many = vec!["*"; PATTERNS_MAX + 1];
        assert_eq!(created(json!({"url": ok, "enabled_events": many})), Err(vec!["enabled_events".to_owned()]));
        assert!(created(json!({"url": format!("{ok}{}", "x".repeat(URL_BYTES_MAX))})).is_err());
        for grace in ["1", "8d", "-1s", "", "1h30m"] {
            assert!(RotateSecret { grace: Some(grace.into()) }.validate().is_err(), "{grace}");
        }
        assert_eq!(RotateSecret { grace: Some("0s".into()) }.validate(), Ok(0));
    }

    #[test]
    fn an_address_may_be_https_and_what_is_neither_is_told_so() {
        assert!(created(json!({"url": "https://shop.example/hooks"})).is_ok());
        let body = CreateEndpoint { url: "ftp://x/".into(), enabled_events: None, description: None, disabled: false };
        let errors = body.validate().expect_err("refused");
        assert!(errors[0].detail.contains("neither an https:// nor an http:// URL"), "{errors:?}");
    }
}
