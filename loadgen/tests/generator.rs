//! The command against a small server in this process: scenarios, faults, JSON, exit codes.
#![allow(clippy::unwrap_used, reason = "tests fail by it")]

mod fake;

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

use fake::{Fake, Fault};

fn loadgen(server: &str, args: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tickring-loadgen"))
        .args(args.split_whitespace())
        .args(["--connect", server, "--json", "-"])
        .output()
        .unwrap()
}

/// Runs a scenario against a server with `fault`; the exit code and the report.
fn run(fault: Fault, args: &str) -> (i32, Value) {
    let server = Fake::start(fault);
    let output = loadgen(&server.address.to_string(), args);
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{args}: {error}: {output:?}"));
    (output.status.code().unwrap(), report)
}

fn count(report: &Value, key: &str) -> u64 {
    report[key]
        .as_u64()
        .unwrap_or_else(|| panic!("{key} in {report:#}"))
}

const FANOUT: &str = "fanout --connections 20 --topics 4 --subscribe-each 2 --rate 400 --seconds 0.5 --drain-timeout 0.5";

#[test]
fn fanout_on_a_sound_server_delivers_everything_once() {
    let args = "--publishers 2 --processes 2 --threads 2 --payload 100";
    let (code, report) = run(Fault::None, &format!("{FANOUT} {args}"));
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(count(&report, "connected"), 20);
    assert_eq!(count(&report, "published"), 200);
    // 20 connections with 2 of 4 topics: ten subscribers for each message.
    assert_eq!(count(&report, "expected"), 2_000);
    assert_eq!(count(&report, "delivered"), 2_000);
    let p50 = report["latency_us"]["p50"].as_f64().unwrap();
    assert!(p50 > 0.0 && p50 < 1e6, "{p50}");
    assert!(report["seconds"].as_f64().unwrap() > 0.4);
}

#[test]
fn several_publishers_share_one_topic() {
    let args = "fanout --connections 5 --topics 1 --publishers 3 --rate 300 --seconds 0.5";
    let (code, report) = run(Fault::None, args);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(count(&report, "delivered"), 750);
}

#[test]
fn the_report_has_the_agreed_keys_in_order() {
    let server = Fake::start(Fault::None);
    let pid = std::process::id();
    let args = format!("fanout --connections 2 --rate 50 --seconds 0.2 --server-pid {pid}");
    let output = loadgen(&server.address.to_string(), &args);
    let text = String::from_utf8(output.stdout).unwrap();
    let keys = [
        "scenario",
        "target",
        "connections",
        "connected",
        "published",
        "expected",
        "delivered",
        "lost",
        "duplicated",
        "out_of_order",
        "after_unsubscribed",
        "seconds",
        "delivered_per_s",
        "latency_us",
        "p50",
        "p90",
        "p99",
        "p999",
        "max",
        "server",
        "cpu_ns_per_delivery",
        "rss_bytes",
        "rss_bytes_per_connection",
    ];
    let mut rest = &text[..];
    for key in keys {
        let quoted = format!("\"{key}\":");
        let at = rest
            .find(&quoted)
            .unwrap_or_else(|| panic!("{key} is missing or out of place: {text}"));
        rest = &rest[at + quoted.len()..];
    }
    let report: Value = serde_json::from_str(&text).unwrap();
    assert!(report["server"]["rss_bytes"].as_u64().unwrap() > 100_000);
}

#[test]
fn loss_duplicates_and_reordering_fail_the_run() {
    for (fault, key) in [
        (Fault::Lose, "lost"),
        (Fault::Duplicate, "duplicated"),
        (Fault::Reorder, "out_of_order"),
    ] {
        let (code, report) = run(fault, FANOUT);
        assert_eq!(code, 1, "{fault:?}: {report:#}");
        // One connection on each of four topics, 50 messages on each topic, one in ten.
        assert_eq!(count(&report, key), 20, "{fault:?}: {report:#}");
        for other in ["lost", "duplicated", "out_of_order", "after_unsubscribed"] {
            assert!(
                other == key || count(&report, other) == 0,
                "{fault:?}: {report:#}"
            );
        }
    }
}

#[test]
fn announced_loss_is_loss_that_is_told_apart() {
    let (code, report) = run(Fault::Conflate, FANOUT);
    assert_eq!(code, 1, "{report:#}");
    assert_eq!(count(&report, "lost"), 20, "{report:#}");
    assert_eq!(count(&report, "gaps"), 20, "{report:#}");
    assert_eq!(count(&report, "gap_events"), 20, "{report:#}");
}

