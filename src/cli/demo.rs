//! `tickring demo`.

mod board;
mod market;
mod scratch;
mod trim;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use clap::Args;
use tickring::node::{DatabaseSettings, JournalSettings, Node, NodeConfig};
use tickring::writer::follow::Target;
use tickring_bridge::{Bridge, Config as BridgeConfig, Page, StartError};
use tickring_client::{Client, Notice, Options, SubscribeOptions};
use tickring_feed::{Synth, SynthConfig};
use tickring_protocol::DEFAULT_PORT;

use super::clock::wall_ns;
use super::failure::Failure;
use super::screen::Screen;
use super::signals::Stop;
use super::top::Reports;
use super::{serve, sub};
use board::Board;
use scratch::Scratch;
use trim::Trim;

/// Pictures a second on a terminal.
const PICTURES: u32 = 8;
/// Time from one print to the next elsewhere.
const PRINT: Duration = Duration::from_secs(1);

/// The first port that is tried for the market page, and how many more.
const PAGE_PORT: u16 = 8080;
const PAGE_PORTS: u16 = 20;

/// How long the journal keeps what is in the database: what a client that was away asks for.
const JOURNAL_KEPT: Duration = Duration::from_secs(60);

/// Watch a made-up market go through a server, all in this process, until Ctrl-C.
///
/// Starts a server and a bridge for browsers, publishes trades and quotes over TCP, prints where
/// the market page is, and shows the prices that a subscriber receives, as a live table on a
/// terminal and as a few lines a second elsewhere.
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Instruments.
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=1000))]
    symbols: u32,

    /// Trades and quotes a second, of all instruments together.
    #[arg(long, value_name = "R", default_value_t = 2000.0)]
    rate: f64,

    /// End after so many seconds.
    #[arg(long, value_name = "SECS", value_parser = sub::seconds)]
    seconds: Option<Duration>,

    /// Address of the server. Unless it is set: 127.0.0.1:7400, or a free port if that is taken.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,

    /// Address of the market page. Unless it is set: 127.0.0.1:8080, or the next free port.
    #[arg(long, value_name = "ADDR")]
    page: Option<SocketAddr>,

    /// Keep no history: charts on the market page then begin when they are opened. Otherwise the
    /// ticks of the last ten minutes (of fewer beyond 2,000 a second) are kept in a temporary
    /// directory of some 300 MB, which is removed at the end.
    #[arg(long)]
    in_memory: bool,

    /// Cores of the server. Unless it is set: half of the CPUs, so that the market and this table
    /// find room beside it.
    #[arg(long, value_name = "N")]
    cores: Option<usize>,
}

impl Demo {
    pub(super) fn run(self) -> Result<(), Failure> {
        let made_up = SynthConfig {
            symbols: self.symbols,
            rate: self.rate,
            seed: wall_ns(),
            start_ns: wall_ns(),
        };
        let market = Synth::new(made_up).map_err(|error| Failure::Usage(format!("--{error}")))?;
        let stop = Stop::on_signal()?;
        let data = match self.in_memory {
            true => None,
            false => Some(Scratch::new()?),
        };
        let node = self.start(data.as_ref())?;
        let address = node.local_addr();
        if data.is_some() {
            super::tell(format_args!(
                "making up what the market did until now, for charts that do not begin empty; Ctrl-C ends"
            ));
            market::past(address, &market, made_up, &stop)?;
        }
        if stop.is_asked() {
            node.shutdown();
            return node.wait().map_err(Failure::Node);
        }
        let _trimming = data.as_ref().map(|data| Trim::start(data, self.rate));

        let names: Vec<String> = (0..self.symbols as usize)
            .map(|index| market.symbol(index).to_owned())
            .collect();
        let bridge = self.start_bridge(address, &names)?;
        let page = bridge.local_addr();
        let first = &names[0];
        super::say(format_args!(
            "open http://{page}/ in a browser\n\
             or listen in from another shell: tickring sub market/{first} --connect {address}"
        ))?;
        let watched = self.watch(&stop, (address, page), &names, market);
        bridge.stop();
        node.shutdown();
        let ended = node.wait().map_err(Failure::Node);
        let summary = watched?;
        ended?;
        super::say(format_args!("{summary}"))
    }

