//! Reading: file, environment and flags become one configuration.

use super::{
    Config, Error, Problem, Source, Sources,
    error::Setting,
    schema::{Kind, Schema},
    secret, validate,
};
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use toml::de::{DeTable, DeValue};

/// Environment variables with this prefix are configuration.
const ENV_PREFIX: &str = "QUORATE__";

/// A value given on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// `section.key`
    pub key: String,
    /// As written by the user; lists separate their items by commas.
    pub value: String,
    /// The flag it came with, as `--name`.
    pub flag: String,
}

impl Override {
    pub fn new(key: impl Into<String>, value: impl Into<String>, flag: impl Into<String>) -> Self {
        Self { key: key.into(), value: value.into(), flag: flag.into() }
    }
}

/// A configuration with the source of every value.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    pub sources: Sources,
}

impl Loaded {
    /// As [`Config::load`], and tells where each value came from.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
        overrides: impl IntoIterator<Item = Override>,
    ) -> Result<Self, Error> {
        let mut reader = Reader::new();
        if let Some(path) = file {
            reader.file(path)?;
        }
        // Sorted, so that the first problem reported is the same in every run.
        let variables: BTreeMap<_, _> = env.filter(|(name, _)| name.starts_with(ENV_PREFIX)).collect();
        for (name, value) in variables {
            let key = name[ENV_PREFIX.len()..].to_lowercase().replace("__", ".");
            reader.text(&key, value, Source::Env(name));
        }
        for given in overrides {
            reader.text(&given.key, given.value, Source::Flag(given.flag));
        }
        reader.finish()
    }
}

struct Reader {
    schema: Schema,
    /// What was given, as nested tables; later sources replace earlier ones.
    tree: Map<String, Value>,
    sources: Sources,
    problems: Vec<Problem>,
}

impl Reader {
    fn new() -> Self {
        Self { schema: Schema::new(), tree: Map::new(), sources: Sources::default(), problems: Vec::new() }
    }

