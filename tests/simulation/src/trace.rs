//! What happened, as a hash of everything and, when wanted, as text.

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
