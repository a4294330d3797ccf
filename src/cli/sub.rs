//! `tickring sub`.

use std::io::{self, BufWriter, StdoutLock, Write};
use std::num::NonZeroU64;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use clap::Args;
use tickring_client::protocol::{GapReason, Policy, TopicName};
use tickring_client::{Client, Disconnected, Notice, Reason, Refused, StartAt, SubscribeOptions};

use super::body::reason_name;
use super::connect::Connect;
use super::failure::{Failure, code_name};
use super::signals::Stop;
use super::text::Columns;
use super::{json, tell};

/// How long to sleep before looking for a signal again.
const NAP: Duration = Duration::from_millis(100);
/// How long the server gets to say goodbye.
const CLOSE: Duration = Duration::from_millis(500);

/// Print what happens on topics, every event in order, until SIGINT or SIGTERM.
///
/// Starts with the topic's state as it is, if its kind has one, unless --from asks for past
/// events. A lost connection is made anew, and goes on where it was. Events that will not come
/// are told in a line of kind `gap`.
#[derive(Debug, Args)]
pub(super) struct Sub {
    /// Topics, such as market/BTCUSDT or stream/news.
    #[arg(required = true, value_name = "TOPIC", value_parser = topic)]
    topics: Vec<String>,

    /// Start with the event of this number, from 1 on: 1 is everything that the server still has.
    #[arg(long, value_name = "SEQ")]
    from: Option<NonZeroU64>,

    /// One JSON object a line: topic, seq, kind (trade, quote, snapshot, gap, message),
    /// ts_event_ns, and the fields of its kind. Decimals are strings, as the source wrote them.
    #[arg(long)]
    json: bool,

    /// Exit after so many events (trades, quotes, messages) of all topics together.
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,

    /// Exit after so many seconds without anything to print.
    #[arg(long, value_name = "SECS", value_parser = seconds)]
    idle_exit: Option<Duration>,

    /// When this reader is slow, skip to the latest state instead of catching up event by event.
    #[arg(long)]
    conflate: bool,

    /// Tell on stderr what the connection does, and when events are late.
    #[arg(long, short)]
    verbose: bool,

    #[command(flatten)]
    connect: Connect,
}

/// Checks a topic's name.
pub(super) fn topic(text: &str) -> Result<String, String> {
    TopicName::new(text)
        .map(|name| name.as_str().to_owned())
        .map_err(|error| error.to_string())
}

/// A time in seconds, above 0, with or without decimals.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|time| !time.is_zero())
        .ok_or_else(|| "write seconds above 0, such as 5 or 0.5".to_owned())
}

impl Sub {
    pub(super) fn run(mut self) -> Result<(), Failure> {
        let mut seen = std::collections::HashSet::new();
        self.topics.retain(|topic| seen.insert(topic.clone()));
        let stop = Stop::on_signal()?;
        let mut client = self.connect.client("tickring-sub")?;
        let options = SubscribeOptions {
            from: self.from.map_or(StartAt::Now, |seq| StartAt::Seq {
                seq: seq.get(),
                epoch: 0,
            }),
            policy: match self.conflate {
                true => Policy::Conflate,
                false => Policy::Resume,
            },
        };
        for topic in &self.topics {
            client.subscribe(topic, options)?;
        }
        let mut follower = Follower::new(&self);
        follower.follow(&mut client, &stop)?;
        follower.out.flush().map_err(Failure::Output)?;
        let _ = client.close(CLOSE); // what still comes is not asked for any more
        Ok(())
    }
}

/// Prints notices, and knows when it is enough.
struct Follower<'a> {
    sub: &'a Sub,
    out: BufWriter<StdoutLock<'static>>,
    columns: Columns,
    /// Events still to come before the end; 0: without end.
    left: u64,
    /// Whether something was printed since this was last looked at.
    printed: bool,
    offline: Option<Reason>,
}

impl<'a> Follower<'a> {
    fn new(sub: &'a Sub) -> Self {
        let width = sub.topics.iter().map(|topic| topic.chars().count()).max();
        Self {
            sub,
            out: BufWriter::with_capacity(64 << 10, io::stdout().lock()),
            columns: Columns::new(width.unwrap_or(0)),
            left: sub.count.map_or(0, NonZeroU64::get),
            printed: false,
            offline: None,
        }
    }

