//! The second connection: fetches snapshots for those who come later, and stored rows.
//!
//! A snapshot is fetched by subscribing and unsubscribing. However many clients wait for a
//! topic's, it is fetched once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tickring_client::protocol::Policy;
use tickring_client::{AsyncClient, Notice, Notices, StartAt, SubscribeOptions};
use tickring_protocol::{Frame, Snapshot};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Upstream, encode};
use crate::topic::{Kept, Topic, has_state};
use crate::wire::Extra;

/// How long to wait for the sign that a topic has no snapshot.
const SIGN: Duration = Duration::from_secs(10);
/// Time before a fetch that brought nothing usable is made again.
const AGAIN: Duration = Duration::from_millis(200);
/// Time before a connection is made anew that was given up for good.
const ANEW: Duration = Duration::from_secs(2);

pub(super) async fn run(upstream: Arc<Upstream>, mut fetches: mpsc::Receiver<Arc<Topic>>) {
    loop {
        let Ok((client, notices)) = upstream.options("side").connect_async().await else {
            sleep(ANEW).await; // the live connection tells why
            continue;
        };
        upstream.side.send_replace(Some(client.clone()));
        let (done, over) = mpsc::channel(64);
        let mut side = Side {
            upstream: &upstream,
            client: &client,
            waits: HashMap::new(),
            signs: JoinSet::new(),
            done,
        };
        tokio::select! {
            () = serve(&client, &mut fetches, over) => return,
            () = side.run(notices) => {}
        }
        upstream.side.send_replace(None);
        for topic in upstream.all() {
            settle(&topic, Outcome::Failed);
        }
        sleep(ANEW).await;
    }
}

/// Begins fetches, and ends those that are done.
async fn serve(
    client: &AsyncClient,
    fetches: &mut mpsc::Receiver<Arc<Topic>>,
    mut over: mpsc::Receiver<Arc<str>>,
) {
    let options = SubscribeOptions {
        from: StartAt::Now,
        policy: Policy::Conflate,
    };
    loop {
        tokio::select! {
            biased;
            Some(name) = over.recv() => {
                let _ = client.unsubscribe(&*name).await; // refused: there is none
            }
            topic = fetches.recv() => {
                let Some(topic) = topic else { return };
                if client.subscribe(&*topic.name, options).await.is_err() {
                    settle(&topic, Outcome::Failed);
                }
            }
        }
    }
}

/// What came of a fetch.
enum Outcome {
    /// The snapshot and its epoch.
    Snapshot(Kept, u64),
    /// The topic has none, at this moment or ever.
    None {
        ever: bool,
    },
    Failed,
}

struct Side<'u> {
    upstream: &'u Upstream,
    client: &'u AsyncClient,
    /// Fetches under way whose SUBSCRIBED came, and its epoch.
    waits: HashMap<Arc<str>, u64>,
    /// Waits for the sign that no snapshot comes.
    signs: JoinSet<Arc<str>>,
    done: mpsc::Sender<Arc<str>>,
}

impl Side<'_> {
    async fn run(&mut self, mut notices: Notices) {
        loop {
            tokio::select! {
                // A sign counts only once nothing that came before it is left.
                biased;
                notice = notices.next() => {
                    let Some(notice) = notice else { return };
                    let name = notice.topic().cloned();
                    if let (Some(name), Some(outcome)) = (name, self.take(&notice.get())) {
                        self.end(&name, outcome).await;
                    }
                }
                Some(sign) = self.signs.join_next() => {
                    if let Ok(name) = sign && self.waits.contains_key(&name) {
                        self.end(&name, Outcome::None { ever: true }).await;
                    }
                }
            }
        }
    }

    fn take(&mut self, notice: &Notice<'_>) -> Option<Outcome> {
        match *notice {
            Notice::Subscribed {
                topic,
                last_seq,
                epoch,
                ..
            } => {
                if last_seq == 0 {
                    return Some(Outcome::None { ever: false });
                }
                let name: Arc<str> = topic.into();
                self.waits.insert(name.clone(), epoch);
                if has_state(&name) {
                    return None;
                }
                let client = self.client.clone();
                self.signs.spawn(async move {
                    // Behind SUBSCRIBED, the PONG comes behind the snapshot too.
                    let _ = client.barrier(SIGN).await;
                    name
                });
                None
            }
            Notice::Snapshot {
                topic, snapshot, ..
            } => {
                let epoch = *self.waits.get(topic)?;
                let topic = self.upstream.topic(topic)?;
                let snapshot = Snapshot {
                    topic_id: topic.id,
                    ..snapshot
                };
                let kept = Kept {
                    seq: snapshot.seq,
                    encoded: encode(&topic, &Frame::Snapshot(snapshot), Extra::None),
                };
                Some(Outcome::Snapshot(kept, epoch))
            }
            Notice::Refused(refused) if !refused.fatal => Some(Outcome::Failed),
            _ => None,
        }
    }

    async fn end(&mut self, name: &Arc<str>, outcome: Outcome) {
        self.waits.remove(name);
        self.upstream.metrics.fetches.inc();
        let topic = self.upstream.topic(name);
        // Given up first, so that the next fetch finds the topic free.
        let _ = self.done.send(name.clone()).await;
        if let Some(topic) = topic {
            settle(&topic, outcome);
        }
    }
}

/// Hands the outcome to those who wait for it.
fn settle(topic: &Arc<Topic>, outcome: Outcome) {
    let mut state = topic.lock();
    if !std::mem::replace(&mut state.fetching, false) {
        return;
    }
    let usable = match outcome {
        Outcome::Snapshot(kept, epoch) if epoch == state.epoch => {
            state.snapshot = Some(kept);
            true
        }
        Outcome::None { ever } => {
            state.stateless |= ever;
            ever
        }
        // The server was restarted, and the live connection has not heard of it yet.
        Outcome::Snapshot(..) | Outcome::Failed => false,
    };
    let wanting = std::mem::take(&mut state.wanting);
    drop(state);
    tokio::spawn(async move {
        if !usable {
            sleep(AGAIN).await;
        }
        for watcher in wanting {
            watcher.wake();
        }
    });
}
