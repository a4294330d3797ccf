//! The projection: folds a lane's journal records into batches of the database's tables.
//!
//! How to use it, on the writer's own thread:
//! 1. [`Projection::open`] tells the position to read the journal from.
//! 2. [`push`](Projection::push) each record, in the lane's order, with the position behind it.
//! 3. When [`is_due`](Projection::is_due), [`commit`](Projection::commit). If that fails and the
//!    error [is passing](StoreError::is_passing), connect anew with back-off and commit again:
//!    what was pushed is kept, and the same batch is sent.
//!
//! # Exactly once
//! A batch and its checkpoint are one transaction, so after a crash [`open`](Projection::open)
//! gives the position that the tables are at. And were records given twice, or a commit's answer
//! lost: ticks and events that are there stay, and candles and latest rows know the largest `seq`
//! they cover, so nothing counts twice.
//!
//! # Memory
//! For each topic: its latest row and its newest candle of each period. Older candles that late
//! trades touch are loaded from the store and kept up to a bound. Records wait up to the bound of
//! a batch; then [`is_full`](Projection::is_full), and the writer reads no further.

mod market;
mod pace;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tickring_protocol::{EventKind, Quote, Trade};
use xxhash_rust::xxh3::Xxh3DefaultBuilder;

use self::market::Market;
use crate::market::{Calendars, Clock};
use crate::writer::store::{
    Batch, Checkpoint, EventRow, MAX_TIME_NS, Store, StoreError, TickContent, TickRow, TopicKey,
};

pub use pace::{Pace, PaceLimits};

/// One record of the journal.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The topic's name, `kind/name`.
    pub topic: &'a str,
    /// Which numbering of the topic `seq` belongs to.
    pub epoch: u64,
    /// Its seq.
    pub seq: u64,
    /// When it happened, nanoseconds since 1970-01-01 UTC.
    pub event_ns: u64,
    /// When the node took it in.
    pub node_ns: u64,
    /// The body's layout.
    pub kind: u16,
    /// A number that stands for the sender's session; 0: none.
    pub session: u64,
    /// The body.
    pub body: &'a [u8],
}

/// What a projection has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Records that are in the tables.
    pub records: u64,
    /// Rows written for them, candles and latest rows included.
    pub rows: u64,
    /// Commits.
    pub commits: u64,
    /// Commits that failed.
    pub failures: u64,
    /// Trades older than the newest candle of some period.
    pub late: u64,
    /// Trades that some candle could not take, because its volume would have left its range; they
    /// are in `ticks` all the same.
    pub refused: u64,
}

/// The projection of one lane.
pub struct Projection {
    topics: HashMap<TopicKey, u32, Xxh3DefaultBuilder>,
    /// Looked up instead of the key, to allocate nothing for a known topic.
    names: HashMap<Box<str>, u32, Xxh3DefaultBuilder>,
    slots: Vec<Slot>,
    /// Slots that have no id yet.
    unlearned: Vec<u32>,
    calendars: Arc<Calendars>,
    clocks: Vec<Clock>,
    market: Market,
    /// Rows whose `topic` is still the number of a slot.
    pending: Batch,
    /// What is being committed, until it is.
    sealed: Option<Sealed>,
    oldest: Option<Instant>,
    pace: Pace,
    counters: Counters,
}

/// A topic that this projection has met.
struct Slot {
    key: TopicKey,
    /// Its id in the tables; 0: not asked for.
    id: u32,
    calendar: usize,
    /// Whether its records are projected at all.
    skip: bool,
}

struct Sealed {
    batch: Arc<Batch>,
    records: usize,
}

/// Kinds of topics that are derived from others or from the node itself: not in the tables.
const NOT_PROJECTED: [&str; 2] = ["node", "candle"];

