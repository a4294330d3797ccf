//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::payload::Stamp;
use crate::plan::{Load, SlowPolicy};
use crate::target::Protocol;
use crate::topics::Kind;

/// Loads a server, and checks every event of every connection for loss, duplicates and order.
///
/// Exit code: 0 all was well; 1 events were lost, duplicated, out of order or came after
/// UNSUBSCRIBED; 2 usage; 3 the run could not be done.
#[derive(Debug, Parser)]
#[command(name = "tickring-loadgen", version)]
pub struct Options {
    /// What is common to all scenarios.
    #[command(flatten)]
    pub common: Common,
    /// What is done.
    #[command(subcommand)]
    pub scenario: Scenario,
}

/// Options of every scenario.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// The server's address
    #[arg(
        long,
        global = true,
        value_name = "ADDR",
        env = "TICKRING_CONNECT",
        default_value = "127.0.0.1:7400"
    )]
    pub connect: String,
    /// The protocol that the server speaks
    #[arg(long, global = true, value_enum, default_value_t = Protocol::Tickring)]
    pub target: Protocol,
    /// What the topics are, of tickring's kinds: in memory, durable, or quotes of instruments
    #[arg(long, global = true, value_enum, default_value_t = Kind::Stream)]
    pub kind: Kind,
    /// Measure this process: CPU per delivery, memory per connection
    #[arg(long, global = true, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// Write the report as JSON; `-` is standard output, instead of the table
    #[arg(long, global = true, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Export the latency histogram: a percentile distribution if the name ends in .hgrm, otherwise an HdrHistogram V2 log
    #[arg(long, global = true, value_name = "FILE")]
    pub hdr: Option<PathBuf>,
    /// Worker processes [default: one for each 10,000 connections]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub processes: Option<u32>,
    /// Threads for the connections of each process [default: what is left of half the cores]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub threads: Option<u32>,
    /// What subscriptions ask for when their connection reads too slowly
    #[arg(long, global = true, value_enum, default_value_t = SlowPolicy::Resume)]
    pub policy: SlowPolicy,
    /// Connections that each thread opens at a time, at most
    #[arg(long, global = true, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub window: u32,
    /// Seconds that connecting and subscribing may take
    #[arg(long, global = true, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub connect_timeout: Duration,
    /// Seconds without any event after which those that are missing are given up
    #[arg(long, global = true, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub drain_timeout: Duration,
}

/// The scenarios.
#[derive(Clone, Debug, Subcommand)]
pub enum Scenario {
    /// Publishers on a schedule, subscribers that check everything
    Fanout(Fanout),
    /// Round trips: each connection publishes to itself
    Pingpong(PingPongOptions),
    /// A connect storm: everybody connects and subscribes at once
    Connect(ConnectOptions),
    /// Subscribe, unsubscribe and close at random moments while events flow
    Churn(ChurnOptions),
    /// Slow readers: latency of the others while some stall, and while none does, in turns
    Stall(StallOptions),
    /// One process of a run; started by the others
    #[command(hide = true)]
    Worker,
}

/// Topics and messages.
#[derive(Clone, Copy, Debug, Args)]
pub struct Traffic {
    /// Topics (`stream/lg-<run>-<n>`, or another `--kind`)
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub topics: u32,
    /// Publishing connections; they share the topics evenly
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub publishers: u32,
    /// Bytes of a message's payload, 24 or more: the first 24 are the stamp that the checks read.
    /// Quotes have a length of their own
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = payload)]
    pub payload: usize,
}

/// Options of `fanout`.
#[derive(Clone, Debug, Args)]
pub struct Fanout {
    /// Subscribing connections
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: u32,
    /// Topics and messages.
    #[command(flatten)]
    pub traffic: Traffic,
    /// Topics that each connection subscribes to, spread evenly
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub subscribe_each: u32,
    /// Messages a second in all, over all publishers and topics
    #[arg(long, value_name = "N", default_value_t = 100.0, value_parser = rate)]
    pub rate: f64,
    /// Seconds of publishing
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub seconds: Duration,
}

