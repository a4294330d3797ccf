//! Records: what a journal is made of. Encoding appends to a vector; decoding is total, copies
//! nothing and allocates nothing.
//!
//! All numbers are little-endian. A record is a head of 16 bytes and what its kind adds:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 4 | length of the record, head included |
//! | 4 | 4 | CRC-32C of all that follows, begun with the length as initial value |
//! | 8 | 1 | kind: 1 topic, 2 event, 3 reply, 4 snapshot, 5 mark |
//! | 9 | 1 | bit 0: last record of its group; the others are 0 |
//! | 10 | 2 | event: its kind; reply: its code; snapshot: layout of the state; else 0 |
//! | 12 | 4 | the topic's number; 0 in a mark |
//!
//! | kind | behind the head |
//! |---|---|
//! | topic | epoch u64, name |
//! | event | seq u64, session u128, request id u64, event ns u64, node ns u64, body |
//! | reply | seq u64, session u128, request id u64, node ns u64, payload |
//! | snapshot | seq u64, node ns u64, event ns u64, state |
//! | mark | its own position u64, the journal's key u64 |

use std::ops::Range;

/// Bytes of a record's head.
pub const HEAD: usize = 16;
/// The most bytes of a record: any frame's body, or a state of 16 MiB.
pub const MAX_RECORD: usize = (16 << 20) + 4096;
/// The most bytes of a group of records.
pub const MAX_GROUP: usize = 32 << 20;
/// The most bytes of a topic's name, as in the protocol.
pub const MAX_NAME: usize = tickring_protocol::MAX_TOPIC_LEN;
/// Bytes of a mark.
pub const MARK_LEN: usize = HEAD + 16;

const LAST: u8 = 1;
const TOPIC: u8 = 1;
const EVENT: u8 = 2;
const REPLY: u8 = 3;
const SNAPSHOT: u8 = 4;
const MARKER: u8 = 5;
const EVENT_HEAD: usize = HEAD + 48;
const REPLY_HEAD: usize = HEAD + 40;
const SNAPSHOT_HEAD: usize = HEAD + 24;
const TOPIC_HEAD: usize = HEAD + 8;

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// Binds a number to a topic, for the run of the node that wrote it.
    Topic(Topic<'a>),
    /// An event of a topic.
    Event(Event<'a>),
    /// The answer to a command.
    Reply(Reply<'a>),
    /// The state of a topic's machine.
    Snapshot(Snapshot<'a>),
    /// The beginning of a write: all before it was on disk when it was written.
    Mark {
        /// The mark's own position.
        position: u64,
        /// The low half of the journal's identity. It is random, so that no body of an event can
        /// pass for a mark.
        key: u64,
    },
}

/// Binds a number to a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic<'a> {
    /// What the other records call it.
    pub number: u32,
    /// Names the numbering of its events.
    pub epoch: u64,
    /// Its name, 1 to [`MAX_NAME`] bytes.
    pub name: &'a str,
}

/// An event of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The topic's number.
    pub topic: u32,
    /// Layout of the body, as in the protocol.
    pub kind: u16,
    /// Its number in the topic, from 1 without gaps.
    pub seq: u64,
    /// The session whose command gave it; 0: the node's own.
    pub session: u128,
    /// The command within the session; 0: none.
    pub request_id: u64,
    /// When it happened, in nanoseconds since 1970-01-01 UTC.
    pub event_ns: u64,
    /// When the node took it, in nanoseconds since 1970-01-01 UTC.
    pub node_ns: u64,
    /// Its content.
    pub body: &'a [u8],
}

/// The answer to a command, which the same command gets when it is sent again. It stands behind
/// the command's events, as the last record of their group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// The topic's number.
    pub topic: u32,
    /// Result, as in the protocol.
    pub code: u16,
    /// The topic's newest seq when the command was done.
    pub seq: u64,
    /// The session that sent the command.
    pub session: u128,
    /// The command within the session.
    pub request_id: u64,
    /// When the node answered, in nanoseconds since 1970-01-01 UTC.
    pub node_ns: u64,
    /// The machine's answer.
    pub payload: &'a [u8],
}

