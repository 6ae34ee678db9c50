//! The one middleware around every route: ids in and out, problems rendered, panics caught,
//! requests counted.
//!
//! ```text
//! request ── request id, trace id ──▶ route ──▶ response or problem ── rendered, ids added ──▶ client
//!                                       └─ panic ─▶ 500 `internal`            └─▶ metrics
//! ```
//!
//! It is one function and not a stack of layers, because each layer of the usual kind costs a
//! boxed future per request.

use super::{
    headers::{REQUEST_ID, TRACE_ID, Trace},
    problem::{Code, MEDIA_TYPE, Problem},
};
use crate::telemetry::names;
use axum::{
    body::Body,
    extract::{MatchedPath, Request},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures::FutureExt;
use std::{panic::AssertUnwindSafe, time::Instant};

/// Wraps a route; see the module.
pub async fn wrap(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    // Without its query: what clients put there by mistake is not ours to log.
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let trace = Trace::of(request.headers());
    request.extensions_mut().insert(trace.clone());

    let outcome = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let mut response = outcome.unwrap_or_else(|panic| {
        tracing::error!(trace_id = %trace.trace_id, panic = panic_message(&*panic), "a request handler panicked");
        Problem::new(Code::Internal, "the request handler failed").into_response()
    });
    render_problem(&mut response, &trace);
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, trace.request_id.clone());
    if let Ok(trace_id) = HeaderValue::from_str(&trace.trace_id) {
        headers.insert(TRACE_ID, trace_id);
    }
    let trace_id = &*trace.trace_id;
    let status = response.status();
    tracing::debug!(%trace_id, method = %method, path = %path, %status, elapsed = ?started.elapsed(), "answered");
    count(route.as_ref(), status, started);
    response
}

/// Replaces an error's body by the problem that the handler left, or, where a layer below made
/// the error itself, by a problem for its status.
fn render_problem(response: &mut Response, trace: &Trace) {
    let status = response.status();
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        None if !status.is_client_error() && !status.is_server_error() => return,
        None => {
            let code = Code::of_status(status);
            *response.status_mut() = code.status();
            Problem::new(code, code.title())
        }
    };
    if problem.code.status() == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!(trace_id = %trace.trace_id, code = problem.code.as_str(), detail = problem.detail, "answered 500");
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.remove(header::CONTENT_LENGTH);
    *response.body_mut() = Body::from(problem.render(&trace.trace_id).to_string());
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)")
}

