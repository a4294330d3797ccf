//! `tickring-bridge`: tickring for browsers.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use clap::Parser;
use tickring_bridge::Page;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Carry tickring to browsers over WebSockets, and serve the market page.
#[derive(Debug, Parser)]
#[command(name = "tickring-bridge", version)]
struct Cli {
    /// Address and port to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// Instruments of the market page, as in ACME,BOLT.
    #[arg(
        long,
        value_name = "NAMES",
        default_value = "",
        conflicts_with = "symbols_file"
    )]
    symbols: Page,

    /// A file that names them, separated by white space.
    #[arg(long, value_name = "FILE")]
    symbols_file: Option<String>,
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let cli = Cli::parse();
    let page = match &cli.symbols_file {
        Some(file) => Page::from_file(file)?,
        None => cli.symbols,
    };
    let listener = tokio::net::TcpListener::bind(cli.listen).await?;
    axum::serve(listener, tickring_bridge::routes(&page)).await
}
