//! The node's journal: locked, recovered and handed to the cores at start; a writer for each lane
//! while the node runs.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(feature = "database")]
use super::database::{DatabaseSettings, PageThread};
#[cfg(feature = "database")]
use super::readers::Plan;
use super::readers::{ReadPort, Readers};
use super::{Bells, NodeError, Recovery, entropy};
use crate::core::{Heritage, JournalConfig, LaneState, Limits, Share};
use crate::journal::{
    Companion, JournalError, LaneStart, Limits as LaneLimits, Port, Progress, ReplyLimits,
    Retention, Status, Wake, Writer, WriterConfig, lane_dir, recover_lanes,
};
use crate::machines::Registry;
#[cfg(feature = "database")]
use crate::writer::follow::{Figures, Follow, check, spawn};

/// The file in the journal's directory that the running node holds locked.
const LOCK: &str = "lock";

/// How the node keeps its journal.
#[derive(Clone, Debug)]
pub struct JournalSettings {
    /// Its directory, made if it is not there. One node uses it at a time.
    pub dir: PathBuf,
    /// Lanes of a journal that is made now: each has a thread, and a connection to the database.
    /// One that is there keeps the lanes it was made with.
    pub lanes: u32,
    /// The bounds of each lane.
    pub limits: LaneLimits,
    /// Which answers are kept for commands that come again.
    pub replies: ReplyLimits,
    /// How long records are kept at least, whether or not they are needed.
    pub retention: Duration,
    /// Where recovery tells how far it is.
    pub progress: Arc<Progress>,
    /// The database that events are brought to; without one the journal is all there is.
    #[cfg(feature = "database")]
    pub database: Option<DatabaseSettings>,
}

impl JournalSettings {
    /// A journal in `dir` with the default bounds, and no database.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            lanes: 1,
            limits: LaneLimits::default(),
            replies: ReplyLimits::default(),
            retention: Duration::from_secs(3600),
            progress: Arc::default(),
            #[cfg(feature = "database")]
            database: None,
        }
    }
}

/// A journal that is open, but not written to yet.
pub(super) struct Opened {
    settings: JournalSettings,
    lock: File,
    #[cfg(feature = "database")]
    identity: u128,
    lanes: Vec<LaneStart>,
    /// Above every epoch that was found.
    pub(super) next_epoch: u64,
    pub(super) recovery: Recovery,
    /// By core.
    pub(super) shares: Vec<Share>,
}

impl Opened {
    /// Locks the journal, makes it if need be, and folds all of its lanes, on a thread for each
    /// core.
    pub(super) fn open(
        settings: JournalSettings,
        registry: &Arc<Registry>,
        limits: &Limits,
        cores: usize,
    ) -> Result<Self, NodeError> {
        settings.limits.check()?;
        let lock = lock(&settings.dir)?;
        let begin = Instant::now();
        let state = |_| LaneState::new(Arc::clone(registry), limits, settings.replies, cores);
        let found = recover_lanes(
            &settings.dir,
            settings.lanes,
            cores,
            &settings.progress,
            state,
            |state, entry| state.take(entry),
        )?;
        let known = found.iter().find_map(|(lane, _)| lane.journal);
        let identity = known.unwrap_or_else(entropy);
        let mut heritage = Heritage::new(cores);
        let threads = cores.min(found.len());
        let (mut events, mut lanes) = (0, Vec::new());
        for (lane, state) in found {
            if let Some(cut) = &lane.cut {
                let (file, offset) = (cut.file.display(), cut.offset);
                tracing::info!(%file, offset, why = cut.why, "the last write of a crash was cut off");
            }
            events += lane.events;
            lanes.push(lane.start(1, identity));
            heritage.add(&lane, state)?;
        }
        let (next_epoch, topics) = (heritage.next_epoch(), heritage.topics());
        lanes.iter_mut().for_each(|lane| lane.run = next_epoch);
        let recovery = Recovery {
            lanes: lanes.len(),
            topics,
            events,
            threads,
            took: begin.elapsed(),
        };
        tracing::info!(
            journal = format_args!("{identity:032x}"),
            lanes = lanes.len(),
            topics,
            events,
            ms = recovery.took.as_millis() as u64,
            threads,
            events_per_second_and_thread = recovery.rate() as u64,
            "journal recovered"
        );
        Ok(Self {
            settings,
            lock,
            #[cfg(feature = "database")]
            identity,
            lanes,
            next_epoch,
            recovery,
            shares: heritage.into_shares(),
        })
    }

