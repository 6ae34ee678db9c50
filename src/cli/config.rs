//! `quorate config check` and `show`.

use super::{
    Failure,
    args::{Config, ConfigCommand, NodeSettings},
    output,
};
use crate::config::{Error, Loaded};
use std::path::Path;

pub(super) fn run(args: &Config) -> Result<(), Failure> {
    match &args.command {
        ConfigCommand::Check { file, json } => check(file, *json),
        ConfigCommand::Show { settings, json } => show(settings, *json),
    }
}

/// Reads the configuration that `settings` describe: file, environment, flags.
pub(super) fn load(settings: &NodeSettings) -> Result<Loaded, Error> {
    // Variables whose name or value is not UTF-8 are none of ours.
    let env =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Loaded::load(settings.config.as_deref(), env, settings.overrides())
}

/// The file alone, so that the answer is the same on every machine.
fn check(file: &Path, json: bool) -> Result<(), Failure> {
    let result = Loaded::load(Some(file), std::iter::empty(), []);
    let problems = result.as_ref().err().map(Error::problems).unwrap_or_default();
    if json {
        let report = serde_json::json!({ "file": file, "valid": problems.is_empty(), "problems": problems });
        output::answer(&report.to_string())?;
    }
    match (result, json) {
        (Ok(_), true) => Ok(()),
        (Ok(_), false) => output::answer(&format!("{}: valid", file.display())),
        (Err(error), _) => {
            // All but the last here; that one becomes the command's error.
            let (last, others) =
                problems.split_last().map_or((error.to_string(), &[][..]), |(last, others)| (last.clone(), others));
            if !json {
                others.iter().for_each(|problem| output::note(&format!("error: {problem}")));
            }
            Err(Failure::usage(last))
        }
    }
}

fn show(settings: &NodeSettings, json: bool) -> Result<(), Failure> {
    let loaded = load(settings)?;
    if json {
        return output::answer(&format!("{:#}", loaded.config.show_json(&loaded.sources)));
    }
    output::answer(&loaded.config.show(&loaded.sources))
}
