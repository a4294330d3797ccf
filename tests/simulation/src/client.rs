//! A client: what it does, unkind or not. What it sees is judged in [`crate::judge`].

use std::collections::{BTreeMap, VecDeque};

use tickring_protocol::{
    Command, Frame, Goodbye, Hello, Micros, PUBLISH, Ping, Policy, Publish, Quote, Subscribe,
    Trade, Unsubscribe,
};

use crate::coverage::Coverage;
use crate::dice::Dice;
use crate::judge::Sight;
use crate::model::{Model, TALLY, TALLY_ADD, TALLY_KIND, TALLY_REFUSE};
use crate::plan::Plan;
use crate::shadow::Shadow;
use crate::socket::{End, Socket};
use crate::trace::Trace;

/// How a client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    All,
    /// At most so many bytes at a time, and seldom.
    Slow(usize),
    Stalled,
}

/// One connection, as its client sees it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) socket: usize,
    pub(crate) out: VecDeque<u8>,
    pub(crate) reading: Reading,
    pub(crate) shadow: Shadow,
    pub(crate) sight: Sight,
    wrote_at: u64,
    /// The client has shut its side, once what is in `out` is written.
    ending: bool,
}

/// A user of the node.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) index: usize,
    pub(crate) link: Option<Link>,
    connects_left: usize,
    /// Whether it ever stops reading, never says HELLO or PING, and how often it publishes.
    stalls: bool,
    silent: bool,
    publishes: usize,
    unkind: bool,
    session: u128,
    requests: u64,
    /// Topic and the newest seq that it was brought up to, of earlier subscriptions.
    pub(crate) resume: BTreeMap<usize, u64>,
    /// Commands written, by connection, in order.
    pub(crate) history: Vec<Vec<u64>>,
}

/// What a client needs of the world.
pub(crate) struct Around<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) dice: &'a mut Dice,
    pub(crate) sockets: &'a mut Vec<Socket>,
    pub(crate) trace: &'a mut Trace,
    pub(crate) coverage: &'a mut Coverage,
    pub(crate) model: &'a mut Model,
    pub(crate) now: u64,
    /// For each core, whether it is stopping.
    pub(crate) stopping: &'a [bool],
}

impl Client {
    pub(crate) fn new(index: usize, plan: &Plan, dice: &mut Dice) -> Self {
        Self {
            index,
            link: None,
            connects_left: dice.between(1, 6),
            stalls: dice.chance(if plan.flood { 50 } else { 30 }),
            silent: dice.chance(8),
            publishes: if plan.flood {
                dice.pick(&[35, 90])
            } else {
                dice.pick(&[10, 35, 70])
            },
            unkind: dice.chance(if plan.flood { 10 } else { 40 }),
            session: 0,
            requests: 0,
            resume: BTreeMap::new(),
            history: Vec::new(),
        }
    }

    /// Does something of its own accord. Returns a core to connect to.
    pub(crate) fn act(&mut self, around: &mut Around<'_>) -> Option<usize> {
        let Some(link) = self.link.as_mut() else {
            if self.connects_left > 0 && around.dice.chance(40) {
                self.connects_left -= 1;
                return Some(around.dice.below(around.plan.cores));
            }
            return None;
        };
        if link.sight.is_over() {
            if around.dice.chance(30) {
                self.leave(around);
            }
            return None;
        }
        if link.shadow.is_over() {
            // Waits for what was promised, most of the time.
            if self.unkind && around.dice.chance(3) {
                self.cut(around);
            }
            return None;
        }
        if self.stalls && around.dice.chance(4) {
            link.reading = match around.dice.below(6) {
                0 => Reading::All,
                1 => Reading::Slow(around.dice.between(1, 200)),
                _ => Reading::Stalled,
            };
        }
        if self.unkind && around.dice.chance(1) {
            self.cut(around);
            return None;
        }
        if !link.out.is_empty() {
            return None;
        }
        let mut bytes = Vec::new();
        for _ in 0..around.dice.between(1, around.plan.pipeline) {
            let start = bytes.len();
            self.compose(&mut bytes, around);
            if around.dice.below(100) < around.plan.garbage {
                spoil(&mut bytes, start, around.dice);
            }
        }
        self.write(&bytes, around);
        if self.unkind && around.dice.chance(1) {
            self.shut(around);
        }
        None
    }

    /// Says that it lives, when it has to.
    pub(crate) fn keep_alive(&mut self, around: &mut Around<'_>) {
        let idle = around.plan.limits.idle_timeout.as_nanos() as u64;
        let Some(link) = self.link.as_ref() else {
            return;
        };
        let due = idle > 0 && around.now > link.wrote_at + idle / 4;
        if due
            && !self.silent
            && link.shadow.negotiated
            && !link.shadow.is_over()
            && !link.sight.is_over()
        {
            let mut bytes = Vec::new();
            Frame::Ping(Ping {
                token: around.dice.word(),
            })
            .encode(&mut bytes);
            self.write(&bytes, around);
        }
    }

