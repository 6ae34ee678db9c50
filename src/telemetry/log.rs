//! Log output: what is let through, in which form.

use serde::{Deserialize, Serialize};
use std::io::IsTerminal;
use tracing_subscriber::{EnvFilter, fmt};

/// The environment variable that overrides [`Options::filter`].
const FILTER_VARIABLE: &str = "RUST_LOG";

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// What to log, in `tracing-subscriber`'s directive syntax: `info`, `warn,quorate=debug`.
    /// `RUST_LOG` in the environment wins over it. The default keeps the engines quiet.
    pub filter: String,
    /// For people or for log collectors.
    pub format: Format,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people; coloured when stderr is a terminal.
    #[default]
    Text,
    /// One JSON object per line, for log collectors.
    Json,
}

impl Default for Options {
    fn default() -> Self {
        // openraft warns of every heartbeat that a dead peer misses, a hundred lines a second; that
        // a peer is gone is told once by the link to it.
        Self { filter: "info,openraft=error,ractor_cluster=warn".into(), format: Format::Text }
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{origin} is no log filter: `{text}`: {detail}")]
    Filter { origin: &'static str, text: String, detail: String },
    /// Another subscriber is in place; it stays.
    #[error("logging is already set up in this process")]
    AlreadySet,
}

/// Sends this process's log to stderr. Once per process; a second call is an error and changes
/// nothing.
pub fn init(options: &Options) -> Result<(), Error> {
    let filter = filter(options, std::env::var(FILTER_VARIABLE).ok())?;
    let base = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let result = match options.format {
        Format::Text => base.with_ansi(std::io::stderr().is_terminal()).try_init(),
        Format::Json => base.json().flatten_event(true).try_init(),
    };
    result.map_err(|_| Error::AlreadySet)
}

/// The filter in force. An empty variable counts as unset.
fn filter(options: &Options, variable: Option<String>) -> Result<EnvFilter, Error> {
    let (origin, text) = match variable.filter(|text| !text.trim().is_empty()) {
        Some(text) => (FILTER_VARIABLE, text),
        None => ("telemetry.filter", options.filter.clone()),
    };
    EnvFilter::try_new(&text).map_err(|e| Error::Filter { origin, text, detail: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_filter(filter: &str) -> Options {
        Options { filter: filter.into(), ..Options::default() }
    }

    #[test]
    fn the_environment_wins_over_the_configuration() {
        let chosen = filter(&with_filter("warn"), Some("quorate=trace".into())).expect("valid");
        assert_eq!(chosen.to_string(), "quorate=trace");
        let chosen = filter(&with_filter("warn"), Some(" ".into())).expect("valid");
        assert_eq!(chosen.to_string(), "warn");
    }

    #[test]
    fn a_bad_filter_names_where_it_came_from() {
        let error = filter(&with_filter("quorate=loud"), None).expect_err("not a level");
        assert!(error.to_string().starts_with("telemetry.filter is no log filter: `quorate=loud`"), "{error}");
        let error = filter(&with_filter("info"), Some("a=b=c".into())).expect_err("not a directive");
        assert!(error.to_string().starts_with("RUST_LOG"), "{error}");
    }

    #[test]
    fn a_second_setup_is_an_error_and_not_a_panic() {
        // Whichever test of this process comes first may set it up: the second call here is never first.
        let _ = init(&Options::default());
        assert!(matches!(init(&Options::default()), Err(Error::AlreadySet)));
        let json = Options { format: Format::Json, ..Options::default() };
        assert!(matches!(init(&json), Err(Error::AlreadySet)));
    }

    #[test]
    fn options_are_read_as_people_write_them() {
        let options: Options = toml::from_str("format = 'json'\nfilter = 'debug'").expect("valid");
        assert_eq!(options, Options { filter: "debug".into(), format: Format::Json });
        assert!(toml::from_str::<Options>("colour = true").is_err());
    }
}
