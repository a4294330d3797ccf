//! The publisher of the demo: a made-up market, over TCP like any other.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tickring_client::protocol::Publish;
use tickring_client::{Client, ClientError, Notice, Options, TopicHandle};
use tickring_feed::Synth;

use crate::cli::clock::wall_ns;
use crate::cli::failure::Failure;
use crate::cli::signals::Stop;

/// The longest sleep between two looks at the clock.
const NAP: Duration = Duration::from_millis(50);
/// How long the server gets to confirm the last events.
const CONFIRM: Duration = Duration::from_secs(5);
/// Ticks published before the connection is looked after again.
const BURST: usize = 256;

/// The topic of an instrument.
pub(super) fn topic(symbol: &str) -> String {
    format!("market/{symbol}")
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
    let mut client = Options::new(address.to_string())
        .name("demo-market")
        .connect()?;
    let symbols = market.symbols();
    let topics = (0..symbols)
        .map(|index| client.topic(&topic(market.symbol(index))))
        .collect::<Result<Vec<_>, _>>()?;
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
            body.clear();
            tick.content.encode(&mut body);
            let publish = Publish {
                kind: tick.content.kind() as u16,
                event_ns: wall_ns(), // so that the table can tell how long it took
                body: &body,
            };
            client.publish(topics[tick.symbol], &publish)?;
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
