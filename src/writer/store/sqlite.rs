//! SQLite: the embedded default.
//!
//! SQLite's calls block, and a writer thread also runs fsyncs of the journal. So a file has **two
//! threads of its own**: one that writes, which also puts the lanes' transactions one behind the
//! other (SQLite has one writer anyway; this way none sees "database is locked"), and one that
//! reads pages, which write-ahead logging lets go on beside the writer. A pool of blocking threads
//! would give neither the order nor the prepared statements.
//!
//! `synchronous = FULL`: the journal may be trimmed up to a checkpoint, so a checkpoint that has
//! committed must survive a power cut.

mod pages;

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use rusqlite::types::Value;
use rusqlite::{CachedStatement, Connection, ErrorCode, OptionalExtension, Row, ToSql, params};
use tickring_protocol::{Micros, Quote, Side, Trade};

use super::batch::{
    Batch, CandleRow, Checkpoint, EventRow, LatestRow, TickContent, TickRow, TopicKey,
};
use super::schema::{
    self, CANDLE_COLUMNS, CANDLE_TABLES, EVENT_COLUMNS, LATEST_COLUMNS, SCHEMA_VERSION,
    TICK_COLUMNS,
};
use super::{MAX_PAGE, Recent, Store, StoreError};
use crate::market::{Candle, Period, Session};

pub use pages::SqliteReader;

/// Marks a file as tickring's: "tick".
const APPLICATION_ID: i32 = 0x7469_636b;
/// How often a transaction is tried that another program's lock stops (5 s each).
const ATTEMPTS: u32 = 5;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A thread that owns a connection. It ends when the last handle to it is dropped.
#[derive(Clone)]
struct Worker(mpsc::Sender<Job>);

impl Worker {
    fn spawn(name: &str, path: &Path, mut connection: Connection) -> Result<Self, StoreError> {
        let (sender, jobs) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                for job in jobs {
                    job(&mut connection);
                }
            })
            .map_err(|error| file(path, &error))?;
        Ok(Self(sender))
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let lost = || StoreError::Lost {
            reason: "the SQLite thread has ended".to_owned(),
        };
        self.0
            .send(Box::new(move |connection| {
                // Nobody waits any more: the work is done all the same.
                let _ = answer.send(work(connection));
            }))
            .map_err(|_| lost())?;
        answered.await.map_err(|_| lost())?
    }
}

/// A SQLite file with the projection's tables. Clones share the file's two threads: one per lane.
#[derive(Clone)]
pub struct SqliteStore {
    writer: Worker,
    reader: Worker,
}

impl SqliteStore {
    /// Opens the file, makes it if there is none, and brings its tables to this build's version.
    /// Blocks: call it before traffic.
    ///
    /// # Errors
    /// [`StoreError::File`] when it cannot be opened or is not tickring's;
    /// [`StoreError::NewerSchema`] when a newer tickring made its tables.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path = path.into();
        let open = || -> Result<Connection, StoreError> {
            let connection = Connection::open(&path).map_err(|error| file(&path, &error))?;
            connection
                .execute_batch(
                    "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                     PRAGMA cache_size = -65536; PRAGMA temp_store = MEMORY;",
                )
                .map_err(|error| file(&path, &error))?;
            connection.set_prepared_statement_cache_capacity(64);
            Ok(connection)
        };
        let mut writing = open()?;
        migrate(&mut writing, &path)?;
        let reading = open()?;
        reading
            .execute_batch("PRAGMA query_only = ON")
            .map_err(|error| file(&path, &error))?;
        Ok(Self {
            writer: Worker::spawn("sqlite-write", &path, writing)?,
            reader: Worker::spawn("sqlite-read", &path, reading)?,
        })
    }
}

fn file(path: &Path, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::File {
        path: path.display().to_string(),
        reason: error.to_string(),
    }
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let wrong = |error: rusqlite::Error| file(path, &error);
    let tx = connection
        .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
        .map_err(wrong)?;
    let mark: i32 = tx
        .query_row("PRAGMA application_id", [], |row| row.get(0))
        .map_err(wrong)?;
    let objects: u32 = tx
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(wrong)?;
    if mark != APPLICATION_ID && (mark != 0 || objects > 0) {
        return Err(file(path, &"it holds the tables of another program"));
    }
    tx.execute_batch(&format!(
        "PRAGMA application_id = {APPLICATION_ID};
         CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL PRIMARY KEY) STRICT;"
    ))
    .map_err(wrong)?;
    let found: u32 = tx
        .query_row(
            "SELECT coalesce(max(version), 0) FROM schema_version",
            [],
            |row| row.get(0),
        )
        .map_err(|error| StoreError::BrokenSchema {
            reason: error.to_string(),
        })?;
    if found > SCHEMA_VERSION {
        return Err(StoreError::NewerSchema {
            found,
            known: SCHEMA_VERSION,
        });
    }
    for version in found + 1..=SCHEMA_VERSION {
        for statement in schema::sqlite(version) {
            tx.execute_batch(&statement).map_err(wrong)?;
        }
        tx.execute("INSERT INTO schema_version VALUES (?)", [version])
            .map_err(wrong)?;
    }
    tx.commit().map_err(wrong)
}

