//! Reading a request: JSON bodies, query parameters, ids in paths.
//!
//! What is wrong is said precisely: line and column of a syntax error (400), the path of a field
//! that is missing, unknown or of a wrong type (422), the name of a bad parameter (400).

use super::problem::{Code, FieldError, Problem};
use crate::entity::EntityKey;
use axum::{
    body::Bytes,
    extract::{FromRef, FromRequest, Query, Request},
    http::{HeaderMap, Uri, header},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{Deserialize, de::DeserializeOwned};
use std::time::Duration;

/// What a request body may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub body_bytes_max: usize,
    pub body_read_timeout: Duration,
}

/// A JSON body, read as `T`, and its bytes.
#[derive(Debug)]
pub struct Json<T> {
    pub value: T,
    pub bytes: Bytes,
}

/// As [`Json`], where no body at all means `T`'s default (and `{}`).
#[derive(Debug)]
pub struct OptionalJson<T>(pub Json<T>);

/// A body without members.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

impl<S, T> FromRequest<S> for Json<T>
where
    S: Sync,
    T: DeserializeOwned,
    Limits: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        is_json(request.headers())?;
        let bytes = read_body(request, Limits::from_ref(state)).await?;
        Ok(Self { value: parse_object(&bytes)?, bytes })
    }
}

impl<S, T> FromRequest<S> for OptionalJson<T>
where
    S: Sync,
    T: DeserializeOwned + Default,
    Limits: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let declared = is_json(request.headers());
        let bytes = read_body(request, Limits::from_ref(state)).await?;
        if bytes.is_empty() {
            return Ok(Self(Json { value: T::default(), bytes: Bytes::from_static(b"{}") }));
        }
        declared?;
        Ok(Self(Json { value: parse_object(&bytes)?, bytes }))
    }
}

/// `application/json` or `application/*+json`, in UTF-8 if it says anything about it.
fn is_json(headers: &HeaderMap) -> Result<(), Problem> {
    let refuse = |detail: String| Err(Problem::new(Code::UnsupportedMediaType, detail));
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return refuse("the body has no content-type; send application/json".into());
    };
    let text = value.to_str().unwrap_or_default();
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let json = essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"));
    if !json {
        return refuse(format!("the content-type is `{text}`; send application/json"));
    }
    let foreign = |parameter: &str| {
        let (name, value) = parameter.split_once('=').unwrap_or_default();
        name.eq_ignore_ascii_case("charset") && !value.trim_matches('"').eq_ignore_ascii_case("utf-8")
    };
    if parts.any(foreign) {
        return refuse(format!("the content-type is `{text}`; JSON is read in UTF-8 only"));
    }
    Ok(())
}

/// The whole body, within its bounds of size and time.
async fn read_body(request: Request, limits: Limits) -> Result<Bytes, Problem> {
    let too_large = || {
        let detail = format!("the body has more than {} bytes, which is the limit", limits.body_bytes_max);
        Problem::new(Code::PayloadTooLarge, detail)
    };
    let body = request.into_body();
    // A declared length is refused before a byte of it is read.
    if axum::body::HttpBody::size_hint(&body).lower() > limits.body_bytes_max as u64 {
        return Err(too_large());
    }
    let reading = Limited::new(body, limits.body_bytes_max).collect();
    match tokio::time::timeout(limits.body_read_timeout, reading).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(Code::BadRequest, "the body ended before it was complete")),
        Err(_) => {
            let seconds = limits.body_read_timeout.as_secs_f32();
            Err(Problem::new(Code::RequestTimeout, format!("the body did not arrive within {seconds} s")))
        }
    }
}

/// Reads a JSON object. (serde alone would also take an array of a type's fields in their order.)
fn parse_object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    match bytes.trim_ascii_start().first() {
        Some(b'{') | None => parse(bytes),
        Some(_) => {
            // Malformed text is malformed first of all.
            parse::<serde::de::IgnoredAny>(bytes)?;
            Err(Problem::field(Code::ValidationFailed, "body", "must be a JSON object"))
        }
    }
}

/// Reads JSON; says where it is wrong.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        refuse_json(&path, error.inner())
    })?;
    deserializer.end().map_err(|error| refuse_json(".", &error))?;
    Ok(value)
}

fn refuse_json(path: &str, error: &serde_json::Error) -> Problem {
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    if !error.is_data() {
        let detail = format!("line {}, column {}: {message}", error.line(), error.column());
        return Problem::new(Code::MalformedJson, detail);
    }
    let path = if path == "." { "" } else { path };
    let errors = vec![FieldError { field: field_path(path, message), detail: message.to_owned() }];
    Problem::validation(errors)
}