/// Options of `pingpong`.
#[derive(Clone, Debug, Args)]
pub struct PingPongOptions {
    /// Connections, each with a topic of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub connections: u32,
    /// Messages a second in all; without it, each connection sends when its last message is back
    #[arg(long, value_name = "N", value_parser = rate)]
    pub rate: Option<f64>,
    /// Bytes of a message's payload, 24 or more
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = payload)]
    pub payload: usize,
    /// Seconds of publishing
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub seconds: Duration,
    /// Never sleep: takes a whole core
    #[arg(long)]
    pub busy_poll: bool,
}

/// Options of `connect`.
#[derive(Clone, Debug, Args)]
pub struct ConnectOptions {
    /// Connections
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: u32,
    /// Topics, spread evenly over the connections
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub topics: u32,
    /// Seconds that the connections are held
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub hold: Duration,
}

/// Options of `churn`.
#[derive(Clone, Debug, Args)]
pub struct ChurnOptions {
    /// Connections
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: u32,
    /// Cycles in all: subscribe, receive some, unsubscribe or close
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub cycles: u64,
    /// Topics and messages.
    #[command(flatten)]
    pub traffic: Traffic,
    /// Messages a second in all
    #[arg(long, value_name = "N", default_value_t = 10_000.0, value_parser = rate)]
    pub rate: f64,
    /// Seconds that the cycles may take
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = seconds)]
    pub seconds: Duration,
}

/// Options of `stall`.
#[derive(Clone, Debug, Args)]
pub struct StallOptions {
    /// Connections that always read, and whose latency is compared
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: u32,
    /// Connections that stop reading in every second period
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub stalled: u32,
    /// Topics and messages.
    #[command(flatten)]
    pub traffic: Traffic,
    /// Topics that each connection subscribes to, spread evenly
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub subscribe_each: u32,
    /// Topics that each stalled reader subscribes to [default: as the others]. With more topics it
    /// falls behind fast while the others' load stays light
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub stalled_subscribe_each: Option<u32>,
    /// Messages a second in all
    #[arg(long, value_name = "N", default_value_t = 200.0, value_parser = rate)]
    pub rate: f64,
    /// Seconds of a period
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub period: Duration,
    /// How often all-read and some-stall alternate: A B A B is 2
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "not a number of seconds".to_owned())?;
    if !(0.0..=86_400.0).contains(&seconds) {
        return Err("must be between 0 and 86400".into());
    }
    Ok(Duration::from_secs_f64(seconds))
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if !(0.001..=10_000_000.0).contains(&rate) {
        return Err("must be between 0.001 and 10000000".into());
    }
    Ok(rate)
}

fn payload(text: &str) -> Result<usize, String> {
    let bytes: usize = text
        .parse()
        .map_err(|_| "not a number of bytes".to_owned())?;
    if !(Stamp::LEN..=1 << 20).contains(&bytes) {
        return Err(format!("must be between {} and {}", Stamp::LEN, 1 << 20));
    }
    Ok(bytes)
}

/// A run's shape, worked out from its options.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// What is done, by all workers together.
    pub load: Load,
    /// Connections, publishers and stalled readers not counted.
    pub connections: u32,
    /// Readers that stall.
    pub stalled: u32,
    /// Topics of each of them.
    pub stalled_each: u32,
    /// Topics.
    pub topics: u32,
    /// Topics of each connection.
    pub each: u32,
    /// Publishers.
    pub publishers: u32,
    /// Whether the publishers have connections of their own.
    pub publishes: bool,
    /// Bytes of a payload.
    pub payload: usize,
}

impl Options {
    /// The shape of the run; `None` for a worker, whose parent tells it.
    ///
    /// # Errors
    /// When options contradict each other, in the user's words.
    pub fn shape(&self) -> Result<Option<Shape>, String> {
        let shape = self.scenario.shape()?;
        let asks = shape.is_some_and(|shape| !self.common.target.can(&shape.load));
        if asks {
            return Err("--target nats, redis and floor do fanout, pingpong and connect: the other scenarios ask for what only tickring's protocol tells".into());
        }
        let knows_kinds = matches!(self.common.target, Protocol::Tickring | Protocol::Bridge);
        if self.common.kind != Kind::Stream && !knows_kinds {
            return Err(
                "--kind is for --target tickring and bridge: the others know no kinds".into(),
            );
        }
        let parted =
            shape.is_some_and(|shape| shape.publishes && shape.topics + shape.publishers > 2);
        if parted && self.common.target == Protocol::Floor {
            return Err("--target floor knows no topics and does not look at messages: give it one topic and one publisher".into());
        }
        Ok(shape)
    }
}

