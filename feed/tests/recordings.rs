//! The recordings that the folder in the environment variable `TICKRING_DATA` holds, and texts
//! that come back as they were written.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "what a test cannot read fails it, and what it skips it says"
)]

use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use proptest::prelude::*;
use tickring_feed::{Content, Format, Replay, Skipped, Source, SourceOptions, Step, Tick, binance};
use tickring_protocol::Micros;

/// The file, if there is a folder of recordings.
fn recording(name: &str) -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("TICKRING_DATA") else {
        println!("skipped: set TICKRING_DATA to the folder that holds {name}");
        return None;
    };
    Some(PathBuf::from(folder).join(name))
}

fn open(file: &std::path::Path, format: Format, symbol: Option<&str>) -> Source {
    let symbol = symbol.map(str::to_owned);
    Source::open(file, format, &SourceOptions { symbol }).unwrap()
}

/// How many trades and quotes `replay` holds; each is shown to `look`.
fn counted(mut replay: Replay, mut look: impl FnMut(&Tick<'_>)) -> (u64, u64, Skipped) {
    let (mut trades, mut quotes) = (0, 0);
    while let Some(tick) = replay.next_tick().unwrap() {
        match tick.content {
            Content::Trade(_) => trades += 1,
            Content::Quote(_) => quotes += 1,
        }
        look(&tick);
    }
    (trades, quotes, replay.skipped())
}

#[test]
fn the_recorded_bitcoin_stream_has_its_known_figures() {
    let Some(file) = recording("btcusdt_20240808.gz") else {
        return;
    };
    let replay = Replay::new(vec![open(&file, Format::Binance, None)]);
    let bytes = replay.len_bytes();
    let (trades, quotes, skipped) = counted(replay, |tick| assert_eq!(tick.symbol, "BTCUSDT"));
    assert_eq!((trades, quotes), (21_313, 66_089));
    assert_eq!((skipped.depth, skipped.other), (6_551, 1));
    assert!(bytes > 1_000_000);
}

#[test]
fn two_recorded_streams_are_merged_by_the_time_they_were_received() {
    let files = ["btcusdt_20240808.gz", "ethusdt_20240808.gz"].map(recording);
    let [Some(bitcoin), Some(ether)] = files else {
        return;
    };
    let sources = [bitcoin, ether].map(|file| open(&file, Format::Binance, None));
    let (mut ether_trades, mut last_ns) = (0, 0);
    let (trades, ..) = counted(Replay::new(sources.into()), |tick| {
        assert!(last_ns <= tick.received_ns);
        last_ns = tick.received_ns;
        let is_trade = matches!(tick.content, Content::Trade(_));
        ether_trades += u64::from(is_trade && tick.symbol == "ETHUSDT");
    });
    assert_eq!((trades, ether_trades), (21_313 + 14_076, 14_076));
}

#[test]
fn the_recorded_currency_quotes_have_their_known_figure_and_their_own_text() {
    let Some(file) = recording("usdjpy-ticks.csv") else {
        return;
    };
    let rows = BufReader::new(std::fs::File::open(&file).unwrap())
        .lines()
        .skip(1);
    let mut rows = rows.map(Result::unwrap);
    let replay = Replay::new(vec![open(&file, Format::Csv, Some("USDJPY"))]);
    let (trades, quotes, _) = counted(replay, |tick| {
        let Content::Quote(quote) = tick.content else {
            panic!("the file has quotes alone");
        };
        let row = rows.next().unwrap();
        let shown = format!(
            ",{},{}",
            quote.bid.display(quote.price_decimals),
            quote.ask.display(quote.price_decimals)
        );
        assert!(row.ends_with(&shown), "{row} became {shown}");
    });
    assert_eq!((trades, quotes), (0, 1000));
    assert_eq!(rows.next(), None);
}

#[test]
fn every_number_of_the_recorded_bitcoin_stream_comes_out_as_it_was_written() {
    let Some(file) = recording("btcusdt_20240808.gz") else {
        return;
    };
    let packed = BufReader::new(std::fs::File::open(&file).unwrap());
    let text = BufReader::new(flate2::bufread::MultiGzDecoder::new(packed));
    let mut source = open(&file, Format::Binance, None);
    let mut compared = 0;
    for line in text.lines() {
        let line = line.unwrap();
        let Step::Tick(tick) = source.step().unwrap() else {
            continue;
        };
        for (field, text) in shown(&tick.content) {
            let written = format!("\"{field}\":\"{text}\"");
            assert!(line.contains(&written), "{line} has no {written}");
            compared += 1;
        }
    }
    assert_eq!(compared, 2 * 21_313 + 4 * 66_089);
}

/// The numbers of a tick as text, each with its field in a recording.
fn shown(content: &Content) -> Vec<(char, String)> {
    let text = |value: Micros, decimals| value.display(decimals).to_string();
    match content {
        Content::Trade(t) => vec![
            ('p', text(t.price, t.price_decimals)),
            ('q', text(t.qty, t.qty_decimals)),
        ],
        Content::Quote(q) => vec![
            ('b', text(q.bid, q.price_decimals)),
            ('B', text(q.bid_qty, q.qty_decimals)),
            ('a', text(q.ask, q.price_decimals)),
            ('A', text(q.ask_qty, q.qty_decimals)),
        ],
    }
}

/// A decimal number of `decimals` decimals, as exchanges write them.
fn decimal_text(decimals: usize) -> impl Strategy<Value = String> {
    let fraction = proptest::string::string_regex(&format!("[0-9]{{{decimals}}}")).unwrap();
    (0..9_223_372_036_854_u64, fraction).prop_map(|(whole, fraction)| match fraction.as_str() {
        "" => whole.to_string(),
        fraction => format!("{whole}.{fraction}"),
    })
}

proptest! {
    #[test]
    fn prices_and_quantities_of_a_trade_come_out_as_they_were_written(
        price in (0..=6_usize).prop_flat_map(decimal_text),
        qty in (0..=6_usize).prop_flat_map(decimal_text),
    ) {
        let line = format!(
            r#"1 {{"data":{{"e":"trade","T":1,"s":"X","p":"{price}","q":"{qty}","m":true}}}}"#
        );
        let binance::Parsed::Tick(tick) = binance::parse(&line).unwrap() else {
            panic!("a trade is a tick");
        };
        prop_assert_eq!(shown(&tick.content), vec![('p', price), ('q', qty)]);
    }

    /// A source pads all prices to the same number of decimals.
    #[test]
    fn a_padded_quote_comes_out_as_it_was_written(
        [bid, ask] in (0..=6_usize).prop_flat_map(|d| [decimal_text(d), decimal_text(d)]),
    ) {
        let line = format!(
            r#"1 {{"data":{{"e":"bookTicker","s":"X","b":"{bid}","B":"1","a":"{ask}","A":"2"}}}}"#
        );
        let binance::Parsed::Tick(tick) = binance::parse(&line).unwrap() else {
            panic!("a quote is a tick");
        };
        let shown: Vec<_> = shown(&tick.content).into_iter().map(|(_, text)| text).collect();
        prop_assert_eq!(shown, vec![bid, "1".into(), ask, "2".into()]);
    }

    /// A source cuts the zeros at the end, so that a quote's prices differ in their decimals.
    #[test]
    fn a_quote_without_padding_comes_out_as_it_was_written(
        [bid, ask] in [decimal_text(6), decimal_text(6)],
    ) {
        let cut = |text: String| text.trim_end_matches('0').trim_end_matches('.').to_owned();
        let (bid, ask) = (cut(bid), cut(ask));
        let line = format!(
            r#"1 {{"data":{{"e":"bookTicker","s":"X","b":"{bid}","B":"1","a":"{ask}","A":"2"}}}}"#
        );
        let binance::Parsed::Tick(tick) = binance::parse(&line).unwrap() else {
            panic!("a quote is a tick");
        };
        let shown: Vec<_> = shown(&tick.content).into_iter().map(|(_, text)| text).collect();
        prop_assert_eq!(shown, vec![bid, "1".into(), ask, "2".into()]);
    }

    #[test]
    fn any_line_is_answered(line in ".{0,80}", json in r#"[0-9]{0,20} [{}\[\]":,a-zA-Z0-9.]{0,80}"#) {
        let _ = binance::parse(&line);
        let _ = binance::parse(&json);
    }
}
