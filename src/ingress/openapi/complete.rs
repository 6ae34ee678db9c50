//! What follows from the shape of a route, written into the description in one place: the problems
//! that every route can end in, the headers of every answer, and what a parameter takes.
//!
//! ```text
//! macros: what a route alone knows ─▶ complete ─▶ /openapi.json
//! ```
//!
//! So a route lists its own answers only (201, 304, 409 …); that its path can name nothing, its
//! body be too large or its cluster without a quorum is seen here. The answers of a status are the
//! codes of [`Code`] with that status, so that a new code is described with nothing to be done.

use super::super::{
    auth::{
        Role,
        access::{self, Access},
    },
    problem::{Code, FieldError, MEDIA_TYPE, Problem},
};
use axum::http::Method;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Ids and SKUs: [`crate::entity::EntityKey`] takes no others.
const NAME: &str = "^[!-.0-~]+$";
/// Bare or quoted, as `headers::idempotency_key` reads it.
const KEY: &str = r#"^([!#-~][!-~]{0,254}|"([!#-\[\]-~]|\\["\\]){1,255}")$"#;
/// Other tags are well-formed, too, but never match.
const TAG: &str = r#"^"(0|[1-9][0-9]{0,18})"$"#;
/// Shard, term, index and hash.
const RECEIPT: &str = "^(0|[1-9][0-9]{0,3})-(0|[1-9][0-9]{0,17})-(0|[1-9][0-9]{0,17})-[0-9a-f]{8}$";
/// Answers with these say when to come again.
const PASSING: [u16; 3] = [429, 503, 504];
const METHODS: [&str; 5] = ["get", "put", "post", "patch", "delete"];

/// Completes the description that the macros made.
pub fn complete(mut document: Value) -> Value {
    let paths = document.get_mut("paths").and_then(Value::as_object_mut).into_iter().flatten();
    for (path, operations) in paths {
        let operations = operations.as_object_mut().into_iter().flatten();
        for (method, operation) in operations.filter(|(method, _)| METHODS.contains(&method.as_str())) {
            complete_operation(path, method, operation);
        }
    }
    document["components"]["headers"] = headers();
    document["components"]["responses"] = responses();
    document["components"]["securitySchemes"] = security_schemes();
    document
}

fn complete_operation(path: &str, method: &str, operation: &mut Value) {
    let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
    parameters.into_iter().flatten().for_each(complete_parameter);
    if let Some(schema) = operation.pointer_mut("/requestBody/content/application~1json/schema") {
        // No body is not the same as `null`, which no route takes.
        without_null(schema);
    }
    let route = Route::of(path, method, operation);
    operation["security"] = route.security();
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { return };
    for status in route.problems() {
        responses.entry(status.to_string()).or_insert(Value::Null);
    }
    for (status, response) in responses {
        match status.parse() {
            Ok(status @ 400..) => *response = json!({"$ref": format!("#/components/responses/Problem{status}")}),
            _ => route.complete_success(status, response),
        }
    }
}

fn complete_parameter(parameter: &mut Value) {
    without_null(&mut parameter["schema"]);
    let place = parameter["in"].as_str().unwrap_or_default();
    let name = parameter["name"].as_str().unwrap_or_default();
    let exact = match (place, name) {
        ("path", "sku") => json!({"type": "string", "pattern": NAME, "minLength": 1, "maxLength": 64}),
        ("path", "id") => json!({"type": "string", "pattern": NAME, "minLength": 1, "maxLength": 255}),
        ("path", "receipt") => json!({"type": "string", "pattern": RECEIPT}),
        ("header", "Idempotency-Key") => json!({"type": "string", "pattern": KEY, "minLength": 1}),
        ("header", "If-Match") => json!({"type": "string", "pattern": TAG, "minLength": 3}),
        ("query", "verbose") => json!({"type": "string", "enum": ["", "true", "1", "false", "0"]}),
        _ => return,
    };
    parameter["schema"] = exact;
}

/// Takes out that a value may be `null`.
fn without_null(schema: &mut Value) {
    let mut branches = schema.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    if let Some(branch) = branches.find(|branch| branch.get("$ref").is_some()).cloned() {
        *schema = branch;
        return;
    }
    let Some(types) = schema.get_mut("type") else { return };
    let only = types.as_array().and_then(|types| types.iter().find(|kind| *kind != "null").cloned());
    if let Some(only) = only {
        *types = only;
    }
}

