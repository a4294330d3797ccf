//! Follows a lane of the journal and brings its events into the database, on a thread of its own:
//! folding and encoding a batch of 50,000 ticks takes some 30 ms, and the lane's writes, which
//! clients wait for, must not stand behind that.
//!
//! # States, and what can fail
//! ```text
//!   connecting ──▶ reading ──(due)──▶ committing ──▶ reading
//!       ▲                                 │
//!       └──── wait, twice as long ────────┘ the connection is lost, or anything else
//! ```
//! The database may fail in any way and for as long as it likes: what was read is kept, and the same
//! batch is sent again, which changes nothing if it had arrived. Meanwhile the journal grows, up to
//! its bound. If the journal itself cannot be read, the tables stay where they are and the log and
//! the figures say so.

use std::fmt;
use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use xxhash_rust::xxh3::xxh3_64;

use super::projection::{Counters, PaceLimits, Projection, Record};
use super::store::{Database, MySqlStore, ReadOnly, SqliteReader, SqliteStore, StoreError};
use crate::histogram::{Histogram, SharedHistogram};
use crate::journal::record::Record as Journaled;
use crate::journal::{JournalError, Reader, Retention, Status};
use crate::market::Calendars;

/// The first wait after a failure of the database; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// How long the database has to answer, before its connection is given up.
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// How often to look at least whether the journal can let something go.
const RETAIN_PERIOD: Duration = Duration::from_secs(1);
/// How long the last commit may take once the node is stopping; what it misses is done at the next
/// start.
const LAST_COMMIT: Duration = Duration::from_secs(10);

/// Which database.
#[derive(Clone, PartialEq, Eq)]
pub enum Target {
    /// A file of SQLite's; made if it is not there.
    Sqlite(PathBuf),
    /// A MySQL or MariaDB server, as `mysql://USER:PASSWORD@HOST:PORT/DATABASE`.
    MySql(String),
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Target {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(file) => write!(f, "SQLite file {}", file.display()),
            Self::MySql(url) => {
                let server = url
                    .rsplit_once('@')
                    .map_or(url.as_str(), |(_, server)| server);
                write!(f, "MySQL server {server}")
            }
        }
    }
}

impl Target {
    /// Connects, and brings the tables to this version's layout.
    ///
    /// # Errors
    /// [`StoreError`] says what to do.
    pub async fn connect(&self) -> Result<Database, StoreError> {
        Ok(match self {
            Self::Sqlite(file) => Database::Sqlite(SqliteStore::open(file)?),
            Self::MySql(url) => Database::MySql(MySqlStore::connect(url).await?),
        })
    }

    /// Connects to read only; the tables must be there.
    ///
    /// # Errors
    /// [`StoreError`] says what to do.
    pub async fn connect_read_only(&self) -> Result<ReadOnly, StoreError> {
        Ok(match self {
            Self::Sqlite(file) => ReadOnly::Sqlite(SqliteReader::open(file)?),
            Self::MySql(url) => ReadOnly::MySql(MySqlStore::connect_read_only(url).await?),
        })
    }
}

/// What is followed, and to where.
#[derive(Clone, Debug)]
pub struct Follow {
    /// The lane's directory.
    pub dir: PathBuf,
    /// The lane.
    pub lane: u32,
    /// The low half of the journal's identity: tables belong to one journal.
    pub journal: u64,
    /// The database.
    pub target: Target,
    /// Which sessions the instruments have.
    pub calendars: Arc<Calendars>,
    /// The bounds of batches.
    pub pace: PaceLimits,
    /// How long the journal keeps what is in the tables.
    pub retention: Retention,
    /// Where it tells how far it is.
    pub figures: Arc<Figures>,
}

/// How far a lane's projection is: written by its writer, read from anywhere.
#[derive(Debug, Default)]
pub struct Figures {
    position: AtomicU64,
    waiting_since_ns: AtomicU64,
    records: AtomicU64,
    rows: AtomicU64,
    commits: AtomicU64,
    failures: AtomicU64,
    late: AtomicU64,
    batch_records: AtomicU64,
    commit_ns: AtomicU64,
    commit_times: SharedHistogram,
    batch_sizes: SharedHistogram,
    connects: AtomicU64,
    connected: AtomicBool,
    broken: AtomicBool,
}

