//! The live connection: what the server says of a topic goes into its log, and who watches is told.

use std::sync::Arc;
use std::time::Duration;

use tickring_client::protocol::{Gap, GapReason, Policy};
use tickring_client::{
    AsyncClient, Notice, Notices, OwnedNotice, StartAt, SubscribeOptions, TopicHandle,
};
use tickring_protocol::{Event, Frame, Snapshot};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{Ask, Upstream, encode};
use crate::topic::{Begin, Kept, Phase, Topic};
use crate::wire::Extra;

/// Time from one look for topics that nobody watches to the next.
const SWEEP: Duration = Duration::from_secs(5);
/// Looks that a topic without a watcher survives, so that a page that is loaded again finds it.
const SWEEPS: u32 = 3;
/// Time before a connection is made anew that was given up for good.
const ANEW: Duration = Duration::from_secs(2);

pub(super) async fn run(upstream: Arc<Upstream>, mut asks: mpsc::Receiver<Ask>) {
    loop {
        let (client, notices) = match upstream.options("live").connect_async().await {
            Ok(connected) => connected,
            Err(error) => {
                tracing::error!(upstream = %upstream.config.upstream, %error, "the server does not take this bridge");
                sleep(ANEW).await;
                continue;
            }
        };
        let mut live = Live {
            upstream: &upstream,
            notices,
            seats: Vec::new(),
        };
        tokio::select! {
            () = serve_asks(&upstream, &client, &mut asks) => return,
            () = live.run() => {}
            () = sweep(&upstream) => {}
        }
        upstream.up.send_replace(false);
        tracing::error!("the session with the server is over; a new one is made");
        sleep(ANEW).await;
    }
}

/// Asks for what is watched already, then for what is asked.
async fn serve_asks(upstream: &Upstream, client: &AsyncClient, asks: &mut mpsc::Receiver<Ask>) {
    for topic in upstream.all() {
        let from = {
            let state = topic.lock();
            match state.phase {
                Phase::Live => Some(StartAt::Seq {
                    seq: state.log.next_seq(),
                    epoch: state.epoch,
                }),
                _ => None, // its request is still in the queue
            }
        };
        if let Some(from) = from {
            subscribe(client, &topic.name, from).await;
        }
    }
    while let Some(ask) = asks.recv().await {
        match ask {
            Ask::Subscribe(topic, from) => subscribe(client, &topic, from).await,
            Ask::Unsubscribe(topic) => {
                if let Err(error) = client.unsubscribe(&*topic).await {
                    tracing::warn!(%topic, %error, "cannot unsubscribe");
                }
            }
        }
    }
}

async fn subscribe(client: &AsyncClient, topic: &str, from: StartAt) {
    let options = SubscribeOptions {
        from,
        // Each client has its own policy; the bridge wants everything.
        policy: Policy::Resume,
    };
    if let Err(error) = client.subscribe(topic, options).await {
        tracing::error!(%topic, %error, "cannot subscribe");
    }
}

/// Gives up what nobody has watched for a while.
async fn sweep(upstream: &Upstream) {
    let mut ticks = interval(SWEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for topic in upstream.all() {
            let is_over = {
                let mut state = topic.lock();
                let idle = state.watchers.is_empty() && state.phase == Phase::Live;
                state.idle = if idle { state.idle + 1 } else { 0 };
                let is_over = state.idle >= SWEEPS;
                if is_over {
                    state.phase = Phase::Leaving;
                }
                is_over
            };
            if is_over {
                upstream.ask(Ask::Unsubscribe(topic.name.clone())).await;
            }
        }
    }
}

struct Live<'u> {
    upstream: &'u Upstream,
    notices: Notices,
    /// Which topic a handle is, by its index.
    seats: Vec<Option<Arc<Topic>>>,
}

