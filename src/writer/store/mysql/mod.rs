//! MySQL and MariaDB: one connection, multi-row upserts with bound parameters.
//!
//! TLS and the rest of the connection are set in the URL, as in
//! `mysql://user:password@host:3306/tickring?require_ssl=true`.

mod connect;
mod load;
mod pages;
mod rows;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params, Row, Value};

use self::connect::{Server, Target, meaning};
use self::rows::{Columns, int};
use super::batch::{Batch, CandleRow, Checkpoint, EventRow, LatestRow, TopicKey};
use super::schema::{CANDLE_COLUMNS, CANDLE_TABLES, EVENT_COLUMNS, LATEST_COLUMNS, TICK_COLUMNS};
use super::{MAX_PAGE, Recent, Store, StoreError};
use crate::market::Period;

/// How often a transaction is run that the database gives up on for a lock.
const ATTEMPTS: u32 = 10;
/// A commit that takes longer counts as a lost connection: the server has stalled.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(60);
/// Rows of one statement, largest first: few sizes, so that each is prepared once and kept.
const CHUNKS: [usize; 6] = [1024, 256, 64, 16, 4, 1];
/// Bytes that a row of numbers takes at most, for the server's limit on a statement.
const ROW_BYTES: usize = 512;
/// Values in one list of a question.
const LIST: usize = 256;

/// How rows travel; which of them suits the server is found out when connecting. Over the ticks of
/// `tickring-feed synth` MariaDB 10.11 spent 3.7 µs of CPU on a tick and its share of candles with
/// [`Load`](Self::Load) and [`Bulk`](Self::Bulk) and 4.3 µs with [`MultiRow`](Self::MultiRow);
/// tickring itself 0.7, 1.5 and 1.2 µs. And `Load` alone streams: the server works on rows while
/// tickring still writes the next ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertMode {
    /// Many rows in one prepared `INSERT … VALUES (…),(…)`.
    MultiRow,
    /// MariaDB's bulk execution: one row prepared, many sent. On MySQL, which has none, one by one.
    Bulk,
    /// `LOAD DATA LOCAL INFILE` from memory: where the server's `local_infile` is on, as it is on
    /// MariaDB unless turned off, and the user may delete rows, which replacing them needs.
    Load,
}

/// A connection to MySQL 8.0 or MariaDB 10.5, or newer, with the projection's tables.
pub struct MySqlStore {
    conn: Conn,
    target: Target,
    server: Server,
    mode: InsertMode,
    tables: Tables,
}

struct Upsert {
    head: String,
    row: String,
    tail: String,
    columns: usize,
}

struct Tables {
    ticks: Upsert,
    latest: Upsert,
    candles: [Upsert; 4],
    events: Upsert,
}

impl Upsert {
    fn new(table: &str, columns: &str, tail: String) -> Self {
        let count = columns.split(',').count();
        Self {
            head: format!("INSERT INTO {table} ({columns}) VALUES "),
            row: format!("({})", vec!["?"; count].join(",")),
            tail: format!(" ON DUPLICATE KEY UPDATE {tail}"),
            columns: count,
        }
    }

    /// Rows that come with their full state.
    fn replacing(table: &str, columns: &str, key: &[&str]) -> Self {
        // VALUES(x) is the one form that both MySQL and MariaDB understand.
        let set: Vec<String> = columns
            .split(',')
            .filter(|column| !key.contains(column))
            .map(|column| format!("{column}=VALUES({column})"))
            .collect();
        Self::new(table, columns, set.join(","))
    }

    fn sql(&self, rows: usize) -> String {
        let mut sql =
            String::with_capacity(self.head.len() + rows * (self.row.len() + 1) + self.tail.len());
        sql.push_str(&self.head);
        for row in 0..rows {
            if row > 0 {
                sql.push(',');
            }
            sql.push_str(&self.row);
        }
        sql.push_str(&self.tail);
        sql
    }
}

impl Tables {
    fn new() -> Self {
        // Not INSERT IGNORE: that would also turn errors into warnings.
        let keep = || "seq=seq".to_owned();
        Self {
            ticks: Upsert::new("ticks", TICK_COLUMNS, keep()),
            latest: Upsert::replacing("latest", LATEST_COLUMNS, &["topic_id"]),
            candles: CANDLE_TABLES
                .map(|table| Upsert::replacing(table, CANDLE_COLUMNS, &["topic_id", "start_ns"])),
            events: Upsert::new("events", EVENT_COLUMNS, keep()),
        }
    }
}

