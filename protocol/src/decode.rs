//! Bytes to messages. Total: no bytes panic, and none are trusted.

use zerocopy::FromBytes;

use crate::encode::FLAG_QUIET;
use crate::{
    Command, Cursor, ErrorCode, ErrorFrame, Event, Frame, FrameType, Gap, GapReason, Goodbye,
    HEADER_LEN, Hello, History, HistoryPage, MAGIC, MAX_CREDENTIALS_LEN, MAX_FRAME_LEN,
    MAX_NAME_LEN, MAX_TOPIC_LEN, OPTIONAL_TYPE_BIT, Ping, Policy, Pong, Reply, Series, Snapshot,
    Subscribe, Subscribed, Unsubscribe, Unsubscribed, VERSION_MAJOR, Welcome, wire,
};

/// What [`decode`] found at the start of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A message, and how many bytes it took.
    Frame {
        /// The message.
        frame: Frame<'a>,
        /// Bytes from its start to the next frame.
        len: usize,
    },
    /// An optional message of a newer minor version, to be passed over.
    Skipped {
        /// Bytes from its start to the next frame.
        len: usize,
    },
    /// The frame is not whole yet.
    NeedMore {
        /// How long the frame is in all, as far as is known: at least [`HEADER_LEN`].
        frame_len: usize,
    },
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: frame type {frame_type:#04x}")]
pub struct DecodeError {
    /// Which rule is broken.
    pub code: ErrorCode,
    /// The type byte of the frame; 0 when its header could not be trusted that far.
    pub frame_type: u8,
    /// The request id of the frame, where its layout has one that could be read; otherwise 0.
    pub request_id: u64,
    /// Bytes to pass over to reach the next frame, when the framing itself is intact; `None`
    /// when the stream can no longer be followed.
    pub resume_at: Option<usize>,
}

impl DecodeError {
    /// Whether the connection cannot go on. All that [`decode`] refuses is fatal but for a topic
    /// name that is too long: that request alone is refused.
    pub const fn is_fatal(&self) -> bool {
        !(matches!(self.code, ErrorCode::NameTooLong)
            && matches!(
                FrameType::from_byte(self.frame_type),
                Some(FrameType::Subscribe | FrameType::Command | FrameType::History)
            ))
    }
}

/// Reads the first message of `bytes`.
///
/// `max_frame` is the receiver's limit for a whole frame in bytes; [`MAX_FRAME_LEN`] caps it.
///
/// # Errors
/// [`DecodeError`] for bytes that no sender of any minor version may send.
///
/// ```
/// use tickring_protocol::{Decoded, ErrorCode, Frame, Ping, decode};
///
/// // Bytes come in pieces; what is not whole yet asks for more.
/// let mut wire = Vec::new();
/// Frame::Ping(Ping { token: 1 }).encode(&mut wire);
/// let more = decode(&wire[..5], 4096);
/// assert_eq!(more, Ok(Decoded::NeedMore { frame_len: 8 }));
/// let more = decode(&wire[..9], 4096);
/// assert_eq!(more, Ok(Decoded::NeedMore { frame_len: 16 }));
///
/// // A length below that of the header cannot be followed.
/// let error = decode(&[0; 8], 4096).unwrap_err();
/// assert_eq!(error.code, ErrorCode::BadLength);
/// assert!(error.is_fatal());
/// ```
pub fn decode(bytes: &[u8], max_frame: usize) -> Result<Decoded<'_>, DecodeError> {
    let Ok((header, _)) = wire::Header::ref_from_prefix(bytes) else {
        return Ok(Decoded::NeedMore {
            frame_len: HEADER_LEN,
        });
    };
    let len = header.len.get() as usize;
    let framing = |code| DecodeError {
        code,
        frame_type: header.kind,
        request_id: 0,
        resume_at: None,
    };
    if len < HEADER_LEN {
        return Err(framing(ErrorCode::BadLength));
    }
    if len > max_frame.min(MAX_FRAME_LEN) {
        return Err(framing(ErrorCode::FrameTooLarge));
    }
    let Some(kind) = FrameType::from_byte(header.kind) else {
        if header.kind & OPTIONAL_TYPE_BIT == 0 {
            return Err(framing(ErrorCode::UnknownType));
        }
        return Ok(match bytes.len() < len {
            true => Decoded::NeedMore { frame_len: len },
            false => Decoded::Skipped { len },
        });
    };
    let Some(body) = bytes.get(HEADER_LEN..len) else {
        return Ok(Decoded::NeedMore { frame_len: len });
    };
    match decode_body(kind, header.flags, body) {
        Ok(frame) => Ok(Decoded::Frame { frame, len }),
        Err(code) => Err(DecodeError {
            code,
            frame_type: header.kind,
            request_id: request_id(kind, body),
            resume_at: Some(len),
        }),
    }
}

