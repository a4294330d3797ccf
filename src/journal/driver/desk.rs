//! What a lane's thread decides, without I/O: the writer drives it on tokio-uring, the simulator on
//! a disk of its own.

use std::sync::Arc;

use super::port::{self, Port, PortEnd, Status};
use super::{Wake, WriterConfig};
use crate::journal::{AppendError, Lane, Operation, OperationKind, Outcome};

/// A lane, its ends of the cores' mailboxes, and what can be seen of it. In each turn call
/// [`Desk::on_done`] for every operation that is over, [`Desk::begin_turn`],
/// [`Desk::poll_operation`] until there is none, and [`Desk::end_turn`]; then sleep until mail
/// comes, an operation is over, or [`Desk::deadline`].
pub struct Desk {
    lane: Lane,
    /// As [`Lane::needed`] was when the lane was at `looked_at`; looked at anew each `look_every`
    /// bytes, because it costs a look at every topic. `None`: states are of no interest.
    needed: Option<u64>,
    looked_at: u64,
    look_every: u64,
    segments: usize,
    ports: Vec<PortEnd>,
    /// The port whose mail is taken first: each in its turn, so that none starves the others.
    first: usize,
    status: Arc<Status>,
    stopping: bool,
    all_taken: bool,
    /// Whether the lane had no room for a batch.
    refused: bool,
    /// When the write under way began, and its bytes.
    write: Option<(u64, usize)>,
    /// Whether it is over, at the time of the turn that begins next.
    written: bool,
    /// Whether there was no room when the last turn ended.
    was_full: bool,
}

impl Desk {
    /// A lane that begins as `config` says, and for each of `wakes` a port whose mailbox holds
    /// `capacity` batches. The limits must have passed [`Limits::check`](crate::journal::Limits::check).
    pub fn open(config: &WriterConfig, capacity: usize, wakes: Vec<Wake>) -> (Self, Vec<Port>) {
        let status = Arc::new(Status::new(config.start.position, wakes.len()));
        let (mut ports, mut ends) = (Vec::new(), Vec::new());
        for (index, wake) in wakes.into_iter().enumerate() {
            let (port, end) = port::port(index, capacity, Arc::clone(&status), wake);
            ports.push(port);
            ends.push(end);
        }
        let lane = Lane::new(config.start.clone(), config.limits, ends.len());
        let desk = Self {
            needed: config.keep_states.then(|| lane.needed()),
            looked_at: lane.committed(),
            look_every: config.limits.segment_bytes / 16,
            segments: lane.segments(),
            lane,
            ports: ends,
            first: 0,
            status,
            stopping: false,
            all_taken: true,
            refused: false,
            write: None,
            written: false,
            was_full: false,
        };
        (desk, ports)
    }

    /// What can be seen of the lane.
    pub fn status(&self) -> &Arc<Status> {
        &self.status
    }

    /// Operation `id` is over: the cores learn what that released.
    pub fn on_done(&mut self, id: u64, outcome: Outcome) {
        if self.lane.on_done(id, outcome).committed {
            self.written = true;
            for (source, port) in self.ports.iter().enumerate() {
                port.release(self.lane.released(source));
            }
        }
    }

    /// Starts a turn: takes mail in, and what the lane need not retain. `now_ns` is of any clock
    /// that never goes back.
    pub fn begin_turn(&mut self, now_ns: u64) {
        if std::mem::take(&mut self.written)
            && let Some((began_ns, bytes)) = self.write.take()
        {
            self.status.record(now_ns - began_ns, bytes);
        }
        self.stopping = self.status.is_stopping();
        if self.stopping {
            self.lane.flush();
        }
        let (position, older_than_ns) = self.status.retained();
        let needed = self.needed().unwrap_or(u64::MAX);
        self.lane.retain(position.min(needed), older_than_ns);
        self.all_taken = self.take_mail(now_ns);
    }

