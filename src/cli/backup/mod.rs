//! `quorate backup` and `quorate restore`: all that a cluster holds into a file, and out of it again.
//!
//! ```text
//! backup    node ─▶ checked section by section ─▶ FILE.part, synced ─▶ FILE
//! restore   FILE ─▶ checked to its end ─▶ from its beginning ─▶ node ─▶ what it says
//! ```
//!
//! Invariants: under FILE there is only ever a whole backup; nothing of a damaged one is sent.

mod part;

#[cfg(test)]
mod tests;

use super::{
    Failure, args,
    http::{Answer, Client, Download, Error},
    operator::{accept, client, failure, new_key, refusal},
    output,
};
use crate::{
    cluster::backup::{BackupHeader, BackupReader, DamagedBackup, Section},
    commerce::time::rfc3339,
};
use bytes::Bytes;
use bytesize::ByteSize;
use futures::stream;
use part::Part;
use serde_json::{Value, json};
use std::{
    fmt,
    fs::File,
    io::{self, Read, Seek},
    path::Path,
    time::{Duration, Instant},
};

const BACKUP: &str = "/admin/v1/backup";
const RESTORE: &str = "/admin/v1/restore";
/// Read from a file at a time.
const PIECE_BYTES: usize = 64 << 10;
/// Between two looks at how far it is.
const REDRAW_PAUSE: Duration = Duration::from_millis(250);

/// `quorate backup FILE`
pub(super) async fn backup(args: &args::Backup) -> Result<(), Failure> {
    let contents = take(args).await?;
    match args.operator.json {
        true => output::answer(&contents.json(&args.file).to_string()),
        false => output::answer(&format!("{contents} in {}", args.file.display())),
    }
}

/// `quorate restore FILE`
pub(super) async fn restore(args: &args::Restore) -> Result<(), Failure> {
    let (contents, answer) = put_back(args).await?;
    if args.operator.json {
        return output::answer(&answer.to_string());
    }
    if answer["was_before"] == true {
        return output::answer(&format!(
            "there before: {contents}; nothing was done, and what has happened since then stays"
        ));
    }
    output::answer(&format!("restored {contents}"))?;
    output::note(&format!(
        "what was done after {} is unknown here: compare the card gateway's books with the payments, from then on \
         (docs/operations.md, \"After a restore\")",
        contents.taken_at()
    ));
    Ok(())
}

async fn take(args: &args::Backup) -> Result<Contents, Failure> {
    let client = client(&args.operator.target)?;
    // Before anything is asked: whoever cannot keep a backup should not have one taken.
    let mut part = Part::create(&args.file)?;
    let answer = client.download(BACKUP, &[("idempotency-key", &new_key())]).await;
    let contents = match answer.map_err(|error| failure(&error))? {
        Answer::Download(download) => receive(&client, download, &mut part).await?,
        Answer::Refusal(response) => return Err(refusal(&client.url(), BACKUP, &response)),
    };
    part.keep()?;
    Ok(contents)
}

async fn receive(client: &Client, mut download: Download, part: &mut Part) -> Result<Contents, Failure> {
    let (mut check, mut progress) = (Check::default(), Progress::new("received"));
    let damaged = |damaged: &DamagedBackup| {
        Failure::operation(format!(
            "what came from {} is damaged: {damaged}; nothing of it was kept: take it again, through another node \
             with --url",
            client.url()
        ))
    };
    while let Some(bytes) = download.next().await.map_err(|error| failure(&error))? {
        check.feed(&bytes).map_err(|error| damaged(&error))?;
        part.write(&bytes)?;
        progress.add(bytes.len());
    }
    if !check.reader.is_whole() {
        return Err(Failure::unavailable(format!(
            "the backup broke off after {}: nothing of it was kept; take it again, or through another node with --url",
            ByteSize::b(progress.bytes).display().si()
        )));
    }
    check.contents().map_err(|error| damaged(&error))
}

/// What is in the file, and what the node answered.
async fn put_back(args: &args::Restore) -> Result<(Contents, Value), Failure> {
    let client = client(&args.operator.target)?;
    let mut file = File::open(&args.file).map_err(|error| unreadable(&args.file, &error))?;
    let contents = check(&args.file, &mut file)?;
    file.rewind().map_err(|error| unreadable(&args.file, &error))?;
    let key = new_key();
    let headers = [("idempotency-key", key.as_str()), ("content-type", "application/octet-stream")];
    let body = stream::iter(Pieces { file, progress: Progress::new("sent") });
    let sent = client.upload(RESTORE, &headers, body).await;
    // The connection that draws it may go later than the next line comes.
    output::redraw("");
    match sent {
        Ok(response) => Ok((contents, accept(&client.url(), RESTORE, &response).map_err(go_on)?)),
        Err(Error::BadRequest(reason)) => Err(unreadable(&args.file, &reason)),
        Err(error @ Error::Unreachable { .. }) => Err(failure(&error)),
        Err(error) => Err(go_on(failure(&error))),
    }
}

