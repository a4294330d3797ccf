//! Publishers: they send again what was not answered, in a session that outlives the server.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tickring_protocol::{
    Command, ErrorCode, EventKind, Frame, Micros, PUBLISH, Publish, Quote, Side, Trade,
};

use super::wire::{Gone, Wire};
use super::{DURABLE, VOLATILE};

/// Commands that a publisher has under way.
const WINDOW: usize = 24;
/// How far ids run ahead of the oldest that is not answered: the server remembers 1,024 answers.
const AHEAD: u64 = 400;
/// A command that was answered long ago is sent again once in so many.
const REPEAT: u64 = 16;
/// New commands of each publisher in the life that ends in order.
const LAST: u64 = 300;
/// The market's first event time: close to midnight, so that two days have candles.
const BEGIN_NS: u64 = 1_700_000_000_000_000_000;

pub(crate) struct Request {
    pub(crate) topic: &'static str,
    pub(crate) kind: u16,
    pub(crate) event_ns: u64,
    pub(crate) body: Vec<u8>,
    /// Of the reply; `None`: not answered yet.
    pub(crate) seq: Option<u64>,
    /// When it was first sent again because no answer had come; 0: never.
    pub(crate) retried_ns: u64,
}

/// Sends commands with request ids in one session, and again what was not answered.
pub(crate) struct Publisher {
    number: u64,
    pub(crate) durable: bool,
    pub(crate) session: u128,
    /// By request id.
    pub(crate) requests: BTreeMap<u64, Request>,
    /// The first id of those that were sent and answered in the life that ended in order.
    pub(crate) last_life: u64,
    next_id: u64,
    /// Answered requests that were sent again, and got the same answer.
    pub(crate) repeated: usize,
    random: fastrand::Rng,
}

