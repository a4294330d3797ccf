//! Holds the tables of SPEC.md against each other and against the code.
#![allow(clippy::unwrap_used, reason = "what a test cannot read fails it")]

use tickring_protocol::ErrorCode;

const SPEC: &str = include_str!("../SPEC.md");

/// The cells of the rows of every table whose head starts with `head`, with the heading above it.
fn tables(head: &str) -> Vec<(&'static str, Vec<Vec<&'static str>>)> {
    let mut tables = Vec::new();
    let mut heading = "";
    let mut lines = SPEC.lines();
    while let Some(line) = lines.next() {
        if line.starts_with('#') {
            heading = line;
        }
        if line.starts_with(head) {
            let rows = lines.by_ref().skip(1).take_while(|l| l.starts_with('|'));
            let cells = |row: &'static str| row.split('|').skip(1).map(str::trim).collect();
            tables.push((heading, rows.map(cells).collect()));
        }
    }
    tables
}

fn size(kind: &str) -> Option<usize> {
    Some(match kind {
        "u8" | "bool" => 1,
        "u16" => 2,
        "u32" | "i32" => 4,
        "u64" | "ns" | "micros" => 8,
        "u128" => 16,
        "TRADE" => 24,
        "QUOTE" => 40,
        fixed => fixed.strip_suffix(" bytes")?.parse().ok()?,
    })
}

#[test]
fn every_offset_is_the_sum_of_what_lies_before_it() {
    let tables = tables("| offset | type | field |");
    assert!(
        tables.len() >= 23,
        "only {} layouts were found",
        tables.len()
    );
    for (heading, rows) in tables {
        let mut at = Some(0);
        for row in rows {
            if let (Some(at), Ok(offset)) = (at, row[0].parse::<usize>()) {
                assert_eq!(offset, at, "{heading}: {row:?}");
            }
            at = at.zip(size(row[1])).map(|(at, size)| at + size);
        }
    }
}

#[test]
fn the_error_codes_are_those_of_the_code() {
    let (_, rows) = tables("| code | name | meaning |").remove(0);
    let listed: Vec<_> = rows
        .iter()
        .map(|row| (row[0].parse::<u16>().unwrap(), row[1]))
        .collect();
    let known: Vec<_> = ErrorCode::ALL
        .iter()
        .map(|&code| (code as u16, code.name()))
        .collect();
    assert_eq!(listed, known);
}

#[test]
fn bad_input_is_answered_with_codes_that_exist_and_fatal_is_what_the_rule_says() {
    let (_, rows) = tables("| # | what comes |").remove(0);
    assert_eq!(rows.len(), 37);
    for (number, row) in rows.iter().enumerate() {
        assert_eq!(row[0], (number + 1).to_string());
        let (code, answer, connection) = (row[2], row[3], row[4]);
        if code.is_empty() {
            assert!(answer.starts_with("none"), "{row:?}");
            continue;
        }
        let known = ErrorCode::ALL.iter().any(|known| known.name() == code);
        assert!(known, "{row:?}");
        // A REPLY answers one command and leaves the connection as it is.
        assert!(
            !answer.contains("REPLY") || connection == "goes on",
            "{row:?}"
        );
        assert!(matches!(connection, "closed" | "goes on"), "{row:?}");
    }
}