/// Where the cluster was lost sight of, what it has is of use.
fn go_on(failure: Failure) -> Failure {
    match failure {
        Failure::Unavailable(text) => Failure::unavailable(format!(
            "{text}; the same command with the same file goes on with a restore that has begun"
        )),
        other => other,
    }
}

fn check(path: &Path, file: &mut File) -> Result<Contents, Failure> {
    let damaged = |damaged: DamagedBackup| {
        Failure::operation(format!(
            "{}: {damaged}; nothing was sent: use another copy of this backup, or another backup",
            path.display()
        ))
    };
    let mut check = Check::default();
    for piece in (Pieces { file, progress: Progress::new("checked") }) {
        check.feed(&piece.map_err(|error| unreadable(path, &error))?).map_err(damaged)?;
    }
    check.contents().map_err(damaged)
}

fn unreadable(path: &Path, error: &dyn fmt::Display) -> Failure {
    Failure::usage(format!(
        "{}: {error}; give a file that `quorate backup` wrote and that this user may read",
        path.display()
    ))
}

/// Goes through a backup as its bytes come.
#[derive(Default)]
struct Check {
    reader: BackupReader,
    header: Option<BackupHeader>,
    pairs: u64,
}

impl Check {
    fn feed(&mut self, bytes: &[u8]) -> Result<(), DamagedBackup> {
        self.reader.feed(bytes);
        while let Some(section) = self.reader.next_section()? {
            match section {
                Section::Header(header) => self.header = Some(header),
                Section::End { sum, .. } => self.pairs += sum.pairs,
                Section::Chunk { .. } | Section::Trailer => {}
            }
        }
        Ok(())
    }

    /// When there are no more bytes.
    fn contents(self) -> Result<Contents, DamagedBackup> {
        match self.header {
            Some(header) if self.reader.is_whole() => {
                Ok(Contents { header, pairs: self.pairs, bytes: self.reader.bytes() })
            }
            _ => Err(self.reader.cut_short()),
        }
    }
}

/// What is in a whole backup.
#[derive(Debug, PartialEq, Eq)]
struct Contents {
    header: BackupHeader,
    pairs: u64,
    bytes: u64,
}

impl Contents {
    fn taken_at(&self) -> String {
        rfc3339(self.header.taken_at_ms)
    }

    fn json(&self, file: &Path) -> Value {
        json!({
            "backup": self.header.backup.to_string(),
            "cluster": self.header.cluster.to_string(),
            "taken_at": self.taken_at(),
            "shards": self.header.shards.len(),
            "pairs": self.pairs,
            "bytes": self.bytes,
            "file": file.display().to_string(),
        })
    }
}

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BackupHeader { backup, cluster, shards, .. } = &self.header;
        let bytes = ByteSize::b(self.bytes).display().si();
        write!(f, "backup {backup} of cluster {cluster}: {} shards, {} pairs, {bytes}", shards.len(), self.pairs)
    }
}

/// A file, piece by piece.
struct Pieces<F> {
    file: F,
    progress: Progress,
}

impl<F: Read> Iterator for Pieces<F> {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut piece = vec![0; PIECE_BYTES];
        match self.file.read(&mut piece) {
            Ok(0) => None,
            Ok(read) => {
                piece.truncate(read);
                self.progress.add(read);
                Some(Ok(piece.into()))
            }
            Err(error) => Some(Err(error)),
        }
    }
}

/// One line that is drawn again and again where somebody looks.
struct Progress {
    what: &'static str,
    bytes: u64,
    drawn: Option<Instant>,
}

impl Progress {
    fn new(what: &'static str) -> Self {
        Self { what, bytes: 0, drawn: None }
    }

    fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if self.drawn.is_none_or(|drawn| drawn.elapsed() >= REDRAW_PAUSE) {
            self.drawn = Some(Instant::now());
            output::redraw(&format!("{} {}", ByteSize::b(self.bytes).display().si(), self.what));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        output::redraw("");
    }
}
