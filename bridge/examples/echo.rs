//! Sends back what it is sent, on the WebSocket that the bridge is built on: what the Autobahn
//! test suite needs to judge a server.
//!
//! ```sh
//! cargo build --release -p tickring-bridge --example echo
//! tests/autobahn --all target/release/examples/echo
//! ```
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "it tells where it listens")]

use axum::Router;
use axum::extract::WebSocketUpgrade;
use axum::extract::ws::{Message, WebSocket};
use axum::routing::any;

/// The suite sends messages of 16 MiB.
const MOST: usize = 64 << 20;

async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if matches!(message, Message::Text(_) | Message::Binary(_))
            && socket.send(message).await.is_err()
        {
            return;
        }
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1);
    let address = address.unwrap_or_else(|| "127.0.0.1:9001".to_owned());
    let upgrade = async |upgrade: WebSocketUpgrade| {
        upgrade
            .read_buffer_size(4 << 10)
            .write_buffer_size(0)
            .max_message_size(MOST)
            .max_frame_size(MOST)
            .on_upgrade(echo)
    };
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, Router::new().fallback(any(upgrade))).await
}
