//! Requests that no route takes, and the page behind each problem's `type`.

use super::{
    extract::Params,
    problem::{Code, Problem},
};
use axum::{
    Json,
    extract::Path,
    http::{Method, Uri},
};
use serde_json::{Value, json};

pub async fn route_not_found(method: Method, uri: Uri) -> Problem {
    Problem::new(Code::RouteNotFound, format!("there is no route {method} {}", uri.path()))
}

/// The router itself adds the `allow` header.
pub async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    Problem::new(Code::MethodNotAllowed, format!("{} does not take {method}", uri.path()))
}

/// A short explanation of a problem code.
#[utoipa::path(
    get, path = "/problems/{code}", tag = "documentation",
    params(("code" = String, Path, description = "A problem's `code`", example = "no-quorum")),
    responses(
        (status = 200, description = "What the code means and what to do", body = super::openapi::Explanation),
    )
)]
pub async fn explain(Path(code): Path<String>, uri: Uri) -> Result<Json<Value>, Problem> {
    Params::none(&uri)?;
    let unknown = || Problem::not_found("problem code", &code.chars().take(64).collect::<String>());
    let known = Code::parse(&code).ok_or_else(unknown)?;
    Ok(Json(json!({
        "code": known.as_str(),
        "type": known.uri(),
        "status": known.status().as_u16(),
        "title": known.title(),
        "fix": known.fix(),
        "documentation": format!("docs/errors.md#{}", known.as_str()),
    })))
}
