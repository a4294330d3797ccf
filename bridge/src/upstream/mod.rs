//! The bridge as a client of the server.
//!
//! One connection carries the live subscriptions, which all clients share; a second one fetches
//! snapshots and stored rows, so that neither waits for the other. Beside them there are
//! connections for a while: for a client that must catch up from further back than the bridge
//! remembers, and for each client that sends commands.

mod catch_up;
mod commands;
mod live;
mod side;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tickring_client::{AsyncClient, Options, StartAt};
use tickring_protocol::{ErrorCode, Frame};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::config::Config;
use crate::metrics::Metrics;
use crate::topic::{Phase, State, Topic, lock};
use crate::wire::{Extra, Protocol};

pub(crate) use catch_up::CatchUp;
pub(crate) use commands::{Commands, Outgoing};

/// Connections that may catch up at once.
const CATCH_UPS: usize = 32;
/// Requests to the live connection that may wait.
const ASKS: usize = 1024;

/// What the live connection is to do.
#[derive(Debug)]
pub(crate) enum Ask {
    Subscribe(Arc<str>, StartAt),
    Unsubscribe(Arc<str>),
}

#[derive(Debug, Default)]
struct Topics {
    watched: HashMap<Arc<str>, Arc<Topic>>,
    /// Every name that was ever given an id.
    ids: HashMap<Arc<str>, u32>,
    names: Vec<Arc<str>>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) config: Arc<Config>,
    pub(crate) metrics: Arc<Metrics>,
    topics: Mutex<Topics>,
    asks: mpsc::Sender<Ask>,
    fetches: mpsc::Sender<Arc<Topic>>,
    up: watch::Sender<bool>,
    side: watch::Sender<Option<AsyncClient>>,
    catch_ups: Semaphore,
    /// Bytes of all topics' logs.
    held: AtomicUsize,
}

impl Upstream {
    /// Starts the tasks; they run until the runtime ends.
    pub(crate) fn start(config: Arc<Config>, metrics: Arc<Metrics>) -> Arc<Self> {
        let (asks, asked) = mpsc::channel(ASKS);
        // A topic is in there once at most.
        let (fetches, fetched) = mpsc::channel(config.max_topics);
        let upstream = Arc::new(Self {
            config,
            metrics,
            topics: Mutex::default(),
            asks,
            fetches,
            up: watch::Sender::new(false),
            side: watch::Sender::new(None),
            catch_ups: Semaphore::new(CATCH_UPS),
            held: AtomicUsize::new(0),
        });
        tokio::spawn(live::run(upstream.clone(), asked));
        tokio::spawn(side::run(upstream.clone(), fetched));
        upstream
    }

    /// How to connect, under a name that tells what for.
    fn options(&self, purpose: &str) -> Options {
        let (min, max) = (Duration::from_millis(50), Duration::from_secs(2));
        Options::new(&*self.config.upstream)
            .name(format!("bridge-{purpose}"))
            .credentials(self.config.credentials.clone())
            .backoff(min, max)
            .connect_attempts(0)
    }

    /// Whether there is a connection to the server, and word of each change.
    pub(crate) fn up(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    /// The id of a topic, which has one from here on.
    ///
    /// # Errors
    /// [`ErrorCode::TopicLimit`].
    pub(crate) fn id_of(&self, name: &str) -> Result<u32, ErrorCode> {
        self.lock().id_of(name, self.config.max_topics)
    }

    /// The id of a topic that has one.
    pub(crate) fn known_id(&self, name: &str) -> Option<u32> {
        self.lock().ids.get(name).copied()
    }

    /// The name of an id that was given out.
    pub(crate) fn name_of(&self, id: u32) -> Option<Arc<str>> {
        let index = id.checked_sub(1)?;
        self.lock().names.get(index as usize).cloned()
    }

    /// The topic of that name; and what to ask of the server, if nobody has watched it.
    /// Calls `join` with the topic under its lock, so that it is not given up meanwhile.
    ///
    /// # Errors
    /// [`ErrorCode::TopicLimit`].
    pub(crate) fn watch<T>(
        &self,
        name: &str,
        from: StartAt,
        join: impl FnOnce(&Arc<Topic>, &mut State) -> T,
    ) -> Result<(T, Option<Ask>), ErrorCode> {
        let mut topics = self.lock();
        if let Some(topic) = topics.watched.get(name) {
            let mut state = topic.lock();
            return Ok((join(topic, &mut state), None));
        }
        let id = topics.id_of(name, self.config.max_topics)?;
        let name = topics.names[id as usize - 1].clone();
        let topic = Arc::new(Topic::new(name.clone(), id, from));
        topics.watched.insert(name.clone(), topic.clone());
        self.metrics.topics.inc();
        let joined = join(&topic, &mut topic.lock());
        Ok((joined, Some(Ask::Subscribe(name, from))))
    }

    /// Hands a request to the live connection.
    pub(crate) async fn ask(&self, ask: Ask) {
        // The task that takes them runs as long as the runtime.
        let _ = self.asks.send(ask).await;
    }

    /// Asks for a newer snapshot of a topic that the caller has locked.
    pub(crate) fn want_snapshot(&self, topic: &Arc<Topic>, state: &mut State) {
        if !std::mem::replace(&mut state.fetching, true)
            && self.fetches.try_send(topic.clone()).is_err()
        {
            state.fetching = false;
        }
    }

    /// The connection that reads stored rows, once there is one.
    pub(crate) async fn side(&self) -> Option<AsyncClient> {
        let mut side = self.side.subscribe();
        let there = side.wait_for(Option::is_some).await.ok()?;
        there.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Topics> {
        lock(&self.topics)
    }

    fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.lock().watched.get(name).cloned()
    }

    fn all(&self) -> Vec<Arc<Topic>> {
        self.lock().watched.values().cloned().collect()
    }

    /// Forgets a topic that nobody watches any more; false if somebody does.
    fn forget(&self, topic: &Arc<Topic>) -> bool {
        let mut topics = self.lock();
        let state = topic.lock();
        if !state.watchers.is_empty() && !matches!(state.phase, Phase::Refused { .. }) {
            return false;
        }
        self.held.fetch_sub(state.log.held(), Ordering::Relaxed);
        self.metrics.topics.dec();
        topics.watched.remove(&topic.name);
        true
    }

    /// Drops the oldest records of a log that has grown by `added` bytes, to its bounds.
    fn keep_within_bounds(&self, state: &mut State, added: usize) {
        let mut held = self.held.fetch_add(added, Ordering::Relaxed) + added;
        while state.log.held() > self.config.history_bytes
            || (held > self.config.total_history_bytes && state.log.held() > 0)
        {
            let freed = state.log.drop_oldest();
            held = self.held.fetch_sub(freed, Ordering::Relaxed) - freed;
        }
        self.metrics.history_bytes.set(held as i64);
    }
}

impl Topics {
    fn id_of(&mut self, name: &str, most: usize) -> Result<u32, ErrorCode> {
        if let Some(&id) = self.ids.get(name) {
            return Ok(id);
        }
        if self.names.len() >= most {
            return Err(ErrorCode::TopicLimit);
        }
        let name: Arc<str> = name.into();
        self.names.push(name.clone());
        let id = self.names.len() as u32; // at most `max_topics`
        self.ids.insert(name, id);
        Ok(id)
    }
}

/// A frame of a topic in both sub-protocols.
fn encode(topic: &Topic, frame: &Frame<'_>, extra: Extra) -> [Bytes; 2] {
    [Protocol::Json, Protocol::Binary].map(|p| p.encode_with(frame, &topic.name, extra))
}
