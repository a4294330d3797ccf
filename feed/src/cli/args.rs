//! What can be asked for.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use tickring_feed::{Format, Speed};

const EXIT_CODES: &str = "\
Exit codes: 0 everything was published and confirmed by the server; 1 the data is faulty, the server
refused something or the connection broke; 2 wrong usage.";

/// Publishes market data to a tickring server: recorded files, or a market made up from a seed.
///
/// Each instrument is a topic, market/SYMBOL. Prices and quantities are published exactly as they
/// are written in the file; what does not fit (more than six decimals) is reported with file and
/// line, never rounded.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) action: Action,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    Replay(ReplayArgs),
    Synth(SynthArgs),
}

/// Replay recorded files, several of them merged by time.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct ReplayArgs {
    /// How the files are written.
    ///
    /// binance: each line is the local receive time in ns, a blank, and a message of a Binance
    /// market stream as JSON; trade and bookTicker are published, the rest is skipped and counted.
    /// csv: a header that names timestamp (or ts), and bid and ask (bid_qty, ask_qty), or price and
    /// qty (side); optionally symbol.
    #[arg(long, value_enum)]
    pub(crate) format: FormatArg,
    /// Files, plain or gzip.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// How fast: so many times as fast as it was recorded, or `max`.
    #[arg(long, default_value = "1", value_name = "1|N|max")]
    pub(crate) speed: Speed,
    /// The instrument of CSV rows that name none.
    #[arg(long, value_name = "SYMBOL")]
    pub(crate) csv_symbol: Option<String>,
    /// Skip lines that are no tick, and count them, instead of stopping at the first.
    #[arg(long)]
    pub(crate) skip_bad_lines: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// Make up a market: prices that move by tick sizes, spreads, bursts, popular and quiet instruments.
/// The same seed gives the same market.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct SynthArgs {
    /// Instruments, 1 to 1,000,000; the first is the busiest.
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub(crate) symbols: u32,
    /// Ticks a second of all instruments together, on average.
    #[arg(long, default_value_t = 1000.0, value_name = "R")]
    pub(crate) rate: f64,
    /// How long, in seconds.
    #[arg(long, default_value_t = 10.0, value_name = "S", value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Which market.
    #[arg(long, default_value_t = 1, value_name = "K")]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// Where to publish, and what to say about it.
#[derive(Debug, ClapArgs)]
pub(crate) struct Target {
    /// The server.
    #[arg(
        long,
        env = "TICKRING_CONNECT",
        default_value = "127.0.0.1:7400",
        value_name = "ADDR"
    )]
    pub(crate) connect: String,
    /// What to put before each symbol: market/PREFIXSYMBOL.
    #[arg(long, default_value = "", value_name = "PREFIX")]
    pub(crate) symbol_prefix: String,
    /// What the connection calls itself.
    #[arg(long, default_value = "tickring-feed", value_name = "NAME")]
    pub(crate) name: String,
    /// Print the summary as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum FormatArg {
    Binance,
    Csv,
}

impl From<FormatArg> for Format {
    fn from(format: FormatArg) -> Self {
        match format {
            FormatArg::Binance => Self::Binance,
            FormatArg::Csv => Self::Csv,
        }
    }
}

fn seconds(text: &str) -> Result<f64, &'static str> {
    match text.parse() {
        Ok(seconds) if (0.0..=1e9).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds from 0 to 1,000,000,000"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_contradict_each_other_nowhere() {
        Args::command().debug_assert();
    }
}