    fn start(&self, data: Option<&Scratch>) -> Result<Node, Failure> {
        let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT));
        let listen = self
            .listen
            .unwrap_or_else(|| match TcpListener::bind(usual) {
                Ok(_) => usual,
                Err(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            });
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let journal = data.map(|data| JournalSettings {
            database: Some(DatabaseSettings::new(Target::Sqlite(data.database()))),
            retention: JOURNAL_KEPT,
            ..JournalSettings::new(data.path().join("journal"))
        });
        serve::start(NodeConfig {
            listen,
            cores: self.cores.unwrap_or((processors / 2).clamp(1, 4)),
            // The demo's own threads need a place as well.
            pin: false,
            journal,
            ..NodeConfig::default()
        })
    }

    /// Takes the first free port from the usual one on, unless an address was asked for.
    fn start_bridge(&self, server: SocketAddr, names: &[String]) -> Result<Bridge, Failure> {
        let start = |listen| {
            Bridge::start(BridgeConfig {
                listen,
                upstream: server.to_string(),
                page: Page::new(names.iter().cloned()).period("1s"),
                ..BridgeConfig::default()
            })
        };
        let usual = (PAGE_PORT..PAGE_PORT + PAGE_PORTS).chain([0]);
        let candidates: Vec<SocketAddr> = match self.page {
            Some(asked) => vec![asked],
            None => usual
                .map(|port| (Ipv4Addr::LOCALHOST, port).into())
                .collect(),
        };
        let mut last = None;
        for listen in candidates {
            match start(listen) {
                Err(error @ StartError::Listen { .. }) => last = Some(error),
                other => return other.map_err(Failure::Bridge),
            }
        }
        Err(Failure::Bridge(
            last.expect("there is a candidate at least"),
        ))
    }

    /// Runs the market beside the table, until the end; then tells what happened in a line.
    fn watch(
        &self,
        stop: &Stop,
        (address, page): (SocketAddr, SocketAddr),
        names: &[String],
        market: Synth,
    ) -> Result<String, Failure> {
        let mut client = Options::new(address.to_string())
            .name("demo-table")
            .connect()?;
        let mut board = Board::new((address, page), names);
        for (name, place) in names.iter().zip(0..) {
            let topic = client.topic(&market::topic(name))?;
            client.subscribe(topic, SubscribeOptions::default())?;
            board.seat(topic, place);
        }
        let publisher = market::start(address, market, stop.clone())?;
        let shown = self.show(stop, &mut client, &mut board);
        stop.ask();
        let published = publisher
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        shown?;
        Ok(board.summary(published?))
    }

    /// Shows the board until the end. The screen is given back before anything else is said.
    fn show(&self, stop: &Stop, client: &mut Client, board: &mut Board) -> Result<(), Failure> {
        let mut reports = Reports::new(client)?;
        let screen = Screen::open().map_err(Failure::Output)?;
        let period = match screen.height() {
            Some(_) => Duration::from_secs(1) / PICTURES,
            None => PRINT,
        };
        let started = Instant::now();
        let mut next = started + period;
        while !stop.is_asked() && self.seconds.is_none_or(|limit| started.elapsed() < limit) {
            let now = Instant::now();
            if now >= next {
                next = now + period;
                let lines = board.lines(&reports.node, screen.height());
                screen.show(&lines).map_err(Failure::Output)?;
                reports.node.start_interval(); // each report counts from the one before
            }
            let mut cores = 0;
            match client.next(next.saturating_duration_since(now))? {
                Some(Notice::Event { handle, event, .. }) => {
                    let is_price = board.event(handle, &event);
                    let report = (!is_price).then(|| reports.node.report(event.body));
                    cores = report.flatten().unwrap_or(0);
                }
                Some(Notice::Snapshot {
                    handle, snapshot, ..
                }) => board.snapshot(handle, &snapshot),
                Some(Notice::Refused(refused)) => {
                    return Err(Failure::Refused {
                        what: refused.topic.unwrap_or("a request").to_owned(),
                        code: refused.code,
                        text: refused.text.to_owned(),
                    });
                }
                Some(Notice::Disconnected(end)) => {
                    return Err(tickring_client::ClientError::Disconnected(end.reason).into());
                }
                _ => {}
            }
            reports.subscribe(client, cores)?;
        }
        Ok(())
    }
}
