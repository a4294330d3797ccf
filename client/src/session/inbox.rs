//! The receive buffer.

/// Room that is offered to every read at least, in bytes.
const MIN_SPACE: usize = 16 << 10;
/// Size of the buffer until a larger frame comes, in bytes.
const INITIAL: usize = 64 << 10;

/// Bytes that came and are not decoded yet; frames are decoded where they lie.
#[derive(Debug)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// How long the frame at `start` is known to be.
    wanted: usize,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; INITIAL],
            start: 0,
            end: 0,
            wanted: 0,
        }
    }

    /// Everything that waits to be decoded.
    pub(crate) fn waiting(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Where the bytes of [`Inbox::waiting`] start; counts on as they are consumed.
    pub(crate) fn start(&self) -> usize {
        self.start
    }

    pub(crate) fn span(&self, from: usize, to: usize) -> &[u8] {
        &self.bytes[from..to]
    }

    /// Passes over a frame. Its bytes stay in place until [`Inbox::space`].
    pub(crate) fn consume(&mut self, len: usize) {
        self.start += len;
        self.wanted = 0;
    }

    /// The frame at the start is `len` bytes long, and not whole yet.
    pub(crate) fn want(&mut self, len: usize) {
        self.wanted = len;
    }

    /// Room to read into. Moves what waits to the front when the room behind it is short, and
    /// grows only for a frame that does not fit, so never beyond the largest frame and one read.
    /// Empty when whole frames wait that must be decoded first.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
        let short = self.bytes.len() - self.end < MIN_SPACE.max(self.missing());
        if short && self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.wanted > self.bytes.len() {
            self.bytes.resize(self.wanted + MIN_SPACE, 0);
        }
        &mut self.bytes[self.end..]
    }

    fn missing(&self) -> usize {
        self.wanted.saturating_sub(self.end - self.start)
    }

    pub(crate) fn filled(&mut self, len: usize) {
        assert!(
            len <= self.bytes.len() - self.end,
            "more bytes than there was room for"
        );
        self.end += len;
    }

    pub(crate) fn clear(&mut self) {
        self.start = self.end;
        self.wanted = 0;
    }
}
