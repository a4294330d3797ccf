//! Clients that break the rules of `protocol/BRIDGE.md`: each is told why, and nobody else notices.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::json;
use tickring_bridge::Bridge;
use tickring_protocol::{Frame, Hello, Ping, Subscribe, VERSION_MAJOR};
use tungstenite::{HandshakeError, Message};

use crate::client::{Json, PATIENCE, bridge, metric, upgrade};
use crate::support::node;

/// The status of a refused upgrade.
fn refused(bridge: &Bridge, headers: &[(&'static str, &str)]) -> u16 {
    match upgrade(bridge.local_addr(), headers).map_err(|error| *error) {
        Err(HandshakeError::Failure(tungstenite::Error::Http(response))) => {
            response.status().as_u16()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_upgrade_is_refused_by_origin_by_form_and_by_number() {
    let node = node(|_| {});
    let bridge = bridge(node.local_addr(), |config| {
        config.max_connections = 1;
        config.allowed_origins = vec!["https://example.org".to_owned()];
    });
    let json = ("sec-websocket-protocol", "tickring.json.v1");
    assert_eq!(
        refused(&bridge, &[json, ("origin", "https://evil.example")]),
        403
    );
    assert_eq!(refused(&bridge, &[json, ("origin", "null")]), 403);
    assert_eq!(
        refused(&bridge, &[json, ("sec-websocket-version", "12")]),
        400
    );
    assert_eq!(refused(&bridge, &[json, ("upgrade", "h2c")]), 400);
    let own = format!("http://{}", bridge.local_addr());
    for origin in [&own, "https://example.org"] {
        let began = std::time::Instant::now();
        // The place of the one before is free a moment after it has gone.
        while upgrade(bridge.local_addr(), &[json, ("origin", origin)]).is_err() {
            assert!(began.elapsed() < PATIENCE, "{origin}");
        }
    }
    let began = std::time::Instant::now();
    let _held = loop {
        if let Ok(held) = upgrade(bridge.local_addr(), &[json]) {
            break held;
        }
        assert!(began.elapsed() < PATIENCE);
    };
    assert_eq!(refused(&bridge, &[json]), 503);
}

#[test]
fn a_connection_without_a_known_sub_protocol_is_closed_with_a_reason() {
    let node = node(|_| {});
    let bridge = bridge(node.local_addr(), |_| {});
    // A client that asked for one would itself refuse the answer, so this one asks for none.
    let (mut socket, response) = upgrade(bridge.local_addr(), &[]).unwrap();
    assert!(response.headers().get("sec-websocket-protocol").is_none());
    match socket.read().unwrap() {
        Message::Close(Some(frame)) => {
            assert_eq!(u16::from(frame.code), 4101);
            assert_eq!(frame.reason.as_str(), "bad_subprotocol");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_fault_of_a_json_client_has_its_close_code() {
    let node = node(|_| {});
    let bridge = bridge(node.local_addr(), |_| {});
    let (mut bystander, _) = Json::open(&bridge);
    bystander.subscribe("stream/a", 0, "0");
    let hello = r#"{"type":"hello"}"#;
    let deep = "[".repeat(60_000);
    let rows: &[(&str, &[&str], u16, &str)] = &[
        ("not JSON", &[hello, "{"], 4005, "bad_body"),
        ("nothing", &[hello, ""], 4005, "bad_body"),
        ("no object", &[hello, "17"], 4005, "bad_body"),
        ("an empty array", &[hello, "[]"], 4005, "bad_body"),
        ("deep arrays", &[hello, &deep], 4005, "bad_body"),
        ("two objects", &[hello, "{}{}"], 4005, "bad_body"),
        ("no type", &[hello, r#"{"id":1}"#], 4004, "unknown_type"),
        (
            "an unknown type",
            &[hello, r#"{"type":"dance"}"#],
            4004,
            "unknown_type",
        ),
        (
            "a server's type",
            &[hello, r#"{"type":"welcome"}"#],
            4004,
            "unknown_type",
        ),
        ("no hello", &[r#"{"type":"ping"}"#], 4012, "not_negotiated"),
        ("two hellos", &[hello, hello], 4013, "unexpected"),
        (
            "a topic that is no text",
            &[hello, r#"{"type":"subscribe","topic":1}"#],
            4011,
            "bad_field",
        ),
        (
            "no topic",
            &[hello, r#"{"type":"subscribe","id":1}"#],
            4011,
            "bad_field",
        ),
        (
            "a policy",
            &[
                hello,
                r#"{"type":"subscribe","topic":"stream/a","policy":"fast"}"#,
            ],
            4011,
            "bad_field",
        ),
        (
            "a seq below 0",
            &[
                hello,
                r#"{"type":"subscribe","topic":"stream/a","from_seq":-1}"#,
            ],
            4011,
            "bad_field",
        ),
        (
            "an inexact id",
            &[
                hello,
                r#"{"type":"subscribe","id":9007199254740993,"topic":"stream/a"}"#,
            ],
            4011,
            "bad_field",
        ),
        (
            "an epoch",
            &[
                hello,
                r#"{"type":"subscribe","topic":"stream/a","epoch":"x"}"#,
            ],
            4011,
            "bad_field",
        ),
        (
            "a price as a number",
            &[
                hello,
                r#"{"type":"publish","topic":"market/X","kind":"trade","price":1.5,"qty":"1"}"#,
            ],
            4011,
            "bad_field",
        ),
        (
            "a price that is none",
            &[
                hello,
                r#"{"type":"publish","topic":"market/X","kind":"trade","price":"1,5","qty":"1"}"#,
            ],
            4011,
            "bad_field",
        ),
        (
            "base64",
            &[
                hello,
                r#"{"type":"publish","topic":"stream/a","kind":"message","data_base64":"*"}"#,
            ],
            4011,
            "bad_field",
        ),
        (
            "a session",
            &[r#"{"type":"hello","session":"xyz"}"#],
            4011,
            "bad_field",
        ),
        (
            "a long name",
            &[&format!(
                r#"{{"type":"hello","name":"{}"}}"#,
                "n".repeat(65)
            )],
            4009,
            "name_too_long",
        ),
        (
            "an array whose second is bad",
            &[hello, r#"[{"type":"ping"},{"type":"dance"}]"#],
            4004,
            "unknown_type",
        ),
    ];
    for (what, messages, code, reason) in rows {
        let mut client = Json::connect(&bridge);
        for text in *messages {
            // The bridge may have closed already.
            let _ = client.socket.send(Message::text(*text));
        }
        let mut told = None;
        let close = loop {
            match client.next() {
                Ok(value) if value["type"] == "error" => told = Some(value),
                Ok(_) => {}
                Err(close) => break close,
            }
        };
        assert_eq!(close, (*code, (*reason).to_owned()), "{what}");
        let told = told.unwrap_or_else(|| panic!("{what}: no error before the close"));
        assert_eq!(
            (&told["code"], &told["fatal"]),
            (&json!(reason), &json!(true)),
            "{what}"
        );
    }
    bystander.send(json!({"type": "ping", "token": 1}));
    bystander.expect("pong");
}

#[test]
fn what_is_merely_refused_leaves_the_connection_open() {
    let node = node(|_| {});
    let bridge = bridge(node.local_addr(), |config| config.max_subscriptions = 2);
    let (mut client, _) = Json::open(&bridge);
    client.subscribe("stream/a", 0, "0");
    let long = format!("stream/{}", "x".repeat(300));
    for (message, refused, code) in [
        (
            json!({"type": "subscribe", "id": 4, "topic": "nope/x"}),
            "subscribe",
            "unknown_kind",
        ),
        (
            json!({"type": "subscribe", "id": 4, "topic": "no slash"}),
            "subscribe",
            "bad_name",
        ),
        (
            json!({"type": "subscribe", "id": 4, "topic": long}),
            "subscribe",
            "name_too_long",
        ),
        (
            json!({"type": "subscribe", "id": 4, "topic": "stream/a"}),
            "subscribe",
            "already_subscribed",
        ),
        (
            json!({"type": "unsubscribe", "id": 4, "topic": "stream/b"}),
            "unsubscribe",
            "not_subscribed",
        ),
        (
            json!({"type": "history", "id": 4, "topic": "no slash", "series": "1m"}),
            "history",
            "bad_name",
        ),
    ] {
        client.send(message.clone());
        let error = client.expect("error");
        assert_eq!(
            (
                &error["id"],
                &error["refused"],
                &error["code"],
                &error["fatal"]
            ),
            (&json!(4), &json!(refused), &json!(code), &json!(false)),
            "{message}"
        );
    }
    client.subscribe("stream/b", 0, "0");
    client.send(json!({"type": "subscribe", "id": 4, "topic": "stream/c"}));
    assert_eq!(client.expect("error")["code"], "subscription_limit");
    client.send(json!({"type": "unsubscribe", "id": 4, "topic": "stream/b"}));
    client.expect("unsubscribed");
    client.subscribe("stream/c", 0, "0");
}

#[test]
fn the_wrong_type_of_message_and_one_too_large_have_their_codes() {
    let node = node(|_| {});
    let bridge = bridge(node.local_addr(), |config| config.max_message_bytes = 1_000);
    let (mut client, _) = Json::open(&bridge);
    client.socket.send(Message::binary(vec![1, 2, 3])).unwrap();
    assert_eq!(client.closed(), (1003, "wrong_message_type".to_owned()));

    let (mut client, _) = Json::open(&bridge);
    client.text(&format!(
        "{{\"type\":\"ping\",\"x\":\"{}\"}}",
        "x".repeat(1_000)
    ));
    assert_eq!(client.closed(), (1009, "frame_too_large".to_owned()));

    let binary = [("sec-websocket-protocol", "tickring.bin.v1")];
    let (mut socket, _) = upgrade(bridge.local_addr(), &binary).unwrap();
    socket.send(Message::text("{}")).unwrap();
    let close = loop {
        if let Message::Close(Some(frame)) = socket.read().unwrap() {
            break frame;
        }
    };
    assert_eq!(u16::from(close.code), 1003);
}

pub(crate) fn encode(frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

pub(crate) fn hello() -> Vec<u8> {
    encode(&Frame::Hello(Hello {
        major: VERSION_MAJOR,
        minor: 0,
        session: 0,
        name: "test",
        credentials: &[],
    }))
}

#[test]
fn each_fault_of_a_binary_client_has_its_close_code() {
    let node = node(|_| {});
    let bridge = bridge(node.local_addr(), |_| {});
    let ping = encode(&Frame::Ping(Ping { token: 1 }));
    let mut bad_version = hello();
    bad_version[12] = 9;
    let mut bad_magic = hello();
    bad_magic[8] = b'X';
    let subscribe = encode(&Frame::Subscribe(Subscribe {
        request_id: 1,
        from_seq: 0,
        epoch: 0,
        policy: Default::default(),
        topic: "stream/a",
    }));
    let mut bad_policy = subscribe.clone();
    bad_policy[32] = 9;
    let mut bad_utf8 = subscribe.clone();
    *bad_utf8.last_mut().unwrap() = 0xff;
    let rows: &[(&str, Vec<u8>, u16)] = &[
        ("nothing", vec![], 4005),
        ("half a header", [hello(), vec![9, 0, 0]].concat(), 4003),
        (
            "half a frame",
            [hello(), ping[..12].to_vec()].concat(),
            4003,
        ),
        (
            "a length below a header",
            [hello(), vec![3, 0, 0, 0, 5, 0, 0, 0]].concat(),
            4001,
        ),
        (
            "an unknown type",
            [hello(), vec![8, 0, 0, 0, 0x7f, 0, 0, 0]].concat(),
            4004,
        ),
        (
            "a server's type",
            [
                hello(),
                encode(&Frame::Goodbye(tickring_protocol::Goodbye {
                    code: 0,
                    retry_after_ms: 0,
                    text: "",
                }))
                .iter()
                .copied()
                .map(|b| if b == 7 { 0x11 } else { b })
                .collect(),
            ]
            .concat(),
            4005,
        ),
        ("a ping before hello", ping.clone(), 4012),
        ("two hellos", [hello(), hello()].concat(), 4013),
        ("another version", bad_version, 4007),
        ("another magic", bad_magic, 4006),
        (
            "a policy of no meaning",
            [hello(), bad_policy].concat(),
            4011,
        ),
        (
            "a name that is no UTF-8",
            [hello(), bad_utf8].concat(),
            4008,
        ),
    ];
    for (what, bytes, code) in rows {
        let binary = [("sec-websocket-protocol", "tickring.bin.v1")];
        let (mut socket, _) = upgrade(bridge.local_addr(), &binary).unwrap();
        socket.send(Message::binary(bytes.clone())).unwrap();
        let close = loop {
            match socket.read() {
                Ok(Message::Close(Some(frame))) => break frame,
                Ok(_) => {}
                Err(error) => panic!("{what}: {error}"),
            }
        };
        assert_eq!(u16::from(close.code), *code, "{what}: {}", close.reason);
    }
}

/// Upgraded by hand, for frames that no library would send.
fn raw(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
              Sec-WebSocket-Protocol: tickring.json.v1\r\n\r\n",
        )
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.starts_with("http/1.1 101"), "{head}");
    // The example of RFC 6455, section 1.3.
    assert!(head.contains("s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    stream
}

/// The code of the close frame that ends what the bridge sends; 0 when it just ends.
fn close_code(stream: &mut TcpStream) -> u16 {
    let mut read = Vec::new();
    // A reset after the close frame is as good an end.
    let _ = stream.read_to_end(&mut read);
    let mut rest = &read[..];
    while let [opcode, len, tail @ ..] = rest {
        let (len, tail) = match len {
            126 => (usize::from(tail[0]) << 8 | usize::from(tail[1]), &tail[2..]),
            len => (usize::from(*len), tail),
        };
        if *opcode == 0x88 {
            return u16::from_be_bytes([tail[0], tail[1]]);
        }
        rest = &tail[len..];
    }
    0
}

/// A client's frame with the key 0.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    [&[opcode, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

#[test]
fn frames_that_break_rfc_6455_are_answered_with_a_close_frame() {
    let node = node(|_| {});
    let bridge = bridge(node.local_addr(), |_| {});
    let rows: &[(&str, Vec<u8>, u16)] = &[
        ("unmasked", vec![0x81, 2, b'{', b'}'], 1002),
        ("a reserved bit", frame(0xc1, b"{}"), 1002),
        ("all reserved bits", frame(0xf1, b"{}"), 1002),
        ("a reserved opcode", frame(0x83, b"{}"), 1002),
        ("a reserved control opcode", frame(0x8b, b""), 1002),
        ("a fragmented ping", frame(0x09, b""), 1002),
        ("a continuation of nothing", frame(0x80, b"{}"), 1002),
        (
            "text within a text",
            [frame(0x01, b"{"), frame(0x81, b"}")].concat(),
            1002,
        ),
        (
            "a ping that is too long",
            [&[0x89, 0x80 | 126, 0, 126, 0, 0, 0, 0][..], &[0; 126]].concat(),
            1002,
        ),
        ("a close with half a code", frame(0x88, &[3]), 1002),
        (
            "invalid UTF-8",
            frame(0x81, &[b'"', 0xc3, 0x28, b'"']),
            1007,
        ),
        (
            "invalid UTF-8 over two fragments",
            [frame(0x01, &[b'"', 0xc3]), frame(0x80, &[0x28])].concat(),
            1007,
        ),
        (
            "a frame of 2^62 bytes",
            vec![0x81, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            1009,
        ),
        ("fragments that are too much together", fragments(70), 1009),
        (
            "bad JSON in fragments, a ping between",
            [frame(0x01, b"{"), frame(0x89, b"x"), frame(0x80, b"")].concat(),
            4005,
        ),
    ];
    for (what, bytes, code) in rows {
        let mut stream = raw(bridge.local_addr());
        stream.write_all(bytes).unwrap();
        assert_eq!(close_code(&mut stream), *code, "{what}");
    }
    // A close is answered with a close.
    let mut stream = raw(bridge.local_addr());
    stream
        .write_all(&frame(0x88, &1000u16.to_be_bytes()))
        .unwrap();
    assert_eq!(close_code(&mut stream), 1000);
    let (mut client, _) = Json::open(&bridge);
    client.subscribe("stream/a", 0, "0");
}

/// A message of that many KiB in as many fragments.
fn fragments(count: usize) -> Vec<u8> {
    let piece = |opcode: u8| {
        let mut frame = vec![opcode, 0x80 | 126, 4, 0, 0, 0, 0, 0];
        frame.resize(frame.len() + 1024, b' ');
        frame
    };
    let mut all = piece(0x01);
    (1..count).for_each(|_| all.extend_from_slice(&piece(0x00)));
    all
}

#[test]
fn malformed_handshakes_are_refused() {
    let node = node(|_| {});
    let bridge = bridge(node.local_addr(), |_| {});
    let usual = "Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let without = |header: &str| -> String {
        usual
            .split_inclusive("\r\n")
            .filter(|line| !line.starts_with(header))
            .collect()
    };
    let rows: &[(&str, String, &[u16])] = &[
        ("POST", format!("POST /ws HTTP/1.1\r\n{usual}\r\n"), &[405]),
        (
            "no Connection",
            format!("GET /ws HTTP/1.1\r\n{}\r\n", without("Connection")),
            &[400, 426],
        ),
        (
            "no Upgrade",
            format!("GET /ws HTTP/1.1\r\n{}\r\n", without("Upgrade")),
            &[400, 426],
        ),
        (
            "no version",
            format!(
                "GET /ws HTTP/1.1\r\n{}\r\n",
                without("Sec-WebSocket-Version")
            ),
            &[400, 426],
        ),
        (
            "no key",
            format!("GET /ws HTTP/1.1\r\n{}\r\n", without("Sec-WebSocket-Key")),
            &[400],
        ),
        ("no HTTP", "\u{1}\u{2}\u{3}\r\n\r\n".to_owned(), &[400]),
        (
            "a head without end",
            format!("GET /ws HTTP/1.1\r\nX: {}\r\n", "x".repeat(40_000)),
            &[431, 400],
        ),
    ];
    for (what, request, statuses) in rows {
        let mut stream = TcpStream::connect(bridge.local_addr()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // The bridge may have seen enough before the end.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = [0; 12];
        let read = stream.read(&mut answer).unwrap_or(0);
        let status = std::str::from_utf8(&answer[..read])
            .ok()
            .and_then(|head| head.split(' ').nth(1)?.parse().ok())
            .unwrap_or(0);
        assert!(statuses.contains(&status), "{what}: {status}");
    }
}

#[test]
fn random_bytes_harm_nobody() {
    let node = node(|_| {});
    let bridge = bridge(node.local_addr(), |_| {});
    let (mut bystander, _) = Json::open(&bridge);
    bystander.subscribe("stream/a", 0, "0");
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..300 {
        let mut bytes: Vec<u8> = (0..random.usize(1..400)).map(|_| random.u8(..)).collect();
        if round % 3 == 0 {
            // Before any upgrade.
            let mut stream = TcpStream::connect(bridge.local_addr()).unwrap();
            let _ = stream.write_all(&bytes);
            continue;
        }
        if round % 3 == 1 {
            // In well-formed messages.
            bytes.truncate(125);
            bytes = [frame(0x81, br#"{"type":"hello"}"#), frame(0x81, &bytes)].concat();
        }
        let mut stream = raw(bridge.local_addr());
        let _ = stream.write_all(&bytes);
    }
    for round in 0..200 {
        let binary = [("sec-websocket-protocol", "tickring.bin.v1")];
        let (mut socket, _) = upgrade(bridge.local_addr(), &binary).unwrap();
        let mut bytes = hello();
        let len = random.usize(8..60);
        bytes.extend_from_slice(&(len as u32).to_le_bytes());
        bytes.push(random.u8(0..12));
        bytes.extend((0..len - 5).map(|_| if round % 2 == 0 { 0 } else { random.u8(..) }));
        let _ = socket.send(Message::binary(bytes));
    }
    bystander.send(json!({"type": "ping", "token": 1}));
    bystander.expect("pong");
    assert!(metric(&bridge, "tickring_bridge_upstream_up") == 1);
}
