//! The demo's table: what a subscriber knows of each instrument.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tickring_client::TopicHandle;
use tickring_client::protocol::{Event, MarketState, Micros, Quote, Snapshot, Trade};

use crate::cli::body::Body;
use crate::cli::clock::wall_ns;
use crate::cli::rates::NodeView;
use crate::cli::screen::{Line, Look, short};

/// Rates and percentiles are over this long.
const WINDOW: Duration = Duration::from_secs(1);
/// Instruments shown where lines scroll by.
const FEW: usize = 3;
/// Lines that are no instrument.
const FRAME: usize = 6;
/// The longest latency that is told apart, in nanoseconds.
const LONGEST_NS: u64 = 60_000_000_000;

#[derive(Clone, Debug, Default)]
struct Row {
    symbol: String,
    last: Option<Trade>,
    /// Whether the newest price is above or below the one before.
    moved: Option<bool>,
    quote: Option<Quote>,
    open: Micros,
    volume: Micros,
    updates: u64,
    updates_per_s: f64,
}

#[derive(Debug)]
pub(super) struct Board {
    address: SocketAddr,
    page: SocketAddr,
    rows: Vec<Row>,
    /// Which row a topic is, by the index of its handle.
    seats: Vec<Option<usize>>,
    latency_ns: Histogram<u64>,
    whole_latency_ns: Histogram<u64>,
    window_began: Instant,
    received: u64,
    p99_ns: u64,
}

impl Board {
    pub(super) fn new((address, page): (SocketAddr, SocketAddr), symbols: &[String]) -> Self {
        let histogram = Histogram::new_with_max(LONGEST_NS, 3)
            .expect("three digits up to a minute are within what a histogram can do");
        let rows = symbols.iter().map(|symbol| Row {
            symbol: symbol.clone(),
            ..Row::default()
        });
        Self {
            address,
            page,
            rows: rows.collect(),
            seats: Vec::new(),
            latency_ns: histogram.clone(),
            whole_latency_ns: histogram,
            window_began: Instant::now(),
            received: 0,
            p99_ns: 0,
        }
    }

    /// Shows the topic in that row.
    pub(super) fn seat(&mut self, topic: TopicHandle, row: usize) {
        let index = topic.index();
        if self.seats.len() <= index {
            self.seats.resize(index + 1, None);
        }
        self.seats[index] = Some(row);
    }

    /// Takes an event in, if it is of a topic that has a row.
    pub(super) fn event(&mut self, topic: TopicHandle, event: &Event<'_>) -> bool {
        let Some(Some(row)) = self.seats.get(topic.index()) else {
            return false;
        };
        let row = &mut self.rows[*row];
        match Body::read(event.kind, event.body) {
            Body::Trade(trade) => row.trade(trade),
            Body::Quote(quote) => row.quote = Some(quote),
            _ => {}
        }
        row.updates += 1;
        self.received += 1;
        let latency = wall_ns().saturating_sub(event.event_ns);
        self.latency_ns.saturating_record(latency.max(1));
        true
    }

    pub(super) fn snapshot(&mut self, topic: TopicHandle, snapshot: &Snapshot<'_>) {
        if let Some(Some(row)) = self.seats.get(topic.index())
            && let Body::Market(state) = Body::read(snapshot.kind, snapshot.body)
        {
            self.rows[*row].state(&state);
        }
    }

    /// The picture of this moment: the whole for a screen of that height, otherwise a few lines.
    pub(super) fn lines(&mut self, node: &NodeView, height: Option<usize>) -> Vec<Line> {
        self.end_window();
        let total = node.total();
        let header = format!(
            "{} events/s   {} deliveries/s   p99 {:.0} µs publish to receive",
            short(total.events_per_s),
            short(total.deliveries_per_s),
            self.p99_ns as f64 / 1e3,
        );
        let room = height.map_or(FEW, |height| height.saturating_sub(FRAME));
        let rows = self.rows.iter().take(room).map(Row::line);
        if height.is_none() {
            return std::iter::once(Line::new(Look::Plain, header))
                .chain(rows)
                .collect();
        }
        let mut lines = vec![
            Line::new(
                Look::Bold,
                format!("tickring demo: open http://{}/ in a browser", self.page),
            ),
            Line::new(Look::Plain, header),
            Line::default(),
            Line::new(
                Look::Dim,
                format!(
                    "{:<8}{:>14}{:>10}{:>14}{:>14}{:>16}{:>11}",
                    "symbol", "last", "change", "bid", "ask", "volume", "updates/s"
                ),
            ),
        ];
        lines.extend(rows);
        let symbol = self.rows.first().map_or("", |row| &row.symbol);
        lines.push(Line::default());
        lines.push(Line::new(
            Look::Dim,
            format!(
                "In another shell: tickring sub market/{symbol} --connect {}   Ctrl-C ends.",
                self.address
            ),
        ));
        lines
    }

