//! Prints what happens on some topics, on tokio: `async_subscribe ADDR TOPIC...`
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use tickring_client::{ClientError, Notice, Options, SubscribeOptions};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), ClientError> {
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or_else(|| "127.0.0.1:7400".to_owned());
    let options = Options::new(address).name("example-async-subscribe");
    let (client, mut notices) = options.connect_async().await?;
    for topic in args {
        client
            .subscribe(&topic, SubscribeOptions::default())
            .await?;
    }
    while let Some(notice) = notices.next().await {
        match notice.get() {
            Notice::Event { topic, event, .. } => {
                println!("{topic} #{}: {} bytes", event.seq, event.body.len());
            }
            other => println!("{other:?}"),
        }
    }
    Ok(())
}
