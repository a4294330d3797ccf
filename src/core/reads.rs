//! HISTORY: reads of the database are handed out and come back later, off the loop.
//!
//! ```text
//!   HISTORY ──(bounds)──▶ waiting ──take_read──▶ the driver's readers ──on_read──▶ HISTORY_PAGE or ERROR
//!      └──▶ ERROR overloaded, no_database, bad_name
//! ```
//! A page keeps no place among other answers: it comes when it has been read, and goes nowhere if
//! its connection is no longer active by then. So a read holds up nothing, neither its connection
//! nor the end of the node.
//!
//! Bounds: [`Limits::max_reads`](super::Limits::max_reads) of the core and
//! [`Limits::max_connection_reads`](super::Limits::max_connection_reads) of a connection are counted
//! from HISTORY to its answer, and one more is refused with `overloaded`. A page has at most a
//! quarter of `outbox_bytes`, and no read is taken in while the outbox is over its budget, so what
//! one connection can make wait is bounded too.

use std::collections::VecDeque;

use tickring_protocol::{
    Cursor, ErrorCode, ErrorFrame, Frame, FrameType, History, Series, TopicName,
};

use super::Core;
use super::mail::ConnectionRef;
use super::state::State;

/// When a read that was refused for a bound may be tried again.
const RETRY_MS: u32 = 100;
/// Bytes of HISTORY_PAGE before its rows.
const PAGE_HEAD: usize = 40;

/// Reads of the core.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Those that the driver has not taken.
    waiting: VecDeque<Read>,
    /// All that are not answered.
    open: usize,
}

/// A page that a client asked for: what [`Core::take_read`] hands out, and wants back as a
/// [`ReadDone`].
#[derive(Debug)]
pub struct Read {
    to: ConnectionRef,
    request_id: u64,
    series: Series,
    newest_first: bool,
    rows: u32,
    from_ns: u64,
    to_ns: u64,
    cursor: Cursor,
    topic: Box<str>,
}

/// How a read ended.
#[derive(Debug)]
pub struct ReadDone {
    to: ConnectionRef,
    request_id: u64,
    outcome: Result<Vec<u8>, ReadRefusal>,
}

/// Why there is no page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRefusal {
    /// As ERROR says it.
    pub code: ErrorCode,
    /// When to try again, in milliseconds; 0: not before something changes.
    pub retry_after_ms: u32,
    /// For people.
    pub text: String,
}

impl Read {
    /// The slot of the connection that asks.
    pub fn slot(&self) -> u32 {
        self.to.slot
    }

    /// What is asked; its `limit` is never 0 and never more than fits a page.
    pub fn history(&self) -> History<'_> {
        History {
            request_id: self.request_id,
            series: self.series,
            newest_first: self.newest_first,
            limit: self.rows,
            from_ns: self.from_ns,
            to_ns: self.to_ns,
            cursor: self.cursor,
            topic: &self.topic,
        }
    }

    /// The read is over: `outcome` is the frame HISTORY_PAGE, or why there is none.
    pub fn done(self, outcome: Result<Vec<u8>, ReadRefusal>) -> ReadDone {
        ReadDone {
            to: self.to,
            request_id: self.request_id,
            outcome,
        }
    }
}

impl Core {
    pub(super) fn on_history(&mut self, slot: u32, history: &History<'_>) {
        let refused = |code, retry_after_ms, text: &str| ReadRefusal {
            code,
            retry_after_ms,
            text: text.to_owned(),
        };
        let limits = &self.limits;
        let (most, most_of_one) = (limits.max_reads, limits.max_connection_reads);
        let reading = self.connection(slot).reading as usize;
        let refusal = if let Err(error) = TopicName::new(history.topic) {
            refused(error.code(), 0, &error.to_string())
        } else if !self.has_database {
            let text = "the server keeps no database to read from";
            refused(ErrorCode::NoDatabase, 0, text)
        } else if reading >= most_of_one {
            let text = "the connection has as many reads open as max_connection_reads allows";
            refused(ErrorCode::Overloaded, RETRY_MS, text)
        } else if self.reads.open >= most {
            let text = "too many reads are waiting";
            refused(ErrorCode::Overloaded, RETRY_MS, text)
        } else {
            return self.open_read(slot, history);
        };
        self.refuse_read(slot, history.request_id, &refusal);
    }

    fn open_read(&mut self, slot: u32, history: &History<'_>) {
        let limits = &self.limits;
        let page = limits.max_frame_bytes.min(limits.outbox_bytes / 4);
        let fitting = (page.saturating_sub(PAGE_HEAD) / history.series.row_len()).max(1) as u32;
        let rows = match history.limit {
            0 => fitting,
            limit => limit.min(fitting),
        };
        let connection = self.connection(slot);
        connection.reading += 1;
        let to = ConnectionRef {
            slot,
            number: connection.number,
        };
        self.reads.open += 1;
        self.reads.waiting.push_back(Read {
            to,
            request_id: history.request_id,
            series: history.series,
            newest_first: history.newest_first,
            rows,
            from_ns: history.from_ns,
            to_ns: history.to_ns,
            cursor: history.cursor,
            topic: history.topic.into(),
        });
    }

    /// The next read to be done off the loop, if there is one. Each must come back to
    /// [`Core::on_read`], within a bounded time.
    pub fn take_read(&mut self) -> Option<Read> {
        self.reads.waiting.pop_front()
    }

    /// A read is over. To be called within a turn.
    pub fn on_read(&mut self, done: ReadDone) {
        self.reads.open -= 1;
        let Some(slot) = self.find(done.to) else {
            return;
        };
        let connection = self.connection(slot);
        connection.reading -= 1;
        if connection.state != State::Active {
            return; // what follows GOODBYE was not promised
        }
        match done.outcome {
            Ok(page) => self.send_frames(slot, &page),
            Err(refusal) => self.refuse_read(slot, done.request_id, &refusal),
        }
    }

    fn refuse_read(&mut self, slot: u32, request_id: u64, refusal: &ReadRefusal) {
        let error = ErrorFrame {
            code: refusal.code as u16,
            frame_type: FrameType::History as u8,
            fatal: false,
            retry_after_ms: refusal.retry_after_ms,
            request_id,
            text: &refusal.text,
        };
        self.send(slot, &Frame::Error(error), refusal.text.len());
    }
}