fn decode_body(kind: FrameType, flags: u8, body: &[u8]) -> Result<Frame<'_>, ErrorCode> {
    Ok(match kind {
        FrameType::Hello => Frame::Hello(hello(body)?),
        FrameType::Welcome => Frame::Welcome(welcome(body)?),
        FrameType::Subscribe => Frame::Subscribe(subscribe(body)?),
        FrameType::Subscribed => Frame::Subscribed(subscribed(body)?),
        FrameType::Unsubscribe => {
            let w = extended::<wire::Unsubscribe>(body)?;
            Frame::Unsubscribe(Unsubscribe {
                request_id: w.request_id.get(),
                topic_id: w.topic_id.get(),
            })
        }
        FrameType::Unsubscribed => {
            let w = extended::<wire::Unsubscribed>(body)?;
            Frame::Unsubscribed(Unsubscribed {
                request_id: w.request_id.get(),
                topic_id: w.topic_id.get(),
                last_seq: w.last_seq.get(),
            })
        }
        FrameType::Command => Frame::Command(command(flags, body)?),
        FrameType::Reply => {
            let (w, payload) = prefix::<wire::Reply>(body)?;
            Frame::Reply(Reply {
                request_id: w.request_id.get(),
                topic_id: w.topic_id.get(),
                code: w.code.get(),
                seq: w.seq.get(),
                retry_after_ms: w.retry_after_ms.get(),
                payload,
            })
        }
        FrameType::Event => {
            let (w, body) = prefix::<wire::Event>(body)?;
            Frame::Event(Event {
                topic_id: w.topic_id.get(),
                kind: w.kind.get(),
                seq: w.seq.get(),
                event_ns: w.event_ns.get(),
                node_ns: w.node_ns.get(),
                body,
            })
        }
        FrameType::Snapshot => {
            let (w, body) = prefix::<wire::Event>(body)?;
            Frame::Snapshot(Snapshot {
                topic_id: w.topic_id.get(),
                kind: w.kind.get(),
                seq: w.seq.get(),
                event_ns: w.event_ns.get(),
                node_ns: w.node_ns.get(),
                body,
            })
        }
        FrameType::Gap => {
            let w = extended::<wire::Gap>(body)?;
            Frame::Gap(Gap {
                topic_id: w.topic_id.get(),
                reason: GapReason::from_u16(w.reason.get()).ok_or(ErrorCode::BadField)?,
                first_seq: w.first_seq.get(),
                last_seq: w.last_seq.get(),
            })
        }
        FrameType::Ping => {
            let w = extended::<wire::Ping>(body)?;
            Frame::Ping(Ping {
                token: w.token.get(),
            })
        }
        FrameType::Pong => {
            let w = extended::<wire::Pong>(body)?;
            Frame::Pong(Pong {
                token: w.token.get(),
                node_ns: w.node_ns.get(),
            })
        }
        FrameType::Error => {
            let (w, rest) = prefix::<wire::ErrorFrame>(body)?;
            Frame::Error(ErrorFrame {
                code: w.code.get(),
                frame_type: w.frame_type,
                fatal: flag(w.fatal)?,
                retry_after_ms: w.retry_after_ms.get(),
                request_id: w.request_id.get(),
                text: text(rest)?,
            })
        }
        FrameType::Goodbye => {
            let (w, rest) = prefix::<wire::Goodbye>(body)?;
            Frame::Goodbye(Goodbye {
                code: w.code.get(),
                retry_after_ms: w.retry_after_ms.get(),
                text: text(rest)?,
            })
        }
        FrameType::History => Frame::History(history(body)?),
        FrameType::HistoryPage => Frame::HistoryPage(history_page(body)?),
    })
}

