//! The server's configuration: defaults, under a file, under the environment, under flags.
//!
//! One table below names every setting; file keys, environment variables, flags, their help and
//! the comments of `--print-config` all come from it.

mod units;

use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tickring::core::Limits;
use tickring::journal::{Limits as LaneLimits, ReplyLimits};
use tickring::machines::Registry;
use tickring::market::Calendars;
use tickring::node::{DatabaseSettings, JournalSettings, MAX_CORES, NodeConfig};
use tickring::ring::Techniques;
use tickring::writer::follow::Target;
use tickring_protocol::{DEFAULT_PORT, MAX_FRAME_LEN};

pub(crate) use units::{ByteSize, Listen, Span};

/// Where a configuration is looked for when none is named; the first that exists is read.
const SEARCHED: [&str; 2] = ["tickring.toml", "/etc/tickring.toml"];

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Makes [`Settings`] (what one source says) and [`Config`] (what holds) from one table:
/// `[environment variable, name of the value, more arguments of clap] key: type = default`,
/// and the bounds behind `in` where the type alone does not tell them.
macro_rules! settings {
    ($(
        $(#[doc = $doc:tt])+
        [$env:tt, $value:tt $(, $extra:ident = $setting:expr)*]
        $key:ident: $type:ty = $default:expr $(, in $bounds:expr)?;
    )+) => {
        /// What one source says; what it leaves open is for the next.
        #[derive(Clone, Debug, Default, PartialEq, clap::Args, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(crate) struct Settings {$(
            $(#[doc = $doc])+
            #[arg(long, env = $env, value_name = $value $(, $extra = $setting)*)]
            pub(crate) $key: Option<$type>,
        )+}

        impl Settings {
            /// These settings, and those of `lower` where these are silent.
            fn over(self, lower: Self) -> Self {
                Self { $($key: self.$key.or(lower.$key)),+ }
            }

            /// These settings, and the defaults where they are silent.
            ///
            /// # Errors
            /// [`ConfigError::OutOfBounds`].
            fn finish(self) -> Result<Config, ConfigError> {
                let config = Config { $($key: self.$key.unwrap_or_else(|| $default)),+ };
                $($(check(stringify!($key), &config.$key, &$bounds)?;)?)+
                Ok(config)
            }
        }

        /// The configuration that holds.
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) struct Config {$(
            $(#[doc = $doc])+
            pub(crate) $key: $type,
        )+}

        impl Config {
            /// The configuration as TOML, each key under a comment that tells its meaning,
            /// bounds and default. Read back, it gives the same configuration.
            pub(crate) fn to_toml(&self) -> String {
                let mut out = String::new();
                $(
                    let mut key = Commented { out: &mut out, key: stringify!($key) };
                    $(key.comment($doc);)+
                    $(key.bounds(&$bounds);)?
                    key.value(&$default, &self.$key);
                )+
                out
            }
        }
    };
}

