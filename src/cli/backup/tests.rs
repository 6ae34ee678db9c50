//! Both commands against a node that is none: it serves the bytes it is given, and notes what it is sent.

use super::*;
use crate::{
    catalog::ClusterId,
    cli::{
        args::{Args, Command},
        http::tests::serve,
    },
    cluster::backup::{BackupId, BackupWriter, STATE_FORMAT, ShardHead},
    entity::ShardId,
    shard::backup::{Pairs, encode_chunk},
};
use axum::{
    Json, Router, body,
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing,
};
use clap::Parser;
use futures::StreamExt;
use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, sync::Arc};
use tempfile::TempDir;
use tokio::sync::Mutex;

const TAKEN_AT: &str = "2023-11-14T22:13:20.000Z";

/// A backup of two shards, with one chunk of 300 pairs in each: more than one piece.
fn whole() -> Vec<u8> {
    let head = |shard| ShardHead { shard: ShardId(shard), term: 1, index: 2, effects: 3, timers: 4, origins: vec![] };
    let header = BackupHeader {
        state_format: STATE_FORMAT,
        backup: BackupId(0xb),
        cluster: ClusterId(0xc),
        taken_at_ms: 1_700_000_000_000,
        version: "0.1.0".into(),
        entity_types: [].into(),
        shards: vec![head(0), head(1)],
    };
    let pairs: Pairs = (0..300_u16)
        .map(|number| ([b"h".as_slice(), &number.to_be_bytes()].concat(), Bytes::from(vec![7; 500])))
        .collect();
    let chunk = encode_chunk(&pairs).expect("encodes");
    let (mut writer, mut bytes) =
        BackupWriter::begin(&header).map(|(writer, first)| (writer, first.to_vec())).expect("encodes");
    for shard in [0, 1] {
        bytes.extend(writer.chunk(&chunk, pairs.len()));
        bytes.extend(writer.end(ShardId(shard)));
    }
    bytes.extend(writer.finish());
    bytes
}