    fn file(&mut self, path: &Path) -> Result<(), Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::Unreadable { path: path.to_owned(), reason: error.to_string() })?;
        let syntax = |error: toml::de::Error| Error::Syntax {
            path: path.to_owned(),
            line: error.span().map_or(1, |span| line_at(&text, span.start)),
            reason: error.message().replace('\n', " "),
        };
        let values: toml::Table = toml::from_str(&text).map_err(syntax)?;
        let spans = DeTable::parse(&text).map_err(syntax)?;
        let mut lines = BTreeMap::new();
        collect_lines("", spans.get_ref(), &text, &mut lines);
        self.table("", &values, path, &lines);
        Ok(())
    }

    fn table(&mut self, prefix: &str, table: &toml::Table, path: &Path, lines: &BTreeMap<String, usize>) {
        for (name, value) in table {
            let key = join(prefix, name);
            let source = Source::File { path: PathBuf::from(path), line: lines.get(&key).copied().unwrap_or(1) };
            match (self.schema.kind(&key), value) {
                (Kind::Section, toml::Value::Table(inner)) => self.table(&key, inner, path, lines),
                (Kind::Section, _) => self.problem(
                    &key,
                    None,
                    source,
                    "is a section, not a value",
                    format!("write `[{key}]` and its keys below"),
                ),
                (Kind::Leaf(_), value) => match serde_json::to_value(value) {
                    Ok(json) => self.candidates(&key, vec![json], source),
                    Err(error) => {
                        self.problem(&key, None, source, error.to_string(), "write a plain TOML value".into())
                    }
                },
                (Kind::Unknown, _) => self.unknown(&key, source),
            }
        }
    }

    /// A value that came as text: read as what the key's default is, else as the other.
    fn text(&mut self, key: &str, text: String, source: Source) {
        let default = match self.schema.kind(key) {
            Kind::Leaf(default) => default.clone(),
            Kind::Section => {
                let fix = match source {
                    Source::Env(_) => format!("set `{ENV_PREFIX}{}__KEY`", key.to_uppercase()),
                    _ => format!("name one of its keys, as in `{key}.KEY=VALUE`"),
                };
                return self.problem(key, None, source, "is a section, not a key", fix);
            }
            Kind::Unknown => return self.unknown(key, source),
        };
        let as_text = Value::String(text.clone());
        let candidates = match (default, parse_toml(&text)) {
            (Value::Array(_), Some(list @ Value::Array(_))) => vec![list],
            (Value::Array(_), _) => vec![comma_list(&text)],
            (Value::String(_) | Value::Null, Some(parsed)) => vec![as_text, parsed],
            (_, Some(parsed)) => vec![parsed, as_text],
            (_, None) => vec![as_text],
        };
        self.candidates(key, candidates, source);
    }

    /// Takes the first of `values` that the key's type accepts.
    fn candidates(&mut self, key: &str, values: Vec<Value>, source: Source) {
        let mut refusal = None;
        for value in values {
            match self.try_alone(key, &value) {
                Ok(()) => {
                    insert(&mut self.tree, key, value);
                    return self.sources.set(key, source);
                }
                // The first reading is the one meant; its refusal is the one to tell.
                Err(reason) => refusal = refusal.or(Some((value, reason))),
            }
        }
        if let Some((value, reason)) = refusal {
            let fix = self.example(key);
            // A type error quotes the value.
            let quotes = secret::is_secret(key) && key != secret::TOKENS;
            let reason = if quotes { "not a value of the right type".into() } else { reason };
            self.problem(key, Some(value.to_string()), source, reason, fix);
        }
    }

    /// Whether `key` may be `value`, everything else being default: finds the key that is to blame.
    fn try_alone(&self, key: &str, value: &Value) -> Result<(), String> {
        let mut alone = Map::new();
        insert(&mut alone, key, value.clone());
        serde_json::from_value::<Config>(Value::Object(alone)).map(|_| ()).map_err(|error| error.to_string())
    }

    fn example(&self, key: &str) -> String {
        match self.schema.kind(key) {
            Kind::Leaf(_) if key == secret::TOKENS => {
                r#"write each as { name = "ops", role = "admin", token_file = "/etc/quorate/tokens/ops" }"#.into()
            }
            Kind::Leaf(Value::Null) => "leave it out, or give a value of the right type".into(),
            Kind::Leaf(default) => format!("write it like the default, {default}"),
            _ => "remove it".into(),
        }
    }

    fn unknown(&mut self, key: &str, source: Source) {
        let fix = match (self.schema.nearest(key), &source) {
            (Some(near), Source::Env(_)) => {
                format!("did you mean `{ENV_PREFIX}{}`?", near.to_uppercase().replace('.', "__"))
            }
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, _) => "remove it (`quorate config show` lists every key)".into(),
        };
        self.problem(key, None, source, "unknown key", fix);
    }

    fn problem(&mut self, key: &str, value: Option<String>, source: Source, what: impl Into<String>, fix: String) {
        let setting = Setting { key: key.to_owned(), value, source };
        self.problems.push(Problem::new(vec![setting], what, fix));
    }

    fn finish(self) -> Result<Loaded, Error> {
        if !self.problems.is_empty() {
            return Err(Error::Invalid(self.problems));
        }
        // Each value was accepted by itself, and types do not look at one another.
        let config: Config = serde_json::from_value(Value::Object(self.tree)).map_err(|error| {
            let setting = Setting { key: "configuration".into(), value: None, source: Source::Default };
            Error::Invalid(vec![Problem::new(vec![setting], error.to_string(), "correct the value it names")])
        })?;
        validate::check(&config, &self.sources)?;
        Ok(Loaded { config, sources: self.sources })
    }
}

fn collect_lines(prefix: &str, table: &DeTable<'_>, text: &str, into: &mut BTreeMap<String, usize>) {
    for (name, value) in table {
        let key = join(prefix, name.get_ref());
        into.insert(key.clone(), line_at(text, name.span().start));
        if let DeValue::Table(inner) = value.get_ref() {
            collect_lines(&key, inner, text, into);
        }
    }
}

/// The 1-based line of a byte offset.
fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

fn insert(tree: &mut Map<String, Value>, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            tree.insert(key.to_owned(), value);
        }
        Some((section, rest)) => {
            let inner = tree.entry(section).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

fn parse_toml(text: &str) -> Option<Value> {
    let table: toml::Table = toml::from_str(&format!("value = {text}")).ok()?;
    table.get("value").and_then(|value| serde_json::to_value(value).ok())
}

fn comma_list(text: &str) -> Value {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(|item| Value::String(item.into())).collect()
}
