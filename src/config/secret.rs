//! Text that is never shown.

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use std::fmt;

/// What stands in for a secret wherever it would be printed.
pub(super) const REDACTED: &str = "<redacted>";

/// Text that is never shown: `Debug` and serialization print `<redacted>`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself. Do not log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

/// A list whose entries hold secrets. What is wrong with it is said without quoting it, and each
/// entry knows which of its members are secret.
pub(super) const TOKENS: &str = "http.tokens";

/// A value as it may be shown: secrets are redacted, each member of a table by its own name.
pub(super) fn shown(key: &str, value: Value) -> Value {
    match value {
        Value::Object(members) => {
            members.into_iter().map(|(name, value)| (name.clone(), shown(&name, value))).collect()
        }
        Value::Array(items) => items.into_iter().map(|item| shown(key, item)).collect(),
        Value::Null => Value::Null,
        _ if is_secret(key) => REDACTED.into(),
        value => value,
    }
}

/// Whether the value of `key` must not be printed, whatever its type. Errs on the safe side, for
/// the sections of components that do not use [`Secret`].
pub(super) fn is_secret(key: &str) -> bool {
    let leaf = key.rsplit('.').next().unwrap_or(key);
    let path_only = leaf.ends_with("_file") || leaf.ends_with("_dir") || leaf.ends_with("_path");
    !path_only && ["secret", "token", "password", "private_key", "api_key"].iter().any(|word| leaf.contains(word))
}
