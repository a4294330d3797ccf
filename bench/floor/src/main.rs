//! The floor: the least that any server could do with a message, to tell the kernel's own cost.
//!
//! A bare loop on one thread: what a publisher sends goes to all subscribers, byte for byte. No
//! protocol beyond the greeting, no topics, no history, no bounds, no slow readers. Not a server
//! to use: it is the reference that `bench/compare` holds servers against.
//!
//! # Protocol
//! Frames of an 8-byte header, `payload length: u32, topic: u32`, little-endian, and a payload.
//! A client begins with frames without payload, whole and in its first write. The floor sends each
//! of them back; one whose topic is not `u32::MAX` makes the client a subscriber. What comes after
//! that is published: a subscriber's own bytes go back to itself (round trips), a publisher's to
//! all subscribers.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tickring::ring::socket::{ListenOptions, listener};
use tickring::ring::{Completion, Ring, RingConfig, Slot, machine};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bytes of a frame's header.
const HEADER: usize = 8;
/// The topic of a greeting that subscribes to nothing.
const NO_TOPIC: u32 = u32::MAX;

/// The least that any server could do: what a publisher sends goes to all subscribers.
#[derive(Debug, Parser)]
#[command(name = "tickring-floor", version)]
struct Options {
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))]
    listen: SocketAddr,
    /// Send each message by itself, also when several arrive together
    #[arg(long)]
    each_message: bool,
    /// Never sleep
    #[arg(long)]
    busy_poll: bool,
    /// Connections, at most
    #[arg(long, value_name = "N", default_value_t = 19_500)]
    connections: u32,
}

fn main() -> ExitCode {
    match Floor::new(&Options::parse()).and_then(Floor::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when this fails.
            drop(writeln!(io::stderr(), "tickring-floor: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// What is sent: shared by all who get it.
type Bytes = Arc<[u8]>;

/// One connection.
#[derive(Clone, Debug, Default)]
struct Client {
    open: bool,
    /// It has published: its bytes are not looked at any more.
    publishes: bool,
    subscribed: bool,
    flying: bool,
    /// What came while a send was under way.
    waiting: Vec<Bytes>,
}

struct Floor {
    ring: Ring<Bytes>,
    each_message: bool,
    timeout: Option<Duration>,
    clients: Vec<Client>,
    subscribers: Vec<Slot>,
    arrivals: Vec<(Slot, Bytes)>,
}

impl Floor {
    fn new(options: &Options) -> Result<Self, Box<dyn Error>> {
        if let Some(&first) = machine::allowed_processors()?.first() {
            machine::pin_thread(first)?;
        }
        let mut ring = Ring::new(&RingConfig {
            descriptors: options.connections,
            ..RingConfig::default()
        })?;
        let listener = listener(options.listen, &ListenOptions::default())?;
        let address = listener.local_addr()?;
        ring.listen(listener)?;
        writeln!(io::stdout(), "listening on {address}")?;
        Ok(Self {
            ring,
            each_message: options.each_message,
            timeout: options.busy_poll.then_some(Duration::ZERO),
            clients: vec![Client::default(); options.connections as usize],
            subscribers: Vec::new(),
            arrivals: Vec::new(),
        })
    }

    fn run(mut self) -> Result<(), Box<dyn Error>> {
        loop {
            self.ring.submit_and_wait(self.timeout)?;
            self.take_completions();
            while !self.arrivals.is_empty() {
                for (from, bytes) in std::mem::take(&mut self.arrivals) {
                    self.arrived(from, bytes);
                }
            }
        }
    }

    fn take_completions(&mut self) {
        let Self {
            ring,
            clients,
            subscribers,
            arrivals,
            ..
        } = self;
        let (mut accepted, mut sent, mut ended) = (Vec::new(), Vec::new(), Vec::new());
        ring.for_each_completion(usize::MAX, |completion| match completion {
            Completion::Accepted(slot) => accepted.push(slot),
            Completion::Received { slot, bytes } => arrivals.push((slot, bytes.into())),
            Completion::Sent { slot, .. } => {
                let client = &mut clients[slot.index()];
                client.flying = false;
                if !client.waiting.is_empty() {
                    sent.push(slot);
                }
            }
            Completion::ReceiveEnded { slot, .. } => ended.push(slot),
            _ => {}
        });
        for slot in accepted {
            clients[slot.index()] = Client {
                open: true,
                ..Client::default()
            };
            ring.recv(slot);
        }
        for slot in sent {
            let client = &mut clients[slot.index()];
            if client.open {
                let all: Vec<u8> = client.waiting.drain(..).flat_map(|b| b.to_vec()).collect();
                client.flying = true;
                ring.send(slot, all.into());
            }
        }
        for slot in ended {
            clients[slot.index()].open = false;
            subscribers.retain(|subscriber| *subscriber != slot);
            ring.close(slot);
        }
    }

    fn arrived(&mut self, from: Slot, bytes: Bytes) {
        let mut at = 0;
        while !self.clients[from.index()].publishes {
            let Some((0, topic)) = header(&bytes[at..]) else {
                self.clients[from.index()].publishes = at < bytes.len();
                break;
            };
            at += HEADER;
            if topic != NO_TOPIC {
                self.clients[from.index()].subscribed = true;
                self.subscribers.push(from);
            }
        }
        if at > 0 {
            self.send(from, &bytes[..at].into());
        }
        if at == 0 {
            self.publish(from, &bytes);
        } else if at < bytes.len() {
            self.publish(from, &bytes[at..].into());
        }
    }

    fn publish(&mut self, from: Slot, bytes: &Bytes) {
        if !self.each_message {
            return self.distribute(from, bytes);
        }
        let mut rest = &bytes[..];
        while let Some((payload, _)) = header(rest) {
            let (message, after) = rest.split_at((HEADER + payload as usize).min(rest.len()));
            rest = after;
            self.distribute(from, &message.into());
            // Hands the sends to the kernel, which does them at once; the next message finds the
            // sockets free.
            let submitted = self.ring.submit_and_wait(Some(Duration::ZERO));
            debug_assert!(submitted.is_ok(), "the loop's next wait tells");
            self.take_completions();
        }
        if !rest.is_empty() {
            self.distribute(from, &rest.into());
        }
    }

    fn distribute(&mut self, from: Slot, bytes: &Bytes) {
        if self.clients[from.index()].subscribed {
            return self.send(from, bytes);
        }
        for index in 0..self.subscribers.len() {
            self.send(self.subscribers[index], bytes);
        }
    }

    fn send(&mut self, to: Slot, bytes: &Bytes) {
        let client = &mut self.clients[to.index()];
        if client.flying {
            client.waiting.push(Arc::clone(bytes));
        } else if client.open {
            client.flying = true;
            self.ring.send(to, Arc::clone(bytes));
        }
    }
}

/// Payload length and topic of the frame that `bytes` begins with.
fn header(bytes: &[u8]) -> Option<(u32, u32)> {
    let (header, _) = bytes.split_first_chunk::<HEADER>()?;
    let [a, b, c, d, e, f, g, h] = *header;
    Some((
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    ))
}
