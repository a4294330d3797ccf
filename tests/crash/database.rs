//! The database that the server writes to, looked into with no code of the server's: SQLite in its
//! data directory, or a database of the test's own on the server of `TICKRING_CRASH_MYSQL`.

use std::cell::RefCell;
use std::path::Path;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params, Row as MySqlRow, Value as MySqlValue};
use rusqlite::Connection;
use rusqlite::types::Value;
use tokio::runtime::Runtime;

use super::check::Checked;

pub(crate) type Row = Vec<Value>;

/// Prices and quantities: millionths in SQLite, DECIMAL(19,6) in MySQL.
const DECIMALS: [&str; 11] = [
    "price", "qty", "bid", "bid_qty", "ask", "ask_qty", "open", "high", "low", "close", "volume",
];

/// Where the server is to write.
pub(crate) struct Place {
    /// With a database of the test's own; `None`: SQLite.
    pub(crate) url: Option<String>,
}

impl Place {
    /// Makes the database, where one has to be made.
    pub(crate) fn new() -> Self {
        let Ok(server) = std::env::var("TICKRING_CRASH_MYSQL") else {
            return Self { url: None };
        };
        let name = format!("tickring_crash_{}", std::process::id());
        let database = Database::connect(&server);
        database.execute(&format!("DROP DATABASE IF EXISTS {name}"));
        database.execute(&format!("CREATE DATABASE {name}"));
        let (server, _) = server.rsplit_once('/').expect("a URL names a database");
        Self {
            url: Some(format!("{server}/{name}")),
        }
    }

    /// Looks into the tables.
    pub(crate) fn open(&self, data: &Path) -> Database {
        match &self.url {
            None => Database::Sqlite(Connection::open(data.join("tickring.sqlite")).unwrap()),
            Some(url) => Database::connect(url),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((_, name)) = self.url.as_ref().and_then(|url| url.rsplit_once('/')) else {
            return;
        };
        if std::thread::panicking() {
            eprintln!("the tables are kept in the database {name}");
        } else if let Some(url) = &self.url {
            Database::connect(url).execute(&format!("DROP DATABASE {name}"));
        }
    }
}

/// A connection past the server.
pub(crate) enum Database {
    Sqlite(Connection),
    MySql(Runtime, RefCell<Conn>),
}

impl Database {
    fn connect(url: &str) -> Self {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().unwrap();
        let connection = runtime.block_on(Conn::from_url(url)).unwrap();
        Self::MySql(runtime, RefCell::new(connection))
    }

    /// What it calls itself.
    pub(crate) fn version(&self) -> String {
        let sql = match self {
            Self::Sqlite(_) => "SELECT 'SQLite ' || sqlite_version() AS name",
            Self::MySql(..) => "SELECT VERSION() AS name",
        };
        match self.rows(sql).unwrap().concat().as_slice() {
            [Value::Text(version)] => version.clone(),
            other => panic!("{other:?} is no version"),
        }
    }

    /// Runs a statement; gives how many rows it changed.
    pub(crate) fn execute(&self, sql: &str) -> usize {
        match self {
            Self::Sqlite(database) => database.execute(sql, []).unwrap(),
            Self::MySql(runtime, connection) => {
                let mut connection = connection.borrow_mut();
                runtime.block_on(connection.query_drop(sql)).unwrap();
                connection.affected_rows() as usize
            }
        }
    }

    /// The rows of an answer. Numbers beyond i64 come as the same 64 bits, a column `name` as text.
    pub(crate) fn rows(&self, sql: &str) -> Checked<Vec<Row>> {
        match self {
            Self::Sqlite(database) => {
                let read = || {
                    let mut statement = database.prepare(sql)?;
                    let columns = statement.column_count();
                    let found = statement
                        .query_map([], |row| (0..columns).map(|at| row.get(at)).collect())?;
                    found.collect::<rusqlite::Result<Vec<Row>>>()
                };
                read().map_err(|error| format!("{sql}: {error}"))
            }
            Self::MySql(runtime, connection) => {
                let mut connection = connection.borrow_mut();
                // Prepared, so that numbers come as numbers.
                let found = runtime.block_on(connection.exec(sql, Params::Empty));
                let found: Vec<MySqlRow> = found.map_err(|error| format!("{sql}: {error}"))?;
                Ok(found.into_iter().map(values).collect())
            }
        }
    }

    /// How many columns a table has.
    pub(crate) fn width(&self, table: &str) -> Checked<usize> {
        let sql = match self {
            Self::Sqlite(_) => format!("SELECT name FROM pragma_table_info('{table}')"),
            Self::MySql(..) => format!(
                "SELECT column_name FROM information_schema.columns \
                 WHERE table_schema=DATABASE() AND table_name='{table}'"
            ),
        };
        self.rows(&sql).map(|rows| rows.len())
    }

    /// How a column is asked for: decimals in millionths.
    pub(crate) fn shown(&self, column: &str) -> String {
        match self {
            Self::MySql(..) if DECIMALS.contains(&column) => {
                format!("CAST({column}*1000000 AS SIGNED)")
            }
            _ => column.to_owned(),
        }
    }
}

fn values(row: MySqlRow) -> Row {
    let columns = row.columns();
    let value = |(value, column): (MySqlValue, &mysql_async::Column)| match value {
        MySqlValue::NULL => Value::Null,
        MySqlValue::Int(number) => Value::Integer(number),
        MySqlValue::UInt(number) => Value::Integer(number as i64),
        MySqlValue::Bytes(text) if column.name_str() == "name" => {
            Value::Text(String::from_utf8(text).unwrap())
        }
        MySqlValue::Bytes(bytes) => Value::Blob(bytes),
        other => panic!("{other:?} in {}", column.name_str()),
    };
    row.unwrap()
        .into_iter()
        .zip(columns.iter())
        .map(value)
        .collect()
}