/// The state of a topic's machine after event `seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot<'a> {
    /// The topic's number.
    pub topic: u32,
    /// Layout of the state.
    pub kind: u16,
    /// The newest event that the state holds; 0: none yet.
    pub seq: u64,
    /// When the node took that event, in nanoseconds since 1970-01-01 UTC.
    pub node_ns: u64,
    /// When that event happened, in nanoseconds since 1970-01-01 UTC.
    pub event_ns: u64,
    /// The state.
    pub state: &'a [u8],
}

/// A record is longer than [`MAX_RECORD`], or a name than [`MAX_NAME`]. Nothing was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a journal record of {0} bytes is too long: {MAX_RECORD} are allowed, and {MAX_NAME} for a name"
)]
pub struct TooLong(pub usize);

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    /// The bytes end before the record does; with this many it would be complete, if its length is
    /// right.
    #[error("the record is cut off")]
    Short(usize),
    /// The length is impossible.
    #[error("impossible record length")]
    Length,
    /// The checksum is another.
    #[error("wrong checksum")]
    Checksum,
    /// The checksum is right, but the content breaks the layout.
    #[error("impossible record content")]
    Content,
}

impl Bad {
    /// The reason in words.
    #[must_use]
    pub const fn why(self) -> &'static str {
        match self {
            Self::Short(_) => "the record is cut off",
            Self::Length => "impossible record length",
            Self::Checksum => "wrong checksum",
            Self::Content => "impossible record content",
        }
    }
}

/// A record's head whose checksum was found right, or that is known to be good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the record.
    pub len: usize,
    /// Whether it is the last of its group.
    pub last: bool,
    kind: u8,
    /// The topic's number.
    pub topic: u32,
}

impl Record<'_> {
    /// Appends the record to `out`; `last` says that it ends its group. Returns its place in `out`.
    ///
    /// # Errors
    /// [`TooLong`]; nothing is appended then.
    #[inline]
    pub fn encode(&self, last: bool, out: &mut Vec<u8>) -> Result<Range<usize>, TooLong> {
        match self {
            Self::Topic(r) => r.encode(last, out),
            Self::Event(r) => r.encode(last, out),
            Self::Reply(r) => r.encode(last, out),
            Self::Snapshot(r) => r.encode(last, out),
            Self::Mark { position, key } => Ok(encode_mark(*position, *key, out)),
        }
    }
}

impl Topic<'_> {
    /// As [`Record::encode`].
    ///
    /// # Errors
    /// [`TooLong`]
    pub fn encode(&self, last: bool, out: &mut Vec<u8>) -> Result<Range<usize>, TooLong> {
        if self.name.is_empty() || self.name.len() > MAX_NAME {
            return Err(TooLong(TOPIC_HEAD + self.name.len()));
        }
        append(
            out,
            (TOPIC, last, 0, self.number),
            self.name.as_bytes(),
            |head: &mut [u8; TOPIC_HEAD]| {
                put(head, 16, self.epoch.to_le_bytes());
            },
        )
    }
}

impl Event<'_> {
    /// As [`Record::encode`].
    ///
    /// # Errors
    /// [`TooLong`]
    #[inline]
    pub fn encode(&self, last: bool, out: &mut Vec<u8>) -> Result<Range<usize>, TooLong> {
        append(
            out,
            (EVENT, last, self.kind, self.topic),
            self.body,
            |head: &mut [u8; EVENT_HEAD]| {
                put(head, 16, self.seq.to_le_bytes());
                put(head, 24, self.session.to_le_bytes());
                put(head, 40, self.request_id.to_le_bytes());
                put(head, 48, self.event_ns.to_le_bytes());
                put(head, 56, self.node_ns.to_le_bytes());
            },
        )
    }
}

impl Reply<'_> {
    /// As [`Record::encode`].
    ///
    /// # Errors
    /// [`TooLong`]
    #[inline]
    pub fn encode(&self, last: bool, out: &mut Vec<u8>) -> Result<Range<usize>, TooLong> {
        append(
            out,
            (REPLY, last, self.code, self.topic),
            self.payload,
            |head: &mut [u8; REPLY_HEAD]| {
                put(head, 16, self.seq.to_le_bytes());
                put(head, 24, self.session.to_le_bytes());
                put(head, 40, self.request_id.to_le_bytes());
                put(head, 48, self.node_ns.to_le_bytes());
            },
        )
    }
}

