//! Prints what happens on some topics: `subscribe ADDR TOPIC...`
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::time::Duration;

use tickring_client::protocol::EventKind;
use tickring_client::{ClientError, Notice, Options, StartAt, SubscribeOptions};

fn main() -> Result<(), ClientError> {
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or_else(|| "127.0.0.1:7400".to_owned());
    let mut client = Options::new(address).name("example-subscribe").connect()?;
    for topic in args {
        let options = SubscribeOptions {
            from: StartAt::Oldest,
            ..SubscribeOptions::default()
        };
        client.subscribe(&topic, options)?;
    }
    loop {
        client.poll(Duration::from_secs(1), |notice| match notice {
            Notice::Event { topic, event, .. } if event.kind == EventKind::Message as u16 => {
                let text = String::from_utf8_lossy(event.body);
                println!("{topic} #{}: {text}", event.seq);
            }
            Notice::Event { topic, event, .. } => {
                println!("{topic} #{}: {} bytes", event.seq, event.body.len());
            }
            other => println!("{other:?}"),
        })?;
    }
}
