//! The codec under arbitrary frames and arbitrary bytes.
#![allow(clippy::unwrap_used, reason = "what a test cannot read fails it")]

use proptest::collection::vec;
use proptest::prelude::*;
use tickring_protocol::{
    Candle, Command, Cursor, DecodeError, Decoded, ErrorFrame, Event, Frame, Gap, GapReason,
    Goodbye, HEADER_LEN, Hello, History, HistoryPage, MAX_CREDENTIALS_LEN, MAX_FRAME_LEN,
    MAX_NAME_LEN, MAX_TOPIC_LEN, MarketState, Micros, NodeStats, Ping, Policy, Pong, Publish,
    Quote, Reply, Series, Side, SlowClient, Snapshot, StoredTick, Subscribe, Subscribed,
    TickContent, Trade, TradingSession, Unsubscribe, Unsubscribed, VERSION_MAJOR, Welcome, decode,
};

/// A text of any characters with at most `max` bytes.
fn text(max: usize) -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..=max).prop_map(move |chars| {
        let mut text = String::new();
        for c in chars {
            if text.len() + c.len_utf8() > max {
                break;
            }
            text.push(c);
        }
        text
    })
}

/// What a frame of any type is made of; which fields are used depends on the type.
#[derive(Clone, Debug)]
struct Parts {
    which: usize,
    wide: [u64; 4],
    session: u128,
    narrow: [u32; 4],
    short: [u16; 3],
    byte: u8,
    flag: bool,
    policy: Policy,
    reason: GapReason,
    topic: String,
    name: String,
    bytes: Vec<u8>,
    credentials: Vec<u8>,
}

fn parts() -> impl Strategy<Value = Parts> {
    let numbers = (
        0..KINDS,
        any::<[u64; 4]>(),
        any::<u128>(),
        any::<[u32; 4]>(),
        any::<[u16; 3]>(),
        any::<u8>(),
        any::<bool>(),
    );
    let policy = (0..4_u8).prop_map(|byte| Policy::from_byte(byte).unwrap());
    let reason = (1..=4_u16).prop_map(|number| GapReason::from_u16(number).unwrap());
    let variable = (
        text(MAX_TOPIC_LEN),
        text(MAX_NAME_LEN),
        vec(any::<u8>(), 0..600),
        prop_oneof![
            vec(any::<u8>(), 0..40),
            vec(any::<u8>(), MAX_CREDENTIALS_LEN)
        ],
    );
    (numbers, policy, reason, variable).prop_map(
        |(
            (which, wide, session, narrow, short, byte, flag),
            policy,
            reason,
            (topic, name, bytes, credentials),
        )| Parts {
            which,
            wide,
            session,
            narrow,
            short,
            byte,
            flag,
            policy,
            reason,
            topic,
            name,
            bytes,
            credentials,
        },
    )
}

/// How many types of frame [`Parts::frame`] makes.
const KINDS: usize = 17;