    pub(crate) fn connected(&mut self, socket: usize, around: &Around<'_>) {
        self.link = Some(Link {
            socket,
            out: VecDeque::new(),
            reading: Reading::All,
            shadow: Shadow::default(),
            sight: Sight::default(),
            wrote_at: around.now,
            ending: false,
        });
    }

    fn write(&mut self, bytes: &[u8], around: &mut Around<'_>) {
        let Some(link) = self.link.as_mut() else {
            return;
        };
        link.wrote_at = around.now;
        link.shadow.write(
            bytes,
            around.plan.limits.max_frame_bytes,
            around.now,
            around.model,
        );
        link.out.extend(bytes);
        let index = self.index;
        around
            .trace
            .line(|| format!("client {index}: writes {}", describe(bytes)));
    }

    /// Shuts its side in order.
    pub(crate) fn shut(&mut self, around: &mut Around<'_>) {
        let Some(link) = self.link.as_mut() else {
            return;
        };
        if !link.ending {
            link.ending = true;
            link.shadow.end(around.now);
            let index = self.index;
            around
                .trace
                .line(|| format!("client {index}: shuts its side"));
        }
    }

    /// Goes, without a word.
    fn cut(&mut self, around: &mut Around<'_>) {
        let Some(link) = self.link.as_ref() else {
            return;
        };
        let socket = &mut around.sockets[link.socket];
        socket.up_end = Some(if around.dice.chance(50) {
            End::Reset
        } else {
            End::Eof
        });
        let index = self.index;
        around
            .trace
            .line(|| format!("client {index}: cuts the connection"));
        self.forget(around);
    }

    /// Closes a connection that is over.
    pub(crate) fn leave(&mut self, around: &mut Around<'_>) {
        let Some(link) = self.link.as_ref() else {
            return;
        };
        let socket = &mut around.sockets[link.socket];
        socket.up_end.get_or_insert(End::Eof);
        let index = self.index;
        around.trace.line(|| format!("client {index}: closes"));
        self.forget(around);
    }

    fn forget(&mut self, around: &mut Around<'_>) {
        if let Some(link) = self.link.take() {
            let socket = &mut around.sockets[link.socket];
            socket.gone = true;
            socket.down.clear();
            for sub in &link.sight.subscriptions {
                self.resume.insert(sub.topic, sub.next_seq - 1);
            }
            if link.sight.session != 0 {
                self.session = link.sight.session;
            }
            self.history.push(link.shadow.commands);
        }
    }

    /// Moves bytes into the socket; says whether any moved.
    pub(crate) fn flush(&mut self, around: &mut Around<'_>) -> bool {
        let Some(link) = self.link.as_mut() else {
            return false;
        };
        let socket = &mut around.sockets[link.socket];
        if socket.up_end.is_some() || socket.closed {
            return false;
        }
        let room = socket
            .capacity
            .saturating_sub(socket.up.len())
            .min(link.out.len());
        if room > 0 {
            let count = if around.dice.chance(60) {
                room
            } else {
                around.dice.between(1, room)
            };
            socket.up.extend(link.out.drain(..count));
            return true;
        }
        if link.ending && link.out.is_empty() {
            socket.up_end = Some(End::Eof);
            return true;
        }
        false
    }

    /// Reads from the socket and judges what came; says whether anything came.
    pub(crate) fn read(&mut self, around: &mut Around<'_>) -> Result<bool, String> {
        let index = self.index;
        let Some(link) = self.link.as_mut() else {
            return Ok(false);
        };
        let socket = &mut around.sockets[link.socket];
        let most = match link.reading {
            Reading::All => socket.down.len(),
            Reading::Slow(most) if around.dice.chance(30) => most.min(socket.down.len()),
            Reading::Slow(_) | Reading::Stalled => 0,
        };
        if most > 0 {
            let count = if around.dice.chance(60) {
                most
            } else {
                around.dice.between(1, most)
            };
            link.sight.bytes.extend(socket.down.drain(..count));
            link.sight.judge(
                index,
                link.socket,
                &mut link.shadow,
                &mut self.resume,
                around,
            )?;
            return Ok(true);
        }
        let ended = socket.down.is_empty() && (socket.down_end || socket.closed);
        if ended && link.reading != Reading::Stalled && !link.sight.eof {
            link.sight
                .end_of_stream(link.socket, &link.shadow, around)?;
            around
                .trace
                .line(|| format!("client {index}: reads the end of the stream"));
            return Ok(true);
        }
        Ok(false)
    }

