//! What can go wrong with a database, in words that say what to do.

/// Why the store did not do what it was asked. Passwords never appear in it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The URL does not say which database.
    #[error(
        "database URL: {reason}; write mysql://USER:PASSWORD@HOST:PORT/DATABASE, with %40 for an @ in the password"
    )]
    Url {
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody answers there.
    #[error(
        "no database server at {address}: {reason}; check that it runs, and the host and port of the URL"
    )]
    Unreachable {
        /// Where.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// Wrong user or password.
    #[error(
        "the database server at {address} refuses user `{user}`: wrong user or password, or no access from this host"
    )]
    Password {
        /// Where.
        address: String,
        /// Who.
        user: String,
    },
    /// A way of signing in that is not spoken here. MySQL also names one at random to a user whom it
    /// does not have.
    #[error(
        "the database server at {address} refuses user `{user}`: wrong user or password, or one who signs in by `{plugin}`, which tickring does not know: ALTER USER `{user}` IDENTIFIED WITH caching_sha2_password BY '...'"
    )]
    SignIn {
        /// Where.
        address: String,
        /// Who.
        user: String,
        /// How.
        plugin: String,
    },
    /// The database is not there, or hidden from the user.
    #[error(
        "there is no database `{database}` that user `{user}` may use; let an administrator run: CREATE DATABASE `{database}`; GRANT ALL ON `{database}`.* TO `{user}`"
    )]
    NoDatabase {
        /// Its name.
        database: String,
        /// Who.
        user: String,
    },
    /// The user may not do what is needed.
    #[error(
        "user `{user}` lacks a privilege: {reason}; let an administrator run: GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX ON `{database}`.* TO `{user}`"
    )]
    Privilege {
        /// Who.
        user: String,
        /// Where.
        database: String,
        /// What the server said.
        reason: String,
    },
    /// The server lacks what the tables need.
    #[error("the database server is {found}; tickring needs MySQL 8.0 or MariaDB 10.5, or newer")]
    TooOld {
        /// Its version.
        found: String,
    },
    /// A newer tickring made the tables.
    #[error(
        "the database's tables have version {found}, and this tickring knows versions up to {known}: start the tickring that made them or a newer one, or choose another database"
    )]
    NewerSchema {
        /// The tables' version.
        found: u32,
        /// The newest that this build knows.
        known: u32,
    },
    /// The tables' version cannot be told.
    #[error(
        "the table schema_version of the database is broken: {reason}; restore the database, or choose another one"
    )]
    BrokenSchema {
        /// In what way.
        reason: String,
    },
    /// The file cannot be opened or created.
    #[error(
        "SQLite file {path}: {reason}; check that its directory exists and can be written, and that the file is tickring's"
    )]
    File {
        /// Which file.
        path: String,
        /// What SQLite said.
        reason: String,
    },
    /// The connection is gone: connect anew.
    #[error("the connection to the database is lost: {reason}")]
    Lost {
        /// How.
        reason: String,
    },
    /// Deadlocks or locks that did not go away.
    #[error("the database gave the transaction up {attempts} times, at last for: {reason}")]
    Busy {
        /// How often it was tried.
        attempts: u32,
        /// What it said.
        reason: String,
    },
    /// No room.
    #[error("the database has no room left: {reason}; free some, tickring goes on by itself")]
    Full {
        /// What it said.
        reason: String,
    },
    /// A value in the tables is not one that tickring writes.
    #[error("the database holds a value that tickring did not write: {reason}")]
    Corrupt {
        /// Which.
        reason: String,
    },
    /// Another refusal.
    #[error("the database refused a statement: {reason}")]
    Refused {
        /// What it said.
        reason: String,
    },
}

impl StoreError {
    /// Whether the connection must be made anew before anything else.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Unreachable { .. })
    }

    /// Whether the same call may succeed later without anybody changing tickring's set-up.
    pub fn is_passing(&self) -> bool {
        self.is_lost() || matches!(self, Self::Busy { .. } | Self::Full { .. })
    }
}
