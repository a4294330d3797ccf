//! Where settings come from, and how a wrong one is told.

use std::path::PathBuf;

use crate::support::{finish, tickring};

/// A file of that name and content, below the tests' own directory.
fn file(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).expect("the tests have a directory");
    path
}

fn printed(file: &str, env: &[(&str, &str)], flags: &[&str]) -> toml::Table {
    let mut command = tickring(&["serve", "--print-config", "--config", file]);
    command.args(flags).envs(env.iter().copied());
    finish(command).ok().parse().expect("it is TOML")
}

#[test]
fn the_printed_configuration_is_a_file_that_prints_itself() {
    let first = finish(tickring(&[
        "serve",
        "--print-config",
        "--cores",
        "2",
        "--outbox-bytes",
        "1MiB",
    ]))
    .ok();
    let path = file("round-trip.toml", &first);
    let mut command = tickring(&["serve", "--print-config", "--config"]);
    command.arg(&path);
    assert_eq!(finish(command).ok(), first);
    assert!(first.contains("\noutbox_bytes = \"1MiB\"\n"), "{first}");
    assert!(first.contains("\n# From 4KiB to 1GiB.\n"), "{first}");
}

#[test]
fn the_environment_overrides_the_file_and_flags_override_both() {
    let path = file(
        "layers.toml",
        "cores = 3\nmax_topics = 30\nidle_timeout = \"30s\"\n",
    );
    let path = path.to_str().unwrap();
    let env = [
        ("TICKRING_MAX_TOPICS", "20"),
        ("TICKRING_IDLE_TIMEOUT", "20s"),
    ];
    let table = printed(path, &env, &["--idle-timeout", "10s"]);
    assert_eq!(table["cores"].as_integer(), Some(3));
    assert_eq!(table["max_topics"].as_integer(), Some(20));
    assert_eq!(table["idle_timeout"].as_str(), Some("10s"));
}

#[test]
fn a_switch_can_be_set_and_unset_at_every_level() {
    let path = file("switch.toml", "busy_poll = true\n");
    let path = path.to_str().unwrap();
    let busy = |env: &[(&str, &str)], flags: &[&str]| {
        printed(path, env, flags)["busy_poll"].as_bool().unwrap()
    };
    assert!(busy(&[], &[]));
    assert!(!busy(&[("TICKRING_BUSY_POLL", "false")], &[]));
    assert!(busy(&[("TICKRING_BUSY_POLL", "false")], &["--busy-poll"]));
    assert!(!busy(&[], &["--busy-poll=false"]));
}

#[test]
fn the_environment_can_name_the_file() {
    let path = file("named.toml", "cores = 5\n");
    let mut command = tickring(&["serve", "--print-config"]);
    command.env("TICKRING_CONFIG", &path);
    assert!(finish(command).ok().contains("\ncores = 5\n"));
}

#[test]
fn a_file_called_tickring_toml_is_found_where_the_server_starts() {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("found");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("tickring.toml"), "cores = 6\n").unwrap();
    let mut command = tickring(&["serve", "--print-config"]);
    command.current_dir(&dir);
    assert!(finish(command).ok().contains("\ncores = 6\n"));
}

#[test]
fn an_unknown_key_is_an_error_that_names_the_key_and_the_file() {
    let path = file("unknown.toml", "cores = 2\nmax_topcis = 9\n");
    let mut command = tickring(&["serve", "--config"]);
    command.arg(&path);
    let outcome = finish(command);
    assert_eq!(outcome.code, Some(2));
    for part in ["unknown.toml", "max_topcis", "line 2"] {
        assert!(outcome.stderr.contains(part), "{}", outcome.stderr);
    }
}

