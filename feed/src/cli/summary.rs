//! What a run did.

use std::collections::BTreeMap;
use std::io::Write;

use serde::Serialize;
use tickring_feed::Content;

/// What a run did, for people or as JSON.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Summary {
    pub(crate) ticks: u64,
    pub(crate) trades: u64,
    pub(crate) quotes: u64,
    pub(crate) skipped: SkippedLines,
    pub(crate) seconds: f64,
    pub(crate) ticks_per_s: f64,
    /// Whether the server has confirmed every tick.
    pub(crate) confirmed: bool,
    pub(crate) symbols: BTreeMap<String, SymbolCounts>,
}

/// Lines that were not published.
#[derive(Debug, Default, Serialize)]
pub(crate) struct SkippedLines {
    pub(crate) depth: u64,
    pub(crate) other: u64,
    pub(crate) faulty: u64,
}

/// Ticks of one instrument.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct SymbolCounts {
    pub(crate) trades: u64,
    pub(crate) quotes: u64,
}

impl SymbolCounts {
    pub(crate) fn count(&mut self, content: &Content) {
        match content {
            Content::Trade(_) => self.trades += 1,
            Content::Quote(_) => self.quotes += 1,
        }
    }
}

/// Symbols that the summary for people lists; JSON has all.
const LISTED: usize = 20;

impl Summary {
    /// Takes the ticks of one instrument in.
    pub(crate) fn add(&mut self, symbol: &str, counts: SymbolCounts) {
        self.trades += counts.trades;
        self.quotes += counts.quotes;
        self.ticks += counts.trades + counts.quotes;
        self.symbols.insert(symbol.to_owned(), counts);
    }

    /// Takes the time in; the ticks must all be there.
    pub(crate) fn took(&mut self, seconds: f64) {
        self.seconds = seconds;
        self.ticks_per_s = if seconds > 0.0 {
            self.ticks as f64 / seconds
        } else {
            0.0
        };
    }

    /// Writes it to `out`.
    pub(crate) fn write(&self, out: &mut impl Write, json: bool) -> std::io::Result<()> {
        if json {
            serde_json::to_writer(&mut *out, self)?;
            return writeln!(out);
        }
        let SkippedLines {
            depth,
            other,
            faulty,
        } = self.skipped;
        writeln!(
            out,
            "{} ticks ({} trades, {} quotes), {} lines skipped ({faulty} of them faulty), {:.3} s, {:.0} ticks/s, {}",
            self.ticks,
            self.trades,
            self.quotes,
            depth + other + faulty,
            self.seconds,
            self.ticks_per_s,
            match self.confirmed {
                true => "all confirmed",
                false => "NOT all confirmed",
            },
        )?;
        let mut busiest: Vec<_> = self.symbols.iter().collect();
        busiest.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.trades + counts.quotes));
        for (symbol, counts) in busiest.iter().take(LISTED) {
            let SymbolCounts { trades, quotes } = counts;
            writeln!(out, "  {symbol:<16} {trades:>9} trades {quotes:>9} quotes")?;
        }
        match busiest.len().saturating_sub(LISTED) {
            0 => Ok(()),
            more => writeln!(out, "  and {more} more"),
        }
    }
}
