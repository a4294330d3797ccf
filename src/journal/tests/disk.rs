//! A disk that loses what was not synced, and fails on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use super::Random;
use crate::journal::segment;
use crate::journal::{OperationKind, Outcome};

const SECTOR: usize = 512;

#[derive(Default)]
pub(super) struct Disk {
    files: BTreeMap<u64, SimFile>,
    /// Removed files whose removal is not on disk yet.
    ghosts: BTreeMap<u64, SimFile>,
    preallocates: bool,
}

#[derive(Clone, Default)]
struct SimFile {
    cached: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
    name_durable: bool,
}

/// What an operation meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Done,
    /// A write of only so many of its bytes.
    Short(usize),
    Failed(io::ErrorKind),
}

impl Disk {
    /// An empty disk whose file system can preallocate, or cannot.
    pub(super) fn new(preallocates: bool) -> Self {
        Self {
            preallocates,
            ..Self::default()
        }
    }

    /// Does an operation as `fate` wants it.
    pub(super) fn perform(&mut self, kind: OperationKind, fate: Fate) -> Outcome {
        let result = match fate {
            Fate::Failed(kind) => Err(io::Error::from(kind)),
            _ => Ok(()),
        };
        match kind {
            OperationKind::Create { segment, bytes } => {
                assert!(!self.files.contains_key(&segment), "a segment is made once");
                if result.is_ok() {
                    let len = if self.preallocates { bytes as usize } else { 0 };
                    let file = SimFile {
                        cached: vec![0; len],
                        ..SimFile::default()
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
                let file = self
                    .files
                    .get_mut(&segment)
                    .expect("a segment that was made");
                file.write(offset as usize, &bytes[skip..skip + len]);
                Outcome::Written(bytes, result.map(|()| len))
            }
            OperationKind::Sync { segment } => {
                let file = self
                    .files
                    .get_mut(&segment)
                    .expect("a segment that was made");
                // Failed or not, the pages count as clean from now on.
                file.dirty.clear();
                if result.is_ok() {
                    file.durable = file.cached.clone();
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
                let file = self
                    .files
                    .remove(&segment)
                    .expect("a segment that is there");
                self.ghosts.insert(segment, file);
                if result.is_ok() {
                    self.sync_directory();
                }
                Outcome::Done(result)
            }
        }
    }

    fn sync_directory(&mut self) {
        self.ghosts.clear();
        for file in self.files.values_mut() {
            file.name_durable = true;
        }
    }

    /// Power is lost: of what was not synced, any sectors may be there, and any not.
    pub(super) fn crash(&mut self, random: &mut Random) {
        let luck = [0, 20, 50, 95, 100][random.below(5)];
        self.files.append(&mut self.ghosts);
        self.files
            .retain(|_, file| file.name_durable || random.below(100) < 50);
        for file in self.files.values_mut() {
            file.crash(luck, random);
        }
    }

    /// Puts the files where recovery can read them.
    pub(super) fn store(&self, dir: &Path) {
        for (first, file) in &self.files {
            std::fs::write(segment::path(dir, *first), &file.cached).unwrap();
        }
    }

    /// Takes them back as recovery left them, which is on disk.
    pub(super) fn load(&mut self, dir: &Path) {
        self.ghosts.clear();
        self.files.clear();
        for first in segment::list(dir).unwrap() {
            let bytes = std::fs::read(segment::path(dir, first)).unwrap();
            let file = SimFile {
                durable: bytes.clone(),
                cached: bytes,
                dirty: BTreeSet::new(),
                name_durable: true,
            };
            self.files.insert(first, file);
        }
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

    fn crash(&mut self, luck: usize, random: &mut Random) {
        let (least, most) = (self.durable.len(), self.cached.len());
        let len = match random.below(3) {
            0 => least,
            1 => most,
            _ => least + random.below(most - least + 1),
        };
        let mut bytes = self.durable.clone();
        bytes.resize(len, 0);
        for sector in &self.dirty {
            let range = (sector * SECTOR).min(len)..((sector + 1) * SECTOR).min(len);
            if random.below(100) < luck {
                bytes[range.clone()].copy_from_slice(&self.cached[range]);
            }
        }
        self.dirty.clear();
        self.durable = bytes.clone();
        self.cached = bytes;
    }
}
