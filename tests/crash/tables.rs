//! The database against the journal: what its tables must hold, reckoned from all events at once,
//! with no code of the server's.

use std::collections::{BTreeMap, HashMap};

use rusqlite::types::Value;
use tickring_protocol::{EventKind, Quote, Trade};
use xxhash_rust::xxh3::xxh3_64;

use super::check::{Checked, Event, Journal, ensure};
use super::database::{Database, Row};

/// A table: all of its columns, those of its key first.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    columns: &'static str,
    /// How many columns its key has.
    key: usize,
    /// In the order of the key.
    expected: Vec<Row>,
}

const CANDLES: [(&str, u64); 4] = [
    ("candles_1s", 1),
    ("candles_1m", 60),
    ("candles_1h", 3_600),
    ("candles_1d", 86_400),
];

/// The session of an instrument that trades around the clock.
const REGULAR: u64 = 2;

/// Every table, as the journal's events make it. The ids of topics are the database's own.
pub(crate) fn tables(database: &Database, journal: &Journal) -> Checked<Vec<Table>> {
    let ids = ids(database)?;
    let (mut topics, mut ticks, mut latest, mut events) = (vec![], vec![], vec![], vec![]);
    let mut candles: [Vec<Row>; 4] = Default::default();
    for (topic, of_topic) in &journal.topics {
        let Some(id) = ids.get(topic) else {
            return Err(format!("topics has no {topic}"));
        };
        let id = Value::Integer(*id);
        topics.push(vec![id.clone(), Value::Text(topic.clone()), int(0)]);
        if !topic.starts_with("market/") {
            events.extend(of_topic.iter().map(|event| event_row(&id, event)));
            continue;
        }
        ticks.extend(of_topic.iter().map(|event| tick_row(&id, event)));
        latest.push(latest_row(&id, of_topic));
        for (rows, (_, seconds)) in candles.iter_mut().zip(CANDLES) {
            rows.extend(candle_rows(&id, of_topic, seconds * 1_000_000_000));
        }
    }
    let table = |name, key, columns, mut expected: Vec<Row>| {
        expected.sort_by_cached_key(|row| integers(&row[..key]));
        Table {
            name,
            columns,
            key,
            expected,
        }
    };
    let mut out = vec![
        table("topics", 1, "id,name,epoch", topics),
        table(
            "ticks",
            3,
            "topic_id,event_ns,seq,node_ns,kind,session,price,qty,side,bid,bid_qty,ask,ask_qty,\
             price_decimals,qty_decimals",
            ticks,
        ),
        table(
            "latest",
            1,
            "topic_id,seq,node_ns,trade_ns,price,qty,side,trade_price_decimals,trade_qty_decimals,\
             quote_ns,bid,bid_qty,ask,ask_qty,quote_price_decimals,quote_qty_decimals",
            latest,
        ),
        table(
            "events",
            2,
            "topic_id,seq,kind,event_ns,node_ns,session,body",
            events,
        ),
    ];
    for ((name, _), rows) in CANDLES.into_iter().zip(candles) {
        let columns = "topic_id,start_ns,open,high,low,close,volume,trades,open_ns,close_ns,\
                       first_seq,last_seq";
        out.push(table(name, 2, columns, rows));
    }
    Ok(out)
}

impl Table {
    /// The table has these rows and no others, in every column. Gives how many.
    pub(crate) fn compare(&self, database: &Database) -> Checked<usize> {
        let named: Vec<&str> = self.columns.split(',').collect();
        let columns = database.width(self.name)?;
        ensure!(
            columns == named.len(),
            "{} has {columns} columns",
            self.name
        );
        let shown: Vec<String> = named.iter().map(|column| database.shown(column)).collect();
        let sql = format!(
            "SELECT {} FROM {} ORDER BY {}",
            shown.join(","),
            self.name,
            self.columns().0
        );
        let found = database.rows(&sql)?;
        for (found, expected) in found.iter().zip(&self.expected) {
            ensure!(
                found == expected,
                "{}: {found:?} instead of {expected:?} ({})",
                self.name,
                self.columns
            );
        }
        let (found, expected) = (found.len(), self.expected.len());
        ensure!(
            found == expected,
            "{}: {found} rows instead of {expected}",
            self.name
        );
        ensure!(found > 0, "{} is empty, which shows nothing", self.name);
        Ok(found)
    }

    /// A condition that its first row alone fulfils.
    pub(crate) fn first_row(&self, database: &Database) -> String {
        let (key, _) = self.columns();
        let first = format!("SELECT {key} FROM {} LIMIT 1", self.name);
        let first = integers(&database.rows(&first).unwrap()[0]);
        let is = |(column, value): (&str, i64)| format!("{column}={value}");
        let parts: Vec<String> = key.split(',').zip(first).map(is).collect();
        parts.join(" AND ")
    }

    /// The names of its key's columns, and of its other columns.
    pub(crate) fn columns(&self) -> (String, Vec<&'static str>) {
        let mut columns: Vec<&str> = self.columns.split(',').collect();
        let others = columns.split_off(self.key);
        (columns.join(","), others)
    }
}

/// Each lane's checkpoint is behind its last event and not beyond its end.
pub(crate) fn checkpoints(database: &Database, journal: &Journal) -> Checked<()> {
    let found = database.rows("SELECT lane,journal,position FROM checkpoints ORDER BY lane")?;
    let (lanes, count) = (&journal.lanes, found.len());
    ensure!(
        count == lanes.len(),
        "{count} checkpoints of {} lanes",
        lanes.len()
    );
    for (row, ((last, end), lane)) in found.iter().zip(lanes.iter().zip(0..)) {
        let [
            Value::Integer(of),
            Value::Integer(identity),
            Value::Integer(position),
        ] = row[..]
        else {
            return Err(format!("checkpoints: {row:?}"));
        };
        ensure!(of == lane, "lane {lane} has no checkpoint");
        ensure!(
            Value::Integer(identity) == found[0][1] && identity != 0,
            "lane {lane}: another journal than lane 0"
        );
        ensure!(
            last.is_some_and(|last| (position as u64) > last) && position as u64 <= *end,
            "lane {lane}: its checkpoint is at {position}, its last event at {last:?}, its end at {end}"
        );
    }
    Ok(())
}

