//! A server of a few lines: it speaks frames over a real socket, as its test scripts it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use tickring_client::protocol::{
    Candle, Cursor, Decoded, Event, EventKind, Frame, HistoryPage, Policy, Subscribed,
    VERSION_MAJOR, VERSION_MINOR, Welcome, decode,
};

pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    bytes: Vec<u8>,
    used: usize,
}

pub(crate) fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

impl Peer {
    pub(crate) fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Self {
            stream,
            bytes: Vec::new(),
            used: 0,
        }
    }

    /// Accepts, takes HELLO, sends WELCOME; the session token that HELLO presented.
    pub(crate) fn welcome(listener: &TcpListener, session: u128, resumed: bool) -> (Self, u128) {
        let mut peer = Self::accept(listener);
        let presented = peer.expect(|frame| match frame {
            Frame::Hello(hello) => Some(hello.session),
            _ => None,
        });
        peer.send(&Frame::Welcome(Welcome {
            major: VERSION_MAJOR,
            minor: VERSION_MINOR,
            heartbeat_ms: 1000,
            session,
            max_frame: 1 << 20,
            max_subscriptions: 1000,
            node_ns: 1,
            resumed,
        }));
        (peer, presented)
    }

    pub(crate) fn send(&mut self, frame: &Frame<'_>) {
        let mut out = Vec::new();
        frame.encode(&mut out);
        self.stream.write_all(&out).unwrap();
    }

    /// The next frame, as `read` takes it; `None` at the end of the stream.
    pub(crate) fn next<R>(&mut self, mut read: impl FnMut(Frame<'_>) -> R) -> Option<R> {
        loop {
            match decode(&self.bytes[self.used..], 1 << 20).unwrap() {
                Decoded::Frame { frame, len } => {
                    let result = read(frame);
                    self.used += len;
                    return Some(result);
                }
                Decoded::Skipped { .. } => unreachable!("clients send no optional frames"),
                Decoded::NeedMore { .. } => {}
            }
            self.bytes.drain(..self.used);
            self.used = 0;
            let mut chunk = [0; 64 << 10];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(len) => self.bytes.extend_from_slice(&chunk[..len]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("the fake server waits for a frame: {error}"),
            }
        }
    }

    /// Reads until the client says goodbye or is gone; how many commands there were.
    pub(crate) fn until_gone(&mut self) -> u64 {
        let mut commands = 0;
        while self.next(|frame| {
            commands += u64::from(matches!(frame, Frame::Command(_)));
            matches!(frame, Frame::Goodbye(_))
        }) == Some(false)
        {}
        commands
    }

    /// The next frame, which must be the one that `read` wants.
    pub(crate) fn expect<R>(&mut self, read: impl Fn(Frame<'_>) -> Option<R>) -> R {
        self.next(|frame| read(frame).unwrap_or_else(|| panic!("unexpected {frame:?}")))
            .expect("the client closed the connection")
    }

    /// Takes SUBSCRIBE and confirms it; its from_seq and epoch.
    pub(crate) fn subscribed(&mut self, topic_id: u32, next_seq: u64, last_seq: u64) -> (u64, u64) {
        let (request_id, from, epoch, topic) = self.expect(|frame| match frame {
            Frame::Subscribe(s) => Some((s.request_id, s.from_seq, s.epoch, s.topic.to_owned())),
            _ => None,
        });
        self.send(&Frame::Subscribed(Subscribed {
            request_id,
            topic_id,
            policy: Policy::Resume,
            next_seq,
            last_seq,
            epoch: 77,
            topic: &topic,
        }));
        (from, epoch)
    }

    /// Takes HISTORY and answers it with one candle that starts at the cursor's time; that time.
    pub(crate) fn page(&mut self, more: bool) -> u64 {
        let (request_id, series, cursor) = self.expect(|frame| match frame {
            Frame::History(h) => Some((h.request_id, h.series, h.cursor)),
            _ => None,
        });
        let mut rows = Vec::new();
        Candle {
            start_ns: cursor.event_ns,
            ..Candle::default()
        }
        .encode(&mut rows);
        self.send(&Frame::HistoryPage(HistoryPage {
            request_id,
            series,
            more,
            next: Cursor {
                event_ns: cursor.event_ns + 60,
                seq: 1,
            },
            rows: &rows,
        }));
        cursor.event_ns
    }

    pub(crate) fn event(&mut self, topic_id: u32, seq: u64, body: &[u8]) {
        self.send(&event(topic_id, seq, body));
    }
}

pub(crate) fn event(topic_id: u32, seq: u64, body: &[u8]) -> Frame<'_> {
    Frame::Event(Event {
        topic_id,
        kind: EventKind::Message as u16,
        seq,
        event_ns: 1,
        node_ns: 2,
        body,
    })
}
