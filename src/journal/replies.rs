//! The window of answers: a command that comes again gets its first answer, or is refused; in either
//! case it changes nothing.

use std::collections::{HashMap, VecDeque};

use super::record::Reply;

/// The bounds of a [`ReplyWindow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyLimits {
    /// Answers kept for one session.
    pub per_session: usize,
    /// Bytes kept for all sessions: an answer counts its payload and [`ReplyWindow::OVERHEAD`], a
    /// session [`ReplyWindow::SESSION`].
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
    /// Nothing, and there is no room to remember one more session: refuse it, because it could be
    /// carried out twice.
    NoRoom,
}

/// The newest answers of the topics of one core, by session and request id. Filled by commands as
/// they are carried out, and by recovery from the journal's replies in their order.
///
/// The window of a session: its last `per_session` answers on this core, as far as they are
/// younger than `age_ns` and all sessions' answers fit `bytes`. What goes for want of room leaves a
/// **mark**, the highest request id that went; it stays until `age_ns` after the session's newest
/// answer, so that within that time no command is carried out twice. Marks are never given up for
/// room: when they alone have used `bytes` up, commands of further sessions are refused.
#[derive(Debug)]
pub struct ReplyWindow {
    limits: ReplyLimits,
    sessions: HashMap<u128, Session>,
    /// All answers in the order in which they came, and some that are gone.
    order: VecDeque<(u128, u64)>,
    /// Sessions that lost their last answer for want of room, and when they had their newest one,
    /// in that order; and some that have answers again.
    marked: VecDeque<(u64, u128)>,
    answers: usize,
    bytes: usize,
    /// A fault planted by the simulator: marks are not kept.
    forgets: bool,
}

/// A session's answers, or only its mark: small, because there may be very many of those.
#[derive(Debug, Default)]
struct Session {
    answers: Option<Box<Answers>>,
    /// The highest request id whose answer was dropped.
    forgotten: u64,
    /// When it had its newest answer.
    newest_ns: u64,
}

/// Never empty.
#[derive(Debug, Default)]
struct Answers {
    by_request: HashMap<u64, Remembered>,
    order: VecDeque<u64>,
}

impl Session {
    fn answer(&self, request_id: u64) -> Option<&Remembered> {
        self.answers.as_ref()?.by_request.get(&request_id)
    }
}

impl ReplyWindow {
    /// Bytes that an answer counts beside its payload.
    pub const OVERHEAD: usize = 128;
    /// Bytes that a session counts, with its mark.
    pub const SESSION: usize = 128;

    /// An empty window.
    #[must_use]
    pub fn new(limits: ReplyLimits) -> Self {
        Self {
            limits,
            sessions: HashMap::new(),
            order: VecDeque::new(),
            marked: VecDeque::new(),
            answers: 0,
            bytes: 0,
            forgets: false,
        }
    }

    /// Plants a fault: a session is forgotten with its last answer.
    #[doc(hidden)]
    pub fn forget_sessions(&mut self) {
        self.forgets = true;
    }

    /// Keeps an answer, and drops those that the bounds no longer allow. An answer to a command
    /// that has one already is left out. Request id 0 asks for no answer and is not kept.
    pub fn keep(&mut self, reply: &Reply<'_>) {
        let (id, request_id) = (reply.session, reply.request_id);
        if request_id == 0 {
            return;
        }
        let session = self.open(id, reply.node_ns);
        if session.answer(request_id).is_some() {
            return;
        }
        let remembered = Remembered {
            code: reply.code,
            seq: reply.seq,
            payload: reply.payload.into(),
            node_ns: reply.node_ns,
        };
        let answers = session.answers.get_or_insert_default();
        answers.by_request.insert(request_id, remembered);
        answers.order.push_back(request_id);
        let oldest = answers.order.front().copied();
        let over = answers.by_request.len() > self.limits.per_session;
        self.bytes += reply.payload.len() + Self::OVERHEAD;
        self.answers += 1;
        self.order.push_back((id, request_id));
        if let Some(oldest) = oldest.filter(|_| over) {
            self.drop_answer(id, oldest);
        }
        self.expire(reply.node_ns);
    }