/// The route's template and not its path: no client can make up new time series.
fn count(route: Option<&MatchedPath>, status: StatusCode, started: Instant) {
    let route = route.map_or_else(|| "(none)".to_owned(), |route| route.as_str().to_owned());
    let status = status.as_str().to_owned();
    metrics::counter!(names::HTTP_REQUESTS, "route" => route.clone(), "status" => status).increment(1);
    metrics::histogram!(names::HTTP_REQUEST_SECONDS, "route" => route).record(started.elapsed().as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingress::{
        extract::{Json, Limits, Params},
        fallback,
    };
    use axum::{
        Extension, Router,
        body::to_bytes,
        http::Uri,
        routing::{get, post},
    };
    use serde_json::Value;
    use std::time::Duration;
    use tower::ServiceExt;

    /// A router with everything but a cluster.
    fn stub() -> Router {
        let limits = Limits { body_bytes_max: 64, body_read_timeout: Duration::from_millis(50) };
        Router::new()
            .route("/echo", post(|json: Json<Value>| async move { json.value.to_string() }))
            .route("/panic", get(|| async { panic_in_handler() }))
            .route("/trace", get(|Extension(trace): Extension<Trace>| async move { trace.trace_id.to_string() }))
            .route("/plain", get(|uri: Uri| async move { Params::none(&uri).map(|()| "plain") }))
            .route("/bare", get(|| async { (StatusCode::IM_A_TEAPOT, "short and stout") }))
            .method_not_allowed_fallback(fallback::method_not_allowed)
            .fallback(fallback::route_not_found)
            .layer(axum::middleware::from_fn(wrap))
            .with_state(limits)
    }

    fn panic_in_handler() -> &'static str {
        panic!("secret detail")
    }

    async fn send(request: Request) -> (Response<()>, String) {
        let response = stub().oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1 << 20).await.expect("a body in memory");
        (Response::from_parts(parts, ()), String::from_utf8(body.to_vec()).expect("UTF-8"))
    }

    fn request(method: &str, uri: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Request {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(body.into()).expect("a request")
    }

    /// Sends, checks that the answer is a complete problem, and returns status and code.
    async fn problem(request: Request) -> (u16, String, Response<()>, Value) {
        let (response, body) = send(request).await;
        assert_eq!(response.headers()["content-type"], MEDIA_TYPE);
        let body: Value = serde_json::from_str(&body).expect("a JSON problem");
        assert_eq!(body["status"], response.status().as_u16());
        assert_eq!(response.headers()["x-trace-id"], body["trace_id"].as_str().expect("a trace id"));
        (response.status().as_u16(), body["code"].as_str().expect("a code").to_owned(), response, body)
    }

    const JSON: (&str, &str) = ("content-type", "application/json");

    #[tokio::test]
    async fn every_response_carries_the_ids_of_its_request() {
        let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let (response, body) =
            send(request("GET", "/trace", &[("x-request-id", "mine"), ("traceparent", traceparent)], "")).await;
        assert_eq!(response.headers()["x-request-id"], "mine");
        assert_eq!(response.headers()["x-trace-id"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(body, "4bf92f3577b34da6a3ce929d0e0e4736");
        let (response, _) = send(request("GET", "/nowhere", &[], "")).await;
        assert!(response.headers().contains_key("x-request-id"));
    }

    #[tokio::test]
    async fn a_panic_is_a_500_problem_that_tells_nothing() {
        let (status, code, _, body) = problem(request("GET", "/panic", &[], "")).await;
        assert_eq!((status, code.as_str()), (500, "internal"));
        assert!(!body.to_string().contains("secret"));
    }

    #[tokio::test]
    async fn an_unknown_route_is_a_404_problem() {
        let (status, code, ..) = problem(request("GET", "/nowhere", &[], "")).await;
        assert_eq!((status, code.as_str()), (404, "route-not-found"));
    }

    #[tokio::test]
    async fn a_wrong_method_is_a_405_problem_that_lists_the_right_ones() {
        let (status, code, response, _) = problem(request("DELETE", "/echo", &[], "")).await;
        assert_eq!((status, code.as_str()), (405, "method-not-allowed"));
        assert_eq!(response.headers()["allow"], "POST");
        let (_, _, response, _) = problem(request("BREW", "/trace", &[], "")).await;
        assert_eq!(response.headers()["allow"], "GET,HEAD");
    }

    #[tokio::test]
    async fn a_wrong_content_type_is_a_415_problem() {
        let (status, code, ..) = problem(request("POST", "/echo", &[("content-type", "text/xml")], "<a/>")).await;
        assert_eq!((status, code.as_str()), (415, "unsupported-media-type"));
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_a_413_problem_whether_declared_or_not() {
        let (status, code, ..) = problem(request("POST", "/echo", &[JSON], "{".repeat(65))).await;
        assert_eq!((status, code.as_str()), (413, "payload-too-large"));
        let chunks = futures::stream::iter((0..65).map(|_| Ok::<_, std::io::Error>("{")));
        let (status, ..) = problem(request("POST", "/echo", &[JSON], Body::from_stream(chunks))).await;
        assert_eq!(status, 413);
        let (response, _) = send(request("POST", "/echo", &[JSON], format!("{:64}", "{}"))).await;
        assert_eq!(response.status(), 200);
    }

    #[tokio::test]
    async fn a_body_that_stalls_is_a_408_problem() {
        let stalled = futures::stream::pending::<Result<&str, std::io::Error>>();
        let (status, code, ..) = problem(request("POST", "/echo", &[JSON], Body::from_stream(stalled))).await;
        assert_eq!((status, code.as_str()), (408, "request-timeout"));
    }

    #[tokio::test]
    async fn an_unknown_parameter_is_a_400_problem_that_names_it() {
        let (status, code, _, body) = problem(request("GET", "/plain?x=1", &[], "")).await;
        assert_eq!((status, code.as_str()), (400, "invalid-parameter"));
        assert_eq!(body["errors"][0]["field"], "x");
    }

    #[tokio::test]
    async fn an_error_that_something_below_made_becomes_a_problem() {
        let (status, code, _, body) = problem(request("GET", "/bare", &[], "")).await;
        assert_eq!((status, code.as_str()), (400, "bad-request"));
        assert!(!body.to_string().contains("stout"));
    }

    #[tokio::test]
    async fn head_gets_the_headers_of_a_problem_without_its_body() {
        let (response, body) = send(request("HEAD", "/nowhere", &[], "")).await;
        assert_eq!((response.status().as_u16(), body.as_str()), (404, ""));
        assert_eq!(response.headers()["content-type"], MEDIA_TYPE);
    }
}
