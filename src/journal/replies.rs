//! The window of answers: a command that comes again gets its first answer and changes nothing.

use std::collections::{HashMap, VecDeque};

use super::record::Reply;

/// The bounds of a [`ReplyWindow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyLimits {
    /// Answers kept for one session.
    pub per_session: usize,
    /// Bytes kept for all sessions; an answer counts its payload and [`ReplyWindow::OVERHEAD`].
    pub bytes: usize,
    /// How long an answer is kept, in nanoseconds. What is older may go, so it must exceed the time
    /// for which a client tries to resume its session.
    pub age_ns: u64,
}

impl Default for ReplyLimits {
    fn default() -> Self {
        Self {
            per_session: 1_024,
            bytes: 64 << 20,
            age_ns: 10 * 60 * 1_000_000_000,
        }
    }
}

/// An answer as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Result, as in the protocol.
    pub code: u16,
    /// The topic's newest seq when the command was done.
    pub seq: u64,
    /// The machine's answer.
    pub payload: Box<[u8]>,
    node_ns: u64,
}

/// What is known of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen<'a> {
    /// Nothing: carry it out.
    Never,
    /// It was carried out, and this was the answer.
    Answered(&'a Remembered),
    /// It is not newer than one whose answer was dropped: refuse it, because it may have been
    /// carried out. A session numbers its commands upwards, so no new command is refused.
    Forgotten,
}

/// The newest answers of the topics of one core, by session and request id. Filled by commands as
/// they are carried out, and by recovery from the journal's replies in their order.
///
/// The window of a session: its last `per_session` answers on this core, as far as they are
/// younger than `age_ns` and all sessions' answers fit `bytes`.
#[derive(Debug)]
pub struct ReplyWindow {
    limits: ReplyLimits,
    sessions: HashMap<u128, Session>,
    /// All answers in the order in which they came, and some that are gone.
    order: VecDeque<(u128, u64)>,
    answers: usize,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Session {
    answers: HashMap<u64, Remembered>,
    order: VecDeque<u64>,
    /// The highest request id whose answer was dropped.
    forgotten: u64,
}

impl ReplyWindow {
    /// Bytes that an answer counts beside its payload.
    pub const OVERHEAD: usize = 128;

    /// An empty window.
    #[must_use]
    pub fn new(limits: ReplyLimits) -> Self {
        Self {
            limits,
            sessions: HashMap::new(),
            order: VecDeque::new(),
            answers: 0,
            bytes: 0,
        }
    }

    /// Keeps an answer, and drops those that the bounds no longer allow. An answer to a command
    /// that has one already is left out. Request id 0 asks for no answer and is not kept.
    pub fn keep(&mut self, reply: &Reply<'_>) {
        let (id, request_id) = (reply.session, reply.request_id);
        let session = self.sessions.entry(id).or_default();
        if request_id == 0 || session.answers.contains_key(&request_id) {
            return;
        }
        let remembered = Remembered {
            code: reply.code,
            seq: reply.seq,
            payload: reply.payload.into(),
            node_ns: reply.node_ns,
        };
        session.answers.insert(request_id, remembered);
        session.order.push_back(request_id);
        let over = session.answers.len() > self.limits.per_session;
        let oldest = session.order.front().copied().filter(|_| over);
        self.bytes += reply.payload.len() + Self::OVERHEAD;
        self.answers += 1;
        self.order.push_back((id, request_id));
        if let Some(oldest) = oldest {
            self.drop_answer(id, oldest);
        }
        self.expire(reply.node_ns);
    }

    /// What is known of a command.
    #[must_use]
    pub fn find(&self, session: u128, request_id: u64) -> Seen<'_> {
        match self.sessions.get(&session) {
            Some(known) => match known.answers.get(&request_id) {
                Some(answer) => Seen::Answered(answer),
                None if request_id != 0 && request_id <= known.forgotten => Seen::Forgotten,
                None => Seen::Never,
            },
            None => Seen::Never,
        }
    }

    /// Drops what is too old at `now_ns`, and the oldest beyond the bound of bytes.
    pub fn expire(&mut self, now_ns: u64) {
        let too_old = now_ns.saturating_sub(self.limits.age_ns);
        while let Some(&(id, request_id)) = self.order.front() {
            let session = self.sessions.get(&id);
            match session.and_then(|session| session.answers.get(&request_id)) {
                Some(answer) if answer.node_ns >= too_old && self.bytes <= self.limits.bytes => {
                    break;
                }
                Some(_) => self.drop_answer(id, request_id),
                None => {}
            }
            self.order.pop_front();
        }
        if self.order.len() > 2 * self.answers + 1_024 {
            let sessions = &self.sessions;
            self.order.retain(|(id, request)| {
                sessions
                    .get(id)
                    .is_some_and(|s| s.answers.contains_key(request))
            });
        }
    }

    /// Drops a session's oldest answers up to this one. A session without any is dropped as a
    /// whole, with what it has forgotten: its window is over.
    fn drop_answer(&mut self, id: u128, request_id: u64) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        while let Some(oldest) = session.order.pop_front() {
            if let Some(answer) = session.answers.remove(&oldest) {
                self.bytes -= answer.payload.len() + Self::OVERHEAD;
                self.answers -= 1;
                session.forgotten = session.forgotten.max(oldest);
            }
            if oldest == request_id {
                break;
            }
        }
        if session.answers.is_empty() {
            self.sessions.remove(&id);
        }
    }

    /// Answers in the window.
    #[must_use]
    pub fn len(&self) -> usize {
        self.answers
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.answers == 0
    }

    /// Bytes that count against the bound.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
