//! The configuration in effect, for people.

use super::{Config, Sources, schema, secret};
use serde_json::Value;

impl Config {
    /// The configuration as TOML, each value followed by where it came from. Secrets are redacted.
    #[must_use]
    pub fn show(&self, sources: &Sources) -> String {
        let mut rows: Vec<Row> =
            schema::leaves(self).into_iter().map(|(key, value)| Row::new(&key, value, sources)).collect();
        // A section's own keys come before those of the tables inside it, as TOML wants it.
        rows.sort_by(|a, b| (&a.section, &a.line).cmp(&(&b.section, &b.line)));
        let width = rows.iter().map(|row| row.line.len()).max().unwrap_or(0).min(LINE_WIDTH_MAX);
        let mut text = String::new();
        let mut section = "";
        for row in &rows {
            if row.section != section {
                let gap = if text.is_empty() { "" } else { "\n" };
                text.push_str(&format!("{gap}[{}]\n", row.section));
                section = &row.section;
            }
            text.push_str(&format!("{:<width$}  # {}\n", row.line, row.source));
        }
        text
    }

    /// The same as JSON: `{"section.key": {"value": …, "source": "…"}}`. Secrets are redacted.
    #[must_use]
    pub fn show_json(&self, sources: &Sources) -> Value {
        let entry = |(key, value): (String, Value)| {
            let (value, source) = (secret::shown(&key, value), sources.of(&key).to_string());
            (key, serde_json::json!({ "value": value, "source": source }))
        };
        Value::Object(schema::leaves(self).into_iter().map(entry).collect())
    }
}

/// Past this column, what follows a long value is no longer lined up.
const LINE_WIDTH_MAX: usize = 60;

struct Row {
    section: String,
    line: String,
    source: String,
}

impl Row {
    fn new(key: &str, value: Value, sources: &Sources) -> Self {
        let (section, leaf) = key.rsplit_once('.').unwrap_or(("", key));
        let line = match secret::shown(key, value) {
            Value::Null => format!("# {leaf} unset"),
            value => format!("{leaf} = {}", toml_of(&value)),
        };
        Self { section: section.to_owned(), line, source: sources.of(key).to_string() }
    }
}

/// On one line. Scalars read the same in JSON and in TOML.
fn toml_of(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(toml_of).collect::<Vec<_>>().join(", ")),
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| format!("{name} = {}", toml_of(value)));
            format!("{{ {} }}", members.collect::<Vec<_>>().join(", "))
        }
        scalar => scalar.to_string(),
    }
}
