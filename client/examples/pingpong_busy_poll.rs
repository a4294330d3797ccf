//! One message at a time there and back, spinning: `pingpong_busy_poll ADDR COUNT`
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::time::{Duration, Instant};

use tickring_client::protocol::{EventKind, Publish};
use tickring_client::{ClientError, Notice, Options, SubscribeOptions};

fn main() -> Result<(), ClientError> {
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or_else(|| "127.0.0.1:7400".to_owned());
    let count: usize = args.next().and_then(|n| n.parse().ok()).unwrap_or(10_000);

    let mut client = Options::new(address)
        .name("example-pingpong")
        .busy_poll(true)
        .connect()?;
    let topic = client.topic("stream/pingpong")?;
    client.subscribe(topic, SubscribeOptions::default())?;
    wait(&mut client, |notice| {
        matches!(notice, Notice::Subscribed { .. })
    })?;

    let mut nanos: Vec<u128> = Vec::with_capacity(count);
    for number in 0..count as u64 {
        let number = number.to_le_bytes();
        let sent = Instant::now();
        client.publish(
            topic,
            &Publish {
                kind: EventKind::Message as u16,
                event_ns: 0,
                body: &number,
            },
        )?;
        client.flush()?;
        wait(
            &mut client,
            |notice| matches!(notice, Notice::Event { event, .. } if event.body == number),
        )?;
        nanos.push(sent.elapsed().as_nanos());
    }
    nanos.sort_unstable();
    if let (Some(median), Some(max)) = (nanos.get(count / 2), nanos.last()) {
        let p99 = nanos[count * 99 / 100];
        println!("there and back: p50 {median} ns, p99 {p99} ns, max {max} ns");
    }
    Ok(())
}

fn wait(
    client: &mut tickring_client::Client,
    wanted: impl Fn(Notice<'_>) -> bool,
) -> Result<(), ClientError> {
    loop {
        if client.next(Duration::from_secs(1))?.is_some_and(&wanted) {
            return Ok(());
        }
    }
}
