//! The tokens that a node knows, as digests.
//!
//! ```text
//! at start    HMAC(key of this process, SHA-256 of the token)  kept
//! a request   the same of what was sent, compared with each in constant time
//! ```
//!
//! The key is made up at start and never leaves the process: not even one who chooses what is sent
//! can know what is compared with what.

use super::{
    Role,
    options::{Digest, Invalid, LEN_MAX, TokenOptions, problems, same, sha256},
};
use ring::hmac;

/// All of them.
pub struct Tokens {
    key: hmac::Key,
    known: Vec<Known>,
}

/// One of them.
pub(super) struct Known {
    pub name: String,
    pub role: Role,
    tag: hmac::Tag,
}

impl Tokens {
    /// None at all: nobody is let in.
    pub(super) fn none() -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>()), known: Vec::new() }
    }

    /// Reads what is in files, too.
    ///
    /// # Errors
    /// The first thing that is wrong, in one sentence for the operator.
    pub fn resolve(entries: &[TokenOptions]) -> Result<Self, Invalid> {
        if let Some(first) = problems(entries).into_iter().next() {
            return Err(first);
        }
        let digests: Vec<Digest> = entries.iter().map(TokenOptions::digest).collect::<Result<_, _>>()?;
        if let Some(problem) = same(entries.iter().zip(digests.iter().copied())) {
            return Err(problem);
        }
        let mut tokens = Self::none();
        for (entry, digest) in entries.iter().zip(digests) {
            let tag = hmac::sign(&tokens.key, &digest);
            tokens.known.push(Known { name: entry.name.clone(), role: entry.role, tag });
        }
        Ok(tokens)
    }

    /// Whose token this is. Takes as long for one that is known as for one that is not.
    pub(super) fn find(&self, token: &[u8]) -> Option<&Known> {
        if token.len() > LEN_MAX {
            return None;
        }
        let digest = sha256(token);
        let is = |known: &Known| hmac::verify(&self.key, &digest, known.tag.as_ref()).is_ok();
        self.known.iter().fold(None, |found, known| if is(known) { Some(known) } else { found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_tokens_of_one_role_count_at_once() {
        let of = |name: &str, token: &str| TokenOptions::new(name, Role::Write, token);
        let tokens = Tokens::resolve(&[of("shop-1", "an-old-token-0001"), of("shop-2", "a-new-token-00002")]);
        let tokens = tokens.unwrap_or_else(|problem| panic!("{problem}"));
        let name = |token: &str| tokens.find(token.as_bytes()).map(|known| known.name.as_str());
        assert_eq!(name("an-old-token-0001"), Some("shop-1"));
        assert_eq!(name("a-new-token-00002"), Some("shop-2"));
        assert_eq!((name("a-new-token-00003"), name("")), (None, None));
    }

    #[test]
    fn one_token_in_two_files_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("token");
        std::fs::write(&path, "0123456789abcdef\n").expect("writing");
        let in_file = |name: &str| TokenOptions {
            token: None,
            token_file: Some(path.clone()),
            ..TokenOptions::new(name, Role::Read, "")
        };
        let refused = Tokens::resolve(&[in_file("a"), in_file("b")]).err().map(|problem| problem.what);
        assert_eq!(refused.as_deref(), Some("`a` and `b` are the same token"));
        assert!(Tokens::resolve(&[in_file("a")]).is_ok());
    }
}