fn octets(bytes: Vec<u8>) -> Response {
    let pieces: Vec<io::Result<Bytes>> = bytes.chunks(10_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    body::Body::from_stream(stream::iter(pieces)).into_response()
}

fn problem(status: u16, code: &str) -> Response {
    let problem = json!({"type": format!("/problems/{code}"), "code": code, "detail": "as it is"}).to_string();
    let status = StatusCode::from_u16(status).expect("a status");
    (status, [(CONTENT_TYPE, "application/problem+json")], problem).into_response()
}

/// A node that answers so to a request for a backup.
async fn node(answer: impl Fn() -> Response + Clone + Send + Sync + 'static) -> String {
    let route = routing::post(move |headers: HeaderMap, body: Bytes| async move {
        assert!(headers.contains_key("idempotency-key") && body.is_empty());
        answer()
    });
    serve(Router::new().route(BACKUP, route)).await
}

fn parse(words: &[&str]) -> Command {
    Args::try_parse_from(std::iter::once(&"quorate").chain(words)).expect("valid").command
}

/// `quorate backup FILE`, and what is in the directory of FILE then.
async fn backup_from(url: &str, dir: &TempDir) -> (Result<Contents, Failure>, Vec<String>) {
    let file = dir.path().join("b");
    let Command::Backup(args) = parse(&["backup", "--url", url, file.to_str().expect("text")]) else {
        panic!("another command")
    };
    let taken = take(&args).await;
    let entries = fs::read_dir(dir.path()).expect("a directory");
    (taken, entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect())
}

async fn restore_to(url: &str, file: &Path) -> Result<(Contents, Value), Failure> {
    let Command::Restore(args) = parse(&["restore", "--url", url, file.to_str().expect("text")]) else {
        panic!("another command")
    };
    put_back(&args).await
}

fn dir() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn written(dir: &TempDir, bytes: &[u8]) -> PathBuf {
    let file = dir.path().join("b");
    fs::write(&file, bytes).expect("writing");
    file
}

#[tokio::test]
async fn a_whole_backup_is_kept_byte_by_byte_for_this_user_only() {
    let (dir, bytes) = (dir(), whole());
    let served = bytes.clone();
    let (taken, names) = backup_from(&node(move || octets(served.clone())).await, &dir).await;
    let contents = taken.expect("taken");
    assert_eq!(names, ["b"]);
    let file = dir.path().join("b");
    assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
    assert!(fs::read(&file).expect("there") == bytes);

    let (backup, cluster) = (format!("{:032x}", 0xb), format!("{:032x}", 0xc));
    let size = ByteSize::b(bytes.len() as u64).display().si().to_string();
    assert!(size.ends_with(" kB"), "{size}");
    assert_eq!(contents.to_string(), format!("backup {backup} of cluster {cluster}: 2 shards, 600 pairs, {size}"));
    let expected = json!({
        "backup": backup, "cluster": cluster, "taken_at": TAKEN_AT,
        "shards": 2, "pairs": 600, "bytes": bytes.len(), "file": file.to_str(),
    });
    assert_eq!(contents.json(&file), expected);
}

#[tokio::test]
async fn a_backup_that_is_cut_or_damaged_on_its_way_is_not_kept() {
    let bytes = whole();
    for length in [0, 10, bytes.len() / 2, bytes.len() - 1] {
        let cut = bytes[..length].to_vec();
        let (taken, names) = backup_from(&node(move || octets(cut.clone())).await, &dir()).await;
        assert!(matches!(&taken, Err(Failure::Unavailable(text)) if text.contains("broke off")), "{length}: {taken:?}");
        assert!(names.is_empty(), "{length}: {names:?}");
    }
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 4;
    let more = [bytes.as_slice(), b"!"].concat();
    for damaged in [flipped, more, b"<html>".to_vec()] {
        let (taken, names) = backup_from(&node(move || octets(damaged.clone())).await, &dir()).await;
        assert!(matches!(&taken, Err(Failure::Operation(text)) if text.contains("at byte")), "{taken:?}");
        assert!(names.is_empty(), "{names:?}");
    }
}

#[tokio::test]
async fn a_stream_that_the_node_aborts_is_not_kept() {
    let bytes = whole();
    let answer = move || {
        let pieces = [Ok(Bytes::copy_from_slice(&bytes[..1000])), Err(io::Error::other("a shard went away"))];
        body::Body::from_stream(stream::iter(pieces)).into_response()
    };
    let (taken, names) = backup_from(&node(answer).await, &dir()).await;
    assert!(matches!(taken, Err(Failure::Unavailable(_))), "{taken:?}");
    assert!(names.is_empty(), "{names:?}");
}

#[tokio::test]
async fn a_node_that_refuses_is_heard_and_leaves_no_file() {
    type Kind = fn(String) -> Failure;
    let answers: [(u16, &str, Kind); 3] = [
        (503, "no-quorum", Failure::Unavailable),
        (429, "overloaded", Failure::Operation),
        (403, "forbidden", Failure::Refused),
    ];
    for (status, code, kind) in answers {
        let (taken, names) = backup_from(&node(move || problem(status, code)).await, &dir()).await;
        let failure = taken.expect_err("refused");
        let text = failure.to_string();
        assert!(text.starts_with(&format!("{code}: as it is")), "{text}");
        assert_eq!(failure, kind(text));
        assert!(names.is_empty(), "{names:?}");
    }
}

#[tokio::test]
async fn nothing_is_asked_for_a_file_that_is_there_already() {
    let dir = dir();
    written(&dir, b"the only one");
    let (taken, names) = backup_from(&node(|| panic!("it was asked")).await, &dir).await;
    assert!(matches!(&taken, Err(Failure::Usage(text)) if text.contains("never written over")), "{taken:?}");
    assert_eq!(names, ["b"]);
    assert_eq!(fs::read(dir.path().join("b")).expect("there"), b"the only one");
}

/// A node that reads what it is sent, and then answers so.
async fn taker(answer: impl Fn() -> Response + Clone + Send + Sync + 'static) -> (String, Arc<Mutex<Vec<u8>>>) {
    let sent = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&sent);
    let route = routing::post(move |headers: HeaderMap, body: body::Body| async move {
        assert!(headers.contains_key("idempotency-key"));
        assert_eq!(headers[CONTENT_TYPE], "application/octet-stream");
        let mut body = body.into_data_stream();
        while let Some(piece) = body.next().await {
            into.lock().await.extend(piece.expect("a piece"));
        }
        answer()
    });
    (serve(Router::new().route(RESTORE, route)).await, sent)
}

