//! `pub` and `sub` against a server.

use std::io::{BufRead, Read};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Running, Server, finish, finish_with, json_lines, tickring};

#[test]
fn messages_come_out_as_they_went_in_numbered_without_a_gap() {
    let server = Server::start(&[]);
    let input = "one\n\n  two \"quoted\" \\ é\nlast";
    let told = finish_with(server.client(&["pub", "stream/a", "-"]), input.as_bytes()).ok();
    assert_eq!(told, "published 4 events to stream/a, last seq 4\n");
    let out =
        finish(server.client(&["sub", "stream/a", "--from", "1", "--json", "--count", "4"])).ok();
    let lines = json_lines(&out);
    for (line, (text, seq)) in lines.iter().zip(input.split('\n').zip(1..)) {
        assert_eq!(line["topic"], "stream/a");
        assert_eq!(line["seq"], seq);
        assert_eq!(line["kind"], "message");
        assert_eq!(line["data"], text);
        assert!(line["ts_event_ns"].as_u64().unwrap() > 1_700_000_000_000_000_000);
    }
    assert_eq!(lines.len(), 4);
}

#[test]
fn bytes_that_are_no_text_survive_as_base64() {
    let server = Server::start(&[]);
    finish_with(server.client(&["pub", "stream/a"]), b"\xff\x00\n").ok();
    let first =
        finish(server.client(&["sub", "stream/a", "--from", "1", "--json", "--count", "1"])).ok();
    assert_eq!(json_lines(&first)[0]["data_base64"], "/wA=");
    finish_with(
        server.client(&["pub", "stream/b", "--json"]),
        first.as_bytes(),
    )
    .ok();
    let again =
        finish(server.client(&["sub", "stream/b", "--from", "1", "--json", "--count", "1"])).ok();
    assert_eq!(json_lines(&again)[0]["data_base64"], "/wA=");
}

#[test]
fn a_recorded_market_published_again_gives_the_same_lines() {
    let server = Server::start(&[]);
    let mut input = String::new();
    for n in 0..5000 {
        let (price, ns) = (60_000 + n, 1_723_161_256_322_000_000_u64 + n);
        input += &match n % 2 {
            0 => format!(
                "{{\"kind\":\"trade\",\"ts_event_ns\":{ns},\"price\":\"{price}.30\",\"qty\":\"0.006\",\"side\":\"sell\"}}\n"
            ),
            _ => format!(
                "{{\"kind\":\"quote\",\"ts_event_ns\":{ns},\"bid\":\"{price}.10\",\"bid_qty\":\"1.500\",\"ask\":\"{price}.20\",\"ask_qty\":\"0.002\"}}\n"
            ),
        };
    }
    let told = finish_with(server.client(&["pub", "market/A", "-"]), input.as_bytes()).ok();
    assert_eq!(told, "published 5000 events to market/A, last seq 5000\n");
    let sub = |topic| {
        finish(server.client(&["sub", topic, "--from", "1", "--json", "--count", "5000"])).ok()
    };
    let first = sub("market/A");
    for ((line, published), seq) in first.lines().zip(input.lines()).zip(1..) {
        let expected = format!("{{\"topic\":\"market/A\",\"seq\":{seq},{}", &published[1..]);
        assert_eq!(line, expected);
    }
    assert_eq!(first.lines().count(), 5000);

    finish_with(server.client(&["pub", "market/B"]), first.as_bytes()).ok();
    assert_eq!(sub("market/B").replace("market/B", "market/A"), first);
}