/// What of a route its answers follow from.
struct Route {
    access: Access,
    is_write: bool,
    is_deletion: bool,
    is_of_the_shop: bool,
    has_id: bool,
    has_body: bool,
    /// Names of its parameters.
    takes: BTreeSet<String>,
    has_versions: bool,
}

impl Route {
    fn of(path: &str, method: &str, operation: &Value) -> Self {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let method_as_sent = method.to_uppercase().parse().unwrap_or(Method::GET);
        Self {
            access: access::of(&method_as_sent, path),
            is_write: method != "get",
            is_deletion: method == "delete",
            is_of_the_shop: path.starts_with("/v1/"),
            has_id: path.contains('{'),
            has_body: operation.get("requestBody").is_some(),
            takes: parameters.filter_map(|parameter| parameter["name"].as_str().map(str::to_owned)).collect(),
            has_versions: operation["responses"].get("304").is_some(),
        }
    }

    fn takes(&self, parameter: &str) -> bool {
        self.takes.contains(parameter)
    }

    /// Statuses of the problems that it can end in, beside those that it names itself.
    fn problems(&self) -> impl Iterator<Item = u16> {
        // A bad parameter or header; a defect; more connections than the node takes, or no quorum.
        let mut all = BTreeSet::from([400, 500, 503]);
        if self.has_id {
            all.insert(404);
        }
        if self.has_body {
            all.extend([408, 413, 415, 422]);
        }
        if self.is_of_the_shop {
            all.insert(429);
        }
        if self.is_write {
            // Browsers of other sites are refused.
            all.extend([403, 412, 422, 429, 504]);
        }
        match self.access {
            Access::Open => {}
            // Whoever has a token may read.
            Access::Needs(Role::Read) => _ = all.insert(401),
            Access::Needs(_) => all.extend([401, 403]),
        }
        all.into_iter()
    }

    /// Nothing, or a token whose role is named, or (where the node has no tokens) nothing.
    fn security(&self) -> Value {
        match self.access {
            Access::Open => json!([]),
            Access::Needs(role) => json!([{"bearer": [role]}, {}]),
        }
    }

    fn complete_success(&self, status: &str, response: &mut Value) {
        let named: Vec<String> =
            response["headers"].as_object().into_iter().flatten().map(|(n, _)| n.clone()).collect();
        let mut headers = Map::new();
        let mut add = |name: &str| _ = headers.insert(name.to_owned(), reference(name));
        ["x-request-id", "x-trace-id"].into_iter().for_each(&mut add);
        named.iter().for_each(|name| add(name));
        // What is gone has no version.
        if self.has_versions || (self.takes("If-Match") && !self.is_deletion) {
            add("etag");
        }
        if self.is_write && self.is_of_the_shop {
            add("x-receipt");
        }
        if self.takes("consistency") {
            add("x-applied-index");
        }
        if self.takes("Idempotency-Key") && status != "304" {
            add("idempotent-replayed");
        }
        if self.takes("Prefer") {
            add("preference-applied");
        }
        response["headers"] = headers.into();
    }
}

fn reference(header: &str) -> Value {
    json!({"$ref": format!("#/components/headers/{header}")})
}

fn security_schemes() -> Value {
    json!({"bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "Asked for by nodes with `http.tokens` in their configuration, by all routes but the probes. \
            A token has one of the roles `read`, `write` (which includes `read`) and `admin` (which includes both); \
            the role that a route needs is named with it.",
    }})
}

/// Every header that an answer may have beside those of HTTP itself.
fn headers() -> Value {
    let header = |required: bool, description: &str, schema: Value| json!({"required": required, "description": description, "schema": schema});
    let text = |pattern: &str| json!({"type": "string", "pattern": pattern});
    json!({
        "x-request-id": header(true, "The request's own, or one made up for it", text("^[!-~]{1,128}$")),
        "x-trace-id": header(true, "Finds the request in the nodes' logs", text("^[0-9a-f]{32}$")),
        "etag": header(true, "The version", text("^\"[0-9]+\"$")),
        "location": header(true, "Where it is", text("^[!-~]+$")),
        "retry-after": header(true, "Seconds after which to try again", text("^[0-9]+$")),
        "www-authenticate": header(true, "That a token is needed, and whether the one sent was none", text("^Bearer ")),
        "idempotent-replayed": header(false, "This is the first answer again", json!({"type": "string", "enum": ["true"]})),
        "preference-applied": header(false, "The wait that was applied", text("^wait=[0-9]+$")),
        "x-receipt": header(false, "Shard, term, index and hash of the log entry that made the write durable; a replay carries the first one. Absent where nothing was changed", text(RECEIPT)),
        "x-applied-index": header(false, "With `consistency=local`: how far this node's replica is", text("^[0-9]+$")),
    })
}

