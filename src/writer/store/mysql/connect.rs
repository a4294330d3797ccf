//! Connecting: what is checked before the first row, and what the server's errors mean.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, Error, Opts, OptsBuilder};

use super::super::StoreError;
use super::super::schema::{self, SCHEMA_VERSION};

/// How long a server may take to answer a new connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Prepared statements kept: six sizes for each of the seven tables, and the reads.
const STATEMENTS: usize = 80;

/// What a connection's server can do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Server {
    pub(super) mariadb: bool,
    /// Bytes of the largest statement that it takes.
    pub(super) max_packet: usize,
}

/// Where a connection goes, for messages.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) address: String,
    pub(super) user: String,
    pub(super) database: String,
}

pub(super) fn parse(url: &str) -> Result<(Opts, Target), StoreError> {
    let wrong = |reason: String| StoreError::Url { reason };
    let opts = Opts::from_url(url).map_err(|error| wrong(error.to_string()))?;
    let target = Target {
        address: format!("{}:{}", opts.ip_or_hostname(), opts.tcp_port()),
        user: opts.user().unwrap_or_default().to_owned(),
        database: opts.db_name().unwrap_or_default().to_owned(),
    };
    if target.database.is_empty() {
        return Err(wrong("it names no database".to_owned()));
    }
    if target.user.is_empty() {
        return Err(wrong("it names no user".to_owned()));
    }
    let opts = OptsBuilder::from_opts(opts)
        .stmt_cache_size(STATEMENTS)
        .tcp_keepalive(Some(Duration::from_secs(10)));
    Ok((opts.into(), target))
}

pub(super) async fn connect(opts: Opts, target: &Target) -> Result<(Conn, Server), StoreError> {
    let (mut conn, server) = open(opts, target).await?;
    // What does not fit a column is an error, never cut; and READ COMMITTED, because the lanes'
    // upserts would otherwise lock gaps that they have no business with.
    conn.query_drop(
        "SET SESSION sql_mode='STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', \
         SESSION innodb_lock_wait_timeout=10",
    )
    .await
    .map_err(|error| meaning(target, error))?;
    conn.query_drop("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        .await
        .map_err(|error| meaning(target, error))?;
    migrate(&mut conn, target).await?;
    check_rights(&mut conn)
        .await
        .map_err(|error| meaning(target, error))?;
    Ok((conn, server))
}

/// A connection that the server lets change nothing.
pub(super) async fn connect_read_only(
    opts: Opts,
    target: &Target,
) -> Result<(Conn, Server), StoreError> {
    let (mut conn, server) = open(opts, target).await?;
    conn.query_drop("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY")
        .await
        .map_err(|error| meaning(target, error))?;
    Ok((conn, server))
}

async fn open(opts: Opts, target: &Target) -> Result<(Conn, Server), StoreError> {
    let unreachable = |reason: String| StoreError::Unreachable {
        address: target.address.clone(),
        reason,
    };
    let mut conn = tokio::time::timeout(CONNECT_TIMEOUT, Conn::new(opts))
        .await
        .map_err(|_| unreachable(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())))?
        .map_err(|error| match error {
            Error::Io(error) => unreachable(error.to_string()),
            other => meaning(target, other),
        })?;
    let server = inspect(&mut conn)
        .await
        .map_err(|error| meaning(target, error))?;
    Ok((conn, server?))
}

async fn inspect(conn: &mut Conn) -> Result<Result<Server, StoreError>, Error> {
    let row: Option<(String, u64)> = conn
        .query_first("SELECT VERSION(), @@max_allowed_packet")
        .await?;
    let (version, max_packet) = row.unwrap_or_default();
    let max_packet = usize::try_from(max_packet).unwrap_or(usize::MAX);
    Ok(check_version(&version).map(|mariadb| Server {
        mariadb,
        max_packet,
    }))
}

