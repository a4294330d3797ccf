//! Where a test's database lives, and a look into it past the store.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, Row, Value};

use super::super::schema::CANDLE_TABLES;
use super::super::{Database, MySqlStore, ReadOnly, SqliteReader, SqliteStore, StoreError};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A database of one test: removed with it.
pub(crate) struct Place {
    directory: PathBuf,
    /// Of the MySQL server, if it is one: the URL of the environment.
    server: Option<String>,
    database: String,
}

impl Place {
    fn new(server: Option<String>) -> Self {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let database = format!("tickring_test_{}_{n}", std::process::id());
        let directory = std::env::temp_dir().join(&database);
        std::fs::create_dir_all(&directory).unwrap();
        Self {
            directory,
            server,
            database,
        }
    }

    pub(crate) fn sqlite() -> Self {
        Self::new(None)
    }

    /// `None`, and a word about it, where no server is given.
    pub(crate) async fn mysql() -> Option<Self> {
        let Ok(url) = std::env::var("TICKRING_TEST_MYSQL") else {
            eprintln!("skipped: TICKRING_TEST_MYSQL is not set");
            return None;
        };
        let place = Self::new(Some(url.clone()));
        let mut conn = Conn::new(Opts::from_url(&url).unwrap()).await.unwrap();
        conn.query_drop(format!("CREATE DATABASE {}", place.database))
            .await
            .unwrap();
        Some(place)
    }

    pub(crate) async fn try_open(&self) -> Result<Database, StoreError> {
        match &self.server {
            None => SqliteStore::open(self.file()).map(Database::Sqlite),
            Some(_) => MySqlStore::connect(&self.url()).await.map(Database::MySql),
        }
    }

    pub(crate) async fn open(&self) -> Database {
        self.try_open().await.unwrap()
    }

    pub(crate) async fn open_read_only(&self) -> ReadOnly {
        match &self.server {
            None => ReadOnly::Sqlite(SqliteReader::open(self.file()).unwrap()),
            Some(_) => ReadOnly::MySql(MySqlStore::connect_read_only(&self.url()).await.unwrap()),
        }
    }

    fn file(&self) -> PathBuf {
        self.directory.join("tickring.db")
    }

    pub(crate) fn path(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn database(&self) -> &str {
        &self.database
    }

    pub(crate) fn url(&self) -> String {
        self.url_in(&self.database)
    }

    pub(crate) fn url_in(&self, database: &str) -> String {
        let server = self.server.as_deref().unwrap();
        format!("{}/{database}", server.rsplit_once('/').unwrap().0)
    }

    pub(crate) fn url_as(&self, user: &str, password: &str, database: Option<&str>) -> String {
        let opts = Opts::from_url(self.server.as_deref().unwrap()).unwrap();
        let (host, port) = (opts.ip_or_hostname(), opts.tcp_port());
        format!(
            "mysql://{user}:{password}@{host}:{port}/{}",
            database.unwrap_or(&self.database)
        )
    }

    /// What follows a table's name where decimals are to be shown as text.
    pub(crate) fn text_suffix(&self) -> &'static str {
        if self.server.is_some() { "" } else { "_text" }
    }

    /// Runs a statement past the store; every value as text.
    pub(crate) async fn sql(&self, sql: &str) -> Vec<Vec<String>> {
        if self.server.is_some() {
            let opts = OptsBuilder::from_opts(Opts::from_url(&self.url()).unwrap());
            let mut conn = Conn::new(opts).await.unwrap();
            let rows: Vec<Row> = conn.query(sql).await.unwrap();
            return rows
                .into_iter()
                .map(|row| row.unwrap().iter().map(text).collect())
                .collect();
        }
        let connection = rusqlite::Connection::open(self.file()).unwrap();
        connection
            .busy_timeout(std::time::Duration::from_secs(5))
            .unwrap();
        let mut statement = connection.prepare(sql).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        let mut out = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            out.push(
                (0..columns)
                    .map(|at| sqlite_text(row.get_ref(at).unwrap()))
                    .collect(),
            );
        }
        out
    }

    /// Every row of every table but `topics`, in the order of the keys.
    pub(crate) async fn everything(&self) -> Vec<Vec<Vec<String>>> {
        let mut out = Vec::new();
        for table in ["ticks", "latest", "events", "checkpoints"]
            .iter()
            .chain(&CANDLE_TABLES)
        {
            let keys = if matches!(*table, "latest" | "checkpoints") {
                "1"
            } else {
                "1, 2, 3"
            };
            out.push(
                self.sql(&format!("SELECT * FROM {table} ORDER BY {keys}"))
                    .await,
            );
        }
        out
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => other.as_sql(true),
    }
}

fn sqlite_text(value: rusqlite::types::ValueRef<'_>) -> String {
    use rusqlite::types::ValueRef;
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            String::from_utf8_lossy(bytes).into_owned()
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
        let Some(url) = self.server.clone() else {
            return;
        };
        let sql = format!("DROP DATABASE IF EXISTS {}", self.database);
        // A thread, because the test's runtime cannot be waited for from within.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let mut conn = Conn::new(Opts::from_url(&url).unwrap()).await.unwrap();
                conn.query_drop(sql).await.unwrap();
            });
        });
        let _ = dropped.join();
    }
}