impl Parts {
    fn frame(&self) -> Frame<'_> {
        let [a, b, c, _] = self.wide;
        let [i, j, k, _] = self.narrow;
        let [s, t, _] = self.short;
        match self.which {
            0 => Frame::Hello(Hello {
                major: VERSION_MAJOR,
                minor: s,
                session: self.session,
                name: &self.name,
                credentials: &self.credentials,
            }),
            1 => Frame::Welcome(Welcome {
                major: s,
                minor: t,
                heartbeat_ms: i,
                session: self.session,
                max_frame: j,
                max_subscriptions: k,
                node_ns: a,
                resumed: self.flag,
            }),
            2 => Frame::Subscribe(Subscribe {
                request_id: a,
                from_seq: b,
                epoch: c,
                policy: self.policy,
                topic: &self.topic,
            }),
            3 => Frame::Subscribed(Subscribed {
                request_id: a,
                topic_id: i,
                policy: self.policy,
                next_seq: b,
                last_seq: c,
                epoch: self.wide[3],
                topic: &self.topic,
            }),
            4 => Frame::Unsubscribe(Unsubscribe {
                request_id: a,
                topic_id: i,
            }),
            5 => Frame::Unsubscribed(Unsubscribed {
                request_id: a,
                topic_id: i,
                last_seq: b,
            }),
            6 => {
                let by_id = self.flag || self.topic.is_empty();
                Frame::Command(Command {
                    request_id: a,
                    topic_id: if by_id { i.max(1) } else { 0 },
                    command: s,
                    topic: if by_id { "" } else { &self.topic },
                    payload: &self.bytes,
                    quiet: self.byte & 1 == 1,
                })
            }
            7 => Frame::Reply(Reply {
                request_id: a,
                topic_id: i,
                code: s,
                seq: b,
                retry_after_ms: j,
                payload: &self.bytes,
            }),
            8 => Frame::Event(Event {
                topic_id: i,
                kind: s,
                seq: a,
                event_ns: b,
                node_ns: c,
                body: &self.bytes,
            }),
            9 => Frame::Snapshot(Snapshot {
                topic_id: i,
                kind: s,
                seq: a,
                event_ns: b,
                node_ns: c,
                body: &self.bytes,
            }),
            10 => Frame::Gap(Gap {
                topic_id: i,
                reason: self.reason,
                first_seq: a,
                last_seq: b,
            }),
            11 => Frame::Ping(Ping { token: a }),
            12 => Frame::Pong(Pong {
                token: a,
                node_ns: b,
            }),
            13 => Frame::Error(ErrorFrame {
                code: s,
                frame_type: self.byte,
                fatal: self.flag,
                retry_after_ms: i,
                request_id: a,
                text: &self.topic,
            }),
            14 => Frame::History(History {
                request_id: a,
                series: self.series(),
                newest_first: self.flag,
                limit: i,
                from_ns: b,
                to_ns: c,
                cursor: self.cursor(),
                topic: &self.topic,
            }),
            15 => {
                let whole = self.bytes.len() / self.series().row_len();
                Frame::HistoryPage(HistoryPage {
                    request_id: a,
                    series: self.series(),
                    more: self.flag,
                    next: self.cursor(),
                    rows: &self.bytes[..whole * self.series().row_len()],
                })
            }
            _ => Frame::Goodbye(Goodbye {
                code: s,
                retry_after_ms: i,
                text: &self.topic,
            }),
        }
    }

    fn series(&self) -> Series {
        Series::ALL[usize::from(self.byte) % Series::ALL.len()]
    }

    fn cursor(&self) -> Cursor {
        Cursor {
            event_ns: self.wide[1],
            seq: self.wide[3],
        }
    }

    fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.frame().encode(&mut out);
        out
    }
}

/// Whether a message of this type may carry extension fields behind its body.
fn extensible(frame: &Frame<'_>) -> bool {
    !matches!(
        frame,
        Frame::Command(_)
            | Frame::Reply(_)
            | Frame::Event(_)
            | Frame::Snapshot(_)
            | Frame::Error(_)
            | Frame::Goodbye(_)
    )
}

/// What a receiver sees of a stream: each frame's bytes as it stands alone, or the error that
/// ended it. `chunks` are the lengths in which the bytes come in; what is left comes last.
fn received(stream: &[u8], chunks: &[usize]) -> (Vec<String>, Option<DecodeError>) {
    let mut seen = Vec::new();
    let mut buffer = Vec::new();
    let mut rest = stream;
    for &chunk in chunks.iter().chain([&stream.len()]) {
        let (now, later) = rest.split_at(chunk.min(rest.len()));
        buffer.extend_from_slice(now);
        rest = later;
        loop {
            let taken = match decode(&buffer, MAX_FRAME_LEN) {
                Ok(Decoded::Frame { frame, len }) => {
                    seen.push(format!("{frame:?}"));
                    len
                }
                Ok(Decoded::Skipped { len }) => {
                    seen.push(format!("skipped {len}"));
                    len
                }
                Ok(Decoded::NeedMore { .. }) => break,
                Err(error) => return (seen, Some(error)),
            };
            buffer.drain(..taken);
        }
    }
    (seen, None)
}

