//! A file that is there under its name only when it is whole.

use super::Failure;
use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, ErrorKind, Write},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// `FILE.part`, on the way to become `FILE`. Dropped before, it is removed.
#[derive(Debug)]
pub(super) struct Part {
    file: File,
    path: PathBuf,
    goal: PathBuf,
    is_kept: bool,
}

impl Part {
    /// Takes the place of one that a process left behind that is gone.
    ///
    /// # Errors
    /// There is a file of that name, another process is at it, or it cannot be created.
    pub fn create(goal: &Path) -> Result<Self, Failure> {
        refuse_existing(goal)?;
        let mut path = OsString::from(goal);
        path.push(".part");
        let path = PathBuf::from(path);
        let unusable = |error: io::Error| unusable(&path, &error);
        let file = match create_new(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                // Removed, not written over: it may be a link to elsewhere, or readable by others.
                let left = File::open(&path).map_err(unusable)?;
                // Held until it is gone, so that nobody else takes the next one for it.
                lock(&path, &left)?;
                fs::remove_file(&path).map_err(unusable)?;
                create_new(&path).map_err(unusable)?
            }
            created => created.map_err(unusable)?,
        };
        lock(&path, &file)?;
        let part = Self { file, path, goal: goal.to_owned(), is_kept: false };
        part.is_there()?;
        Ok(part)
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(|error| self.failed(&error))
    }

    /// Everything is written: on disk first, then under its name.
    pub fn keep(mut self) -> Result<(), Failure> {
        self.file.sync_all().map_err(|error| self.failed(&error))?;
        self.is_there()?;
        // A link, unlike a new name, never takes the place of what is there.
        match fs::hard_link(&self.path, &self.goal) {
            // Should the other name stay, it is replaced the next time.
            Ok(()) => drop(fs::remove_file(&self.path)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                refuse_existing(&self.goal)?;
                return Err(self.failed(&error));
            }
            // Not every file system has them.
            Err(_) => {
                refuse_existing(&self.goal)?;
                fs::rename(&self.path, &self.goal).map_err(|error| self.failed(&error))?;
            }
        }
        self.is_kept = true;
        let dir = match self.goal.parent() {
            Some(dir) if dir.as_os_str().is_empty() => Path::new("."),
            dir => dir.unwrap_or(Path::new("/")),
        };
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| {
            let goal = self.goal.display();
            Failure::operation(format!(
                "{goal} is whole, but a power cut may take it: its directory cannot be synced: {error}"
            ))
        })
    }

    /// Under its name there is the file that is locked here: another one may have removed it before it was.
    fn is_there(&self) -> Result<(), Failure> {
        let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let mine = self.file.metadata().map(id).map_err(|error| self.failed(&error))?;
        match fs::symlink_metadata(&self.path).map(id) {
            Ok(there) if there == mine => Ok(()),
            _ => Err(in_use(&self.path)),
        }
    }

    fn failed(&self, error: &io::Error) -> Failure {
        let advice = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room there, or name a file on another disk",
            _ => "name a file on another disk, or see what is wrong with this one",
        };
        Failure::operation(format!("{}: {error}; nothing of the backup was kept: {advice}", self.path.display()))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_kept && self.is_there().is_ok() {
            // What stays is replaced the next time.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A backup is never written over, whatever stands there: it may be the only one.
fn refuse_existing(goal: &Path) -> Result<(), Failure> {
    match fs::symlink_metadata(goal) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(unusable(goal, &error)),
        Ok(_) => Err(Failure::usage(format!(
            "{} is there already, and a backup is never written over: give another name, or move that away",
            goal.display()
        ))),
    }
}

/// It holds every secret of the cluster's entities.
fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Two that write to the same name would give each other's half the name of the whole.
fn lock(path: &Path, file: &File) -> Result<(), Failure> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => in_use(path),
        TryLockError::Error(error) => unusable(path, &error),
    })
}

fn in_use(path: &Path) -> Failure {
    Failure::usage(format!("another `quorate backup` is writing {}: wait for it, or give another name", path.display()))
}