/// What an error after the opening means.
fn refused(error: rusqlite::Error) -> StoreError {
    let reason = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Busy {
            attempts: 1,
            reason,
        },
        Some(ErrorCode::DiskFull) => StoreError::Full { reason },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::Corrupt { reason }
        }
        _ => StoreError::Refused { reason },
    }
}

/// Numbers beyond i64 only occur where order does not count (epochs, journals, sessions).
fn int(number: u64) -> Value {
    Value::Integer(number as i64)
}

fn micros(value: Option<Micros>) -> Value {
    value.map_or(Value::Null, |value| Value::Integer(value.0))
}

fn small(value: Option<u8>) -> Value {
    value.map_or(Value::Null, |value| Value::Integer(value.into()))
}

struct Inserts {
    tick: String,
    latest: String,
    event: String,
    candles: [String; 4],
}

impl Inserts {
    fn new() -> Self {
        let insert = |table: &str, columns: &str| {
            let marks = vec!["?"; columns.split(',').count()].join(",");
            format!("INSERT INTO {table} ({columns}) VALUES ({marks})")
        };
        let guarded = |table: &str, columns: &str, key: &[&str], guard: &str| {
            let set = schema::guarded(columns, key, guard, |c| format!("{c}=excluded.{c}"));
            format!(
                "{} ON CONFLICT ({}) DO UPDATE SET {set} WHERE excluded.{guard} > {guard}",
                insert(table, columns),
                key.join(",")
            )
        };
        Self {
            tick: format!("{} ON CONFLICT DO NOTHING", insert("ticks", TICK_COLUMNS)),
            event: format!("{} ON CONFLICT DO NOTHING", insert("events", EVENT_COLUMNS)),
            latest: guarded("latest", LATEST_COLUMNS, &["topic_id"], "seq"),
            candles: CANDLE_TABLES
                .map(|table| guarded(table, CANDLE_COLUMNS, &["topic_id", "start_ns"], "last_seq")),
        }
    }
}

fn tick_values(row: &TickRow) -> [Value; 15] {
    let (trade, quote) = match row.content {
        TickContent::Trade(trade) => (Some(trade), None),
        TickContent::Quote(quote) => (None, Some(quote)),
    };
    let decimals = match row.content {
        TickContent::Trade(t) => (t.price_decimals, t.qty_decimals),
        TickContent::Quote(q) => (q.price_decimals, q.qty_decimals),
    };
    [
        int(row.topic.into()),
        int(row.event_ns),
        int(row.seq),
        int(row.node_ns),
        int(row.content.kind().into()),
        int(row.session as u64),
        micros(trade.map(|t| t.price)),
        micros(trade.map(|t| t.qty)),
        small(trade.map(|t| t.side as u8)),
        micros(quote.map(|q| q.bid)),
        micros(quote.map(|q| q.bid_qty)),
        micros(quote.map(|q| q.ask)),
        micros(quote.map(|q| q.ask_qty)),
        small(Some(decimals.0)),
        small(Some(decimals.1)),
    ]
}

fn latest_values(row: &LatestRow) -> [Value; 16] {
    let (trade, quote) = (row.trade.map(|t| t.1), row.quote.map(|q| q.1));
    [
        int(row.topic.into()),
        int(row.seq),
        int(row.node_ns),
        row.trade.map_or(Value::Null, |t| int(t.0)),
        micros(trade.map(|t| t.price)),
        micros(trade.map(|t| t.qty)),
        small(trade.map(|t| t.side as u8)),
        small(trade.map(|t| t.price_decimals)),
        small(trade.map(|t| t.qty_decimals)),
        row.quote.map_or(Value::Null, |q| int(q.0)),
        micros(quote.map(|q| q.bid)),
        micros(quote.map(|q| q.bid_qty)),
        micros(quote.map(|q| q.ask)),
        micros(quote.map(|q| q.ask_qty)),
        small(quote.map(|q| q.price_decimals)),
        small(quote.map(|q| q.qty_decimals)),
    ]
}

fn candle_values(row: &CandleRow) -> [Value; 12] {
    let c = &row.candle;
    let money = |value: Micros| micros(Some(value));
    [
        int(row.topic.into()),
        int(c.start_ns),
        money(c.open),
        money(c.high),
        money(c.low),
        money(c.close),
        money(c.volume),
        int(c.trades),
        int(c.open_ns),
        int(c.close_ns),
        int(c.first_seq),
        int(c.last_seq),
    ]
}

