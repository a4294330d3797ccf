//! `demo`, where stdout is no terminal.

use std::io::{BufRead, Read, Write};

use rustix::process::Signal;

use crate::support::{Running, finish, tickring};

const DEMO: [&str; 9] = [
    "demo",
    "--listen",
    "127.0.0.1:0",
    "--page",
    "127.0.0.1:0",
    "--symbols",
    "5",
    "--rate",
    "500",
];

#[test]
fn prices_move_and_the_demo_ends_by_itself() {
    let mut command = tickring(&DEMO);
    command.args(["--seconds", "3.5"]);
    let out = finish(command).ok();
    let headers: Vec<&str> = out
        .lines()
        .filter(|line| line.contains(" deliveries/s "))
        .collect();
    assert!(headers.len() >= 2, "{out}");
    let rows: std::collections::HashSet<&str> = out
        .lines()
        .filter(|line| line.starts_with("ACME "))
        .collect();
    assert!(rows.len() >= 2, "prices stood still: {out}");
    let last = out.lines().last().unwrap();
    assert!(
        last.contains("events published") && last.contains("p99"),
        "{last}"
    );
    assert!(
        !out.contains('\u{1b}'),
        "no escapes where there is no terminal"
    );
}

#[test]
fn an_interrupt_ends_the_whole_demo_with_0() {
    let mut demo = Running::start(tickring(&DEMO));
    let mut stdout = demo.stdout();
    let mut page = String::new();
    stdout.read_line(&mut page).unwrap();
    let page = page
        .strip_prefix("open http://")
        .and_then(|rest| rest.split('/').next())
        .unwrap_or_else(|| panic!("{page}"));
    let mut http = std::net::TcpStream::connect(page).unwrap();
    http.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    http.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.0 200") && answer.contains("<title>"),
        "{answer}"
    );

    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let address = line.split_whitespace().last().unwrap().to_owned();
    assert!(
        line.contains("tickring sub market/ACME --connect "),
        "{line}"
    );
    // Others can listen in.
    let mut other = tickring(&["sub", "market/ACME", "--json", "--count", "3"]);
    other.args(["--connect", &address]);
    assert!(finish(other).ok().lines().count() >= 3);

    demo.signal(Signal::INT);
    assert_eq!(demo.wait(), Some(0));
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert!(
        rest.lines().last().unwrap().contains("events published"),
        "{rest}"
    );
    assert!(
        std::net::TcpStream::connect(&address).is_err(),
        "the server is gone"
    );
}
