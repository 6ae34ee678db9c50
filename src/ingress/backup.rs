//! Backups, out of a cluster and into one: streams of bytes, both of them.

use super::{
    Api, Options,
    conditions::Conditions,
    extract::{Nothing, OptionalJson, Params},
    openapi::{self, ProblemResponse, ResolveHeaders},
    problem::{Code, Problem},
};
use crate::{
    cluster::backup::{BackupId, RestoreError, RestoredBackup},
    commerce::time::rfc3339,
};
use axum::{
    Json, Router,
    body::{Body, BodyDataStream, Bytes},
    extract::{Request, State},
    http::{HeaderMap, Uri, header},
    response::{IntoResponse, Response},
    routing::post,
};
use futures::{Stream, StreamExt, stream};
use serde::Serialize;
use std::time::Duration;

const MEDIA_TYPE: &str = "application/octet-stream";
/// How long the rest of a backup that was refused is read and thrown away: an answer given while the other side
/// still sends can be lost on its way.
const LINGER: Duration = Duration::from_secs(2);

pub fn routes() -> Router<Api> {
    Router::new().route("/admin/v1/backup", post(backup)).route("/admin/v1/restore", post(restore))
}

/// Take a backup.
///
/// Everything that the cluster holds, as it is at one moment during this request. Writes wait while the moment is
/// fixed, as a rule for some milliseconds; then the file is sent while they go on. It is whole only with the trailer
/// at its end: `quorate backup` checks that, and every byte before it. It holds every secret that entities
/// hold. An `Idempotency-Key` is taken and has no effect: a backup changes nothing, and the same key takes
/// another one.
#[utoipa::path(
    post, operation_id = "take_backup", path = "/admin/v1/backup", tag = "administration",
    params(ResolveHeaders),
    request_body(content = Option<openapi::Nothing>, example = json!({})),
    responses(
        (status = 200, description = "The backup", content_type = "application/octet-stream", body = openapi::Binary),
        (status = 429, response = ProblemResponse),
    )
)]
pub async fn backup(
    State(api): State<Api>,
    uri: Uri,
    conditions: Conditions,
    OptionalJson(_nothing): OptionalJson<Nothing>,
) -> Result<Response, Problem> {
    Params::none(&uri)?;
    conditions.refuse_version("a backup has no version")?;
    let backup = api.cluster.backup().await?;
    let name = format!("attachment; filename=\"{}.quorate-backup\"", backup.header().backup);
    let headers = [(header::CONTENT_TYPE, MEDIA_TYPE.to_owned()), (header::CONTENT_DISPOSITION, name)];
    Ok((headers, Body::from_stream(backup.into_stream())).into_response())
}

/// Restore a backup.
///
/// Into a cluster that has as many shards as the one that the backup was taken of, and has taken no writes yet.
/// Answered once everything is there and open; until then all else is answered 503 `restoring`. If it breaks off, send
/// the same backup again, to any node: it goes on where it was, and what is there is not done again.
/// Another backup takes its place. An `Idempotency-Key` is taken and not needed for that.
#[utoipa::path(
    post, operation_id = "restore_backup", path = "/admin/v1/restore", tag = "administration",
    params(ResolveHeaders),
    request_body(content = openapi::Binary, content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "It is restored", body = openapi::RestoredBackup),
        (status = 408, response = ProblemResponse),
        (status = 409, response = ProblemResponse),
    )
)]
pub async fn restore(
    State(api): State<Api>,
    uri: Uri,
    conditions: Conditions,
    request: Request,
) -> Result<Json<RestoredView>, Problem> {
    Params::none(&uri)?;
    conditions.refuse_version("a backup has no version")?;
    is_binary(request.headers())?;
    let mut body = Incoming::of(request.into_body(), &api.options);
    match api.cluster.restore(body.parts().boxed()).await {
        Ok(restored) => Ok(Json(restored.into())),
        Err(error) => {
            let problem = if body.is_silent { body.too_slow() } else { error.into() };
            body.linger();
            Err(problem)
        }
    }
}

fn is_binary(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match given.eq_ignore_ascii_case(MEDIA_TYPE) {
        true => Ok(()),
        false => {
            let detail = format!("the content-type is `{given}`; a backup is sent as {MEDIA_TYPE}");
            Err(Problem::new(Code::UnsupportedMediaType, detail))
        }
    }
}

