//! The command line: defaults, under a file, under the environment, under flags.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tickring_bridge::{Bridge, Config, Page};
use tracing_subscriber::EnvFilter;

/// The exit code of a process that a second signal ended: as a shell reports SIGINT.
const INTERRUPTED: i32 = 130;

/// Carry tickring to browsers over WebSockets, and serve the market page.
///
/// It is a client of the server like any other and need not run beside it. It can be started
/// first: it waits for the server. On SIGINT or SIGTERM it says goodbye to its clients and exits
/// with 0.
#[derive(Debug, Parser)]
#[command(
    name = "tickring-bridge",
    version,
    after_help = "Exit codes: 0 done; 1 it could not start; 2 wrong usage or configuration.\n\
                  Logs go to stderr; TICKRING_LOG filters them, for instance TICKRING_LOG=debug."
)]
struct Cli {
    #[command(flatten)]
    settings: Settings,

    /// Read settings from a TOML file, whose keys are the names of the flags with `_` for `-`.
    #[arg(long, env = "TICKRING_BRIDGE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// How logs are written.
    #[arg(long, env = "TICKRING_LOG_FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What one source says; what it leaves open is for the next.
#[derive(Clone, Debug, Default, clap::Args, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// Address and port to listen on; port 0 takes a free one. [default: 127.0.0.1:8080]
    #[arg(long, env = "TICKRING_BRIDGE_LISTEN", value_name = "ADDR")]
    listen: Option<SocketAddr>,

    /// The tickring server. [default: 127.0.0.1:7400]
    #[arg(long, env = "TICKRING_BRIDGE_UPSTREAM", value_name = "ADDR")]
    upstream: Option<String>,

    /// What the server's access check reads. Other users of this machine can read flags: put it
    /// into the file or the environment.
    #[arg(
        long,
        env = "TICKRING_BRIDGE_CREDENTIALS",
        value_name = "TEXT",
        hide_env_values = true
    )]
    credentials: Option<String>,

    /// An origin whose pages may connect, such as https://example.org, beside the bridge's own;
    /// `*` allows all. Can be given several times, or separated by commas.
    #[arg(
        long,
        env = "TICKRING_BRIDGE_ALLOW_ORIGIN",
        value_name = "ORIGIN",
        value_delimiter = ','
    )]
    allow_origin: Option<Vec<String>>,

    /// Certificate chain as a PEM file: serve TLS. Needs --tls-key.
    #[arg(long, env = "TICKRING_BRIDGE_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,

    /// Private key of the certificate, as a PEM file.
    #[arg(long, env = "TICKRING_BRIDGE_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,

    /// Instruments of the market page, as in ACME,BOLT.
    #[arg(
        long,
        env = "TICKRING_BRIDGE_SYMBOLS",
        value_name = "NAMES",
        value_delimiter = ',',
        conflicts_with = "symbols_file"
    )]
    symbols: Option<Vec<String>>,

    /// A file that names them, separated by white space or commas.
    #[arg(long, env = "TICKRING_BRIDGE_SYMBOLS_FILE", value_name = "FILE")]
    symbols_file: Option<String>,

    /// WebSocket clients at once. [default: 10000]
    #[arg(long, env = "TICKRING_BRIDGE_MAX_CONNECTIONS", value_name = "N")]
    max_connections: Option<u32>,

    /// Subscriptions of one client. [default: 10000]
    #[arg(long, env = "TICKRING_BRIDGE_MAX_SUBSCRIPTIONS", value_name = "N")]
    max_subscriptions: Option<usize>,

    /// Topics that clients may name while the bridge runs. [default: 100000]
    #[arg(long, env = "TICKRING_BRIDGE_MAX_TOPICS", value_name = "N")]
    max_topics: Option<u32>,

    /// Bytes of one message of a client. [default: 65536]
    #[arg(long, env = "TICKRING_BRIDGE_MAX_MESSAGE_BYTES", value_name = "BYTES")]
    max_message_bytes: Option<u32>,

    /// Bytes that a client may be behind before it is conflated, told of a delay, or closed.
    /// [default: 1048576]
    #[arg(long, env = "TICKRING_BRIDGE_OUTBOX_BYTES", value_name = "BYTES")]
    outbox_bytes: Option<u32>,

    /// Bytes of memory for what is kept of one topic, for those who resume. [default: 262144]
    #[arg(long, env = "TICKRING_BRIDGE_HISTORY_BYTES", value_name = "BYTES")]
    history_bytes: Option<usize>,

    /// Bytes of memory for what is kept of all topics. [default: 268435456]
    #[arg(
        long,
        env = "TICKRING_BRIDGE_TOTAL_HISTORY_BYTES",
        value_name = "BYTES"
    )]
    total_history_bytes: Option<usize>,

    /// Seconds of silence after which a client is sent a ping; after three times as long it is
    /// closed. [default: 15]
    #[arg(long, env = "TICKRING_BRIDGE_PING_SECONDS", value_name = "SECS")]
    ping_seconds: Option<u32>,

    /// Seconds after which a client that takes nothing is closed. [default: 30]
    #[arg(long, env = "TICKRING_BRIDGE_WRITE_SECONDS", value_name = "SECS")]
    write_seconds: Option<u32>,
}