impl Figures {
    /// The position of the lane that the tables are at.
    pub fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }

    /// When the node took the oldest event that was read and is not in the tables yet, in
    /// nanoseconds since 1970-01-01 UTC; 0: there is none.
    pub fn waiting_since_ns(&self) -> u64 {
        self.waiting_since_ns.load(Ordering::Relaxed)
    }

    /// How far the tables are behind, at `now_ns`.
    pub fn lag(&self, now_ns: u64) -> Duration {
        match self.waiting_since_ns() {
            0 => Duration::ZERO,
            since => Duration::from_nanos(now_ns.saturating_sub(since)),
        }
    }

    /// What was done since the start.
    pub fn counters(&self) -> Counters {
        Counters {
            records: self.records.load(Ordering::Relaxed),
            rows: self.rows.load(Ordering::Relaxed),
            commits: self.commits.load(Ordering::Relaxed),
            failures: self.failures(),
            late: self.late.load(Ordering::Relaxed),
            ..Counters::default()
        }
    }

    /// Records of the last batch, and how long it took to commit.
    pub fn last_batch(&self) -> (u64, Duration) {
        let took = self.commit_ns.load(Ordering::Relaxed);
        let records = self.batch_records.load(Ordering::Relaxed);
        (records, Duration::from_nanos(took))
    }

    /// How long each commit took, in nanoseconds.
    pub fn commit_times(&self) -> Histogram {
        self.commit_times.snapshot()
    }

    /// How many records each commit carried.
    pub fn batch_sizes(&self) -> Histogram {
        self.batch_sizes.snapshot()
    }

    /// How often a connection was made.
    pub fn connects(&self) -> u64 {
        self.connects.load(Ordering::Relaxed)
    }

    /// Failures of the database: refused or lost connections, and commits that failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Whether the database answers.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// The projection has stopped for good.
    pub fn set_broken(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// Whether the projection has stopped for good, because the journal cannot be read.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }
}

/// Tries whether the database can be used for this journal: to be called at start, so that a
/// mistake in the configuration shows at once.
///
/// # Errors
/// [`StoreError`] says what to do.
pub async fn check(follow: &Follow) -> Result<(), StoreError> {
    let mut store = follow.target.connect().await?;
    let calendars = Arc::clone(&follow.calendars);
    let opened = Projection::open(
        &mut store,
        follow.lane,
        follow.journal,
        calendars,
        follow.pace,
    );
    opened.await.map(drop)
}

/// As [`follow`], on a thread of its own. To be awaited to its end.
///
/// # Errors
/// When there is no thread to be had, or no runtime for it.
pub fn spawn(
    follow: Follow,
    status: Arc<Status>,
) -> std::io::Result<impl Future<Output = ()> + 'static> {
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name(format!("project-{}", follow.lane))
        .spawn(move || {
            runtime.block_on(self::follow(follow, status));
            drop(ended);
        })?;
    // Also when it panicked, which has said so itself.
    Ok(async move { drop(end.await) })
}

/// Follows the lane until it is closed and all of it is in the tables, or the database fails then.
pub async fn follow(follow: Follow, status: Arc<Status>) {
    let figures = Arc::clone(&follow.figures);
    let lane = follow.lane;
    if let Err(error) = Follower::new(follow, status).run().await {
        figures.set_broken();
        tracing::error!(lane, %error, "the database is no longer brought up to date");
    }
}

struct Follower {
    follow: Follow,
    status: Arc<Status>,
    store: Option<Database>,
    wait: Duration,
}

impl Follower {
    fn new(follow: Follow, status: Arc<Status>) -> Self {
        Self {
            follow,
            status,
            store: None,
            wait: FIRST_WAIT,
        }
    }

    async fn run(mut self) -> Result<(), JournalError> {
        let Some((mut projection, position)) = self.open().await else {
            return Ok(()); // the node stops before the database ever answered
        };
        let mut reader = Reader::open(&self.follow.dir, self.follow.lane, position)?;
        self.follow
            .figures
            .position
            .store(position, Ordering::Relaxed);
        self.retain(position);
        loop {
            let closed = self.status.is_closed();
            let read_all = self.read(&mut reader, &mut projection)?;
            let nothing = projection.waiting() == 0;
            if closed && read_all && nothing {
                return Ok(());
            }
            if projection.is_due(Instant::now()) || (closed && read_all) {
                if !self.commit(&mut projection).await && closed {
                    return Ok(());
                }
                continue;
            }
            let more = self.status.committed_beyond(reader.end());
            match projection.due_in(Instant::now()) {
                Some(left) => drop(tokio::time::timeout(left, more).await),
                // Records get old, and may then go, without anything happening.
                None if read_all => {
                    let _ = tokio::time::timeout(RETAIN_PERIOD, more).await;
                    self.retain(self.follow.figures.position());
                }
                None => {}
            }
        }
    }

    /// Connects and finds out where the tables are. `None`: the node stops.
    async fn open(&mut self) -> Option<(Projection, u64)> {
        loop {
            let Follow {
                lane,
                journal,
                calendars,
                pace,
                ..
            } = self.follow.clone();
            if let Some(store) = self.connected().await {
                match Projection::open(store, lane, journal, calendars, pace).await {
                    Ok(opened) => return Some(opened),
                    Err(error) => self.failed(&error),
                }
            }
            if self.status.is_closed() {
                return None;
            }
            self.pause().await;
        }
    }

    /// The connection, made anew if there is none.
    async fn connected(&mut self) -> Option<&mut Database> {
        if self.store.is_none() {
            match in_time(&self.status, self.follow.target.connect()).await {
                Some(Ok(store)) => {
                    self.store = Some(store);
                    let figures = &self.follow.figures;
                    figures.connects.fetch_add(1, Ordering::Relaxed);
                    figures.connected.store(true, Ordering::Relaxed);
                }
                Some(Err(error)) => self.failed(&error),
                None => self.silent(),
            }
        }
        self.store.as_mut()
    }