impl Scenario {
    /// The shape of the run; `None` for a worker, whose parent tells it.
    ///
    /// # Errors
    /// When options contradict each other, in the user's words.
    fn shape(&self) -> Result<Option<Shape>, String> {
        let base = Shape {
            load: Load::Connect { hold: 0.0 },
            connections: 0,
            stalled: 0,
            stalled_each: 1,
            topics: 1,
            each: 1,
            publishers: 1,
            publishes: false,
            payload: Stamp::LEN,
        };
        let publishing = |traffic: &Traffic| Shape {
            topics: traffic.topics,
            publishers: traffic.publishers,
            publishes: true,
            payload: traffic.payload,
            ..base
        };
        let shape = match self {
            Self::Fanout(o) => Shape {
                load: Load::Fanout {
                    rate: o.rate,
                    seconds: o.seconds.as_secs_f64(),
                },
                connections: o.connections,
                each: o.subscribe_each,
                ..publishing(&o.traffic)
            },
            Self::Pingpong(o) => Shape {
                load: Load::PingPong {
                    rate: o.rate,
                    seconds: o.seconds.as_secs_f64(),
                    busy_poll: o.busy_poll,
                },
                connections: o.connections,
                topics: o.connections,
                publishers: o.connections,
                payload: o.payload,
                ..base
            },
            Self::Connect(o) => Shape {
                load: Load::Connect {
                    hold: o.hold.as_secs_f64(),
                },
                connections: o.connections,
                topics: o.topics,
                ..base
            },
            Self::Churn(o) => Shape {
                load: Load::Churn {
                    cycles: o.cycles,
                    rate: o.rate,
                    seconds: o.seconds.as_secs_f64(),
                },
                connections: o.connections,
                ..publishing(&o.traffic)
            },
            Self::Stall(o) => Shape {
                load: Load::Stall {
                    rate: o.rate,
                    seconds: o.period.as_secs_f64() * 2.0 * f64::from(o.rounds),
                    period: o.period.as_secs_f64(),
                },
                connections: o.connections,
                stalled: o.stalled,
                stalled_each: o.stalled_subscribe_each.unwrap_or(o.subscribe_each),
                each: o.subscribe_each,
                ..publishing(&o.traffic)
            },
            Self::Worker => return Ok(None),
        };
        shape.check().map(|()| Some(shape))
    }
}

impl Shape {
    fn check(&self) -> Result<(), String> {
        if self.each > self.topics {
            return Err(format!(
                "--subscribe-each {} is more than there are --topics ({})",
                self.each, self.topics
            ));
        }
        if self.stalled_each > self.topics {
            return Err(format!(
                "--stalled-subscribe-each {} is more than there are --topics ({})",
                self.stalled_each, self.topics
            ));
        }
        if matches!(self.load, Load::Churn { .. }) && self.publishers > self.topics {
            return Err("churn needs --publishers to be at most --topics: it follows one counter for each topic".into());
        }
        if let Load::Stall { period, .. } = self.load
            && period < 0.1
        {
            return Err("--period must be at least 0.1".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn shape(args: &str) -> Result<Option<Shape>, String> {
        let args = std::iter::once("tickring-loadgen").chain(args.split_whitespace());
        Options::try_parse_from(args)
            .map_err(|error| error.to_string())?
            .shape()
    }

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }

    #[test]
    fn options_that_make_no_sense_are_refused() {
        for bad in [
            "fanout --payload 23",
            "fanout --topics 2 --subscribe-each 3",
            "fanout --rate 0",
            "fanout --seconds -1",
            "churn --publishers 2 --topics 1",
            "stall --period 0",
            "stall --topics 2 --stalled-subscribe-each 3",
            "churn --target nats",
            "stall --target redis",
            "fanout --target redis --kind log",
            "fanout --target floor --topics 2",
            "fanout --target floor --publishers 2",
            "nonsense",
        ] {
            assert!(shape(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn stall_lasts_for_its_rounds() {
        let found = shape("stall --period 2 --rounds 3 --stalled 5")
            .unwrap()
            .unwrap();
        assert_eq!(found.stalled, 5);
        assert!(matches!(found.load, Load::Stall { seconds: 12.0, .. }));
    }
}
