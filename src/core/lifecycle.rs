//! How connections begin, wait, say goodbye and end: what the table of states says is done here.

use std::cmp::Reverse;

use tickring_protocol::{ErrorCode, ErrorFrame, Frame, Goodbye};

use super::connection::{Connection, Farewell, Parked, Receiving};
use super::state::{self, Event, State, transition};
use super::{Action, Core};

impl Core {
    /// Looks an event up in the table of states and does what it says.
    pub(super) fn fire(&mut self, slot: u32, event: Event, farewell: Farewell) {
        let Some(connection) = self.connections[slot as usize].as_deref_mut() else {
            return;
        };
        let (next, action) = transition(connection.state, event);
        if next != connection.state {
            connection.state = next;
            // Negotiating has no time of its own: HELLO is due a fixed time after the accept.
            if next != State::Negotiating {
                connection.state_since = self.now.mono_ns;
            }
            self.schedule(slot);
        }
        match action {
            state::Action::Ignore | state::Action::Open | state::Action::Handle => {}
            state::Action::Refuse | state::Action::SayGoodbye => self.begin_drain(slot, farewell),
            state::Action::ShutWrite => {
                self.actions.push_back(Action::ShutdownWrite(slot));
                if self.connection(slot).end_of_stream {
                    self.fire(slot, Event::EndOfStream, farewell);
                }
            }
            state::Action::Close => {
                self.drop_subscriptions(slot);
                // Nothing is to be started again on a socket that is being closed.
                let connection = self.connection(slot);
                connection.inbox = Vec::new();
                connection.parked = Parked::No;
                self.actions.push_back(Action::Close(slot));
            }
            state::Action::Free => {
                if let Some(mut connection) = self.connections[slot as usize].take() {
                    connection.outbox.clear(&mut self.log);
                }
                self.open -= 1;
            }
        }
    }

    /// Stops reading frames; what is in progress goes out, then the farewell.
    fn begin_drain(&mut self, slot: u32, farewell: Farewell) {
        self.settle(slot);
        self.drop_subscriptions(slot);
        let connection = self.connection(slot);
        connection.farewell = Some(Box::new(farewell));
        connection.inbox = Vec::new();
        connection.parked = Parked::No;
        // Refusals of quiet commands may be on their way, and nobody counts those.
        if std::mem::take(&mut connection.quiet) {
            self.fence(slot);
        }
        // What still comes is read and thrown away, so that the end of the stream is seen.
        self.start_receive(slot);
        self.say_farewell(slot);
    }

    /// Queues the farewell once nothing else can follow it.
    pub(super) fn say_farewell(&mut self, slot: u32) {
        let connection = self.connection(slot);
        if connection.state != State::Draining || connection.awaiting > 0 {
            return;
        }
        let Some(farewell) = connection.farewell.take() else {
            return;
        };
        connection.farewell_sent = true;
        self.tally.refused(farewell.code);
        let (code, retry_after_ms, text) = (
            farewell.code as u16,
            farewell.retry_after_ms,
            &*farewell.text,
        );
        let frame = if farewell.error {
            Frame::Error(ErrorFrame {
                code,
                frame_type: farewell.frame_type,
                fatal: true,
                retry_after_ms,
                request_id: farewell.request_id,
                text,
            })
        } else {
            Frame::Goodbye(Goodbye {
                code,
                retry_after_ms,
                text,
            })
        };
        self.send(slot, &frame, text.len());
    }

    pub(super) fn check_drained(&mut self, slot: u32) {
        if let Some(connection) = self.connections[slot as usize].as_deref()
            && connection.state == State::Draining
            && connection.farewell_sent
            && connection.outbox.is_empty()
        {
            self.fire(slot, Event::Drained, Farewell::goodbye(ErrorCode::Ok, ""));
        }
    }

    /// When the connection's present state has lasted long enough.
    fn deadline(&self, connection: &Connection) -> Option<u64> {
        let (since, timeout) = match connection.state {
            State::Accepted | State::Negotiating => {
                (connection.state_since, self.limits.hello_timeout)
            }
            State::Active if self.limits.idle_timeout.is_zero() => return None,
            State::Active => (connection.last_heard, self.limits.idle_timeout),
            State::Draining => (connection.state_since, self.limits.drain_timeout),
            State::Lingering => (connection.state_since, self.limits.linger_timeout),
            State::Closing | State::Closed => return None,
        };
        Some(since.saturating_add(timeout.as_nanos() as u64))
    }

    /// Makes sure that the connection's deadline is looked at in time.
    pub(super) fn schedule(&mut self, slot: u32) {
        let Some(connection) = self.connections[slot as usize].as_deref() else {
            return;
        };
        let Some(at) = self.deadline(connection) else {
            return;
        };
        let connection = self.connection(slot);
        if at < connection.timer_at {
            connection.timer_at = at;
            let number = connection.number;
            self.timers.push(Reverse((at, slot, number)));
        }
    }

    pub(super) fn expire(&mut self) {
        while let Some(&Reverse((at, slot, number))) = self.timers.peek() {
            if at > self.now.mono_ns {
                return;
            }
            self.timers.pop();
            let Some(connection) = self.connections[slot as usize].as_deref_mut() else {
                continue;
            };
            if connection.number != number || connection.timer_at != at {
                continue; // of an earlier connection, or replaced by an earlier deadline
            }
            connection.timer_at = u64::MAX;
            let state = connection.state;
            let due = self.connections[slot as usize]
                .as_deref()
                .and_then(|c| self.deadline(c))
                .is_some_and(|deadline| deadline <= self.now.mono_ns);
            if due {
                self.fire(slot, Event::Deadline, timed_out(state));
            }
            self.schedule(slot);
        }
    }

    /// Asks for reading to stop.
    pub(super) fn stop_receive(&mut self, slot: u32) {
        let connection = self.connection(slot);
        match connection.receiving {
            Receiving::On => {
                connection.receiving = Receiving::Stopping { resume: false };
                self.actions.push_back(Action::StopReceive(slot));
            }
            Receiving::Stopping { .. } => {
                connection.receiving = Receiving::Stopping { resume: false };
            }
            Receiving::Off => {}
        }
    }

    /// Asks for reading to go on.
    pub(super) fn start_receive(&mut self, slot: u32) {
        let connection = self.connection(slot);
        if connection.end_of_stream || connection.state == State::Closing {
            return;
        }
        match connection.receiving {
            Receiving::On => {}
            Receiving::Stopping { .. } => {
                connection.receiving = Receiving::Stopping { resume: true };
            }
            Receiving::Off => {
                connection.receiving = Receiving::On;
                self.actions.push_back(Action::StartReceive(slot));
            }
        }
    }
}

pub(super) fn no_room() -> Farewell {
    let mut farewell = Farewell::error(
        ErrorCode::ConnectionLimit,
        "the server holds as many connections as max_connections allows; try again later",
    );
    farewell.retry_after_ms = 1_000;
    farewell
}

pub(super) fn shutting_down() -> Farewell {
    let mut farewell = Farewell::goodbye(ErrorCode::ShuttingDown, "the server is stopping");
    farewell.retry_after_ms = 1_000;
    farewell
}

fn timed_out(state: State) -> Farewell {
    match state {
        State::Active => Farewell::goodbye(
            ErrorCode::IdleTimeout,
            "nothing was received for longer than idle_timeout; send PING now and then",
        ),
        _ => Farewell::error(
            ErrorCode::HelloTimeout,
            "HELLO did not come within hello_timeout",
        ),
    }
}