/// One for each status that a problem can have, with the codes that it can have then.
fn responses() -> Value {
    let statuses: BTreeSet<u16> = Code::ALL.iter().map(|code| code.status().as_u16()).collect();
    let all = statuses.into_iter().map(|status| (format!("Problem{status}"), response(status)));
    Value::Object(all.collect())
}

fn response(status: u16) -> Value {
    let codes: Vec<Code> = Code::ALL.iter().copied().filter(|code| code.status().as_u16() == status).collect();
    let names: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
    let titles: Vec<String> = codes.iter().map(|code| format!("- `{}`: {}", code.as_str(), code.title())).collect();
    let mut headers = json!({"x-request-id": reference("x-request-id"), "x-trace-id": reference("x-trace-id")});
    if PASSING.contains(&status) {
        headers["retry-after"] = reference("retry-after");
    }
    if status == Code::Unauthorized.status().as_u16() {
        headers["www-authenticate"] = reference("www-authenticate");
    }
    let example = codes.first().map(|code| example(*code).render("4bf92f3577b34da6a3ce929d0e0e4736"));
    json!({
        "description": titles.join("\n"),
        "headers": headers,
        "content": {MEDIA_TYPE: {
            "schema": {
                "allOf": [{"$ref": "#/components/schemas/ProblemResponse"}],
                "type": "object",
                "properties": {"status": {"const": status}, "code": {"enum": names}},
            },
            "example": example,
        }},
    })
}

