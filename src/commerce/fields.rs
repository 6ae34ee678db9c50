//! Named errors of a request: every wrong field at once, each by its JSON path.

use crate::entity::EntityKey;
use serde::{Deserialize, Serialize};

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

    /// The value, if nothing was wrong.
    pub fn finish<T>(self, value: T) -> Result<T, Vec<FieldError>> {
        if self.0.is_empty() { Ok(value) } else { Err(self.0) }
    }
}