    fn end_window(&mut self) {
        let elapsed = self.window_began.elapsed();
        if elapsed < WINDOW {
            return;
        }
        let seconds = elapsed.as_secs_f64();
        self.window_began = Instant::now();
        for row in &mut self.rows {
            row.updates_per_s = row.updates as f64 / seconds;
            row.updates = 0;
        }
        self.p99_ns = self.latency_ns.value_at_quantile(0.99);
        self.whole_latency_ns += &self.latency_ns;
        self.latency_ns.reset();
    }

    /// What happened, in a line.
    pub(super) fn summary(&mut self, published: u64) -> String {
        self.whole_latency_ns += &self.latency_ns;
        self.latency_ns.reset();
        let at = |quantile| self.whole_latency_ns.value_at_quantile(quantile) as f64 / 1e3;
        format!(
            "{published} events published, {} received; publish to receive p50 {:.0} µs, p99 {:.0} µs",
            self.received,
            at(0.5),
            at(0.99),
        )
    }
}

impl Row {
    fn trade(&mut self, trade: Trade) {
        match self.last {
            None => self.open = trade.price,
            Some(before) if before.price != trade.price => {
                self.moved = Some(trade.price > before.price);
            }
            Some(_) => {}
        }
        self.volume = self.volume.checked_add(trade.qty).unwrap_or(Micros::MAX);
        self.last = Some(trade);
    }

    fn state(&mut self, state: &MarketState) {
        self.last = state.trade.map(|(_, trade)| trade);
        self.quote = state.quote.map(|(_, quote)| quote);
        (self.open, self.volume) = (state.open, state.volume);
    }

    /// Change since the open in hundredths of a percent.
    fn change(&self) -> Option<i128> {
        let (last, open) = (i128::from(self.last?.price.0), i128::from(self.open.0));
        (open != 0).then(|| (last - open) * 10_000 / open.abs())
    }

    fn line(&self) -> Line {
        let look = match self.moved {
            Some(true) => Look::Up,
            Some(false) => Look::Down,
            None => Look::Plain,
        };
        let last = self.last.map_or_else(
            || "-".to_owned(),
            |trade| trade.price.display(trade.price_decimals).to_string(),
        );
        let side = |price: fn(&Quote) -> Micros| {
            self.quote.as_ref().map_or_else(
                || "-".to_owned(),
                |quote| price(quote).display(quote.price_decimals).to_string(),
            )
        };
        let (bid, ask) = (side(|quote| quote.bid), side(|quote| quote.ask));
        let change = self.change().unwrap_or(0);
        let (sign, size) = (if change < 0 { '-' } else { '+' }, change.unsigned_abs());
        let change = format!("{sign}{}.{:02}%", size / 100, size % 100);
        let decimals = self.last.map_or(0, |trade| trade.qty_decimals);
        let volume = self.volume.display(decimals).to_string();
        Line::new(Look::Bold, format!("{:<8}", self.symbol))
            .add(look, format!("{last:>14}{change:>10}"))
            .add(
                Look::Plain,
                format!("{bid:>14}{ask:>14}{volume:>16}{:>11.0}", self.updates_per_s),
            )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trade(price: i64) -> Trade {
        Trade {
            price: Micros(price),
            qty: Micros(1_000_000),
            price_decimals: 2,
            ..Trade::default()
        }
    }

    #[test]
    fn a_row_shows_the_change_since_the_open() {
        let mut row = Row {
            symbol: "ACME".to_owned(),
            ..Row::default()
        };
        row.trade(trade(10_000_000));
        row.trade(trade(10_125_000));
        assert_eq!((row.change(), row.moved), (Some(125), Some(true)));
        row.trade(trade(9_990_000));
        assert_eq!((row.change(), row.moved), (Some(-10), Some(false)));
        assert_eq!(row.volume, Micros(3_000_000));
    }
}
