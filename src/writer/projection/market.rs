//! The fold of ticks into latest rows and candles, over what the store holds of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3DefaultBuilder;

use super::Counters;
use crate::market::{Calendar, Candle, CandleError, Clock, Folded, Period};
use crate::writer::store::{
    Batch, CandleRow, LatestRow, Recent, Store, StoreError, TickContent, TickRow,
};

/// Candles kept in memory besides the newest of each topic and period: about 15 MB.
const MAX_OLDER: usize = 100_000;

type Key = (u32, Period, u64);

/// What the fold goes on from. Topics are named by their id in the tables.
#[derive(Default)]
pub(super) struct Market {
    topics: HashMap<u32, Topic, Xxh3DefaultBuilder>,
    /// Candles older than the newest of their topic and period. `None`: the store has none.
    older: HashMap<Key, Option<Candle>, Xxh3DefaultBuilder>,
    /// Candles that the batch being folded changes, with their place in its rows.
    touched: HashMap<Key, usize, Xxh3DefaultBuilder>,
}

struct Topic {
    calendar: Arc<Calendar>,
    clock: Clock,
    latest: LatestRow,
    newest: [Option<Candle>; 4],
    /// Whether the batch being folded changes its latest row.
    changed: bool,
}

impl Market {
    /// Loads what the fold of `ticks` needs and is not in memory. `known` tells a topic's id in the
    /// tables, and its calendar.
    pub(super) async fn load<'c, S: Store>(
        &mut self,
        store: &mut S,
        ticks: &[TickRow],
        known: impl Fn(u32) -> (u32, &'c Arc<Calendar>),
    ) -> Result<(), StoreError> {
        let mut asked = HashSet::new();
        let (unknown, calendars): (Vec<u32>, Vec<&Arc<Calendar>>) = ticks
            .iter()
            .map(|row| known(row.topic))
            .filter(|(id, _)| !self.topics.contains_key(id) && asked.insert(*id))
            .unzip();
        if !unknown.is_empty() {
            let found = store.recent(&unknown).await?;
            for ((id, calendar), recent) in unknown.into_iter().zip(calendars).zip(found) {
                let topic = Topic::new(id, Arc::clone(calendar), recent);
                self.topics.insert(id, topic);
            }
        }
        for period in Period::ALL {
            let mut missing = HashSet::new();
            for row in ticks {
                let id = known(row.topic).0;
                let topic = self.topics.get_mut(&id);
                let topic = topic.expect("all topics of the batch were loaded above");
                let Some(start) = topic.start(period, row) else {
                    continue;
                };
                let newest = topic.newest[period as usize];
                if matches!(row.content, TickContent::Trade(_))
                    && newest.is_some_and(|newest| start < newest.start_ns)
                    && !self.older.contains_key(&(id, period, start))
                {
                    missing.insert((id, start));
                }
            }
            if missing.is_empty() {
                continue;
            }
            let keys: Vec<(u32, u64)> = missing.into_iter().collect();
            let found = store.candles(period, &keys).await?;
            self.older
                .extend(keys.iter().map(|&(id, start)| ((id, period, start), None)));
            for row in found {
                let key = (row.topic, period, row.candle.start_ns);
                self.older.insert(key, Some(row.candle));
            }
        }
        Ok(())
    }

    /// Folds a batch's ticks, which are in the lane's order, and adds the rows that they change,
    /// each once and with its full state.
    pub(super) fn fold(&mut self, batch: &mut Batch, counters: &mut Counters) {
        self.touched.clear();
        let Batch {
            ticks,
            latest,
            candles,
            ..
        } = batch;
        let mut changed = Vec::new();
        for row in ticks.iter() {
            let Some(topic) = self.topics.get_mut(&row.topic) else {
                continue; // `load` has loaded every topic of the batch
            };
            if row.seq > topic.latest.seq {
                topic.latest = latest_of(topic.latest, row);
                if !std::mem::replace(&mut topic.changed, true) {
                    changed.push(row.topic);
                }
            }
            if let TickContent::Trade(_) = row.content {
                self.fold_trade(row, candles, counters);
            }
        }
        for id in changed {
            if let Some(topic) = self.topics.get_mut(&id) {
                topic.changed = false;
                latest.push(topic.latest);
            }
        }
    }