/// serde reports a missing or unknown member at its parent: adds the member's name.
fn field_path(parent: &str, message: &str) -> String {
    let of_member = message.starts_with("missing field `") || message.starts_with("unknown field `");
    let member = if of_member { message.split('`').nth(1).unwrap_or_default() } else { "" };
    match (parent, member) {
        ("", "") => "body".to_owned(),
        ("", member) => member.to_owned(),
        (parent, "") => parent.to_owned(),
        (parent, member) if parent == member || parent.ends_with(&format!(".{member}")) => parent.to_owned(),
        (parent, member) => format!("{parent}.{member}"),
    }
}

/// Query parameters. Take every one that the route knows, then [`Params::finish`]: what is left
/// over is unknown and refused, so that a misspelt parameter is not silently without effect.
#[derive(Debug)]
pub struct Params {
    left: Vec<(String, String)>,
    known: Vec<&'static str>,
}

impl Params {
    pub fn of(uri: &Uri) -> Result<Self, Problem> {
        let Query(left) = Query::try_from_uri(uri)
            .map_err(|_| Problem::new(Code::InvalidParameter, "the query string is not well-formed"))?;
        Ok(Self { left, known: Vec::new() })
    }

    /// The raw value; an error if it is there twice.
    pub fn take(&mut self, name: &'static str) -> Result<Option<String>, Problem> {
        self.known.push(name);
        let Some(at) = self.left.iter().position(|(found, _)| found == name) else { return Ok(None) };
        let (_, value) = self.left.swap_remove(at);
        if self.left.iter().any(|(found, _)| found == name) {
            return Err(invalid(name, "was given more than once"));
        }
        Ok(Some(value))
    }

    /// A whole number within bounds.
    pub fn number(&mut self, name: &'static str, range: std::ops::RangeInclusive<u64>) -> Result<Option<u64>, Problem> {
        let Some(value) = self.take(name)? else { return Ok(None) };
        match value.parse() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => {
                let detail = format!("`{value}` is not a whole number from {} to {}", range.start(), range.end());
                Err(invalid(name, detail))
            }
        }
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, name: &'static str, words: &[(&str, T)]) -> Result<Option<T>, Problem> {
        let Some(value) = self.take(name)? else { return Ok(None) };
        match words.iter().find(|(word, _)| *word == value) {
            Some((_, meaning)) => Ok(Some(*meaning)),
            None => {
                let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
                Err(invalid(name, format!("`{value}` is not one of {}", words.join(", "))))
            }
        }
    }

    /// A flag: given without a value, or with `true`, `1`, `false`, `0`.
    pub fn flag(&mut self, name: &'static str) -> Result<bool, Problem> {
        let words = [("", true), ("true", true), ("1", true), ("false", false), ("0", false)];
        Ok(self.choice(name, &words)?.unwrap_or(false))
    }

    pub fn finish(self) -> Result<(), Problem> {
        let Some((name, _)) = self.left.first() else { return Ok(()) };
        let detail = match &self.known[..] {
            [] => "is unknown; this route takes no parameters".to_owned(),
            known => format!("is unknown; this route takes {}", known.join(", ")),
        };
        Err(invalid(name, detail))
    }

    /// For routes without parameters.
    pub fn none(uri: &Uri) -> Result<(), Problem> {
        match uri.query() {
            None | Some("") => Ok(()),
            Some(_) => Self::of(uri)?.finish(),
        }
    }
}

/// A problem of one query parameter.
pub fn invalid(parameter: &str, detail: impl Into<String>) -> Problem {
    Problem::field(Code::InvalidParameter, parameter, detail)
}