fn ids(database: &Database) -> Checked<HashMap<String, i64>> {
    let found = database.rows("SELECT name, id FROM topics")?;
    let id = |row: Row| match row.as_slice() {
        [Value::Text(name), Value::Integer(id)] => Ok((name.clone(), *id)),
        other => Err(format!("topics: {other:?}")),
    };
    found.into_iter().map(id).collect()
}

fn event_row(id: &Value, event: &Event) -> Row {
    let session = match event.session {
        0 => 0,
        session => xxh3_64(&session.to_le_bytes()),
    };
    vec![
        id.clone(),
        int(event.seq),
        int(event.kind.into()),
        int(event.event_ns),
        int(event.node_ns),
        int(session),
        Value::Blob(event.body.clone()),
    ]
}

fn tick_row(id: &Value, event: &Event) -> Row {
    let head = [event.event_ns, event.seq, event.node_ns];
    let mut row = vec![id.clone()];
    row.extend(head.map(int));
    row.extend([event.kind.into(), REGULAR].map(int));
    let decimals = if let Some(trade) = trade(event) {
        row.extend(trade_values(&trade));
        row.extend([const { Value::Null }; 4]);
        [trade.price_decimals, trade.qty_decimals]
    } else {
        let quote = quote(event).expect("what is no trade is a quote");
        row.extend([const { Value::Null }; 3]);
        row.extend(quote_values(&quote));
        [quote.price_decimals, quote.qty_decimals]
    };
    row.extend(decimals.map(|decimals| int(decimals.into())));
    row
}

fn latest_row(id: &Value, events: &[Event]) -> Row {
    let last = events.last().expect("a topic of the journal has events");
    let mut row = vec![id.clone(), int(last.seq), int(last.node_ns)];
    let newest = |event: &&Event| (event.event_ns, event.seq);
    let trades = events.iter().filter(|event| trade(event).is_some());
    match trades.max_by_key(newest) {
        Some(event) => {
            let trade = trade(event).expect("it is one");
            row.push(int(event.event_ns));
            row.extend(trade_values(&trade));
            row.extend([trade.price_decimals, trade.qty_decimals].map(|d| int(d.into())));
        }
        None => row.extend([const { Value::Null }; 6]),
    }
    let quotes = events.iter().filter(|event| quote(event).is_some());
    match quotes.max_by_key(newest) {
        Some(event) => {
            let quote = quote(event).expect("it is one");
            row.push(int(event.event_ns));
            row.extend(quote_values(&quote));
            row.extend([quote.price_decimals, quote.qty_decimals].map(|d| int(d.into())));
        }
        None => row.extend([const { Value::Null }; 7]),
    }
    row
}

/// Candles of one length, of all trades of a topic.
fn candle_rows(id: &Value, events: &[Event], len: u64) -> Vec<Row> {
    let mut spans: BTreeMap<u64, Vec<(&Event, Trade)>> = BTreeMap::new();
    for event in events {
        if let Some(trade) = trade(event) {
            let start = event.event_ns - event.event_ns % len;
            spans.entry(start).or_default().push((event, trade));
        }
    }
    let row = |(start, mut trades): (u64, Vec<(&Event, Trade)>)| {
        trades.sort_by_key(|(event, _)| (event.event_ns, event.seq));
        let ((first, open), (last, close)) = (trades[0], trades[trades.len() - 1]);
        let prices = || trades.iter().map(|(_, trade)| trade.price.0);
        let seqs = || trades.iter().map(|(event, _)| event.seq);
        let (high, low) = (prices().max().unwrap(), prices().min().unwrap());
        let volume = trades.iter().map(|(_, trade)| trade.qty.0).sum();
        let mut row = vec![id.clone(), int(start)];
        row.extend([open.price.0, high, low, close.price.0, volume].map(Value::Integer));
        row.extend([trades.len() as u64, first.event_ns, last.event_ns].map(int));
        row.extend([seqs().min().unwrap(), seqs().max().unwrap()].map(int));
        row
    };
    spans.into_iter().map(row).collect()
}

fn trade(event: &Event) -> Option<Trade> {
    let is_one = event.kind == EventKind::Trade as u16;
    is_one.then(|| Trade::decode(&event.body).unwrap())
}

fn quote(event: &Event) -> Option<Quote> {
    let is_one = event.kind == EventKind::Quote as u16;
    is_one.then(|| Quote::decode(&event.body).unwrap())
}

fn trade_values(trade: &Trade) -> [Value; 3] {
    [trade.price.0, trade.qty.0, trade.side as i64].map(Value::Integer)
}

fn quote_values(quote: &Quote) -> [Value; 4] {
    [quote.bid.0, quote.bid_qty.0, quote.ask.0, quote.ask_qty.0].map(Value::Integer)
}

fn integers(values: &[Value]) -> Vec<i64> {
    let integer = |value: &Value| match value {
        Value::Integer(number) => *number,
        other => panic!("{other:?} in a key"),
    };
    values.iter().map(integer).collect()
}

/// The databases' integers have a sign; the same 64 bits.
fn int(number: u64) -> Value {
    Value::Integer(number as i64)
}
