//! Bytes in: framing, and what each frame asks for.

use tickring_protocol::{
    Command, DecodeError, Decoded, ErrorCode, ErrorFrame, Frame, FrameType, Hello, Pong, Subscribe,
    Subscribed, Unsubscribe, VERSION_MAJOR, VERSION_MINOR, Welcome, decode,
};

use super::connection::{Farewell, Parked, Receiving};
use super::mail::{Ask, ConnectionRef, ReplyHead, Request, Want, store};
use super::owner::{JOURNAL_IS_BEHIND, Sender};
use super::state::{Event, State};
use super::{Core, ReceiveEnd};

/// Answers of other cores that a connection may wait for before its input waits too.
const MOST_AWAITED: u32 = 1024;
/// Bytes beyond its budget that an outbox may hold in answers before its input waits.
const ANSWER_ROOM: usize = 16 << 10;

/// Whether a frame was dealt with.
enum Flow {
    Done,
    /// It waits for room in a mailbox.
    Blocked,
    /// It waits for the answer to a frame before it.
    Early,
}

impl Core {
    /// Bytes came from the connection.
    pub fn on_received(&mut self, slot: u32, bytes: &[u8]) {
        let now = self.now.mono_ns;
        let Some(connection) = self.connections[slot as usize].as_deref_mut() else {
            return;
        };
        connection.last_heard = now;
        self.tally.counts.received_bytes += bytes.len() as u64;
        if !connection.reads() {
            return;
        }
        if connection.parked == Parked::No && connection.inbox.is_empty() {
            let used = self.process(slot, bytes);
            let connection = self.connection(slot);
            if connection.reads() {
                connection.inbox.extend_from_slice(&bytes[used..]);
            }
        } else {
            connection.inbox.extend_from_slice(bytes);
            if connection.parked == Parked::No {
                self.process_inbox(slot);
            }
        }
        let limit = self.limits.inbox_bytes;
        let connection = self.connection(slot);
        if connection.parked != Parked::No && connection.inbox.len() > limit {
            self.stop_receive(slot);
        }
    }

    /// Reading from the connection ended.
    pub fn on_receive_ended(&mut self, slot: u32, end: ReceiveEnd) {
        let Some(connection) = self.connections[slot as usize].as_deref_mut() else {
            return;
        };
        let before = std::mem::replace(&mut connection.receiving, Receiving::Off);
        match end {
            ReceiveEnd::Stopped => {
                if before == (Receiving::Stopping { resume: true }) {
                    self.start_receive(slot);
                }
            }
            ReceiveEnd::EndOfStream => {
                connection.end_of_stream = true;
                if connection.parked == Parked::No {
                    self.end_of_stream(slot);
                }
            }
            ReceiveEnd::Failed(_) => {
                self.fire(
                    slot,
                    Event::SocketError,
                    Farewell::goodbye(ErrorCode::Ok, ""),
                );
            }
        }
    }

    fn end_of_stream(&mut self, slot: u32) {
        if self.connection(slot).inbox.is_empty() {
            let farewell = Farewell::goodbye(ErrorCode::Ok, "");
            self.fire(slot, Event::EndOfStream, farewell);
        } else {
            let text = "the stream ended inside a frame";
            self.fire(
                slot,
                Event::Violation,
                Farewell::error(ErrorCode::Truncated, text),
            );
        }
    }

    /// Goes on with the input of a connection that was parked for `reason`.
    pub(super) fn unpark(&mut self, slot: u32, reason: Parked) {
        let Some(connection) = self.connections[slot as usize].as_deref_mut() else {
            return;
        };
        if connection.parked != reason {
            return;
        }
        connection.parked = Parked::No;
        self.process_inbox(slot);
        let connection = self.connection(slot);
        if connection.parked == Parked::No {
            if connection.end_of_stream && connection.reads() {
                self.end_of_stream(slot);
            } else {
                self.start_receive(slot);
            }
        }
    }

    fn process_inbox(&mut self, slot: u32) {
        let mut inbox = std::mem::take(&mut self.connection(slot).inbox);
        let used = self.process(slot, &inbox);
        let connection = self.connection(slot);
        if connection.reads() && used < inbox.len() {
            inbox.drain(..used);
            connection.inbox = inbox;
        }
    }