/// An id in a path that can name an entity. Others name nothing: 404 without asking anyone.
pub fn entity_id(what: &str, id: String) -> Result<String, Problem> {
    match EntityKey::new("", id.as_str()) {
        Ok(_) => Ok(id),
        Err(_) => Err(Problem::not_found(what, &id.chars().take(64).collect::<String>())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Cart {
        items: Vec<Item>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Item {
        quantity: u32,
        #[serde(default)]
        price: i64,
    }

    fn refusal(body: &str) -> Problem {
        parse::<Cart>(body.as_bytes()).expect_err("must be refused")
    }

    fn refused_field(body: &str) -> (u16, String) {
        let problem = refusal(body);
        (problem.code.status().as_u16(), problem.errors[0].field.clone())
    }

    #[test]
    fn a_syntax_error_is_400_with_line_and_column() {
        let problem = refusal("{\n  \"items\": [}\n");
        assert_eq!(problem.code, Code::MalformedJson);
        assert!(problem.detail.starts_with("line 2, column 13: "), "{}", problem.detail);
        for malformed in ["", "{", "{\"items\":[]} x", "{\"items\":[01]}", "nul"] {
            assert_eq!(refusal(malformed).code, Code::MalformedJson, "{malformed}");
        }
        let invalid_utf8 = parse::<serde_json::Value>(b"\"\xff\"").expect_err("must be refused");
        assert_eq!(invalid_utf8.code, Code::MalformedJson);
        assert_eq!(
            parse::<serde_json::Value>("[".repeat(100_000).as_bytes()).expect_err("deep").code,
            Code::MalformedJson
        );
    }

    #[test]
    fn a_field_of_a_wrong_type_is_422_with_its_path() {
        for quantity in ["\"1\"", "1.5", "1.0", "-1", "null", "99999999999", "[]", "1e2"] {
            let body = format!("{{\"items\":[{{\"quantity\":1}},{{\"quantity\":{quantity}}}]}}");
            assert_eq!(refused_field(&body), (422, "items[1].quantity".into()), "{quantity}");
        }
        let overflow = "{\"items\":[{\"quantity\":1,\"price\":92233720368547758080}]}";
        assert_eq!(refused_field(overflow), (422, "items[0].price".into()));
        assert_eq!(refused_field("7"), (422, "body".into()));
    }

    #[test]
    fn a_body_is_an_object_and_not_a_list_of_its_fields() {
        assert!(parse_object::<Cart>(b" {\"items\":[]}").is_ok());
        for other in ["[[]]", "null", "7", "\"x\""] {
            let problem = parse_object::<Cart>(other.as_bytes()).expect_err("refused");
            assert_eq!((problem.code, problem.errors[0].field.as_str()), (Code::ValidationFailed, "body"), "{other}");
        }
        for malformed in ["", "[[]", "nul"] {
            let problem = parse_object::<Cart>(malformed.as_bytes()).expect_err("refused");
            assert_eq!(problem.code, Code::MalformedJson, "{malformed}");
        }
    }

    #[test]
    fn a_missing_and_an_unknown_field_are_422_with_their_paths() {
        assert_eq!(refused_field("{\"items\":[{}]}"), (422, "items[0].quantity".into()));
        assert_eq!(refused_field("{}"), (422, "items".into()));
        assert_eq!(refused_field("{\"items\":[],\"extra\":1}"), (422, "extra".into()));
        assert_eq!(refused_field("{\"items\":[{\"quantity\":1,\"sku\":1}]}"), (422, "items[0].sku".into()));
        assert_eq!(refused_field("{\"items\":[],\"items\":[]}").0, 422);
        let detail = refusal("{\"items\":[],\"extra\":1}").detail;
        assert!(!detail.contains(" at line "), "{detail}");
    }

    #[test]
    fn only_json_in_utf8_is_read() {
        let content_type = |value: &'static str| {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, value.parse().expect("a header value"))]);
            is_json(&headers).map_err(|problem| problem.code)
        };
        for fine in ["application/json", "Application/JSON; charset=UTF-8", "application/merge-patch+json"] {
            assert_eq!(content_type(fine), Ok(()), "{fine}");
        }
        for bad in ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1", ""] {
            assert_eq!(content_type(bad), Err(Code::UnsupportedMediaType), "{bad}");
        }
        assert!(is_json(&HeaderMap::new()).is_err());
    }

    fn params(query: &str) -> Params {
        Params::of(&format!("/x?{query}").parse().expect("a URI")).expect("well-formed")
    }

    #[test]
    fn a_parameter_out_of_range_or_unknown_or_repeated_is_named() {
        let named = |problem: Problem| (problem.code, problem.errors[0].field.clone());
        let limit = |query: &str| params(query).number("limit", 1..=100).map_err(named);
        assert_eq!(limit("limit=7"), Ok(Some(7)));
        assert_eq!(limit(""), Ok(None));
        for bad in ["limit=0", "limit=101", "limit=-1", "limit=x", "limit=", "limit=1&limit=1", "limit=1.0"] {
            assert_eq!(limit(bad), Err((Code::InvalidParameter, "limit".into())), "{bad}");
        }
        let unknown = params("limti=7").finish().map_err(named);
        assert_eq!(unknown, Err((Code::InvalidParameter, "limti".into())));
    }

    #[test]
    fn a_choice_names_the_words_it_takes() {
        let words = [("local", 1), ("linearizable", 2)];
        assert_eq!(params("c=local").choice("c", &words).expect("known"), Some(1));
        let problem = params("c=eventual").choice("c", &words).expect_err("unknown");
        assert!(problem.detail.contains("local, linearizable"), "{}", problem.detail);
    }

    #[test]
    fn a_flag_needs_no_value() {
        assert!(params("verbose").flag("verbose").expect("a flag"));
        assert!(!params("verbose=false").flag("verbose").expect("a flag"));
        assert!(params("verbose=maybe").flag("verbose").is_err());
    }

    #[test]
    fn ids_that_name_nothing_are_not_found() {
        for id in ["", "a b", "ö", &"x".repeat(256)] {
            assert_eq!(entity_id("order", id.to_owned()).expect_err("names nothing").code, Code::NotFound);
        }
        assert!(entity_id("order", "ord_1".into()).is_ok());
    }
}
