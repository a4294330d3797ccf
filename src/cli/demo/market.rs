//! The publisher of the demo: a made-up market, over TCP like any other.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tickring_client::protocol::{ErrorCode, Publish, Series};
use tickring_client::{Client, ClientError, HistoryQuery, Notice, Options, TopicHandle};
use tickring_feed::{Content, Synth, SynthConfig, SynthTick};

use crate::cli::clock::wall_ns;
use crate::cli::failure::Failure;
use crate::cli::signals::Stop;

/// The longest sleep between two looks at the clock.
const NAP: Duration = Duration::from_millis(50);
/// How long the server gets to confirm the last events.
const CONFIRM: Duration = Duration::from_secs(5);
/// How long the database gets to store the past.
const STORED: Duration = Duration::from_secs(10);
/// The longest wait for an answer before the user is heard again.
const ANSWER: Duration = Duration::from_millis(100);
/// Ticks published before the connection is looked after again.
const BURST: usize = 256;
/// How far the past goes back that the page's chart begins with, and how many trades it has at most.
const PAST: Duration = Duration::from_secs(120);
const PAST_TRADES: usize = 60_000;

/// The topic of an instrument.
pub(super) fn topic(symbol: &str) -> String {
    format!("market/{symbol}")
}

/// Publishes what was before the market's start, so that charts do not begin empty: the same walk of
/// prices, told backwards, which therefore ends where the market begins. Trades only: quotes are
/// three times as many, and nobody looks at old ones. Returns early when the end is asked for.
///
/// # Errors
/// [`Failure`] when the server cannot be reached, or refuses something.
pub(super) fn past(
    address: SocketAddr,
    market: &Synth,
    config: SynthConfig,
    stop: &Stop,
) -> Result<(), Failure> {
    let (mut client, topics) = connect(address, market)?;
    let trades: Vec<SynthTick> = market
        .clone()
        .take_while(|tick| tick.due_ns < PAST.as_nanos() as u64)
        .filter(|tick| matches!(tick.content, Content::Trade(_)))
        .take(PAST_TRADES)
        .collect();
    let mut body = Vec::new();
    for burst in trades.rchunks(BURST) {
        if stop.is_asked() {
            return Ok(());
        }
        for tick in burst.iter().rev() {
            let event_ns = config.start_ns - tick.due_ns;
            send(&mut client, &topics, tick, event_ns, &mut body)?;
        }
        client.flush()?;
        notice(&mut client, Duration::ZERO)?;
    }
    let mut newest = vec![None; market.symbols()];
    for tick in trades.iter().rev() {
        newest[tick.symbol] = Some(config.start_ns - tick.due_ns);
    }
    await_stored(&mut client, market, &newest, stop)
}

/// Waits until the database has the newest trade of each instrument, which was sent last: whoever
/// opens the page then sees all of the past. A database that is too slow leaves it short.
fn await_stored(
    client: &mut Client,
    market: &Synth,
    newest: &[Option<u64>],
    stop: &Stop,
) -> Result<(), Failure> {
    let give_up = Instant::now() + STORED;
    for (symbol, event_ns) in newest.iter().enumerate() {
        let Some(from_ns) = *event_ns else { continue };
        let query = HistoryQuery {
            limit: 1,
            from_ns,
            ..HistoryQuery::of(Series::Ticks)
        };
        while !is_stored(client, &topic(market.symbol(symbol)), query)? {
            if stop.is_asked() || Instant::now() >= give_up {
                return Ok(());
            }
            notice(client, Duration::from_millis(10))?;
        }
    }
    Ok(())
}

/// Whether the database has what is asked for. One that is too busy to answer is asked again.
fn is_stored(client: &mut Client, topic: &str, query: HistoryQuery) -> Result<bool, Failure> {
    match client.history(topic, query, ANSWER) {
        Ok(rows) => Ok(!rows.page().is_empty()),
        Err(ClientError::Timeout) => Ok(false),
        Err(ClientError::Refused { code, .. }) if code == ErrorCode::Overloaded as u16 => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Publishes in a thread of its own until the end; yields how many ticks. An error asks for the
/// end as well.
///
/// # Errors
/// [`Failure`] when the server cannot be reached, or no thread be started.
pub(super) fn start(
    address: SocketAddr,
    mut market: Synth,
    stop: Stop,
) -> Result<JoinHandle<Result<u64, Failure>>, Failure> {
    let (mut client, topics) = connect(address, &market)?;
    std::thread::Builder::new()
        .name("demo-market".to_owned())
        .spawn(move || {
            let published = publish(&mut client, &topics, &mut market, &stop);
            if published.is_err() {
                stop.ask();
            }
            published
        })
        .map_err(Failure::System)
}

fn connect(address: SocketAddr, market: &Synth) -> Result<(Client, Vec<TopicHandle>), Failure> {
    let mut client = Options::new(address.to_string())
        .name("demo-market")
        .connect()?;
    let topics = (0..market.symbols())
        .map(|index| client.topic(&topic(market.symbol(index))))
        .collect::<Result<Vec<_>, _>>()?;
    Ok((client, topics))
}

fn send(
    client: &mut Client,
    topics: &[TopicHandle],
    tick: &SynthTick,
    event_ns: u64,
    body: &mut Vec<u8>,
) -> Result<(), Failure> {
    body.clear();
    tick.content.encode(body);
    let publish = Publish {
        kind: tick.content.kind() as u16,
        event_ns,
        body,
    };
    Ok(client.publish(topics[tick.symbol], &publish)?)
}

fn publish(
    client: &mut Client,
    topics: &[TopicHandle],
    market: &mut Synth,
    stop: &Stop,
) -> Result<u64, Failure> {
    let started = Instant::now();
    let elapsed_ns = || u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let (mut published, mut body) = (0, Vec::new());
    while !stop.is_asked() {
        for _ in 0..BURST {
            let Some(tick) = market.next_due(elapsed_ns()) else {
                break;
            };
            // The wall's time, so that the table can tell how long it took.
            send(client, topics, &tick, wall_ns(), &mut body)?;
            published += 1;
        }
        client.flush()?;
        let wait = Duration::from_nanos(market.next_due_ns().saturating_sub(elapsed_ns()));
        notice(client, wait.min(NAP))?;
    }
    client.barrier(CONFIRM)?;
    Ok(published)
}

/// Waits, and looks at what the server says meanwhile.
fn notice(client: &mut Client, wait: Duration) -> Result<(), Failure> {
    match client.next(wait)? {
        Some(Notice::Refused(refused)) => Err(Failure::Refused {
            what: refused.topic.unwrap_or("a publish").to_owned(),
            code: refused.code,
            text: refused.text.to_owned(),
        }),
        Some(Notice::Disconnected(end)) => Err(ClientError::Disconnected(end.reason).into()),
        _ => Ok(()),
    }
}