impl Settings {
    /// Puts what these settings say over `config`.
    ///
    /// # Errors
    /// A text that says which file cannot be read.
    fn apply(self, config: &mut Config) -> Result<(), String> {
        fn set<T>(value: Option<T>, to: &mut T) {
            if let Some(value) = value {
                *to = value;
            }
        }
        let seconds = |value: Option<u32>| value.map(|s| Duration::from_secs(s.max(1).into()));
        set(self.listen, &mut config.listen);
        set(self.upstream, &mut config.upstream);
        set(self.credentials, &mut config.credentials);
        set(self.allow_origin, &mut config.allowed_origins);
        set(
            self.max_connections.map(|n| n.max(1) as usize),
            &mut config.max_connections,
        );
        set(self.max_subscriptions, &mut config.max_subscriptions);
        set(
            self.max_topics.map(|n| n.max(1) as usize),
            &mut config.max_topics,
        );
        set(
            self.max_message_bytes.map(|n| n.max(128) as usize),
            &mut config.max_message_bytes,
        );
        set(
            self.outbox_bytes.map(|n| n as usize),
            &mut config.outbox_bytes,
        );
        set(self.history_bytes, &mut config.history_bytes);
        set(self.total_history_bytes, &mut config.total_history_bytes);
        set(seconds(self.ping_seconds), &mut config.ping_interval);
        set(seconds(self.write_seconds), &mut config.write_timeout);
        set(self.symbols.map(Page::new), &mut config.page);
        if let Some(file) = self.symbols_file {
            config.page = Page::from_file(&file).map_err(|error| format!("{file}: {error}"))?;
        }
        Ok(())
    }
}

impl Cli {
    /// The configuration that holds.
    fn resolve(self) -> Result<Config, String> {
        let mut config = Config::default();
        let mut flags = self.settings;
        if let Some(file) = self.config {
            let text = std::fs::read_to_string(&file)
                .map_err(|error| format!("{}: {error}", file.display()))?;
            let mut settings: Settings =
                toml::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
            flags.tls_cert = flags.tls_cert.or(settings.tls_cert.take());
            flags.tls_key = flags.tls_key.or(settings.tls_key.take());
            settings.apply(&mut config)?;
        }
        config.tls = match (flags.tls_cert.take(), flags.tls_key.take()) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err("--tls-cert and --tls-key go together".to_owned()),
        };
        flags.apply(&mut config)?;
        Ok(config)
    }
}

/// Runs the command line that the process was given.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    start_logs(cli.log_format);
    let config = match cli.resolve() {
        Ok(config) => config,
        Err(text) => return fail(&text, 2),
    };
    let mut signals = match Signals::new([SIGINT, SIGTERM]) {
        Ok(signals) => signals,
        Err(error) => return fail(&format!("cannot listen for signals: {error}"), 1),
    };
    let (upstream, secure) = (config.upstream.clone(), config.tls.is_some());
    let bridge = match Bridge::start(config) {
        Ok(bridge) => bridge,
        Err(error) => return fail(&error.to_string(), 1),
    };
    // Nobody has to read it.
    let scheme = if secure { "https" } else { "http" };
    let address = bridge.local_addr();
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(
        stdout,
        "listening on {scheme}://{address}/ (server {upstream})"
    );
    let _ = stdout.flush();
    drop(stdout);

    let mut arrivals = signals.forever();
    let signal = arrivals.next();
    tracing::info!(signal, "stopping; a second signal ends the process at once");
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            std::process::exit(INTERRUPTED);
        }
    });
    bridge.stop();
    ExitCode::SUCCESS
}

fn fail(text: &str, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "tickring-bridge: error: {text}");
    ExitCode::from(code)
}

/// Logs to stderr.
fn start_logs(format: LogFormat) {
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .with_env_var("TICKRING_LOG")
        .from_env_lossy();
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
}
