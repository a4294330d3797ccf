//! The tables, as numbered migrations. A migration, once released, never changes.
//!
//! Keys are the clustered index, chosen so that there is no second one to keep up:
//! `ticks` by (topic, event time, seq), the order in which they are read back and close to the
//! order in which they come; candles by (topic, start); `events` by (topic, seq). The event time
//! leads, so a table can be partitioned by time later without another key.
//! `first_seq`, `last_seq`: what a candle covers. `open_ns`, `close_ns`: event times of its open
//! and close, so that a late trade can be folded in without reading ticks.

/// The newest version of the tables that this build knows, and brings older ones to.
pub const SCHEMA_VERSION: u32 = 1;

/// The candle tables, in the order of [`Period::ALL`](crate::market::Period::ALL).
pub(super) const CANDLE_TABLES: [&str; 4] =
    ["candles_1s", "candles_1m", "candles_1h", "candles_1d"];

pub(super) const TICK_COLUMNS: &str = "topic_id,event_ns,seq,node_ns,kind,session,price,qty,side,\
     bid,bid_qty,ask,ask_qty,price_decimals,qty_decimals";
pub(super) const CANDLE_COLUMNS: &str =
    "topic_id,start_ns,open,high,low,close,volume,trades,open_ns,close_ns,first_seq,last_seq";
pub(super) const LATEST_COLUMNS: &str = "topic_id,seq,node_ns,trade_ns,price,qty,side,\
     trade_price_decimals,trade_qty_decimals,quote_ns,bid,bid_qty,ask,ask_qty,\
     quote_price_decimals,quote_qty_decimals";
pub(super) const EVENT_COLUMNS: &str = "topic_id,seq,kind,event_ns,node_ns,session,body";

/// Types that the databases call differently.
struct Types {
    id: &'static str,
    long: &'static str,
    small: &'static str,
    decimal: &'static str,
    blob: &'static str,
    /// Behind a table's columns.
    tail: &'static str,
}

fn tables(t: &Types) -> Vec<String> {
    let Types {
        id,
        long,
        small,
        decimal,
        blob,
        tail,
    } = t;
    let mut out = vec![
        format!(
            "CREATE TABLE IF NOT EXISTS ticks (topic_id {id} NOT NULL, event_ns {long} NOT NULL, \
             seq {long} NOT NULL, node_ns {long} NOT NULL, kind {small} NOT NULL, \
             session {small} NOT NULL, price {decimal}, qty {decimal}, side {small}, bid {decimal}, \
             bid_qty {decimal}, ask {decimal}, ask_qty {decimal}, price_decimals {small} NOT NULL, \
             qty_decimals {small} NOT NULL, PRIMARY KEY (topic_id, event_ns, seq)) {tail}"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS latest (topic_id {id} NOT NULL, seq {long} NOT NULL, \
             node_ns {long} NOT NULL, trade_ns {long}, price {decimal}, qty {decimal}, side {small}, \
             trade_price_decimals {small}, trade_qty_decimals {small}, quote_ns {long}, bid {decimal}, \
             bid_qty {decimal}, ask {decimal}, ask_qty {decimal}, quote_price_decimals {small}, \
             quote_qty_decimals {small}, PRIMARY KEY (topic_id)) {tail}"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS events (topic_id {id} NOT NULL, seq {long} NOT NULL, \
             kind {id} NOT NULL, event_ns {long} NOT NULL, node_ns {long} NOT NULL, \
             session {long} NOT NULL, body {blob} NOT NULL, PRIMARY KEY (topic_id, seq)) {tail}"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS checkpoints (lane {id} NOT NULL, journal {long} NOT NULL, \
             position {long} NOT NULL, PRIMARY KEY (lane)) {tail}"
        ),
    ];
    for table in CANDLE_TABLES {
        out.push(format!(
            "CREATE TABLE IF NOT EXISTS {table} (topic_id {id} NOT NULL, start_ns {long} NOT NULL, \
             open {decimal} NOT NULL, high {decimal} NOT NULL, low {decimal} NOT NULL, \
             close {decimal} NOT NULL, volume {decimal} NOT NULL, trades {long} NOT NULL, \
             open_ns {long} NOT NULL, close_ns {long} NOT NULL, first_seq {long} NOT NULL, \
             last_seq {long} NOT NULL, PRIMARY KEY (topic_id, start_ns)) {tail}"
        ));
    }
    out
}

