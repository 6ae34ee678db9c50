//! Ids and fingerprints that a request determines; random ids for requests without a key.
//!
//! An id derived from an idempotency key names the same entity on every node, so the entity's
//! own record of keys decides whether a request is a replay: no lookup table beside it.

use serde_json::Value;

/// Never change it: ids in stored data are derived with it.
const ID_DOMAIN: &str = "quorate 2026 entity id from idempotency key";
const FINGERPRINT_DOMAIN: &str = "quorate 2026 request fingerprint";
/// Crockford's base 32 in lower case: no i, l, o, u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// `prefix` and 26 characters that `route` and `key` determine.
pub fn derived_id(prefix: &str, route: &str, key: &str) -> String {
    let mut hasher = blake3::Hasher::new_derive_key(ID_DOMAIN);
    field(&mut hasher, route.as_bytes());
    field(&mut hasher, key.as_bytes());
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    encode(prefix, u128::from_be_bytes(bytes))
}

/// `prefix` and 26 random characters, for what may be made without a key.
pub fn random_id(prefix: &str) -> String {
    encode(prefix, rand::random())
}

/// Hash of everything that makes two requests the same: method, path and body, where the order
/// of members and white space in the body do not count.
pub fn fingerprint(method: &str, path: &str, body: &Value) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_derive_key(FINGERPRINT_DOMAIN);
    field(&mut hasher, method.as_bytes());
    field(&mut hasher, path.as_bytes());
    canonical(&mut hasher, body);
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// Hashes a length before the bytes, so that two fields never run into each other.
fn field(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
}

/// Hashes a JSON value with its members sorted. Recursion is bounded by the parser's depth limit.
fn canonical(hasher: &mut blake3::Hasher, value: &Value) {
    match value {
        Value::Null => _ = hasher.update(b"n"),
        Value::Bool(true) => _ = hasher.update(b"t"),
        Value::Bool(false) => _ = hasher.update(b"f"),
        Value::Number(number) => {
            hasher.update(b"d");
            field(hasher, number.to_string().as_bytes());
        }
        Value::String(text) => {
            hasher.update(b"s");
            field(hasher, text.as_bytes());
        }
        Value::Array(items) => {
            hasher.update(b"a").update(&(items.len() as u64).to_le_bytes());
            items.iter().for_each(|item| canonical(hasher, item));
        }
        Value::Object(members) => {
            // Sorted here and not by the map: whether the map keeps the order of insertion is a
            // feature that any dependency can switch on.
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            hasher.update(b"o").update(&(members.len() as u64).to_le_bytes());
            for (name, value) in members {
                field(hasher, name.as_bytes());
                canonical(hasher, value);
            }
        }
    }
}

fn encode(prefix: &str, mut number: u128) -> String {
    let mut digits = [0; 26];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(number & 31) as usize];
        number >>= 5;
    }
    let mut id = String::with_capacity(prefix.len() + digits.len());
    id.push_str(prefix);
    id.extend(digits.map(char::from));
    id
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_id_of_a_key_never_changes() {
        let id = derived_id("ord_", "/v1/orders", "key-1");
        assert_eq!(id, derived_id("ord_", "/v1/orders", "key-1"));
        assert_eq!(id.len(), 30);
        assert!(crate::entity::EntityKey::new("order", id.clone()).is_ok());
        // Written down once: stored orders and their keys depend on it.
        assert_eq!(id, "ord_6h303vaz912sekgbtnhkqjstc6");
    }

    #[test]
    fn route_and_key_do_not_run_into_each_other() {
        assert_ne!(derived_id("x_", "ab", "c"), derived_id("x_", "a", "bc"));
        assert_ne!(derived_id("x_", "a", "b"), derived_id("x_", "a", "c"));
    }

    #[test]
    fn random_ids_differ_and_look_like_derived_ones() {
        let (one, other) = (random_id("res_"), random_id("res_"));
        assert_ne!(one, other);
        assert_eq!(one.len(), derived_id("res_", "/v1/reservations", "k").len());
    }

    #[test]
    fn the_encoding_is_crockfords() {
        assert_eq!(encode("a_", 0), format!("a_{}", "0".repeat(26)));
        assert_eq!(encode("a_", 33), format!("a_{}11", "0".repeat(24)));
        assert_eq!(encode("", u128::MAX), format!("7{}", "z".repeat(25)));
    }

    #[test]
    fn the_order_of_members_does_not_count_and_everything_else_does() {
        let of = |text: &str| fingerprint("POST", "/v1/orders", &serde_json::from_str(text).expect("JSON"));
        let base = of(r#"{"a":1,"b":{"c":[1,2],"d":null}}"#);
        assert_eq!(base, of(r#"{ "b": {"d":null,"c":[1,2]}, "a": 1 }"#));
        for other in [
            r#"{"a":1,"b":{"c":[2,1],"d":null}}"#,
            r#"{"a":"1","b":{"c":[1,2],"d":null}}"#,
            r#"{"a":1,"b":{"c":[1,2]}}"#,
            r#"{"a":1,"b":{"c":[[1],2],"d":null}}"#,
            r#"{"a":1,"b":{"c":[1,2],"d":false}}"#,
        ] {
            assert_ne!(base, of(other), "{other}");
        }
        assert_ne!(fingerprint("POST", "/a", &json!({})), fingerprint("POST", "/b", &json!({})));
        assert_ne!(fingerprint("POST", "/a", &json!({})), fingerprint("PUT", "/a", &json!({})));
    }
}