/// A body of any length, whose parts come in without long pauses.
struct Incoming {
    body: BodyDataStream,
    silence_max: Duration,
    is_silent: bool,
}

impl Incoming {
    fn of(body: Body, options: &Options) -> Self {
        Self { body: body.into_data_stream(), silence_max: options.body_read_timeout, is_silent: false }
    }

    fn parts(&mut self) -> impl Stream<Item = Result<Bytes, String>> {
        stream::unfold(self, |incoming| async move {
            let part = match tokio::time::timeout(incoming.silence_max, incoming.body.next()).await {
                Ok(part) => part?.map_err(|_| "the body ended before it was complete".to_owned()),
                Err(_) => {
                    incoming.is_silent = true;
                    Err("nothing more came".to_owned())
                }
            };
            Some((part, incoming))
        })
    }

    fn too_slow(&self) -> Problem {
        let seconds = self.silence_max.as_secs_f32();
        Problem::new(Code::RequestTimeout, format!("nothing of the body arrived for {seconds} s"))
    }

    /// Reads on for a little while, for the sake of the answer.
    fn linger(mut self) {
        tokio::spawn(async move {
            let rest = async { while let Some(Ok(_)) = self.body.next().await {} };
            // Whoever sends on after that has had the time to see the answer.
            let _ = tokio::time::timeout(LINGER, rest).await;
        });
    }
}

#[derive(Serialize)]
pub struct RestoredView {
    backup: BackupId,
    cluster: String,
    taken_at: String,
    shards: u16,
    pairs: u64,
    bytes: u64,
    was_before: bool,
}

impl From<RestoredBackup> for RestoredView {
    fn from(restored: RestoredBackup) -> Self {
        let RestoredBackup { backup, cluster, taken_at_ms, shards, pairs, bytes, was_before } = restored;
        Self { backup, cluster: cluster.to_string(), taken_at: rfc3339(taken_at_ms), shards, pairs, bytes, was_before }
    }
}

impl From<RestoreError> for Problem {
    fn from(error: RestoreError) -> Self {
        let detail = error.to_string();
        match error {
            RestoreError::Damaged(_) => Self::new(Code::DamagedBackup, detail),
            RestoreError::Unreadable(_) => Self::new(Code::BadRequest, detail),
            RestoreError::Incompatible(_) => Self::new(Code::IncompatibleBackup, detail),
            RestoreError::NotEmpty { .. } => Self::new(Code::NotEmpty, detail),
            RestoreError::Superseded { .. } => Self::new(Code::Conflict, detail),
            RestoreError::Unavailable(unavailable) => unavailable.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingress::openapi::describes;

    #[test]
    fn what_was_restored_is_what_is_described() {
        let restored = RestoredBackup {
            backup: BackupId(1),
            cluster: serde_json::from_value(format!("{:032x}", 2).into()).expect("an id"),
            taken_at_ms: 1_700_000_000_000,
            shards: 4,
            pairs: 5,
            bytes: 6,
            was_before: false,
        };
        let view = serde_json::to_value(RestoredView::from(restored)).expect("JSON");
        assert_eq!(view["backup"], format!("{:032x}", 1));
        assert_eq!(view["taken_at"], "2023-11-14T22:13:20.000Z");
        describes("RestoredBackup", view);
    }

    #[tokio::test]
    async fn a_body_that_falls_silent_is_not_waited_for() {
        let (tx, rx) = tokio::sync::mpsc::channel(1);
        let body = Body::from_stream(stream::unfold(rx, |mut rx: tokio::sync::mpsc::Receiver<Bytes>| async move {
            rx.recv().await.map(|part| (Ok::<_, std::io::Error>(part), rx))
        }));
        let options = Options { body_read_timeout: Duration::from_millis(50), ..Options::default() };
        let mut incoming = Incoming::of(body, &options);
        tx.send(Bytes::from_static(b"a")).await.expect("there is room");
        {
            let mut parts = incoming.parts().boxed();
            assert_eq!(parts.next().await, Some(Ok(Bytes::from_static(b"a"))));
            assert!(matches!(parts.next().await, Some(Err(_))));
        }
        assert!(incoming.is_silent);
        assert_eq!(incoming.too_slow().code, Code::RequestTimeout);
        drop(tx);
    }
}
