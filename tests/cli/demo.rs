//! `demo`, where stdout is no terminal.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ChildStdout;

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

/// An empty directory for what is temporary.
fn temporary(test: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    let _ = std::fs::remove_dir_all(&dir); // of a run before
    std::fs::create_dir_all(&dir).expect("a path of ours");
    dir
}

fn entries(dir: &Path) -> usize {
    std::fs::read_dir(dir).expect("it is there").count()
}

/// A demo that has told where its page and its server are.
fn start(temporary: &Path, args: &[&str]) -> (Running, BufReader<ChildStdout>, [String; 2]) {
    let mut command = tickring(&DEMO);
    command.args(args).env("TMPDIR", temporary);
    let mut demo = Running::start(command);
    let mut stdout = demo.stdout();
    let mut lines = [String::new(), String::new()];
    for line in &mut lines {
        stdout.read_line(line).expect("it says so");
    }
    (demo, stdout, lines)
}

#[test]
fn the_past_can_be_read_at_once_and_nothing_is_left_behind() {
    let dir = temporary("demo-past");
    let (mut killed, _stdout, _) = start(&dir, &[]);
    killed.signal(Signal::KILL);
    killed.wait();
    assert_eq!(entries(&dir), 1, "what was killed removes nothing");

    let (mut demo, _stdout, [_, server]) = start(&dir, &[]);
    assert_eq!(entries(&dir), 1, "the next one does");
    let address = server.split_whitespace().last().unwrap();
    let history = ["history", "market/BOLT", "--candles", "1s", "--json"];
    let mut history = tickring(&history);
    history.args(["--connect", address]);
    let candles = finish(history).ok();
    assert!(candles.lines().count() >= 100, "{candles}");
    demo.signal(Signal::TERM);
    assert_eq!(demo.wait(), Some(0));
    assert_eq!(entries(&dir), 0);
}

#[test]
fn an_interrupt_while_the_past_is_made_up_ends_it_with_0() {
    let dir = temporary("demo-interrupt-past");
    let mut command = tickring(&DEMO[..5]);
    command.args(["--rate", "50000"]).env("TMPDIR", &dir);
    let mut demo = Running::start(command);
    let mut stderr = BufReader::new(demo.0.stderr.take().expect("stderr is a pipe"));
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.contains("making up what the market did"), "{line}");
    demo.signal(Signal::INT);
    assert_eq!(demo.wait(), Some(0));
    let mut said = String::new();
    demo.stdout().read_to_string(&mut said).unwrap();
    assert_eq!(said, "", "it ended before the page was there");
    assert_eq!(entries(&dir), 0);
}

#[test]
fn in_memory_nothing_is_written_and_there_is_no_past() {
    let dir = temporary("demo-in-memory");
    let (mut demo, _stdout, [_, server]) = start(&dir, &["--in-memory"]);
    assert_eq!(entries(&dir), 0);
    let mut history = tickring(&["history", "market/BOLT", "--ticks"]);
    history.args(["--connect", server.split_whitespace().last().unwrap()]);
    assert!(finish(history).stderr.contains("no_database"));
    demo.signal(Signal::INT);
    assert_eq!(demo.wait(), Some(0));
}

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
    let dir = temporary("demo-interrupt");
    let (mut demo, mut stdout, [page, line]) = start(&dir, &[]);
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
    assert_eq!(entries(&dir), 0);
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