    /// What to do to the lane's files next, `None` when that was all.
    pub fn poll_operation(&mut self, now_ns: u64) -> Option<Operation> {
        let operation = self.lane.poll_operation(now_ns)?;
        match &operation.kind {
            OperationKind::Create { .. } => self.write = Some((now_ns, 0)),
            OperationKind::Write { bytes, .. } => {
                let began_ns = self.write.map_or(now_ns, |(began_ns, _)| began_ns);
                self.write = Some((began_ns, bytes.len()));
            }
            _ => {}
        }
        Some(operation)
    }

    /// Ends a turn: shows how far the lane is. Returns whether it was told to stop and all is on
    /// disk.
    pub fn end_turn(&mut self) -> bool {
        self.status.publish(&self.lane);
        let short = self.lane.is_short();
        self.status.set_short(short);
        self.status
            .set_full(self.refused || (short && self.lane.is_at_bound()));
        self.tell_of_room();
        // A core without anything to write still has states that hold old segments.
        if self.segments != self.lane.segments() && self.lane.segments() > 1 {
            self.segments = self.lane.segments();
            self.ports.iter().for_each(PortEnd::wake);
        }
        self.stopping && self.all_taken && self.lane.is_idle()
    }

    /// When, by the clock of [`Desk::begin_turn`], a write is due that no operation holds up.
    pub fn deadline(&self) -> Option<u64> {
        self.lane.deadline()
    }

    /// Logs when the lane runs out of room, and when it has room again.
    fn tell_of_room(&mut self) {
        let (disk_full, full) = (self.status.is_disk_full(), self.status.is_full());
        if std::mem::replace(&mut self.was_full, full) == full {
            return;
        }
        let lane = self.lane.number();
        if disk_full {
            tracing::warn!(
                lane,
                "the disk of the journal is full: commands wait, and are then refused with overloaded; \
                 make room, it is tried again ten times a second"
            );
        } else if full {
            tracing::warn!(
                lane,
                disk_bytes = self.lane.disk_bytes(),
                "the journal has used journal_bytes up with what is still needed: commands wait, and are \
                 then refused with overloaded, until the database has taken events over or they are \
                 old enough"
            );
        } else {
            tracing::info!(lane, "the journal has room again");
        }
    }

    fn needed(&mut self) -> Option<u64> {
        let committed = self.lane.committed();
        let grown = committed - self.looked_at;
        // A full lane waits for every byte that can go.
        let look = grown >= self.look_every || (grown > 0 && self.status.is_full());
        if self.needed.is_some() && look {
            self.needed = Some(self.lane.needed());
            self.looked_at = committed;
        }
        self.needed
    }

    /// Hands batches to the lane until it has enough. Returns whether none is left that could ever
    /// be taken.
    fn take_mail(&mut self, now_ns: u64) -> bool {
        let (mut all, mut full) = (true, false);
        let count = self.ports.len();
        self.first = (self.first + 1) % count.max(1);
        'ports: for source in (self.first..count).chain(0..self.first) {
            let port = &mut self.ports[source];
            while let Some(letter) = port.take() {
                match self
                    .lane
                    .append(source, letter.ticket, &letter.batch, now_ns)
                {
                    Ok(()) => port.give_back(letter.batch),
                    Err(AppendError::Busy) => {
                        port.hold(letter);
                        all = false;
                        break 'ports;
                    }
                    // Goes on when old segments are removed; the core sees `is_full`, and its
                    // mailbox fills. While stopping it is given up: it was never acknowledged.
                    Err(AppendError::Full) => {
                        port.hold(letter);
                        full = true;
                        break;
                    }
                    // Dropped without being released, which is all that can be done.
                    Err(AppendError::Failed) => {}
                    Err(error) => self.status.fail(error.to_string()),
                }
                if self.status.is_failed() {
                    // Nothing behind a batch that was dropped may be released.
                    port.stop_releasing();
                }
            }
        }
        self.refused = full;
        all
    }
}
