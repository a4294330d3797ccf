//! The database behind the projection: one trait, SQLite and MySQL behind it, one test suite.
//!
//! Tables: `topics`, `ticks`, `latest`, `candles_1s`, `candles_1m`, `candles_1h`, `candles_1d`,
//! `events`, `checkpoints`, `schema_version`; why they are laid out so is told in `schema.rs`.
//!
//! - A [`Batch`] and its [`Checkpoint`] commit in **one transaction**: the tables are at every
//!   moment the fold of the journal up to the checkpoint.
//! - Rows of `ticks` and `events` never change, so one that is there already stays. Rows of
//!   `latest` and `candles_*` carry the full state, and only a state that covers a larger `seq`
//!   replaces another. So a batch that comes twice, or late, changes nothing.
//! - Prices and quantities are `DECIMAL(19,6)` in MySQL. SQLite has no exact decimal: there they
//!   are INTEGER millionths, and the views `ticks_text`, `latest_text`, `candles_1s_text` … show
//!   them as exact decimal text.

mod batch;
mod error;
mod mysql;
mod pages;
mod schema;
mod sqlite;

use std::future::Future;
use std::sync::Arc;

use crate::market::{Candle, Period};

pub use batch::{
    Batch, CandleRow, Checkpoint, EventRow, LatestRow, TickContent, TickRow, TopicKey,
};
pub use error::StoreError;
pub use mysql::{InsertMode, MySqlStore};
pub use pages::{PageQuery, Pages, ReadOnly};
pub use schema::SCHEMA_VERSION;
pub use sqlite::{SqliteReader, SqliteStore};

/// The latest possible time in the tables, nanoseconds since 1970: 2262-04-11. Event times come
/// from outside; one beyond is stored as this.
pub const MAX_TIME_NS: u64 = i64::MAX as u64;

/// The most rows that one page of a read gives.
pub const MAX_PAGE: usize = 10_000;

/// What the store knows of a topic: where the fold of its events goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recent {
    /// Its row of `latest`.
    pub latest: Option<LatestRow>,
    /// Its newest candle of each period, in the order of [`Period::ALL`].
    pub candles: [Option<Candle>; 4],
}

/// A database that holds the projection. One value is one connection, used by one writer.
///
/// After [`StoreError::is_lost`] the value is of no more use: connect anew, with back-off. Nothing
/// is lost by giving the same batch again, even if it had committed.
pub trait Store: Pages {
    /// Every lane's position.
    fn checkpoints(&mut self) -> impl Future<Output = Result<Vec<Checkpoint>, StoreError>> + Send;

    /// The ids of topics in the tables, made where there are none yet, in the order asked for.
    fn topic_ids(
        &mut self,
        topics: &[TopicKey],
    ) -> impl Future<Output = Result<Vec<u32>, StoreError>> + Send;

    /// What is stored of topics, in the order asked for.
    fn recent(
        &mut self,
        topics: &[u32],
    ) -> impl Future<Output = Result<Vec<Recent>, StoreError>> + Send;

    /// The stored candles among (topic, start of the span); in any order.
    fn candles(
        &mut self,
        period: Period,
        keys: &[(u32, u64)],
    ) -> impl Future<Output = Result<Vec<CandleRow>, StoreError>> + Send;

    /// Writes a batch and its checkpoint in one transaction. A transaction that the database gave
    /// up on for a deadlock or a lock is run again, a bounded number of times.
    fn commit(&mut self, batch: &Arc<Batch>)
    -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Events of a topic that is no market, by seq: those behind `after_seq`, at most `limit`
    /// (capped at [`MAX_PAGE`]).
    fn page_events(
        &mut self,
        topic: u32,
        after_seq: u64,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<EventRow>, StoreError>> + Send;
}

/// Either database, as `serve --mysql URL` or `--sqlite FILE` chose it.
#[allow(clippy::large_enum_variant, reason = "one per writer thread")]
pub enum Database {
    /// See [`SqliteStore`].
    Sqlite(SqliteStore),
    /// See [`MySqlStore`].
    MySql(MySqlStore),
}

macro_rules! either {
    ($self:ident, $store:ident => $call:expr) => {
        match $self {
            Self::Sqlite($store) => $call.await,
            Self::MySql($store) => $call.await,
        }
    };
}

impl Pages for Database {
    async fn find_topic(&mut self, name: &str) -> Result<Option<u32>, StoreError> {
        either!(self, s => s.find_topic(name))
    }
    async fn page_ticks(&mut self, query: &PageQuery) -> Result<Vec<TickRow>, StoreError> {
        either!(self, s => s.page_ticks(query))
    }
    async fn page_candles(
        &mut self,
        period: Period,
        query: &PageQuery,
    ) -> Result<Vec<Candle>, StoreError> {
        either!(self, s => s.page_candles(period, query))
    }
}

impl Store for Database {
    async fn checkpoints(&mut self) -> Result<Vec<Checkpoint>, StoreError> {
        either!(self, s => s.checkpoints())
    }
    async fn topic_ids(&mut self, topics: &[TopicKey]) -> Result<Vec<u32>, StoreError> {
        either!(self, s => s.topic_ids(topics))
    }
    async fn recent(&mut self, topics: &[u32]) -> Result<Vec<Recent>, StoreError> {
        either!(self, s => s.recent(topics))
    }
    async fn candles(
        &mut self,
        period: Period,
        keys: &[(u32, u64)],
    ) -> Result<Vec<CandleRow>, StoreError> {
        either!(self, s => s.candles(period, keys))
    }
    async fn commit(&mut self, batch: &Arc<Batch>) -> Result<(), StoreError> {
        either!(self, s => s.commit(batch))
    }
    async fn page_events(
        &mut self,
        topic: u32,
        after_seq: u64,
        limit: usize,
    ) -> Result<Vec<EventRow>, StoreError> {
        either!(self, s => s.page_events(topic, after_seq, limit))
    }
}

#[cfg(test)]
pub(super) mod tests;