/// One prepared statement run for each row: SQLite has no wire to save, so more rows in one
/// statement would only mean more parsing.
fn run_all<const N: usize>(
    mut statement: CachedStatement<'_>,
    rows: impl Iterator<Item = [Value; N]>,
) -> rusqlite::Result<()> {
    for row in rows {
        statement.execute(rusqlite::params_from_iter(row))?;
    }
    Ok(())
}

fn write(connection: &mut Connection, batch: &Batch) -> rusqlite::Result<()> {
    let tx = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let inserts = Inserts::new();
    run_all(
        tx.prepare_cached(&inserts.tick)?,
        batch.ticks.iter().map(tick_values),
    )?;
    run_all(
        tx.prepare_cached(&inserts.latest)?,
        batch.latest.iter().map(latest_values),
    )?;
    for (insert, rows) in inserts.candles.iter().zip(&batch.candles) {
        run_all(tx.prepare_cached(insert)?, rows.iter().map(candle_values))?;
    }
    {
        let mut statement = tx.prepare_cached(&inserts.event)?;
        for row in &batch.events {
            let numbers = [
                row.topic.into(),
                row.seq,
                row.kind.into(),
                row.event_ns,
                row.node_ns,
                row.session,
            ]
            .map(|number| number as i64);
            let [topic, seq, kind, event_ns, node_ns, session] = &numbers;
            let values: [&dyn ToSql; 7] = [topic, seq, kind, event_ns, node_ns, session, &row.body];
            statement.execute(values)?;
        }
    }
    let at = batch.checkpoint;
    tx.prepare_cached(
        "INSERT INTO checkpoints (lane, journal, position) VALUES (?,?,?) \
         ON CONFLICT (lane) DO UPDATE SET journal=excluded.journal, position=excluded.position \
         WHERE excluded.journal <> journal OR excluded.position > position",
    )?
    .execute(params![at.lane, at.journal as i64, at.position as i64])?;
    tx.commit()
}

fn get<T: rusqlite::types::FromSql>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    row.get(column)
}

fn long(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)? as u64)
}

fn side(row: &Row<'_>, column: usize) -> rusqlite::Result<Side> {
    Ok(super::batch::side(row.get(column)?))
}

fn read_trade(row: &Row<'_>, at: usize, decimals: usize) -> rusqlite::Result<Trade> {
    Ok(Trade {
        price: Micros(get(row, at)?),
        qty: Micros(get(row, at + 1)?),
        side: side(row, at + 2)?,
        price_decimals: get(row, decimals)?,
        qty_decimals: get(row, decimals + 1)?,
    })
}

fn read_quote(row: &Row<'_>, at: usize, decimals: usize) -> rusqlite::Result<Quote> {
    Ok(Quote {
        bid: Micros(get(row, at)?),
        bid_qty: Micros(get(row, at + 1)?),
        ask: Micros(get(row, at + 2)?),
        ask_qty: Micros(get(row, at + 3)?),
        price_decimals: get(row, decimals)?,
        qty_decimals: get(row, decimals + 1)?,
    })
}

fn read_tick(row: &Row<'_>) -> rusqlite::Result<TickRow> {
    let content = match get::<Option<i64>>(row, 6)? {
        Some(_) => TickContent::Trade(read_trade(row, 6, 13)?),
        None => TickContent::Quote(read_quote(row, 9, 13)?),
    };
    Ok(TickRow {
        topic: get(row, 0)?,
        event_ns: long(row, 1)?,
        seq: long(row, 2)?,
        node_ns: long(row, 3)?,
        session: Session::from_number(get(row, 5)?).unwrap_or_default(),
        content,
    })
}

fn read_latest(row: &Row<'_>) -> rusqlite::Result<LatestRow> {
    let time = |column| get::<Option<i64>>(row, column);
    Ok(LatestRow {
        topic: get(row, 0)?,
        seq: long(row, 1)?,
        node_ns: long(row, 2)?,
        trade: time(3)?
            .map(|at| read_trade(row, 4, 7).map(|t| (at as u64, t)))
            .transpose()?,
        quote: time(9)?
            .map(|at| read_quote(row, 10, 14).map(|q| (at as u64, q)))
            .transpose()?,
    })
}

fn read_candle(row: &Row<'_>) -> rusqlite::Result<CandleRow> {
    Ok(CandleRow {
        topic: get(row, 0)?,
        candle: Candle {
            start_ns: long(row, 1)?,
            open: Micros(get(row, 2)?),
            high: Micros(get(row, 3)?),
            low: Micros(get(row, 4)?),
            close: Micros(get(row, 5)?),
            volume: Micros(get(row, 6)?),
            trades: long(row, 7)?,
            open_ns: long(row, 8)?,
            close_ns: long(row, 9)?,
            first_seq: long(row, 10)?,
            last_seq: long(row, 11)?,
        },
    })
}