impl Projection {
    /// Opens the projection of a lane and tells from where to read the lane.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Refused`] when the database belongs to another journal.
    pub async fn open<S: Store>(
        store: &mut S,
        lane: u32,
        journal: u64,
        calendars: Arc<Calendars>,
        limits: PaceLimits,
    ) -> Result<(Self, u64), StoreError> {
        let checkpoints = store.checkpoints().await?;
        if let Some(other) = checkpoints.iter().find(|at| at.journal != journal) {
            return Err(StoreError::Refused {
                reason: format!(
                    "its tables were made from another journal ({:016x}, this one is {journal:016x}); \
                     choose another database or the data directory that belongs to it",
                    other.journal
                ),
            });
        }
        let position = checkpoints
            .iter()
            .find(|at| at.lane == lane)
            .map_or(0, |at| at.position);
        let pending = Batch {
            checkpoint: Checkpoint {
                lane,
                journal,
                position,
            },
            ..Batch::default()
        };
        let clocks = vec![Clock::default(); calendars.len()];
        let projection = Self {
            topics: HashMap::default(),
            names: HashMap::default(),
            slots: Vec::new(),
            unlearned: Vec::new(),
            calendars,
            clocks,
            market: Market::default(),
            pending,
            sealed: None,
            oldest: None,
            pace: Pace::new(limits),
            counters: Counters::default(),
        };
        Ok((projection, position))
    }

    /// Takes a record; `position` is the lane's position behind it, `since` the moment from which
    /// on it counts as waiting: when the node took it in.
    ///
    /// An event time from 2262 on is stored as the last moment that the tables can hold.
    pub fn push(&mut self, record: &Record<'_>, position: u64, since: Instant) {
        self.oldest.get_or_insert(since);
        self.pending.checkpoint.position = position;
        let slot = self.slot(record);
        let known = &self.slots[slot as usize];
        if known.skip {
            return;
        }
        let calendar = known.calendar;
        let event_ns = record.event_ns.min(MAX_TIME_NS);
        let node_ns = record.node_ns.min(MAX_TIME_NS);
        let content = if record.topic.starts_with("market/") {
            tick(record)
        } else {
            None
        };
        match content {
            Some(content) => self.pending.ticks.push(TickRow {
                topic: slot,
                seq: record.seq,
                event_ns,
                node_ns,
                session: self.clocks[calendar]
                    .at(self.calendars.at(calendar), event_ns)
                    .session,
                content,
            }),
            None => self.pending.events.push(EventRow {
                topic: slot,
                seq: record.seq,
                kind: record.kind,
                event_ns,
                node_ns,
                session: record.session,
                body: record.body.to_vec(),
            }),
        }
    }

    fn slot(&mut self, record: &Record<'_>) -> u32 {
        if let Some(&slot) = self.names.get(record.topic)
            && self.slots[slot as usize].key.epoch == record.epoch
        {
            return slot;
        }
        let key = TopicKey {
            name: record.topic.into(),
            epoch: record.epoch,
        };
        let slot = self.topics.get(&key).copied().unwrap_or_else(|| {
            let (kind, name) = record.topic.split_once('/').unwrap_or((record.topic, ""));
            let slot = self.slots.len() as u32; // topics have u32 ids on the wire
            let skip = NOT_PROJECTED.contains(&kind);
            let calendar = self.calendars.index_of(name);
            self.slots.push(Slot {
                key: key.clone(),
                id: 0,
                calendar,
                skip,
            });
            if !skip {
                self.unlearned.push(slot);
            }
            self.topics.insert(key.clone(), slot);
            slot
        });
        self.names.insert(key.name, slot);
        slot
    }

    /// Records that wait for their commit.
    pub fn waiting(&self) -> usize {
        let sealed = self.sealed.as_ref().map_or(0, |sealed| sealed.records);
        self.pending.ticks.len() + self.pending.events.len() + sealed
    }

    /// Whether no more should be pushed before a commit.
    pub fn is_full(&self) -> bool {
        self.sealed.is_some()
            || self.pending.ticks.len() + self.pending.events.len() >= self.pace.records()
    }

    /// Whether it is time to commit: the batch is full, or its oldest record has waited its time.
    /// To be asked when all that there is was pushed: what waits for long makes one large batch.
    pub fn is_due(&self, now: Instant) -> bool {
        self.is_full() || self.due_in(now).is_some_and(|left| left.is_zero())
    }

    /// How long until [`is_due`](Self::is_due) by time alone; `None` while nothing waits.
    pub fn due_in(&self, now: Instant) -> Option<Duration> {
        self.oldest
            .map(|oldest| (oldest + self.pace.period()).saturating_duration_since(now))
    }

