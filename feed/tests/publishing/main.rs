//! The binary against a server that speaks just enough of the protocol and notes what it gets.
#![allow(clippy::unwrap_used, reason = "what a test cannot read fails it")]

mod server;

use std::io::Write;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use flate2::write::GzEncoder;
use serde_json::Value;
use server::{Behaviour, Server};
use tickring_protocol::{Micros, Quote, Trade};

const TICKS: &str = concat!(
    r#"1000000000 {"data":{"e":"trade","s":"BTC","T":1,"p":"61800.30","q":"0.006","m":true}}"#,
    "\n",
    r#"1100000000 {"data":{"e":"bookTicker","s":"BTC","T":2,"b":"1.0","B":"2","a":"1.5","A":"3"}}"#,
    "\n",
    r#"1200000000 {"data":{"e":"depthUpdate","s":"BTC","T":2,"b":[],"a":[]}}"#,
    "\n",
    r#"1300000000 {"data":{"e":"trade","s":"ETH","T":3,"p":"2681.62","q":"1.000","m":false}}"#,
    "\n",
);

/// A file that is removed with this value.
struct Recording(std::path::PathBuf);

impl Recording {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let file = format!("tickring-feed-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(file);
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn feed(address: &str, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tickring-feed"))
        .args(args)
        .env("TICKRING_CONNECT", address)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn summary(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

fn replay<'a>(file: &'a Recording, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["replay", "--format", "binance", "--json", file.path()];
    args.extend_from_slice(more);
    args
}

#[test]
fn a_recording_reaches_its_topics_in_order_and_exactly() {
    let server = Server::start(Behaviour::Takes);
    let file = Recording::new("order.txt", TICKS.as_bytes());
    let output = feed(server.address(), &replay(&file, &["--speed", "max"]));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));

    let got = server.published();
    let topics: Vec<_> = got.iter().map(|p| (p.topic.as_str(), p.event_ns)).collect();
    assert_eq!(
        topics,
        [
            ("market/BTC", 1_000_000),
            ("market/BTC", 2_000_000),
            ("market/ETH", 3_000_000)
        ]
    );
    let trade = Trade::decode(&got[0].body).unwrap();
    assert_eq!(
        (trade.price, trade.qty),
        (Micros(61_800_300_000), Micros(6000))
    );
    let quote = Quote::decode(&got[1].body).unwrap();
    assert_eq!(
        (quote.bid, quote.ask),
        (Micros(1_000_000), Micros(1_500_000))
    );

    let summary = summary(&output);
    assert_eq!(
        (&summary["ticks"], &summary["trades"], &summary["quotes"]),
        (&3.into(), &2.into(), &1.into())
    );
    assert_eq!(summary["skipped"]["depth"], 1);
    assert_eq!(summary["symbols"]["BTC"]["quotes"], 1);
    assert_eq!(summary["confirmed"], true);
}

#[test]
fn gzip_prefix_and_several_files_work_together() {
    let server = Server::start(Behaviour::Takes);
    let mut packer = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(TICKS.as_bytes()).unwrap();
    let packed = Recording::new("a.gz", &packer.finish().unwrap());
    let between = TICKS
        .replace("BTC", "LATE")
        .replace("00000000 {", "50000000 {");
    let plain = Recording::new("b.txt", between.as_bytes());
    let more = [plain.path(), "--speed", "max", "--symbol-prefix", "x."];
    let output = feed(server.address(), &replay(&packed, &more));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let topics: Vec<_> = server.published().into_iter().map(|p| p.topic).collect();
    let (btc, late, eth) = ("market/x.BTC", "market/x.LATE", "market/x.ETH");
    assert_eq!(topics, [btc, late, btc, late, eth, eth]);
}

#[test]
fn csv_needs_a_symbol_and_takes_the_one_given() {
    let server = Server::start(Behaviour::Takes);
    let file = Recording::new("fx.csv", b"timestamp,bid,ask\n1,86.655,86.728\n");
    let mut args = vec!["replay", "--format", "csv", file.path(), "--speed", "max"];
    let output = feed(server.address(), &args);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("--csv-symbol"), "{}", said(&output));
    args.extend(["--csv-symbol", "USDJPY"]);
    let output = feed(server.address(), &args);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(server.published()[0].topic, "market/USDJPY");
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(
        shown.starts_with("1 ticks (0 trades, 1 quotes), 0 lines skipped"),
        "{shown}"
    );
}

