//! The token that is sent to nodes which ask for one.

use super::Failure;
use crate::config::Secret;
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

const VARIABLE: &str = "QUORATE_TOKEN";

/// Where the token comes from. A flag beats the environment, which clap cannot say of two flags that
/// exclude each other: so the variable is read here.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Credentials {
    /// Token, where the nodes ask for one; whoever lists processes sees it [env: QUORATE_TOKEN]
    #[arg(long, value_parser = secret, conflicts_with = "token_file")]
    token: Option<Secret>,
    /// A file that holds the token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Credentials {
    /// The token, if there is one.
    ///
    /// # Errors
    /// The file cannot be read, or what is given can be no token.
    pub fn token(&self) -> Result<Option<Secret>, Failure> {
        self.token_or(std::env::var_os(VARIABLE))
    }

    fn token_or(&self, variable: Option<OsString>) -> Result<Option<Secret>, Failure> {
        match (&self.token, &self.token_file, variable) {
            (Some(token), _, _) => usable("--token", token.expose()),
            (None, Some(path), _) => {
                let from = format!("--token-file {}", path.display());
                usable(&from, &read(&from, path)?)
            }
            (None, None, Some(text)) if !text.is_empty() => usable(VARIABLE, &text.to_string_lossy()),
            _ => return Ok(None),
        }
        .map(Some)
    }
}

fn secret(text: &str) -> Result<Secret, String> {
    Ok(Secret::new(text))
}

fn read(from: &str, path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("{from}: {error}; give a file that this user may read")))
}

/// Without the blanks around it. It goes into a header: a line break in it would begin another one.
fn usable(from: &str, text: &str) -> Result<Secret, Failure> {
    let token = text.trim();
    match !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(Secret::new(token)),
        false => Err(Failure::usage(format!("{from}: a token is one word of visible ASCII characters"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(token: Option<&str>, file: Option<&Path>, variable: Option<&str>) -> Result<Option<String>, Failure> {
        let credentials = Credentials { token: token.map(Secret::new), token_file: file.map(Path::to_owned) };
        let found = credentials.token_or(variable.map(Into::into))?;
        Ok(found.map(|token| token.expose().to_owned()))
    }

    #[test]
    fn a_flag_beats_the_environment() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("token");
        std::fs::write(&file, "from-the-file\n").expect("writing");
        assert_eq!(found(None, None, None), Ok(None));
        assert_eq!(found(None, None, Some("")), Ok(None), "an empty variable is none");
        assert_eq!(found(None, None, Some("from-outside")), Ok(Some("from-outside".into())));
        assert_eq!(found(None, Some(&file), Some("from-outside")), Ok(Some("from-the-file".into())));
        assert_eq!(found(Some("given"), None, Some("from-outside")), Ok(Some("given".into())));
    }

    #[test]
    fn what_can_be_no_token_is_refused_by_where_it_came_from_and_not_shown() {
        let absent = found(None, Some(Path::new("/nonexistent/token")), None);
        assert!(matches!(&absent, Err(Failure::Usage(text)) if text.contains("--token-file /nonexistent/token")));
        for bad in ["two words", "a\r\nx-other: header", " ", "é"] {
            for (given, variable, from) in [(Some(bad), None, "--token"), (None, Some(bad), "QUORATE_TOKEN")] {
                let refused = found(given, None, variable).expect_err("refused").to_string();
                assert!(refused.starts_with(from) && (bad == " " || !refused.contains(bad)), "{bad:?}: {refused}");
            }
        }
        let debugged = format!("{:?}", Credentials { token: Some(Secret::new("s3cret")), token_file: None });
        assert!(!debugged.contains("s3cret"), "{debugged}");
    }
}
