//! `tickring journal`, and servers on journals that they cannot use.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;

use rustix::process::Signal;

use crate::data::{Data, FileSystem};
use crate::support::{Outcome, Server, finish, finish_with, json_lines, tickring};

/// Messages that the journal of [`filled`] has.
const MESSAGES: usize = 2_000;

/// A journal of several segments with acknowledged messages of `log/a`.
fn filled(test: &str) -> Data {
    let data = Data::new(test);
    let server = serve(&data);
    // Few at a time: what comes in one turn is one write, and that is not split.
    for first in (0..MESSAGES).step_by(100) {
        let lines: String = (first..first + 100)
            .map(|n| format!("message {n}\n"))
            .collect();
        finish_with(server.client(&["pub", "log/a"]), lines.as_bytes()).ok();
    }
    let (code, ..) = server.stop(Signal::TERM);
    assert_eq!(code, Some(0));
    assert!(data.segments(0).len() > 5, "{:?}", data.segments(0));
    data
}

const SMALL: [&str; 4] = ["--journal-segment-bytes", "16KiB", "--sqlite", "none"];

fn serve(data: &Data) -> Server {
    let mut args = vec!["--data", data.text()];
    args.extend(SMALL);
    Server::start(&args)
}

/// A start that must fail; gives its words.
fn refused(data: &str) -> String {
    let mut args = vec!["serve", "--listen", "127.0.0.1:0", "--data", data];
    args.extend(SMALL);
    let outcome = finish(tickring(&args));
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    let error = outcome.stderr.lines().find(|line| line.contains("error:"));
    error
        .unwrap_or_else(|| panic!("{}", outcome.stderr))
        .to_owned()
}

/// The messages that a server on this journal has.
fn messages(data: &Data) -> Vec<String> {
    let server = serve(data);
    let count = MESSAGES.to_string();
    let args = ["sub", "log/a", "--from", "1", "--count", &count, "--json"];
    let lines = json_lines(&finish(server.client(&args)).ok());
    let seqs: Vec<u64> = lines
        .iter()
        .map(|line| line["seq"].as_u64().unwrap())
        .collect();
    assert!(
        seqs.iter().copied().eq(1..=MESSAGES as u64),
        "in order, each once"
    );
    server.stop(Signal::TERM);
    lines
        .iter()
        .map(|line| line["data"].as_str().unwrap_or_default().to_owned())
        .collect()
}

fn look(what: &str, data: &Data, more: &[&str]) -> Outcome {
    let mut args = vec!["journal", what, "--data", data.text()];
    args.extend(more);
    finish(tickring(&args))
}

#[test]
fn a_sound_journal_is_verified_told_of_and_dumped() {
    let data = filled("sound");
    let text = look("verify", &data, &[]).ok();
    assert!(
        text.contains("lane 0: good") && text.contains("2000 events"),
        "{text}"
    );
    let told = &json_lines(&look("stat", &data, &["--json"]).ok())[0];
    assert_eq!(
        (&told["events"], &told["good"]),
        (&2000.into(), &true.into())
    );
    assert_eq!(
        told["segments"].as_array().unwrap().len(),
        data.segments(0).len()
    );
    let text = look("stat", &data, &[]).ok();
    assert_eq!(text.lines().count(), 1 + data.segments(0).len(), "{text}");

    let lines = json_lines(&look("dump", &data, &["--json", "--topic", "log/a"]).ok());
    let events: Vec<_> = lines
        .iter()
        .filter(|line| line["record"] == "event")
        .collect();
    assert_eq!(events.len(), MESSAGES);
    assert!(
        events
            .iter()
            .zip(1..)
            .all(|(event, seq)| event["seq"] == seq)
    );
    assert_eq!(look("dump", &data, &["--topic", "log/none"]).ok(), "");
}

#[test]
fn a_running_servers_journal_can_be_looked_at() {
    let data = Data::new("running");
    let server = serve(&data);
    finish(server.client(&["pub", "log/a", "once"])).ok();
    let text = look("verify", &data, &[]).ok();
    assert!(text.contains("1 events"), "{text}");
    assert_eq!(server.stop(Signal::TERM).0, Some(0));
}