#[test]
fn a_file_that_is_not_there_is_an_error_that_names_it() {
    let outcome = finish(tickring(&["serve", "--config", "no-such.toml"]));
    assert_eq!(outcome.code, Some(2));
    assert!(
        outcome.stderr.contains("no-such.toml"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn wrong_values_are_refused_by_name_wherever_they_stand() {
    for (flags, parts) in [
        (&["--cores", "0"][..], ["cores is 0", "1 to 128"]),
        (
            &["--max-frame-bytes", "32MiB"],
            ["max_frame_bytes is 32MiB", "8KiB to 16MiB"],
        ),
        (
            &["--outbox-bytes", "1MB"],
            ["--outbox-bytes", "64KiB, 16MiB or 1GiB"],
        ),
        (
            &["--idle-timeout", "90"],
            ["--idle-timeout", "with its unit"],
        ),
        (
            &["--listen", "localhost"],
            ["--listen", "invalid socket address"],
        ),
        (&["--max-topics", "many"], ["--max-topics", "many"]),
    ] {
        let mut command = tickring(&["serve"]);
        command.args(flags);
        let outcome = finish(command);
        assert_eq!(outcome.code, Some(2), "{flags:?}");
        for part in parts {
            assert!(
                outcome.stderr.contains(part),
                "{flags:?}: {}",
                outcome.stderr
            );
        }
    }
    let path = file("value.toml", "hello_timeout = 5\n");
    let mut command = tickring(&["serve", "--config"]);
    command.arg(&path);
    let outcome = finish(command);
    assert_eq!(outcome.code, Some(2));
    assert!(
        outcome.stderr.contains("hello_timeout") && outcome.stderr.contains("with its unit"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn every_command_explains_itself() {
    for (args, parts) in [
        (
            &["--help"][..],
            &[
                "serve",
                "sub",
                "pub",
                "top",
                "demo",
                "Exit codes",
                "TICKRING_LOG",
            ][..],
        ),
        (
            &["serve", "--help"],
            &[
                "--print-config",
                "--listen",
                "--cores",
                "--data",
                "--busy-poll",
                "TICKRING_MAX_CONNECTIONS",
                "--drain-timeout",
            ],
        ),
        (
            &["sub", "--help"],
            &[
                "--from",
                "--json",
                "--count",
                "--idle-exit",
                "--conflate",
                "--name",
                "127.0.0.1:7400",
                "TICKRING_CONNECT",
            ],
        ),
        (
            &["pub", "--help"],
            &["TOPIC", "DATA", "--json", "--connect", "--name"],
        ),
        (
            &["top", "--help"],
            &["--interval", "--once", "--json", "--connect", "--name"],
        ),
        (
            &["demo", "--help"],
            &["--symbols", "--rate", "--seconds", "--listen"],
        ),
    ] {
        let help = finish(tickring(args)).ok();
        for part in parts {
            assert!(help.contains(part), "{args:?} lacks {part}: {help}");
        }
    }
}

#[test]
fn the_instruments_file_is_read_at_start_and_a_mistake_in_it_is_told() {
    let instruments = file("instruments.toml", "[instruments]\nAAPL = 'us-equity'\n");
    let path = instruments.to_str().unwrap();
    let printed = finish(tickring(&[
        "serve",
        "--print-config",
        "--instruments",
        path,
    ]))
    .ok();
    assert!(
        printed.contains(&format!("\ninstruments = \"{path}\"\n")),
        "{printed}"
    );

    let server = crate::support::Server::start(&["--instruments", path]);
    // 2026-03-02 09:00 UTC is 04:00 in New York: before the market, so it is no trade of the day.
    let trade = r#"{"kind":"trade","ts_event_ns":1772442000000000000,"price":"1","qty":"1"}"#;
    for symbol in ["market/AAPL", "market/OTHER"] {
        finish(server.client(&["pub", symbol, trade])).ok();
    }
    let day = |symbol| {
        let args = ["sub", symbol, "--json", "--idle-exit", "2"];
        finish(server.client(&args)).ok()
    };
    assert_eq!(day("candle/1d/AAPL"), "");
    assert!(day("candle/1d/OTHER").contains("\"trades\":1"));
    assert!(day("candle/1h/AAPL").contains("\"trades\":1"));

    for (name, text, told) in [
        (
            "unknown.toml",
            "[instruments]\nAAPL = 'nyse'\n",
            "which there is not",
        ),
        (
            "empty-day.toml",
            "[calendars.x]\nkind = 'bond'\ntime_zone = 'UTC'\ndays = ['mon']\nday_candle = []\n\
          sessions = [{ session = 'regular', open = '09:00', close = '17:00' }]\n",
            "`day_candle` is empty",
        ),
        (
            "zone.toml",
            "[calendars.x]\nkind = 'bond'\ntime_zone = 'Mars'\ndays = ['mon']\n\
          sessions = [{ session = 'regular', open = '09:00', close = '17:00' }]\n",
            "no time zone is called `Mars`",
        ),
    ] {
        let path = file(name, text);
        let refused = finish(tickring(&[
            "serve",
            "--instruments",
            path.to_str().unwrap(),
        ]));
        assert_ne!(refused.code, Some(0));
        assert!(refused.stderr.contains(told), "{}", refused.stderr);
        assert!(refused.stderr.contains(name), "{}", refused.stderr);
    }
    let missing = finish(tickring(&[
        "serve",
        "--instruments",
        "/nowhere/at-all.toml",
    ]));
    assert_ne!(missing.code, Some(0));
    assert!(
        missing.stderr.contains("/nowhere/at-all.toml"),
        "{}",
        missing.stderr
    );
}