#[test]
fn a_faulty_line_stops_the_replay_by_name_and_what_came_before_is_confirmed() {
    let server = Server::start(Behaviour::Takes);
    let file = Recording::new(
        "faulty.txt",
        TICKS.replace("2681.62", "2681.6200001").as_bytes(),
    );
    let output = feed(server.address(), &replay(&file, &["--speed", "max"]));
    assert_eq!(output.status.code(), Some(1));
    let place = format!(
        "{}:4: field `p`: \"2681.6200001\" is more than 6 decimals",
        file.path()
    );
    assert!(said(&output).contains(&place), "{}", said(&output));
    assert_eq!(summary(&output)["confirmed"], true);
    assert_eq!(server.published().len(), 2);

    let output = feed(
        server.address(),
        &replay(&file, &["--speed", "max", "--skip-bad-lines"]),
    );
    assert_eq!(output.status.code(), Some(0));
    assert!(
        said(&output).contains(&format!("skipped: {place}")),
        "{}",
        said(&output)
    );
    assert_eq!(summary(&output)["skipped"]["faulty"], 1);
}

#[test]
fn a_refusal_is_told_with_topic_and_reason_although_publishes_are_quiet() {
    let server = Server::start(Behaviour::RefusesTopic("market/ETH"));
    let file = Recording::new("refused.txt", TICKS.as_bytes());
    let output = feed(server.address(), &replay(&file, &["--speed", "max"]));
    assert_eq!(output.status.code(), Some(1));
    let told = said(&output);
    assert!(
        told.contains("market/ETH: out_of_range: qty is negative"),
        "{told}"
    );
    assert_eq!(summary(&output)["confirmed"], false);
}

#[test]
fn a_server_that_goes_away_is_an_error() {
    let server = Server::start(Behaviour::ClosesAfter(2));
    let file = Recording::new("gone.txt", TICKS.as_bytes());
    let output = feed(server.address(), &replay(&file, &["--speed", "max"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("lost the connection"),
        "{}",
        said(&output)
    );
    assert_eq!(summary(&output)["confirmed"], false);
}

#[test]
fn nobody_listening_and_no_file_are_errors_and_nonsense_is_wrong_usage() {
    let file = Recording::new("nobody.txt", TICKS.as_bytes());
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let output = feed(&address, &replay(&file, &[]));
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains(&format!("cannot connect to {address}")));

    let output = feed(&address, &["replay", "--format", "csv", "/nowhere.csv"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("/nowhere.csv"), "{}", said(&output));

    for args in [
        &["replay", "--format", "xml", "f"][..],
        &["replay", "--format", "csv"],
        &["synth", "--seconds", "-1"],
        &["synth", "--rate", "0"],
        &[],
    ] {
        assert_eq!(feed(&address, args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn a_replay_keeps_the_pace_of_the_recording() {
    let server = Server::start(Behaviour::Takes);
    let file = Recording::new("pace.txt", TICKS.as_bytes());
    let start = Instant::now();
    let output = feed(server.address(), &replay(&file, &["--speed", "0.5"]));
    // 0.3 s from the first tick to the last, at half the speed.
    assert!(start.elapsed() >= Duration::from_millis(600));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let at: Vec<_> = server.published().iter().map(|p| p.at).collect();
    assert!(at[1] - at[0] >= Duration::from_millis(150), "{at:?}");
    assert!(at[2] - at[1] >= Duration::from_millis(300), "{at:?}");
}

#[test]
fn a_made_up_market_is_the_same_for_the_same_seed() {
    let bodies = || {
        let server = Server::start(Behaviour::Takes);
        let args = "synth --symbols 5 --rate 2000 --seconds 0.3 --seed 9 --json";
        let output = feed(server.address(), &args.split(' ').collect::<Vec<_>>());
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let got = server.published();
        assert_eq!(summary(&output)["ticks"], got.len());
        got.into_iter()
            .map(|p| (p.topic, p.body))
            .collect::<Vec<_>>()
    };
    let first = bodies();
    assert!(first.len() > 50, "only {} ticks", first.len());
    assert_eq!(first, bodies());
}
