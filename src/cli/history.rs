//! `tickring history`.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use clap::{ArgGroup, Args};
use indicatif::{ProgressBar, ProgressStyle};
use tickring_client::protocol::{ErrorCode, Series, TopicName};
use tickring_client::{Client, ClientError, HistoryQuery, HistoryRows};
use tickring_feed::parse_timestamp;

use super::clock::wall_ns;
use super::connect::Connect;
use super::failure::{Failure, code_name};
use super::json;
use super::signals::Stop;
use super::text::Stored;

/// How long a page may take; the server refuses one that it has not read by `read_timeout`.
const PAGE_TIME: Duration = Duration::from_secs(60);
/// A read that takes less time has no bar.
const QUICK: Duration = Duration::from_secs(1);
const CLOSE: Duration = Duration::from_millis(500);

/// Read the stored ticks or candles of an instrument back, oldest first.
///
/// A time is written as RFC 3339 (2024-08-08T09:30:00Z), as a date (2024-08-08), as seconds,
/// milliseconds, microseconds or nanoseconds since 1970, as `now`, or as how long ago (-90s, -15m,
/// -1h, -7d). The database follows the live stream, as a rule within a second.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("series").required(true))]
pub(super) struct History {
    /// The instrument, such as market/BTCUSDT.
    #[arg(value_name = "TOPIC", value_parser = instrument)]
    topic: String,

    /// Read candles of this length: 1s, 1m, 1h or 1d.
    #[arg(long, value_name = "LENGTH", value_parser = candles, group = "series")]
    candles: Option<Series>,

    /// Read every trade and quote.
    #[arg(long, group = "series")]
    ticks: bool,

    /// From this time on; without it from the first.
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    from: Option<u64>,

    /// Up to before this time; without it to the last.
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    to: Option<u64>,

    /// At most so many rows.
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroU64>,

    /// The newest row first.
    #[arg(long)]
    newest_first: bool,

    /// One JSON object a line: topic, kind, and the fields of its kind. Decimals are strings.
    #[arg(long)]
    json: bool,

    /// For how many seconds a server that cannot answer at present, as while its database is away, is
    /// asked again.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    patience: u32,

    #[command(flatten)]
    connect: Connect,
}

fn instrument(text: &str) -> Result<String, String> {
    let name = TopicName::new(text).map_err(|error| error.to_string())?;
    match name.kind() {
        "market" => Ok(text.to_owned()),
        kind => Err(format!(
            "ticks and candles are stored of market/... topics, not of {kind}/..."
        )),
    }
}

fn candles(text: &str) -> Result<Series, String> {
    Series::ALL[1..]
        .iter()
        .copied()
        .find(|series| series.name() == text)
        .ok_or_else(|| "write 1s, 1m, 1h or 1d".to_owned())
}

/// A time in nanoseconds since 1970-01-01 UTC.
fn time(text: &str) -> Result<u64, String> {
    time_at(text, wall_ns()).ok_or_else(|| {
        "write a time such as 2024-08-08T09:30:00Z, 2024-08-08, 1723109400, now or -1h".to_owned()
    })
}

fn time_at(text: &str, now: u64) -> Option<u64> {
    if text == "now" {
        return Some(now);
    }
    if let Some(ago) = text.strip_prefix('-') {
        let unit = ago.find(|c: char| !c.is_ascii_digit())?;
        let (count, unit) = ago.split_at(unit);
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return None,
        };
        let ago = count
            .parse::<u64>()
            .ok()?
            .checked_mul(seconds * 1_000_000_000)?;
        return Some(now.saturating_sub(ago));
    }
    parse_timestamp(text).or_else(|| parse_timestamp(&format!("{text}T00:00:00Z")))
}

impl History {
    pub(super) fn run(self) -> Result<(), Failure> {
        let (from_ns, to_ns) = (self.from.unwrap_or(0), self.to.unwrap_or(u64::MAX));
        if from_ns >= to_ns {
            let text = "--to is not behind --from, so no row can lie between them";
            return Err(Failure::Usage(text.to_owned()));
        }
        let query = HistoryQuery {
            newest_first: self.newest_first,
            from_ns,
            to_ns,
            ..HistoryQuery::of(self.candles.unwrap_or(Series::Ticks))
        };
        let stop = Stop::on_signal()?;
        let mut client = self.connect.client("tickring-history")?;
        let mut out = Printer::new(&self, query.series);
        let read = self.read(&mut client, query, &mut out, &stop);
        let printed = out.end();
        let _ = client.close(CLOSE); // all that was asked for has come
        read.and(printed)
    }

