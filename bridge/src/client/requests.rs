//! What a client asks for, done or refused.

use std::sync::Arc;
use std::time::Duration;

use tickring_client::{ClientError, HistoryQuery, HistoryRows, StartAt};
use tickring_protocol::{
    ErrorCode, ErrorFrame, Frame, FrameType, HistoryPage, Policy, Pong, Reply, TopicError,
    TopicName, Unsubscribed, VERSION_MAJOR, VERSION_MINOR, Welcome,
};
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinHandle;

use super::{Client, Mode, Subscription, wall_ns};
use crate::close::Close;
use crate::topic::{Watcher, default_policy};
use crate::upstream::{Commands, Outgoing};
use crate::wire::{self, Ask, Extra, Fault, TopicKey};

/// Reads of stored rows that one client may have under way.
pub(super) const READS: usize = 8;
/// How long a read of stored rows may take.
const READ: Duration = Duration::from_secs(10);

impl Client {
    /// Takes in all that a message asks for.
    pub(super) fn take(&mut self, message: &[u8]) {
        let protocol = self.protocol();
        protocol.read(message, |ask| {
            match ask {
                Ok(ask) => self.on(ask),
                Err(fault) => self.on_fault(fault),
            }
            !self.outbox.is_closing() && !self.leaving
        });
    }

    fn on_fault(&mut self, fault: Fault) {
        if fault.fatal {
            return self.fail(fault.code, fault.frame_type, fault.request_id, &fault.text);
        }
        match fault.is_command {
            true => self.refuse_command(fault.request_id, "", fault.code, &fault.text),
            false => {
                let frame = FrameType::from_byte(fault.frame_type).unwrap_or(FrameType::Subscribe);
                self.refuse(frame, fault.request_id, "", fault.code, &fault.text);
            }
        }
    }

    fn on(&mut self, ask: Ask) {
        match ask {
            Ask::Goodbye => self.on_goodbye(),
            Ask::Hello {
                name,
                session,
                credentials,
            } => self.on_hello(name, session, credentials),
            _ if !self.welcomed => {
                self.fail(ErrorCode::NotNegotiated, 0, 0, "hello comes first");
            }
            Ask::Subscribe {
                id,
                topic,
                from_seq,
                epoch,
                policy,
            } => self.on_subscribe(id, &topic, (from_seq, epoch), policy),
            Ask::Unsubscribe { id, topic } => self.on_unsubscribe(id, &topic),
            Ask::Command {
                id,
                topic,
                command,
                payload,
                quiet,
            } => self.on_command(id, topic, command, payload, quiet),
            Ask::History { id, topic, query } => self.on_history(id, topic, query),
            Ask::Ping { token } => {
                let pong = Pong {
                    token,
                    node_ns: wall_ns(),
                };
                self.outbox
                    .push(self.protocol().encode(&Frame::Pong(pong), ""));
            }
            Ask::Nothing => {}
        }
    }

    /// Whatever the client has asked for is carried out and answered first.
    fn on_goodbye(&mut self) {
        self.leaving = true;
        let carried = self.finish_commands();
        let outbox = self.outbox.clone();
        let goodbye = self.goodbye(ErrorCode::Ok, "");
        tokio::spawn(async move {
            if let Some(carried) = carried {
                let _ = carried.await;
            }
            outbox.push(goodbye);
            outbox.close(Close::ok());
        });
    }

    /// Lets the commands that are under way come to their end.
    pub(super) fn finish_commands(&mut self) -> Option<JoinHandle<()>> {
        let waiting = std::mem::take(&mut self.waiting);
        self.commands
            .take()
            .map(|commands| commands.finish(waiting))
    }

    fn on_hello(&mut self, name: String, session: u128, credentials: Vec<u8>) {
        if self.welcomed {
            let frame = FrameType::Hello as u8;
            return self.fail(ErrorCode::Unexpected, frame, 0, "hello was said before");
        }
        self.welcomed = true;
        self.name = name;
        self.credentials = credentials;
        self.session = match session {
            0 => new_session(),
            known => known,
        };
        let config = &self.upstream.config;
        let welcome = Welcome {
            major: VERSION_MAJOR,
            minor: VERSION_MINOR,
            heartbeat_ms: 0,
            session: self.session,
            max_frame: config.max_message_bytes.try_into().unwrap_or(u32::MAX),
            max_subscriptions: config.max_subscriptions.try_into().unwrap_or(u32::MAX),
            node_ns: wall_ns(),
            resumed: session != 0,
        };
        let up = *self.upstream.up().borrow();
        let protocol = self.protocol();
        self.outbox
            .push(protocol.encode_with(&Frame::Welcome(welcome), "", Extra::Upstream(up)));
        if protocol == wire::Protocol::Binary {
            self.outbox.push(protocol.status(up)); // WELCOME has no field for it
        }
    }

