//! The fixed part of each body as it lies on the wire, readable in place.

use zerocopy::little_endian::{I32, I64, U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

macro_rules! layouts {
    ($($name:ident { $($field:ident: $type:ty,)* })*) => {
        $(
            #[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
            #[repr(C)]
            pub(crate) struct $name { $(pub(crate) $field: $type,)* }
        )*
    };
}

layouts! {
    Header { len: U32, kind: u8, flags: u8, reserved: U16, }
    Hello {
        magic: [u8; 4], major: U16, minor: U16, session: U128,
        name_len: U16, credentials_len: U16, reserved: U32,
    }
    Welcome {
        major: U16, minor: U16, heartbeat_ms: U32, session: U128,
        max_frame: U32, max_subscriptions: U32, node_ns: U64, resumed: u8, reserved: [u8; 7],
    }
    Subscribe {
        request_id: U64, from_seq: U64, epoch: U64,
        policy: u8, reserved: u8, name_len: U16, reserved2: U32,
    }
    Subscribed {
        request_id: U64, topic_id: U32, policy: u8, reserved: u8, name_len: U16,
        next_seq: U64, last_seq: U64, epoch: U64,
    }
    Unsubscribe { request_id: U64, topic_id: U32, reserved: U32, }
    Unsubscribed { request_id: U64, topic_id: U32, reserved: U32, last_seq: U64, }
    Command { request_id: U64, topic_id: U32, command: U16, name_len: U16, }
    Reply { request_id: U64, topic_id: U32, code: U16, reserved: U16, seq: U64, retry_after_ms: U32, reserved2: U32, }
    Event { topic_id: U32, kind: U16, reserved: U16, seq: U64, event_ns: U64, node_ns: U64, }
    Gap { topic_id: U32, reason: U16, reserved: U16, first_seq: U64, last_seq: U64, }
    Ping { token: U64, }
    Pong { token: U64, node_ns: U64, }
    ErrorFrame { code: U16, frame_type: u8, fatal: u8, retry_after_ms: U32, request_id: U64, }
    Goodbye { code: U16, reserved: U16, retry_after_ms: U32, }
    Publish { kind: U16, reserved: U16, reserved2: U32, event_ns: U64, }
    History {
        request_id: U64, series: u8, newest_first: u8, name_len: U16, limit: U32,
        from_ns: U64, to_ns: U64, cursor_ns: U64, cursor_seq: U64,
    }
    HistoryPage {
        request_id: U64, series: u8, more: u8, reserved: U16, rows: U32, next_ns: U64, next_seq: U64,
    }
    Candle { start_ns: U64, open: I64, high: I64, low: I64, close: I64, volume: I64, trades: U64, }
    StoredTick {
        seq: U64, event_ns: U64, node_ns: U64, kind: U16, session: u8, reserved: [u8; 5], body: [u8; 40],
    }
    Trade { price: I64, qty: I64, side: u8, price_decimals: u8, qty_decimals: u8, reserved: [u8; 5], }
    Quote {
        bid: I64, bid_qty: I64, ask: I64, ask_qty: I64,
        price_decimals: u8, qty_decimals: u8, reserved: [u8; 6],
    }
    MarketState {
        flags: U32, day: I32, trade_ns: U64, trade: Trade, quote_ns: U64, quote: Quote,
        open: I64, high: I64, low: I64, volume: I64, trades: U64,
    }
    NodeStats {
        core: U32, cores: U32, uptime_ns: U64, connections: U32, subscriptions: U32, topics: U32,
        slow: U32, events: U64, delivered: U64, commands: U64, sends: U64, sent_bytes: U64,
        turns: U64, gaps: U64, outbox_bytes: U64, history_bytes: U64,
    }
    SlowClient { behind_bytes: U64, since_ns: U64, topics: U32, name_len: U16, reserved: U16, }
}
