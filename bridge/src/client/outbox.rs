//! What waits to be sent to one client.
//!
//! It holds answers, and the topics that have news: not the news themselves, which are read from
//! the topics' logs when there is room. So a client that does not read costs one entry for each of
//! its topics, however much it misses.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::close::Close;
use crate::topic::{CaughtUp, Watcher, lock};
use crate::wire::Protocol;

/// Bytes of answers that may wait before who makes them must.
const ANSWERS: usize = 256 << 10;

/// What comes next in a client's stream.
#[derive(Debug)]
pub(crate) enum Ready {
    /// The topic has something new.
    Topic(Arc<Watcher>),
    /// An answer, encoded.
    Answer(Bytes),
    /// The server has brought the topic up to date; what it said lies before this.
    CaughtUp(Arc<Watcher>, CaughtUp),
}

#[derive(Debug, Default)]
struct Queue {
    ready: VecDeque<Ready>,
    answers: usize,
    close: Option<Close>,
    /// The client has gone: what is still said to it is dropped.
    gone: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Outbox {
    protocol: Protocol,
    queue: Mutex<Queue>,
    /// Bytes of events that the client has still to read.
    behind: AtomicI64,
    news: Notify,
    room: Notify,
}

impl Outbox {
    pub(crate) fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            queue: Mutex::default(),
            behind: AtomicI64::new(0),
            news: Notify::new(),
            room: Notify::new(),
        }
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol
    }

    pub(crate) fn push_topic(&self, watcher: Arc<Watcher>) {
        lock(&self.queue).ready.push_back(Ready::Topic(watcher));
        self.news.notify_one();
    }

    /// Queues how a catch-up ended, behind all that came of it.
    pub(crate) fn push_caught_up(&self, watcher: &Arc<Watcher>, outcome: CaughtUp) {
        let ready = Ready::CaughtUp(watcher.clone(), outcome);
        lock(&self.queue).ready.push_back(ready);
        self.news.notify_one();
    }

    /// Queues an answer of the client's own task, which asks [`Outbox::has_room`] before it
    /// takes more in.
    pub(crate) fn push(&self, answer: Bytes) {
        let mut queue = lock(&self.queue);
        if queue.gone {
            return;
        }
        queue.answers += answer.len();
        queue.ready.push_back(Ready::Answer(answer));
        drop(queue);
        self.news.notify_one();
    }

    pub(crate) fn has_room(&self) -> bool {
        lock(&self.queue).answers < ANSWERS
    }

    /// The client has gone: nobody waits for room any more.
    pub(crate) fn shut(&self) {
        let mut queue = lock(&self.queue);
        *queue = Queue {
            gone: true,
            ..Queue::default()
        };
        drop(queue);
        self.room.notify_one();
    }

    /// Queues an answer once there is room for it.
    pub(crate) async fn push_patiently(&self, answer: Bytes) {
        self.wait_for_room().await;
        self.push(answer);
    }

    /// Queues what is said of a subscription once there is room; false if the client has given
    /// the subscription up meanwhile, so that it must not be said any more.
    pub(crate) async fn push_of(&self, watcher: &Watcher, said: Bytes, next_seq: u64) -> bool {
        self.wait_for_room().await;
        let mut queue = lock(&self.queue);
        // The subscription is given up under the same lock.
        if watcher.is_dead() || queue.gone {
            return false;
        }
        watcher.set_next_seq(next_seq);
        queue.answers += said.len();
        queue.ready.push_back(Ready::Answer(said));
        drop(queue);
        self.news.notify_one();
        true
    }

    /// From here on nothing more is said of the subscription.
    pub(crate) fn silence(&self, watcher: &Watcher) {
        let _queue = lock(&self.queue);
        watcher.kill();
    }

    async fn wait_for_room(&self) {
        while !self.has_room() {
            let room = self.room.notified();
            if self.has_room() {
                return;
            }
            room.await;
        }
        // Who else waits may have been passed over by this one's notice.
        self.room.notify_one();
    }

    /// Ends the connection behind what is queued; the first reason counts.
    pub(crate) fn close(&self, close: Close) {
        lock(&self.queue).close.get_or_insert(close);
        self.news.notify_one();
    }

    pub(crate) fn pop(&self) -> Option<Ready> {
        let mut queue = lock(&self.queue);
        let ready = queue.ready.pop_front();
        if let Some(Ready::Answer(answer)) = &ready {
            queue.answers -= answer.len();
            if queue.answers < ANSWERS {
                self.room.notify_one();
            }
        }
        ready
    }

    /// Why to close, once nothing else is left to send.
    pub(crate) fn closing(&self) -> Option<Close> {
        let mut queue = lock(&self.queue);
        match queue.ready.is_empty() {
            true => queue.close.take(),
            false => None,
        }
    }

    /// Whether the connection is to be closed once the queue is empty.
    pub(crate) fn is_closing(&self) -> bool {
        lock(&self.queue).close.is_some()
    }

    pub(crate) fn add_behind(&self, bytes: i64) {
        self.behind.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of events that the client has still to read.
    pub(crate) fn behind(&self) -> u64 {
        self.behind.load(Ordering::Relaxed).max(0) as u64
    }

    /// Waits until something was queued.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }
}
