//! Pages of stored rows.

use mysql_async::Value;

use super::super::schema::{CANDLE_COLUMNS, CANDLE_TABLES, TICK_COLUMNS};
use super::super::{PageQuery, Pages, StoreError, TickRow};
use super::MySqlStore;
use crate::market::{Candle, Period};

/// Behind (time, seq), as both servers read it from the key: not (event_ns, seq) > (?, ?), for
/// which they look at all rows of the topic, and not `event_ns >= ? AND (event_ns > ? OR seq > ?)`,
/// for which they look again at all rows of one time on each page.
const TICKS_OLDEST_FIRST: &str = "AND (event_ns>? OR (event_ns=? AND seq>?)) AND event_ns<=? \
     ORDER BY event_ns, seq LIMIT ?";
const TICKS_NEWEST_FIRST: &str = "AND (event_ns<? OR (event_ns=? AND seq<?)) AND event_ns>=? \
     ORDER BY event_ns DESC, seq DESC LIMIT ?";

impl Pages for MySqlStore {
    async fn find_topic(&mut self, name: &str) -> Result<Option<u32>, StoreError> {
        let sql = "SELECT id FROM topics WHERE name=? ORDER BY id DESC LIMIT 1".to_owned();
        Ok(self
            .ask(sql, vec![Value::from(name.as_bytes())], |row| row.narrow(0))
            .await?
            .pop())
    }

    async fn page_ticks(&mut self, query: &PageQuery) -> Result<Vec<TickRow>, StoreError> {
        let Some(keys) = query.keys() else {
            return Ok(Vec::new());
        };
        let behind = if query.newest_first {
            TICKS_NEWEST_FIRST
        } else {
            TICKS_OLDEST_FIRST
        };
        let sql = format!("SELECT {TICK_COLUMNS} FROM ticks WHERE topic_id=? {behind}");
        let (time, seq) = keys.start;
        let values = [query.topic.into(), time, time, seq, keys.end, keys.limit];
        self.ask(sql, values.map(Value::from).to_vec(), |row| row.tick())
            .await
    }

    async fn page_candles(
        &mut self,
        period: Period,
        query: &PageQuery,
    ) -> Result<Vec<Candle>, StoreError> {
        let Some(keys) = query.keys() else {
            return Ok(Vec::new());
        };
        let sql = format!(
            "SELECT {CANDLE_COLUMNS} FROM {} WHERE topic_id=? AND start_ns>=? AND start_ns<=? \
             ORDER BY start_ns {} LIMIT ?",
            CANDLE_TABLES[period as usize],
            if query.newest_first { "DESC" } else { "ASC" }
        );
        let (first, last) = keys.candles(query.newest_first);
        let values = [query.topic.into(), first, last, keys.limit];
        self.ask(sql, values.map(Value::from).to_vec(), |row| {
            Ok(row.candle()?.candle)
        })
        .await
    }
}

#[cfg(test)]
impl MySqlStore {
    /// Rows that the server has read from tables for this connection.
    pub(in super::super) async fn rows_read(&mut self) -> u64 {
        use mysql_async::prelude::Queryable;
        let sql = "SHOW SESSION STATUS WHERE Variable_name LIKE 'Handler_read%'";
        let counts: Vec<(String, u64)> = self.conn.query(sql).await.expect("a status");
        counts.iter().map(|(_, count)| count).sum()
    }
}
