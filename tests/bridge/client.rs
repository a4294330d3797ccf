//! A WebSocket client for tests: JSON or native frames over a blocking socket.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use tickring_bridge::{Bridge, Config};
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::client::Response;
use tungstenite::http::HeaderValue;
use tungstenite::{Error, Message, WebSocket};

pub(crate) type Refusal = tungstenite::HandshakeError<tungstenite::ClientHandshake<TcpStream>>;

/// How long anything may take that must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A bridge on a free port.
pub(crate) fn bridge(upstream: SocketAddr, change: impl FnOnce(&mut Config)) -> Bridge {
    let mut config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        upstream: upstream.to_string(),
        ..Config::default()
    };
    change(&mut config);
    Bridge::start(config).unwrap()
}

/// Upgrades a connection, with these headers beside the usual ones.
pub(crate) fn upgrade(
    address: SocketAddr,
    headers: &[(&'static str, &str)],
) -> Result<(WebSocket<TcpStream>, Response), Box<Refusal>> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut request = format!("ws://{address}/ws").into_client_request().unwrap();
    for (name, value) in headers {
        let value = HeaderValue::from_str(value).unwrap();
        request.headers_mut().insert(*name, value);
    }
    tungstenite::client(request, stream).map_err(Box::new)
}

/// A client of `tickring.json.v1`.
pub(crate) struct Json {
    pub(crate) socket: WebSocket<TcpStream>,
    waiting: VecDeque<Value>,
}

impl Json {
    pub(crate) fn connect(bridge: &Bridge) -> Self {
        let protocol = [("sec-websocket-protocol", "tickring.json.v1")];
        let (socket, _) = upgrade(bridge.local_addr(), &protocol).unwrap();
        Self {
            socket,
            waiting: VecDeque::new(),
        }
    }

    /// Connected, and greeted; gives the session too.
    pub(crate) fn open(bridge: &Bridge) -> (Self, String) {
        Self::resume(bridge, "")
    }

    /// Takes a session up.
    pub(crate) fn resume(bridge: &Bridge, session: &str) -> (Self, String) {
        let mut client = Self::connect(bridge);
        client.send(json!({"type": "hello", "name": "test", "session": session}));
        let welcome = client.expect("welcome");
        assert_eq!(welcome["resumed"], !session.is_empty());
        let session = welcome["session"].as_str().unwrap().to_owned();
        (client, session)
    }

    pub(crate) fn send(&mut self, message: Value) {
        self.text(&message.to_string());
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    /// The next object, or why the connection was closed.
    pub(crate) fn next(&mut self) -> Result<Value, (u16, String)> {
        loop {
            if let Some(value) = self.waiting.pop_front() {
                return Ok(value);
            }
            match self.socket.read() {
                Ok(Message::Text(text)) => match serde_json::from_str(&text).unwrap() {
                    Value::Array(values) => self.waiting.extend(values),
                    value => self.waiting.push_back(value),
                },
                Ok(Message::Close(frame)) => {
                    let frame = frame.unwrap();
                    return Err((frame.code.into(), frame.reason.to_string()));
                }
                Ok(_) => {}
                Err(Error::ConnectionClosed | Error::Protocol(_)) => {
                    return Err((1006, String::new()));
                }
                Err(error) => panic!("nothing came: {error}"),
            }
        }
    }

    /// The next object but STATUS, which must be of that type.
    pub(crate) fn expect(&mut self, kind: &str) -> Value {
        loop {
            let value = self.next().unwrap();
            if value["type"] == kind {
                return value;
            }
            assert_eq!(value["type"], "status", "{value} instead of {kind}");
        }
    }

    /// The next events must be these of the topic.
    pub(crate) fn expect_events(&mut self, topic: &str, seqs: std::ops::RangeInclusive<u64>) {
        for seq in seqs {
            let event = self.expect("event");
            assert_eq!(
                (&event["topic"], &event["seq"]),
                (&json!(topic), &json!(seq))
            );
        }
    }

    /// Why the connection is closed; what comes before that is passed over.
    pub(crate) fn closed(&mut self) -> (u16, String) {
        loop {
            if let Err(close) = self.next() {
                return close;
            }
        }
    }

    pub(crate) fn subscribe(&mut self, topic: &str, from_seq: u64, epoch: &str) -> Value {
        self.send(json!({"type": "subscribe", "id": 77, "topic": topic, "from_seq": from_seq, "epoch": epoch}));
        let told = self.expect("subscribed");
        assert_eq!(told["id"], 77);
        told
    }

    pub(crate) fn publish(&mut self, id: u64, topic: &str, text: &str) {
        self.send(
            json!({"type": "publish", "id": id, "topic": topic, "kind": "message", "data": text}),
        );
    }
}

/// A figure of `/metrics`.
pub(crate) fn metric(bridge: &Bridge, name: &str) -> u64 {
    let text = get(bridge, "/metrics").1;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}"))
        .parse()
        .unwrap()
}

/// Waits until a figure of `/metrics` has that value.
pub(crate) fn await_metric(bridge: &Bridge, name: &str, value: u64) {
    let began = std::time::Instant::now();
    while metric(bridge, name) != value {
        assert!(
            began.elapsed() < PATIENCE,
            "{name} is {}",
            metric(bridge, name)
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Status and body of a page.
pub(crate) fn get(bridge: &Bridge, path: &str) -> (u16, String) {
    use std::io::{Read, Write};
    let mut stream = TcpStream::connect(bridge.local_addr()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}