settings! {
    /// Address and port to listen on; port 0 takes a free one.
    ["TICKRING_LISTEN", "ADDR"]
    listen: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT));

    /// Address and port for /metrics (Prometheus), /healthz and /readyz, by HTTP and without an
    /// access check, so for the operators' network only; port 0 takes a free one. Empty: none.
    ["TICKRING_METRICS", "ADDR"]
    metrics: Listen = Listen(None);

    /// Cores: threads that each run a share of the connections and of the topics. Unless it is
    /// set, one for each CPU that this process may use.
    ["TICKRING_CORES", "N"]
    cores: usize = processors(), in 1..=MAX_CORES;

    /// Pin each core's thread to a CPU of its own.
    ["TICKRING_PIN", "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true"]
    pin: bool = true;

    /// Never sleep: poll for work instead. The lowest latency, at the price of a whole CPU for
    /// each core.
    ["TICKRING_BUSY_POLL", "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true"]
    busy_poll: bool = false;

    /// Directory for what must survive a restart: the journal and, unless another database is
    /// named, tickring.sqlite. Made at start if it is missing; one server uses it at a time. Empty:
    /// everything is kept in memory, and durable topics such as `log/…` are refused.
    ["TICKRING_DATA", "DIR"]
    data: String = String::new();

    /// MySQL or MariaDB database to bring all journaled events to, as
    /// mysql://USER:PASSWORD@HOST:PORT/DATABASE. Other users of this machine can read flags: put
    /// it into the file or the environment. Empty: none.
    ["TICKRING_MYSQL", "URL", hide_env_values = true]
    mysql: String = String::new();

    /// SQLite file to bring all journaled events to. Empty: tickring.sqlite in the data directory,
    /// unless `mysql` is given; none: no database at all.
    ["TICKRING_SQLITE", "FILE"]
    sqlite: String = String::new();

    /// Threads that read the database for clients that read back, each with a connection of its own.
    ["TICKRING_READERS", "N"]
    readers: usize = 2, in 1..=64;

    /// Reads of the database that are not answered yet, shared out evenly among the cores; one more
    /// is answered `overloaded`.
    ["TICKRING_MAX_READS", "N"]
    max_reads: u32 = 256, in 1..=65_536;

    /// Of these, reads of one connection.
    ["TICKRING_MAX_CONNECTION_READS", "N"]
    max_connection_reads: u32 = 4, in 1..=65_536;

    /// How long a read may take, its wait for a thread included, before it is answered
    /// `overloaded`.
    ["TICKRING_READ_TIMEOUT", "TIME"]
    read_timeout: Span = seconds(5), in Span(Duration::from_millis(10))..=seconds(3600);

    /// File that tells which instruments trade when (TOML); without it all trade around the clock.
    ["TICKRING_INSTRUMENTS", "FILE"]
    instruments: String = String::new();

    /// Lanes of a journal that is made now: each has a thread of its own, and a connection to the
    /// database. A journal keeps the lanes that it was made with.
    ["TICKRING_JOURNAL_LANES", "N"]
    journal_lanes: u32 = 1, in 1..=64;

    /// Bytes that the journal may have on disk, shared out evenly among its lanes. When they are
    /// used up, because the database is down, commands are refused with `overloaded` until it has
    /// taken events over. 250,000 ticks a second are about 28 MB a second.
    ["TICKRING_JOURNAL_BYTES", "BYTES"]
    journal_bytes: ByteSize = ByteSize(16 * 1024 * MIB), in ByteSize(MIB)..=ByteSize(1024 * 1024 * 1024 * MIB);

    /// Bytes of one file of the journal; old records are removed by whole files.
    ["TICKRING_JOURNAL_SEGMENT_BYTES", "BYTES"]
    journal_segment_bytes: ByteSize = ByteSize(64 * MIB), in ByteSize(4 * KIB)..=ByteSize(2048 * MIB);

    /// Bytes that one write to the journal carries at most.
    ["TICKRING_JOURNAL_GROUP_BYTES", "BYTES"]
    journal_group_bytes: ByteSize = ByteSize(4 * MIB), in ByteSize(4 * KIB)..=ByteSize(64 * MIB);

    /// How long records wait for company before they are written. 0: a write begins as soon as the
    /// one before it is on disk, so that it carries whatever has come meanwhile.
    ["TICKRING_JOURNAL_DELAY", "TIME"]
    journal_delay: Span = seconds(0), in seconds(0)..=seconds(1);

    /// How long the journal keeps records that are in the database. When `journal_bytes` run out it
    /// keeps them for `reply_window` only.
    ["TICKRING_JOURNAL_RETENTION", "TIME"]
    journal_retention: Span = seconds(3600), in seconds(0)..=seconds(365 * 86_400);

    /// How long the replies to commands are kept, so that a command that comes again gets the same
    /// one and changes nothing. Clients must not repeat a command after that time.
    ["TICKRING_REPLY_WINDOW", "TIME"]
    reply_window: Span = seconds(600), in seconds(1)..=seconds(86_400);

    /// Replies kept of one session, and bytes of all of them, for each core.
    ["TICKRING_REPLY_WINDOW_COUNT", "N"]
    reply_window_count: u32 = 1_024, in 1..=1_048_576;

    /// See `reply_window_count`. Beyond it the oldest replies go, and their commands, sent again, are
    /// refused with `forgotten`. A session takes 128 bytes of it until `reply_window` after its newest
    /// reply; when sessions have used it up, the commands of more are refused with `overloaded`.
    ["TICKRING_REPLY_WINDOW_BYTES", "BYTES"]
    reply_window_bytes: ByteSize = ByteSize(64 * MIB), in ByteSize(64 * KIB)..=ByteSize(64 * 1024 * MIB);

    /// Connections that may wait to be accepted, for each core; the kernel caps it at
    /// `net.core.somaxconn`.
    ["TICKRING_BACKLOG", "N"]
    backlog: u32 = 4096, in 1..=65_535;

    /// Open connections of the node, however they spread over its cores; one more is answered
    /// `connection_limit`.
    ["TICKRING_MAX_CONNECTIONS", "N"]
    max_connections: u32 = 65_536, in 1..=1_048_576;

    /// Subscriptions of one connection; one more is answered `subscription_limit`.
    ["TICKRING_MAX_SUBSCRIPTIONS", "N"]
    max_subscriptions: u32 = 10_000, in 1..=16_777_216;

    /// Topics of the node, shared out evenly among the cores; one more is answered `topic_limit`.
    ["TICKRING_MAX_TOPICS", "N"]
    max_topics: u32 = 100_000, in 1..=16_777_216;

    /// Bytes of one frame from a client; a longer one is answered `frame_too_large`.
    ["TICKRING_MAX_FRAME_BYTES", "BYTES"]
    max_frame_bytes: ByteSize = ByteSize(512 * KIB), in ByteSize(8 * KIB)..=ByteSize(MAX_FRAME_LEN as u64);

    /// Bytes that may wait to be sent to one connection; beyond them its subscriptions' policies
    /// act (conflate, resume, disconnect), and its commands wait.
    ["TICKRING_OUTBOX_BYTES", "BYTES"]
    outbox_bytes: ByteSize = ByteSize(256 * KIB), in ByteSize(4 * KIB)..=ByteSize(1024 * MIB);

    /// The kernel's send buffer of each connection; a small one makes a slow client's backlog
    /// start sooner, and be fresher. 0: as large as the kernel finds good.
    ["TICKRING_SEND_BUFFER_BYTES", "BYTES"]
    send_buffer_bytes: ByteSize = ByteSize(0), in ByteSize(0)..=ByteSize(1024 * MIB);

    /// Bytes received from one connection that cannot be acted on yet; beyond them its socket is
    /// not read.
    ["TICKRING_INBOX_BYTES", "BYTES"]
    inbox_bytes: ByteSize = ByteSize(64 * KIB), in ByteSize(4 * KIB)..=ByteSize(1024 * MIB);

    /// Bytes of events kept for replay, of one topic.
    ["TICKRING_HISTORY_TOPIC_BYTES", "BYTES"]
    history_topic_bytes: ByteSize = ByteSize(16 * MIB), in ByteSize(0)..=ByteSize(1024 * 1024 * MIB);

    /// Bytes of events kept for replay, of all topics of the node, shared out evenly among the
    /// cores. They are used up in time: a tick takes some 60 to 80 bytes.
    ["TICKRING_HISTORY_BYTES", "BYTES"]
    history_bytes: ByteSize = ByteSize(128 * MIB), in ByteSize(0)..=ByteSize(1024 * 1024 * MIB);

    /// How long a command waits while the core that it is for is behind, before it is refused with
    /// `overloaded`; its connection is not read meanwhile.
    ["TICKRING_OVERLOAD_PATIENCE", "TIME"]
    overload_patience: Span = seconds(1), in seconds(0)..=seconds(3600);

    /// Time from a connection's accept to its HELLO; then it is closed with `hello_timeout`.
    ["TICKRING_HELLO_TIMEOUT", "TIME"]
    hello_timeout: Span = seconds(5), in Span(Duration::from_millis(10))..=seconds(3600);

    /// Silence after which a connection is closed with `idle_timeout`; a third of it is the
    /// heartbeat that clients are told. 0: never.
    ["TICKRING_IDLE_TIMEOUT", "TIME"]
    idle_timeout: Span = seconds(90), in seconds(0)..=seconds(86_400);

    /// Time for what was promised to go out once a connection is being closed, and for all of
    /// them once the node is told to stop.
    ["TICKRING_DRAIN_TIMEOUT", "TIME"]
    drain_timeout: Span = seconds(5), in seconds(0)..=seconds(3600);

    /// Time for a client to close its side of the connection after ours.
    ["TICKRING_LINGER_TIMEOUT", "TIME"]
    linger_timeout: Span = seconds(2), in seconds(0)..=seconds(3600);

    /// Techniques to do without, separated by commas, to measure what each is worth: multishot-recv,
    /// incremental-buffers, defer-taskrun, coop-taskrun, message-wake, slices, gather, spin.
    ["TICKRING_WITHOUT", "NAMES"]
    without: String = String::new();
}