fn rows<T>(
    connection: &Connection,
    sql: &str,
    values: impl rusqlite::Params,
    read: fn(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = connection.prepare_cached(sql).map_err(refused)?;
    let found = statement.query_map(values, read).map_err(refused)?;
    found.collect::<rusqlite::Result<Vec<T>>>().map_err(refused)
}

fn make_ids(connection: &mut Connection, topics: &[TopicKey]) -> rusqlite::Result<Vec<u32>> {
    let tx = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let mut ids = Vec::with_capacity(topics.len());
    for topic in topics {
        let values = params![topic.name, topic.epoch as i64];
        tx.prepare_cached("INSERT INTO topics (name, epoch) VALUES (?,?) ON CONFLICT DO NOTHING")?
            .execute(values)?;
        ids.push(
            tx.prepare_cached("SELECT id FROM topics WHERE name=? AND epoch=?")?
                .query_row(values, |row| row.get(0))?,
        );
    }
    tx.commit()?;
    Ok(ids)
}

fn find_recent(connection: &Connection, topic: u32) -> rusqlite::Result<Recent> {
    let mut recent = Recent {
        latest: connection
            .prepare_cached(&format!(
                "SELECT {LATEST_COLUMNS} FROM latest WHERE topic_id=?"
            ))?
            .query_row([topic], read_latest)
            .optional()?,
        ..Recent::default()
    };
    for (table, candle) in CANDLE_TABLES.iter().zip(&mut recent.candles) {
        *candle = connection
            .prepare_cached(&format!(
                "SELECT {CANDLE_COLUMNS} FROM {table} WHERE topic_id=? ORDER BY start_ns DESC LIMIT 1"
            ))?
            .query_row([topic], read_candle)
            .optional()?
            .map(|row| row.candle);
    }
    Ok(recent)
}

impl Store for SqliteStore {
    async fn checkpoints(&mut self) -> Result<Vec<Checkpoint>, StoreError> {
        self.writer
            .run(|connection| {
                rows(
                    connection,
                    "SELECT lane, journal, position FROM checkpoints ORDER BY lane",
                    [],
                    |row| {
                        Ok(Checkpoint {
                            lane: get(row, 0)?,
                            journal: long(row, 1)?,
                            position: long(row, 2)?,
                        })
                    },
                )
            })
            .await
    }

    async fn topic_ids(&mut self, topics: &[TopicKey]) -> Result<Vec<u32>, StoreError> {
        let topics = topics.to_vec();
        self.writer
            .run(move |connection| make_ids(connection, &topics).map_err(refused))
            .await
    }

    async fn recent(&mut self, topics: &[u32]) -> Result<Vec<Recent>, StoreError> {
        let topics = topics.to_vec();
        self.writer
            .run(move |connection| {
                topics
                    .iter()
                    .map(|&topic| find_recent(connection, topic).map_err(refused))
                    .collect()
            })
            .await
    }

    async fn candles(
        &mut self,
        period: Period,
        keys: &[(u32, u64)],
    ) -> Result<Vec<CandleRow>, StoreError> {
        let (table, keys) = (CANDLE_TABLES[period as usize], keys.to_vec());
        self.writer
            .run(move |connection| {
                let sql =
                    format!("SELECT {CANDLE_COLUMNS} FROM {table} WHERE topic_id=? AND start_ns=?");
                let mut found = Vec::new();
                for (topic, start_ns) in keys {
                    found.extend(rows(
                        connection,
                        &sql,
                        params![topic, start_ns as i64],
                        read_candle,
                    )?);
                }
                Ok(found)
            })
            .await
    }

    async fn commit(&mut self, batch: &Arc<Batch>) -> Result<(), StoreError> {
        let batch = Arc::clone(batch);
        self.writer
            .run(move |connection| {
                for attempts in 1.. {
                    match write(connection, &batch).map_err(refused) {
                        Err(StoreError::Busy { reason, .. }) if attempts >= ATTEMPTS => {
                            return Err(StoreError::Busy { attempts, reason });
                        }
                        Err(StoreError::Busy { .. }) => {}
                        done => return done,
                    }
                }
                Ok(())
            })
            .await
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
        self.reader
            .run(move |connection| {
                let values = params![topic, after_seq as i64, limit.min(MAX_PAGE) as i64];
                rows(connection, &sql, values, |row| {
                    Ok(EventRow {
                        topic: get(row, 0)?,
                        seq: long(row, 1)?,
                        kind: get(row, 2)?,
                        event_ns: long(row, 3)?,
                        node_ns: long(row, 4)?,
                        session: long(row, 5)?,
                        body: get(row, 6)?,
                    })
                })
            })
            .await
    }
}