impl Snapshot<'_> {
    /// As [`Record::encode`].
    ///
    /// # Errors
    /// [`TooLong`]
    pub fn encode(&self, last: bool, out: &mut Vec<u8>) -> Result<Range<usize>, TooLong> {
        append(
            out,
            (SNAPSHOT, last, self.kind, self.topic),
            self.state,
            |head: &mut [u8; SNAPSHOT_HEAD]| {
                put(head, 16, self.seq.to_le_bytes());
                put(head, 24, self.node_ns.to_le_bytes());
                put(head, 32, self.event_ns.to_le_bytes());
            },
        )
    }
}

/// Appends the mark of a write that begins at `position`. It is a group of its own.
pub(super) fn encode_mark(position: u64, key: u64, out: &mut Vec<u8>) -> Range<usize> {
    append(
        out,
        (MARKER, true, 0, 0),
        &[],
        |head: &mut [u8; MARK_LEN]| {
            put(head, 16, position.to_le_bytes());
            put(head, 24, key.to_le_bytes());
        },
    )
    .expect("a mark is shorter than MAX_RECORD")
}

#[inline(always)]
fn put<const N: usize>(head: &mut [u8], at: usize, bytes: [u8; N]) {
    head[at..at + N].copy_from_slice(&bytes);
}

/// Appends a record: a head that `fill` completes, then `tail`.
#[inline(always)]
fn append<const N: usize>(
    out: &mut Vec<u8>,
    (kind, last, code, topic): (u8, bool, u16, u32),
    tail: &[u8],
    fill: impl FnOnce(&mut [u8; N]),
) -> Result<Range<usize>, TooLong> {
    let len = N + tail.len();
    if len > MAX_RECORD {
        return Err(TooLong(len));
    }
    let mut head = [0; N];
    put(&mut head, 0, (len as u32).to_le_bytes());
    head[8] = kind;
    head[9] = u8::from(last);
    put(&mut head, 10, code.to_le_bytes());
    put(&mut head, 12, topic.to_le_bytes());
    fill(&mut head);
    let start = out.len();
    out.reserve(len);
    out.extend_from_slice(&head);
    out.extend_from_slice(tail);
    let record = &mut out[start..];
    let sum = crc32c::crc32c_append(len as u32, &record[8..]);
    put(record, 4, sum.to_le_bytes());
    Ok(start..start + len)
}

