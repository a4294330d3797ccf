//! A lane's thread: drives [`Lane`] with file I/O by completion, on a tokio-uring runtime that the
//! lane's projection shares.

mod desk;
mod files;
mod port;

use std::cell::RefCell;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::{JournalError, LaneStart, Limits, Outcome};
use files::Files;

pub use desk::Desk;
pub use port::{Port, Refused, Status, port_capacity};

/// A task that runs on the writer's runtime beside the lane, such as the projection. It should end
/// soon after [`Status::is_closed`].
pub type Companion = Box<dyn FnOnce(Arc<Status>) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// Called in the writer's thread after tickets of a core were released. It must not block: ring
/// the core's doorbell, and wake it if that says so.
pub type Wake = Box<dyn Fn() + Send>;

/// What a writer is made from.
#[derive(Clone, Debug)]
pub struct WriterConfig {
    /// The lane's directory.
    pub dir: PathBuf,
    /// From [`Recovered::start`](super::Recovered::start).
    pub start: LaneStart,
    /// The bounds.
    pub limits: Limits,
    /// Whether records go only once the states of all topics were written behind them, as a node
    /// needs that has to recover its machines.
    pub keep_states: bool,
}

/// A lane's thread. Dropping it stops it as [`Writer::stop`] does.
#[derive(Debug)]
pub struct Writer {
    dir: PathBuf,
    status: Arc<Status>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread. There is one port for each of `wakes`, in their order.
    ///
    /// # Errors
    /// [`JournalError`] if a limit is wrong, the directory cannot be opened, or the kernel refuses
    /// io_uring or a thread.
    pub fn spawn(
        config: WriterConfig,
        wakes: Vec<Wake>,
        companion: Option<Companion>,
    ) -> Result<(Self, Vec<Port>), JournalError> {
        config.limits.check()?;
        let dir = config.dir.clone();
        let (desk, ports) = Desk::open(&config, port_capacity(), wakes);
        let status = Arc::clone(desk.status());
        let (started, outcome) = mpsc::channel();
        let thread_status = Arc::clone(&status);
        let thread = std::thread::Builder::new()
            .name(format!("journal-{}", config.start.lane))
            .spawn(move || {
                // Should this thread panic, the cores learn that nothing is released any more.
                let _guard = FailOnPanic(Arc::clone(&thread_status));
                run_thread(config.dir, desk, thread_status, companion, &started);
            })
            .map_err(JournalError::io("start the journal's thread of", &dir))?;
        let writer = Self {
            dir,
            status,
            thread: Some(thread),
        };
        match outcome.recv() {
            Ok(Ok(())) => Ok((writer, ports)),
            Ok(Err(error)) => Err(error),
            Err(mpsc::RecvError) => Err(writer.panicked()),
        }
    }

    /// What can be seen of the lane from other threads.
    #[must_use]
    pub fn status(&self) -> &Arc<Status> {
        &self.status
    }

    /// Brings all batches that were sent to disk, and ends the thread. Cores must not send any
    /// more.
    ///
    /// # Errors
    /// [`JournalError::Panicked`]. A lane that failed shows in [`Status::failure`].
    pub fn stop(mut self) -> Result<(), JournalError> {
        self.join()
    }

    fn join(&mut self) -> Result<(), JournalError> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        self.status.stop();
        thread.join().map_err(|_| self.panicked())
    }

    fn panicked(&self) -> JournalError {
        JournalError::Panicked {
            dir: self.dir.clone(),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // A panic of the thread was reported by its own message.
        let _ = self.join();
    }
}

struct FailOnPanic(Arc<Status>);

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("the journal's thread panicked".into());
        }
        self.0.close();
    }
}

fn run_thread(
    dir: PathBuf,
    desk: Desk,
    status: Arc<Status>,
    companion: Option<Companion>,
    started: &mpsc::Sender<Result<(), JournalError>>,
) {
    let runtime = tokio_uring::Runtime::new(&tokio_uring::builder())
        .map_err(JournalError::io("start io_uring for", &dir));
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    runtime.block_on(async move {
        let files = match Files::open(dir).await {
            Ok(files) => files,
            Err(error) => {
                let _ = started.send(Err(error));
                return;
            }
        };
        let mut driver = Driver {
            desk,
            files: Rc::new(files),
            finished: Rc::default(),
            status: Arc::clone(&status),
        };
        driver.prepare().await;
        let _ = started.send(Ok(()));
        let companion = companion.map(|run| tokio_uring::spawn(run(status)));
        driver.run().await;
        driver.status.close();
        if let Some(companion) = companion {
            // A companion that panicked has said so itself; the lane is on disk all the same.
            let _ = companion.await;
        }
    });
}

struct Driver {
    desk: Desk,
    files: Rc<Files>,
    finished: Rc<RefCell<Vec<(u64, Outcome)>>>,
    status: Arc<Status>,
}

impl Driver {
    /// The first turn, so that whoever waits for the start finds a lane that has room.
    async fn prepare(&mut self) {
        let now_ns = self.status.now_ns();
        self.desk.begin_turn(now_ns);
        while let Some(operation) = self.desk.poll_operation(now_ns) {
            let outcome = self.files.perform(operation.kind).await;
            self.desk.on_done(operation.id, outcome);
        }
        self.desk.end_turn();
    }

    /// Turns until it is told to stop and all is on disk.
    async fn run(&mut self) {
        loop {
            self.finish();
            let now_ns = self.status.now_ns();
            self.desk.begin_turn(now_ns);
            while let Some(operation) = self.desk.poll_operation(now_ns) {
                self.start(operation);
            }
            if self.desk.end_turn() {
                return;
            }
            self.sleep(now_ns).await;
        }
    }

    /// Tells the lane of the operations that are over.
    fn finish(&mut self) {
        let mut finished = self.finished.take();
        for (id, outcome) in finished.drain(..) {
            self.desk.on_done(id, outcome);
        }
        // The vector goes back, so that a steady state allocates nothing here.
        let mut place = self.finished.borrow_mut();
        if place.is_empty() {
            *place = finished;
        }
    }

    fn start(&self, operation: super::Operation) {
        let (files, finished) = (Rc::clone(&self.files), Rc::clone(&self.finished));
        let status = Arc::clone(&self.status);
        tokio_uring::spawn(async move {
            let outcome = files.perform(operation.kind).await;
            finished.borrow_mut().push((operation.id, outcome));
            status.ring();
        });
    }

    /// Sleeps until mail comes, an operation is over, or a write is due.
    async fn sleep(&self, now_ns: u64) {
        let rung = self.status.rung();
        match self.desk.deadline() {
            Some(at) => {
                let wait = Duration::from_nanos(at.saturating_sub(now_ns));
                let _ = tokio::time::timeout(wait, rung).await;
            }
            None => rung.await,
        }
    }
}
