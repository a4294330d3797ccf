//! Messages to bytes.

use zerocopy::IntoBytes;

use crate::{ErrorCode, Frame, HEADER_LEN, MAGIC, wire};

/// Header flag of COMMAND: no REPLY when it succeeds.
pub(crate) const FLAG_QUIET: u8 = 0x01;

impl Frame<'_> {
    /// Appends the frame to `out`: the only allocation is that vector's own growth.
    ///
    /// # Panics
    /// When a variable part is longer than its length field can say (names of 64 KiB, frames of
    /// 4 GiB): a caller's error, since both are far beyond the protocol's limits.
    ///
    /// ```
    /// use tickring_protocol::{Frame, Policy, Subscribe};
    ///
    /// let mut wire = Vec::new();
    /// let subscribe = Subscribe {
    ///     request_id: 1,
    ///     from_seq: 0,
    ///     epoch: 0,
    ///     policy: Policy::Default,
    ///     topic: "market/AAPL",
    /// };
    /// Frame::Subscribe(subscribe).encode(&mut wire);
    /// assert_eq!(wire.len(), 8 + 32 + "market/AAPL".len());
    /// ```
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Hello(m) => self.put(
                out,
                0,
                wire::Hello {
                    magic: MAGIC,
                    major: m.major.into(),
                    minor: m.minor.into(),
                    session: m.session.into(),
                    name_len: short(m.name.len()),
                    credentials_len: short(m.credentials.len()),
                    reserved: 0.into(),
                },
                &[m.name.as_bytes(), m.credentials],
            ),
            Self::Welcome(m) => self.put(
                out,
                0,
                wire::Welcome {
                    major: m.major.into(),
                    minor: m.minor.into(),
                    heartbeat_ms: m.heartbeat_ms.into(),
                    session: m.session.into(),
                    max_frame: m.max_frame.into(),
                    max_subscriptions: m.max_subscriptions.into(),
                    node_ns: m.node_ns.into(),
                    resumed: m.resumed.into(),
                    reserved: [0; 7],
                },
                &[],
            ),
            Self::Subscribe(m) => self.put(
                out,
                0,
                wire::Subscribe {
                    request_id: m.request_id.into(),
                    from_seq: m.from_seq.into(),
                    epoch: m.epoch.into(),
                    policy: m.policy as u8,
                    reserved: 0,
                    name_len: short(m.topic.len()),
                    reserved2: 0.into(),
                },
                &[m.topic.as_bytes()],
            ),
            Self::Subscribed(m) => self.put(
                out,
                0,
                wire::Subscribed {
                    request_id: m.request_id.into(),
                    topic_id: m.topic_id.into(),
                    policy: m.policy as u8,
                    reserved: 0,
                    name_len: short(m.topic.len()),
                    next_seq: m.next_seq.into(),
                    last_seq: m.last_seq.into(),
                    epoch: m.epoch.into(),
                },
                &[m.topic.as_bytes()],
            ),
            Self::Unsubscribe(m) => self.put(
                out,
                0,
                wire::Unsubscribe {
                    request_id: m.request_id.into(),
                    topic_id: m.topic_id.into(),
                    reserved: 0.into(),
                },
                &[],
            ),
            Self::Unsubscribed(m) => self.put(
                out,
                0,
                wire::Unsubscribed {
                    request_id: m.request_id.into(),
                    topic_id: m.topic_id.into(),
                    reserved: 0.into(),
                    last_seq: m.last_seq.into(),
                },
                &[],
            ),
            Self::Command(m) => self.put(
                out,
                if m.quiet { FLAG_QUIET } else { 0 },
                wire::Command {
                    request_id: m.request_id.into(),
                    topic_id: m.topic_id.into(),
                    command: m.command.into(),
                    name_len: short(m.topic.len()),
                },
                &[m.topic.as_bytes(), m.payload],
            ),
            Self::Reply(m) => self.put(
                out,
                0,
                wire::Reply {
                    request_id: m.request_id.into(),
                    topic_id: m.topic_id.into(),
                    code: m.code.into(),
                    reserved: 0.into(),
                    seq: m.seq.into(),
                    retry_after_ms: m.retry_after_ms.into(),
                    reserved2: 0.into(),
                },
                &[m.payload],
            ),
            Self::Event(m) => self.put(
                out,
                0,
                wire::Event {
                    topic_id: m.topic_id.into(),
                    kind: m.kind.into(),
                    reserved: 0.into(),
                    seq: m.seq.into(),
                    event_ns: m.event_ns.into(),
                    node_ns: m.node_ns.into(),
                },
                &[m.body],
            ),
            Self::Snapshot(m) => self.put(
                out,
                0,
                wire::Event {
                    topic_id: m.topic_id.into(),
                    kind: m.kind.into(),
                    reserved: 0.into(),
                    seq: m.seq.into(),
                    event_ns: m.event_ns.into(),
                    node_ns: m.node_ns.into(),
                },
                &[m.body],
            ),
            Self::Gap(m) => self.put(
                out,
                0,
                wire::Gap {
                    topic_id: m.topic_id.into(),
                    reason: (m.reason as u16).into(),
                    reserved: 0.into(),
                    first_seq: m.first_seq.into(),
                    last_seq: m.last_seq.into(),
                },
                &[],
            ),
            Self::Ping(m) => self.put(
                out,
                0,
                wire::Ping {
                    token: m.token.into(),
                },
                &[],
            ),
            Self::Pong(m) => self.put(
                out,
                0,
                wire::Pong {
                    token: m.token.into(),
                    node_ns: m.node_ns.into(),
                },
                &[],
            ),
            Self::Error(m) => self.put(
                out,
                0,
                wire::ErrorFrame {
                    code: m.code.into(),
                    frame_type: m.frame_type,
                    fatal: m.fatal.into(),
                    retry_after_ms: m.retry_after_ms.into(),
                    request_id: m.request_id.into(),
                },
                &[m.text.as_bytes()],
            ),
            Self::Goodbye(m) => self.put(
                out,
                0,
                wire::Goodbye {
                    code: m.code.into(),
                    reserved: 0.into(),
                    retry_after_ms: m.retry_after_ms.into(),
                },
                &[m.text.as_bytes()],
            ),
            Self::History(m) => self.put(
                out,
                0,
                wire::History {
                    request_id: m.request_id.into(),
                    series: m.series as u8,
                    newest_first: m.newest_first.into(),
                    name_len: short(m.topic.len()),
                    limit: m.limit.into(),
                    from_ns: m.from_ns.into(),
                    to_ns: m.to_ns.into(),
                    cursor_ns: m.cursor.event_ns.into(),
                    cursor_seq: m.cursor.seq.into(),
                },
                &[m.topic.as_bytes()],
            ),
            Self::HistoryPage(m) => self.put(
                out,
                0,
                wire::HistoryPage {
                    request_id: m.request_id.into(),
                    series: m.series as u8,
                    more: m.more.into(),
                    reserved: 0.into(),
                    rows: u32::try_from(m.len())
                        .expect("a frame has less than 4 GiB")
                        .into(),
                    next_ns: m.next.event_ns.into(),
                    next_seq: m.next.seq.into(),
                },
                &[m.rows],
            ),
        }
    }

    fn put<F: IntoBytes + zerocopy::Immutable>(
        &self,
        out: &mut Vec<u8>,
        flags: u8,
        fixed: F,
        parts: &[&[u8]],
    ) {
        let fixed = fixed.as_bytes();
        let len = HEADER_LEN + fixed.len() + parts.iter().map(|p| p.len()).sum::<usize>();
        let header = wire::Header {
            len: u32::try_from(len)
                .expect("a frame has less than 4 GiB")
                .into(),
            kind: self.frame_type() as u8,
            flags,
            reserved: 0.into(),
        };
        out.reserve(len);
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(fixed);
        for part in parts {
            out.extend_from_slice(part);
        }
    }
}

fn short(len: usize) -> zerocopy::little_endian::U16 {
    u16::try_from(len)
        .expect("a name has less than 64 KiB")
        .into()
}

impl From<ErrorCode> for u16 {
    fn from(code: ErrorCode) -> Self {
        code as Self
    }
}