    /// Acts on the whole frames of `bytes`; returns how many bytes are done with.
    fn process(&mut self, slot: u32, bytes: &[u8]) -> usize {
        let mut used = 0;
        loop {
            if used == bytes.len() || !self.connection(slot).reads() {
                return bytes.len();
            }
            let reason = self.must_wait(slot);
            let refuses = reason == Some(Parked::Mail) && self.is_out_of_patience(slot);
            if let Some(reason) = reason.filter(|_| !refuses) {
                self.park(slot, reason);
                return used;
            }
            match decode(&bytes[used..], self.limits.max_frame_bytes) {
                Ok(Decoded::NeedMore { .. }) => {
                    self.fire(slot, Event::Bytes, Farewell::goodbye(ErrorCode::Ok, ""));
                    return used;
                }
                Ok(Decoded::Skipped { len }) => used += len,
                Ok(Decoded::Frame { frame, len }) => {
                    match self.on_frame_if(slot, &frame, refuses) {
                        Flow::Done => used += len,
                        Flow::Blocked => {
                            self.park(slot, Parked::Mail);
                            return used;
                        }
                        Flow::Early => {
                            self.park(slot, Parked::Own);
                            return used;
                        }
                    }
                }
                Err(error) => match self.on_malformed(slot, error) {
                    Some(len) => used += len,
                    None => return bytes.len(),
                },
            }
        }
    }

    fn must_wait(&mut self, slot: u32) -> Option<Parked> {
        let most = self.limits.outbox_bytes + ANSWER_ROOM;
        let connection = self.connection(slot);
        // First of all: a refusal for want of room elsewhere needs room here, too.
        if connection.outbox.bytes() > most || connection.awaiting >= MOST_AWAITED {
            return Some(Parked::Own);
        }
        (self.quiescing || !self.takes_commands()).then_some(Parked::Mail)
    }

    fn park(&mut self, slot: u32, reason: Parked) {
        let now = self.now.mono_ns.max(1);
        let connection = self.connection(slot);
        connection.parked = reason;
        if reason == Parked::Mail {
            if connection.blocked_since == 0 {
                connection.blocked_since = now;
            }
            self.parked.push_back(slot);
        }
    }

    /// Whether the connection's next command has waited for room in a mailbox as long as one may.
    pub(super) fn is_out_of_patience(&self, slot: u32) -> bool {
        let Some(connection) = self.connections[slot as usize].as_deref() else {
            return false;
        };
        let patience = self.limits.overload_patience.as_nanos() as u64;
        let since = connection.blocked_since;
        !self.quiescing && since != 0 && self.now.mono_ns.saturating_sub(since) >= patience
    }

    /// Acts on a frame, unless there has been no room for it for too long (`refuses`, or the frame
    /// itself finds none): then what asks something of a topic is refused. Other frames need none.
    fn on_frame_if(&mut self, slot: u32, frame: &Frame<'_>, refuses: bool) -> Flow {
        let asks = matches!(frame, Frame::Command(_) | Frame::Subscribe(_))
            && self.connection(slot).state == State::Active;
        if !(refuses && asks) {
            match self.on_frame(slot, frame) {
                Flow::Blocked if self.is_out_of_patience(slot) => {}
                Flow::Done if asks => {
                    self.connection(slot).blocked_since = 0;
                    return Flow::Done;
                }
                flow => return flow,
            }
        }
        let code = ErrorCode::Overloaded;
        let text = match self.journal.is_ready() {
            true => "another core is behind; try again after retry_after_ms",
            false => JOURNAL_IS_BEHIND,
        };
        match frame {
            Frame::Command(command) => {
                let (request_id, topic_id) = (command.request_id, command.topic_id);
                let head = ReplyHead {
                    request_id,
                    topic_id,
                    code,
                    seq: 0,
                    awaited: false,
                };
                self.reply(slot, &head, text.as_bytes());
            }
            Frame::Subscribe(subscribe) => {
                let kind = FrameType::Subscribe as u8;
                self.refuse(slot, code, kind, subscribe.request_id, text);
            }
            _ => {}
        }
        Flow::Done
    }

    /// A malformed frame: what breaks the stream or the layout closes the connection; a topic
    /// name that is too long is merely refused. Returns the bytes to pass over.
    fn on_malformed(&mut self, slot: u32, error: DecodeError) -> Option<usize> {
        let negotiated = self.connection(slot).state == State::Active;
        let text = "the topic's name is too long";
        match (
            error.code,
            error.resume_at,
            FrameType::from_byte(error.frame_type),
        ) {
            (
                code @ ErrorCode::NameTooLong,
                Some(len),
                Some(FrameType::Subscribe | FrameType::History),
            ) if negotiated => {
                self.refuse(slot, code, error.frame_type, error.request_id, text);
                Some(len)
            }
            (code @ ErrorCode::NameTooLong, Some(len), Some(FrameType::Command)) if negotiated => {
                let request_id = error.request_id;
                let head = ReplyHead {
                    request_id,
                    topic_id: 0,
                    code,
                    seq: 0,
                    awaited: false,
                };
                self.reply(slot, &head, text.as_bytes());
                Some(len)
            }
            _ => {
                let mut farewell = Farewell::error(error.code, explanation(error.code));
                farewell.frame_type = error.frame_type;
                farewell.request_id = error.request_id;
                self.fire(slot, Event::Violation, farewell);
                None
            }
        }
    }

