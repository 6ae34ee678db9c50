//! Secrets of endpoints, and the signatures made with them.
//!
//! Standard Webhooks: `webhook-signature` is `v1,` and the base64 of HMAC-SHA256 over
//! `id.timestamp.body`, once for each secret that counts, with a space between.

use ring::hmac;
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;

/// The standard asks for 24 to 64.
const SECRET_BYTES: usize = 32;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// What an endpoint checks signatures with. Shown by [`Secret::reveal`] only: `Debug`, and JSON of
/// an entity's state as operators see it, have `<redacted>`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// A new one, from the system's random source.
    pub fn random() -> Self {
        Self(rand::random::<[u8; SECRET_BYTES]>().to_vec())
    }

    /// As it is given to whoever registers an endpoint.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("whsec_{}", base64(&self.0))
    }

    fn sign(&self, content: &[u8]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        format!("v1,{}", base64(hmac::sign(&key, content).as_ref()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => serializer.serialize_str("<redacted>"),
            false => self.0.serialize(serializer),
        }
    }
}

/// The `webhook-signature` of a message.
pub fn signatures<'a>(
    secrets: impl IntoIterator<Item = &'a Secret>,
    id: &str,
    timestamp_s: u64,
    body: &[u8],
) -> String {
    let content = [format!("{id}.{timestamp_s}.").as_bytes(), body].concat();
    let signed: Vec<String> = secrets.into_iter().map(|secret| secret.sign(&content)).collect();
    signed.join(" ")
}

/// The standard alphabet, with padding.
fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut group = [0; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for digit in 0..4 {
            let index = bits >> (18 - 6 * digit) & 63;
            text.push(if digit <= chunk.len() { char::from(ALPHABET[index as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::codec;

    /// The secret of the reference libraries' tests: `whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw`.
    fn published() -> Secret {
        Secret(vec![
            0x31, 0xf2, 0x90, 0xf6, 0xbf, 0x06, 0x29, 0x8a, 0xab, 0x4f, 0x08, 0xd4, 0x3c, 0x3f, 0x08, 0x2c, 0xf6, 0x48,
            0xa3, 0x62, 0xda, 0x2d, 0xa4, 0xb0,
        ])
    }

    #[test]
    fn the_published_example_has_the_published_signature() {
        assert_eq!(published().reveal(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let signed =
            signatures([&published()], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn every_secret_that_counts_signs() {
        let (new, old) = (Secret::random(), published());
        let both = signatures([&new, &old], "evt_1", 7, b"{}");
        let alone = |secret| signatures([secret], "evt_1", 7, b"{}");
        assert_eq!(both, format!("{} {}", alone(&new), alone(&old)));
        assert_ne!(alone(&new), alone(&old));
    }

    #[test]
    fn base64_is_that_of_rfc_4648() {
        let known =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE=")];
        for (plain, encoded) in known {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn a_secret_is_kept_and_never_shown_by_accident() {
        let secret = Secret::random();
        assert_eq!(secret.0.len(), SECRET_BYTES);
        assert_eq!(format!("{secret:?}"), "<redacted>");
        assert_eq!(serde_json::to_value(&secret).expect("JSON"), "<redacted>");
        let bytes = codec::encode("secret", &secret).expect("encodes");
        assert_eq!(codec::decode::<Secret>("secret", &bytes), Ok(secret));
    }
}