fn unusable(path: &Path, error: &io::Error) -> Failure {
    let path = path.display();
    Failure::usage(format!("{path}: {error}; name a file in a directory that exists and that this user may write to"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<String> = entries.map(|name| name.into_string().expect("text")).collect();
        names.sort();
        names
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("a file").permissions().mode() & 0o777
    }

    #[test]
    fn a_file_has_its_name_when_it_is_whole_and_nobody_else_may_read_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let goal = dir.path().join("b");
        let mut part = Part::create(&goal).expect("room");
        part.write(b"half").expect("room");
        assert_eq!(names(dir.path()), ["b.part"]);
        assert_eq!(mode(&dir.path().join("b.part")), 0o600);
        drop(part);
        assert!(names(dir.path()).is_empty(), "what is not kept is gone");

        let mut part = Part::create(&goal).expect("room");
        part.write(b"whole").expect("room");
        part.keep().expect("kept");
        assert_eq!((names(dir.path()), mode(&goal)), (vec!["b".to_owned()], 0o600));
        assert_eq!(fs::read(&goal).expect("it"), b"whole");
    }

    #[test]
    fn what_is_there_already_stays_as_it_is() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let goal = dir.path().join("b");
        let refused = |created: Result<(), Failure>| matches!(&created, Err(Failure::Usage(text)) if text.contains("never written over"));
        symlink("nowhere", &goal).expect("a link");
        assert!(refused(Part::create(&goal).map(drop)), "a link that leads nowhere counts");
        fs::remove_file(&goal).expect("there");

        let part = Part::create(&goal).expect("room");
        fs::write(&goal, "made meanwhile").expect("writing");
        assert!(refused(part.keep()));
        assert!(refused(Part::create(&goal).map(drop)));
        assert_eq!(names(dir.path()), ["b"]);
        assert_eq!(fs::read(&goal).expect("it"), b"made meanwhile");
    }

    #[test]
    fn what_a_killed_process_left_is_replaced_and_what_a_living_one_writes_is_not() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (goal, elsewhere) = (dir.path().join("b"), dir.path().join("elsewhere"));
        fs::write(&elsewhere, "not ours").expect("writing");
        symlink(&elsewhere, dir.path().join("b.part")).expect("a link");
        let mut part = Part::create(&goal).expect("replaced");
        part.write(b"ours").expect("room");
        assert_eq!(fs::read(&elsewhere).expect("it"), b"not ours");

        let second = Part::create(&goal).map(drop);
        assert!(
            matches!(&second, Err(Failure::Usage(text)) if text.contains("another `quorate backup`")),
            "{second:?}"
        );
        part.keep().expect("kept");
        assert_eq!(fs::read(&goal).expect("it"), b"ours");
    }

    #[test]
    fn one_whose_file_was_taken_away_gives_no_other_file_its_name() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let goal = dir.path().join("b");
        let mut first = Part::create(&goal).expect("room");
        first.write(b"whole").expect("room");
        fs::remove_file(dir.path().join("b.part")).expect("there");
        let mut second = Part::create(&goal).expect("room");
        second.write(b"half").expect("room");
        assert!(matches!(first.keep(), Err(Failure::Usage(text)) if text.contains("another `quorate backup`")));
        assert_eq!(names(dir.path()), ["b.part"], "and the other's stays");
        second.keep().expect("kept");
        assert_eq!(fs::read(&goal).expect("it"), b"half");
    }

    #[test]
    fn a_place_that_cannot_be_written_to_is_named() {
        let refused = Part::create(Path::new("/nonexistent/b")).map(drop);
        assert!(matches!(&refused, Err(Failure::Usage(text)) if text.contains("/nonexistent/b.part")), "{refused:?}");
    }

    #[test]
    fn a_full_disk_says_so() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut part = Part::create(&dir.path().join("b")).expect("room");
        // The device that is always full.
        let full = OpenOptions::new().write(true).open("/dev/full").expect("a device");
        let file = std::mem::replace(&mut part.file, full);
        let failed = part.write(b"more");
        part.file = file;
        let Err(Failure::Operation(text)) = failed else { panic!("{failed:?}") };
        assert!(text.contains("No space left on device") && text.contains("make room"), "{text}");
        drop(part);
        assert!(names(dir.path()).is_empty());
    }
}