    /// What each core has to know.
    pub(super) fn config(&self) -> JournalConfig {
        JournalConfig {
            lanes: self.lanes.len() as u32, // they were counted as a u32
            snapshot_bytes: self.settings.limits.segment_bytes,
            snapshot_most_bytes: self.settings.limits.journal_bytes / 8,
            window_bytes: window_bytes(&self.settings.limits, self.shares.len()),
            replies: self.settings.replies,
        }
    }

    /// Finds out whether the database can be used, before anybody depends on it.
    #[cfg(feature = "database")]
    pub(super) fn check_database(&self) -> Result<(), NodeError> {
        let Some(database) = &self.settings.database else {
            return Ok(());
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|cause| NodeError::Database(cause.to_string()))?;
        for lane in &self.lanes {
            let lane = self.follow(database, lane.lane);
            runtime
                .block_on(check(&lane))
                .map_err(|error| NodeError::Database(error.to_string()))?;
        }
        Ok(())
    }

    #[cfg(feature = "database")]
    fn follow(&self, database: &DatabaseSettings, lane: u32) -> Follow {
        Follow {
            dir: lane_dir(&self.settings.dir, lane),
            lane,
            journal: self.identity as u64, // its low half
            target: database.target.clone(),
            calendars: database.calendars.clone(),
            pace: database.pace,
            retention: self.retention(),
            figures: Arc::new(Figures::default()),
        }
    }

    fn retention(&self) -> Retention {
        let JournalSettings {
            retention,
            replies,
            limits,
            ..
        } = &self.settings;
        Retention::new(*retention, Duration::from_nanos(replies.age_ns), limits)
    }

    /// What runs beside a lane's writes: it lets old records go, once they are in the database if
    /// there is one.
    fn companion(&self, lane: u32, view: &mut LaneView) -> Companion {
        #[cfg(feature = "database")]
        if let Some(database) = &self.settings.database {
            let lane = self.follow(database, lane);
            view.projection = Some(Arc::clone(&lane.figures));
            return Box::new(move |status| {
                let figures = Arc::clone(&lane.figures);
                match spawn(lane, status) {
                    Ok(followed) => Box::pin(followed),
                    Err(error) => {
                        tracing::error!(%error, "the database is not brought up to date: no thread for it");
                        figures.set_broken();
                        Box::pin(async {})
                    }
                }
            });
        }
        let _ = (lane, view);
        let retention = self.retention();
        Box::new(move |status| Box::pin(let_go(retention, status)))
    }

    /// Nothing reads where there is no database.
    #[cfg(not(feature = "database"))]
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "as where there is one"
    )]
    pub(super) fn start_readers(
        &self,
        _max_reads: usize,
        _bells: &Bells,
    ) -> Result<Option<(Readers, Vec<ReadPort>)>, NodeError> {
        Ok(None)
    }

    /// Whether there is a database to read from.
    pub(super) fn has_database(&self) -> bool {
        #[cfg(feature = "database")]
        return self.settings.database.is_some();
        #[cfg(not(feature = "database"))]
        false
    }

    /// Starts the threads that read the database, if there is one. Gives each core's port.
    #[cfg(feature = "database")]
    pub(super) fn start_readers(
        &self,
        max_reads: usize,
        bells: &Bells,
    ) -> Result<Option<(Readers, Vec<ReadPort>)>, NodeError> {
        let Some(database) = &self.settings.database else {
            return Ok(None);
        };
        let plan = Plan {
            threads: database.readers,
            cores: self.shares.len(),
            max_reads,
            time: database.read_timeout,
        };
        let failing = Arc::default();
        let reader = || {
            let mut thread = PageThread::new(database.target.clone(), Arc::clone(&failing))?;
            Ok(move |job| thread.read(job))
        };
        Readers::start(&plan, bells, reader)
            .map(Some)
            .map_err(|cause| NodeError::Database(format!("cannot start a reading thread: {cause}")))
    }

    /// Starts the writers. Gives the ports of each core, by lane.
    pub(super) fn start(self, bells: &Bells) -> Result<(Writers, Vec<Vec<Port>>), NodeError> {
        let cores = self.shares.len();
        let mut ports: Vec<Vec<Port>> = (0..cores).map(|_| Vec::new()).collect();
        let (mut list, mut lanes) = (Vec::new(), Vec::new());
        for start in &self.lanes {
            let config = WriterConfig {
                dir: lane_dir(&self.settings.dir, start.lane),
                start: start.clone(),
                limits: self.settings.limits,
                keep_states: true,
            };
            let wakes = (0..cores).map(|core| {
                let bells = bells.clone();
                Box::new(move || bells.ring(core)) as Wake
            });
            let mut view = LaneView::default();
            let companion = self.companion(start.lane, &mut view);
            let (writer, ends) = Writer::spawn(config, wakes.collect(), Some(companion))?;
            view.status = Some(Arc::clone(writer.status()));
            view.limit_bytes = self.settings.limits.journal_bytes;
            for (core, port) in ends.into_iter().enumerate() {
                ports[core].push(port);
            }
            list.push(writer);
            lanes.push(view);
        }
        let writers = Writers {
            list,
            lanes: lanes.into(),
            _lock: self.lock,
        };
        Ok((writers, ports))
    }
}

