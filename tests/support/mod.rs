//! A node in this process and a bare connection to it, for tests of the whole server.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use tickring::node::{Node, NodeConfig};
use tickring_protocol::{
    Command, Decoded, ErrorFrame, EventKind, Frame, Hello, PUBLISH, Policy, Publish, Subscribe,
    VERSION_MAJOR, VERSION_MINOR, decode,
};

/// A node on a free port.
pub fn node(change: impl FnOnce(&mut NodeConfig)) -> Node {
    let mut config = NodeConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        cores: 1,
        pin: false,
        ..NodeConfig::default()
    };
    config.limits.max_connections = 1_000;
    change(&mut config);
    Node::start(config).unwrap()
}

/// A connection that speaks in frames, and in bytes where a test wants to.
pub struct Wire {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Wire {
    pub fn connect(node: &Node) -> Self {
        let stream = TcpStream::connect(node.local_addr()).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        Self {
            stream,
            received: Vec::new(),
        }
    }

    /// Connected, and greeted.
    pub fn open(node: &Node) -> Self {
        let mut wire = Self::connect(node);
        wire.hello("test");
        wire
    }

    pub fn hello(&mut self, name: &str) {
        self.send(&hello(name));
        self.expect(|frame| matches!(frame, Frame::Welcome(_)));
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        // The server may have closed already, which is what some tests are about.
        let _ = self.stream.write_all(bytes);
    }

    pub fn send(&mut self, frame: &Frame<'_>) {
        self.bytes(&encode(frame));
    }

    pub fn subscribe(&mut self, topic: &str, from_seq: u64) -> u32 {
        self.send(&subscribe(topic, from_seq));
        let mut id = 0;
        self.next(|frame| match frame {
            Frame::Subscribed(s) => id = s.topic_id,
            other => panic!("{other:?} instead of SUBSCRIBED"),
        });
        id
    }

    pub fn publish(&mut self, topic: &str, body: &[u8]) {
        let payload = message(body);
        self.send(&Frame::Command(Command {
            request_id: 1,
            topic_id: 0,
            command: PUBLISH,
            topic,
            payload: &payload,
            quiet: true,
        }));
    }

    /// The next frame.
    ///
    /// Panics when the connection ends or stays silent.
    pub fn next<R>(&mut self, read: impl FnOnce(&Frame<'_>) -> R) -> R {
        assert!(
            self.fill(),
            "the connection ended where a frame was expected"
        );
        match decode(&self.received, 16 << 20).unwrap() {
            Decoded::Frame { frame, len } => {
                let result = read(&frame);
                self.received.drain(..len);
                result
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn expect(&mut self, matches: impl FnOnce(&Frame<'_>) -> bool) {
        self.next(|frame| assert!(matches(frame), "unexpected {frame:?}"));
    }

    /// The next frame must be ERROR; gives its code, whether it is fatal, and its request id.
    pub fn expect_error(&mut self) -> (u16, bool, u64) {
        self.next(|frame| match frame {
            Frame::Error(ErrorFrame {
                code,
                fatal,
                request_id,
                ..
            }) => (*code, *fatal, *request_id),
            other => panic!("{other:?} instead of ERROR"),
        })
    }

    /// Whether the server has closed, with nothing more to read.
    pub fn is_closed(&mut self) -> bool {
        !self.fill()
    }

    pub fn shut_write(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Reads until a whole frame is there; `false` at the end of the stream.
    fn fill(&mut self) -> bool {
        loop {
            if let Ok(Decoded::Frame { .. }) = decode(&self.received, 16 << 20) {
                return true;
            }
            let mut buffer = [0; 65_536];
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return false,
                Err(error) => panic!("nothing came: {error}"),
            }
        }
    }
}

pub fn encode(frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

pub fn hello(name: &str) -> Frame<'_> {
    Frame::Hello(Hello {
        major: VERSION_MAJOR,
        minor: VERSION_MINOR,
        session: 0,
        name,
        credentials: b"",
    })
}

pub fn subscribe(topic: &str, from_seq: u64) -> Frame<'_> {
    Frame::Subscribe(Subscribe {
        request_id: 42,
        from_seq,
        epoch: 0,
        policy: Policy::Default,
        topic,
    })
}

/// The payload of a PUBLISH of a message.
pub fn message(body: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    Publish {
        kind: EventKind::Message as u16,
        event_ns: 7,
        body,
    }
    .encode(&mut payload);
    payload
}