    /// The position that the tables are at, once everything pushed so far has committed.
    pub fn position(&self) -> u64 {
        self.pending.checkpoint.position
    }

    /// The control rule's present state.
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// What it has done so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Writes what was pushed, and the position behind it. Gives that position once it is in the
    /// tables. The future must be run to its end, or the connection be dropped with it.
    ///
    /// # Errors
    /// [`StoreError`]: nothing is lost, call it again. After one that
    /// [is lost](StoreError::is_lost), with a new connection.
    pub async fn commit<S: Store>(&mut self, store: &mut S) -> Result<u64, StoreError> {
        let started = Instant::now();
        let done = self.commit_sealed(store).await;
        match &done {
            Ok((_, records, rows)) => {
                self.pace.committed(*records, started.elapsed());
                self.counters.records += *records as u64;
                self.counters.rows += *rows as u64;
                self.counters.commits += 1;
            }
            Err(_) => {
                self.pace.failed();
                self.counters.failures += 1;
            }
        }
        done.map(|(position, ..)| position)
    }

    async fn commit_sealed<S: Store>(
        &mut self,
        store: &mut S,
    ) -> Result<(u64, usize, usize), StoreError> {
        if self.sealed.is_none() {
            self.seal(store).await?;
        }
        let Some(sealed) = &self.sealed else {
            return Ok((self.pending.checkpoint.position, 0, 0));
        };
        store.commit(&sealed.batch).await?;
        let done = (
            sealed.batch.checkpoint.position,
            sealed.records,
            sealed.batch.rows(),
        );
        // The room of the batch serves again, unless the store still holds it.
        if let Some(Sealed { batch, .. }) = self.sealed.take()
            && let Ok(mut batch) = Arc::try_unwrap(batch)
            && self.pending.rows() == 0
        {
            batch.clear();
            batch.checkpoint = self.pending.checkpoint;
            self.pending = batch;
        }
        self.market.forget();
        Ok(done)
    }

    /// Turns what was pushed into a batch. Asks the store for what the fold needs before anything
    /// changes, so that it can be called again when that fails.
    async fn seal<S: Store>(&mut self, store: &mut S) -> Result<(), StoreError> {
        if self.oldest.is_none() {
            return Ok(());
        }
        self.learn_ids(store).await?;
        self.market
            .load(store, &self.pending.ticks, |slot| {
                let slot = &self.slots[slot as usize];
                (slot.id, self.calendars.at(slot.calendar))
            })
            .await?;

        let empty = Batch {
            checkpoint: self.pending.checkpoint,
            ..Batch::default()
        };
        let mut batch = std::mem::replace(&mut self.pending, empty);
        self.oldest = None;
        let records = batch.ticks.len() + batch.events.len();
        for row in &mut batch.ticks {
            row.topic = self.slots[row.topic as usize].id;
        }
        for row in &mut batch.events {
            row.topic = self.slots[row.topic as usize].id;
        }
        self.market.fold(&mut batch, &mut self.counters);
        batch.sort();
        self.sealed = Some(Sealed {
            batch: Arc::new(batch),
            records,
        });
        Ok(())
    }

    async fn learn_ids<S: Store>(&mut self, store: &mut S) -> Result<(), StoreError> {
        if self.unlearned.is_empty() {
            return Ok(());
        }
        let keys: Vec<TopicKey> = self
            .unlearned
            .iter()
            .map(|&slot| self.slots[slot as usize].key.clone())
            .collect();
        let ids = store.topic_ids(&keys).await?;
        for (slot, id) in self.unlearned.drain(..).zip(ids) {
            self.slots[slot as usize].id = id;
        }
        Ok(())
    }
}

/// What a record of a market topic says; `None` if it is of no layout that the tables know.
fn tick(record: &Record<'_>) -> Option<TickContent> {
    match EventKind::from_u16(record.kind)? {
        EventKind::Trade => Trade::decode(record.body).ok().map(TickContent::Trade),
        EventKind::Quote => Quote::decode(record.body).ok().map(TickContent::Quote),
        _ => None,
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod measure;
