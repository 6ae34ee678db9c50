//! Probes and metrics: what load balancers, Kubernetes and Prometheus ask.
//!
//! Liveness looks at nothing but this process, so that an outage of peers never restarts a
//! healthy node.

use super::{
    Api,
    extract::Params,
    openapi::Health,
    problem::{Code, Problem},
};
use crate::{
    cluster::{NodeStatus, Phase},
    telemetry,
};
use axum::{
    Json, Router,
    extract::State,
    http::{Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};

pub fn routes() -> Router<Api> {
    Router::new()
        .route("/livez", get(livez))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/startupz", get(startupz))
        .route("/metrics", get(metrics_text))
}

/// One thing a probe looks at.
struct Check {
    name: &'static str,
    ok: bool,
    detail: String,
}

/// Is the process alive? Never depends on peers.
#[utoipa::path(
    get, path = "/livez", tag = "operations", params(("verbose" = Option<bool>, Query, description = "List the checks")),
    responses((status = 200, description = "Alive", body = Health))
)]
pub async fn livez(uri: Uri) -> Result<Response, Problem> {
    answer(&uri, vec![Check { name: "process", ok: true, detail: "answers".into() }])
}

/// The same as `/livez`.
#[utoipa::path(
    get, path = "/healthz", tag = "operations", params(("verbose" = Option<bool>, Query, description = "List the checks")),
    responses((status = 200, description = "Alive", body = Health))
)]
pub async fn healthz(uri: Uri) -> Result<Response, Problem> {
    livez(uri).await
}

/// Should this node get traffic? Joined, its shards recovered, not draining.
#[utoipa::path(
    get, path = "/readyz", tag = "operations", params(("verbose" = Option<bool>, Query, description = "List the checks")),
    responses((status = 200, description = "Ready", body = Health))
)]
pub async fn readyz(State(api): State<Api>, uri: Uri) -> Result<Response, Problem> {
    answer(&uri, readiness(&api.cluster.status()))
}

/// Has this node joined its cluster?
#[utoipa::path(
    get, path = "/startupz", tag = "operations", params(("verbose" = Option<bool>, Query, description = "List the checks")),
    responses((status = 200, description = "Started", body = Health))
)]
pub async fn startupz(State(api): State<Api>, uri: Uri) -> Result<Response, Problem> {
    answer(&uri, vec![joined(api.cluster.status().phase)])
}

fn joined(phase: Phase) -> Check {
    let ok = phase != Phase::Joining;
    let detail = if ok { "a member" } else { "waits for its seeds, or joins" };
    Check { name: "joined", ok, detail: detail.into() }
}

fn readiness(status: &NodeStatus) -> Vec<Check> {
    let draining = status.phase == Phase::Draining;
    let recovered = matches!(status.phase, Phase::Ready | Phase::Draining);
    vec![
        joined(status.phase),
        Check {
            name: "shards",
            ok: recovered,
            detail: if recovered { "caught up" } else { "not all caught up" }.into(),
        },
        Check { name: "serving", ok: !draining, detail: if draining { "draining" } else { "not draining" }.into() },
    ]
}

fn answer(uri: &Uri, checks: Vec<Check>) -> Result<Response, Problem> {
    let mut params = Params::of(uri)?;
    let verbose = params.flag("verbose")?;
    params.finish()?;
    let listed =
        || -> Vec<Value> { checks.iter().map(|c| json!({"name": c.name, "ok": c.ok, "detail": c.detail})).collect() };
    if let Some(failing) = checks.iter().find(|check| !check.ok) {
        let problem = Problem::new(Code::NotReady, format!("{}: {}", failing.name, failing.detail)).retry_after(1);
        return Err(if verbose { problem.with("checks", json!(listed())) } else { problem });
    }
    let body = if verbose { json!({"status": "ok", "checks": listed()}) } else { json!({"status": "ok"}) };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

/// Prometheus text.
#[utoipa::path(
    get, path = "/metrics", tag = "operations",
    responses((status = 200, description = "Metrics in the Prometheus text format", body = String, content_type = "text/plain"))
)]
pub async fn metrics_text(uri: Uri) -> Result<Response, Problem> {
    Params::none(&uri)?;
    let text = telemetry::metrics().render();
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(phase: Phase) -> NodeStatus {
        NodeStatus {
            cluster: None,
            node: None,
            name: "a".into(),
            version: "0".into(),
            uptime_ms: 0,
            phase,
            shards_without_owner: Vec::new(),
            shards_owned: 0,
            violations: 0,
        }
    }

    #[test]
    fn only_a_ready_node_is_ready_and_the_first_failing_check_is_named() {
        let uri = Uri::from_static("/readyz");
        assert!(answer(&uri, readiness(&status(Phase::Ready))).is_ok());
        for (phase, named) in [(Phase::Joining, "joined"), (Phase::Recovering, "shards"), (Phase::Draining, "serving")]
        {
            let problem = answer(&uri, readiness(&status(phase))).expect_err("not ready");
            assert_eq!(problem.code, Code::NotReady);
            assert!(problem.detail.starts_with(named), "{phase:?}: {}", problem.detail);
            assert!(problem.extra.is_empty());
        }
    }

    #[test]
    fn verbose_lists_the_checks_of_a_failing_probe_too() {
        let uri = Uri::from_static("/readyz?verbose");
        let problem = answer(&uri, readiness(&status(Phase::Draining))).expect_err("not ready");
        assert_eq!(problem.extra[0].0, "checks");
        assert_eq!(problem.extra[0].1.as_array().map(Vec::len), Some(3));
    }

    #[test]
    fn a_node_has_started_once_it_is_a_member() {
        assert!(!joined(Phase::Joining).ok);
        assert!(joined(Phase::Recovering).ok && joined(Phase::Draining).ok);
    }

    #[tokio::test]
    async fn probes_take_no_other_parameter() {
        let problem = livez(Uri::from_static("/livez?verbos")).await.expect_err("unknown parameter");
        assert_eq!(problem.code, Code::InvalidParameter);
        assert!(livez(Uri::from_static("/livez?verbose")).await.is_ok());
    }
}
