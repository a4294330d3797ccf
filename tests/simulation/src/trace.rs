//! What happened, as a hash of everything and, when wanted, as text.

use tickring_protocol::{Decoded, Frame, decode};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The record of a run: two runs of one seed must have the same [`Trace::hash`].
#[derive(Default)]
pub(crate) struct Trace {
    pub(crate) hash: u64,
    /// Lines for people, kept only when `verbose`.
    pub(crate) lines: Vec<String>,
    pub(crate) verbose: bool,
}

impl Trace {
    /// Takes in that `what` happened to `whom` with `bytes`.
    pub(crate) fn mix(&mut self, what: u64, whom: u64, bytes: &[u8]) {
        let seed = self.hash.rotate_left(5) ^ (what << 32) ^ whom;
        self.hash = xxh3_64_with_seed(bytes, seed).wrapping_add(seed);
    }

    /// Keeps a line, which is made only if somebody wants to read it.
    pub(crate) fn line(&mut self, line: impl FnOnce() -> String) {
        if self.verbose {
            self.lines.push(line());
        }
    }
}

/// Frames as text, for people.
pub(crate) fn describe(bytes: &[u8]) -> String {
    let mut text = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match decode(&bytes[at..], usize::MAX) {
            Ok(Decoded::Frame { frame, len }) => {
                text.push(brief(&frame));
                at += len;
            }
            Ok(Decoded::Skipped { len }) => {
                text.push(format!("an optional frame of {len} bytes"));
                at += len;
            }
            other => {
                text.push(format!("{} bytes that give {other:?}", bytes.len() - at));
                break;
            }
        }
    }
    text.join("; ")
}

/// One frame without its content.
pub(crate) fn brief(frame: &Frame<'_>) -> String {
    match frame {
        Frame::Event(e) => format!("EVENT {} #{}", e.topic_id, e.seq),
        Frame::Snapshot(s) => format!("SNAPSHOT {} #{}", s.topic_id, s.seq),
        Frame::Command(c) => format!(
            "COMMAND {} to {:?}/{} code {} quiet {}",
            c.request_id, c.topic, c.topic_id, c.command, c.quiet
        ),
        Frame::Reply(r) => format!(
            "REPLY {} topic {} code {} seq {}",
            r.request_id, r.topic_id, r.code, r.seq
        ),
        other => format!("{other:?}"),
    }
}