    fn next_request(&mut self) -> u64 {
        self.requests += 1;
        self.requests
    }

    /// Appends one frame.
    fn compose(&mut self, out: &mut Vec<u8>, around: &mut Around<'_>) {
        let Some(link) = self.link.as_ref() else {
            return;
        };
        if !link.shadow.negotiated && !(self.unkind && around.dice.chance(5)) {
            // Another HELLO would be a violation: one may be in `out` already.
            if out.is_empty() && !(self.silent && around.dice.chance(95)) {
                self.hello(out, around);
            } else if !out.is_empty() {
                self.request(out, around);
            }
            return;
        }
        self.request(out, around);
    }

    fn hello(&self, out: &mut Vec<u8>, around: &mut Around<'_>) {
        let session = if around.dice.chance(50) {
            self.session
        } else {
            0
        };
        let name = format!("client {}", self.index);
        Frame::Hello(Hello {
            major: 1,
            minor: 0,
            session,
            name: &name,
            credentials: b"",
        })
        .encode(out);
    }

    fn request(&mut self, out: &mut Vec<u8>, around: &mut Around<'_>) {
        if around.dice.below(100) < self.publishes {
            return self.publish(out, around);
        }
        match around.dice.below(100) {
            0..40 => self.subscribe(out, around),
            40..62 => self.unsubscribe(out, around),
            62..80 => self.publish(out, around),
            80..96 => Frame::Ping(Ping {
                token: around.dice.word(),
            })
            .encode(out),
            96 => Frame::Goodbye(Goodbye {
                code: 0,
                retry_after_ms: 0,
                text: "bye",
            })
            .encode(out),
            _ => {}
        }
    }

    fn topic(around: &mut Around<'_>) -> String {
        match around.dice.below(100) {
            0 => "nothing/here".into(),
            1 => "no slash".into(),
            2 => format!("stream/x{}", around.dice.below(50)),
            3 => format!("stream/{}", "x".repeat(250)),
            _ => around.plan.topics[around.dice.below(around.plan.topics.len())].clone(),
        }
    }

    fn subscribe(&mut self, out: &mut Vec<u8>, around: &mut Around<'_>) {
        let name = Self::topic(around);
        let topic = around.model.find(&name);
        let last = topic.map_or(0, |t| around.model.topics[t].last_seq());
        let resume = topic.and_then(|t| self.resume.get(&t).copied());
        let (from_seq, epoch) = match around.dice.below(10) {
            0..4 => (resume.map_or(1, |seq| seq + 1), around.plan.epoch),
            4 => (1, 0),
            5 => (
                around.dice.below(last as usize + 2) as u64 + 1,
                around.plan.epoch,
            ),
            6 => (last + around.dice.below(5) as u64 + 2, 0),
            7 => (1, around.plan.epoch ^ 2),
            _ => (0, 0),
        };
        let policy = match around.dice.below(16) {
            0..8 => Policy::Default,
            8..11 => Policy::Conflate,
            11..15 => Policy::Resume,
            _ => Policy::Disconnect,
        };
        let request_id = self.next_request();
        Frame::Subscribe(Subscribe {
            request_id,
            from_seq,
            epoch,
            policy,
            topic: &name,
        })
        .encode(out);
    }

    fn unsubscribe(&mut self, out: &mut Vec<u8>, around: &mut Around<'_>) {
        let request_id = self.next_request();
        let held = self
            .link
            .as_ref()
            .map_or(&[][..], |l| &l.sight.subscriptions);
        let topic_id = if held.is_empty() || around.dice.chance(15) {
            around.dice.below(12) as u32
        } else {
            held[around.dice.below(held.len())].topic_id
        };
        Frame::Unsubscribe(Unsubscribe {
            request_id,
            topic_id,
        })
        .encode(out);
    }

    fn publish(&mut self, out: &mut Vec<u8>, around: &mut Around<'_>) {
        let name = Self::topic(around);
        let request_id = self.next_request();
        let (code, payload) = payload(name.split('/').next().unwrap_or(""), around);
        let known = around
            .model
            .find(&name)
            .and_then(|t| around.model.topics[t].id);
        let topic_id = match known {
            Some(id) if around.dice.chance(60) => id,
            _ if around.dice.chance(2) => around.dice.below(1 << 20) as u32 + 1,
            _ => 0,
        };
        let topic = if topic_id == 0 { name.as_str() } else { "" };
        let quiet = around.dice.chance(40);
        Frame::Command(Command {
            request_id,
            topic_id,
            command: code,
            topic,
            payload: &payload,
            quiet,
        })
        .encode(out);
    }
}

