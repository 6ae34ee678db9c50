//! Keeps the receipts of acknowledged writes in a file, for `quorate verify`.

use super::super::Failure;
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// Shared by all workers. Cheap to clone.
#[derive(Clone)]
pub(super) struct Receipts(Arc<Mutex<Inner>>);

struct Inner {
    path: PathBuf,
    file: BufWriter<File>,
    /// The first error: from then on nothing is written.
    error: Option<std::io::Error>,
}

impl Receipts {
    pub fn create(path: &Path) -> Result<Self, Failure> {
        let file =
            File::create(path).map_err(|error| Failure::usage(format!("--receipts {}: {error}", path.display())))?;
        Ok(Self(Arc::new(Mutex::new(Inner { path: path.to_owned(), file: BufWriter::new(file), error: None }))))
    }

    /// A line of JSON. Ids and receipts have no character that JSON would escape.
    pub fn keep(&self, receipt: &str, id: &str) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.error.is_none() {
            inner.error = writeln!(inner.file, r#"{{"receipt":"{receipt}","id":"{id}"}}"#).err();
        }
    }

    /// All that was kept is in the file, or not.
    pub fn finish(self) -> Result<(), Failure> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = match inner.error.take() {
            Some(error) => Some(error),
            None => inner.file.flush().err(),
        };
        match failed {
            Some(error) => Err(Failure::operation(format!("--receipts {}: {error}", inner.path.display()))),
            None => Ok(()),
        }
    }
}
