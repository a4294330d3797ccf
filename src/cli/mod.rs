//! The subcommands, one file each, and what they share: arguments, errors, exit codes.

mod body;
mod clock;
mod connect;
mod demo;
mod failure;
mod history;
mod journal;
mod json;
mod publish;
mod rates;
mod record;
mod recovery;
mod screen;
mod serve;
mod signals;
mod sub;
mod text;
mod top;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use failure::Failure;

/// A real-time server for markets and live rooms: every event in order, nothing lost.
#[derive(Debug, Parser)]
#[command(
    name = "tickring",
    version,
    after_help = "Exit codes: 0 done; 1 the server refused, could not be reached or failed; 2 wrong usage or \
                  configuration.\nLogs go to stderr; TICKRING_LOG filters them, for instance \
                  TICKRING_LOG=debug or TICKRING_LOG=tickring::node=trace."
)]
struct Cli {
    /// How logs are written.
    #[arg(
        long,
        global = true,
        env = "TICKRING_LOG_FORMAT",
        value_enum,
        default_value_t
    )]
    log_format: LogFormat,

    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::Serve>),
    Sub(sub::Sub),
    Pub(publish::Pub),
    Top(top::Top),
    History(history::History),
    Journal(journal::Journal),
    Demo(demo::Demo),
}

/// Runs the command line that the process was given.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    let quiet = !matches!(cli.command, Command::Serve(_));
    start_logs(cli.log_format, quiet);
    let outcome = match cli.command {
        Command::Serve(serve) => serve.run(),
        Command::Sub(sub) => sub.run(),
        Command::Pub(publish) => publish.run(),
        Command::Top(top) => top.run(),
        Command::History(history) => history.run(),
        Command::Journal(journal) => journal.run(),
        Command::Demo(demo) => demo.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough.
        Err(Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            tell(format_args!("error: {failure}"));
            failure.exit_code()
        }
    }
}

/// Logs to stderr. A server tells what it does; commands for people speak for themselves, so
/// that only warnings are added to what they print.
fn start_logs(format: LogFormat, quiet: bool) {
    let default = if quiet { "warn" } else { "info" };
    let filter = EnvFilter::builder()
        .with_default_directive(default.parse().expect("a level is a directive"))
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

/// Prints a line on stdout.
///
/// # Errors
/// [`Failure::Output`].
fn say(line: std::fmt::Arguments<'_>) -> Result<(), Failure> {
    use std::io::Write;
    writeln!(std::io::stdout(), "{line}").map_err(Failure::Output)
}

/// Says something beside the command's output: a line on stderr. A closed stderr is no reason to
/// stop.
fn tell(line: std::fmt::Arguments<'_>) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "tickring: {line}");
}