    /// Takes a session's mark over from an earlier run: its answers up to `request_id` are gone, and
    /// the newest of them came at `node_ns`. To be called before [`ReplyWindow::keep`], in the order
    /// of those times.
    pub fn mark(&mut self, session: u128, request_id: u64, node_ns: u64) {
        let known = self.open(session, node_ns);
        known.forgotten = known.forgotten.max(request_id);
        self.marked.push_back((node_ns, session));
    }

    /// The session, made now if need be.
    fn open(&mut self, id: u128, now_ns: u64) -> &mut Session {
        let bytes = &mut self.bytes;
        let session = self.sessions.entry(id).or_insert_with(|| {
            *bytes += Self::SESSION;
            Session::default()
        });
        session.newest_ns = session.newest_ns.max(now_ns);
        session
    }

    /// What is known of a command.
    #[must_use]
    pub fn find(&self, session: u128, request_id: u64) -> Seen<'_> {
        if request_id == 0 {
            return Seen::Never;
        }
        match self.sessions.get(&session) {
            Some(known) => match known.answer(request_id) {
                Some(answer) => Seen::Answered(answer),
                None if request_id <= known.forgotten => Seen::Forgotten,
                None => Seen::Never,
            },
            None if self.is_crowded() => Seen::NoRoom,
            None => Seen::Never,
        }
    }

    /// Drops what is too old at `now_ns` if it takes the room of further sessions. To be called
    /// before [`ReplyWindow::find`]; costs next to nothing otherwise.
    pub fn make_room(&mut self, now_ns: u64) {
        if self.is_crowded() {
            self.expire(now_ns);
        }
    }

    /// Whether one more session would have no room for its mark.
    fn is_crowded(&self) -> bool {
        (self.sessions.len() + 1) * Self::SESSION > self.limits.bytes
    }

    /// Drops what is too old at `now_ns`, and the oldest answers beyond the bound of bytes.
    pub fn expire(&mut self, now_ns: u64) {
        let too_old = now_ns.saturating_sub(self.limits.age_ns);
        while let Some(&(id, request_id)) = self.order.front() {
            let session = self.sessions.get(&id);
            match session.and_then(|session| session.answer(request_id)) {
                Some(answer) if answer.node_ns >= too_old && self.bytes <= self.limits.bytes => {
                    break;
                }
                Some(_) => self.drop_answer(id, request_id),
                None => {}
            }
            self.order.pop_front();
        }
        while let Some(&(newest_ns, id)) = self.marked.front()
            && newest_ns < too_old
        {
            self.marked.pop_front();
            let session = self.sessions.get(&id);
            if session.is_some_and(|it| it.answers.is_none() && it.newest_ns == newest_ns) {
                self.drop_session(id);
            }
        }
        self.tidy();
    }

    /// Takes out of the queues what is gone, when that is more than what is there.
    fn tidy(&mut self) {
        const SOME: usize = 1_024;
        let sessions = &self.sessions;
        if self.order.len() > 2 * self.answers + SOME {
            self.order.retain(|(id, request_id)| {
                let session = sessions.get(id);
                session.is_some_and(|session| session.answer(*request_id).is_some())
            });
        }
        if self.marked.len() > 2 * sessions.len() + SOME {
            self.marked.retain(|(newest_ns, id)| {
                let session = sessions.get(id);
                session.is_some_and(|it| it.answers.is_none() && it.newest_ns == *newest_ns)
            });
        }
    }

    /// Drops a session's oldest answers up to this one. With the last of them only its mark is left.
    fn drop_answer(&mut self, id: u128, request_id: u64) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let Some(answers) = &mut session.answers else {
            return;
        };
        while let Some(oldest) = answers.order.pop_front() {
            if let Some(answer) = answers.by_request.remove(&oldest) {
                self.bytes -= answer.payload.len() + Self::OVERHEAD;
                self.answers -= 1;
                session.forgotten = session.forgotten.max(oldest);
            }
            if oldest == request_id {
                break;
            }
        }
        if answers.by_request.is_empty() {
            session.answers = None;
            self.marked.push_back((session.newest_ns, id));
            if self.forgets {
                self.drop_session(id);
            }
        }
    }

    fn drop_session(&mut self, id: u128) {
        if self.sessions.remove(&id).is_some() {
            self.bytes -= Self::SESSION;
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

    /// Sessions that it has answers of, or marks.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Bytes that count against the bound.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
