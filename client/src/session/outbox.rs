//! Bytes that wait to be sent.

use tickring_protocol::Frame;

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    head: usize,
    /// Bytes of this connection that the transport has taken.
    sent: u64,
}

impl Outbox {
    /// Queues a frame; returns where in the connection's byte stream it starts.
    pub(crate) fn put(&mut self, frame: &Frame<'_>) -> u64 {
        let at = self.sent + self.waiting().len() as u64;
        frame.encode(&mut self.bytes);
        at
    }

    pub(crate) fn waiting(&self) -> &[u8] {
        &self.bytes[self.head..]
    }

    pub(crate) fn taken(&mut self, len: usize) {
        assert!(
            len <= self.waiting().len(),
            "more bytes sent than there were"
        );
        self.head += len;
        self.sent += len as u64;
        if self.head == self.bytes.len() {
            self.bytes.clear();
            self.head = 0;
        } else if self.head > self.bytes.len() / 2 {
            // Moves fewer bytes than were sent since the last move: constant work per byte.
            self.bytes.drain(..self.head);
            self.head = 0;
        }
    }

    /// Bytes that the transport has taken on this connection.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Drops what waits; what was sent stays counted.
    pub(crate) fn discard(&mut self) {
        self.bytes.clear();
        self.head = 0;
    }

    /// Starts a connection.
    pub(crate) fn reset(&mut self) {
        self.discard();
        self.sent = 0;
    }
}