/// The statements that bring MySQL's tables from `version - 1` to `version`. They can be run again
/// after a crash between two of them: MySQL commits each by itself.
pub(super) fn mysql(version: u32) -> Vec<String> {
    match version {
        1 => {
            let mut out = tables(&Types {
                id: "INT UNSIGNED",
                long: "BIGINT",
                small: "TINYINT UNSIGNED",
                decimal: "DECIMAL(19,6)",
                blob: "LONGBLOB",
                tail: "ENGINE=InnoDB",
            });
            // Names are compared byte by byte: topics that differ in case are two topics.
            out.push(
                "CREATE TABLE IF NOT EXISTS topics (id INT UNSIGNED NOT NULL AUTO_INCREMENT, \
                 name VARBINARY(255) NOT NULL, epoch BIGINT NOT NULL, PRIMARY KEY (id), \
                 UNIQUE KEY name_epoch (name, epoch)) ENGINE=InnoDB"
                    .to_owned(),
            );
            out
        }
        _ => Vec::new(),
    }
}

/// The same for SQLite, where all of them run in one transaction.
pub(super) fn sqlite(version: u32) -> Vec<String> {
    match version {
        1 => {
            let mut out = tables(&Types {
                id: "INTEGER",
                long: "INTEGER",
                small: "INTEGER",
                decimal: "INTEGER",
                blob: "BLOB",
                tail: "STRICT, WITHOUT ROWID",
            });
            out.push(
                "CREATE TABLE IF NOT EXISTS topics (id INTEGER PRIMARY KEY, name TEXT NOT NULL, \
                 epoch INTEGER NOT NULL, UNIQUE (name, epoch)) STRICT"
                    .to_owned(),
            );
            out.extend(sqlite_views());
            out
        }
        _ => Vec::new(),
    }
}

/// Views that show millionths as exact decimal text.
fn sqlite_views() -> Vec<String> {
    const DECIMALS: [&str; 11] = [
        "price", "qty", "bid", "bid_qty", "ask", "ask_qty", "open", "high", "low", "close",
        "volume",
    ];
    let view = |table: &str, columns: &str| {
        let shown: Vec<String> = columns
            .split(',')
            .map(str::trim)
            .map(|column| match DECIMALS.contains(&column) {
                // Quotient and remainder are within range even for the smallest value, its
                // negation is not.
                true => format!(
                    "CASE WHEN {column} IS NOT NULL THEN printf('%s%lld.%06lld', iif({column}<0,'-',''), \
                     abs({column}/1000000), abs({column}%1000000)) END AS {column}"
                ),
                false => column.to_owned(),
            })
            .collect();
        format!(
            "CREATE VIEW IF NOT EXISTS {table}_text AS SELECT {} FROM {table}",
            shown.join(",")
        )
    };
    let mut out = vec![view("ticks", TICK_COLUMNS), view("latest", LATEST_COLUMNS)];
    out.extend(CANDLE_TABLES.map(|table| view(table, CANDLE_COLUMNS)));
    out
}

/// What replaces a stored row: every column of `columns` but the key, if the new row's `guard` is
/// larger. `new` and `old` name a column of the new and of the stored row. The guard comes last,
/// because MySQL assigns from left to right and would compare with the new value from there on.
pub(super) fn guarded(
    columns: &str,
    key: &[&str],
    guard: &str,
    set: impl Fn(&str) -> String,
) -> String {
    let mut names: Vec<&str> = columns
        .split(',')
        .map(str::trim)
        .filter(|column| !key.contains(column) && *column != guard)
        .collect();
    names.push(guard);
    names.into_iter().map(set).collect::<Vec<_>>().join(",")
}