    fn fold_trade(
        &mut self,
        row: &TickRow,
        out: &mut [Vec<CandleRow>; 4],
        counters: &mut Counters,
    ) {
        let (mut late, mut refused) = (false, false);
        for period in Period::ALL {
            match self.fold_period(period, row) {
                Ok(None) => {}
                Ok(Some((candle, is_late))) => {
                    late |= is_late;
                    let rows = &mut out[period as usize];
                    let state = CandleRow {
                        topic: row.topic,
                        candle,
                    };
                    let at = *self
                        .touched
                        .entry((row.topic, period, candle.start_ns))
                        .or_insert(rows.len());
                    match rows.get_mut(at) {
                        Some(place) => *place = state,
                        None => rows.push(state),
                    }
                }
                Err(error) => {
                    refused = true;
                    tracing::warn!(
                        topic = row.topic,
                        seq = row.seq,
                        period = period.name(),
                        "candle: {error}"
                    );
                }
            }
        }
        counters.late += u64::from(late);
        counters.refused += u64::from(refused);
    }

    /// The new state of the period's candle and whether the trade was late; `None` if it changes
    /// none: a replay, or a trade that does not count for the day.
    fn fold_period(
        &mut self,
        period: Period,
        row: &TickRow,
    ) -> Result<Option<(Candle, bool)>, CandleError> {
        let (TickContent::Trade(trade), Some(topic)) =
            (row.content, self.topics.get_mut(&row.topic))
        else {
            return Ok(None);
        };
        let Some(start) = topic.start(period, row) else {
            return Ok(None);
        };
        let newest = &mut topic.newest[period as usize];
        let late = newest.is_some_and(|candle| candle.start_ns > start);
        if let Some(candle) = newest.take_if(|candle| candle.start_ns < start) {
            // The next late trade need not ask the store for it.
            self.older
                .insert((row.topic, period, candle.start_ns), Some(candle));
        }
        let place = match late {
            true => self.older.entry((row.topic, period, start)).or_default(),
            false => newest,
        };
        match place {
            None => *place = Some(Candle::new(start, row.seq, row.event_ns, &trade)),
            Some(candle) => match candle.fold(row.seq, row.event_ns, &trade)? {
                Folded::Taken => {}
                Folded::Replay => return Ok(None),
            },
        }
        Ok(place.map(|candle| (candle, late)))
    }

    /// After a commit: older candles are in the store; keeps their number within its bound.
    pub(super) fn forget(&mut self) {
        if self.older.len() > MAX_OLDER {
            self.older.clear();
        }
    }
}

impl Topic {
    fn new(id: u32, calendar: Arc<Calendar>, recent: Recent) -> Self {
        let empty = LatestRow {
            topic: id,
            ..LatestRow::default()
        };
        Self {
            calendar,
            clock: Clock::default(),
            latest: recent.latest.unwrap_or(empty),
            newest: recent.candles,
            changed: false,
        }
    }

    /// Where the candle that a trade belongs to starts; `None` if it does not count for the day.
    fn start(&mut self, period: Period, row: &TickRow) -> Option<u64> {
        let moment = self.clock.at(&self.calendar, row.event_ns);
        let counts = period != Period::Day || self.calendar.is_in_day(moment.session);
        counts.then(|| period.start(row.event_ns, moment.day_start_ns))
    }
}

/// The latest row behind a tick: an older event time does not replace a newer one.
fn latest_of(mut latest: LatestRow, row: &TickRow) -> LatestRow {
    (latest.seq, latest.node_ns) = (row.seq, row.node_ns);
    match row.content {
        TickContent::Trade(trade) => {
            if latest.trade.is_none_or(|(at, _)| at <= row.event_ns) {
                latest.trade = Some((row.event_ns, trade));
            }
        }
        TickContent::Quote(quote) => {
            if latest.quote.is_none_or(|(at, _)| at <= row.event_ns) {
                latest.quote = Some((row.event_ns, quote));
            }
        }
    }
    latest
}