impl Publisher {
    pub(crate) fn new(number: u64, durable: bool, seed: u64) -> Self {
        Self {
            number,
            durable,
            session: 0,
            requests: BTreeMap::new(),
            last_life: u64::MAX,
            next_id: 1,
            repeated: 0,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    pub(crate) fn answered(&self) -> usize {
        let answered = |request: &&Request| request.seq.is_some();
        self.requests.values().filter(answered).count()
    }

    /// Goes on for as long as the server lives. `killed` is set before it is killed.
    pub(crate) fn run(&mut self, address: &str, killed: &AtomicBool) {
        let gone = self.go(address, u64::MAX);
        assert!(gone.is_err(), "there is always more to send");
        assert!(
            killed.load(Ordering::Acquire),
            "the server closed a connection, or was silent, before it was killed"
        );
    }

    /// Sends again what is open and some more, and waits until all of it is answered.
    pub(crate) fn finish(&mut self, address: &str) {
        self.last_life = self.next_id;
        self.go(address, self.next_id + LAST).unwrap();
    }

    fn go(&mut self, address: &str, end: u64) -> Result<(), Gone> {
        let (mut wire, token) = Wire::open(address, self.session)?;
        self.session = token;
        let mut waiting = self.open();
        let mut under_way: Vec<u64> = Vec::new();
        let mut oldest_open = self.next_id;
        loop {
            while under_way.len() < WINDOW {
                let id = match waiting.pop_front() {
                    Some(id) => id,
                    None if self.next_id < end && self.next_id < oldest_open + AHEAD => {
                        self.choose()
                    }
                    None => break,
                };
                self.send(&mut wire, id)?;
                under_way.push(id);
            }
            if under_way.is_empty() {
                return wire.expect_quiet();
            }
            if let Some(again) = self.reply(&mut wire, &mut under_way)? {
                std::thread::sleep(Duration::from_millis(1));
                waiting.push_back(again);
            }
            let open = under_way.iter().chain(&waiting).min();
            oldest_open = open.copied().unwrap_or(self.next_id);
        }
    }

    /// What was not answered, which is now about to be sent again.
    fn open(&mut self) -> VecDeque<u64> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let mut open = VecDeque::new();
        let oldest = self.next_id.saturating_sub(2 * AHEAD);
        for (id, request) in self.requests.range_mut(oldest..) {
            if request.seq.is_none() {
                if request.retried_ns == 0 {
                    request.retried_ns = now.as_nanos() as u64;
                }
                open.push_back(*id);
            }
        }
        open
    }

    /// A new command, or now and then one that was answered.
    fn choose(&mut self) -> u64 {
        if self.durable && self.next_id > 200 && self.random.u64(0..REPEAT) == 0 {
            let id = self.next_id - self.random.u64(100..200);
            if self.requests[&id].seq.is_some() {
                return id;
            }
        }
        let id = self.next_id;
        self.next_id += 1;
        let topics = if self.durable { DURABLE } else { VOLATILE };
        let mut body = Vec::new();
        let kind = if self.durable {
            body = format!("{} {id} {}", self.number, self.random.u64(..)).into_bytes();
            EventKind::Message
        } else {
            self.tick(&mut body)
        };
        // Within two hours, not in order: late trades change candles that are there. Often the same.
        let seconds = self.random.u64(0..7_200);
        let within = [0, 1, 999_999_999][self.random.usize(0..3)];
        let request = Request {
            topic: topics[self.random.usize(0..topics.len())],
            kind: kind as u16,
            event_ns: BEGIN_NS + seconds * 1_000_000_000 + within,
            body,
            seq: None,
            retried_ns: 0,
        };
        self.requests.insert(id, request);
        id
    }

    fn tick(&mut self, body: &mut Vec<u8>) -> EventKind {
        let random = &mut self.random;
        let mut price = || Micros(random.i64(-1_000_000..1_000_000_000));
        let (bid, ask) = (price(), price());
        let mut qty = || Micros(random.i64(0..1_000_000));
        let (bid_qty, ask_qty) = (qty(), qty());
        let (price_decimals, qty_decimals) = (random.u8(0..=6), random.u8(0..=6));
        if random.bool() {
            let quote = Quote {
                bid,
                bid_qty,
                ask,
                ask_qty,
                price_decimals,
                qty_decimals,
            };
            quote.encode(body);
            return EventKind::Quote;
        }
        let trade = Trade {
            price: bid,
            qty: bid_qty,
            side: [Side::Unknown, Side::Buy, Side::Sell][random.usize(0..3)],
            price_decimals,
            qty_decimals,
        };
        trade.encode(body);
        EventKind::Trade
    }

    fn send(&self, wire: &mut Wire, id: u64) -> Result<(), Gone> {
        let request = &self.requests[&id];
        let mut payload = Vec::new();
        Publish {
            kind: request.kind,
            event_ns: request.event_ns,
            body: &request.body,
        }
        .encode(&mut payload);
        wire.send(&Frame::Command(Command {
            request_id: id,
            topic_id: 0,
            command: PUBLISH,
            topic: request.topic,
            payload: &payload,
            quiet: false,
        }))
    }

    /// Takes one reply; gives a request that the server was too busy for.
    fn reply(&mut self, wire: &mut Wire, under_way: &mut Vec<u64>) -> Result<Option<u64>, Gone> {
        let (id, code, seq, text) = wire.next(|frame| match frame {
            Frame::Reply(reply) => {
                let text = String::from_utf8_lossy(reply.payload).into_owned();
                (reply.request_id, reply.code, reply.seq, text)
            }
            other => panic!("{other:?} instead of REPLY"),
        })?;
        let number = self.number;
        let at = under_way.iter().position(|sent| *sent == id);
        let at = at.unwrap_or_else(|| panic!("publisher {number}: a second answer to {id}"));
        under_way.swap_remove(at);
        if code == ErrorCode::Overloaded as u16 {
            return Ok(Some(id));
        }
        assert_eq!(code, 0, "publisher {number}, request {id}: {text}");
        let request = self.requests.get_mut(&id).expect("it is under way");
        if let Some(first) = request.seq.replace(seq) {
            assert_eq!(seq, first, "publisher {number}: the first answer to {id}");
            self.repeated += 1;
        }
        Ok(None)
    }
}