fn example(code: Code) -> Problem {
    let detail = "must be from 1 to 1000000, is 0";
    match code {
        Code::ValidationFailed => {
            Problem::validation(vec![FieldError { field: "items[0].quantity".into(), detail: detail.into() }])
        }
        Code::IllegalTransition => Problem::illegal_transition("become cancelled", "fulfilled", &["returned"]),
        Code::VersionMismatch => Problem::new(code, "the resource is at version 4").with("version", json!(4)),
        other => Problem::new(other, other.title()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cluster::Receipt, entity::EntityKey, ingress::headers};
    use axum::http::HeaderMap;
    use proptest::{prelude::*, string::string_regex};

    fn written_as(pattern: &str) -> impl Strategy<Value = String> {
        string_regex(pattern.trim_start_matches('^').trim_end_matches('$')).expect("a pattern")
    }

    proptest! {
        #[test]
        fn what_a_pattern_allows_is_taken(
            receipt in written_as(RECEIPT), key in written_as(KEY), tag in written_as(TAG), name in written_as(NAME),
        ) {
            prop_assert!(receipt.parse::<Receipt>().is_ok(), "{receipt}");
            let mut sent = HeaderMap::new();
            sent.insert("idempotency-key", key.parse().expect("a header"));
            prop_assert!(headers::idempotency_key(&sent).is_ok_and(|read| read.is_some()), "{key}");
            sent.insert("if-match", tag.parse().expect("a header"));
            prop_assert!(headers::expected_version(&sent).is_ok_and(|read| read.is_some()), "{tag}");
            prop_assert!(EntityKey::new("order", name.as_str()).is_ok(), "{name}");
        }
    }

    fn completed(method: &str, path: &str, operation: Value) -> Value {
        let document = complete(json!({"paths": {path: {method: operation}}, "components": {}}));
        document["paths"][path][method].clone()
    }

    fn statuses(operation: &Value) -> Vec<&str> {
        operation["responses"].as_object().expect("responses").keys().map(String::as_str).collect()
    }

    #[test]
    fn the_problems_of_a_route_follow_from_its_shape() {
        let probe = completed("get", "/livez", json!({"responses": {"200": {}}}));
        assert_eq!(statuses(&probe), ["200", "400", "500", "503"]);
        let read = completed("get", "/v1/orders/{id}", json!({"responses": {"200": {}, "304": {}}}));
        assert_eq!(statuses(&read), ["200", "304", "400", "401", "404", "429", "500", "503"]);
        let write = completed("post", "/v1/orders", json!({"requestBody": {}, "responses": {"201": {}, "409": {}}}));
        let all = ["201", "400", "401", "403", "408", "409", "412", "413", "415", "422", "429", "500", "503", "504"];
        assert_eq!(statuses(&write), all);
        assert_eq!(write["responses"]["409"]["$ref"], "#/components/responses/Problem409");
    }

    #[test]
    fn the_role_that_a_route_needs_is_named_and_a_probe_needs_none() {
        let security = |method: &str, path: &str| completed(method, path, json!({"responses": {}}))["security"].clone();
        assert_eq!(security("get", "/readyz"), json!([]));
        assert_eq!(security("get", "/v1/orders/{id}"), json!([{"bearer": ["read"]}, {}]));
        assert_eq!(security("put", "/v1/inventory/{sku}"), json!([{"bearer": ["write"]}, {}]));
        assert_eq!(security("post", "/admin/v1/dead-letters/{id}/retry"), json!([{"bearer": ["admin"]}, {}]));
        let document = complete(json!({"paths": {}, "components": {}}));
        assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
        assert!(document["components"]["responses"]["Problem401"]["headers"].get("www-authenticate").is_some());
    }

    #[test]
    fn the_headers_of_an_answer_follow_from_what_the_route_takes() {
        let names = |operation: &Value, status: &str| -> Vec<String> {
            operation["responses"][status]["headers"].as_object().expect("headers").keys().cloned().collect()
        };
        let key = json!({"name": "Idempotency-Key", "in": "header", "schema": {"type": ["string", "null"]}});
        let write = json!({"parameters": [key], "responses": {"201": {"headers": {"location": {}}}}});
        let write = completed("post", "/v1/orders", write);
        assert_eq!(
            names(&write, "201"),
            ["idempotent-replayed", "location", "x-receipt", "x-request-id", "x-trace-id"]
        );
        let local = json!({"name": "consistency", "in": "query", "schema": {"type": "string"}});
        let read = json!({"parameters": [local], "responses": {"200": {}, "304": {}}});
        let read = completed("get", "/v1/orders/{id}", read);
        assert_eq!(names(&read, "304"), ["etag", "x-applied-index", "x-request-id", "x-trace-id"]);
    }

    #[test]
    fn what_may_be_left_out_is_not_null() {
        let key = json!({"name": "starting_after", "in": "query", "schema": {"type": ["string", "null"]}});
        let body = json!({"content": {"application/json": {"schema": {"oneOf": [{"type": "null"}, {"$ref": "#/x"}]}}}});
        let operation = json!({"parameters": [key], "requestBody": body, "responses": {}});
        let operation = completed("post", "/v1/x", operation);
        assert_eq!(operation["parameters"][0]["schema"]["type"], "string");
        let schema = operation.pointer("/requestBody/content/application~1json/schema");
        assert_eq!(schema, Some(&json!({"$ref": "#/x"})));
    }

    #[test]
    fn every_code_is_described_under_its_status() {
        let responses = responses();
        for code in Code::ALL {
            let described = &responses[format!("Problem{}", code.status().as_u16())];
            let codes = &described["content"][MEDIA_TYPE]["schema"]["properties"]["code"]["enum"];
            assert!(codes.as_array().is_some_and(|codes| codes.contains(&code.as_str().into())), "{code:?}");
        }
        assert!(responses["Problem503"]["headers"].get("retry-after").is_some());
        assert!(responses["Problem404"]["headers"].get("retry-after").is_none());
    }

    #[test]
    fn keys_and_tags_are_described_as_they_are_read() {
        use crate::ingress::headers::{expected_version, idempotency_key};
        use axum::http::{HeaderMap, HeaderName, HeaderValue};
        let one = |name: &'static str, value: &str| {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a header value");
            HeaderMap::from_iter([(HeaderName::from_static(name), value)])
        };
        let (key, tag) = (regex(KEY), regex(TAG));
        let (most, quoted) = ("k".repeat(255), format!("\"{}\"", "k".repeat(255)));
        let too_long = "k".repeat(256);
        for text in ["k", "a\"b", "\"a\"", "\"a\\\"b\"", "\"\"", "\"a", "\"a\"b", "", "\"a\\x\"", "é"] {
            assert_eq!(key.is_match(text), idempotency_key(&one("idempotency-key", text)).is_ok(), "{text}");
        }
        for text in [&most, &quoted, &too_long] {
            assert_eq!(key.is_match(text), idempotency_key(&one("idempotency-key", text)).is_ok(), "{text}");
        }
        for text in ["\"3\"", "\"0\"", "\"03\"", "W/\"3\"", "\"\"", "3", "*", "\"3\", \"4\"", "\"3"] {
            assert_eq!(tag.is_match(text), expected_version(&one("if-match", text)).is_ok(), "{text}");
        }
    }

    fn regex(pattern: &str) -> regex::Regex {
        regex::Regex::new(pattern).expect("a pattern")
    }
}
