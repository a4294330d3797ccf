//! The readers of the database behind one core: each read comes back late, with a page or without
//! one, and in any order; the database may be away.

use tickring::core::{Core, Read, ReadRefusal};
use tickring_protocol::{Cursor, ErrorCode, Frame, HistoryPage};

use crate::ensure;
use crate::model::SharedModel;
use crate::node::Surroundings;

/// The most rows of a page, where the page has room for as many.
const MOST_ROWS: usize = 12;

/// Reads under way, each with the socket that asked.
pub(crate) struct Readers {
    open: Vec<(usize, Read)>,
    /// Reads that came back in this turn.
    given: usize,
    model: SharedModel,
}

impl Readers {
    pub(crate) fn new(model: &SharedModel) -> Self {
        Self {
            open: Vec::new(),
            given: 0,
            model: model.clone(),
        }
    }

    /// Takes what the core wants read, and holds it to its bounds.
    pub(crate) fn take(
        &mut self,
        core: &mut Core,
        slots: &[Option<usize>],
        around: &mut Surroundings<'_>,
    ) -> Result<(), String> {
        let limits = around.plan.limits;
        while let Some(read) = core.take_read() {
            ensure!(around.plan.has_database, "there is no database to read");
            // Its connection may be gone already.
            let socket = slots.get(read.slot() as usize).copied().flatten();
            let history = read.history();
            let page = HEAD + history.limit as usize * history.series.row_len();
            let room = limits.max_frame_bytes.min(limits.outbox_bytes / 4);
            ensure!(
                history.limit > 0 && (page <= room || history.limit == 1),
                "a page of {page} bytes is asked for, and {room} are the most"
            );
            around.trace.mix(31, history.request_id, &[]);
            self.open.push((socket.unwrap_or(usize::MAX), read));
        }
        ensure!(
            self.open.len() <= limits.max_reads,
            "{} reads are open, and max_reads is {}",
            self.open.len(),
            limits.max_reads
        );
        for (socket, _) in self.open.iter().filter(|(s, _)| *s != usize::MAX) {
            let count = self
                .open
                .iter()
                .filter(|(other, _)| other == socket)
                .count();
            ensure!(
                count <= limits.max_connection_reads,
                "socket {socket} has {count} reads open"
            );
        }
        if self.open.len() + std::mem::take(&mut self.given) >= limits.max_reads {
            self.model.lock().reads_full = true;
        }
        Ok(())
    }

    /// Hands the core what was read; says whether anything was.
    pub(crate) fn give(&mut self, core: &mut Core, around: &mut Surroundings<'_>) -> bool {
        let mut busy = false;
        for _ in 0..self.open.len() {
            if !around.happens() {
                break;
            }
            let which = around.dice.below(self.open.len());
            let (socket, read) = self.open.swap_remove(which);
            let key = (socket, read.history().request_id);
            let outcome = outcome(&read, around);
            match &outcome {
                Ok(page) => {
                    let mut model = self.model.lock();
                    model.pages.entry(key).or_default().push(page.clone());
                }
                Err(_) => {
                    self.model.lock().unread.insert(key);
                }
            }
            around.trace.mix(32, key.1, &[]);
            around
                .trace
                .line(|| format!("socket {socket}: read {} is over", key.1));
            core.on_read(read.done(outcome));
            self.given += 1;
            busy = true;
        }
        busy
    }
}

/// Bytes of HISTORY_PAGE before its rows.
const HEAD: usize = 40;

fn outcome(read: &Read, around: &mut Surroundings<'_>) -> Result<Vec<u8>, ReadRefusal> {
    if around.dice.below(100) < around.plan.database_away {
        return Err(ReadRefusal {
            code: ErrorCode::Overloaded,
            retry_after_ms: 1_000,
            text: "the database does not answer".into(),
        });
    }
    let history = read.history();
    let most = (history.limit as usize).min(MOST_ROWS);
    let bytes = around.dice.between(0, most) * history.series.row_len();
    let rows: Vec<u8> = (0..bytes).map(|_| around.dice.word() as u8).collect();
    let mut page = Vec::new();
    Frame::HistoryPage(HistoryPage {
        request_id: history.request_id,
        series: history.series,
        more: around.dice.chance(50),
        next: Cursor {
            event_ns: around.dice.word(),
            seq: around.dice.word(),
        },
        rows: &rows,
    })
    .encode(&mut page);
    Ok(page)
}
