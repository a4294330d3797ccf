//! The native client of tickring, for users who care about latency.
//!
//! - [`Session`] is the protocol's client side without socket or clock: subscriptions, order,
//!   resumption, publishing. Build a driver of one's own on it.
//! - [`Client`] drives a session over TCP, blocking, without a runtime; optionally it spins
//!   instead of sleeping.
//! - `AsyncClient` drives one on tokio (feature `tokio`): see `Options::connect_async`.
//!
//! ```no_run
//! use std::time::Duration;
//! use tickring_client::{Notice, Options, SubscribeOptions};
//!
//! let mut client = Options::new("127.0.0.1:7400").name("example").connect()?;
//! client.subscribe("market/AAPL", SubscribeOptions::default())?;
//! while let Some(notice) = client.next(Duration::from_secs(1))? {
//!     if let Notice::Event { topic, event, .. } = notice {
//!         println!("{topic} {}", event.seq);
//!     }
//! }
//! # Ok::<(), tickring_client::ClientError>(())
//! ```
#![forbid(unsafe_code)]

#[cfg(feature = "tokio")]
mod asynchronous;
mod blocking;
mod history;
mod link;
mod notice;
mod options;
mod session;

#[cfg(feature = "tokio")]
pub use asynchronous::{AsyncClient, Notices};
pub use blocking::{Client, ClientError, CommandReply};
pub use history::{HistoryQuery, HistoryRows};
pub use notice::{Disconnected, Notice, OwnedNotice, ProtocolError, Reason, Refused};
pub use options::Options;
pub use session::{
    RequestError, Session, SessionConfig, StartAt, SubscribeOptions, TopicHandle, TopicRef,
};
pub use tickring_protocol as protocol;
