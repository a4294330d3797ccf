//! A small tickring server for tests: blocking, a thread for each connection, with faults to
//! order.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use tickring_protocol::{
    Command, Decoded, Event, Frame, Gap, GapReason, Policy, Publish, Reply, Subscribe, Subscribed,
    Unsubscribe, Unsubscribed, Welcome, decode,
};

/// What the server does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Loses every tenth event of one connection.
    Lose,
    /// Sends every tenth event of one connection twice.
    Duplicate,
    /// Swaps two events in ten of one connection.
    Reorder,
    /// Sends an event after UNSUBSCRIBED.
    Late,
    /// Says a last seq in UNSUBSCRIBED that is older than the last event.
    WrongLastSeq,
    /// Refuses every tenth publish, and says so.
    Refuse,
    /// Announces every tenth event of one connection as a GAP instead of sending it.
    Conflate,
}

/// A server that runs until the process ends.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
}

type Writer = Arc<Mutex<TcpStream>>;

#[derive(Default)]
struct Topic {
    seq: u64,
    subscribers: Vec<(u64, Writer)>,
    held: Option<Vec<u8>>,
}

struct State {
    fault: Fault,
    ids: HashMap<String, u32>,
    topics: Vec<Topic>,
}

impl Fake {
    pub(crate) fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            fault,
            ids: HashMap::new(),
            topics: Vec::new(),
        }));
        std::thread::spawn(move || {
            for (id, socket) in listener.incoming().enumerate() {
                let (state, socket) = (Arc::clone(&state), socket.unwrap());
                std::thread::spawn(move || serve(&state, id as u64, socket));
            }
        });
        Self { address }
    }
}

fn send(writer: &Writer, bytes: &[u8]) {
    // A client that is gone is no concern of the server's.
    drop(writer.lock().unwrap().write_all(bytes));
}

fn reply(writer: &Writer, frame: Frame<'_>) {
    let mut out = Vec::new();
    frame.encode(&mut out);
    send(writer, &out);
}

fn serve(state: &Mutex<State>, id: u64, mut socket: TcpStream) {
    socket.set_nodelay(true).unwrap();
    let writer = Arc::new(Mutex::new(socket.try_clone().unwrap()));
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 << 10];
    while let Ok(len @ 1..) = socket.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..len]);
        let mut at = 0;
        while let Decoded::Frame { frame, len } = decode(&bytes[at..], 1 << 20).unwrap() {
            at += len;
            state.lock().unwrap().handle(id, &writer, frame);
        }
        bytes.drain(..at);
    }
    for topic in &mut state.lock().unwrap().topics {
        topic
            .subscribers
            .retain(|(subscriber, _)| *subscriber != id);
    }
    drop(socket.shutdown(Shutdown::Both));
}

impl State {
    fn handle(&mut self, id: u64, writer: &Writer, frame: Frame<'_>) {
        match frame {
            Frame::Hello(hello) => reply(
                writer,
                Frame::Welcome(Welcome {
                    major: hello.major,
                    minor: hello.minor,
                    heartbeat_ms: 1000,
                    session: 1,
                    max_frame: 1 << 20,
                    max_subscriptions: 1000,
                    node_ns: 0,
                    resumed: false,
                }),
            ),
            Frame::Subscribe(m) => self.subscribe(id, writer, m),
            Frame::Unsubscribe(m) => self.unsubscribe(id, writer, m),
            Frame::Command(m) => self.publish(writer, m),
            Frame::Ping(_) | Frame::Pong(_) | Frame::Goodbye(_) => {}
            other => panic!("a client sent {other:?}"),
        }
    }

    fn topic(&mut self, name: &str) -> u32 {
        if let Some(&id) = self.ids.get(name) {
            return id;
        }
        self.topics.push(Topic::default());
        let id = self.topics.len() as u32;
        self.ids.insert(name.to_owned(), id);
        id
    }

    fn subscribe(&mut self, id: u64, writer: &Writer, m: Subscribe<'_>) {
        let topic_id = self.topic(m.topic);
        let topic = &mut self.topics[topic_id as usize - 1];
        topic.subscribers.push((id, Arc::clone(writer)));
        reply(
            writer,
            Frame::Subscribed(Subscribed {
                request_id: m.request_id,
                topic_id,
                policy: Policy::Resume,
                next_seq: topic.seq + 1,
                last_seq: topic.seq,
                epoch: 1,
                topic: m.topic,
            }),
        );
    }

    fn unsubscribe(&mut self, id: u64, writer: &Writer, m: Unsubscribe) {
        let topic = &mut self.topics[m.topic_id as usize - 1];
        topic
            .subscribers
            .retain(|(subscriber, _)| *subscriber != id);
        let wrong = self.fault == Fault::WrongLastSeq && topic.seq > 1;
        reply(
            writer,
            Frame::Unsubscribed(Unsubscribed {
                request_id: m.request_id,
                topic_id: m.topic_id,
                last_seq: topic.seq - u64::from(wrong),
            }),
        );
        if self.fault == Fault::Late {
            let late = event(m.topic_id, topic.seq + 1, &[0; 24]);
            send(writer, &late);
        }
    }

    fn publish(&mut self, writer: &Writer, m: Command<'_>) {
        let topic_id = match m.topic_id {
            0 => self.topic(m.topic),
            id => id,
        };
        let body = Publish::decode(m.payload).unwrap().body;
        let counter = u64::from_le_bytes(body[8..16].try_into().unwrap());
        let tenth = counter % 10 == 9;
        let refused = self.fault == Fault::Refuse && tenth;
        let topic = &mut self.topics[topic_id as usize - 1];
        topic.seq += u64::from(!refused);
        if refused || !m.quiet {
            reply(
                writer,
                Frame::Reply(Reply {
                    request_id: m.request_id,
                    topic_id,
                    code: if refused { 25 } else { 0 },
                    seq: topic.seq,
                    retry_after_ms: 0,
                    payload: &[],
                }),
            );
        }
        if refused {
            return;
        }
        let event = event(topic_id, topic.seq, body);
        for (index, (_, subscriber)) in topic.subscribers.iter().enumerate() {
            match self.fault {
                Fault::Lose if index == 0 && tenth => {}
                Fault::Conflate if index == 0 && tenth => reply(
                    subscriber,
                    Frame::Gap(Gap {
                        topic_id,
                        reason: GapReason::Conflated,
                        first_seq: topic.seq,
                        last_seq: topic.seq,
                    }),
                ),
                Fault::Duplicate if index == 0 && tenth => {
                    send(subscriber, &[&event[..], &event[..]].concat());
                }
                Fault::Reorder if index == 0 && counter % 10 == 8 => {
                    topic.held = Some(event.clone())
                }
                Fault::Reorder if index == 0 && tenth => {
                    let held = topic.held.take().unwrap_or_default();
                    send(subscriber, &[&event[..], &held[..]].concat());
                }
                _ => send(subscriber, &event),
            }
        }
    }
}

fn event(topic_id: u32, seq: u64, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Frame::Event(Event {
        topic_id,
        kind: 1,
        seq,
        event_ns: 0,
        node_ns: 0,
        body,
    })
    .encode(&mut out);
    out
}
