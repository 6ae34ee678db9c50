//! `http.tokens`: the entries as they are written.
//!
//! They are read by hand and not by serde's macros, so that no complaint quotes what may be a
//! secret: whoever mistakes one member for another must not find his token in a log.

use super::Role;
use crate::config::Secret;
use ring::digest;
use serde::{Deserialize, Deserializer, Serialize, de::Error};
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// Fewest characters of a token.
const LEN_MIN: usize = 16;
/// Most characters of a token: longer ones are not looked at.
pub(super) const LEN_MAX: usize = 512;
/// Most tokens: each request is compared with all of them.
const TOKENS_MAX: usize = 64;
/// Shorter than what `openssl rand -hex 16` makes: a token in the place of its name is none, and is not quoted.
const NAME_LEN_MAX: usize = 31;
const MEMBERS: [&str; 5] = ["name", "role", "token", "token_file", "sha256"];
const MAKE: &str = "make one with `openssl rand -hex 32`";

pub(super) type Digest = [u8; digest::SHA256_OUTPUT_LEN];

/// A token: what it is called, what it may do, and what or where it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenOptions {
    /// Unique; logs call the token so.
    pub name: String,
    pub role: Role,
    /// The token itself: at least 16 of `A-Z a-z 0-9 - . _ ~ + /`, then perhaps `=`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// A file that holds it (surrounding blanks are dropped), instead of `token`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// The SHA-256 of its text in hexadecimal, instead: then no node has the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Secret>,
}

/// What is wrong with the tokens, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`http.tokens`: {what}; {fix}")]
pub struct Invalid {
    pub what: String,
    pub fix: String,
}

impl Invalid {
    fn new(what: String, fix: impl Into<String>) -> Self {
        Self { what, fix: fix.into() }
    }
}

impl TokenOptions {
    /// A token whose text is known here.
    pub fn new(name: impl Into<String>, role: Role, token: impl Into<String>) -> Self {
        Self { name: name.into(), role, token: Some(Secret::new(token)), token_file: None, sha256: None }
    }

    fn read(written: Value) -> Result<Self, String> {
        match written {
            Value::String(text) => Self::read_text(&text),
            Value::Object(members) => Self::read_table(&members),
            _ => Err("is neither a table nor NAME:ROLE:FILE".into()),
        }
    }

    /// `NAME:ROLE:FILE`, for environment and flags, where lists are separated by commas.
    fn read_text(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(3, ':').map(str::trim);
        match (parts.next(), parts.next(), parts.next()) {
            (Some(name), Some(role), Some(file)) if !file.is_empty() => {
                let (name, role) = (name.to_owned(), self::role(role)?);
                Ok(Self { name, role, token: None, token_file: Some(file.into()), sha256: None })
            }
            _ => Err("is not NAME:ROLE:FILE".into()),
        }
    }