/// Marks the record at `place` of `batch`, which must be one that was encoded there, as the last of
/// its group: for a caller that learns only afterwards that nothing follows.
pub fn end_group(batch: &mut [u8], place: Range<usize>) {
    let record = &mut batch[place];
    record[9] |= LAST;
    let sum = crc32c::crc32c_append(record.len() as u32, &record[8..]);
    put(record, 4, sum.to_le_bytes());
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u128_at(bytes: &[u8], at: usize) -> Option<u128> {
    Some(u128::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

impl Head {
    /// Reads the head of the record at the start of `bytes`, without its checksum.
    ///
    /// # Errors
    /// [`Bad`], but never [`Bad::Checksum`].
    #[inline]
    pub fn peek(bytes: &[u8]) -> Result<Self, Bad> {
        let len = u32_at(bytes, 0).ok_or(Bad::Short(HEAD))? as usize;
        if !(HEAD..=MAX_RECORD).contains(&len) {
            return Err(Bad::Length);
        }
        let bytes = bytes.get(..len).ok_or(Bad::Short(len))?;
        let (kind, flags) = (bytes[8], bytes[9]);
        if flags & !LAST != 0 || !(TOPIC..=MARKER).contains(&kind) {
            // Not looked into any further: the checksum tells first whether these are the bytes
            // that were written.
            return if checksum_is_right(bytes) {
                Err(Bad::Content)
            } else {
                Err(Bad::Checksum)
            };
        }
        Ok(Self {
            len,
            last: flags & LAST != 0,
            kind,
            topic: u32_at(bytes, 12).ok_or(Bad::Content)?,
        })
    }

    /// Reads the head of the record at the start of `bytes` and checks its checksum.
    ///
    /// # Errors
    /// [`Bad`]
    #[inline]
    pub fn verify(bytes: &[u8]) -> Result<Self, Bad> {
        let head = Self::peek(bytes)?;
        if checksum_is_right(&bytes[..head.len]) {
            Ok(head)
        } else {
            Err(Bad::Checksum)
        }
    }

    /// When the node wrote it, of the good record `bytes` that this is the head of; 0 for a topic
    /// or a mark. Nanoseconds since 1970-01-01 UTC.
    #[inline]
    pub(super) fn node_ns(&self, bytes: &[u8]) -> u64 {
        let at = match self.kind {
            EVENT => 56,
            REPLY => 48,
            SNAPSHOT => 24,
            _ => return 0,
        };
        u64_at(bytes, at).unwrap_or(0)
    }

    /// Whether it binds a topic's number.
    #[must_use]
    pub const fn is_topic(&self) -> bool {
        self.kind == TOPIC
    }

    /// Whether it is the state of a topic's machine.
    pub const fn is_snapshot(&self) -> bool {
        self.kind == SNAPSHOT
    }

    /// Whether it is a mark.
    #[must_use]
    pub const fn is_mark(&self) -> bool {
        self.kind == MARKER
    }
}

fn checksum_is_right(record: &[u8]) -> bool {
    u32_at(record, 4) == Some(crc32c::crc32c_append(record.len() as u32, &record[8..]))
}

/// Decodes the record at the start of `bytes` and checks its checksum. Returns it and its head.
///
/// # Errors
/// [`Bad`]
#[inline]
pub fn decode(bytes: &[u8]) -> Result<(Record<'_>, Head), Bad> {
    let head = Head::verify(bytes)?;
    let record = content(&bytes[..head.len], head).ok_or(Bad::Content)?;
    Ok((record, head))
}

/// Decodes a record whose checksum [`Head::verify`] has found right.
///
/// # Errors
/// [`Bad`]
#[inline]
pub fn decode_verified(bytes: &[u8]) -> Result<(Record<'_>, Head), Bad> {
    let head = Head::peek(bytes)?;
    let record = content(&bytes[..head.len], head).ok_or(Bad::Content)?;
    Ok((record, head))
}

#[inline]
fn content<'a>(bytes: &'a [u8], head: Head) -> Option<Record<'a>> {
    let (code, topic) = (u16_at(bytes, 10)?, head.topic);
    Some(match head.kind {
        TOPIC => {
            let name = std::str::from_utf8(bytes.get(TOPIC_HEAD..)?).ok()?;
            if name.is_empty() || name.len() > MAX_NAME || code != 0 {
                return None;
            }
            Record::Topic(Topic {
                number: topic,
                epoch: u64_at(bytes, 16)?,
                name,
            })
        }
        EVENT => Record::Event(Event {
            topic,
            kind: code,
            seq: u64_at(bytes, 16)?,
            session: u128_at(bytes, 24)?,
            request_id: u64_at(bytes, 40)?,
            event_ns: u64_at(bytes, 48)?,
            node_ns: u64_at(bytes, 56)?,
            body: bytes.get(EVENT_HEAD..)?,
        }),
        REPLY => Record::Reply(Reply {
            topic,
            code,
            seq: u64_at(bytes, 16)?,
            session: u128_at(bytes, 24)?,
            request_id: u64_at(bytes, 40)?,
            node_ns: u64_at(bytes, 48)?,
            payload: bytes.get(REPLY_HEAD..)?,
        }),
        SNAPSHOT => Record::Snapshot(Snapshot {
            topic,
            kind: code,
            seq: u64_at(bytes, 16)?,
            node_ns: u64_at(bytes, 24)?,
            event_ns: u64_at(bytes, 32)?,
            state: bytes.get(SNAPSHOT_HEAD..)?,
        }),
        MARKER => {
            if bytes.len() != MARK_LEN || !head.last || topic != 0 || code != 0 {
                return None;
            }
            Record::Mark {
                position: u64_at(bytes, 16)?,
                key: u64_at(bytes, 24)?,
            }
        }
        _ => return None,
    })
}