/// Why there is no configuration to start with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot read {}: {cause}", file.display())]
    Unreadable {
        file: PathBuf,
        cause: std::io::Error,
    },
    #[error("in the configuration {}: {cause}", file.display())]
    Malformed {
        file: PathBuf,
        cause: toml::de::Error,
    },
    #[error("{given} is given without data: the database is made from the journal; add --data DIR")]
    DatabaseWithoutData { given: &'static str },
    #[error("both mysql and sqlite are given; events go to one database: leave one out")]
    TwoDatabases,
    #[error("in the instruments {}: {cause}", file.display())]
    Instruments {
        file: PathBuf,
        cause: tickring::market::ConfigError,
    },
    #[error("without names {name}, which is no technique; there are {}", Techniques::NAMES.join(", "))]
    NoTechnique { name: String },
    #[error("{key} is {value}; it must be {low} to {high}")]
    OutOfBounds {
        key: &'static str,
        value: String,
        low: String,
        high: String,
    },
}

/// Where the configuration of `serve` comes from.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Sources {
    /// Configuration file (TOML). Without it ./tickring.toml is read if there is one, otherwise
    /// /etc/tickring.toml if there is one.
    #[arg(long, env = "TICKRING_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    settings: Settings,
}

impl Sources {
    /// The configuration that holds, and the file that was read for it.
    ///
    /// # Errors
    /// [`ConfigError`] when the file cannot be read or a value is out of its bounds.
    pub(crate) fn resolve(self) -> Result<(Config, Option<PathBuf>), ConfigError> {
        let found = || {
            SEARCHED
                .map(PathBuf::from)
                .into_iter()
                .find(|path| path.exists())
        };
        let file = self.config.or_else(found);
        let written = match &file {
            Some(file) => read(file)?,
            None => Settings::default(),
        };
        Ok((self.settings.over(written).finish()?, file))
    }
}

