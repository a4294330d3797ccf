//! Reads the golden frames of `vectors/` both ways: the bytes decode to their meaning, and the
//! meaning encodes to the bytes.
#![allow(clippy::unwrap_used, reason = "what a test cannot read fails it")]

mod body;
mod frame;

use serde_json::Value;

/// One case of a vector file, as SPEC.md describes it.
struct Case {
    /// `file: name`, for the message of a failed assertion.
    name: String,
    bytes: Vec<u8>,
    value: Value,
}

/// All cases of all files whose head has `key` (`message` or `body`), with that key's value.
fn cases(key: &str) -> Vec<(String, Case)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors");
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let Some(subject) = value[key].as_str() else {
            continue;
        };
        for case in value["cases"].as_array().unwrap() {
            let bytes = case["wire"].as_array().unwrap().iter();
            cases.push((
                subject.to_owned(),
                Case {
                    name: format!("{file}: {}", case["name"].as_str().unwrap()),
                    bytes: bytes.flat_map(|part| hex_bytes(&part[0])).collect(),
                    value: case.clone(),
                },
            ));
        }
    }
    cases
}

fn hex_bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    assert!(text.len().is_multiple_of(2), "{text:?} is no hexadecimal");
    let pairs = (0..text.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn hex_text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An integer of `value`: numbers up to 32 bits are JSON numbers, wider ones decimal strings.
fn int<T: std::str::FromStr>(value: &Value) -> T {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    text.parse()
        .unwrap_or_else(|_| panic!("{text:?} is not an integer of its field"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn every_layout_has_its_file() {
    let mut subjects: Vec<_> = cases("message").into_iter().map(|(s, _)| s).collect();
    subjects.extend(cases("body").into_iter().map(|(s, _)| s));
    subjects.sort();
    subjects.dedup();
    assert_eq!(
        subjects,
        [
            "CANDLE",
            "COMMAND",
            "ERROR",
            "EVENT",
            "GAP",
            "GOODBYE",
            "HELLO",
            "HISTORY",
            "HISTORY_PAGE",
            "MARKET_STATE",
            "NODE_STATS",
            "PING",
            "PONG",
            "PUBLISH",
            "QUOTE",
            "REPLY",
            "SNAPSHOT",
            "SUBSCRIBE",
            "SUBSCRIBED",
            "TICK",
            "TRADE",
            "UNSUBSCRIBE",
            "UNSUBSCRIBED",
            "WELCOME",
            "any"
        ]
    );
}
