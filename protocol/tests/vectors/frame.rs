//! Whole frames.

use serde_json::{Value, json};
use tickring_protocol::{
    Command, Cursor, Decoded, ErrorFrame, Event, Frame, Gap, GapReason, Goodbye, Hello, History,
    HistoryPage, MAX_FRAME_LEN, Ping, Policy, Pong, Reply, Series, Snapshot, Subscribe, Subscribed,
    Unsubscribe, Unsubscribed, Welcome, decode,
};

use crate::{cases, hex_bytes, hex_text, int, text};

const POLICIES: [(Policy, &str); 4] = [
    (Policy::Default, "default"),
    (Policy::Conflate, "conflate"),
    (Policy::Resume, "resume"),
    (Policy::Disconnect, "disconnect"),
];
const REASONS: [(GapReason, &str); 4] = [
    (GapReason::Delayed, "delayed"),
    (GapReason::Conflated, "conflated"),
    (GapReason::Expired, "expired"),
    (GapReason::Reset, "reset"),
];

fn name_of<T: PartialEq>(names: &[(T, &'static str)], value: T) -> &'static str {
    names.iter().find(|(v, _)| *v == value).unwrap().1
}

fn value_of<T: Copy>(names: &[(T, &str)], name: &Value) -> T {
    names.iter().find(|(_, n)| *n == text(name)).unwrap().0
}

#[test]
fn every_golden_frame_decodes_to_its_meaning() {
    for (_, case) in cases("message") {
        let max_frame = match &case.value["max_frame"] {
            Value::Null => MAX_FRAME_LEN,
            limit => int(limit),
        };
        let found = match decode(&case.bytes, max_frame) {
            Ok(Decoded::Frame { frame, len }) => {
                let whole = u32::from_le_bytes(*case.bytes.first_chunk().unwrap());
                assert_eq!(len, whole as usize, "{}", case.name);
                ("frame", meaning(&frame))
            }
            Ok(Decoded::Skipped { len }) => ("skipped", json!(len)),
            Ok(Decoded::NeedMore { frame_len }) => ("need_more", json!(frame_len)),
            Err(error) => (
                "error",
                json!({
                    "code": error.code.name(),
                    "frame_type": error.frame_type,
                    "request_id": error.request_id.to_string(),
                    "connection": if error.is_fatal() { "closed" } else { "open" },
                }),
            ),
        };
        assert_eq!(
            (found.0, &found.1),
            (found.0, &case.value[found.0]),
            "{}",
            case.name
        );
    }
}

#[test]
fn every_golden_meaning_encodes_to_its_bytes() {
    for (message, case) in cases("message") {
        if case.value["frame"].is_null() || case.value["canonical"] == false {
            continue;
        }
        assert_eq!(
            hex_text(&encoded(&message, &case.value["frame"])),
            hex_text(&case.bytes),
            "{}",
            case.name
        );
    }
}

#[test]
fn a_golden_frame_cut_anywhere_asks_for_more() {
    for (_, case) in cases("message") {
        if case.value["frame"].is_null() {
            continue;
        }
        let len = u32::from_le_bytes(*case.bytes.first_chunk().unwrap()) as usize;
        for cut in 0..len {
            let frame_len = if cut < 8 { 8 } else { len };
            assert_eq!(
                decode(&case.bytes[..cut], MAX_FRAME_LEN),
                Ok(Decoded::NeedMore { frame_len }),
                "{} cut at {cut}",
                case.name
            );
        }
    }
}

/// A frame's fields as the vector files write them.
fn meaning(frame: &Frame<'_>) -> Value {
    let wide = |value: u64| Value::String(value.to_string());
    match *frame {
        Frame::Hello(m) => json!({
            "major": m.major, "minor": m.minor, "session": m.session.to_string(),
            "name": m.name, "credentials": hex_text(m.credentials),
        }),
        Frame::Welcome(m) => json!({
            "major": m.major, "minor": m.minor, "heartbeat_ms": m.heartbeat_ms,
            "session": m.session.to_string(), "max_frame": m.max_frame,
            "max_subscriptions": m.max_subscriptions, "node_ns": wide(m.node_ns),
            "resumed": m.resumed,
        }),
        Frame::Subscribe(m) => json!({
            "request_id": wide(m.request_id), "from_seq": wide(m.from_seq),
            "epoch": wide(m.epoch), "policy": name_of(&POLICIES, m.policy), "topic": m.topic,
        }),
        Frame::Subscribed(m) => json!({
            "request_id": wide(m.request_id), "topic_id": m.topic_id,
            "policy": name_of(&POLICIES, m.policy), "next_seq": wide(m.next_seq),
            "last_seq": wide(m.last_seq), "epoch": wide(m.epoch), "topic": m.topic,
        }),
        Frame::Unsubscribe(m) => {
            json!({ "request_id": wide(m.request_id), "topic_id": m.topic_id })
        }
        Frame::Unsubscribed(m) => json!({
            "request_id": wide(m.request_id), "topic_id": m.topic_id, "last_seq": wide(m.last_seq),
        }),
        Frame::Command(m) => json!({
            "request_id": wide(m.request_id), "topic_id": m.topic_id, "command": m.command,
            "topic": m.topic, "payload": hex_text(m.payload), "quiet": m.quiet,
        }),
        Frame::Reply(m) => json!({
            "request_id": wide(m.request_id), "topic_id": m.topic_id, "code": m.code,
            "seq": wide(m.seq), "retry_after_ms": m.retry_after_ms, "payload": hex_text(m.payload),
        }),
        Frame::Event(m) => json!({
            "topic_id": m.topic_id, "kind": m.kind, "seq": wide(m.seq),
            "event_ns": wide(m.event_ns), "node_ns": wide(m.node_ns), "body": hex_text(m.body),
        }),
        Frame::Snapshot(m) => json!({
            "topic_id": m.topic_id, "kind": m.kind, "seq": wide(m.seq),
            "event_ns": wide(m.event_ns), "node_ns": wide(m.node_ns), "body": hex_text(m.body),
        }),
        Frame::Gap(m) => json!({
            "topic_id": m.topic_id, "reason": name_of(&REASONS, m.reason),
            "first_seq": wide(m.first_seq), "last_seq": wide(m.last_seq),
        }),
        Frame::Ping(m) => json!({ "token": wide(m.token) }),
        Frame::Pong(m) => json!({ "token": wide(m.token), "node_ns": wide(m.node_ns) }),
        Frame::Error(m) => json!({
            "code": m.code, "frame_type": m.frame_type, "fatal": m.fatal,
            "retry_after_ms": m.retry_after_ms, "request_id": wide(m.request_id), "text": m.text,
        }),
        Frame::Goodbye(m) => {
            json!({ "code": m.code, "retry_after_ms": m.retry_after_ms, "text": m.text })
        }
        Frame::History(m) => json!({
            "request_id": wide(m.request_id), "series": m.series.name(),
            "newest_first": m.newest_first, "limit": m.limit, "from_ns": wide(m.from_ns),
            "to_ns": wide(m.to_ns), "cursor_ns": wide(m.cursor.event_ns),
            "cursor_seq": wide(m.cursor.seq), "topic": m.topic,
        }),
        Frame::HistoryPage(m) => json!({
            "request_id": wide(m.request_id), "series": m.series.name(), "more": m.more,
            "next_ns": wide(m.next.event_ns), "next_seq": wide(m.next.seq),
            "rows": rows_meaning(&m),
        }),
    }
}

/// The rows of a page as the files of their layouts write them.
fn rows_meaning(page: &HistoryPage<'_>) -> Value {
    let (ticks, candles) = (page.ticks(), page.candles());
    let ticks = ticks.map(|row| crate::body::tick_meaning(&row.unwrap()));
    let candles = candles.map(|row| crate::body::candle_meaning(&row.unwrap()));
    ticks.chain(candles).collect()
}

fn rows_bytes(series: &Value, rows: &Value) -> Vec<u8> {
    let layout = if series == "ticks" { "TICK" } else { "CANDLE" };
    let rows = rows.as_array().unwrap().iter();
    rows.flat_map(|row| crate::body::encoded(layout, row))
        .collect()
}

fn series(name: &Value) -> Series {
    let named = Series::ALL.into_iter().find(|s| s.name() == text(name));
    named.unwrap()
}

/// The bytes of the frame that `v` describes.
fn encoded(message: &str, v: &Value) -> Vec<u8> {
    let bytes_of = |field: &str| match &v[field] {
        Value::Null => Vec::new(),
        hex => hex_bytes(hex),
    };
    let (credentials, payload, body) = (
        bytes_of("credentials"),
        bytes_of("payload"),
        bytes_of("body"),
    );
    let rows;
    let frame = match message {
        "HELLO" => Frame::Hello(Hello {
            major: int(&v["major"]),
            minor: int(&v["minor"]),
            session: int(&v["session"]),
            name: text(&v["name"]),
            credentials: &credentials,
        }),
        "WELCOME" => Frame::Welcome(Welcome {
            major: int(&v["major"]),
            minor: int(&v["minor"]),
            heartbeat_ms: int(&v["heartbeat_ms"]),
            session: int(&v["session"]),
            max_frame: int(&v["max_frame"]),
            max_subscriptions: int(&v["max_subscriptions"]),
            node_ns: int(&v["node_ns"]),
            resumed: v["resumed"].as_bool().unwrap(),
        }),
        "SUBSCRIBE" => Frame::Subscribe(Subscribe {
            request_id: int(&v["request_id"]),
            from_seq: int(&v["from_seq"]),
            epoch: int(&v["epoch"]),
            policy: value_of(&POLICIES, &v["policy"]),
            topic: text(&v["topic"]),
        }),
        "SUBSCRIBED" => Frame::Subscribed(Subscribed {
            request_id: int(&v["request_id"]),
            topic_id: int(&v["topic_id"]),
            policy: value_of(&POLICIES, &v["policy"]),
            next_seq: int(&v["next_seq"]),
            last_seq: int(&v["last_seq"]),
            epoch: int(&v["epoch"]),
            topic: text(&v["topic"]),
        }),
        "UNSUBSCRIBE" => Frame::Unsubscribe(Unsubscribe {
            request_id: int(&v["request_id"]),
            topic_id: int(&v["topic_id"]),
        }),
        "UNSUBSCRIBED" => Frame::Unsubscribed(Unsubscribed {
            request_id: int(&v["request_id"]),
            topic_id: int(&v["topic_id"]),
            last_seq: int(&v["last_seq"]),
        }),
        "COMMAND" => Frame::Command(Command {
            request_id: int(&v["request_id"]),
            topic_id: int(&v["topic_id"]),
            command: int(&v["command"]),
            topic: text(&v["topic"]),
            payload: &payload,
            quiet: v["quiet"].as_bool().unwrap(),
        }),
        "REPLY" => Frame::Reply(Reply {
            request_id: int(&v["request_id"]),
            topic_id: int(&v["topic_id"]),
            code: int(&v["code"]),
            seq: int(&v["seq"]),
            retry_after_ms: int(&v["retry_after_ms"]),
            payload: &payload,
        }),
        "EVENT" => Frame::Event(Event {
            topic_id: int(&v["topic_id"]),
            kind: int(&v["kind"]),
            seq: int(&v["seq"]),
            event_ns: int(&v["event_ns"]),
            node_ns: int(&v["node_ns"]),
            body: &body,
        }),
        "SNAPSHOT" => Frame::Snapshot(Snapshot {
            topic_id: int(&v["topic_id"]),
            kind: int(&v["kind"]),
            seq: int(&v["seq"]),
            event_ns: int(&v["event_ns"]),
            node_ns: int(&v["node_ns"]),
            body: &body,
        }),
        "GAP" => Frame::Gap(Gap {
            topic_id: int(&v["topic_id"]),
            reason: value_of(&REASONS, &v["reason"]),
            first_seq: int(&v["first_seq"]),
            last_seq: int(&v["last_seq"]),
        }),
        "PING" => Frame::Ping(Ping {
            token: int(&v["token"]),
        }),
        "PONG" => Frame::Pong(Pong {
            token: int(&v["token"]),
            node_ns: int(&v["node_ns"]),
        }),
        "ERROR" => Frame::Error(ErrorFrame {
            code: int(&v["code"]),
            frame_type: int(&v["frame_type"]),
            fatal: v["fatal"].as_bool().unwrap(),
            retry_after_ms: int(&v["retry_after_ms"]),
            request_id: int(&v["request_id"]),
            text: text(&v["text"]),
        }),
        "GOODBYE" => Frame::Goodbye(Goodbye {
            code: int(&v["code"]),
            retry_after_ms: int(&v["retry_after_ms"]),
            text: text(&v["text"]),
        }),
        "HISTORY" => Frame::History(History {
            request_id: int(&v["request_id"]),
            series: series(&v["series"]),
            newest_first: v["newest_first"].as_bool().unwrap(),
            limit: int(&v["limit"]),
            from_ns: int(&v["from_ns"]),
            to_ns: int(&v["to_ns"]),
            cursor: Cursor {
                event_ns: int(&v["cursor_ns"]),
                seq: int(&v["cursor_seq"]),
            },
            topic: text(&v["topic"]),
        }),
        "HISTORY_PAGE" => {
            rows = rows_bytes(&v["series"], &v["rows"]);
            Frame::HistoryPage(HistoryPage {
                request_id: int(&v["request_id"]),
                series: series(&v["series"]),
                more: v["more"].as_bool().unwrap(),
                next: Cursor {
                    event_ns: int(&v["next_ns"]),
                    seq: int(&v["next_seq"]),
                },
                rows: &rows,
            })
        }
        other => panic!("no message is called {other}"),
    };
    let mut out = Vec::new();
    frame.encode(&mut out);
    out
}