impl Config {
    /// What the node is started with.
    ///
    /// # Errors
    /// [`ConfigError`] if the settings contradict each other, or a file that they name cannot be
    /// read.
    pub(crate) fn node(&self) -> Result<NodeConfig, ConfigError> {
        let calendars = self.calendars()?;
        Ok(NodeConfig {
            listen: self.listen,
            backlog: self.backlog,
            cores: self.cores,
            pin: self.pin,
            busy_poll: self.busy_poll,
            send_buffer: (self.send_buffer_bytes.0 > 0).then(|| self.send_buffer_bytes.bytes()),
            max_connections: self.max_connections as usize,
            limits: self.limits_per_core(),
            journal: self.journal(&calendars)?,
            registry: Arc::new(Registry::with_calendars(calendars)),
            ring: self.techniques()?,
        })
    }

    fn techniques(&self) -> Result<Techniques, ConfigError> {
        let mut techniques = Techniques::ALL;
        let names = self.without.split(',').map(str::trim);
        for name in names.filter(|name| !name.is_empty()) {
            if !techniques.switch_off(name) {
                return Err(ConfigError::NoTechnique { name: name.into() });
            }
        }
        Ok(techniques)
    }

    fn journal(&self, calendars: &Arc<Calendars>) -> Result<Option<JournalSettings>, ConfigError> {
        let given = [("mysql", &self.mysql), ("sqlite", &self.sqlite)]
            .into_iter()
            .find(|(_, value)| !value.is_empty());
        let data = Path::new(&self.data);
        if self.data.is_empty() {
            return match given {
                Some((given, _)) => Err(ConfigError::DatabaseWithoutData { given }),
                None => Ok(None),
            };
        }
        let target = match (self.mysql.as_str(), self.sqlite.as_str()) {
            ("", "none") => None,
            ("", "") => Some(Target::Sqlite(data.join("tickring.sqlite"))),
            ("", file) => Some(Target::Sqlite(file.into())),
            (url, "") => Some(Target::MySql(url.into())),
            _ => return Err(ConfigError::TwoDatabases),
        };
        let database = target.map(|target| DatabaseSettings {
            calendars: Arc::clone(calendars),
            readers: self.readers,
            read_timeout: self.read_timeout.0,
            ..DatabaseSettings::new(target)
        });
        let lane_bytes = self.journal_bytes.0 / u64::from(self.journal_lanes);
        let limits = LaneLimits {
            // A small journal has small files: at least four to a lane.
            segment_bytes: self
                .journal_segment_bytes
                .0
                .min(lane_bytes / 4)
                .max(4 * KIB),
            journal_bytes: lane_bytes,
            group_bytes: self.journal_group_bytes.bytes(),
            max_delay: self.journal_delay.0,
        };
        let replies = ReplyLimits {
            per_session: self.reply_window_count as usize,
            bytes: self.reply_window_bytes.bytes(),
            age_ns: u64::try_from(self.reply_window.0.as_nanos()).unwrap_or(u64::MAX),
        };
        Ok(Some(JournalSettings {
            lanes: self.journal_lanes,
            limits,
            replies,
            // Replies are needed for as long as the window is.
            retention: self.journal_retention.0.max(self.reply_window.0),
            database,
            ..JournalSettings::new(data.join("journal"))
        }))
    }