    fn on_frame(&mut self, slot: u32, frame: &Frame<'_>) -> Flow {
        let active = self.connection(slot).state == State::Active;
        match frame {
            Frame::Hello(hello) => self.on_hello(slot, hello),
            Frame::Goodbye(_) => {
                self.fire(
                    slot,
                    Event::PeerGoodbye,
                    Farewell::goodbye(ErrorCode::Ok, ""),
                );
            }
            _ if !active => {
                let text = "the first frame must be HELLO";
                self.violation(slot, ErrorCode::NotNegotiated, frame, text);
            }
            Frame::Subscribe(subscribe) => return self.on_subscribe(slot, subscribe),
            Frame::Unsubscribe(unsubscribe) => return self.on_unsubscribe(slot, unsubscribe),
            Frame::Command(command) => return self.on_command(slot, command),
            Frame::History(history) => self.on_history(slot, history),
            Frame::Ping(ping) => {
                // PONG answers behind the events that came before it, those of this turn too.
                self.settle(slot);
                let pong = Pong {
                    token: ping.token,
                    node_ns: self.now.wall_ns,
                };
                self.send(slot, &Frame::Pong(pong), 0);
            }
            Frame::Pong(_) => {}
            _ => {
                let text = "only the server sends frames of this type";
                self.violation(slot, ErrorCode::UnknownType, frame, text);
            }
        }
        Flow::Done
    }

    fn violation(&mut self, slot: u32, code: ErrorCode, frame: &Frame<'_>, text: &'static str) {
        let mut farewell = Farewell::error(code, text);
        farewell.frame_type = frame.frame_type() as u8;
        let event = if matches!(frame, Frame::Hello(_)) && code == ErrorCode::Unexpected {
            Event::Hello
        } else {
            Event::Violation
        };
        self.fire(slot, event, farewell);
    }

    fn on_hello(&mut self, slot: u32, hello: &Hello<'_>) {
        let frame = Frame::Hello(*hello);
        if self.connection(slot).state == State::Active {
            return self.violation(slot, ErrorCode::Unexpected, &frame, "HELLO was said before");
        }
        if hello.major != VERSION_MAJOR {
            let text = "this server speaks major version 1";
            return self.violation(slot, ErrorCode::BadVersion, &frame, text);
        }
        let limits = self.limits;
        let heartbeat = limits.idle_timeout / 3;
        let node_ns = self.now.wall_ns;
        let connection = self.connection(slot);
        connection.name = hello.name.into();
        // A session is what its commands are remembered by, so whoever knows its token has it.
        let resumed = hello.session != 0;
        if resumed {
            connection.session = hello.session;
        }
        let welcome = Welcome {
            major: VERSION_MAJOR,
            minor: newest_common(hello.minor, VERSION_MINOR),
            heartbeat_ms: heartbeat.as_millis().try_into().unwrap_or(u32::MAX),
            session: connection.session,
            max_frame: limits.max_frame_bytes.try_into().unwrap_or(u32::MAX),
            max_subscriptions: limits.max_subscriptions.try_into().unwrap_or(u32::MAX),
            node_ns,
            resumed,
        };
        self.fire(slot, Event::Hello, Farewell::goodbye(ErrorCode::Ok, ""));
        self.send(slot, &Frame::Welcome(welcome), 0);
    }

    fn on_subscribe(&mut self, slot: u32, subscribe: &Subscribe<'_>) -> Flow {
        let owner = self.topics.owner_of_name(subscribe.topic);
        if owner != self.core && self.requests[owner].is_full() {
            return Flow::Blocked;
        }
        let most = self.limits.max_subscriptions;
        let connection = self.connection(slot);
        if connection.subscriptions.len() + connection.opening as usize >= most {
            let text = "the connection holds as many subscriptions as max_subscriptions allows";
            let kind = FrameType::Subscribe as u8;
            self.refuse(
                slot,
                ErrorCode::SubscriptionLimit,
                kind,
                subscribe.request_id,
                text,
            );
            return Flow::Done;
        }
        connection.opening += 1;
        let from = ConnectionRef {
            slot,
            number: connection.number,
        };
        let want = if subscribe.from_seq == 0 {
            Want::State
        } else {
            Want::Events { delayed: false }
        };
        // Events are asked for once it is open, as far as the outbox has room.
        let ask = Ask {
            want,
            from_seq: subscribe.from_seq,
            epoch: subscribe.epoch,
            max_bytes: 0,
        };
        if owner == self.core {
            let to = Sender::of(self.core, from);
            let (request_id, policy) = (subscribe.request_id, subscribe.policy);
            self.subscribe(to, request_id, policy, ask, subscribe.topic);
        } else {
            self.connection(slot).awaiting += 1;
            let parcel = &mut self.requests[owner];
            let topic = store(&mut parcel.bytes, subscribe.topic.as_bytes());
            parcel.list.push(Request::Subscribe {
                from,
                request_id: subscribe.request_id,
                policy: subscribe.policy,
                ask,
                topic,
            });
        }
        Flow::Done
    }