impl MySqlStore {
    /// Connects, checks the server and the user's rights as far as they show, and brings the
    /// tables to this build's version.
    ///
    /// # Errors
    /// [`StoreError`], each saying what to do: wrong URL or password, nobody there, no database,
    /// a missing privilege, an old server, tables of a newer tickring.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        let (opts, target) = connect::parse(url)?;
        let (mut conn, server) = connect::connect(opts, &target).await?;
        let may_load = load::is_allowed(&mut conn).await;
        let mode = if may_load.map_err(|error| meaning(&target, error))? {
            InsertMode::Load
        } else if server.mariadb {
            InsertMode::Bulk
        } else {
            InsertMode::MultiRow
        };
        Ok(Self {
            conn,
            target,
            server,
            mode,
            tables: Tables::new(),
        })
    }

    /// Connects to read only: the tables must be there.
    ///
    /// # Errors
    /// As [`MySqlStore::connect`], less what concerns writing.
    pub async fn connect_read_only(url: &str) -> Result<Self, StoreError> {
        let (opts, target) = connect::parse(url)?;
        let (conn, server) = connect::connect_read_only(opts, &target).await?;
        Ok(Self {
            conn,
            target,
            server,
            mode: InsertMode::MultiRow,
            tables: Tables::new(),
        })
    }

    /// Chooses how rows travel.
    pub fn with_mode(mut self, mode: InsertMode) -> Self {
        self.mode = mode;
        self
    }

    /// How rows travel.
    pub fn mode(&self) -> InsertMode {
        self.mode
    }

    /// Whether the server is a MariaDB.
    pub fn is_mariadb(&self) -> bool {
        self.server.mariadb
    }

    async fn write(&mut self, batch: &Arc<Batch>) -> Result<(), StoreError> {
        let written = match self.begin(&batch.checkpoint).await {
            Ok(true) => {
                let dropped = self.conn.query_drop("ROLLBACK").await;
                return dropped.map_err(|error| meaning(&self.target, error));
            }
            Ok(false) => self.write_rows(batch).await,
            Err(error) => Err(error),
        };
        match written {
            Ok(()) => self
                .conn
                .query_drop("COMMIT")
                .await
                .map_err(|e| meaning(&self.target, e)),
            Err(error) => {
                // On a lost connection the server rolls back by itself.
                if !error.is_lost() {
                    let rolled_back = self.conn.query_drop("ROLLBACK").await;
                    rolled_back.map_err(|e| meaning(&self.target, e))?;
                }
                Err(error)
            }
        }
    }

    /// Begins a transaction that holds the lane's checkpoint, and tells whether the tables are at
    /// the batch's already: so one that comes again, or late, changes nothing, and two servers
    /// with journals of their own cannot both write.
    async fn begin(&mut self, at: &Checkpoint) -> Result<bool, StoreError> {
        let sql = format!(
            "SELECT journal, position FROM checkpoints WHERE lane={} FOR UPDATE",
            at.lane
        );
        let conn = &mut self.conn;
        let asked = async {
            conn.query_drop("START TRANSACTION").await?;
            conn.query_first(sql).await
        };
        let there: Option<(i64, i64)> = asked.await.map_err(|e| meaning(&self.target, e))?;
        match there {
            Some((journal, _)) if journal as u64 != at.journal => Err(StoreError::Refused {
                reason:
                    "another server with another journal writes to its tables; stop one of them"
                        .to_owned(),
            }),
            Some((_, position)) => Ok(position as u64 >= at.position),
            None => Ok(false),
        }
    }

    async fn write_rows(&mut self, batch: &Arc<Batch>) -> Result<(), StoreError> {
        if self.mode == InsertMode::Load {
            load::send(&mut self.conn, &self.target, batch).await?;
        }
        let Self {
            conn,
            target,
            server,
            mode,
            tables,
        } = self;
        let mut sender = Sender {
            conn,
            server: *server,
            mode: *mode,
        };
        let sent = async {
            if sender.mode != InsertMode::Load {
                sender.send(&tables.ticks, &batch.ticks, rows::tick).await?;
                sender
                    .send(&tables.latest, &batch.latest, rows::latest)
                    .await?;
                for (upsert, candles) in tables.candles.iter().zip(&batch.candles) {
                    sender.send(upsert, candles, rows::candle).await?;
                }
            }
            sender.send_events(&tables.events, &batch.events).await?;
            let at = batch.checkpoint;
            sender
                .conn
                .exec_drop(
                    // Should another journal have been faster with the first row, this is an error.
                    "INSERT INTO checkpoints (lane,journal,position) VALUES (?,?,?) ON DUPLICATE KEY \
                     UPDATE position=IF(journal=VALUES(journal),VALUES(position),NULL)",
                    (at.lane, at.journal as i64, at.position as i64),
                )
                .await
        };
        sent.await.map_err(|error| meaning(target, error))
    }

    /// The server's number of this connection, as in `SHOW PROCESSLIST`.
    pub fn connection_id(&self) -> u32 {
        self.conn.id()
    }

    async fn make_topics(&mut self, topics: &[&TopicKey]) -> Result<(), StoreError> {
        let upsert = Upsert::new("topics", "name,epoch", "epoch=VALUES(epoch)".to_owned());
        let encode = |topic: &&TopicKey, out: &mut Vec<Value>| {
            out.extend([Value::from(topic.name.as_bytes()), int(topic.epoch)]);
        };
        let mut sender = Sender {
            conn: &mut self.conn,
            server: self.server,
            mode: InsertMode::MultiRow,
        };
        let made = sender.send(&upsert, topics, encode).await;
        made.map_err(|error| meaning(&self.target, error))
    }

    async fn ask<T>(
        &mut self,
        sql: String,
        values: Vec<Value>,
        read: impl Fn(Columns) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let params = if values.is_empty() {
            Params::Empty
        } else {
            Params::Positional(values)
        };
        let found: Vec<Row> = self
            .conn
            .exec(sql, params)
            .await
            .map_err(|error| meaning(&self.target, error))?;
        found
            .into_iter()
            .map(|row| read(Columns::from(row)))
            .collect()
    }
}

