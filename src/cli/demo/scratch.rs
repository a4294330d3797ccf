//! The directory that a demo keeps its history in.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::cli::failure::Failure;

const PREFIX: &str = "tickring-demo-";

/// A temporary directory that goes when the demo ends. A demo that was killed leaves it, and the
/// next one removes it: a lock, which ends with the process, tells who is still there.
pub(super) struct Scratch {
    dir: PathBuf,
    _lock: File,
}

impl Scratch {
    /// # Errors
    /// [`Failure::Data`].
    pub(super) fn new() -> Result<Self, Failure> {
        let parent = std::env::temp_dir();
        sweep(&parent);
        let dir = parent.join(format!("{PREFIX}{}", std::process::id()));
        let made = fs::create_dir(&dir).and_then(|()| {
            let lock = File::open(&dir)?;
            lock.lock()?;
            Ok(lock)
        });
        match made {
            Ok(_lock) => Ok(Self { dir, _lock }),
            Err(cause) => Err(Failure::Data { dir, cause }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.dir
    }

    /// The SQLite file.
    pub(super) fn database(&self) -> PathBuf {
        self.dir.join("tickring.sqlite")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is left to the next demo.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Removes what demos that were killed have left, where that is allowed.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        if let Ok(lock) = File::open(entry.path())
            && lock.try_lock().is_ok()
        {
            let _ = fs::remove_dir_all(entry.path()); // it may be another user's
        }
    }
}