#[test]
fn what_there_is_not_is_said() {
    let data = Data::new("nothing");
    let outcome = look("verify", &data, &[]);
    assert_eq!(outcome.code, Some(2));
    assert!(
        outcome.stderr.contains("there is no journal in"),
        "{}",
        outcome.stderr
    );
    let data = filled("nolane");
    let outcome = look("stat", &data, &["--lane", "7"]);
    assert_eq!(outcome.code, Some(2));
    assert!(
        outcome.stderr.contains("the journal has 1 lanes"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn a_torn_end_is_no_damage_and_nothing_acknowledged_is_lost() {
    let data = filled("torn");
    let last = data.segments(0).pop().unwrap();
    let told = &json_lines(&look("stat", &data, &["--json"]).ok())[0];
    let first = told["segments"].as_array().unwrap().last().unwrap()["first"].as_u64();
    let end = 64 + told["position"].as_u64().unwrap() - first.unwrap();
    let file = fs::File::options().write(true).open(last).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xab; 61], end).unwrap();
    drop(file);
    let text = look("verify", &data, &[]).ok();
    assert!(text.contains("good") && text.contains("torn end"), "{text}");
    assert_eq!(messages(&data).len(), MESSAGES);
    assert!(
        !look("verify", &data, &[]).ok().contains("torn end"),
        "it was cut"
    );
}

#[test]
fn a_damaged_segment_in_the_middle_stops_the_start_and_names_the_place() {
    let data = filled("damaged");
    let middle = data.segments(0)[2].clone();
    let whole = fs::read(&middle).unwrap();
    let mut bytes = whole.clone();
    bytes[5_000] ^= 1;
    fs::write(&middle, &bytes).unwrap();
    let error = refused(data.text());
    for words in [
        middle.to_str().unwrap(),
        "is damaged at byte",
        "restore the file from a backup",
        "tickring journal verify",
    ] {
        assert!(error.contains(words), "{words}: {error}");
    }
    let outcome = look("verify", &data, &[]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stdout.contains("NOT GOOD"), "{}", outcome.stdout);
    assert!(
        outcome.stdout.contains("is damaged at byte"),
        "{}",
        outcome.stdout
    );
    let outcome = look("verify", &data, &["--json"]);
    let told = &json_lines(&outcome.stdout)[0];
    assert_eq!((outcome.code, &told["good"]), (Some(1), &false.into()));
    let dumped = look("dump", &data, &[]);
    assert_eq!(dumped.code, Some(1));
    assert!(
        dumped.stdout.lines().count() > 100,
        "what can be read is printed"
    );

    fs::write(&middle, whole).unwrap();
    assert_eq!(
        messages(&data).len(),
        MESSAGES,
        "the file is restored, and all is there"
    );
}

#[test]
fn a_missing_segment_stops_the_start() {
    let data = filled("missing");
    fs::remove_file(&data.segments(0)[2]).unwrap();
    let error = refused(data.text());
    assert!(
        error.contains("restore the missing or shortened segment"),
        "{error}"
    );
}

#[test]
fn foreign_and_newer_journals_are_refused_and_left_alone() {
    let (data, other) = (filled("foreign"), filled("other"));
    let lane = data.path().join("journal/lane-0");
    fs::write(lane.join("notes.txt"), "hello").unwrap();
    let error = refused(data.text());
    assert!(
        error.contains("notes.txt") && error.contains("move it out"),
        "{error}"
    );
    assert_eq!(look("verify", &data, &[]).code, Some(1));
    fs::remove_file(lane.join("notes.txt")).unwrap();

    let third = data.segments(0)[2].clone();
    let (own, theirs) = (fs::read(&third).unwrap(), other.segments(0)[2].clone());
    let mut mixed = own.clone();
    mixed[..64].copy_from_slice(&fs::read(theirs).unwrap()[..64]);
    fs::write(&third, mixed).unwrap();
    let error = refused(data.text());
    assert!(
        error.contains("is not a segment of this journal"),
        "{error}"
    );

    let mut newer = own.clone();
    newer[8] = 9;
    fs::write(&third, newer).unwrap();
    let error = refused(data.text());
    assert!(
        error.contains("has journal format 9")
            && error.contains("start the tickring that wrote it"),
        "{error}"
    );
    fs::write(&third, own).unwrap();
    assert_eq!(messages(&data).len(), MESSAGES);
}

#[test]
fn a_data_directory_that_is_in_use_is_refused() {
    let data = Data::new("inuse");
    let server = serve(&data);
    let error = refused(data.text());
    assert!(error.contains("in use by another tickring"), "{error}");
    assert_eq!(server.stop(Signal::TERM).0, Some(0));
}

#[test]
fn a_directory_that_cannot_be_written_to_is_refused() {
    let data = Data::new("file");
    let file = data.path().join("file");
    fs::write(&file, "").unwrap();
    let error = refused(file.to_str().unwrap());
    assert!(error.contains("A file is in the way"), "{error}");

    let Some(mounted) = FileSystem::mount("readonly", "ro,size=1m") else {
        return;
    };
    let error = refused(mounted.0.text());
    assert!(
        error.contains("Read-only file system")
            && error.contains("choose another directory with --data"),
        "{error}"
    );
}

#[test]
fn a_full_disk_stops_the_start() {
    let Some(mounted) = FileSystem::mount("fullstart", "size=256k") else {
        return;
    };
    let filler = mounted.0.path().join("filler");
    fs::write(&filler, vec![1; 248 << 10]).unwrap();
    // Without room not even the tables can be made.
    let outcome = finish(tickring(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--data",
        mounted.0.text(),
    ]));
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("full"), "{}", outcome.stderr);
    fs::remove_file(filler).unwrap();
}