    fn on_subscribe(&mut self, id: u64, topic: &str, from: (u64, u64), policy: Policy) {
        let refuse = |code: ErrorCode, text: &str| {
            self.refuse(FrameType::Subscribe, id, topic, code, text);
        };
        if let Err(error) = TopicName::new(topic) {
            return refuse(topic_code(error), &error.to_string());
        }
        let most = self.upstream.config.max_subscriptions;
        let start = match from {
            (0, _) => StartAt::Now,
            (seq, epoch) => StartAt::Seq { seq, epoch },
        };
        let bridge_id = match self.upstream.id_of(topic) {
            Ok(id) => id,
            Err(code) => return refuse(code, "the bridge knows as many topics as it may"),
        };
        if self.subscriptions.contains_key(&bridge_id) {
            return refuse(ErrorCode::AlreadySubscribed, "subscribed already");
        }
        if self.subscriptions.len() >= most {
            let text = "the client holds as many subscriptions as max_subscriptions allows";
            return refuse(ErrorCode::SubscriptionLimit, text);
        }
        let outbox = &self.outbox;
        let watched = self.upstream.watch(topic, start, |topic, state| {
            Watcher::join(topic, state, outbox)
        });
        let (watcher, ask) = match watched {
            Ok(watched) => watched,
            Err(code) => return refuse(code, "the bridge knows as many topics as it may"),
        };
        self.upstream.metrics.subscriptions.inc();
        let policy = match policy {
            Policy::Default => default_policy(topic),
            chosen => chosen,
        };
        self.subscriptions.insert(
            bridge_id,
            Subscription {
                watcher: watcher.clone(),
                request_id: id,
                policy,
                epoch: from.1,
                mode: Mode::Asked {
                    from_seq: from.0,
                    epoch: from.1,
                },
            },
        );
        if let Some(ask) = ask {
            // Only who watches a topic first asks, so that these are few and short.
            let upstream = self.upstream.clone();
            tokio::spawn(async move { upstream.ask(ask).await });
        }
        watcher.wake();
    }

    fn on_unsubscribe(&mut self, id: u64, topic: &TopicKey) {
        let known = match topic {
            TopicKey::Id(id) => Some(*id),
            TopicKey::Name(name) => self.upstream.known_id(name),
        };
        let held = known.and_then(|id| self.subscriptions.remove(&id));
        let Some(subscription) = held else {
            let name = match topic {
                TopicKey::Name(name) => name,
                TopicKey::Id(_) => "",
            };
            let text = "not subscribed";
            return self.refuse(
                FrameType::Unsubscribe,
                id,
                name,
                ErrorCode::NotSubscribed,
                text,
            );
        };
        let watcher = &subscription.watcher;
        self.outbox.silence(watcher);
        watcher.topic.lock().remove(watcher);
        self.upstream.metrics.subscriptions.dec();
        let told = Unsubscribed {
            request_id: id,
            topic_id: watcher.topic.id,
            last_seq: watcher.next_seq().saturating_sub(1),
        };
        self.outbox.push(
            self.protocol()
                .encode(&Frame::Unsubscribed(told), &watcher.topic.name),
        );
    }

    fn on_command(
        &mut self,
        id: u64,
        topic: TopicKey,
        command: u16,
        payload: Vec<u8>,
        quiet: bool,
    ) {
        let topic: Arc<str> = match topic {
            TopicKey::Name(name) => match TopicName::new(&name) {
                Ok(_) => name.into(),
                Err(error) => {
                    return self.refuse_command(id, &name, topic_code(error), &error.to_string());
                }
            },
            TopicKey::Id(topic_id) => match self.upstream.name_of(topic_id) {
                Some(name) => name,
                None => {
                    let text = "the topic id was never given to anybody";
                    return self.refuse_command(id, "", ErrorCode::UnknownTopic, text);
                }
            },
        };
        self.waiting.push_back(Outgoing {
            request_id: id,
            topic,
            command,
            payload,
            quiet,
        });
        self.send_waiting();
    }

