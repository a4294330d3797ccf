//! A client: what it does, unkind or not. What it sees is judged in [`crate::judge`].

mod again;
mod compose;

use std::collections::{BTreeMap, VecDeque};

use tickring_protocol::{Frame, Ping};

use crate::coverage::Coverage;
use crate::dice::Dice;
use crate::judge::Sight;
use crate::model::Model;
use crate::plan::Plan;
use crate::shadow::Shadow;
use crate::socket::{End, Socket};
use crate::trace::{Trace, describe};
use again::Again;
use compose::spoil;

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

/// How far an earlier subscription was brought.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resume {
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
    /// In which run of the node.
    pub(crate) run: usize,
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
    /// Earlier subscriptions, by topic.
    pub(crate) resume: BTreeMap<usize, Resume>,
    /// Commands that it may send again.
    again: Again,
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
    /// Whether a lane of the journal has failed.
    pub(crate) failed: bool,
}

impl Client {
    pub(crate) fn new(index: usize, plan: &Plan, dice: &mut Dice) -> Self {
        Self {
            index,
            link: None,
            connects_left: dice.between(1, 6) * plan.lives,
            stalls: dice.chance(if plan.flood { 50 } else { 30 }),
            silent: dice.chance(8),
            publishes: if plan.flood {
                dice.pick(&[35, 90])
            } else {
                dice.pick(&[10, 35, 70])
            },
            unkind: dice.chance(if plan.flood { 10 } else { 40 }),
            session: 0,
            requests: index as u64,
            resume: BTreeMap::new(),
            again: Again::default(),
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
        self.send_again(&mut bytes, around);
        for _ in 0..around.dice.between(1, around.plan.pipeline) {
            let start = bytes.len();
            self.compose(&mut bytes, around);
            if around.dice.below(100) < around.plan.garbage {
                spoil(&mut bytes, start, around.dice);
                self.again.drop_newest();
            }
            self.keep_newest(around.model);
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
                let known = Resume {
                    epoch: sub.epoch,
                    seq: sub.next_seq - 1,
                    run: around.model.run,
                };
                self.resume.insert(sub.topic, known);
            }
            self.again.disconnected(&link, self.session);
            if link.sight.session != 0 {
                self.session = link.sight.session;
            }
            self.history.push(link.shadow.commands);
        }
    }

    /// The node is gone. What it had sent may still be read, or not.
    pub(crate) fn lose_node(&mut self, around: &mut Around<'_>) -> Result<(), String> {
        if let Some(link) = self.link.as_mut() {
            link.reading = Reading::All;
            around.sockets[link.socket].failed = true;
            if around.dice.chance(70) {
                while self.read(around)? {}
            }
        }
        self.forget(around);
        self.history.clear();
        Ok(())
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
}
