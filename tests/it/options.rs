//! Every key of the configuration is explained where it is declared.

use std::{fs, path::Path};

/// Where configuration is declared, and how many structs of it are there.
const DECLARED: &[(&str, usize)] = &[
    ("src/config/sections.rs", 2),
    ("src/gateway/options.rs", 1),
    ("src/ingress/mod.rs", 1),
    ("src/membership/options.rs", 1),
    ("src/replication/options.rs", 1),
    ("src/shard/options.rs", 1),
    ("src/storage/options.rs", 1),
    ("src/telemetry/log.rs", 1),
    ("src/transport/options.rs", 1),
];

#[test]
fn every_key_says_what_it_is() {
    for (file, structs) in DECLARED {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let text = fs::read_to_string(path).expect("a source file");
        let (found, bare) = bare_keys(&text);
        assert!(found >= *structs, "{file} declares {found} structs of configuration");
        assert!(bare.is_empty(), "{file}: no comment says what these are: {bare:?}");
    }
}

#[test]
fn a_key_without_a_comment_is_found() {
    let text = "#[serde(default, deny_unknown_fields)]\npub struct Options {\n    /// Fine.\n    #[serde(skip)]\n    \
                pub fine: u8,\n    pub bare: u8,\n}\npub struct Other {\n    pub unrelated: u8,\n}\n";
    assert_eq!(bare_keys(text), (1, vec!["bare"]));
}

/// The number of structs that people write, and their fields without a comment.
fn bare_keys(text: &str) -> (usize, Vec<&str>) {
    let (mut structs, mut bare) = (0, Vec::new());
    for declared in text.split("deny_unknown_fields)]\npub struct ").skip(1) {
        structs += 1;
        let mut explained = false;
        for line in declared.lines().take_while(|line| *line != "}").map(str::trim) {
            match line.strip_prefix("pub ").and_then(|field| field.split(':').next()) {
                Some(field) if !explained => bare.push(field),
                Some(_) => explained = false,
                None => explained |= line.starts_with("///"),
            }
        }
    }
    (structs, bare)
}