struct Sender<'a> {
    conn: &'a mut Conn,
    server: Server,
    mode: InsertMode,
}

impl Sender<'_> {
    async fn send<T: Sync>(
        &mut self,
        upsert: &Upsert,
        rows: &[T],
        encode: fn(&T, &mut Vec<Value>),
    ) -> Result<(), mysql_async::Error> {
        if rows.is_empty() {
            return Ok(());
        }
        if self.mode == InsertMode::Bulk {
            let params = rows.iter().map(|row| {
                let mut values = Vec::with_capacity(upsert.columns);
                encode(row, &mut values);
                Params::Positional(values)
            });
            return self.conn.exec_batch(upsert.sql(1), params).await;
        }
        // A statement has at most 65,535 parameters, and may fill half a packet.
        let most = (65_535 / upsert.columns)
            .min(self.server.max_packet / 2 / ROW_BYTES)
            .max(1);
        let mut rest = rows;
        for size in CHUNKS.into_iter().filter(|&size| size <= most) {
            if rest.len() < size {
                continue;
            }
            let statement = self.conn.prep(upsert.sql(size)).await?;
            while let Some((chunk, behind)) = rest.split_at_checked(size) {
                let mut values = Vec::with_capacity(size * upsert.columns);
                for row in chunk {
                    encode(row, &mut values);
                }
                self.conn
                    .exec_drop(&statement, Params::Positional(values))
                    .await?;
                rest = behind;
            }
        }
        Ok(())
    }

    /// Bodies have any size: statements are cut by bytes as well.
    async fn send_events(
        &mut self,
        upsert: &Upsert,
        rows: &[EventRow],
    ) -> Result<(), mysql_async::Error> {
        let most = self.server.max_packet / 2;
        let mut rest = rows;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fitting = rest
                .iter()
                .take_while(|row| {
                    bytes += row.body.len() + ROW_BYTES;
                    bytes <= most
                })
                .count();
            let (chunk, behind) = rest.split_at(fitting.max(1));
            self.send(upsert, chunk, rows::event).await?;
            rest = behind;
        }
        Ok(())
    }
}

/// `(?,?,…)` lists of a fixed length, filled up with the last value, so that one statement serves.
fn lists<T: Copy>(items: &[T], length: usize) -> impl Iterator<Item = Vec<T>> {
    items.chunks(length).map(move |chunk| {
        let mut list = chunk.to_vec();
        // As long as a power of two: few statements, and little waste for a short list.
        let padded = chunk.len().next_power_of_two();
        list.resize(padded, chunk[chunk.len() - 1]);
        list
    })
}

impl Store for MySqlStore {
    async fn checkpoints(&mut self) -> Result<Vec<Checkpoint>, StoreError> {
        let sql = "SELECT lane, journal, position FROM checkpoints ORDER BY lane".to_owned();
        let read = |row: Columns| {
            Ok(Checkpoint {
                lane: row.narrow(0)?,
                journal: row.int(1)?,
                position: row.int(2)?,
            })
        };
        self.ask(sql, Vec::new(), read).await
    }