    /// Reads what the lane has, as far as a batch has room. Says whether that was all.
    fn read(&self, reader: &mut Reader, projection: &mut Projection) -> Result<bool, JournalError> {
        let committed = self.status.committed();
        let now = Now::new();
        loop {
            if projection.is_full() {
                return Ok(false);
            }
            let Some(batch) = reader.batch(committed)? else {
                return Ok(true);
            };
            let end = batch.end();
            for entry in batch.entries() {
                let Journaled::Event(event) = entry.record else {
                    continue;
                };
                let waiting = &self.follow.figures.waiting_since_ns;
                if waiting.load(Ordering::Relaxed) == 0 {
                    waiting.store(event.node_ns, Ordering::Relaxed);
                }
                let record = Record {
                    topic: batch.topic(entry.topic).0,
                    // What reaches the journal never has its seq twice, whatever the epoch, so the
                    // tables tell topics by their names alone.
                    epoch: 0,
                    seq: event.seq,
                    event_ns: event.event_ns,
                    node_ns: event.node_ns,
                    kind: event.kind,
                    session: alias(event.session),
                    body: event.body,
                };
                projection.push(&record, end, now.at(event.node_ns));
            }
        }
    }

    /// Commits what was read; `false` if that failed.
    async fn commit(&mut self, projection: &mut Projection) -> bool {
        let status = Arc::clone(&self.status);
        let waiting = projection.waiting();
        let started = Instant::now();
        let Some(store) = self.connected().await else {
            self.pause().await;
            return false;
        };
        match in_time(&status, projection.commit(store)).await {
            Some(Ok(position)) => {
                self.wait = FIRST_WAIT;
                self.committed(projection, position, waiting, started.elapsed());
                true
            }
            Some(Err(error)) => {
                self.failed(&error);
                self.pause().await;
                false
            }
            None => {
                self.silent();
                false
            }
        }
    }

    fn committed(&self, projection: &Projection, position: u64, records: usize, took: Duration) {
        let figures = &self.follow.figures;
        let counters = projection.counters();
        figures.position.store(position, Ordering::Relaxed);
        figures.waiting_since_ns.store(0, Ordering::Relaxed);
        figures.records.store(counters.records, Ordering::Relaxed);
        figures.rows.store(counters.rows, Ordering::Relaxed);
        figures.commits.store(counters.commits, Ordering::Relaxed);
        figures.late.store(counters.late, Ordering::Relaxed);
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        figures.commit_ns.store(took, Ordering::Relaxed);
        figures.commit_times.record(took);
        figures.batch_sizes.record(records as u64);
        figures
            .batch_records
            .store(records as u64, Ordering::Relaxed);
        self.retain(position);
    }

    /// Lets the journal go up to `position`, as far as it is old enough.
    fn retain(&self, position: u64) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ns = u64::try_from(now.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX);
        let retention = self.follow.retention;
        let oldest = retention.older_than_ns(self.status.disk_bytes(), now_ns);
        self.status.retain(position, oldest);
    }

    fn silent(&mut self) {
        self.failed(&StoreError::Lost {
            reason: "it has not answered for a long time".into(),
        });
    }

    /// Notes a failure. The connection is made anew whatever it was, which is always right.
    fn failed(&mut self, error: &StoreError) {
        let figures = &self.follow.figures;
        figures.failures.fetch_add(1, Ordering::Relaxed);
        if figures.connected.swap(false, Ordering::Relaxed) || self.wait == LONGEST_WAIT {
            let lane = self.follow.lane;
            tracing::warn!(lane, %error, "the database does not take events; they wait in the journal");
        }
        self.store = None;
    }

    async fn pause(&mut self) {
        self.retain(self.follow.figures.position());
        tokio::time::sleep(self.wait).await;
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
    }
}

/// What the database answers, if it does so in time. A node that stops meanwhile does not wait for
/// long: a database that has stalled must not hold it up.
async fn in_time<T>(status: &Status, answer: impl Future<Output = T>) -> Option<T> {
    let mut answer = pin!(tokio::time::timeout(ANSWER_TIME, answer));
    let mut patience = pin!(async {
        status.committed_beyond(u64::MAX).await; // until it is closed
        tokio::time::sleep(LAST_COMMIT).await;
    });
    poll_fn(|cx| match answer.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready(answer.ok()),
        Poll::Pending => patience.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// One moment by two clocks.
struct Now {
    here: Instant,
    wall_ns: u64,
}

impl Now {
    fn new() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            here: Instant::now(),
            wall_ns: since_1970.unwrap_or_default().as_nanos() as u64,
        }
    }

    /// When the wall's clock showed `wall_ns`, but a minute ago at most.
    fn at(&self, wall_ns: u64) -> Instant {
        let ago = Duration::from_nanos(self.wall_ns.saturating_sub(wall_ns));
        let ago = ago.min(Duration::from_secs(60));
        self.here.checked_sub(ago).unwrap_or(self.here)
    }
}

/// A number that stands for a session in the tables: its token is a secret.
fn alias(session: u128) -> u64 {
    match session {
        0 => 0,
        session => xxh3_64(&session.to_le_bytes()),
    }
}