impl Live<'_> {
    async fn run(&mut self) {
        while let Some(notice) = self.notices.next().await {
            if let Some(topic) = self.take(&notice) {
                self.upstream
                    .ask(Ask::Subscribe(topic.name.clone(), StartAt::Now))
                    .await;
            }
        }
    }

    /// Takes a notice in; returns a topic that must be asked for again.
    fn take(&mut self, notice: &OwnedNotice) -> Option<Arc<Topic>> {
        match notice.get() {
            Notice::Event { handle, event, .. } => self.event(handle, event),
            Notice::Snapshot {
                handle, snapshot, ..
            } => self.snapshot(handle, snapshot),
            Notice::Gap { handle, gap, .. } => self.gap(handle, gap),
            Notice::Subscribed {
                topic,
                handle,
                next_seq,
                last_seq,
                epoch,
                ..
            } => self.subscribed(topic, handle, next_seq, last_seq, epoch),
            Notice::Unsubscribed { handle, .. } => return self.unsubscribed(handle),
            Notice::Refused(refused) => {
                let name = refused.topic.unwrap_or_default();
                tracing::debug!(
                    topic = name,
                    code = refused.code,
                    text = refused.text,
                    "the server refused"
                );
                if let Some(topic) = self.upstream.topic(name).filter(|_| !refused.fatal) {
                    let mut state = topic.lock();
                    state.phase = Phase::Refused {
                        code: refused.code,
                        retry_after_ms: refused.retry_after_ms,
                        text: refused.text.to_owned(),
                    };
                    drop(state);
                    self.upstream.forget(&topic);
                    topic.lock().wake();
                }
            }
            Notice::Connected { .. } => {
                tracing::info!(upstream = %self.upstream.config.upstream, "connected to the server");
                self.upstream.up.send_replace(true);
                self.upstream.metrics.upstream_up.set(1);
            }
            Notice::Disconnected(end) => {
                if self.upstream.up.send_replace(false) {
                    tracing::warn!(reason = %end.reason, "the connection to the server is lost");
                    self.upstream.metrics.upstream_losses.inc();
                }
                self.upstream.metrics.upstream_up.set(0);
            }
            _ => {}
        }
        None
    }

    fn seat(&self, handle: TopicHandle) -> Option<&Arc<Topic>> {
        self.seats.get(handle.index())?.as_ref()
    }

    fn event(&self, handle: TopicHandle, event: Event<'_>) {
        let Some(topic) = self.seat(handle) else {
            return;
        };
        let event = Event {
            topic_id: topic.id,
            ..event
        };
        let encoded = encode(topic, &Frame::Event(event), Extra::None);
        let mut state = topic.lock();
        let before = state.log.held();
        let epoch = state.epoch;
        state.log.event(encoded.clone(), epoch);
        let added = state.log.held() - before;
        state.count(&encoded);
        self.upstream.keep_within_bounds(&mut state, added);
        self.upstream.metrics.events.inc();
    }

    fn snapshot(&self, handle: TopicHandle, snapshot: Snapshot<'_>) {
        let Some(topic) = self.seat(handle) else {
            return;
        };
        let snapshot = Snapshot {
            topic_id: topic.id,
            ..snapshot
        };
        let seq = snapshot.seq;
        let encoded = encode(topic, &Frame::Snapshot(snapshot), Extra::None);
        let mut state = topic.lock();
        state.snapshot = Some(Kept {
            seq,
            encoded: encoded.clone(),
        });
        let before = state.log.held();
        let epoch = state.epoch;
        state.log.cut(encoded.clone(), epoch, seq + 1);
        let added = state.log.held() - before;
        state.count(&encoded);
        self.upstream.keep_within_bounds(&mut state, added);
    }

    fn gap(&self, handle: TopicHandle, gap: Gap) {
        let Some(topic) = self.seat(handle) else {
            return;
        };
        if gap.reason == GapReason::Delayed {
            return; // they come
        }
        self.upstream.metrics.upstream_gaps.inc();
        let gap = Gap {
            topic_id: topic.id,
            ..gap
        };
        let mut state = topic.lock();
        let extra = match gap.reason {
            GapReason::Reset => {
                state.snapshot = None;
                Extra::Epoch(state.epoch)
            }
            _ => Extra::None,
        };
        let encoded = encode(topic, &Frame::Gap(gap), extra);
        let before = state.log.held();
        let epoch = state.epoch;
        state.log.cut(encoded.clone(), epoch, gap.last_seq + 1);
        let added = state.log.held() - before;
        state.count(&encoded);
        self.upstream.keep_within_bounds(&mut state, added);
    }

    fn subscribed(
        &mut self,
        name: &str,
        handle: TopicHandle,
        next_seq: u64,
        last_seq: u64,
        epoch: u64,
    ) {
        let Some(topic) = self.upstream.topic(name) else {
            return;
        };
        let mut state = topic.lock();
        state.epoch = epoch;
        if state.phase == Phase::Asked {
            state.phase = Phase::Live;
            state.log.begin(next_seq);
            state.begin = Begin {
                asked: state.begin.asked,
                position: state.log.end_position(),
                next_seq,
                last_seq,
                epoch,
            };
            self.upstream.metrics.upstream_subscriptions.inc();
        }
        state.wake();
        drop(state);
        let index = handle.index();
        if self.seats.len() <= index {
            self.seats.resize(index + 1, None);
        }
        self.seats[index] = Some(topic);
    }

    fn unsubscribed(&mut self, handle: TopicHandle) -> Option<Arc<Topic>> {
        let topic = self.seats.get_mut(handle.index())?.take()?;
        self.upstream.metrics.upstream_subscriptions.dec();
        if self.upstream.forget(&topic) {
            return None;
        }
        let mut state = topic.lock();
        self.upstream
            .held
            .fetch_sub(state.log.held(), std::sync::atomic::Ordering::Relaxed);
        state.ask_anew();
        drop(state);
        Some(topic)
    }
}