    async fn topic_ids(&mut self, topics: &[TopicKey]) -> Result<Vec<u32>, StoreError> {
        let mut ids: HashMap<TopicKey, u32> = HashMap::with_capacity(topics.len());
        // Asked first, made where missing, and asked again: an INSERT that finds its row there
        // would still use up an id.
        for round in 0..2 {
            let missing: Vec<&TopicKey> = topics
                .iter()
                .filter(|&topic| !ids.contains_key(topic))
                .collect();
            if round == 1 && !missing.is_empty() {
                self.make_topics(&missing).await?;
            }
            for list in lists(&missing, LIST) {
                let marks = vec!["?"; list.len()].join(",");
                let sql = format!("SELECT id, name, epoch FROM topics WHERE name IN ({marks})");
                let names = list
                    .iter()
                    .map(|topic| Value::from(topic.name.as_bytes()))
                    .collect();
                let read = |row: Columns| {
                    let key = TopicKey {
                        name: row.text(1)?.into(),
                        epoch: row.int(2)?,
                    };
                    Ok((key, row.narrow(0)?))
                };
                ids.extend(self.ask(sql, names, read).await?);
            }
        }
        let id = |topic: &TopicKey| {
            ids.get(topic).copied().ok_or_else(|| StoreError::Corrupt {
                reason: format!("topic {} has no id", topic.name),
            })
        };
        topics.iter().map(id).collect()
    }

    async fn recent(&mut self, topics: &[u32]) -> Result<Vec<Recent>, StoreError> {
        let mut found: HashMap<u32, Recent> = HashMap::new();
        for list in lists(topics, LIST) {
            let marks = vec!["?"; list.len()].join(",");
            let values = || list.iter().map(|&id| int(id.into())).collect::<Vec<_>>();
            let sql = format!("SELECT {LATEST_COLUMNS} FROM latest WHERE topic_id IN ({marks})");
            for row in self.ask(sql, values(), |row| row.latest()).await? {
                let row: LatestRow = row;
                found.entry(row.topic).or_default().latest = Some(row);
            }
            for (at, table) in CANDLE_TABLES.iter().enumerate() {
                let sql = format!(
                    "SELECT {CANDLE_COLUMNS} FROM {table} JOIN (SELECT topic_id AS id, MAX(start_ns) AS \
                     newest FROM {table} WHERE topic_id IN ({marks}) GROUP BY topic_id) AS n \
                     ON topic_id=n.id AND start_ns=n.newest"
                );
                for row in self.ask(sql, values(), |row| row.candle()).await? {
                    let row: CandleRow = row;
                    found.entry(row.topic).or_default().candles[at] = Some(row.candle);
                }
            }
        }
        Ok(topics
            .iter()
            .map(|id| found.get(id).cloned().unwrap_or_default())
            .collect())
    }

    async fn candles(
        &mut self,
        period: Period,
        keys: &[(u32, u64)],
    ) -> Result<Vec<CandleRow>, StoreError> {
        let mut found = Vec::new();
        for list in lists(keys, LIST) {
            // MariaDB looks keys up for OR, but not for (a,b) IN ((?,?),…).
            let marks = vec!["(topic_id=? AND start_ns=?)"; list.len()].join(" OR ");
            let values = list
                .iter()
                .flat_map(|&(topic, start)| [int(topic.into()), int(start)]);
            let sql = format!(
                "SELECT {CANDLE_COLUMNS} FROM {} WHERE {marks}",
                CANDLE_TABLES[period as usize]
            );
            found.extend(self.ask(sql, values.collect(), |row| row.candle()).await?);
        }
        Ok(found)
    }

    async fn commit(&mut self, batch: &Arc<Batch>) -> Result<(), StoreError> {
        for attempts in 1.. {
            let written = tokio::time::timeout(COMMIT_TIMEOUT, self.write(batch)).await;
            let written = written.unwrap_or_else(|_| {
                let reason = format!("no answer within {} s", COMMIT_TIMEOUT.as_secs());
                Err(StoreError::Lost { reason })
            });
            match written {
                Err(StoreError::Busy { reason, .. }) if attempts >= ATTEMPTS => {
                    return Err(StoreError::Busy { attempts, reason });
                }
                // The other transaction goes first; a little longer each time.
                Err(StoreError::Busy { .. }) => {
                    tokio::time::sleep(Duration::from_millis(5 * u64::from(attempts))).await;
                }
                done => return done,
            }
        }
        Ok(())
    }

    async fn page_events(
        &mut self,
        topic: u32,
        after_seq: u64,
        limit: usize,
    ) -> Result<Vec<EventRow>, StoreError> {
        let sql = format!(
            "SELECT {EVENT_COLUMNS} FROM events WHERE topic_id=? AND seq>? ORDER BY seq LIMIT ?"
        );
        let values = [topic.into(), after_seq.min(super::MAX_TIME_NS), page(limit)];
        self.ask(sql, values.map(int).to_vec(), |row| row.event())
            .await
    }
}

fn page(limit: usize) -> u64 {
    limit.min(MAX_PAGE) as u64
}
