//! The frames that a client writes, well formed or spoiled.

use tickring_protocol::{
    Command, Cursor, Frame, Goodbye, Hello, History, Micros, PUBLISH, Ping, Policy, Publish, Quote,
    Series, Subscribe, Trade, Unsubscribe,
};

use super::again::Sent;
use super::{Around, Client};
use crate::dice::Dice;
use crate::model::{LEDGER, TALLY, TALLY_ADD, TALLY_KIND, TALLY_REFUSE, TAPE};

impl Client {
    /// Upwards, and no two clients have the same: two may come to have the same session.
    fn next_request(&mut self) -> u64 {
        self.requests += 16;
        self.requests
    }

    /// Appends one frame.
    pub(super) fn compose(&mut self, out: &mut Vec<u8>, around: &mut Around<'_>) {
        let Some(link) = self.link.as_ref() else {
            return;
        };
        let rude = self.unkind && around.dice.chance(5);
        if !link.shadow.negotiated && !rude {
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
        let session = if around.dice.chance(75) {
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
            80..91 => Frame::Ping(Ping {
                token: around.dice.word(),
            })
            .encode(out),
            91..96 => self.history(out, around),
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
        // What it knows of an earlier run is taken up even if the topic is not there yet.
        let known = around.model.by_name.get(&*name);
        let resume = known.and_then(|t| self.resume.get(t).copied());
        let epoch = topic.map_or(around.model.epoch, |t| around.model.topics[t].epoch);
        let (from_seq, epoch) = match around.dice.below(10) {
            0..4 => resume.map_or((1, epoch), |known| (known.seq + 1, known.epoch)),
            4 => (1, 0),
            5 => (around.dice.below(last as usize + 2) as u64 + 1, epoch),
            6 => (last + around.dice.below(5) as u64 + 2, 0),
            7 => (1, epoch ^ 2),
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

    fn history(&mut self, out: &mut Vec<u8>, around: &mut Around<'_>) {
        let topic = Self::topic(around);
        let series = [Series::Ticks, Series::Second, Series::Day];
        Frame::History(History {
            request_id: self.next_request(),
            series: around.dice.pick(&series),
            newest_first: around.dice.chance(50),
            limit: around.dice.pick(&[0, 1, 7, u32::MAX]),
            from_ns: around.dice.word(),
            to_ns: around.dice.word(),
            cursor: Cursor::START,
            topic: &topic,
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
        if !quiet {
            self.again.composed(Sent {
                request_id,
                code,
                name: name.clone(),
                payload: payload.clone(),
            });
        }
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
    if [TALLY, TAPE, LEDGER].contains(&kind) {
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
pub(super) fn spoil(bytes: &mut Vec<u8>, start: usize, dice: &mut Dice) {
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
