//! `tickring journal`: looks at a journal without changing it.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tickring::journal::record::Record;
use tickring::journal::{Entry, LaneReport, dump, lane_dir, lanes, verify};

use super::failure::Failure;
use super::recovery;

/// Look at a journal, of a running server too, without changing anything.
#[derive(Debug, Args)]
pub(super) struct Journal {
    #[command(subcommand)]
    look: Look,
}

#[derive(Debug, Subcommand)]
enum Look {
    /// Read every record, and check checksums and the order of seqs. Exit code 1 if anything is
    /// wrong. A torn end, as a crash leaves it or a running server writes it, is not.
    Verify(Which),
    /// Print every record, one a line.
    Dump(Dump),
    /// Tell what the journal holds, by lane and segment.
    Stat(Which),
}

#[derive(Debug, Args)]
struct Which {
    /// The data directory, as `tickring serve --data` has it.
    #[arg(long, env = "TICKRING_DATA", value_name = "DIR")]
    data: PathBuf,

    /// Only this lane.
    #[arg(long, value_name = "N")]
    lane: Option<u32>,

    /// Print JSON: one object for each lane.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Dump {
    #[command(flatten)]
    which: Which,

    /// Only records of this topic.
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
}

impl Journal {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.look {
            Look::Verify(which) => which.verify(),
            Look::Stat(which) => which.stat(),
            Look::Dump(dump) => dump.run(),
        }
    }
}

impl Which {
    fn dir(&self) -> PathBuf {
        self.data.join("journal")
    }

    fn lanes(&self) -> Result<Vec<u32>, Failure> {
        let dir = self.dir();
        let count = lanes(&dir).map_err(Failure::Journal)?;
        match self.lane {
            _ if count == 0 => Err(Failure::Usage(format!(
                "there is no journal in {}",
                dir.display()
            ))),
            Some(lane) if lane >= count => Err(Failure::Usage(format!(
                "--lane is {lane}, and the journal has {count} lanes, counted from 0"
            ))),
            Some(lane) => Ok(vec![lane]),
            None => Ok((0..count).collect()),
        }
    }

    /// Reads a lane, and tells how many seconds that took.
    fn read(&self, lane: u32) -> Result<(LaneReport, f64), Failure> {
        let progress = Arc::default();
        let shown = recovery::show(&progress, "reading the journal");
        let begin = Instant::now();
        let report = verify(&lane_dir(&self.dir(), lane), lane, &progress);
        let seconds = begin.elapsed().as_secs_f64();
        drop(shown);
        Ok((report.map_err(Failure::Journal)?, seconds))
    }

    fn verify(&self) -> Result<(), Failure> {
        let mut bad = 0;
        for lane in self.lanes()? {
            let (report, seconds) = self.read(lane)?;
            bad += u32::from(!report.is_good());
            self.tell(lane, &report, seconds)?;
        }
        match bad {
            0 => Ok(()),
            _ => Err(Failure::Unsound),
        }
    }

    fn tell(&self, lane: u32, report: &LaneReport, seconds: f64) -> Result<(), Failure> {
        let events: u64 = report.segments.iter().map(|segment| segment.events).sum();
        if self.json {
            return super::say(format_args!("{}", summary(lane, report, events, seconds)));
        }
        let rate = events as f64 / seconds.max(1e-9) / 1e6;
        let state = if report.is_good() { "good" } else { "NOT GOOD" };
        super::say(format_args!(
            "lane {lane}: {state}; {} segments, {} topics, {events} events up to position {} ({rate:.1} million events/s)",
            report.segments.len(),
            report.topics.len(),
            report.position,
        ))?;
        if let Some(cut) = &report.torn {
            let (file, offset) = (cut.file.display(), cut.offset);
            super::say(format_args!(
                "  torn end at byte {offset} of {file} ({}); the next start cuts it, no acknowledged event is there",
                cut.why
            ))?;
        }
        for broken in &report.seq_breaks {
            super::say(format_args!(
                "  {}: seq {} where {} was due, at position {}",
                broken.topic, broken.found, broken.expected, broken.position
            ))?;
        }
        match &report.error {
            Some(error) => super::say(format_args!("  {error}")),
            None => Ok(()),
        }
    }

    fn stat(&self) -> Result<(), Failure> {
        for lane in self.lanes()? {
            let (report, seconds) = self.read(lane)?;
            self.tell(lane, &report, seconds)?;
            if self.json {
                continue;
            }
            for segment in &report.segments {
                super::say(format_args!(
                    "  {:020}  {:>11} bytes  {:>10} events  {:>8} replies  {:>7} snapshots  {} to {}",
                    segment.first,
                    segment.file_bytes,
                    segment.events,
                    segment.replies,
                    segment.snapshots,
                    super::clock::utc(segment.oldest_ns),
                    super::clock::utc(segment.newest_ns),
                ))?;
            }
        }
        Ok(())
    }
}

