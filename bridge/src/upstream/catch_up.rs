//! A client that wants events from further back than the bridge remembers gets them from the
//! server, over a connection for that alone, at its own pace; then it joins the others.

use std::sync::Arc;
use std::time::Duration;

use tickring_client::protocol::{GapReason, Policy};
use tickring_client::{AsyncClient, Notice, Notices, StartAt, SubscribeOptions};
use tickring_protocol::{Event, Frame, Gap, Snapshot, Subscribed};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::Upstream;
use crate::topic::{CaughtUp, Phase, Watcher};
use crate::wire::Extra;

/// How long the server may take to show that nothing more is owed.
const SIGN: Duration = Duration::from_secs(10);
/// Time before another attempt.
const AGAIN: Duration = Duration::from_millis(500);

/// A catch-up under way; dropped, it ends.
#[derive(Debug)]
pub(crate) struct CatchUp(JoinHandle<()>);

impl Drop for CatchUp {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl CatchUp {
    /// Brings the watcher from the event `next_seq` of `epoch` on to where the bridge is. With a
    /// request id and a policy, SUBSCRIBED is said first.
    pub(crate) fn start(
        upstream: &Arc<Upstream>,
        watcher: &Arc<Watcher>,
        (next_seq, epoch): (u64, u64),
        announce: Option<(u64, Policy)>,
    ) -> Self {
        upstream.metrics.catch_ups.inc();
        let (upstream, watcher) = (upstream.clone(), watcher.clone());
        Self(tokio::spawn(async move {
            let mut run = Run {
                upstream: &upstream,
                watcher: &watcher,
                announce,
                next_seq,
                epoch,
                last_seq: 0,
                subscribed: false,
                owed: true,
            };
            let outcome = loop {
                let Ok(_permit) = upstream.catch_ups.acquire().await else {
                    return;
                };
                match run.attempt().await {
                    Attempt::Done(outcome) => break outcome,
                    Attempt::Unwanted => return,
                    Attempt::Failed => {}
                }
                drop(_permit);
                sleep(AGAIN).await;
            };
            watcher.outbox.push_caught_up(&watcher, outcome);
        }))
    }
}

enum Attempt {
    Done(CaughtUp),
    /// The client has given the subscription up.
    Unwanted,
    Failed,
}

struct Run<'u> {
    upstream: &'u Upstream,
    watcher: &'u Arc<Watcher>,
    announce: Option<(u64, Policy)>,
    /// What the client must get next.
    next_seq: u64,
    epoch: u64,
    /// The topic's newest seq when the server's subscription began.
    last_seq: u64,
    /// SUBSCRIBED came on this attempt.
    subscribed: bool,
    /// A GAP or SNAPSHOT may still follow.
    owed: bool,
}

impl Run<'_> {
    async fn attempt(&mut self) -> Attempt {
        self.subscribed = false;
        let options = self.upstream.options("catch-up").connect_attempts(1);
        let Ok((client, mut notices)) = options.connect_async().await else {
            return Attempt::Failed;
        };
        let options = SubscribeOptions {
            from: StartAt::Seq {
                seq: self.next_seq,
                epoch: self.epoch,
            },
            policy: Policy::Resume,
        };
        let topic = &*self.watcher.topic.name;
        if client.subscribe(topic, options).await.is_err() {
            return Attempt::Failed;
        }
        loop {
            let Some(notice) = notices.next().await else {
                return Attempt::Failed;
            };
            match self.take(&notice.get()).await {
                Step::On => {}
                Step::Unwanted => return Attempt::Unwanted,
                Step::Refused(refused) => return Attempt::Done(refused),
            }
            if self.is_there() {
                return match self.settle(&client, &mut notices).await {
                    true => Attempt::Done(CaughtUp::To {
                        next_seq: self.next_seq,
                        epoch: self.epoch,
                    }),
                    false => Attempt::Failed,
                };
            }
        }
    }

    async fn take(&mut self, notice: &Notice<'_>) -> Step {
        let id = self.watcher.topic.id;
        match *notice {
            Notice::Subscribed {
                topic,
                next_seq,
                last_seq,
                epoch,
                ..
            } => {
                self.subscribed = true;
                self.last_seq = last_seq;
                self.epoch = epoch;
                self.owed = true;
                let Some((request_id, policy)) = self.announce.take() else {
                    return Step::On;
                };
                self.next_seq = next_seq;
                let told = Subscribed {
                    request_id,
                    topic_id: id,
                    policy,
                    next_seq,
                    last_seq,
                    epoch,
                    topic,
                };
                self.say(&Frame::Subscribed(told), Extra::None).await
            }
            Notice::Event { event, .. } => {
                self.owed = false;
                self.next_seq = event.seq + 1;
                let event = Event {
                    topic_id: id,
                    ..event
                };
                self.say(&Frame::Event(event), Extra::None).await
            }
            Notice::Snapshot { snapshot, .. } => {
                self.owed = false;
                self.next_seq = snapshot.seq + 1;
                let snapshot = Snapshot {
                    topic_id: id,
                    ..snapshot
                };
                self.say(&Frame::Snapshot(snapshot), Extra::None).await
            }
            Notice::Gap { gap, .. } if gap.reason != GapReason::Delayed => {
                self.owed = true;
                self.next_seq = gap.last_seq + 1;
                let extra = match gap.reason {
                    GapReason::Reset => Extra::Epoch(self.epoch),
                    _ => Extra::None,
                };
                let gap = Gap {
                    topic_id: id,
                    ..gap
                };
                self.say(&Frame::Gap(gap), extra).await
            }
            Notice::Refused(refused) if !refused.fatal => Step::Refused(CaughtUp::Refused {
                code: refused.code,
                retry_after_ms: refused.retry_after_ms,
                text: refused.text.to_owned(),
            }),
            _ => Step::On,
        }
    }

    async fn say(&self, frame: &Frame<'_>, extra: Extra) -> Step {
        let protocol = self.watcher.protocol();
        let said = protocol.encode_with(frame, &self.watcher.topic.name, extra);
        let outbox = &self.watcher.outbox;
        match outbox.push_of(self.watcher, said, self.next_seq).await {
            true => Step::On,
            false => Step::Unwanted,
        }
    }

    /// Whether the bridge's own log goes on from here, or nothing more was there.
    fn is_there(&self) -> bool {
        if !self.subscribed {
            return false;
        }
        if self.next_seq > self.last_seq {
            return true;
        }
        let state = self.watcher.topic.lock();
        !self.owed
            && state.phase == Phase::Live
            && state.epoch == self.epoch
            && state.log.position_of(self.next_seq).is_some()
    }

    /// Waits until all that belongs to a GAP has come.
    async fn settle(&mut self, client: &AsyncClient, notices: &mut Notices) -> bool {
        if !self.owed {
            return true;
        }
        let sign = client.barrier(SIGN);
        tokio::pin!(sign);
        loop {
            tokio::select! {
                biased;
                notice = notices.next() => {
                    let Some(notice) = notice else { return false };
                    if !matches!(self.take(&notice.get()).await, Step::On) {
                        return false;
                    }
                }
                outcome = &mut sign => {
                    // What came before the sign may still be on its way here.
                    while let Ok(Some(notice)) = tokio::time::timeout(Duration::ZERO, notices.next()).await {
                        if !matches!(self.take(&notice.get()).await, Step::On) {
                            return false;
                        }
                    }
                    return outcome.is_ok();
                }
            }
        }
    }
}

enum Step {
    On,
    Unwanted,
    Refused(CaughtUp),
}
