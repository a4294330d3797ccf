//! The threads that read the database for HISTORY, and each core's way to them.
//!
//! A core gives a read to whichever thread is free, and finds the page in a queue of its own. Both
//! have room for as many reads as the cores may have open, so giving never waits and a page always
//! has a place.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{self, Receiver, Sender};
use crossbeam::queue::ArrayQueue;

use super::Bells;
use crate::core::{Read, ReadDone};

/// A read on its way to a thread.
#[cfg_attr(
    not(feature = "database"),
    expect(dead_code, reason = "there is none to read")
)]
pub(super) struct Job {
    pub(super) read: Read,
    core: usize,
    /// When its answer is due.
    pub(super) due: Instant,
}

/// One core's way to the threads.
pub(super) struct ReadPort {
    core: usize,
    time: Duration,
    jobs: Sender<Job>,
    done: Arc<[ArrayQueue<ReadDone>]>,
}

impl ReadPort {
    /// Has a page read.
    pub(super) fn send(&self, read: Read) {
        let job = Job {
            read,
            core: self.core,
            due: Instant::now() + self.time,
        };
        let sent = self.jobs.try_send(job);
        debug_assert!(sent.is_ok(), "there is room for all reads that may be open");
    }

    /// Whether a read is over.
    pub(super) fn has_news(&self) -> bool {
        !self.done[self.core].is_empty()
    }

    /// The next read that is over.
    pub(super) fn take(&self) -> Option<ReadDone> {
        self.done[self.core].pop()
    }
}

/// The threads. They end when the last core's port is gone, and what they were doing with it.
#[derive(Debug)]
pub(super) struct Readers(Vec<JoinHandle<()>>);

/// How many threads read for how many cores.
pub(super) struct Plan {
    pub(super) threads: usize,
    pub(super) cores: usize,
    /// Reads that a core may have open.
    pub(super) max_reads: usize,
    /// How long a read may take, its wait for a thread included.
    pub(super) time: Duration,
}

impl Readers {
    /// Starts threads that each answer reads with what `reader` gives them; and gives each core's
    /// port.
    #[cfg_attr(
        not(feature = "database"),
        expect(dead_code, reason = "there is none to read")
    )]
    pub(super) fn start<R>(
        plan: &Plan,
        bells: &Bells,
        reader: impl Fn() -> std::io::Result<R>,
    ) -> std::io::Result<(Self, Vec<ReadPort>)>
    where
        R: FnMut(Job) -> ReadDone + Send + 'static,
    {
        let (sender, jobs) = channel::bounded(plan.cores * plan.max_reads);
        let queue = |_| ArrayQueue::new(plan.max_reads.max(1));
        let done: Arc<[_]> = (0..plan.cores).map(queue).collect();
        let mut threads = Vec::new();
        for number in 0..plan.threads {
            let (jobs, done, bells) = (jobs.clone(), Arc::clone(&done), bells.clone());
            let reader = reader()?;
            let thread = std::thread::Builder::new()
                .name(format!("reader-{number}"))
                .spawn(move || run(reader, &jobs, &done, &bells))?;
            threads.push(thread);
        }
        let port = |core| ReadPort {
            core,
            time: plan.time,
            jobs: sender.clone(),
            done: Arc::clone(&done),
        };
        let ports = (0..plan.cores).map(port).collect();
        Ok((Self(threads), ports))
    }

    /// Waits for the threads' end; the cores have stopped.
    pub(super) fn join(&mut self) {
        for thread in self.0.drain(..) {
            let _ = thread.join(); // a panic was told when it happened
        }
    }
}

fn run(
    mut read: impl FnMut(Job) -> ReadDone,
    jobs: &Receiver<Job>,
    done: &[ArrayQueue<ReadDone>],
    bells: &Bells,
) {
    for job in jobs {
        let core = job.core;
        let placed = done[core].push(read(job));
        debug_assert!(
            placed.is_ok(),
            "there is room for all reads that may be open"
        );
        bells.ring(core);
    }
}
