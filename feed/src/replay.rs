//! Several recorded files as one stream of ticks.

use crate::{Content, DataError, Source, Step, Tick};

/// Ticks of several files in the order in which they were received. Within one file the order is
/// the file's own, whatever its times say.
///
/// ```
/// use tickring_feed::{Format, Replay, Source, SourceOptions};
///
/// let file = |symbol: &str, rows: &'static str| {
///     let options = SourceOptions { symbol: Some(symbol.to_owned()) };
///     Source::new(symbol.into(), rows.as_bytes(), Format::Csv, &options)
/// };
/// let mut replay = Replay::new(vec![
///     file("EURUSD", "ts,bid,ask\n1,1.1,1.2\n4,1.1,1.2\n")?,
///     file("USDJPY", "ts,bid,ask\n2,86.6,86.7\n3,86.6,86.7\n")?,
/// ]);
/// let mut order = Vec::new();
/// while let Some(tick) = replay.next_tick()? {
///     order.push(tick.symbol.to_owned());
/// }
/// assert_eq!(order, ["EURUSD", "USDJPY", "USDJPY", "EURUSD"]);
/// # Ok::<(), tickring_feed::DataError>(())
/// ```
pub struct Replay {
    files: Vec<Head>,
    skipped: Skipped,
}

/// Messages without a tick that were passed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Changes of the book behind its best levels.
    pub depth: u64,
    /// Anything else.
    pub other: u64,
}

/// A file and its next tick.
struct Head {
    source: Source,
    state: HeadState,
    symbol: String,
}

#[derive(Clone, Copy)]
enum HeadState {
    /// The next tick is to be read.
    Empty,
    Tick {
        received_ns: u64,
        event_ns: u64,
        content: Content,
    },
    Ended,
}

impl Replay {
    /// Merges `files`.
    pub fn new(files: Vec<Source>) -> Self {
        let head = |source| Head {
            source,
            state: HeadState::Empty,
            symbol: String::new(),
        };
        Self {
            files: files.into_iter().map(head).collect(),
            skipped: Skipped::default(),
        }
    }

    /// The next tick; `None` at the end of all files.
    ///
    /// # Errors
    /// [`DataError`] for a line that is no tick. Whoever wants to go on without that line calls
    /// again, unless the error [ends the file](DataError::ends_the_file).
    pub fn next_tick(&mut self) -> Result<Option<Tick<'_>>, DataError> {
        let mut first: Option<(u64, usize)> = None;
        for (at, head) in self.files.iter_mut().enumerate() {
            head.fill(&mut self.skipped)?;
            if let HeadState::Tick { received_ns, .. } = head.state
                && first.is_none_or(|(earliest, _)| received_ns < earliest)
            {
                first = Some((received_ns, at));
            }
        }
        let Some((_, at)) = first else {
            return Ok(None);
        };
        Ok(self.files[at].take())
    }

    /// What was passed over so far.
    pub const fn skipped(&self) -> Skipped {
        self.skipped
    }

    /// Bytes of all files, as they lie on the disk.
    pub fn len_bytes(&self) -> u64 {
        self.files.iter().map(|head| head.source.len_bytes()).sum()
    }

    /// Bytes of all files that have been read so far, as they lie on the disk.
    pub fn read_bytes(&self) -> u64 {
        self.files.iter().map(|head| head.source.read_bytes()).sum()
    }
}

impl Head {
    fn fill(&mut self, skipped: &mut Skipped) -> Result<(), DataError> {
        while matches!(self.state, HeadState::Empty) {
            match self.source.step()? {
                Step::Tick(tick) => {
                    tick.symbol.clone_into(&mut self.symbol);
                    self.state = HeadState::Tick {
                        received_ns: tick.received_ns,
                        event_ns: tick.event_ns,
                        content: tick.content,
                    };
                }
                Step::Depth => skipped.depth += 1,
                Step::Other => skipped.other += 1,
                Step::End => self.state = HeadState::Ended,
            }
        }
        Ok(())
    }

    fn take(&mut self) -> Option<Tick<'_>> {
        let HeadState::Tick {
            received_ns,
            event_ns,
            content,
        } = self.state
        else {
            return None;
        };
        self.state = HeadState::Empty;
        Some(Tick {
            symbol: &self.symbol,
            received_ns,
            event_ns,
            content,
        })
    }
}