    /// Tells the client that a subscription is open.
    pub(super) fn say_subscribed(&mut self, slot: u32, opened: &super::mail::Opened, topic: &str) {
        let subscribed = Subscribed {
            request_id: opened.request_id,
            topic_id: opened.topic_id,
            policy: opened.policy,
            next_seq: opened.answer.first_seq,
            last_seq: opened.last_seq,
            epoch: opened.epoch,
            topic,
        };
        self.send(slot, &Frame::Subscribed(subscribed), topic.len());
    }

    fn on_unsubscribe(&mut self, slot: u32, unsubscribe: &Unsubscribe) -> Flow {
        if self.unsubscribe(slot, unsubscribe) {
            return Flow::Done;
        }
        if self.connection(slot).opening > 0 {
            // It may mean a SUBSCRIBE that another core has not answered yet: a client can know
            // the id from before.
            return Flow::Early;
        }
        let kind = FrameType::Unsubscribe as u8;
        let text = "the connection holds no subscription of that topic id";
        self.refuse(
            slot,
            ErrorCode::NotSubscribed,
            kind,
            unsubscribe.request_id,
            text,
        );
        Flow::Done
    }

    fn on_command(&mut self, slot: u32, command: &Command<'_>) -> Flow {
        let owner = match command.topic_id {
            0 => self.topics.owner_of_name(command.topic),
            id => self.ids.owner(id),
        };
        let connection = self.connection(slot);
        let (from, session) = (
            ConnectionRef {
                slot,
                number: connection.number,
            },
            connection.session,
        );
        if owner == self.core {
            // A refusal may have to wait for the journal.
            let journal = self.journal.lanes() > 0;
            self.connection(slot).quiet |= command.quiet && journal;
            let to = Sender {
                session,
                ..Sender::of(self.core, from)
            };
            self.command(to, command);
            return Flow::Done;
        }
        if self.requests[owner].is_full() {
            return Flow::Blocked;
        }
        let connection = self.connection(slot);
        if command.quiet {
            connection.quiet = true;
        } else {
            connection.awaiting += 1;
        }
        let parcel = &mut self.requests[owner];
        let topic = store(&mut parcel.bytes, command.topic.as_bytes());
        let payload = store(&mut parcel.bytes, command.payload);
        parcel.list.push(Request::Command {
            from,
            session,
            request_id: command.request_id,
            topic_id: command.topic_id,
            code: command.command,
            quiet: command.quiet,
            topic,
            payload,
        });
        Flow::Done
    }

    /// Tells the client that a frame was refused; the connection goes on.
    pub(super) fn refuse(
        &mut self,
        slot: u32,
        code: ErrorCode,
        frame_type: u8,
        request_id: u64,
        text: &str,
    ) {
        self.tally.refused(code);
        let error = ErrorFrame {
            code: code as u16,
            frame_type,
            fatal: false,
            retry_after_ms: if code == ErrorCode::Overloaded {
                100
            } else {
                0
            },
            request_id,
            text,
        };
        self.send(slot, &Frame::Error(error), text.len());
    }
}

/// The newest minor version that both sides know.
fn newest_common(theirs: u16, ours: u16) -> u16 {
    theirs.min(ours)
}

fn explanation(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::BadLength => "the length field is smaller than a header",
        ErrorCode::FrameTooLarge => "the frame is larger than max_frame_bytes",
        ErrorCode::UnknownType => "the frame's type is unknown and not optional",
        ErrorCode::BadMagic => "this is a tickring server; HELLO starts with TKRG",
        ErrorCode::BadBody => "the body is shorter or longer than its layout",
        ErrorCode::BadUtf8 => "a text is not UTF-8",
        ErrorCode::BadField => "a field has a value that means nothing",
        ErrorCode::NameTooLong => "a name is longer than its limit",
        _ => "the frame is malformed",
    }
}