    fn calendars(&self) -> Result<Arc<Calendars>, ConfigError> {
        if self.instruments.is_empty() {
            return Ok(Calendars::built_in());
        }
        let file = PathBuf::from(&self.instruments);
        let text = std::fs::read_to_string(&file).map_err(|cause| ConfigError::Unreadable {
            file: file.clone(),
            cause,
        })?;
        Calendars::load(&text)
            .map(Arc::new)
            .map_err(|cause| ConfigError::Instruments { file, cause })
    }

    /// What each core allows: its share of what the node does.
    fn limits_per_core(&self) -> Limits {
        let share = |all: usize| all.div_ceil(self.cores);
        Limits {
            max_connections: self.max_connections as usize,
            max_subscriptions: self.max_subscriptions as usize,
            max_topics: share(self.max_topics as usize),
            max_frame_bytes: self.max_frame_bytes.bytes(),
            outbox_bytes: self.outbox_bytes.bytes(),
            inbox_bytes: self.inbox_bytes.bytes(),
            history_topic_bytes: self.history_topic_bytes.bytes(),
            history_bytes: share(self.history_bytes.bytes()),
            max_reads: share(self.max_reads as usize),
            max_connection_reads: self.max_connection_reads as usize,
            overload_patience: self.overload_patience.0,
            hello_timeout: self.hello_timeout.0,
            idle_timeout: self.idle_timeout.0,
            drain_timeout: self.drain_timeout.0,
            linger_timeout: self.linger_timeout.0,
        }
    }
}

fn read(file: &Path) -> Result<Settings, ConfigError> {
    let text = std::fs::read_to_string(file).map_err(|cause| ConfigError::Unreadable {
        file: file.to_owned(),
        cause,
    })?;
    toml::from_str(&text).map_err(|cause| ConfigError::Malformed {
        file: file.to_owned(),
        cause,
    })
}

const fn seconds(count: u64) -> Span {
    Span(Duration::from_secs(count))
}