    fn read_table(members: &Map<String, Value>) -> Result<Self, String> {
        if let Some(unknown) = members.keys().find(|key| !MEMBERS.contains(&key.as_str())) {
            return Err(format!("has an unknown key `{unknown}`"));
        }
        let text = |key: &str| match members.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(format!("has a `{key}` that is not text")),
        };
        let needed = |key: &str| text(key)?.ok_or_else(|| format!("has no `{key}`"));
        Ok(Self {
            name: needed("name")?,
            role: role(&needed("role")?)?,
            token: text("token")?.map(Secret::new),
            token_file: text("token_file")?.map(PathBuf::from),
            sha256: text("sha256")?.map(Secret::new),
        })
    }

    /// What can be seen without opening a file.
    fn problem(&self) -> Option<Invalid> {
        let name = &self.name;
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        if name.is_empty() || name.len() > NAME_LEN_MAX || !name.chars().all(good) {
            let fix = "use 1 to 31 of a-z, 0-9, `-`, `_`, `.`";
            return Some(Invalid::new("a `name` that is none".into(), fix));
        }
        match (&self.token, &self.token_file, &self.sha256) {
            (Some(token), None, None) => {
                unusable(token.expose()).map(|why| Invalid::new(format!("the token of `{name}` {why}"), MAKE))
            }
            (None, Some(_), None) => None,
            (None, None, Some(hex)) if unhex(hex.expose()).is_some() => None,
            (None, None, Some(_)) => Some(Invalid::new(
                format!("the `sha256` of `{name}` is not 64 hexadecimal digits"),
                "give what `printf %s TOKEN | sha256sum` prints before the blank",
            )),
            _ => {
                let fix = "give exactly one of `token`, `token_file` and `sha256`";
                Some(Invalid::new(format!("`{name}` has no token, or more than one"), fix))
            }
        }
    }

    /// The digest of its token; reads the file where it is in one.
    pub(super) fn digest(&self) -> Result<Digest, Invalid> {
        match self.problem() {
            Some(problem) => Err(problem),
            None => match (&self.token_file, self.digest_here()) {
                (Some(path), _) => self.digest_of_file(path),
                (None, Some(digest)) => Ok(digest),
                (None, None) => Err(Invalid::new(format!("`{}` has no token", self.name), MAKE)),
            },
        }
    }

    /// Of what stands in the configuration itself.
    fn digest_here(&self) -> Option<Digest> {
        let of_token = self.token.as_ref().map(|token| sha256(token.expose().as_bytes()));
        of_token.or_else(|| unhex(self.sha256.as_ref()?.expose()))
    }

    fn digest_of_file(&self, path: &Path) -> Result<Digest, Invalid> {
        // What is no path may be the token itself.
        let shown = match path.components().count() {
            0 | 1 => "which is not shown, having no `/`".into(),
            _ => path.display().to_string(),
        };
        let blame = |why: String| format!("the `token_file` of `{}`, {shown}: {why}", self.name);
        let text = std::fs::read_to_string(path)
            .map_err(|error| Invalid::new(blame(error.to_string()), "give a file that this user may read"))?;
        let token = text.trim();
        match unusable(token) {
            None => Ok(sha256(token.as_bytes())),
            Some(why) => Err(Invalid::new(blame(why.into()), format!("{MAKE} > FILE"))),
        }
    }
}

/// Everything that is wrong with a list, as far as can be seen without opening a file.
#[must_use]
pub fn problems(tokens: &[TokenOptions]) -> Vec<Invalid> {
    let mut found: Vec<Invalid> = tokens.iter().filter_map(TokenOptions::problem).collect();
    if tokens.len() > TOKENS_MAX {
        found.push(Invalid::new(format!("{} are too many", tokens.len()), format!("keep at most {TOKENS_MAX}")));
    }
    let mut names = BTreeSet::new();
    let twice = tokens.iter().filter(|token| !names.insert(&token.name));
    found.extend(twice.map(|token| {
        Invalid::new(format!("the name `{}` stands there twice", token.name), "give each its own, as in `shop-2`")
    }));
    found.extend(same(tokens.iter().filter_map(|token| Some((token, token.digest_here()?)))));
    found
}

/// One token under two names: whose role would count?
pub(super) fn same<'a>(digests: impl Iterator<Item = (&'a TokenOptions, Digest)>) -> Option<Invalid> {
    let mut seen: BTreeMap<Digest, &str> = BTreeMap::new();
    for (token, digest) in digests {
        if let Some(first) = seen.insert(digest, &token.name) {
            return Some(Invalid::new(format!("`{first}` and `{}` are the same token", token.name), MAKE));
        }
    }
    None
}

/// Reads the list.
///
/// # Errors
/// What is wrong, without a word of what was read but the place in the list.
pub fn read_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<TokenOptions>, D::Error> {
    let Value::Array(entries) = Value::deserialize(deserializer)? else {
        return Err(D::Error::custom("is not a list"));
    };
    let entries = entries.into_iter().enumerate();
    let read =
        |(at, entry)| TokenOptions::read(entry).map_err(|why| D::Error::custom(format!("entry {} {why}", at + 1)));
    entries.map(read).collect()
}

