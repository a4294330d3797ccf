//! The life of a server.

use std::io::{BufRead, Read};
use std::net::TcpListener;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Running, Server, finish, tickring};

#[test]
fn a_signal_says_goodbye_to_every_client_and_the_server_exits_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = Server::start(&[]);
        let mut subscriber = Running::start(server.client(&["sub", "stream/a", "--verbose"]));
        let mut stderr = std::io::BufReader::new(subscriber.0.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("subscribed from") {
            line.clear();
            assert!(
                stderr.read_line(&mut line).unwrap() > 0,
                "the subscriber ended"
            );
        }
        let (code, rest, took) = server.stop(signal);
        assert_eq!((code, rest.as_str()), (Some(0), ""));
        assert!(
            took < Duration::from_secs(8),
            "{took:?}: drain and linger are 5 s and 2 s"
        );
        while !line.contains("says goodbye: shutting_down") {
            line.clear();
            assert!(
                stderr.read_line(&mut line).unwrap() > 0,
                "there was no goodbye"
            );
        }
    }
}

#[test]
fn a_second_signal_ends_the_server_at_once_with_130() {
    // A peer that never closes its side keeps the server waiting for the linger timeout.
    let server = Server::start(&["--linger-timeout", "1h", "--drain-timeout", "1h"]);
    let mut peer = std::net::TcpStream::connect(&server.address).unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut wire = Vec::new();
    let hello = tickring_protocol::Hello {
        major: 1,
        minor: 0,
        session: 0,
        name: "stubborn",
        credentials: b"",
    };
    tickring_protocol::Frame::Hello(hello).encode(&mut wire);
    std::io::Write::write_all(&mut peer, &wire).unwrap();
    let mut welcome = [0; 8];
    peer.read_exact(&mut welcome).unwrap();

    let mut server = server;
    server.running.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(300));
    assert!(
        server.running.0.try_wait().unwrap().is_none(),
        "it waits for the peer"
    );
    server.running.signal(Signal::TERM);
    assert_eq!(server.running.wait(), Some(130));
}

#[test]
fn an_address_in_use_is_an_error_that_names_it_even_with_many_cores() {
    let server = Server::start(&[]);
    let outcome = finish(tickring(&[
        "serve",
        "--cores",
        "2",
        "--listen",
        &server.address,
    ]));
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome
            .stderr
            .contains(&format!("cannot listen on {}", server.address)),
        "{}",
        outcome.stderr
    );

    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let outcome = finish(tickring(&["serve", "--cores", "1", "--listen", &address]));
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("in use"), "{}", outcome.stderr);
}

#[test]
fn the_data_directory_is_made_and_one_that_cannot_be_is_an_error() {
    let base = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("data-test");
    let _ = std::fs::remove_dir_all(&base); // of an earlier run
    let dir = base.join("a/b");
    let server = Server::start(&["--data", dir.to_str().unwrap()]);
    let made = |name: &str| dir.join(name).exists();
    assert!(made("journal") && made("tickring.sqlite"), "in {dir:?}");
    assert_eq!(server.stop(Signal::TERM).0, Some(0));

    let blocked = base.join("file");
    std::fs::write(&blocked, "").unwrap();
    let outcome = finish(tickring(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--data",
        blocked.to_str().unwrap(),
    ]));
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.stderr.contains("data-test/file"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn logs_can_be_json_and_stay_off_stdout() {
    let mut command = tickring(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--cores",
        "1",
        "--log-format",
        "json",
    ]);
    command.env("TICKRING_LOG", "info");
    let mut running = Running::start(command);
    let mut line = String::new();
    let mut stdout = running.stdout();
    stdout.read_line(&mut line).unwrap();
    assert!(line.ends_with(" (1 core, in memory)\n"), "{line}");
    running.signal(Signal::TERM);
    let outcome = running.outcome();
    assert_eq!(outcome.code, Some(0));
    let logs = crate::support::json_lines(&outcome.stderr);
    assert!(
        logs.iter().any(|log| log["fields"]["message"] == "stopped"),
        "{}",
        outcome.stderr
    );
}

/// Clearing 2 MiB in the midst of a turn made everybody wait for milliseconds.
#[test]
fn the_server_does_without_huge_pages() {
    let server = Server::start(&[]);
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", server.running.0.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("THP_enabled:"));
    // Kernels built without huge pages have no such line.
    assert!(line.is_none_or(|line| line.ends_with('0')), "{line:?}");
}