#[tokio::test]
async fn a_whole_file_is_sent_as_it_is() {
    let (dir, bytes) = (dir(), whole());
    let said = json!({"backup": format!("{:032x}", 0xb), "shards": 2, "pairs": 600});
    let answer = said.clone();
    let (url, sent) = taker(move || Json(answer.clone()).into_response()).await;
    let (contents, answer) = restore_to(&url, &written(&dir, &bytes)).await.expect("restored");
    assert_eq!((contents.pairs, contents.taken_at(), answer), (600, TAKEN_AT.to_owned(), said));
    assert!(*sent.lock().await == bytes);
}

#[tokio::test]
async fn of_a_damaged_file_nothing_is_sent() {
    let (url, sent) = taker(|| problem(500, "internal")).await;
    let bytes = whole();
    let mut flipped = bytes.clone();
    flipped[bytes.len() - 1] ^= 1;
    for damaged in [flipped, bytes[..bytes.len() - 1].to_vec(), b"a poem".to_vec(), vec![]] {
        let restored = restore_to(&url, &written(&dir(), &damaged)).await;
        let named = |text: &str| text.contains("at byte ") && text.contains("nothing was sent");
        assert!(matches!(&restored, Err(Failure::Operation(text)) if named(text)), "{restored:?}");
    }
    assert!(sent.lock().await.is_empty());
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_bad_usage() {
    let dir = dir();
    for file in [dir.path().join("absent"), dir.path().to_owned()] {
        let restored = restore_to("http://127.0.0.1:1", &file).await;
        let named = |text: &str| text.starts_with(&file.display().to_string());
        assert!(matches!(&restored, Err(Failure::Usage(text)) if named(text)), "{restored:?}");
    }
}

#[tokio::test]
async fn a_refusal_of_a_restore_is_heard_and_a_lost_cluster_is_worth_another_try() {
    let dir = dir();
    let file = written(&dir, &whole());
    for (status, code) in [(409, "not-empty"), (409, "incompatible-backup"), (422, "damaged-backup")] {
        let refuse = routing::post(move || async move { problem(status, code) });
        let url = serve(Router::new().route(RESTORE, refuse)).await;
        let restored = restore_to(&url, &file).await;
        let expected = Err(Failure::Operation(format!("{code}: as it is")));
        assert_eq!(restored, expected);
    }
    let (url, _) = taker(|| problem(503, "no-quorum")).await;
    let restored = restore_to(&url, &file).await;
    let goes_on = |text: &str| text.starts_with("no-quorum: as it is; ") && text.contains("the same command");
    assert!(matches!(&restored, Err(Failure::Unavailable(text)) if goes_on(text)), "{restored:?}");
}

#[test]
fn silence_may_last_longer_than_for_a_question_and_is_still_for_the_operator_to_say() {
    let timeouts = |words: &[&str]| match parse(words) {
        Command::Backup(args) => args.operator.target.timeout,
        Command::Restore(args) => args.operator.target.timeout,
        _ => panic!("another command"),
    };
    assert_eq!(timeouts(&["backup", "b"]), Duration::from_secs(60));
    assert_eq!(timeouts(&["restore", "b"]), Duration::from_secs(300));
    assert_eq!(timeouts(&["backup", "b", "--timeout", "3s"]), Duration::from_secs(3));
}