fn role(name: &str) -> Result<Role, String> {
    Role::parse(name).ok_or_else(|| "has a `role` that is none of `read`, `write`, `admin`".into())
}

/// What a header can carry by RFC 6750, and nobody guesses.
fn unusable(token: &str) -> Option<&'static str> {
    let bare = token.trim_end_matches('=');
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    if token.len() < LEN_MIN {
        Some("has fewer than 16 characters")
    } else if token.len() > LEN_MAX {
        Some("has more than 512 characters")
    } else if bare.is_empty() || !bare.bytes().all(good) {
        Some("has other characters than A-Z a-z 0-9 - . _ ~ + /, with = at its end only")
    } else {
        None
    }
}

pub(super) fn sha256(bytes: &[u8]) -> Digest {
    let mut of = Digest::default();
    of.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    of
}

fn unhex(text: &str) -> Option<Digest> {
    let mut digest = Digest::default();
    if text.len() != 2 * digest.len() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TOKEN: &str = "0123456789abcdef0123";
    /// `printf %s 0123456789abcdef0123 | sha256sum`
    const SHA256: &str = "1bd8fd47297046f993e608e398d5905b00a33e163c6b1172dd38887fed05ed6a";

    fn read(list: Value) -> Result<Vec<TokenOptions>, String> {
        read_list(list).map_err(|error: serde_json::Error| error.to_string())
    }

    fn blamed(tokens: &[TokenOptions]) -> String {
        problems(tokens).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn an_entry_is_a_table_or_text_that_names_a_file() {
        let list = json!([
            {"name": "ops", "role": "admin", "token": TOKEN},
            {"name": "shop", "role": "write", "token_file": "/etc/quorate/tokens/shop"},
            "grafana:read:/run/secrets/grafana:v2",
        ]);
        let tokens = read(list).expect("a good list");
        assert_eq!(tokens[0], TokenOptions::new("ops", Role::Admin, TOKEN));
        assert_eq!(
            (tokens[1].role, tokens[1].token_file.as_deref()),
            (Role::Write, Some(Path::new("/etc/quorate/tokens/shop")))
        );
        assert_eq!((tokens[2].name.as_str(), tokens[2].role), ("grafana", Role::Read));
        assert_eq!(tokens[2].token_file.as_deref(), Some(Path::new("/run/secrets/grafana:v2")));
        assert_eq!(problems(&tokens), []);
    }

    #[test]
    fn what_cannot_be_read_is_told_by_its_place_and_without_what_was_read() {
        let secret = "s3cret-s3cret-s3cret";
        for (list, said) in [
            (json!(secret), "is not a list"),
            (json!({"name": secret}), "is not a list"),
            (json!([7]), "entry 1 is neither a table"),
            (json!([secret]), "entry 1 is not NAME:ROLE:FILE"),
            (json!(["ops:admin:"]), "entry 1 is not NAME:ROLE:FILE"),
            (json!([format!("ops:{secret}:f")]), "entry 1 has a `role`"),
            (json!([{"name": "a", "role": secret}]), "entry 1 has a `role`"),
            (json!([{"role": "read", "token": secret}]), "entry 1 has no `name`"),
            (json!([{"name": "a", "token": secret}]), "entry 1 has no `role`"),
            (
                json!(["a:read:f", {"name": "b", "role": "read", "tokens": secret}]),
                "entry 2 has an unknown key `tokens`",
            ),
            (json!([{"name": "a", "role": "read", "token": [secret]}]), "entry 1 has a `token` that is not text"),
        ] {
            let error = read(list.clone()).expect_err("refused");
            assert!(error.contains(said) && !error.contains(secret), "{list}: {error}");
        }
    }

    #[test]
    fn a_token_is_long_enough_fits_into_a_header_and_is_given_once() {
        let of = |token: &str| TokenOptions::new("ops", Role::Admin, token);
        for good in ["0123456789abcdef", "AZaz09-._~+/AZaz==", &"x".repeat(512)] {
            assert_eq!(blamed(&[of(good)]), "", "{good:.40}");
        }
        for bad in [
            "",
            "0123456789abcde",
            "two words are bad",
            "0123456789abcde\n",
            "0123=456789abcdef",
            "================",
            "0123456789abcdeé",
            &"x".repeat(513),
        ] {
            let said = blamed(&[of(bad)]);
            assert!(said.contains("`ops`") && said.contains("openssl rand"), "{bad:.40}: {said}");
            assert!(bad.is_empty() || !said.contains(bad), "it is not shown: {said}");
        }
        let none = TokenOptions { token: None, ..of(TOKEN) };
        let two = TokenOptions { token_file: Some("f".into()), ..of(TOKEN) };
        for wrong in [none, two] {
            assert!(blamed(&[wrong]).contains("exactly one of"), "one of three");
        }
    }

    #[test]
    fn names_are_unique_and_no_token_has_two() {
        let of = |name: &str, token: &str| TokenOptions::new(name, Role::Read, token);
        assert!(blamed(&[of("a", TOKEN), of("a", "fedcba98765432100000")]).contains("`a` stands there twice"));
        let said = blamed(&[of("a", TOKEN), of("b", TOKEN)]);
        assert!(said.contains("`a` and `b` are the same token") && !said.contains(TOKEN), "{said}");
        for bad in ["", "Ops", "a b", &"x".repeat(64)] {
            assert!(blamed(&[of(bad, TOKEN)]).contains("a `name`"), "{bad}");
        }
        let many: Vec<TokenOptions> = (0..65).map(|n| of(&format!("t{n}"), &format!("{TOKEN}{n}"))).collect();
        assert!(blamed(&many).contains("65 are too many") && blamed(&many[1..]).is_empty());
    }

    #[test]
    fn a_digest_stands_for_the_token_that_it_was_made_of() {
        let plain = TokenOptions::new("a", Role::Read, TOKEN);
        let hashed = |hex: &str| TokenOptions { token: None, sha256: Some(Secret::new(hex)), ..plain.clone() };
        assert_eq!(hashed(SHA256).digest(), plain.digest());
        assert_eq!(hashed(&SHA256.to_uppercase()).digest(), plain.digest());
        for bad in ["", "00", &SHA256[1..], &format!("{}g", &SHA256[1..]), "<redacted>"] {
            assert!(hashed(bad).digest().is_err_and(|problem| problem.fix.contains("sha256sum")), "{bad}");
        }
    }

    #[test]
    fn a_file_is_read_without_its_blanks_and_complained_about_by_its_path() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("token");
        let entry =
            TokenOptions { token: None, token_file: Some(path.clone()), ..TokenOptions::new("a", Role::Read, "") };
        let absent = entry.digest().expect_err("absent").to_string();
        assert!(absent.contains(&path.display().to_string()) && absent.contains("`a`"), "{absent}");
        std::fs::write(&path, "short-one\n").expect("writing");
        let short = entry.digest().expect_err("short").to_string();
        assert!(short.contains("openssl rand -hex 32` > ") && !short.contains("short-one"), "{short}");
        std::fs::write(&path, format!("{TOKEN}\r\n")).expect("writing");
        assert_eq!(entry.digest(), Ok(sha256(TOKEN.as_bytes())));
    }

    #[test]
    fn what_is_shown_of_a_token_is_its_name_and_its_role() {
        let shown = [
            format!("{:?}", TokenOptions::new("ops", Role::Admin, TOKEN)),
            json!(TokenOptions::new("ops", Role::Admin, TOKEN)).to_string(),
        ];
        for shown in shown {
            assert!(
                shown.contains("ops") && shown.to_lowercase().contains("admin") && !shown.contains(TOKEN),
                "{shown}"
            );
        }
    }
}