/// What one of `cores` cores may have on its way to a lane: a lane is full when half of its segment
/// is used and the next one has no file, and all of this must fit the other half, with the topics'
/// names and the states that the cores write meanwhile.
fn window_bytes(limits: &LaneLimits, cores: usize) -> usize {
    let share = limits.segment_bytes / (4 * cores as u64);
    usize::try_from(share).unwrap_or(usize::MAX)
}

/// Lets records go that are old enough, where no database needs them.
async fn let_go(retention: Retention, status: Arc<Status>) {
    const PERIOD: Duration = Duration::from_secs(1);
    while !status.is_closed() {
        let oldest = retention.older_than_ns(status.disk_bytes(), super::wall_ns());
        status.retain(u64::MAX, oldest);
        // Ends at once when the lane is closed, and otherwise never.
        let closed = status.committed_beyond(u64::MAX);
        let _ = tokio::time::timeout(PERIOD, closed).await;
    }
}

fn lock(dir: &Path) -> Result<File, NodeError> {
    let failed = |cause: io::Error| {
        NodeError::Journal(JournalError::Io {
            doing: "lock",
            file: dir.join(LOCK),
            cause,
        })
    };
    std::fs::create_dir_all(dir).map_err(failed)?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join(LOCK))
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(NodeError::InUse(dir.into())),
        Err(TryLockError::Error(cause)) => Err(failed(cause)),
    }
}

/// What can be seen of a lane while the node runs.
#[derive(Clone, Debug, Default)]
pub struct LaneView {
    /// The journal's side.
    pub(super) status: Option<Arc<Status>>,
    /// Bytes that its files may have.
    limit_bytes: u64,
    /// The database's side, if there is one.
    #[cfg(feature = "database")]
    pub(super) projection: Option<Arc<Figures>>,
}

impl LaneView {
    /// The journal's side.
    ///
    /// # Panics
    /// Never: it is there once the lane runs.
    pub fn status(&self) -> &Status {
        self.status.as_deref().expect("set when its writer started")
    }

    /// Bytes that its files may have on disk.
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// The database's side, if there is one.
    #[cfg(feature = "database")]
    pub fn projection(&self) -> Option<&Figures> {
        self.projection.as_deref()
    }
}

/// The running writers. Dropping them brings what they were given to disk.
#[derive(Debug)]
pub(super) struct Writers {
    list: Vec<Writer>,
    pub(super) lanes: Arc<[LaneView]>,
    /// Held until the last of them has stopped.
    _lock: File,
}

impl Writers {
    /// Brings everything to disk and into the database, and ends the threads.
    pub(super) fn stop(&mut self) -> Result<(), NodeError> {
        let mut result = Ok(());
        for writer in self.list.drain(..) {
            let status = Arc::clone(writer.status());
            let stopped = writer.stop().map_err(NodeError::Journal);
            let failed = status
                .failure()
                .map_or(Ok(()), |why| Err(NodeError::JournalFailed(why)));
            result = result.and(stopped).and(failed);
        }
        result
    }
}