/// Publishes until a message is refused; gives how many were surely acknowledged, and the refusal.
fn fill(server: &Server, topic: &str) -> (usize, String) {
    const LINES: usize = 100;
    let line = "x".repeat(1_000);
    for taken in (0..20_000).step_by(LINES) {
        let lines: String = (taken..taken + LINES)
            .map(|number| format!("{number} {line}\n"))
            .collect();
        let outcome = finish_with(server.client(&["pub", topic]), lines.as_bytes());
        if outcome.code != Some(0) {
            return (taken, outcome.stderr);
        }
    }
    panic!("there is always room");
}

#[test]
fn a_disk_that_fills_up_refuses_commands_and_goes_on_when_there_is_room() {
    let Some(mounted) = FileSystem::mount("fills", "size=8m") else {
        return;
    };
    let filler = mounted.0.path().join("filler");
    fs::write(&filler, vec![1; 4 << 20]).unwrap();
    let args = [
        "--data",
        mounted.0.text(),
        "--metrics",
        "127.0.0.1:0",
        "--journal-segment-bytes",
        "1MiB",
        "--sqlite",
        "none",
    ];
    let server = Server::start(&args);
    let (taken, refusal) = fill(&server, "log/a");
    assert!(taken > 1_000, "{taken}");
    assert!(
        refusal.contains("overloaded") && refusal.contains("the journal"),
        "{refusal}"
    );
    let (code, _, text) = crate::metrics::get(&server, "/readyz");
    assert!(code == 503 && text.contains("disk of lane 0"), "{text}");
    assert_eq!(crate::metrics::get(&server, "/healthz").0, 200);

    fs::remove_file(filler).unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while finish(server.client(&["pub", "log/a", "after"])).code != Some(0) {
        assert!(std::time::Instant::now() < until, "there is room again");
    }
    assert_eq!(crate::metrics::get(&server, "/readyz").0, 200);
    assert_eq!(server.stop(Signal::TERM).0, Some(0));
    check_acknowledged(&Server::start(&args), taken);
}

#[test]
fn a_server_that_is_stopped_on_a_full_disk_has_room_for_what_it_took() {
    let Some(mounted) = FileSystem::mount("fullstop", "size=4m") else {
        return;
    };
    let filler = mounted.0.path().join("filler");
    fs::write(&filler, vec![1; 2 << 20]).unwrap();
    let args = [
        "--data",
        mounted.0.text(),
        "--journal-segment-bytes",
        "512KiB",
        "--sqlite",
        "none",
    ];
    let server = Server::start(&args);
    let (taken, _) = fill(&server, "log/a");
    assert_eq!(server.stop(Signal::TERM).0, Some(0));
    fs::remove_file(filler).unwrap();
    check_acknowledged(&Server::start(&args), taken);
}

#[test]
fn at_its_bound_the_journal_refuses_commands_and_a_larger_bound_goes_on() {
    let data = Data::new("bound");
    let args = |bytes| {
        let mut args = vec!["--data", data.text(), "--metrics", "127.0.0.1:0"];
        args.extend(["--sqlite", "none", "--journal-bytes", bytes]);
        Server::start(&args)
    };
    let server = args("2MiB");
    let (taken, refusal) = fill(&server, "log/a");
    assert!(taken > 500, "{taken}");
    assert!(refusal.contains("overloaded"), "{refusal}");
    let (code, _, text) = crate::metrics::get(&server, "/readyz");
    assert!(code == 503 && text.contains("journal_bytes"), "{text}");
    assert_eq!(server.stop(Signal::TERM).0, Some(0));

    let server = args("16MiB");
    finish(server.client(&["pub", "log/a", "after"])).ok();
    check_acknowledged(&server, taken);
}

/// All messages that were acknowledged are there, in order.
fn check_acknowledged(server: &Server, taken: usize) {
    let count = taken.to_string();
    let args = ["sub", "log/a", "--from", "1", "--count", &count, "--json"];
    let lines = json_lines(&finish(server.client(&args)).ok());
    assert_eq!(lines.len(), taken);
    for (number, line) in lines.iter().enumerate() {
        assert_eq!(line["seq"], number + 1);
        let text = line["data"].as_str().unwrap();
        assert!(text.starts_with(&format!("{number} ")), "{text}");
    }
}
