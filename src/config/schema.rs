//! Which keys there are. Read off the defaults, so that no list has to be kept in step.

use super::Config;
use serde_json::Value;
use std::collections::BTreeMap;

/// Every key (`section.key`, `section.sub.key`) with its value. An empty table is one value.
pub(super) fn leaves(config: &Config) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    // Options are plain data: they cannot fail to serialize. Were one to, its keys would be
    // missing here and refused as unknown, which the tests notice.
    let tree = serde_json::to_value(config).unwrap_or_default();
    collect(String::new(), &tree, &mut found);
    found
}

fn collect(prefix: String, value: &Value, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(table) if !table.is_empty() || !prefix.contains('.') => {
            for (key, value) in table {
                let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                collect(path, value, into);
            }
        }
        _ => {
            into.insert(prefix, value.clone());
        }
    }
}

/// The keys and sections there are.
pub(super) struct Schema {
    leaves: BTreeMap<String, Value>,
    sections: Vec<String>,
}

/// What a path stands for.
pub(super) enum Kind<'a> {
    /// A key, with its default.
    Leaf(&'a Value),
    Section,
    Unknown,
}

impl Schema {
    pub fn new() -> Self {
        let defaults = Config::default();
        let leaves = leaves(&defaults);
        let tree = serde_json::to_value(&defaults).unwrap_or_default();
        let mut sections: Vec<String> = tree.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
        for key in leaves.keys() {
            // Tables inside a section: `storage.cache` for `storage.cache.entries`.
            for (dot, _) in key.match_indices('.') {
                let parent = &key[..dot];
                if !sections.iter().any(|section| section == parent) {
                    sections.push(parent.to_owned());
                }
            }
        }
        Self { leaves, sections }
    }

    pub fn kind(&self, path: &str) -> Kind<'_> {
        if let Some(default) = self.leaves.get(path) {
            Kind::Leaf(default)
        } else if self.sections.iter().any(|section| section == path) {
            Kind::Section
        } else {
            Kind::Unknown
        }
    }

    /// The known key or section most like `path`, if any is near enough to have been meant.
    pub fn nearest(&self, path: &str) -> Option<&str> {
        let known = self.leaves.keys().chain(&self.sections).map(String::as_str);
        let (distance, name) = known.map(|name| (likeness(path, name), name)).min()?;
        (distance <= path.len().div_ceil(3).max(2)).then_some(name)
    }
}

/// How far apart two paths are; a right key in the wrong section is near.
fn likeness(given: &str, known: &str) -> usize {
    let leaf = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let whole = distance(given, known);
    if given.contains('.') && known.contains('.') && leaf(given) == leaf(known) { whole.min(1) } else { whole }
}

/// Levenshtein distance, by the usual two rows (Wagner and Fischer, 1974).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