/// Whether a server of this version is a MariaDB.
fn check_version(version: &str) -> Result<bool, StoreError> {
    let mariadb = version.contains("MariaDB");
    let mut numbers = version
        .split(['.', '-'])
        .map(|n| n.parse::<u32>().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let needed = if mariadb { (10, 5) } else { (8, 0) };
    if found < needed {
        let name = if mariadb { "" } else { "MySQL " };
        return Err(StoreError::TooOld {
            found: format!("{name}{version}"),
        });
    }
    Ok(mariadb)
}

/// Brings the tables to this build's version; one connection at a time, by a named lock.
async fn migrate(conn: &mut Conn, target: &Target) -> Result<(), StoreError> {
    let wrong = |error| meaning(target, error);
    let lock = format!(
        "tickring.{}",
        target.database.chars().take(50).collect::<String>()
    );
    let locked: Option<Option<i64>> = conn
        .exec_first("SELECT GET_LOCK(?, 60)", (&lock,))
        .await
        .map_err(wrong)?;
    if locked.flatten() != Some(1) {
        let reason = "another tickring is changing the tables".to_owned();
        return Err(StoreError::Busy {
            attempts: 1,
            reason,
        });
    }
    let done = migrate_locked(conn, target).await;
    let released = conn
        .exec_drop("SELECT RELEASE_LOCK(?)", (&lock,))
        .await
        .map_err(wrong);
    done.and(released)
}

async fn migrate_locked(conn: &mut Conn, target: &Target) -> Result<(), StoreError> {
    let wrong = |error| meaning(target, error);
    let known: Option<String> = conn
        .query_first("SHOW TABLES LIKE 'schema\\_version'")
        .await
        .map_err(wrong)?;
    if known.is_none() {
        conn.query_drop(
            "CREATE TABLE schema_version (version INT UNSIGNED NOT NULL PRIMARY KEY) ENGINE=InnoDB",
        )
        .await
        .map_err(wrong)?;
    }
    let found: Option<u32> = conn
        .query_first("SELECT CAST(COALESCE(MAX(version), 0) AS UNSIGNED) FROM schema_version")
        .await
        .map_err(|error| match error {
            Error::Server(e) if e.code == 1054 => StoreError::BrokenSchema { reason: e.message },
            other => wrong(other),
        })?;
    let found = found.unwrap_or(0);
    if found > SCHEMA_VERSION {
        return Err(StoreError::NewerSchema {
            found,
            known: SCHEMA_VERSION,
        });
    }
    for version in found + 1..=SCHEMA_VERSION {
        for statement in schema::mysql(version) {
            conn.query_drop(statement).await.map_err(wrong)?;
        }
        conn.exec_drop("INSERT INTO schema_version VALUES (?)", (version,))
            .await
            .map_err(wrong)?;
    }
    Ok(())
}

/// Finds out now, and not at the first event, whether the user may write. Changes no row.
async fn check_rights(conn: &mut Conn) -> Result<(), Error> {
    let others = ["topics", "ticks", "latest", "events", "checkpoints"];
    for table in others.iter().chain(&schema::CANDLE_TABLES) {
        let sql = format!("INSERT INTO {table} SELECT * FROM {table} WHERE FALSE");
        conn.query_drop(sql).await?;
    }
    conn.query_drop("UPDATE checkpoints SET position=position WHERE FALSE")
        .await
}

/// What an error means to the person who runs tickring.
pub(super) fn meaning(target: &Target, error: Error) -> StoreError {
    let Error::Server(error) = error else {
        return match error {
            Error::Url(error) => StoreError::Url {
                reason: error.to_string(),
            },
            Error::Driver(DriverError::UnknownAuthPlugin { name }) => StoreError::SignIn {
                address: target.address.clone(),
                user: target.user.clone(),
                plugin: name,
            },
            other => StoreError::Lost {
                reason: other.to_string(),
            },
        };
    };
    let (user, database) = (target.user.clone(), target.database.clone());
    let reason = format!("{} ({})", error.message, error.code);
    match error.code {
        1045 | 1698 => StoreError::Password {
            address: target.address.clone(),
            user,
        },
        1044 | 1049 => StoreError::NoDatabase { database, user },
        1142 | 1143 | 1227 | 1370 => StoreError::Privilege {
            user,
            database,
            reason,
        },
        // Deadlock, lock wait timeout, changed since the transaction read it.
        1213 | 1205 | 1020 => StoreError::Busy {
            attempts: 1,
            reason,
        },
        // Disk full, table full.
        1021 | 1114 | 1041 | 1037 => StoreError::Full { reason },
        // Shutting down, killed, too many connections, gone.
        1053
        | 1040
        | 1077
        | 1079
        | 1080
        | 1152
        | 1158..=1161
        | 1184
        | 1203
        | 1317
        | 1927
        | 3169
        | 4031 => StoreError::Lost { reason },
        _ => StoreError::Refused { reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_servers_are_refused_by_name_and_version() {
        assert_eq!(check_version("10.11.11-MariaDB-0+deb12u1").ok(), Some(true));
        assert_eq!(check_version("9.3.0").ok(), Some(false));
        let error = |version| check_version(version).unwrap_err().to_string();
        assert!(error("5.7.44-log").contains("MySQL 5.7.44-log; tickring needs MySQL 8.0"));
        assert!(error("10.3.39-MariaDB").contains("10.3.39-MariaDB"));
    }

    #[test]
    fn a_url_without_a_database_or_a_user_is_refused_with_the_right_form() {
        for url in [
            "mysql://u:p@localhost:3306",
            "mysql://localhost/db",
            "postgres://u@h/db",
            "nonsense",
        ] {
            let error = parse(url).unwrap_err().to_string();
            assert!(
                error.contains("mysql://USER:PASSWORD@HOST:PORT/DATABASE"),
                "{error}"
            );
        }
    }
}
