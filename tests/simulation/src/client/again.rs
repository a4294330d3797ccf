//! Commands that a client sends again, with the same request id: after its connection broke, the
//! node restarted, or for no reason.

use tickring_protocol::{Command, Frame};

use super::{Around, Client, Link};
use crate::model::{Model, identity};
use crate::shadow::Asked;

/// Answered commands that are remembered, to be sent again for no reason.
const MOST_ANSWERED: usize = 8;

/// A command that was sent, unspoiled and wanting an answer.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) request_id: u64,
    pub(super) code: u16,
    pub(super) name: String,
    pub(super) payload: Vec<u8>,
}

/// What a client remembers of its commands.
#[derive(Debug, Default)]
pub(super) struct Again {
    /// The one composed last, until it is certain that its bytes go out as they are.
    newest: Option<Sent>,
    /// Those of this connection.
    sent: Vec<Sent>,
    /// Those of earlier connections of the session that have no answer.
    unanswered: Vec<Sent>,
    answered: Vec<Sent>,
}

impl Again {
    pub(super) fn composed(&mut self, sent: Sent) {
        self.newest = Some(sent);
    }

    pub(super) fn drop_newest(&mut self) {
        self.newest = None;
    }

    /// The connection is over; `session` was the client's before.
    pub(super) fn disconnected(&mut self, link: &Link, session: u128) {
        if link.sight.session != session {
            self.unanswered.clear();
            self.answered.clear();
        }
        let waits = |sent: &Sent| {
            link.shadow.pending.iter().any(|pending| {
                pending.request_id == sent.request_id
                    && matches!(pending.what, Asked::Command { .. })
            })
        };
        let known = link.sight.session != 0;
        for sent in self.sent.drain(..).filter(|_| known) {
            if waits(&sent) {
                self.unanswered.push(sent);
            } else {
                self.answered.push(sent);
            }
        }
        let surplus = self.answered.len().saturating_sub(MOST_ANSWERED);
        self.answered.drain(..surplus);
    }
}

impl Client {
    /// Remembers the command that was composed last, if it goes out as it is.
    pub(super) fn keep_newest(&mut self, model: &mut Model) {
        if let Some(sent) = self.again.newest.take() {
            let command = identity(sent.code, &sent.payload);
            model.asked.insert(command, sent.request_id);
            self.again.sent.push(sent);
        }
    }

    /// Sends commands again: those without an answer in their order, or one for no reason.
    pub(super) fn send_again(&mut self, out: &mut Vec<u8>, around: &mut Around<'_>) {
        let taken_up = self.link.as_ref().is_some_and(|link| {
            link.sight.session == self.session && self.session != 0 && link.shadow.negotiated
        });
        if !taken_up {
            return;
        }
        let unanswered = std::mem::take(&mut self.again.unanswered);
        if around.dice.chance(90) {
            for sent in unanswered {
                write(&sent, out, around.model);
                self.again.sent.push(sent);
            }
        }
        if !self.again.answered.is_empty() && around.dice.chance(8) {
            let which = around.dice.below(self.again.answered.len());
            write(&self.again.answered[which], out, around.model);
        }
    }
}

fn write(sent: &Sent, out: &mut Vec<u8>, model: &mut Model) {
    let run = model.run;
    let command = identity(sent.code, &sent.payload);
    model.repeated.entry(command).or_insert(run);
    Frame::Command(Command {
        request_id: sent.request_id,
        topic_id: 0,
        command: sent.code,
        topic: &sent.name,
        payload: &sent.payload,
        quiet: false,
    })
    .encode(out);
}
