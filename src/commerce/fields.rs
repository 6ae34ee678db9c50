//! Named errors of a request: every wrong field at once, each by its JSON path.

use crate::entity::EntityKey;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub const METADATA_KEYS_MAX: usize = 20;
const METADATA_KEY_CHARS_MAX: usize = 40;
const METADATA_VALUE_CHARS_MAX: usize = 500;
/// What all keys and values of one resource may take together: the event that brings them and the
/// answer that is kept under the request's key share one log entry.
pub const METADATA_BYTES_MAX: usize = 16 << 10;
/// The longest name of a payment method, in characters.
pub const PAYMENT_METHOD_CHARS_MAX: usize = 128;

/// One wrong field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{field}: {detail}")]
pub struct FieldError {
    /// JSON path in the request body, for instance `items[0].quantity`.
    pub field: String,
    pub detail: String,
}

/// Collects what is wrong with a request.
#[derive(Debug, Default)]
pub struct Checks(Vec<FieldError>);

impl Checks {
    pub fn wrong(&mut self, field: impl Into<String>, detail: impl Into<String>) {
        self.0.push(FieldError { field: field.into(), detail: detail.into() });
    }

    /// `value` if `min <= value <= max`, else the nearest bound and an error.
    pub fn range(&mut self, field: impl Into<String>, value: i64, min: i64, max: i64) -> i64 {
        if !(min..=max).contains(&value) {
            self.wrong(field, format!("must be from {min} to {max}, is {value}"));
        }
        value.clamp(min, max)
    }

    /// Text of 1 to `chars_max` characters without control characters.
    pub fn text(&mut self, field: impl Into<String>, value: &str, chars_max: usize) {
        let chars = value.chars().count();
        if chars == 0 || chars > chars_max {
            self.wrong(field, format!("must have 1 to {chars_max} characters, has {chars}"));
        } else if value.chars().any(char::is_control) {
            self.wrong(field, "must not contain control characters");
        }
    }

    /// An id that can name an entity, of at most `bytes_max` bytes.
    pub fn id(&mut self, field: impl Into<String>, value: &str, bytes_max: usize) {
        if value.len() > bytes_max || EntityKey::new("", value).is_err() {
            let detail = format!("must have 1 to {bytes_max} visible ASCII characters, none of them '/'");
            self.wrong(field, detail);
        }
    }

    /// What a client keeps with a resource, for its own use.
    pub fn metadata(&mut self, metadata: &BTreeMap<String, String>) {
        if metadata.len() > METADATA_KEYS_MAX {
            self.wrong("metadata", format!("must have at most {METADATA_KEYS_MAX} keys, has {}", metadata.len()));
        }
        let bytes: usize = metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
        if bytes > METADATA_BYTES_MAX {
            self.wrong("metadata", format!("must have at most {METADATA_BYTES_MAX} bytes in all, has {bytes}"));
        }
        for (key, value) in metadata.iter().take(METADATA_KEYS_MAX) {
            let shown: String = key.chars().take(METADATA_KEY_CHARS_MAX).collect();
            let field = format!("metadata.{shown}");
            let key_chars = key.chars().count();
            if key_chars == 0 || key_chars > METADATA_KEY_CHARS_MAX {
                self.wrong(&field, format!("a key has 1 to {METADATA_KEY_CHARS_MAX} characters"));
            }
            if value.chars().count() > METADATA_VALUE_CHARS_MAX {
                self.wrong(&field, format!("must have at most {METADATA_VALUE_CHARS_MAX} characters"));
            }
        }
    }

    /// The value, if nothing was wrong.
    pub fn finish<T>(self, value: T) -> Result<T, Vec<FieldError>> {
        if self.0.is_empty() { Ok(value) } else { Err(self.0) }
    }
}
