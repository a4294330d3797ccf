//! Data directories for tests: ordinary ones, and small file systems of their own.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory of its own, gone when the test is over.
pub(crate) struct Data(PathBuf);

impl Data {
    pub(crate) fn new(test: &str) -> Self {
        let name = format!("tickring-cli-{test}-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("temporary directories can be made");
        Self(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn text(&self) -> &str {
        self.0.to_str().expect("the directory's name is text")
    }

    /// The files of a lane's segments, the oldest first.
    pub(crate) fn segments(&self, lane: u32) -> Vec<PathBuf> {
        let dir = self.0.join(format!("journal/lane-{lane}"));
        let entries = std::fs::read_dir(dir).expect("the lane is there");
        let mut files: Vec<_> = entries
            .map(|entry| entry.expect("it can be listed").path())
            .filter(|path| path.extension().is_some_and(|it| it == "seg"))
            .collect();
        files.sort();
        files
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A file system in memory, mounted on a directory of its own.
pub(crate) struct FileSystem(pub(crate) Data);

impl FileSystem {
    /// `options` as `mount -o` takes them; `None`, with a word about it, where mounting is not
    /// allowed.
    pub(crate) fn mount(test: &str, options: &str) -> Option<Self> {
        let data = Data::new(test);
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(data.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(data)),
            _ => {
                say(&format!(
                    "{test}: skipped, because file systems cannot be mounted here"
                ));
                None
            }
        }
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn say(text: &str) {
    eprintln!("{text}");
}