#[test]
fn refused_messages_are_not_expected() {
    let (code, report) = run(Fault::Refuse, FANOUT);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(count(&report, "refused"), 20, "{report:#}");
    assert_eq!(count(&report, "published"), 180, "{report:#}");
    assert_eq!(count(&report, "delivered"), 1_800, "{report:#}");
}

#[test]
fn pingpong_gets_its_own_messages_back() {
    for args in ["", "--rate 500", "--busy-poll"] {
        let args = format!("pingpong --connections 2 --seconds 0.3 {args}");
        let (code, report) = run(Fault::None, &args);
        assert_eq!(code, 0, "{args}: {report:#}");
        assert!(count(&report, "delivered") > 50, "{args}: {report:#}");
        assert_eq!(
            count(&report, "delivered"),
            count(&report, "published"),
            "{args}"
        );
    }
}

#[test]
fn a_connect_storm_holds_its_connections() {
    let (code, report) = run(
        Fault::None,
        "connect --connections 50 --hold 0.2 --processes 2",
    );
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(count(&report, "connected"), 50);
    assert!(report["latency_us"]["max"].as_f64().unwrap() > 0.0);
    assert!(report["seconds"].as_f64().unwrap() > 0.0);
}

const CHURN: &str = "churn --connections 10 --cycles 500 --topics 3 --rate 1000 --seconds 20";

#[test]
fn churn_on_a_sound_server_is_silent_after_unsubscribed() {
    let (code, report) = run(Fault::None, CHURN);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(count(&report, "cycles"), 500);
    assert!(count(&report, "delivered") > 100, "{report:#}");
}

#[test]
fn churn_finds_events_after_unsubscribed() {
    let (code, report) = run(Fault::Late, CHURN);
    assert_eq!(code, 1, "{report:#}");
    assert!(count(&report, "after_unsubscribed") > 100, "{report:#}");
}

#[test]
fn churn_finds_a_wrong_last_seq() {
    let (code, report) = run(Fault::WrongLastSeq, CHURN);
    assert_eq!(code, 1, "{report:#}");
    assert!(count(&report, "wrong_last_seq") > 10, "{report:#}");
}

#[test]
fn stall_compares_the_healthy_and_lets_the_stalled_catch_up() {
    let args = "stall --connections 10 --stalled 2 --topics 4 --stalled-subscribe-each 4 --rate 200 --period 0.3 --rounds 2";
    let (code, report) = run(Fault::None, args);
    assert_eq!(code, 0, "{report:#}");
    let stall = &report["stall"];
    assert!(stall["a"]["p99"].as_f64().unwrap() > 0.0);
    assert!(stall["p99_ratio"].as_f64().unwrap() > 0.0);
    assert_eq!(
        count(stall, "stalled_delivered"),
        count(stall, "stalled_expected")
    );
    assert_eq!(count(stall, "stalled_expected"), 2 * 240);
    assert_eq!(count(&report, "expected"), 10 * 60);
    assert_eq!(stall["stalled_caught_up"], true);
}

#[test]
fn histograms_are_exported_in_both_formats() {
    let server = Fake::start(Fault::None);
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    for (name, start) in [
        ("latency.hgrm", "       Value"),
        ("latency.hlog", "#[StartTime:"),
    ] {
        let file = folder.join(name);
        let args = format!(
            "fanout --connections 2 --rate 50 --seconds 0.2 --hdr {}",
            file.display()
        );
        assert_eq!(
            loadgen(&server.address.to_string(), &args).status.code(),
            Some(0)
        );
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with(start), "{text}");
        assert!(text.lines().count() >= 3, "{text}");
    }
}

#[test]
fn usage_errors_exit_with_2() {
    for args in [
        "fanout --payload 3",
        "fanout --subscribe-each 2 --topics 1",
        "nonsense",
    ] {
        assert_eq!(
            loadgen("127.0.0.1:1", args).status.code(),
            Some(2),
            "{args}"
        );
    }
}

#[test]
fn a_server_that_is_not_there_exits_with_3() {
    for scenario in [
        "fanout",
        "pingpong",
        "connect",
        "churn --seconds 2",
        "stall",
    ] {
        // Port 1 on loopback: nobody listens there.
        let output = loadgen("127.0.0.1:1", scenario);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{scenario}: {text}");
        assert!(text.contains("refused"), "{scenario}: {text}");
    }
}
