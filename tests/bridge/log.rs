//! What the bridge logs of clients that break the rules: one line each, whatever they sent.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, Once, PoisonError};

use serde_json::json;
use tickring_bridge::Bridge;
use tungstenite::Message;

use crate::client::{Json, PATIENCE, bridge, upgrade};
use crate::support::node;

/// All lines of this process: other tests run beside this one, so a line is told by its client's address.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Begins to log, as the program does by default.
fn begin() {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::INFO)
            .with_ansi(false)
            .with_writer(|| Log)
            .init();
    });
}

/// The lines about the client at that address.
fn lines_of(client: SocketAddr) -> Vec<String> {
    let log = String::from_utf8(LOG.lock().unwrap().clone()).unwrap();
    let peer = format!("peer={client} ");
    log.lines()
        .filter(|line| format!("{line} ").contains(&peer))
        .map(str::to_owned)
        .collect()
}

/// Text that would look like a line of its own, if it were written as it is.
const FORGED: &str = "x\r\n2026-11-28T00:00:00.000000Z  INFO FORGED\u{1b}[2J\u{85}\u{2028}";

/// Sends these texts, hello first, and reads until the bridge closes or all the others are refused.
fn say(bridge: &Bridge, texts: &[String]) -> SocketAddr {
    let mut client = Json::connect(bridge);
    let address = client.socket.get_ref().local_addr().unwrap();
    for text in texts {
        // The bridge may have closed already.
        let _ = client.socket.send(Message::text(text));
    }
    let mut refused = 1;
    while refused < texts.len()
        && let Ok(value) = client.next()
    {
        let kind = value["type"].as_str().unwrap();
        refused += usize::from(kind == "reply" || (kind == "error" && value["fatal"] == false));
    }
    address
}

/// Sends a request of HTTP and reads the answer.
fn ask(bridge: &Bridge, headers: &str) -> SocketAddr {
    let mut stream = TcpStream::connect(bridge.local_addr()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{headers}\r\n"
    )
    .unwrap();
    let mut answer = [0; 1024];
    assert!(stream.read(&mut answer).unwrap() > 0);
    stream.local_addr().unwrap()
}

#[test]
fn each_fault_is_logged_once_and_forges_no_line() {
    begin();
    let node = node(|_| {});
    let bridge = bridge(node.local_addr(), |config| config.max_message_bytes = 2_000);
    let hello = json!({"type": "hello", "name": FORGED}).to_string();
    let subscribe = |topic: &str| json!({"type": "subscribe", "id": 1, "topic": topic}).to_string();
    let texts = |last: &str| say(&bridge, &[hello.clone(), last.to_owned()]);
    let (mut none, _) = upgrade(bridge.local_addr(), &[]).unwrap();
    while none.read().is_ok() {}
    let handshake = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
    let incidents: Vec<(&str, SocketAddr, &str)> = vec![
        (
            "no sub-protocol",
            none.get_ref().local_addr().unwrap(),
            "bad_subprotocol",
        ),
        (
            "an unknown sub-protocol",
            ask(
                &bridge,
                &format!("{handshake}Sec-WebSocket-Protocol: a\t\u{85}FORGED\r\n"),
            ),
            "bad_subprotocol",
        ),
        (
            "a wrong origin",
            ask(
                &bridge,
                &format!("{handshake}Origin: http://evil\t\u{85}FORGED\r\n"),
            ),
            "refused",
        ),
        (
            "another version",
            ask(&bridge, &handshake.replace("13", "12")),
            "refused",
        ),
        ("bad JSON", texts(&format!("{{{FORGED}")), "bad_body"),
        (
            "an unknown type",
            texts(&json!({"type": FORGED}).to_string()),
            "unknown_type",
        ),
        (
            "a bad field",
            texts(&json!({"type": "subscribe", "topic": [FORGED]}).to_string()),
            "bad_field",
        ),
        (
            "a policy of no meaning",
            texts(&json!({"type": "subscribe", "topic": "stream/a", "policy": FORGED}).to_string()),
            "bad_field",
        ),
        (
            "a message that is too large",
            texts(&"x".repeat(3_000)),
            "frame_too_large",
        ),
        (
            "an unknown kind",
            texts(&subscribe("nope/x")),
            "unknown_kind",
        ),
        ("a name that is none", texts(&subscribe(FORGED)), "bad_name"),
        (
            "a publish to a name that is none",
            texts(
                &json!({"type": "publish", "id": 1, "topic": FORGED, "kind": "message", "data": FORGED}).to_string(),
            ),
            "bad_name",
        ),
        (
            "a hundred unknown kinds",
            say(
                &bridge,
                &[
                    vec![hello.clone()],
                    (0..100).map(|n| subscribe(&format!("nope/{n}"))).collect(),
                ]
                .concat(),
            ),
            "unknown_kind",
        ),
    ];
    for (what, client, reason) in incidents {
        // What the server refuses comes a moment later.
        let began = std::time::Instant::now();
        while lines_of(client).is_empty() && began.elapsed() < PATIENCE {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let lines = lines_of(client);
        assert_eq!(lines.len(), 1, "{what}: {lines:#?}");
        assert!(lines[0].contains(reason), "{what}: {}", lines[0]);
        assert!(
            !lines[0].contains(char::is_control),
            "{what}: {:?}",
            lines[0]
        );
    }
    bridge.stop();
    let log = String::from_utf8(LOG.lock().unwrap().clone()).unwrap();
    for line in log.lines().filter(|line| line.contains("FORGED")) {
        assert!(line.contains("peer="), "{line}");
    }
}
