//! A server that takes publishes and notes them.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tickring_protocol::{
    Command, Decoded, ErrorCode, Frame, Goodbye, MAX_FRAME_LEN, PUBLISH, Pong, Publish, Reply,
    Welcome, decode,
};

/// What the server does with publishes.
#[derive(Clone, Copy)]
pub(crate) enum Behaviour {
    Takes,
    /// Refuses those to one topic.
    RefusesTopic(&'static str),
    /// Cuts the connection when it has so many.
    ClosesAfter(usize),
}

/// One publish that came.
#[derive(Clone)]
pub(crate) struct Published {
    pub(crate) topic: String,
    pub(crate) event_ns: u64,
    pub(crate) body: Vec<u8>,
    pub(crate) at: Instant,
}

pub(crate) struct Server {
    address: String,
    published: Arc<Mutex<Vec<Published>>>,
}

impl Server {
    pub(crate) fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let published = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&published);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, published) = (stream.unwrap(), Arc::clone(&notes));
                // A client that is gone ends its connection, not the server.
                let _ = Connection::new(behaviour, published).serve(stream);
            }
        });
        Self { address, published }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// What came so far; the next call tells what came since.
    pub(crate) fn published(&self) -> Vec<Published> {
        std::mem::take(&mut self.published.lock().unwrap())
    }
}

struct Connection {
    behaviour: Behaviour,
    published: Arc<Mutex<Vec<Published>>>,
    ids: HashMap<String, u32>,
    seq: u64,
    out: Vec<u8>,
}

impl Connection {
    fn new(behaviour: Behaviour, published: Arc<Mutex<Vec<Published>>>) -> Self {
        Self {
            behaviour,
            published,
            ids: HashMap::new(),
            seq: 0,
            out: Vec::new(),
        }
    }

    fn serve(&mut self, mut stream: TcpStream) -> std::io::Result<()> {
        let (mut inbox, mut chunk) = (Vec::new(), [0; 4096]);
        loop {
            let len = stream.read(&mut chunk)?;
            if len == 0 {
                return Ok(());
            }
            inbox.extend_from_slice(&chunk[..len]);
            let mut used = 0;
            let mut goes_on = true;
            while let Decoded::Frame { frame, len } = decode(&inbox[used..], MAX_FRAME_LEN).unwrap()
            {
                used += len;
                goes_on = self.on_frame(&frame);
                if !goes_on {
                    break;
                }
            }
            inbox.drain(..used);
            stream.write_all(&self.out)?;
            self.out.clear();
            if !goes_on {
                return stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// Whether the connection goes on.
    fn on_frame(&mut self, frame: &Frame<'_>) -> bool {
        match frame {
            Frame::Hello(hello) => Frame::Welcome(Welcome {
                major: hello.major,
                minor: hello.minor,
                heartbeat_ms: 0,
                session: 1,
                max_frame: 1 << 20,
                max_subscriptions: 1,
                node_ns: 0,
                resumed: false,
            })
            .encode(&mut self.out),
            Frame::Command(command) => return self.on_command(command),
            Frame::Ping(ping) => Frame::Pong(Pong {
                token: ping.token,
                node_ns: 0,
            })
            .encode(&mut self.out),
            Frame::Goodbye(_) => {
                Frame::Goodbye(Goodbye {
                    code: 0,
                    retry_after_ms: 0,
                    text: "",
                })
                .encode(&mut self.out);
                return false;
            }
            other => panic!("a feed has no use for {other:?}"),
        }
        true
    }

    fn on_command(&mut self, command: &Command<'_>) -> bool {
        let new_id = self.ids.len() as u32 + 1;
        let (topic, topic_id) = match command.topic_id {
            0 => {
                let id = self.ids.entry(command.topic.to_owned()).or_insert(new_id);
                (command.topic.to_owned(), *id)
            }
            id => {
                let (topic, _) = self.ids.iter().find(|(_, known)| **known == id).unwrap();
                (topic.clone(), id)
            }
        };
        let refusal = match self.behaviour {
            _ if command.command != PUBLISH => Some((ErrorCode::UnknownCommand, "")),
            Behaviour::RefusesTopic(refused) if topic == refused => {
                Some((ErrorCode::OutOfRange, "qty is negative"))
            }
            _ => None,
        };
        if refusal.is_none() {
            self.seq += 1;
            let publish = Publish::decode(command.payload).unwrap();
            let mut published = self.published.lock().unwrap();
            published.push(Published {
                topic,
                event_ns: publish.event_ns,
                body: publish.body.to_vec(),
                at: Instant::now(),
            });
            if matches!(self.behaviour, Behaviour::ClosesAfter(most) if published.len() >= most) {
                return false;
            }
        }
        if refusal.is_some() || !command.quiet {
            let (code, text) = refusal.unwrap_or((ErrorCode::Ok, ""));
            Frame::Reply(Reply {
                request_id: command.request_id,
                topic_id,
                code: code as u16,
                seq: if code == ErrorCode::Ok { self.seq } else { 0 },
                retry_after_ms: 0,
                payload: text.as_bytes(),
            })
            .encode(&mut self.out);
        }
        true
    }
}