    /// Prints until it is enough. Output is flushed whenever there is nothing more to print at
    /// the moment.
    fn follow(&mut self, client: &mut Client, stop: &Stop) -> Result<(), Failure> {
        let mut active = Instant::now();
        while !stop.is_asked() {
            if let Some(notice) = client.next(Duration::ZERO)? {
                if self.on(notice)?.is_break() {
                    return Ok(());
                }
                continue;
            }
            self.out.flush().map_err(Failure::Output)?;
            if std::mem::take(&mut self.printed) {
                active = Instant::now();
            }
            let mut wait = NAP;
            if let Some(limit) = self.sub.idle_exit {
                let left = limit.saturating_sub(active.elapsed());
                if left.is_zero() {
                    return Ok(());
                }
                wait = wait.min(left);
            }
            if let Some(notice) = client.next(wait)?
                && self.on(notice)?.is_break()
            {
                return Ok(());
            }
        }
        Ok(())
    }

    fn on(&mut self, notice: Notice<'_>) -> Result<ControlFlow<()>, Failure> {
        match notice {
            Notice::Event { topic, event, .. } => {
                self.printed = true;
                match self.sub.json {
                    true => json::event(&mut self.out, topic, &event),
                    false => self.columns.event(&mut self.out, topic, &event),
                }
                .map_err(Failure::Output)?;
                if self.left == 1 {
                    return Ok(ControlFlow::Break(()));
                }
                self.left = self.left.saturating_sub(1);
            }
            Notice::Snapshot {
                topic, snapshot, ..
            } => {
                self.printed = true;
                match self.sub.json {
                    true => json::snapshot(&mut self.out, topic, &snapshot),
                    false => self.columns.snapshot(&mut self.out, topic, &snapshot),
                }
                .map_err(Failure::Output)?;
            }
            Notice::Gap { topic, gap, .. } if gap.reason == GapReason::Delayed => {
                let (name, first) = (reason_name(gap.reason), gap.first_seq);
                self.chat(format_args!(
                    "{topic}: {name} from {first} on; they come later"
                ));
            }
            Notice::Gap { topic, gap, .. } => {
                self.printed = true;
                match self.sub.json {
                    true => json::gap(&mut self.out, topic, &gap),
                    false => self.columns.gap(&mut self.out, topic, &gap),
                }
                .map_err(Failure::Output)?;
            }
            Notice::Subscribed {
                topic,
                next_seq,
                resumed,
                ..
            } => {
                let how = if resumed { "again " } else { "" };
                self.chat(format_args!("{topic}: subscribed {how}from {next_seq} on"));
            }
            Notice::Refused(refused) => self.refused(&refused)?,
            Notice::Disconnected(end) => self.disconnected(&end),
            Notice::Connected { .. } if self.offline.take().is_some() => {
                tell(format_args!(
                    "connected again to {}",
                    self.sub.connect.connect
                ));
            }
            Notice::Goodbye { code, text, .. } => {
                let code = code_name(code);
                self.chat(format_args!("the server says goodbye: {code} {text}"));
            }
            _ => {}
        }
        Ok(ControlFlow::Continue(()))
    }

    fn chat(&self, line: std::fmt::Arguments<'_>) {
        if self.sub.verbose {
            tell(line);
        }
    }

    /// A refused subscription ends it all; when the server closes the connection, the client
    /// makes it anew.
    fn refused(&self, refused: &Refused<'_>) -> Result<(), Failure> {
        if refused.fatal {
            self.chat(format_args!("the server: {}", refused.text));
            return Ok(());
        }
        Err(Failure::Refused {
            what: refused.topic.unwrap_or("a request").to_owned(),
            code: refused.code,
            text: refused.text.to_owned(),
        })
    }

    /// Says so once, however long it takes to connect again.
    fn disconnected(&mut self, end: &Disconnected) {
        if self.offline.replace(end.reason).is_none() && end.retry_in.is_some() {
            tell(format_args!(
                "disconnected: {}; connecting again",
                end.reason
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_above_zero_and_may_have_decimals() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(seconds("10"), Ok(Duration::from_secs(10)));
        for bad in ["0", "-1", "x", "", "inf", "NaN"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
