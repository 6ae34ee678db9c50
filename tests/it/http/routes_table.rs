//! The table in docs/shop.md that says which tests show each route: complete, and no test in it is
//! made up.

use quorate::ingress::openapi;
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::Path};

const HEADING: &str = "\n## Every route and its tests\n";

/// Every route of /openapi.json, as `GET /v1/orders/{id}`.
pub fn routes() -> Vec<String> {
    let document: Value = serde_json::from_str(openapi::document()).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    let routes = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().expect("methods").keys();
        methods.map(move |method| format!("{} {path}", method.to_uppercase()))
    });
    routes.collect()
}

/// By route: file and name of each of its tests.
fn table() -> BTreeMap<String, Vec<(String, String)>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/shop.md");
    let document = fs::read_to_string(path).expect("docs/shop.md");
    let (_, section) = document.split_once(HEADING).expect("the section is there");
    let section = section.split("\n## ").next().unwrap_or_default();
    section.lines().filter(|line| line.starts_with("| `")).map(row).collect()
}

fn row(line: &str) -> (String, Vec<(String, String)>) {
    // Between backticks: the route, then files and, after each, names.
    let mut words = line.split('`').skip(1).step_by(2);
    let route = words.next().expect("a route").to_owned();
    let (mut tests, mut file) = (Vec::new(), "");
    for word in words {
        match word.ends_with(".rs") {
            true => file = word,
            false => tests.push((file.to_owned(), word.to_owned())),
        }
    }
    (route, tests)
}

#[test]
fn the_table_has_every_route_and_no_other() {
    let (mut described, mut listed) = (routes(), table().into_keys().collect::<Vec<_>>());
    described.sort();
    listed.sort();
    assert_eq!(listed, described, "the table in docs/shop.md and /openapi.json");
}

#[test]
fn every_test_in_the_table_is_there() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/http");
    for (route, tests) in table() {
        assert!(!tests.is_empty(), "{route} has no test");
        for (file, name) in tests {
            let source =
                fs::read_to_string(folder.join(&file)).unwrap_or_else(|error| panic!("{route}: {file}: {error}"));
            let is_there = source.contains(&format!("fn {name}()"));
            assert!(is_there, "{route}: there is no test {name} in {file}");
        }
    }
}
