//! Pages of stored rows.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::super::schema::{CANDLE_COLUMNS, CANDLE_TABLES, TICK_COLUMNS};
use super::super::{PageQuery, Pages, StoreError, TickRow};
use super::{SqliteStore, file, read_candle, read_tick, refused, rows};
use crate::market::{Candle, Period};

/// A connection to a SQLite file that can only read; beside the writer, which does not wait for
/// it, since the file has a write-ahead log. Its calls block: it is for a thread that does nothing
/// but read.
pub struct SqliteReader(Connection);

impl SqliteReader {
    /// Opens a file that [`SqliteStore::open`] has made.
    ///
    /// # Errors
    /// [`StoreError::File`] when it cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        // No lock is held longer than a moment, but a restart of the log takes one.
        let open = || {
            let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            connection.execute_batch("PRAGMA busy_timeout = 1000; PRAGMA cache_size = -8192;")?;
            Ok(connection)
        };
        open()
            .map(Self)
            .map_err(|error: rusqlite::Error| file(path, &error))
    }
}

fn find_topic(connection: &Connection, name: &str) -> Result<Option<u32>, StoreError> {
    connection
        .prepare_cached("SELECT id FROM topics WHERE name=? ORDER BY id DESC LIMIT 1")
        .and_then(|mut found| found.query_row([name], |row| row.get(0)).optional())
        .map_err(refused)
}

fn ticks(connection: &Connection, query: &PageQuery) -> Result<Vec<TickRow>, StoreError> {
    let Some(keys) = query.keys() else {
        return Ok(Vec::new());
    };
    let (time, seq) = keys.start;
    let values = params![query.topic, time, seq, keys.end, keys.limit];
    rows(
        connection,
        &ticks_sql(query.newest_first),
        values,
        read_tick,
    )
}

fn ticks_sql(newest_first: bool) -> String {
    let behind = if newest_first {
        "(event_ns, seq) < (?2, ?3) AND event_ns >= ?4 ORDER BY event_ns DESC, seq DESC"
    } else {
        "(event_ns, seq) > (?2, ?3) AND event_ns <= ?4 ORDER BY event_ns, seq"
    };
    format!("SELECT {TICK_COLUMNS} FROM ticks WHERE topic_id=?1 AND {behind} LIMIT ?5")
}

fn candles(
    connection: &Connection,
    period: Period,
    query: &PageQuery,
) -> Result<Vec<Candle>, StoreError> {
    let Some(keys) = query.keys() else {
        return Ok(Vec::new());
    };
    let sql = format!(
        "SELECT {CANDLE_COLUMNS} FROM {} WHERE topic_id=? AND start_ns BETWEEN ? AND ? \
         ORDER BY start_ns {} LIMIT ?",
        CANDLE_TABLES[period as usize],
        if query.newest_first { "DESC" } else { "ASC" }
    );
    let (first, last) = keys.candles(query.newest_first);
    let values = params![query.topic, first, last, keys.limit];
    rows(connection, &sql, values, |row| Ok(read_candle(row)?.candle))
}

impl Pages for SqliteReader {
    async fn find_topic(&mut self, name: &str) -> Result<Option<u32>, StoreError> {
        find_topic(&self.0, name)
    }

    async fn page_ticks(&mut self, query: &PageQuery) -> Result<Vec<TickRow>, StoreError> {
        ticks(&self.0, query)
    }

    async fn page_candles(
        &mut self,
        period: Period,
        query: &PageQuery,
    ) -> Result<Vec<Candle>, StoreError> {
        candles(&self.0, period, query)
    }
}

impl Pages for SqliteStore {
    async fn find_topic(&mut self, name: &str) -> Result<Option<u32>, StoreError> {
        let name = name.to_owned();
        self.reader
            .run(move |connection| find_topic(connection, &name))
            .await
    }

    async fn page_ticks(&mut self, query: &PageQuery) -> Result<Vec<TickRow>, StoreError> {
        let query = *query;
        self.reader
            .run(move |connection| ticks(connection, &query))
            .await
    }

    async fn page_candles(
        &mut self,
        period: Period,
        query: &PageQuery,
    ) -> Result<Vec<Candle>, StoreError> {
        let query = *query;
        self.reader
            .run(move |connection| candles(connection, period, &query))
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::super::schema;
    use super::*;

    #[test]
    fn a_page_is_read_from_the_key_both_ways_without_sorting() {
        let connection = Connection::open_in_memory().unwrap();
        for statement in schema::sqlite(1) {
            connection.execute_batch(&statement).unwrap();
        }
        for newest_first in [false, true] {
            let sql = format!("EXPLAIN QUERY PLAN {}", ticks_sql(newest_first));
            let plan: Vec<String> =
                rows(&connection, &sql, [1, 1, 1, 1, 1], |row| row.get(3)).unwrap();
            let sign = if newest_first { '<' } else { '>' };
            let wanted = format!("(event_ns,seq){sign}(?,?)");
            assert!(plan.len() == 1 && plan[0].contains(&wanted), "{plan:?}");
        }
    }
}
