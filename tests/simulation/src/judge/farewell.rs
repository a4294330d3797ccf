//! How a connection may end, and what it must have by then.

use tickring_protocol::{ErrorCode, ErrorFrame, Goodbye, Policy};

use super::{Must, Sight};
use crate::client::Around;
use crate::coverage::Coverage;
use crate::ensure;
use crate::model::Model;
use crate::plan::Plan;
use crate::shadow::{Asked, Shadow};
use crate::socket::Socket;

impl Sight {
    /// An ERROR that closes the connection.
    pub(super) fn fatal(
        &mut self,
        it: &ErrorFrame<'_>,
        socket: usize,
        shadow: &Shadow,
        around: &mut Around<'_>,
    ) -> Result<(), String> {
        let limits = &around.plan.limits;
        let socket = &around.sockets[socket];
        let Some(code) = it.known_code() else {
            return Err("its code is unknown".into());
        };
        self.farewell = Some(code);
        match code {
            ErrorCode::HelloTimeout => {
                around.coverage.hello_timeout += 1;
                let since = around.now - socket.accepted_at;
                ensure!(
                    self.session == 0 && since >= limits.hello_timeout.as_nanos() as u64,
                    "there was time left"
                );
            }
            ErrorCode::ConnectionLimit => {
                around.coverage.connection_limit += 1;
                ensure!(
                    socket.over_limit && it.retry_after_ms > 0,
                    "the core had room"
                );
            }
            code => {
                around.coverage.violations += 1;
                ensure!(
                    shadow.doomed == Some(code),
                    "what the client did is {:?}",
                    shadow.doomed
                );
            }
        }
        Ok(())
    }

    /// The server ends a connection that is silent or too slow: not without reason.
    fn given_up(
        &self,
        code: ErrorCode,
        socket: &Socket,
        now: u64,
        plan: &Plan,
        coverage: &mut Coverage,
    ) -> Result<(), String> {
        if code == ErrorCode::IdleTimeout {
            coverage.idle_timeout += 1;
            let idle = plan.limits.idle_timeout.as_nanos() as u64;
            ensure!(
                idle > 0 && now - socket.accepted_at >= idle,
                "there was time left"
            );
        } else {
            coverage.slow_consumer += 1;
            let wants = self
                .subscriptions
                .iter()
                .any(|s| s.policy == Policy::Disconnect);
            ensure!(wants, "no subscription has the policy disconnect");
        }
        Ok(())
    }

    pub(super) fn goodbye(
        &mut self,
        it: &Goodbye<'_>,
        socket: usize,
        shadow: &Shadow,
        around: &mut Around<'_>,
    ) -> Result<(), String> {
        let Some(code) = ErrorCode::from_u16(it.code) else {
            return Err("its code is unknown".into());
        };
        self.farewell = Some(code);
        match code {
            ErrorCode::Ok => {
                around.coverage.goodbyes += 1;
                ensure!(
                    shadow.goodbye || (shadow.half_closed && shadow.doomed.is_none()),
                    "the client stays"
                );
                ensure!(shadow.pings.is_empty(), "a PING was not answered");
                settled(shadow, around.model)
            }
            ErrorCode::ShuttingDown => {
                around.coverage.shutting_down += 1;
                ensure!(
                    around.stopping[around.sockets[socket].core],
                    "the node is not stopping"
                );
                ensure!(
                    it.retry_after_ms > 0,
                    "it does not tell when to connect again"
                );
                if around.failed {
                    return Ok(()); // what waits for a failed disk is never told
                }
                told(shadow, around.model)
            }
            // SPEC.md section 10 has an ERROR here; the server says it with a GOODBYE.
            ErrorCode::IdleTimeout | ErrorCode::SlowConsumer => self.given_up(
                code,
                &around.sockets[socket],
                around.now,
                around.plan,
                around.coverage,
            ),
            _ => Err("no GOODBYE has that code".into()),
        }
    }

    /// The stream has ended: without a farewell only where there can be none.
    pub(crate) fn end_of_stream(
        &mut self,
        socket: usize,
        shadow: &Shadow,
        around: &mut Around<'_>,
    ) -> Result<(), String> {
        self.eof = true;
        if self.farewell.is_some() {
            ensure!(self.bytes.is_empty(), "bytes follow the farewell");
            return Ok(());
        }
        around.coverage.silent_closes += 1;
        let limits = &around.plan.limits;
        let it = &around.sockets[socket];
        let drain = limits.drain_timeout.as_nanos() as u64;
        // The client shut its side before it said HELLO: there is nobody to talk to.
        if it.failed || (self.session == 0 && shadow.half_closed) {
            return Ok(());
        }
        let disconnects = self
            .subscriptions
            .iter()
            .any(|s| s.policy == Policy::Disconnect)
            || shadow.pending.iter().any(|p| {
                matches!(
                    p.what,
                    Asked::Subscribe {
                        policy: Policy::Disconnect,
                        ..
                    }
                )
            });
        let server_ended = around.failed
            || around.stopping[it.core]
            || it.over_limit
            || disconnects
            || !limits.idle_timeout.is_zero();
        let hello = self.session == 0
            && around.now >= it.accepted_at + limits.hello_timeout.as_nanos() as u64;
        let asked = shadow.ended_at.is_some_and(|at| around.now >= at + drain);
        ensure!(
            server_ended || hello || asked,
            "socket {socket} was closed without ERROR or GOODBYE, and nothing explains it"
        );
        Ok(())
    }

    /// Whether the connection has all that it can have, now that nothing moves any more.
    pub(crate) fn complete(&self, shadow: &Shadow, model: &Model) -> Result<(), String> {
        if self.is_over() {
            return Ok(());
        }
        ensure!(!shadow.is_over(), "it waits for a farewell in vain");
        if self.session == 0 {
            ensure!(!shadow.negotiated, "it waits for WELCOME in vain");
            return Ok(());
        }
        ensure!(self.bytes.is_empty(), "the last frame is not whole");
        for sub in &self.subscriptions {
            let topic = &model.topics[sub.topic];
            ensure!(
                sub.must == Must::Nothing,
                "{:?} of {} never came",
                sub.must,
                topic.name
            );
            ensure!(
                sub.next_seq == topic.last_seq() + 1,
                "{} #{} of {} never came",
                topic.name,
                sub.next_seq,
                topic.last_seq()
            );
        }
        ensure!(shadow.pings.is_empty(), "a PING was never answered");
        settled(shadow, model)
    }
}

/// All that was asked for has been answered: what was written was taken in, all of it.
fn settled(shadow: &Shadow, model: &Model) -> Result<(), String> {
    for pending in &shadow.pending {
        match &pending.what {
            Asked::Command {
                command,
                quiet: true,
                ..
            } => {
                let applied = model.applied.contains_key(command);
                ensure!(
                    applied,
                    "the quiet command {} was neither applied nor refused",
                    pending.request_id
                );
            }
            // Who says GOODBYE does not want it any more.
            Asked::Subscribe { .. } | Asked::History { .. } if shadow.is_over() => {}
            _ => return Err(format!("{pending:?} was not answered")),
        }
    }
    Ok(())
}

/// Whatever was done for the client was told to it.
fn told(shadow: &Shadow, model: &Model) -> Result<(), String> {
    for pending in &shadow.pending {
        if let Asked::Command { command, quiet, .. } = &pending.what
            && !model.repeated.contains_key(command)
        {
            let refused = model.refused.contains_key(command);
            let applied = !quiet && model.applied.contains_key(command);
            ensure!(
                !refused && !applied,
                "command {} was done but not answered",
                pending.request_id
            );
        }
    }
    Ok(())
}
