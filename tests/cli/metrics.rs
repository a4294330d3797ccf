//! What a server tells by HTTP.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::data::Data;
use crate::exposition::Page;
use crate::support::{Running, Server, finish, finish_with, tickring};

/// A server with a journal, and the tables beside it.
fn on(data: &Data) -> Server {
    Server::start(&["--metrics", "127.0.0.1:0", "--data", data.text()])
}

/// The status line, the head and the body of what is answered.
fn ask(address: SocketAddr, request: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let request = format!("{request}\r\nHost: tickring\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    (code.unwrap(), head.to_lowercase(), body.to_owned())
}

pub(crate) fn get(server: &Server, path: &str) -> (u16, String, String) {
    ask(server.metrics.unwrap(), &format!("GET {path} HTTP/1.1"))
}

fn scrape(server: &Server) -> Page {
    let (code, head, body) = get(server, "/metrics");
    assert_eq!(code, 200, "{body}");
    assert!(
        head.contains("content-type: text/plain; version=0.0.4"),
        "{head}"
    );
    Page::parse(&body)
}

#[test]
fn under_load_every_scrape_parses_and_counters_only_grow() {
    const MESSAGES: usize = 20_000;
    let data = Data::new("metrics-load");
    let server = on(&data);
    let topics = ["log/a", "log/b", "stream/a"];
    let readers: Vec<Running> = topics
        .iter()
        .map(|topic| {
            Running::start(server.client(&["sub", topic, "--count", "20000", "--from", "1"]))
        })
        .collect();
    let lines: String = (0..MESSAGES).map(|n| format!("message {n}\n")).collect();
    let mut pages = vec![scrape(&server)];
    std::thread::scope(|scope| {
        let writers: Vec<_> = topics
            .iter()
            .map(|topic| {
                let command = server.client(&["pub", topic]);
                scope.spawn(|| finish_with(command, lines.as_bytes()).ok())
            })
            .collect();
        while !writers.iter().all(|writer| writer.is_finished()) {
            pages.push(scrape(&server));
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    for reader in readers {
        reader.outcome().ok();
    }
    assert!(finish(server.client(&["pub", "nokind/x", "text"])).code != Some(0));
    std::thread::sleep(Duration::from_millis(100)); // a scrape is reused for half of that
    pages.push(scrape(&server));

    for pair in pages.windows(2) {
        for (name, family) in pair[0].0.iter().filter(|(_, f)| f.kind == "counter") {
            for (sample, before) in &family.samples {
                assert!(pair[1].0[name].samples[sample] >= *before, "{sample}");
            }
        }
    }
    let page = pages.last().unwrap();
    let all = (3 * MESSAGES) as f64;
    assert_eq!(page.sum("tickring_events_total"), all);
    assert_eq!(page.sum("tickring_commands_total"), all);
    assert!(page.sum("tickring_deliveries_total") <= all);
    assert!(page.sum("tickring_received_bytes_total") > all * 10.0);
    assert!(page.sum("tickring_sent_bytes_total") > all * 10.0);
    assert!(page.sum("tickring_connections_accepted_total") >= 7.0);
    assert_eq!(page.count("tickring_command_seconds"), all);
    assert!(page.count("tickring_turn_seconds") > 10.0);
    // Two thirds are durable; their replies and their events waited for the disk.
    assert!(page.count("tickring_release_seconds") >= all * 2.0 / 3.0);
    assert!(page.sum("tickring_journal_commits_total") >= 1.0);
    assert_eq!(
        page.count("tickring_journal_commit_seconds"),
        page.sum("tickring_journal_commits_total")
    );
    let written = page.sum("tickring_journal_written_bytes_total");
    assert!(written > all * 2.0 / 3.0 * 64.0, "{written}");
    let refused: f64 = (0..2)
        .map(|core| {
            let labels = format!("{{core=\"{core}\",code=\"unknown_kind\"}}");
            page.sample("tickring_errors_total", &labels)
        })
        .sum();
    assert_eq!(refused, 1.0);
    assert_eq!(page.sum("tickring_core_up"), 2.0);
    assert_eq!(page.sum("tickring_ready"), 1.0);
    assert!(page.sum("process_resident_memory_bytes") > 1e6);
}

#[test]
fn the_database_catches_up_and_the_figures_say_so() {
    let data = Data::new("metrics-database");
    let server = on(&data);
    let lines: String = (0..2000).map(|n| format!("{n}\n")).collect();
    finish_with(server.client(&["pub", "log/a"]), lines.as_bytes()).ok();
    let until = Instant::now() + Duration::from_secs(60);
    let page = loop {
        let page = scrape(&server);
        let lag = page.sum("tickring_database_lag_bytes");
        if page.sum("tickring_database_records_total") == 2000.0 && lag == 0.0 {
            break page;
        }
        assert!(Instant::now() < until, "{page:?}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(page.sum("tickring_database_connected"), 1.0);
    assert_eq!(page.sum("tickring_database_errors_total"), 0.0);
    assert_eq!(
        page.count("tickring_database_commit_seconds"),
        page.sum("tickring_database_commits_total")
    );
    assert_eq!(page.sum("tickring_recovery_events"), 0.0);
    server.stop(Signal::TERM);

    let page = scrape(&on(&data));
    assert_eq!(page.sum("tickring_recovery_events"), 2000.0);
    assert!(page.sum("tickring_recovery_seconds") > 0.0);
}

#[test]
fn health_readiness_and_unknown_pages() {
    let server = Server::start(&["--metrics", "127.0.0.1:0"]);
    assert_eq!(get(&server, "/healthz").0, 200);
    let (code, _, body) = get(&server, "/readyz");
    assert_eq!((code, body.as_str()), (200, "ready\n"));
    assert_eq!(get(&server, "/nothing").0, 404);
    assert_eq!(
        ask(server.metrics.unwrap(), "POST /metrics HTTP/1.1").0,
        405
    );
    let open = "GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text; version=1.0.0";
    let (code, head, body) = ask(server.metrics.unwrap(), open);
    assert_eq!(code, 200);
    assert!(head.contains("application/openmetrics-text"), "{head}");
    assert!(body.ends_with("# EOF\n"));

    let data = Data::new("metrics-ready");
    let server = on(&data);
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let (code, _, body) = get(&server, "/readyz");
        assert_eq!((code, body.lines().next()), (200, Some("ready")));
        if body == "ready\ndatabase of lane 0: connected\n" {
            break;
        }
        assert!(Instant::now() < until, "{body}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let (code, rest, _) = server.stop(Signal::TERM);
    assert_eq!((code, rest.as_str()), (Some(0), ""));
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let outcome = finish(tickring(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--metrics",
        &address,
    ]));
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome
            .stderr
            .contains(&format!("cannot listen on {address} for metrics"))
            && outcome.stderr.contains("--metrics"),
        "{}",
        outcome.stderr
    );
}

/// The names of metrics in a text: those that begin as ours do.
/// The server's metrics that a text names; the bridge has its own.
fn names(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("tickring_") || word.starts_with("process_"))
        .filter(|word| !word.starts_with("tickring_bridge_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_metric_is_documented_and_documents_name_no_others() {
    let data = Data::new("metrics-documented");
    let server = on(&data);
    let page = scrape(&server);
    let exported: BTreeSet<String> = page.0.keys().cloned().collect();
    let is_exported = |name: &str| {
        let histogram = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|suffix| name.strip_suffix(suffix))
            .any(|name| page.0.get(name).is_some_and(|f| f.kind == "histogram"));
        histogram || exported.contains(name)
    };
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let manual = std::fs::read_to_string(root.join("OPERATIONS.md")).unwrap();
    let dashboard = std::fs::read_to_string(root.join("grafana-dashboard.json")).unwrap();
    serde_json::from_str::<serde_json::Value>(&dashboard).expect("the dashboard is JSON");
    for (place, text) in [("OPERATIONS.md", &manual), ("the dashboard", &dashboard)] {
        for name in names(text) {
            assert!(
                is_exported(&name),
                "{place} names {name}, which is not exported"
            );
        }
    }
    let documented = names(&manual);
    let missing: Vec<_> = exported.difference(&documented).collect();
    assert!(missing.is_empty(), "not in OPERATIONS.md: {missing:?}");
    assert!(
        names(&dashboard).len() > 30,
        "the dashboard shows what there is"
    );
}