fn hello(body: &[u8]) -> Result<Hello<'_>, ErrorCode> {
    // Told apart before anything else, so that a stranger's bytes get the reason that helps.
    if body.get(..4).is_some_and(|magic| magic != MAGIC) {
        return Err(ErrorCode::BadMagic);
    }
    // Magic and version lie where they are in every major version; what follows does not.
    if let Some(major) = body.get(4..6)
        && major != VERSION_MAJOR.to_le_bytes()
    {
        return Err(ErrorCode::BadVersion);
    }
    let (w, rest) = prefix::<wire::Hello>(body)?;
    let (name, rest) = take(rest, w.name_len.get() as usize)?;
    let (credentials, rest) = take(rest, w.credentials_len.get() as usize)?;
    extensions(rest)?;
    if name.len() > MAX_NAME_LEN || credentials.len() > MAX_CREDENTIALS_LEN {
        return Err(ErrorCode::NameTooLong);
    }
    Ok(Hello {
        major: w.major.get(),
        minor: w.minor.get(),
        session: w.session.get(),
        name: text(name)?,
        credentials,
    })
}

fn welcome(body: &[u8]) -> Result<Welcome, ErrorCode> {
    let w = extended::<wire::Welcome>(body)?;
    Ok(Welcome {
        major: w.major.get(),
        minor: w.minor.get(),
        heartbeat_ms: w.heartbeat_ms.get(),
        session: w.session.get(),
        max_frame: w.max_frame.get(),
        max_subscriptions: w.max_subscriptions.get(),
        node_ns: w.node_ns.get(),
        resumed: flag(w.resumed)?,
    })
}

fn subscribe(body: &[u8]) -> Result<Subscribe<'_>, ErrorCode> {
    let (w, rest) = prefix::<wire::Subscribe>(body)?;
    let (topic, rest) = take(rest, w.name_len.get() as usize)?;
    extensions(rest)?;
    Ok(Subscribe {
        request_id: w.request_id.get(),
        from_seq: w.from_seq.get(),
        epoch: w.epoch.get(),
        policy: Policy::from_byte(w.policy).ok_or(ErrorCode::BadField)?,
        topic: topic_text(topic)?,
    })
}

fn subscribed(body: &[u8]) -> Result<Subscribed<'_>, ErrorCode> {
    let (w, rest) = prefix::<wire::Subscribed>(body)?;
    let (topic, rest) = take(rest, w.name_len.get() as usize)?;
    extensions(rest)?;
    Ok(Subscribed {
        request_id: w.request_id.get(),
        topic_id: w.topic_id.get(),
        policy: Policy::from_byte(w.policy).ok_or(ErrorCode::BadField)?,
        next_seq: w.next_seq.get(),
        last_seq: w.last_seq.get(),
        epoch: w.epoch.get(),
        topic: topic_text(topic)?,
    })
}

fn command(flags: u8, body: &[u8]) -> Result<Command<'_>, ErrorCode> {
    let (w, rest) = prefix::<wire::Command>(body)?;
    let (topic, payload) = take(rest, w.name_len.get() as usize)?;
    // Exactly one of both says which topic is meant.
    if (w.topic_id.get() == 0) == topic.is_empty() {
        return Err(ErrorCode::BadField);
    }
    Ok(Command {
        request_id: w.request_id.get(),
        topic_id: w.topic_id.get(),
        command: w.command.get(),
        topic: topic_text(topic)?,
        payload,
        quiet: flags & FLAG_QUIET != 0,
    })
}

