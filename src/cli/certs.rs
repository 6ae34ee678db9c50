//! `quorate certs init` and `quorate certs node`: the files behind TLS on node links.
//!
//! Invariants: a key is readable by its owner only, from the moment it is there; nothing is written
//! over unless that was asked for, and then at once; what cannot be written whole is not left behind.

use super::{
    Failure,
    args::{Certs, CertsCommand, CertsPlace},
    output,
};
use crate::{
    commerce::time::rfc3339,
    config::{NODE_NAME_FIX, is_node_name},
    transport::tls::{Authority, Issued},
};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Name of the authority's files. So no node can be called that, here.
const AUTHORITY: &str = "ca";
const SECRET: u32 = 0o600;
const PUBLIC: u32 = 0o644;

pub(super) fn run(args: &Certs) -> Result<(), Failure> {
    match &args.command {
        CertsCommand::Init { place, days } => init(place, *days),
        CertsCommand::Node { name, place, days, overwrite } => node(name, place, *days, *overwrite),
    }
}

fn init(place: &CertsPlace, days: u32) -> Result<(), Failure> {
    let made = Pair::named(&place.dir, AUTHORITY);
    made.refuse_existing("an authority of its own is what its nodes know a cluster by")?;
    let (_, issued) = Authority::create(DAY * days).map_err(Failure::operation)?;
    made.write(&issued, false)?;
    made.tell(place, &issued, "give it to every node; keep the key where no node is")
}

fn node(name: &str, place: &CertsPlace, days: u32, overwrite: bool) -> Result<(), Failure> {
    if !is_node_name(name) {
        return Err(Failure::usage(format!("{name:?} is not a node name; {NODE_NAME_FIX}")));
    }
    if name == AUTHORITY {
        return Err(Failure::usage(
            "the files of a node named \"ca\" would be those of the authority; name it differently",
        ));
    }
    let (authority, made) = (Pair::named(&place.dir, AUTHORITY), Pair::named(&place.dir, name));
    if !overwrite {
        made.refuse_existing("say --overwrite to take its place")?;
    }
    let unusable = |why: String| {
        Failure::operation(format!(
            "{} and {}: {why}; make an authority with `quorate certs init`, or say where it is with --dir",
            authority.certificate.display(),
            authority.key.display()
        ))
    };
    let read = |file: &Path| fs::read_to_string(file).map_err(|error| unusable(error.to_string()));
    let by = Authority::load(&read(&authority.certificate)?, &read(&authority.key)?).map_err(unusable)?;
    let asked = SystemTime::now() + DAY * days;
    let issued = by.issue(name, DAY * days).map_err(unusable)?;
    made.write(&issued, overwrite)?;
    let is_cut = issued.not_after + DAY < asked;
    let what_now = if is_cut {
        "no longer than the authority; only that node gets the key"
    } else {
        "only that node gets the key"
    };
    made.tell(place, &issued, what_now)
}

/// The two files of a certificate.
struct Pair {
    certificate: PathBuf,
    key: PathBuf,
}

impl Pair {
    fn named(dir: &Path, name: &str) -> Self {
        Self { certificate: dir.join(format!("{name}.crt")), key: dir.join(format!("{name}.key")) }
    }

    fn refuse_existing(&self, why: &str) -> Result<(), Failure> {
        let files = [&self.certificate, &self.key];
        // A link that leads nowhere is there, too.
        match files.into_iter().find(|file| file.symlink_metadata().is_ok()) {
            Some(file) => Err(Failure::operation(format!("{} is there already; {why}", file.display()))),
            None => Ok(()),
        }
    }

    /// The key first: a certificate that is there has its key. A node that reads in between finds that
    /// the two do not belong together, and stays with what it has.
    fn write(&self, issued: &Issued, overwrite: bool) -> Result<(), Failure> {
        let dir = self.key.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir).map_err(|error| failed(dir, &error))?;
        place(&self.key, &issued.key, SECRET, overwrite)?;
        let certificate = place(&self.certificate, &issued.certificate, PUBLIC, overwrite);
        if certificate.is_err() && !overwrite {
            // Without its certificate it would only be in the way.
            drop(fs::remove_file(&self.key));
        }
        certificate?;
        // So that neither is lost with the power: the names are in the directory.
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| failed(dir, &error))
    }

    fn tell(&self, place: &CertsPlace, issued: &Issued, what_now: &str) -> Result<(), Failure> {
        let since = issued.not_after.duration_since(UNIX_EPOCH).unwrap_or_default();
        let not_after = rfc3339(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        let (certificate, key) = (self.certificate.display(), self.key.display());
        if place.json {
            let made = serde_json::json!({
                "certificate": certificate.to_string(), "key": key.to_string(), "not_after": not_after,
            });
            return output::answer(&made.to_string());
        }
        output::answer(&format!("{certificate} and {key}, good until {not_after}: {what_now}"))
    }
}

/// Writes a file; in the place of another one, it is whole from the first moment.
fn place(file: &Path, text: &str, mode: u32, overwrite: bool) -> Result<(), Failure> {
    let written = match overwrite {
        false => write_new(file, text, mode),
        true => {
            let mut part = file.as_os_str().to_owned();
            part.push(format!(".{:08x}.part", rand::random::<u32>()));
            let part = PathBuf::from(part);
            write_new(&part, text, mode)
                .and_then(|()| fs::rename(&part, file).inspect_err(|_| drop(fs::remove_file(&part))))
        }
    };
    written.map_err(|error| failed(file, &error))
}

fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    // Half of a key would be in the way of the next try.
    written.inspect_err(|_| drop(fs::remove_file(path)))
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::operation(format!("{}: {error}; name a directory that this user may write to with --dir", path.display()))
}
