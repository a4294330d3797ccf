//! The lane's operations on real files.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tokio_uring::buf::BoundedBuf;
use tokio_uring::fs::{File, OpenOptions};

use crate::journal::segment;
use crate::journal::{JournalError, OperationKind, Outcome};

/// A lane's directory and the segment being written.
pub(super) struct Files {
    dir: PathBuf,
    directory: File,
    current: RefCell<Option<Rc<File>>>,
    spare: RefCell<Option<Rc<File>>>,
}

impl Files {
    pub(super) async fn open(dir: PathBuf) -> Result<Self, JournalError> {
        let directory = File::open(&dir)
            .await
            .map_err(JournalError::io("open", &dir))?;
        Ok(Self {
            dir,
            directory,
            current: RefCell::new(None),
            spare: RefCell::new(None),
        })
    }

    pub(super) async fn perform(&self, operation: OperationKind) -> Outcome {
        match operation {
            OperationKind::Prepare { bytes } => Outcome::Done(self.prepare(bytes).await),
            OperationKind::Create {
                segment,
                spare: true,
                ..
            } => Outcome::Done(self.rename(segment).await),
            OperationKind::Create { segment, bytes, .. } => {
                Outcome::Done(self.create(segment, bytes).await)
            }
            OperationKind::Write {
                offset,
                bytes,
                skip,
                ..
            } => self.write(offset, bytes, skip).await,
            OperationKind::Sync { .. } => Outcome::Done(match self.current() {
                Ok(file) => file.sync_data().await,
                Err(error) => Err(error),
            }),
            OperationKind::SyncDirectory => Outcome::Done(self.directory.sync_all().await),
            OperationKind::Remove { segment } => Outcome::Done(self.remove(segment).await),
        }
    }

    async fn create(&self, segment: u64, bytes: u64) -> io::Result<()> {
        let path = segment::path(&self.dir, segment);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .await?;
        let file = preallocated(file, &path, bytes).await?;
        *self.current.borrow_mut() = Some(Rc::new(file));
        Ok(())
    }

    async fn prepare(&self, bytes: u64) -> io::Result<()> {
        let path = segment::spare(&self.dir);
        // Emptied first: bytes of an earlier run would look like records.
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .await?;
        let file = preallocated(file, &path, bytes).await?;
        *self.spare.borrow_mut() = Some(Rc::new(file));
        Ok(())
    }

    /// The spare file becomes the segment.
    async fn rename(&self, segment: u64) -> io::Result<()> {
        let file = self.spare.borrow().clone();
        let file = file.ok_or_else(|| io::Error::other("no spare file was made"))?;
        let path = segment::path(&self.dir, segment);
        tokio_uring::fs::rename(segment::spare(&self.dir), path).await?;
        *self.spare.borrow_mut() = None;
        *self.current.borrow_mut() = Some(file);
        Ok(())
    }

    async fn write(&self, offset: u64, bytes: Vec<u8>, skip: usize) -> Outcome {
        let file = match self.current() {
            Ok(file) => file,
            Err(error) => return Outcome::Written(bytes, Err(error)),
        };
        let end = bytes.len();
        let (result, slice) = file.write_at(bytes.slice(skip..end), offset).submit().await;
        Outcome::Written(slice.into_inner(), result)
    }

    async fn remove(&self, segment: u64) -> io::Result<()> {
        tokio_uring::fs::remove_file(segment::path(&self.dir, segment)).await?;
        self.directory.sync_all().await
    }

    fn current(&self) -> io::Result<Rc<File>> {
        let file = self.current.borrow().clone();
        file.ok_or_else(|| io::Error::other("no segment was created"))
    }
}

async fn preallocated(file: File, path: &Path, bytes: u64) -> io::Result<File> {
    match file.fallocate(0, bytes, 0).await {
        Ok(()) => Ok(file),
        // Only slower where the file system cannot; a full disk then shows when it is written to.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(file),
        Err(error) => {
            // So that it can be tried again; if this fails too, that will say so.
            let _ = tokio_uring::fs::remove_file(path).await;
            Err(error)
        }
    }
}