fn processors() -> usize {
    std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MAX_CORES)
}

fn check<T: PartialOrd + Display>(
    key: &'static str,
    value: &T,
    bounds: &RangeInclusive<T>,
) -> Result<(), ConfigError> {
    match bounds.contains(value) {
        true => Ok(()),
        false => Err(ConfigError::OutOfBounds {
            key,
            value: value.to_string(),
            low: bounds.start().to_string(),
            high: bounds.end().to_string(),
        }),
    }
}

/// Writes one key of a TOML file under its comment.
struct Commented<'a> {
    out: &'a mut String,
    key: &'static str,
}

impl Commented<'_> {
    fn comment(&mut self, line: &str) {
        if !self.out.is_empty() && !self.out.ends_with('\n') {
            self.out.push('\n');
        }
        *self.out += &format!("#{line}\n");
    }

    fn bounds<T: Display>(&mut self, bounds: &RangeInclusive<T>) {
        *self.out += &format!("# From {} to {}.\n", bounds.start(), bounds.end());
    }

    fn value<T: serde::Serialize>(&mut self, default: &T, value: &T) {
        let (default, value) = (in_toml(default), in_toml(value));
        *self.out += &format!("# Default: {default}\n{} = {value}\n\n", self.key);
    }
}

fn in_toml<T: serde::Serialize>(value: &T) -> String {
    toml::Value::try_from(value)
        .expect("addresses, numbers, texts and truth values all have a form in TOML")
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same_configuration() {
        let config = settings("cores = 3\nlisten = '[::1]:0'\noutbox_bytes = 5000\nidle_timeout = '0'\ndata = 'a \"b\" \\ c'\npin = false")
            .finish()
            .unwrap();
        let text = config.to_toml();
        assert_eq!(settings(&text).finish().unwrap(), config, "{text}");
    }

    #[test]
    fn every_key_is_printed_with_a_comment_above_it() {
        let text = Settings::default().finish().unwrap().to_toml();
        let lines: Vec<&str> = text.lines().collect();
        let keys = lines
            .iter()
            .enumerate()
            .filter(|(_, line)| line.contains(" = ") && !line.starts_with('#'));
        let mut count = 0;
        for (at, line) in keys {
            assert!(lines[at - 1].starts_with("# Default: "), "{line}");
            count += 1;
        }
        assert_eq!(count, 38);
        assert!(
            text.contains(
                "# From 8KiB to 16MiB.\n# Default: \"512KiB\"\nmax_frame_bytes = \"512KiB\""
            ),
            "{text}"
        );
    }

    #[test]
    fn a_higher_source_overrides_key_by_key() {
        let config = settings("cores = 2\nmax_topics = 5")
            .over(settings("cores = 4\nmax_connections = 9"))
            .finish()
            .unwrap();
        assert_eq!(
            (config.cores, config.max_topics, config.max_connections),
            (2, 5, 9)
        );
    }

    #[test]
    fn topics_and_history_are_shared_out_among_the_cores_and_connections_are_not() {
        let config = settings("cores = 3\nmax_connections = 10\nmax_topics = 9\nhistory_bytes = 100\nmax_subscriptions = 7").finish().unwrap();
        let limits = config.limits_per_core();
        assert_eq!(
            (
                limits.max_connections,
                limits.max_topics,
                limits.history_bytes
            ),
            (10, 3, 34)
        );
        assert_eq!(
            limits.max_subscriptions, 7,
            "this one is for each connection"
        );
    }

    #[test]
    fn values_out_of_bounds_are_refused_by_name() {
        for (text, message) in [
            ("cores = 0", "cores is 0; it must be 1 to 128"),
            (
                "max_frame_bytes = '17MiB'",
                "max_frame_bytes is 17MiB; it must be 8KiB to 16MiB",
            ),
            (
                "hello_timeout = '0'",
                "hello_timeout is 0; it must be 10ms to 1h",
            ),
        ] {
            assert_eq!(settings(text).finish().unwrap_err().to_string(), message);
        }
    }
}