#[test]
fn a_newcomer_to_a_market_gets_its_state_then_what_follows() {
    let server = Server::start(&[]);
    finish(server.client(&["pub", "market/A", r#"{"kind":"trade","ts_event_ns":1723161256322000000,"price":"61800.30","qty":"0.006","side":"buy"}"#])).ok();
    let mut subscriber =
        Running::start(server.client(&["sub", "market/A", "--json", "--count", "1"]));
    let mut stdout = subscriber.stdout();
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let state = &json_lines(&line)[0];
    for (key, value) in [
        ("kind", "snapshot"),
        ("price", "61800.30"),
        ("qty", "0.006"),
        ("side", "buy"),
        ("open", "61800.30"),
        ("volume", "0.006"),
        ("day", "2024-08-08"),
    ] {
        assert_eq!(state[key], value, "{line}");
    }
    assert_eq!((&state["seq"], &state["trades"]), (&1.into(), &1.into()));
    finish(server.client(&[
        "pub",
        "market/A",
        r#"{"kind":"quote","bid":"1.5","ask":"1.6"}"#,
    ]))
    .ok();
    line.clear();
    stdout.read_line(&mut line).unwrap();
    let quote = &json_lines(&line)[0];
    assert_eq!(
        (&quote["kind"], &quote["seq"], &quote["bid"], &quote["ask"]),
        (&"quote".into(), &2.into(), &"1.5".into(), &"1.6".into())
    );
    assert_eq!(subscriber.wait(), Some(0), "one event was asked for");
}

#[test]
fn a_count_is_over_all_topics_together() {
    let server = Server::start(&[]);
    for topic in ["stream/a", "stream/b"] {
        finish_with(server.client(&["pub", topic]), b"1\n2\n3\n").ok();
    }
    let out = finish(server.client(&[
        "sub", "stream/a", "stream/b", "stream/a", "--from", "1", "--json", "--count", "5",
    ]))
    .ok();
    assert_eq!(out.lines().count(), 5);
}

#[test]
fn silence_ends_a_subscriber_that_asked_for_it() {
    let server = Server::start(&[]);
    finish(server.client(&["pub", "stream/a", "x"])).ok();
    let started = Instant::now();
    let out = finish(server.client(&["sub", "stream/a", "--from", "1", "--idle-exit", "0.5"])).ok();
    assert!(
        out.starts_with("stream/a ") && out.ends_with(" message  x\n"),
        "{out}"
    );
    assert!(started.elapsed() >= Duration::from_millis(500));
}

#[test]
fn each_line_leaves_without_waiting_for_the_end_of_the_input() {
    let server = Server::start(&[]);
    let mut publisher = {
        let mut command = server.client(&["pub", "stream/a"]);
        command.stdin(Stdio::piped());
        Running::start(command)
    };
    let mut input = publisher.0.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, b"early\n").unwrap();
    let out =
        finish(server.client(&["sub", "stream/a", "--from", "1", "--json", "--count", "1"])).ok();
    assert_eq!(json_lines(&out)[0]["data"], "early");
    drop(input);
    assert_eq!(
        publisher.outcome().ok(),
        "published 1 event to stream/a, last seq 1\n"
    );
}

#[test]
fn a_publisher_of_a_slow_stream_goes_on_after_the_server_was_replaced() {
    let server = Server::start(&[]);
    let address = server.address.clone();
    let mut command = server.client(&["pub", "stream/a"]);
    command.stdin(Stdio::piped());
    let mut publisher = Running::start(command);
    let mut input = publisher.0.stdin.take().unwrap();
    let mut send = |text: &[u8]| std::io::Write::write_all(&mut input, text).unwrap();
    let read = |count| {
        let args = [
            "sub",
            "stream/a",
            "--from",
            "1",
            "--count",
            count,
            "--connect",
            &address,
        ];
        finish(tickring(&args)).ok()
    };
    send(b"before\n");
    assert!(read("1").ends_with(" before\n"));
    std::thread::sleep(Duration::from_millis(300)); // the reply reaches the publisher too
    assert_eq!(server.stop(Signal::TERM).0, Some(0));

    let _second = Server::start_at(&address, &[]);
    send(b"after\nand more\n");
    assert!(read("2").ends_with(" and more\n"));
    drop(input);
    let told = publisher.outcome().ok();
    assert_eq!(told, "published 3 events to stream/a, last seq 2\n");
}

#[test]
fn a_closed_pipe_ends_a_subscriber_quietly() {
    let server = Server::start(&[]);
    let many: String = (0..50_000)
        .map(|n| format!("message number {n}\n"))
        .collect();
    finish_with(server.client(&["pub", "stream/a"]), many.as_bytes()).ok();
    let mut subscriber =
        Running::start(server.client(&["sub", "stream/a", "--from", "1", "--json"]));
    let mut stdout = subscriber.stdout();
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(json_lines(&line)[0]["seq"], 1);
    drop(stdout);
    let outcome = subscriber.outcome();
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_signal_ends_a_subscriber_with_all_that_came_printed() {
    let server = Server::start(&[]);
    finish(server.client(&["pub", "stream/a", "x"])).ok();
    let mut subscriber =
        Running::start(server.client(&["sub", "stream/a", "--from", "1", "--json"]));
    let mut stdout = subscriber.stdout();
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    subscriber.signal(Signal::INT);
    assert_eq!(subscriber.wait(), Some(0));
    stdout.read_to_string(&mut line).unwrap();
    assert_eq!(line.lines().count(), 1);
}

#[test]
fn a_subscriber_goes_on_after_the_server_was_replaced() {
    let server = Server::start(&[]);
    let address = server.address.clone();
    finish(server.client(&["pub", "stream/a", "before"])).ok();
    let mut subscriber =
        Running::start(server.client(&["sub", "stream/a", "--from", "1", "--json"]));
    let mut stdout = subscriber.stdout();
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(json_lines(&line)[0]["data"], "before");
    assert_eq!(server.stop(Signal::TERM).0, Some(0));

    let _second = Server::start_at(&address, &[]);
    let mut command = tickring(&["pub", "stream/a", "after", "--connect", &address]);
    command.stderr(Stdio::inherit());
    finish(command).ok();
    // The new server numbers anew: what was known is void, and that is said. Whether the event
    // lies before or behind the new subscription is a race; it is never silent.
    line.clear();
    stdout.read_line(&mut line).unwrap();
    let told = &json_lines(&line)[0];
    assert_eq!(
        (&told["kind"], &told["reason"]),
        (&"gap".into(), &"reset".into()),
        "{line}"
    );
    subscriber.signal(Signal::TERM);
    let outcome = subscriber.outcome();
    assert_eq!(outcome.code, Some(0));
    assert!(
        outcome.stderr.contains("connecting again") && outcome.stderr.contains("connected again"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn what_the_server_refuses_is_told_with_its_code_and_text() {
    let server = Server::start(&[]);
    for (args, parts) in [
        (
            &["pub", "node/core-0", "x"][..],
            ["unknown_command", "subscribe to them"],
        ),
        (
            &["pub", "market/A", r#"{"kind":"message","data":"x"}"#],
            ["bad_command", "TRADE and QUOTE"],
        ),
        (&["sub", "weather/x"], ["unknown_kind", "weather"]),
    ] {
        let outcome = finish(server.client(args));
        assert_eq!(
            (outcome.code, outcome.stdout.as_str()),
            (Some(1), ""),
            "{args:?}"
        );
        for part in parts {
            assert!(
                outcome.stderr.contains(part),
                "{args:?}: {}",
                outcome.stderr
            );
        }
    }
}

#[test]
fn a_line_that_cannot_be_published_is_told_by_its_number() {
    let server = Server::start(&[]);
    let input = "{\"kind\":\"trade\",\"price\":\"1\",\"qty\":\"1\"}\n\n{\"kind\":\"trade\",\"price\":\"1,5\",\"qty\":\"1\"}\n";
    let outcome = finish_with(server.client(&["pub", "market/A"]), input.as_bytes());
    assert_eq!(outcome.code, Some(1));
    for part in ["line 3", "price", "1,5", "not a decimal number"] {
        assert!(outcome.stderr.contains(part), "{}", outcome.stderr);
    }
    let out = finish(server.client(&[
        "sub",
        "market/A",
        "--from",
        "1",
        "--json",
        "--idle-exit",
        "0.3",
    ]))
    .ok();
    assert_eq!(out.lines().count(), 1, "the line before it was published");
}

#[test]
fn a_server_that_is_not_there_is_told_with_what_to_do() {
    // A port that was free a moment ago.
    let address = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    for args in [
        &["sub", "stream/a"][..],
        &["pub", "stream/a", "x"],
        &["top", "--once"],
    ] {
        let mut command = tickring(args);
        command.args(["--connect", &address]);
        let outcome = finish(command);
        assert_eq!(outcome.code, Some(1), "{args:?}");
        let told = format!("nothing listens at {address}; start a server with `tickring serve`");
        assert!(
            outcome.stderr.contains(&told),
            "{args:?}: {}",
            outcome.stderr
        );
    }
}

#[test]
fn wrong_usage_is_told_with_exit_code_2() {
    for (args, part) in [
        (&["sub"][..], "TOPIC"),
        (&["sub", "no-slash"], "kind/name"),
        (&["sub", "stream/a", "--from", "0"], "--from"),
        (&["sub", "stream/a", "--count", "0"], "--count"),
        (&["sub", "stream/a", "--idle-exit", "soon"], "write seconds"),
        (&["pub"], "TOPIC"),
        (&["sub", "stream/a", "--connect", "nonsense"], "host:port"),
        (&["sub", "stream/a", "--name", &"x".repeat(65)], "name"),
    ] {
        let outcome = finish(tickring(args));
        assert_eq!(outcome.code, Some(2), "{args:?}: {}", outcome.stderr);
        assert!(
            outcome.stderr.contains(part),
            "{args:?}: {}",
            outcome.stderr
        );
    }
}

#[test]
fn the_ends_of_the_range_are_published_as_written_and_the_next_value_is_refused_by_its_field() {
    let server = Server::start(&[]);
    let line = |price: &str, qty: &str| {
        format!(
            "{{\"kind\":\"trade\",\"ts_event_ns\":5,\"price\":\"{price}\",\"qty\":\"{qty}\",\"side\":\"buy\"}}\n"
        )
    };
    let (largest, beyond) = ("9223372036854.775807", "9223372036854.775808");
    let input = line(largest, largest) + &line(&format!("-{largest}"), "0");
    finish_with(server.client(&["pub", "market/A", "-"]), input.as_bytes()).ok();
    let out =
        finish(server.client(&["sub", "market/A", "--from", "1", "--json", "--count", "2"])).ok();
    let prices: Vec<_> = json_lines(&out)
        .iter()
        .map(|line| line["price"].clone())
        .collect();
    assert_eq!(prices, [largest.to_owned(), format!("-{largest}")]);
    let candle =
        finish(server.client(&["sub", "candle/1d/A", "--json", "--idle-exit", "0.5"])).ok();
    let candle = &json_lines(&candle)[0];
    for (key, value) in [("high", largest), ("volume", largest), ("kind", "snapshot")] {
        assert_eq!(candle[key], value, "{candle}");
    }
    assert_eq!(candle["low"], format!("-{largest}"));
    for (price, qty, field) in [(beyond, "1", "price"), ("1", beyond, "qty")] {
        let input = line(price, qty);
        let refused = finish_with(server.client(&["pub", "market/A", "-"]), input.as_bytes());
        assert_ne!(refused.code, Some(0));
        let told = format!("{field} is \"{beyond}\": beyond ±{largest}");
        assert!(refused.stderr.contains(&told), "{}", refused.stderr);
    }
}

#[test]
fn a_candle_topic_is_shown_to_people_and_a_wrong_name_says_how_to_write_it() {
    let server = Server::start(&[]);
    finish(server.client(&[
        "pub",
        "market/A",
        r#"{"kind":"trade","ts_event_ns":1723161256322000000,"price":"61800.30","qty":"0.006"}"#,
    ]))
    .ok();
    let shown = finish(server.client(&["sub", "candle/1m/A", "--idle-exit", "0.5"])).ok();
    let expected = "from 2024-08-08 23:54:00 open 61800.3, high 61800.3, low 61800.3, close 61800.3, volume 0.006 in 1 trades";
    assert!(shown.contains(expected), "{shown}");
    let refused = finish(server.client(&["sub", "candle/5m/A"]));
    assert_ne!(refused.code, Some(0));
    assert!(
        refused.stderr.contains("candle/PERIOD/INSTRUMENT"),
        "{}",
        refused.stderr
    );
}