proptest! {
    #[test]
    fn every_frame_comes_back_as_it_was_sent(parts in parts(), behind in vec(any::<u8>(), 0..40)) {
        let mut wire = parts.encoded();
        let len = wire.len();
        wire.extend_from_slice(&behind);
        let frame = parts.frame();
        prop_assert_eq!(decode(&wire, MAX_FRAME_LEN), Ok(Decoded::Frame { frame, len }));
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_and_one_at_the_limit_is_not(parts in parts()) {
        let wire = parts.encoded();
        prop_assert!(decode(&wire, wire.len()).is_ok());
        let refused = decode(&wire, wire.len() - 1).map_err(|e| (e.code.name(), e.resume_at));
        prop_assert_eq!(refused, Err(("frame_too_large", None)));
    }

    #[test]
    fn arbitrary_bytes_are_answered_within_their_bounds(
        bytes in vec(any::<u8>(), 0..200),
        max_frame in 0..300_usize,
    ) {
        within_bounds(&bytes, max_frame)?;
    }

    #[test]
    fn arbitrary_bodies_of_every_type_are_answered_within_their_bounds(
        kind in any::<u8>(),
        flags in any::<u8>(),
        body in vec(prop_oneof![Just(0_u8), Just(1), any::<u8>()], 0..120),
    ) {
        let mut bytes = ((HEADER_LEN + body.len()) as u32).to_le_bytes().to_vec();
        bytes.extend_from_slice(&[kind, flags, 0, 0]);
        bytes.extend_from_slice(&body);
        within_bounds(&bytes, MAX_FRAME_LEN)?;
    }

    #[test]
    fn mutated_frames_are_answered_within_their_bounds(
        parts in parts(),
        edits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut wire = parts.encoded();
        for (at, byte) in edits {
            let at = at.index(wire.len());
            wire[at] = byte;
        }
        within_bounds(&wire, MAX_FRAME_LEN)?;
        wire.truncate(cut.index(wire.len()));
        within_bounds(&wire, MAX_FRAME_LEN)?;
    }

    #[test]
    fn any_split_of_a_stream_gives_the_same_messages(
        all in vec(parts(), 1..6),
        junk in vec(any::<u8>(), 0..30),
        chunks in vec(0..50_usize, 0..40),
    ) {
        let mut stream: Vec<u8> = all.iter().flat_map(Parts::encoded).collect();
        let frames = all.len();
        stream.extend_from_slice(&junk);
        let whole = received(&stream, &[]);
        prop_assert!(whole.0.len() >= frames);
        for (seen, sent) in whole.0.iter().zip(&all) {
            prop_assert_eq!(seen, &format!("{:?}", sent.frame()));
        }
        prop_assert_eq!(received(&stream, &chunks), whole);
    }

    /// More bytes never take back what fewer said: the length asked for grows once, from the
    /// header's to the frame's, and an answer stays the same whatever follows.
    #[test]
    fn need_more_is_monotone(parts in parts(), behind in vec(any::<u8>(), 0..20)) {
        let mut wire = parts.encoded();
        let len = wire.len();
        wire.extend_from_slice(&behind);
        for cut in 0..=wire.len() {
            let expected = match cut {
                _ if cut < HEADER_LEN => Decoded::NeedMore { frame_len: HEADER_LEN },
                _ if cut < len => Decoded::NeedMore { frame_len: len },
                _ => Decoded::Frame { frame: parts.frame(), len },
            };
            prop_assert_eq!(decode(&wire[..cut], MAX_FRAME_LEN), Ok(expected));
        }
    }

    #[test]
    fn extension_fields_of_a_newer_minor_version_are_passed_over(
        parts in parts(),
        fields in vec((1..=u16::MAX, vec(any::<u8>(), 0..40)), 1..4),
    ) {
        prop_assume!(extensible(&parts.frame()));
        let mut wire = parts.encoded();
        for (tag, value) in &fields {
            wire.extend_from_slice(&tag.to_le_bytes());
            wire.extend_from_slice(&(value.len() as u16).to_le_bytes());
            wire.extend_from_slice(value);
        }
        let len = wire.len();
        wire[..4].copy_from_slice(&(len as u32).to_le_bytes());
        let frame = parts.frame();
        prop_assert_eq!(decode(&wire, MAX_FRAME_LEN), Ok(Decoded::Frame { frame, len }));
        // Without its last byte the last field runs past the frame.
        wire.pop();
        wire[..4].copy_from_slice(&(len as u32 - 1).to_le_bytes());
        let refused = decode(&wire, MAX_FRAME_LEN).map_err(|e| (e.code.name(), e.resume_at));
        prop_assert_eq!(refused, Err(("bad_body", Some(len - 1))));
    }

    #[test]
    fn trades_quotes_and_market_states_come_back_as_they_were_written(
        n in any::<[i64; 10]>(),
        ns in any::<[u64; 3]>(),
        day in any::<i32>(),
        side in 0..3_usize,
        decimals in [0..=6_u8, 0..=6, 0..=6, 0..=6],
        some in any::<[bool; 2]>(),
    ) {
        let trade = Trade {
            price: Micros(n[0]),
            qty: Micros(n[1]),
            side: [Side::Unknown, Side::Buy, Side::Sell][side],
            price_decimals: decimals[0],
            qty_decimals: decimals[1],
        };
        let quote = Quote {
            bid: Micros(n[2]),
            bid_qty: Micros(n[3]),
            ask: Micros(n[4]),
            ask_qty: Micros(n[5]),
            price_decimals: decimals[2],
            qty_decimals: decimals[3],
        };
        let state = MarketState {
            day,
            trade: some[0].then_some((ns[0], trade)),
            quote: some[1].then_some((ns[1], quote)),
            open: Micros(n[6]),
            high: Micros(n[7]),
            low: Micros(n[8]),
            volume: Micros(n[9]),
            trades: ns[2],
        };
        let (mut t, mut q, mut s) = (Vec::new(), Vec::new(), Vec::new());
        trade.encode(&mut t);
        quote.encode(&mut q);
        state.encode(&mut s);
        prop_assert_eq!(Trade::decode(&t), Ok(trade));
        prop_assert_eq!(Quote::decode(&q), Ok(quote));
        prop_assert_eq!(MarketState::decode(&s), Ok(state));
    }

    #[test]
    fn candles_and_stored_ticks_come_back_as_they_were_written(
        n in any::<[i64; 5]>(),
        ns in any::<[u64; 4]>(),
        session in 0..4_u8,
        is_trade: bool,
    ) {
        let candle = Candle {
            start_ns: ns[0],
            open: Micros(n[0]),
            high: Micros(n[1]),
            low: Micros(n[2]),
            close: Micros(n[3]),
            volume: Micros(n[4]),
            trades: ns[1],
        };
        let trade = Trade { price: Micros(n[0]), qty: Micros(n[1]), ..Trade::default() };
        let quote = Quote { bid: Micros(n[2]), ask_qty: Micros(n[3]), ..Quote::default() };
        let tick = StoredTick {
            seq: ns[1],
            event_ns: ns[2],
            node_ns: ns[3],
            session: TradingSession::from_byte(session).unwrap(),
            content: if is_trade { TickContent::Trade(trade) } else { TickContent::Quote(quote) },
        };
        let (mut c, mut t) = (Vec::new(), Vec::new());
        candle.encode(&mut c);
        tick.encode(&mut t);
        prop_assert_eq!((c.len(), t.len()), (Candle::LEN, StoredTick::LEN));
        prop_assert_eq!(Candle::decode(&c), Ok(candle));
        prop_assert_eq!(StoredTick::decode(&t), Ok(tick));
    }

    #[test]
    fn node_stats_and_slow_clients_come_back_as_they_were_written(
        n in any::<[u64; 10]>(),
        m in any::<[u32; 6]>(),
        clients in vec((text(MAX_NAME_LEN), any::<[u64; 2]>(), any::<u32>()), 0..5),
    ) {
        let stats = NodeStats {
            core: m[0],
            cores: m[1],
            uptime_ns: n[0],
            connections: m[2],
            subscriptions: m[3],
            topics: m[4],
            slow: m[5],
            events: n[1],
            delivered: n[2],
            commands: n[3],
            sends: n[4],
            sent_bytes: n[5],
            turns: n[6],
            gaps: n[7],
            outbox_bytes: n[8],
            history_bytes: n[9],
        };
        let slow: Vec<SlowClient<'_>> = clients
            .iter()
            .map(|(name, [behind_bytes, since_ns], topics)| SlowClient {
                name,
                behind_bytes: *behind_bytes,
                since_ns: *since_ns,
                topics: *topics,
            })
            .collect();
        let mut body = Vec::new();
        stats.encode(slow.iter().copied(), &mut body);
        let (found, found_slow) = NodeStats::decode(&body).unwrap();
        prop_assert_eq!(found, stats);
        prop_assert_eq!(found_slow.collect::<Vec<_>>(), slow);
    }

    #[test]
    fn arbitrary_bytes_as_a_body_are_answered(bytes in vec(any::<u8>(), 0..250)) {
        let _ = Trade::decode(&bytes);
        let _ = Quote::decode(&bytes);
        let _ = MarketState::decode(&bytes);
        let _ = Candle::decode(&bytes);
        let _ = StoredTick::decode(&bytes);
        if let Ok((_, slow)) = NodeStats::decode(&bytes) {
            prop_assert!(slow.count() <= bytes.len());
        }
        if let Ok(publish) = Publish::decode(&bytes) {
            prop_assert_eq!(publish.body.len() + 16, bytes.len());
        }
    }
}

/// Decodes `bytes` and checks that the answer speaks of those bytes alone: no panic, no length
/// beyond them, and what it says does not change when other bytes lie behind the frame.
fn within_bounds(bytes: &[u8], max_frame: usize) -> Result<(), TestCaseError> {
    let answer = decode(bytes, max_frame);
    match answer {
        Ok(Decoded::Frame { len, .. } | Decoded::Skipped { len }) => {
            prop_assert!((HEADER_LEN..=bytes.len().min(max_frame)).contains(&len));
            prop_assert_eq!(decode(&bytes[..len], max_frame), answer);
        }
        Ok(Decoded::NeedMore { frame_len }) => {
            prop_assert!(frame_len > bytes.len());
            prop_assert!(frame_len <= max_frame.max(HEADER_LEN));
        }
        Err(error) => {
            if let Some(len) = error.resume_at {
                prop_assert!((HEADER_LEN..=bytes.len().min(max_frame)).contains(&len));
                prop_assert_eq!(decode(&bytes[..len], max_frame), answer);
            }
            prop_assert!(error.is_fatal() || error.resume_at.is_some());
        }
    }
    Ok(())
}
