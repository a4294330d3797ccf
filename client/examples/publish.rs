//! Publishes numbered messages as fast as they go: `publish ADDR TOPIC COUNT`
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::time::{Duration, Instant};

use tickring_client::protocol::{EventKind, Publish};
use tickring_client::{ClientError, Notice, Options};

fn main() -> Result<(), ClientError> {
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or_else(|| "127.0.0.1:7400".to_owned());
    let topic = args.next().unwrap_or_else(|| "stream/example".to_owned());
    let count: u64 = args.next().and_then(|n| n.parse().ok()).unwrap_or(100_000);

    let mut client = Options::new(address).name("example-publish").connect()?;
    let topic = client.topic(&topic)?;
    let started = Instant::now();
    for number in 1..=count {
        let body = format!("message {number}");
        client.publish(
            topic,
            &Publish {
                kind: EventKind::Message as u16,
                event_ns: 0,
                body: body.as_bytes(),
            },
        )?;
    }
    client.barrier(Duration::from_secs(30))?;
    let rate = count as f64 / started.elapsed().as_secs_f64();
    println!("{count} messages, {rate:.0} a second");
    client.poll(Duration::ZERO, |notice| {
        if let Notice::Refused(refused) = notice {
            println!("refused: {refused:?}");
        }
    })?;
    Ok(())
}
