//! `tickring history`: what was published is read back as it was.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Server, finish, finish_with};

const SECOND: u64 = 1_000_000_000;
/// 2024-08-08 00:00:00 UTC.
const DAY: u64 = 1_723_075_200 * SECOND;

/// A server with a database in a directory of its own.
fn server(test: &str) -> (Server, std::path::PathBuf) {
    let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    let _ = std::fs::remove_dir_all(&dir); // of a run before
    let data = dir.to_str().expect("a path of ours");
    (Server::start(&["--data", data]), dir)
}

/// Publishes `count` trades, two a second, and waits until the last is stored.
fn fill(server: &Server, count: u64) {
    let line = |n: u64| {
        format!(
            "{{\"kind\":\"trade\",\"ts_event_ns\":{},\"price\":\"{}.50\",\"qty\":\"0.006\",\"side\":\"buy\"}}\n",
            DAY + n / 2 * SECOND,
            60_000 + n
        )
    };
    let input: String = (0..count).map(line).collect();
    finish_with(server.client(&["pub", "market/X"]), input.as_bytes()).ok();
    let give_up = Instant::now() + Duration::from_secs(60);
    let args = [
        "history",
        "market/X",
        "--ticks",
        "--json",
        "--newest-first",
        "--limit",
        "1",
    ];
    while !finish(server.client(&args))
        .ok()
        .contains(&format!("\"seq\":{count},"))
    {
        assert!(Instant::now() < give_up, "the database does not follow");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn ticks_and_candles_are_read_back_across_pages_as_json_and_as_a_table() {
    let (server, dir) = server("history-rows");
    fill(&server, 3_000);
    let read = |args: &[&str]| {
        let mut all = vec!["history", "market/X"];
        all.extend(args);
        finish(server.client(&all)).ok()
    };
    let ticks = read(&["--ticks", "--json"]);
    assert_eq!(ticks.lines().count(), 3_000);
    for (line, seq) in ticks.lines().zip(1..) {
        let start = format!("{{\"topic\":\"market/X\",\"seq\":{seq},\"kind\":\"trade\",");
        assert!(line.starts_with(&start), "{line}");
    }
    let first = ticks.lines().next().expect("there are some");
    for part in [
        "\"ts_event_ns\":1723075200000000000,",
        "\"session\":\"regular\"",
        "\"price\":\"60000.50\"",
        "\"qty\":\"0.006\"",
        "\"side\":\"buy\"",
    ] {
        assert!(first.contains(part), "{first}");
    }
    let newest: Vec<String> = read(&["--ticks", "--json", "--newest-first"])
        .lines()
        .map(str::to_owned)
        .collect();
    assert!(
        newest.iter().rev().eq(ticks.lines()),
        "newest first mirrors oldest first"
    );

    let candles = read(&["--candles", "1m", "--json"]);
    assert_eq!(candles.lines().count(), 25, "3,000 trades, 120 a minute");
    assert!(candles.starts_with(
        "{\"topic\":\"market/X\",\"kind\":\"candle\",\"period\":\"1m\",\"ts_start_ns\":1723075200000000000,\
         \"open\":\"60000.5\",\"high\":\"60119.5\",\"low\":\"60000.5\",\"close\":\"60119.5\",\
         \"volume\":\"0.72\",\"trades\":120}\n"
    ), "{candles}");
    let span = ["--from", "2024-08-08T00:01:00Z", "--to", "1723075320"];
    let table = read(&[&["--candles", "1m"], &span[..]].concat());
    assert_eq!(table.lines().count(), 2, "a heading and a row: {table}");
    assert!(
        table.contains("2024-08-08 00:01:00") && table.contains("60120.5"),
        "{table}"
    );
    assert_eq!(read(&["--ticks", "--limit", "7"]).lines().count(), 8);
    assert_eq!(
        read(&["--ticks", "--from", "-1h"]),
        "",
        "nothing is that new"
    );
    let other = finish(server.client(&["history", "market/NONE", "--ticks"]));
    assert_eq!(other.ok(), "");
    server.stop(Signal::TERM);
    let _ = std::fs::remove_dir_all(dir);
}

#[test]
fn what_cannot_be_read_is_told_with_what_to_do() {
    let server = Server::start(&[]);
    let ends = |args: &[&str], code: i32, word: &str| {
        let outcome = finish(server.client(args));
        assert_eq!(outcome.code, Some(code), "{args:?} {outcome:?}");
        assert!(outcome.stderr.contains(word), "{args:?} {outcome:?}");
    };
    let ticks = ["history", "market/X", "--ticks"];
    ends(&ticks, 1, "no_database");
    ends(&["history", "market/X"], 2, "--ticks");
    ends(&["history", "log/x", "--ticks"], 2, "market/...");
    ends(
        &["history", "market/X", "--candles", "5m"],
        2,
        "1s, 1m, 1h or 1d",
    );
    ends(
        &["history", "market/X", "--candles", "1m", "--ticks"],
        2,
        "cannot be used",
    );
    ends(&[&ticks[..], &["--from", "soon"]].concat(), 2, "2024-08-08");
    ends(
        &[&ticks[..], &["--from", "5", "--to", "5"]].concat(),
        2,
        "--to is not behind",
    );
}