/// A command for a topic of this kind, with content that no other command has.
fn payload(kind: &str, around: &mut Around<'_>) -> (u16, Vec<u8>) {
    let mark = around.dice.word();
    let mut body = mark.to_le_bytes().to_vec();
    let event_ns = if around.dice.chance(50) { 0 } else { mark >> 2 };
    let mut payload = Vec::new();
    if kind == TALLY {
        payload.push(around.dice.below(256) as u8);
        payload.extend_from_slice(&body);
        payload.resize(9 + around.dice.below(around.plan.body), 7);
        let code = if around.dice.chance(10) {
            TALLY_REFUSE
        } else {
            TALLY_ADD
        };
        return (code, payload);
    }
    let event_kind = match (kind, around.dice.below(20)) {
        (_, 0) => TALLY_KIND,
        ("market", 1..10) => {
            body.clear();
            let price = Micros((mark >> 8) as i64);
            let qty = Micros(around.dice.below(1_000_000) as i64 - 1_000);
            Trade {
                price,
                qty,
                ..Trade::default()
            }
            .encode(&mut body);
            2
        }
        ("market", _) => {
            body.clear();
            Quote {
                bid: Micros((mark >> 8) as i64),
                ..Quote::default()
            }
            .encode(&mut body);
            3
        }
        _ => {
            body.resize(8 + around.dice.below(around.plan.body), b'.');
            1
        }
    };
    Publish {
        kind: event_kind,
        event_ns,
        body: &body,
    }
    .encode(&mut payload);
    (PUBLISH, payload)
}

/// Makes the last frame, which begins at `start`, into something malformed.
fn spoil(bytes: &mut Vec<u8>, start: usize, dice: &mut Dice) {
    let len = bytes.len() - start;
    match dice.below(8) {
        0 => bytes.extend(
            (0..dice.between(1, 40))
                .map(|_| dice.word() as u8)
                .collect::<Vec<_>>(),
        ),
        1 if len > 0 => bytes.truncate(start + dice.below(len)),
        2 if len >= 8 => bytes[start + 4] = dice.word() as u8,
        3 if len >= 8 => {
            bytes[start..start + 4].copy_from_slice(&(dice.below(9_000) as u32).to_le_bytes())
        }
        4 => {
            // A message of a newer minor version, to be skipped.
            let extra = dice.below(20);
            bytes.extend_from_slice(&(8 + extra as u32).to_le_bytes());
            bytes.extend_from_slice(&[0x80 | dice.word() as u8, 0, 0, 0]);
            bytes.resize(bytes.len() + extra, 1);
        }
        5 => {
            let topic = format!("stream/{}", "n".repeat(300));
            let (request_id, quiet) = (dice.word(), dice.chance(50));
            if dice.chance(50) {
                Frame::Subscribe(Subscribe {
                    request_id,
                    from_seq: 0,
                    epoch: 0,
                    policy: Policy::Default,
                    topic: &topic,
                })
                .encode(bytes);
            } else {
                Frame::Command(Command {
                    request_id,
                    topic_id: 0,
                    command: 1,
                    topic: &topic,
                    payload: b"",
                    quiet,
                })
                .encode(bytes);
            }
        }
        _ if len > 0 => {
            let at = dice.below(len);
            // Request ids stay unique, so that each answer has one question.
            let is_hello = bytes.get(start + 4) == Some(&1);
            if is_hello || !(8..16).contains(&at) {
                bytes[start + at] ^= 1 << dice.below(8);
            }
        }
        _ => {}
    }
}

/// Frames as text, for people.
pub(crate) fn describe(bytes: &[u8]) -> String {
    let mut text = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match tickring_protocol::decode(&bytes[at..], usize::MAX) {
            Ok(tickring_protocol::Decoded::Frame { frame, len }) => {
                text.push(brief(&frame));
                at += len;
            }
            Ok(tickring_protocol::Decoded::Skipped { len }) => {
                text.push(format!("an optional frame of {len} bytes"));
                at += len;
            }
            other => {
                text.push(format!("{} bytes that give {other:?}", bytes.len() - at));
                break;
            }
        }
    }
    text.join("; ")
}

/// One frame without its content.
pub(crate) fn brief(frame: &Frame<'_>) -> String {
    match frame {
        Frame::Event(e) => format!("EVENT {} #{}", e.topic_id, e.seq),
        Frame::Snapshot(s) => format!("SNAPSHOT {} #{}", s.topic_id, s.seq),
        Frame::Command(c) => format!(
            "COMMAND {} to {:?}/{} code {} quiet {}",
            c.request_id, c.topic, c.topic_id, c.command, c.quiet
        ),
        Frame::Reply(r) => format!(
            "REPLY {} topic {} code {} seq {}",
            r.request_id, r.topic_id, r.code, r.seq
        ),
        other => format!("{other:?}"),
    }
}
