//! A network namespace of the run's own.
//!
//! ```text
//! quorate chaos ─ check: may we? ─▶ exec unshare --net quorate chaos … --left-network net:[1]
//!                                        │ the same process, in a network of its own
//!                                        ▼
//!                 furnish: another one than net:[1]? ─▶ loopback up ─▶ nodes, clients, gateway, nft rules
//! ```
//!
//! It has no name, so nothing has to be removed and nothing can be left behind: it ends, with all
//! rules in it, when its last process does, whichever way that comes about. Invariant: no rule is
//! ever written in the namespace that `quorate chaos` was started in; [`furnish`](Namespace::furnish)
//! refuses to go on there.

use super::{Change, Condition, Place, filter};
use std::{
    ffi::OsString,
    fs, io,
    io::Write as _,
    net::{Ipv4Addr, SocketAddrV4},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The hidden flag that tells the run in the namespace which one it has left.
const LEFT: &str = "--left-network";
/// Where administrators' tools are, should `PATH` not say so.
const ALSO_IN: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
/// As root; and as somebody who may be root in a user namespace of their own.
const FLAGS: [&[&str]; 2] = [&["--net"], &["--net", "--user", "--map-root-user"]];

/// The network namespace that this process is in, which is the run's own.
#[derive(Debug, Clone)]
pub struct Namespace {
    id: String,
    nft: PathBuf,
}

/// The way into one, tried out.
#[derive(Debug)]
pub struct Entrance {
    unshare: PathBuf,
    flags: &'static [&'static str],
}

impl Entrance {
    /// Tries out, in a namespace that is gone again at once, everything that a run needs.
    ///
    /// # Errors
    /// Why there can be none, for people.
    pub fn check() -> Result<Self, String> {
        let unshare = tool("unshare", "util-linux")?;
        let (ip, nft) = (tool("ip", "iproute2")?, tool("nft", "nftables")?);
        let mut refusals = Vec::new();
        for flags in FLAGS {
            match try_out(&unshare, flags, &ip, &nft) {
                Ok(()) => return Ok(Self { unshare, flags }),
                Err(why) => refusals.push(why),
            }
        }
        refusals.dedup();
        Err(format!("no network namespace can be made here: {}", refusals.join("; ")))
    }

    /// Goes on in a new namespace, as the same process, with the same arguments and one more. Comes
    /// back only with the reason why that failed.
    pub fn enter(&self) -> String {
        let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
        let (Ok(left), Ok(program)) = (current(), std::env::current_exe()) else {
            return "/proc does not tell of this process".into();
        };
        let mut command = Command::new(&self.unshare);
        command.args(self.flags).arg("--").arg(program).args(arguments).arg(LEFT).arg(left);
        format!("{}: {}", self.unshare.display(), command.exec())
    }
}

impl Namespace {
    /// Makes the namespace that this process has been put in fit for a run.
    ///
    /// # Errors
    /// It is still the one that was to be left, or cannot be set up.
    pub fn furnish(left: &str) -> Result<Self, String> {
        let id = current().map_err(|error| format!("the network namespace of this process: {error}"))?;
        if id == left || !left.starts_with("net:[") {
            return Err(format!("{LEFT} {left}: this process is not in a network namespace of its own"));
        }
        let (ip, nft) = (tool("ip", "iproute2")?, tool("nft", "nftables")?);
        let up = Command::new(ip).args(["link", "set", "lo", "up"]).output();
        match up {
            Ok(output) if output.status.success() => Ok(Self { id, nft }),
            Ok(output) => Err(format!("loopback of {id}: {}", last_line(&output.stderr))),
            Err(error) => Err(format!("loopback of {id}: {error}")),
        }
    }

    /// As `/proc` shows it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn nft(&self) -> &Path {
        &self.nft
    }

    #[cfg(test)]
    pub(super) fn for_tests() -> Self {
        Self { id: "net:[1]".into(), nft: "/nowhere/nft".into() }
    }
}

/// The namespace of this process, as `net:[4026531840]`.
fn current() -> io::Result<String> {
    fs::read_link("/proc/self/ns/net").map(|link| link.display().to_string())
}

fn tool(name: &str, package: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(ALSO_IN.iter().map(PathBuf::from));
    let found = dirs.map(|dir| dir.join(name)).find(|file| file.is_file());
    found.ok_or_else(|| format!("`{name}` is not installed (Debian: apt-get install {package})"))
}

fn try_out(unshare: &Path, flags: &[&str], ip: &Path, nft: &Path) -> Result<(), String> {
    let mut command = Command::new(unshare);
    command.args(flags).args(["--", "sh", "-c", "\"$0\" link set lo up && exec \"$1\" -f -"]).arg(ip).arg(nft);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{}: {error}", unshare.display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // Whoever cannot read it says why.
        let _ = stdin.write_all(every_kind_of_rule().as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(last_line(&output.stderr)) }
}

/// Kernels differ in what they can filter by.
fn every_kind_of_rule() -> String {
    let address = |node| SocketAddrV4::new(Ipv4Addr::new(127, 0, 1, node), 1);
    let places = [1, 2].map(|node| Place { listen: address(node), proxied: address(node + 2) });
    let rules = [Condition::blocked(), Condition { loss: 0.1, ..Condition::default() }];
    let changes = rules.map(|condition| Change { pairs: vec![(1, 2)], condition });
    filter::script(&places, changes.iter())
}

fn last_line(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("it says nothing").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_that_was_to_be_left_is_never_touched() {
        let here = current().expect("/proc");
        let refused = Namespace::furnish(&here).expect_err("it is not left");
        assert!(refused.contains("not in a network namespace of its own"), "{refused}");
        assert!(Namespace::furnish("").is_err());
    }

    #[test]
    fn a_tool_that_is_missing_is_named_with_its_package() {
        let missing = tool("no-such-tool-as-this", "nftables").expect_err("nobody has it");
        assert_eq!(missing, "`no-such-tool-as-this` is not installed (Debian: apt-get install nftables)");
        assert!(tool("sh", "dash").is_ok());
    }

    #[test]
    fn why_there_is_none_is_what_was_said_last() {
        let sh = tool("sh", "dash").expect("a shell");
        // `sh --net -- …` cannot be: it says so, and that is told.
        let why = try_out(&sh, &["--net"], Path::new("ip"), Path::new("nft")).expect_err("no namespace");
        assert!(!why.is_empty());
        assert_eq!(last_line(b"first\nsecond\n\n"), "second");
    }
}
