//! A simulated disk for one lane: it loses what was not synced, tears what is under way, and fails
//! on demand. For tests and the simulator.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use super::segment;
use super::{JournalError, OperationKind, Outcome};

/// The disk writes whole sectors, and in any order.
const SECTOR: usize = 512;

/// Draws a number below its argument, which is not 0.
pub type Draw<'a> = dyn FnMut(usize) -> usize + 'a;

/// The files of a lane: what the page cache shows, and what would be there after a loss of power.
#[derive(Debug, Default)]
pub struct Disk {
    files: BTreeMap<u64, SimFile>,
    /// Removed files whose removal is not on disk yet.
    ghosts: BTreeMap<u64, SimFile>,
    /// The file that the next segment is made of. A crash may take it: nothing is in it.
    spare: Option<SimFile>,
    preallocates: bool,
}

#[derive(Clone, Debug, Default)]
struct SimFile {
    cached: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
    name_durable: bool,
}

/// What an operation meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing special.
    Done,
    /// A write of only so many of its bytes.
    Short(usize),
    /// An error.
    Failed(io::ErrorKind),
}

impl Disk {
    /// An empty disk whose file system can preallocate, or cannot.
    pub fn new(preallocates: bool) -> Self {
        Self {
            preallocates,
            ..Self::default()
        }
    }

    /// Does an operation as `fate` wants it.
    ///
    /// # Panics
    /// When the lane asks for what makes no sense, such as a segment made twice.
    pub fn perform(&mut self, kind: OperationKind, fate: Fate) -> Outcome {
        let result = match fate {
            Fate::Failed(kind) => Err(io::Error::from(kind)),
            _ => Ok(()),
        };
        match kind {
            OperationKind::Prepare { bytes } => {
                self.spare = result.is_ok().then(|| self.empty(bytes));
                Outcome::Done(result)
            }
            OperationKind::Create {
                segment,
                bytes,
                spare,
            } => {
                assert!(!self.files.contains_key(&segment), "a segment is made once");
                if result.is_ok() {
                    let file = match spare {
                        true => self.spare.take().expect("a spare file that was made"),
                        false => self.empty(bytes),
                    };
                    self.files.insert(segment, file);
                }
                Outcome::Done(result)
            }
            OperationKind::Write {
                segment,
                offset,
                bytes,
                skip,
            } => {
                let asked = bytes.len() - skip;
                let len = match fate {
                    Fate::Short(len) => len.clamp(1, asked),
                    _ => asked,
                };
                // A write that fails may have written something all the same.
                self.file(segment)
                    .write(offset as usize, &bytes[skip..skip + len]);
                Outcome::Written(bytes, result.map(|()| len))
            }
            OperationKind::Sync { segment } => {
                let file = self.file(segment);
                // Failed or not, the pages count as clean from now on.
                file.dirty.clear();
                if result.is_ok() {
                    file.durable.clone_from(&file.cached);
                }
                Outcome::Done(result)
            }
            OperationKind::SyncDirectory => {
                if result.is_ok() {
                    self.sync_directory();
                }
                Outcome::Done(result)
            }
            OperationKind::Remove { segment } => {
                let file = self.files.remove(&segment);
                self.ghosts
                    .insert(segment, file.expect("a segment that is there"));
                if result.is_ok() {
                    self.sync_directory();
                }
                Outcome::Done(result)
            }
        }
    }

    fn empty(&self, bytes: u64) -> SimFile {
        let len = if self.preallocates { bytes as usize } else { 0 };
        SimFile {
            cached: vec![0; len],
            ..SimFile::default()
        }
    }

    fn file(&mut self, segment: u64) -> &mut SimFile {
        self.files
            .get_mut(&segment)
            .expect("a segment that was made")
    }

    fn sync_directory(&mut self) {
        self.ghosts.clear();
        for file in self.files.values_mut() {
            file.name_durable = true;
        }
    }

    /// Power is lost: of what was not synced, any sectors may be there, and any not.
    pub fn crash(&mut self, draw: &mut Draw<'_>) {
        let luck = [0, 20, 50, 95, 100][draw(5)];
        self.files.append(&mut self.ghosts);
        self.files
            .retain(|_, file| file.name_durable || draw(100) < 50);
        for file in self.files.values_mut() {
            file.crash(luck, draw);
        }
    }

    /// Puts the files where recovery can read them.
    ///
    /// # Errors
    /// Those of the real disk.
    pub fn store(&self, dir: &Path) -> io::Result<()> {
        for (first, file) in &self.files {
            std::fs::write(segment::path(dir, *first), &file.cached)?;
        }
        Ok(())
    }

    /// Takes them back as recovery left them: it brings the last one to disk, and the directory.
    /// What it did not touch is as much on disk as before.
    ///
    /// # Errors
    /// Those of the real disk.
    pub fn load(&mut self, dir: &Path) -> Result<(), JournalError> {
        let mut before = std::mem::take(&mut self.files);
        self.ghosts.clear();
        self.spare = None;
        let firsts = segment::list(dir)?;
        for first in &firsts {
            let path = segment::path(dir, *first);
            let cached = std::fs::read(&path).map_err(JournalError::io("read", path))?;
            let file = match before.remove(first) {
                Some(file) if Some(first) != firsts.last() && file.cached == cached => SimFile {
                    name_durable: true,
                    ..file
                },
                _ => SimFile {
                    durable: cached.clone(),
                    cached,
                    dirty: BTreeSet::new(),
                    name_durable: true,
                },
            };
            self.files.insert(*first, file);
        }
        Ok(())
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> usize {
        self.files.values().map(|file| file.cached.len()).sum()
    }
}

impl SimFile {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.cached.len() < end {
            self.cached.resize(end, 0);
        }
        self.cached[offset..end].copy_from_slice(bytes);
        self.dirty.extend(offset / SECTOR..=(end - 1) / SECTOR);
    }

    fn crash(&mut self, luck: usize, draw: &mut Draw<'_>) {
        let (least, most) = (self.durable.len(), self.cached.len());
        let len = match draw(3) {
            0 => least,
            1 => most,
            _ => least + draw(most - least + 1),
        };
        let mut bytes = self.durable.clone();
        bytes.resize(len, 0);
        for sector in &self.dirty {
            let range = (sector * SECTOR).min(len)..((sector + 1) * SECTOR).min(len);
            if draw(100) < luck {
                bytes[range.clone()].copy_from_slice(&self.cached[range]);
            }
        }
        self.dirty.clear();
        self.durable.clone_from(&bytes);
        self.cached = bytes;
    }
}