fn summary(lane: u32, report: &LaneReport, events: u64, seconds: f64) -> Value {
    let segments: Vec<Value> = report
        .segments
        .iter()
        .map(|segment| {
            json!({
                "first": segment.first,
                "file_bytes": segment.file_bytes,
                "events": segment.events,
                "replies": segment.replies,
                "snapshots": segment.snapshots,
                "oldest_ns": segment.oldest_ns,
                "newest_ns": segment.newest_ns,
            })
        })
        .collect();
    let breaks: Vec<Value> = report
        .seq_breaks
        .iter()
        .map(|broken| {
            json!({
                "topic": broken.topic,
                "position": broken.position,
                "expected": broken.expected,
                "found": broken.found,
            })
        })
        .collect();
    json!({
        "lane": lane,
        "good": report.is_good(),
        "position": report.position,
        "topics": report.topics.len(),
        "events": events,
        "seconds": seconds,
        "torn_at": report.torn.as_ref().map(|cut| cut.offset),
        "error": report.error.as_ref().map(ToString::to_string),
        "seq_breaks": breaks,
        "segments": segments,
    })
}

impl Dump {
    fn run(&self) -> Result<(), Failure> {
        let mut out = BufWriter::new(io::stdout().lock());
        for lane in self.which.lanes()? {
            let dir = lane_dir(&self.which.dir(), lane);
            self.lane(lane, &dir, &mut out)?;
        }
        out.flush().map_err(Failure::Output)
    }

    fn lane(&self, lane: u32, dir: &Path, out: &mut impl Write) -> Result<(), Failure> {
        let (mut names, mut failed) = (Vec::<Box<str>>::new(), None);
        let dumped = dump(dir, lane, |entry| {
            if let Record::Topic(topic) = entry.record
                && entry.topic == names.len()
            {
                names.push(topic.name.into());
            }
            let name = &names[entry.topic];
            let wanted = self.topic.as_deref().is_none_or(|topic| topic == &**name);
            if wanted && failed.is_none() {
                let line = if self.which.json {
                    writeln!(out, "{}", as_json(lane, name, entry))
                } else {
                    writeln!(out, "{}", as_text(lane, name, entry))
                };
                failed = line.err();
            }
        });
        match failed {
            Some(error) => Err(Failure::Output(error)),
            None => dumped.map_err(Failure::Journal),
        }
    }
}

/// Bytes as hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Sessions are secrets: only their first digits are shown, which is enough to tell them apart.
fn session(token: u128) -> String {
    format!("{:08x}", token >> 96)
}

fn as_text(lane: u32, topic: &str, entry: &Entry<'_>) -> String {
    let at = format!("{lane} {:>14}", entry.position);
    match entry.record {
        Record::Topic(record) => format!("{at} topic    {topic} epoch {}", record.epoch),
        Record::Event(event) => format!(
            "{at} event    {topic} seq {} kind {} session {} request {} event_ns {} node_ns {} body {}",
            event.seq,
            event.kind,
            session(event.session),
            event.request_id,
            event.event_ns,
            event.node_ns,
            hex(event.body)
        ),
        Record::Reply(reply) => format!(
            "{at} reply    {topic} seq {} code {} session {} request {} node_ns {} payload {}",
            reply.seq,
            super::failure::code_name(reply.code),
            session(reply.session),
            reply.request_id,
            reply.node_ns,
            hex(reply.payload)
        ),
        Record::Snapshot(state) => format!(
            "{at} snapshot {topic} seq {} node_ns {} state {}",
            state.seq,
            state.node_ns,
            hex(state.state)
        ),
        Record::Mark { .. } => format!("{at} mark"),
    }
}

fn as_json(lane: u32, topic: &str, entry: &Entry<'_>) -> Value {
    let mut line = match entry.record {
        Record::Topic(record) => json!({"record": "topic", "epoch": record.epoch}),
        Record::Event(event) => json!({
            "record": "event",
            "seq": event.seq,
            "kind": event.kind,
            "session": session(event.session),
            "request_id": event.request_id,
            "event_ns": event.event_ns,
            "node_ns": event.node_ns,
            "body": hex(event.body),
        }),
        Record::Reply(reply) => json!({
            "record": "reply",
            "seq": reply.seq,
            "code": super::failure::code_name(reply.code),
            "session": session(reply.session),
            "request_id": reply.request_id,
            "node_ns": reply.node_ns,
            "payload": hex(reply.payload),
        }),
        Record::Snapshot(state) => json!({
            "record": "snapshot",
            "seq": state.seq,
            "node_ns": state.node_ns,
            "state": hex(state.state),
        }),
        Record::Mark { .. } => json!({"record": "mark"}),
    };
    line["lane"] = lane.into();
    line["position"] = entry.position.into();
    line["topic"] = topic.into();
    line
}
