//! `top` against a server.

use crate::support::{Running, Server, finish, finish_with, json_lines};

#[test]
fn one_picture_shows_every_core_and_the_whole() {
    let server = Server::start(&[]);
    let lines: String = (0..1000).map(|n| format!("{n}\n")).collect();
    finish_with(server.client(&["pub", "stream/a"]), lines.as_bytes()).ok();
    let _reader = Running::start(server.client(&["sub", "stream/a", "--from", "1"]));

    let picture = &json_lines(&finish(server.client(&["top", "--once", "--json"])).ok())[0];
    assert_eq!(picture["cores"].as_array().unwrap().len(), 2);
    // The publishes, and the reports that the picture is made from.
    assert!(
        picture["total"]["events"].as_u64().unwrap() >= 1000,
        "{picture}"
    );
    assert!(
        picture["total"]["connections"].as_u64().unwrap() >= 1,
        "{picture}"
    );
    assert_eq!(picture["total"]["slow"], 0);
    assert_eq!(picture["slow_clients"].as_array().unwrap().len(), 0);

    let table = finish(server.client(&["top", "--once"])).ok();
    for part in [
        &server.address,
        "events/s",
        "deliveries/s",
        "all",
        "core 0",
        "core 1",
        "0 slow clients",
    ] {
        assert!(table.contains(part), "{table}");
    }
    assert!(
        !table.contains('\u{1b}'),
        "no escapes where there is no terminal"
    );
}

#[test]
fn a_client_that_does_not_read_is_listed_by_its_name() {
    let server = Server::start(&["--outbox-bytes", "4KiB", "--send-buffer-bytes", "4KiB"]);
    // Its stdout is a pipe that nobody reads, so it stops reading its socket in the end.
    let slow =
        Running::start(server.client(&["sub", "stream/a", "--from", "1", "--name", "sleepy"]));
    let lines: String = (0..20_000).map(|n| format!("{n:0>1000}\n")).collect();
    finish_with(server.client(&["pub", "stream/a"]), lines.as_bytes()).ok();

    let picture = &json_lines(&finish(server.client(&["top", "--once", "--json"])).ok())[0];
    assert_eq!(picture["total"]["slow"], 1, "{picture}");
    let first = &picture["slow_clients"][0];
    assert_eq!(first["name"], "sleepy");
    assert_eq!(first["topics"], 1);
    let table = finish(server.client(&["top", "--once"])).ok();
    assert!(
        table.contains("1 slow client") && table.contains("sleepy"),
        "{table}"
    );
    drop(slow);
}