    /// Hands waiting commands on, as far as there is room for them.
    pub(super) fn send_waiting(&mut self) {
        let commands = self.commands.get_or_insert_with(|| {
            Commands::start(
                &self.upstream,
                &self.outbox,
                self.session,
                &self.name,
                &self.credentials,
            )
        });
        while let Some(outgoing) = self.waiting.pop_front() {
            match commands.queue.try_send(outgoing) {
                Ok(()) => {}
                Err(TrySendError::Full(outgoing)) => {
                    self.waiting.push_front(outgoing);
                    return;
                }
                // It has told the outbox why.
                Err(TrySendError::Closed(_)) => return self.waiting.clear(),
            }
        }
    }

    fn on_history(&mut self, id: u64, topic: String, query: HistoryQuery) {
        let kind = FrameType::History;
        if let Err(error) = TopicName::new(&topic) {
            return self.refuse(kind, id, &topic, topic_code(error), &error.to_string());
        }
        let Ok(permit) = self.reads.clone().try_acquire_owned() else {
            let text = "too many reads at once";
            return self.refuse(kind, id, &topic, ErrorCode::Overloaded, text);
        };
        self.upstream.metrics.reads.inc();
        let (upstream, outbox) = (self.upstream.clone(), self.outbox.clone());
        tokio::spawn(async move {
            let read = tokio::time::timeout(READ, async {
                let side = upstream.side().await.ok_or(ClientError::Timeout)?;
                side.history(&topic, query, READ).await
            })
            .await
            .unwrap_or(Err(ClientError::Timeout));
            let protocol = outbox.protocol();
            let told = match &read {
                Ok(rows) => protocol.encode(&Frame::HistoryPage(page(id, rows)), &topic),
                Err(error) => protocol.encode(&Frame::Error(refused(id, error)), &topic),
            };
            outbox.push_patiently(told).await;
            drop(permit);
        });
    }

    fn refuse(&self, frame: FrameType, id: u64, topic: &str, code: ErrorCode, text: &str) {
        let request = wire::refused(frame as u8).unwrap_or_default();
        self.log_refusal(request, topic, code.name(), text);
        let error = ErrorFrame {
            code: code as u16,
            frame_type: frame as u8,
            fatal: false,
            retry_after_ms: if code == ErrorCode::Overloaded {
                1000
            } else {
                0
            },
            request_id: id,
            text,
        };
        self.outbox
            .push(self.protocol().encode(&Frame::Error(error), topic));
    }

    fn refuse_command(&self, id: u64, topic: &str, code: ErrorCode, text: &str) {
        self.log_refusal("command", topic, code.name(), text);
        let reply = Reply {
            request_id: id,
            topic_id: 0,
            code: code as u16,
            seq: 0,
            retry_after_ms: if code == ErrorCode::Overloaded {
                1000
            } else {
                0
            },
            payload: text.as_bytes(),
        };
        self.outbox
            .push(self.protocol().encode(&Frame::Reply(reply), topic));
    }
}

fn topic_code(error: TopicError) -> ErrorCode {
    error.code()
}

fn page(id: u64, rows: &HistoryRows) -> HistoryPage<'_> {
    HistoryPage {
        request_id: id,
        ..rows.page()
    }
}

fn refused(id: u64, error: &ClientError) -> ErrorFrame<'static> {
    let (code, text) = match error {
        ClientError::Refused { code, .. } => (*code, "the server refused the read"),
        ClientError::Request(tickring_client::RequestError::Topic(error)) => {
            (error.code() as u16, "the topic's name is none")
        }
        _ => (
            ErrorCode::Overloaded as u16,
            "the server does not answer at present",
        ),
    };
    ErrorFrame {
        code,
        frame_type: FrameType::History as u8,
        fatal: false,
        retry_after_ms: if code == ErrorCode::Overloaded as u16 {
            1000
        } else {
            0
        },
        request_id: id,
        text,
    }
}

/// A token of a session that nobody can guess: 16 bytes of the kernel's.
fn new_session() -> u128 {
    let mut bytes = [0; 16];
    while bytes == [0; 16] {
        match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
            Ok(16) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => bytes = [0; 16],
            Err(error) => panic!("the kernel gives no random bytes: {error}"),
        }
    }
    u128::from_le_bytes(bytes)
}