    fn read(
        &self,
        client: &mut Client,
        mut query: HistoryQuery,
        out: &mut Printer<'_>,
        stop: &Stop,
    ) -> Result<(), Failure> {
        let mut left = self.limit.map_or(u64::MAX, NonZeroU64::get);
        while left > 0 && !stop.is_asked() {
            query.limit = u32::try_from(left).unwrap_or(0); // 0: as many as fit a page
            let page = self.page(client, query)?;
            out.page(&page)?;
            left = left.saturating_sub(page.len() as u64);
            if !page.more {
                break;
            }
            query.cursor = page.next;
        }
        Ok(())
    }

    /// One page. A server that has no room at present, or whose database is away, is asked again
    /// for a while.
    fn page(&self, client: &mut Client, query: HistoryQuery) -> Result<HistoryRows, Failure> {
        let patience = Duration::from_secs(self.patience.into());
        let give_up = Instant::now() + patience;
        let mut told = false;
        loop {
            match client.history(&self.topic, query, PAGE_TIME) {
                Ok(page) => return Ok(page),
                Err(ClientError::Refused {
                    code,
                    text,
                    retry_after_ms,
                }) if code == ErrorCode::Overloaded as u16 && Instant::now() < give_up => {
                    // Whoever waits is to know for what.
                    if !std::mem::replace(&mut told, true) {
                        let text = if text.is_empty() {
                            code_name(code)
                        } else {
                            text
                        };
                        let note = format!(
                            "tickring: {text}; it is asked again for up to {} s",
                            self.patience
                        );
                        let _ = writeln!(io::stderr(), "{note}"); // nobody reads it
                    }
                    let wait = Duration::from_millis(retry_after_ms.max(10).into());
                    std::thread::sleep(wait.min(patience));
                }
                Err(ClientError::Refused { code, text, .. }) => {
                    return Err(Failure::Refused {
                        what: format!("reading {}", self.topic),
                        code,
                        text: match text.as_str() {
                            "" => code_name(code),
                            _ => text,
                        },
                    });
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Prints rows as they come, in flat memory.
struct Printer<'a> {
    topic: &'a str,
    json: bool,
    series: Series,
    out: BufWriter<io::StdoutLock<'static>>,
    stored: Stored,
    rows: u64,
    begin: Instant,
    bar: Option<ProgressBar>,
    /// Whether a bar would be seen, and not among the rows.
    shows_bar: bool,
}

impl<'a> Printer<'a> {
    fn new(history: &'a History, series: Series) -> Self {
        Self {
            topic: &history.topic,
            json: history.json,
            series,
            out: BufWriter::with_capacity(64 << 10, io::stdout().lock()),
            stored: Stored::default(),
            rows: 0,
            begin: Instant::now(),
            bar: None,
            shows_bar: io::stderr().is_terminal() && !io::stdout().is_terminal(),
        }
    }

    fn page(&mut self, page: &HistoryRows) -> Result<(), Failure> {
        self.print(page).map_err(Failure::Output)?;
        self.rows += page.len() as u64;
        if self.shows_bar && self.begin.elapsed() > QUICK {
            let bar = self.bar.get_or_insert_with(|| {
                let style = ProgressStyle::with_template("{spinner} {human_pos} rows, {per_sec}");
                ProgressBar::no_length().with_style(style.expect("a test checks the template"))
            });
            bar.set_position(self.rows);
        }
        Ok(())
    }

    fn print(&mut self, page: &HistoryRows) -> io::Result<()> {
        if self.rows == 0 && !self.json && !page.is_empty() {
            self.stored.heading(&mut self.out, self.series)?;
        }
        for tick in page.ticks() {
            let tick = tick.map_err(io::Error::other)?;
            match self.json {
                true => json::stored_tick(&mut self.out, self.topic, &tick)?,
                false => self.stored.tick(&mut self.out, &tick)?,
            }
        }
        for candle in page.candles() {
            let candle = candle.map_err(io::Error::other)?;
            match self.json {
                true => json::stored_candle(&mut self.out, self.topic, self.series, &candle)?,
                false => self.stored.candle(&mut self.out, &candle)?,
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Failure> {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.out.flush().map_err(Failure::Output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_absolute_or_ago() {
        const DAY: u64 = 86_400_000_000_000;
        let now = 10 * DAY;
        for (text, ns) in [
            ("now", now),
            ("-2d", 8 * DAY),
            ("-90s", now - 90_000_000_000),
            ("-99d", 0),
            ("1970-01-02", DAY),
            ("1970-01-02T01:00:00+01:00", DAY),
            ("86400", DAY),
        ] {
            assert_eq!(time_at(text, now), Some(ns), "{text}");
        }
        for text in ["", "-", "-1", "-h", "-1w", "yesterday", "-99999999999999d"] {
            assert_eq!(time_at(text, now), None, "{text}");
        }
    }

    #[test]
    fn the_bar_has_a_valid_template() {
        ProgressStyle::with_template("{spinner} {human_pos} rows, {per_sec}").unwrap();
    }
}