fn history(body: &[u8]) -> Result<History<'_>, ErrorCode> {
    let (w, rest) = prefix::<wire::History>(body)?;
    let (topic, rest) = take(rest, w.name_len.get() as usize)?;
    extensions(rest)?;
    Ok(History {
        request_id: w.request_id.get(),
        series: Series::from_byte(w.series).ok_or(ErrorCode::BadField)?,
        newest_first: flag(w.newest_first)?,
        limit: w.limit.get(),
        from_ns: w.from_ns.get(),
        to_ns: w.to_ns.get(),
        cursor: Cursor {
            event_ns: w.cursor_ns.get(),
            seq: w.cursor_seq.get(),
        },
        topic: topic_text(topic)?,
    })
}

fn history_page(body: &[u8]) -> Result<HistoryPage<'_>, ErrorCode> {
    let (w, rest) = prefix::<wire::HistoryPage>(body)?;
    let series = Series::from_byte(w.series).ok_or(ErrorCode::BadField)?;
    let bytes = (w.rows.get() as usize).checked_mul(series.row_len());
    let (rows, rest) = take(rest, bytes.ok_or(ErrorCode::BadBody)?)?;
    extensions(rest)?;
    Ok(HistoryPage {
        request_id: w.request_id.get(),
        series,
        more: flag(w.more)?,
        next: Cursor {
            event_ns: w.next_ns.get(),
            seq: w.next_seq.get(),
        },
        rows,
    })
}

/// The request id of a body whose layout starts with one.
fn request_id(kind: FrameType, body: &[u8]) -> u64 {
    match kind {
        FrameType::Subscribe
        | FrameType::Subscribed
        | FrameType::Unsubscribe
        | FrameType::Unsubscribed
        | FrameType::Command
        | FrameType::Reply
        | FrameType::History
        | FrameType::HistoryPage => body.first_chunk().map_or(0, |id| u64::from_le_bytes(*id)),
        _ => 0,
    }
}

fn prefix<T>(body: &[u8]) -> Result<(&T, &[u8]), ErrorCode>
where
    T: FromBytes + zerocopy::KnownLayout + zerocopy::Immutable + zerocopy::Unaligned,
{
    T::ref_from_prefix(body).map_err(|_| ErrorCode::BadBody)
}

/// A body that is its fixed part and extension fields.
fn extended<T>(body: &[u8]) -> Result<&T, ErrorCode>
where
    T: FromBytes + zerocopy::KnownLayout + zerocopy::Immutable + zerocopy::Unaligned,
{
    let (fixed, rest) = prefix(body)?;
    extensions(rest)?;
    Ok(fixed)
}

fn take(bytes: &[u8], len: usize) -> Result<(&[u8], &[u8]), ErrorCode> {
    bytes.split_at_checked(len).ok_or(ErrorCode::BadBody)
}

fn text(bytes: &[u8]) -> Result<&str, ErrorCode> {
    std::str::from_utf8(bytes).map_err(|_| ErrorCode::BadUtf8)
}

fn topic_text(bytes: &[u8]) -> Result<&str, ErrorCode> {
    if bytes.len() > MAX_TOPIC_LEN {
        return Err(ErrorCode::NameTooLong);
    }
    text(bytes)
}

fn flag(byte: u8) -> Result<bool, ErrorCode> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(ErrorCode::BadField),
    }
}

/// Walks the extension fields behind a body: u16 tag, u16 length, bytes. Version 1.0 defines none,
/// so all are passed over; what is left must still be whole fields. Tag 0 is never given out, so
/// that zeros behind a body are told from a field.
fn extensions(mut rest: &[u8]) -> Result<(), ErrorCode> {
    while !rest.is_empty() {
        let Some((&[tag_low, tag_high, len_low, len_high], tail)) = rest.split_first_chunk() else {
            return Err(ErrorCode::BadBody);
        };
        if u16::from_le_bytes([tag_low, tag_high]) == 0 {
            return Err(ErrorCode::BadBody);
        }
        (_, rest) = take(tail, u16::from_le_bytes([len_low, len_high]) as usize)?;
    }
    Ok(())
}
