//! Keeps the demo's database from growing: a demo may run overnight, and its directory is temporary.

use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use super::scratch::Scratch;
use crate::cli::clock::wall_ns;

/// How long ticks and candles of a second are kept, and how many ticks at most.
const KEPT: Duration = Duration::from_secs(600);
const KEPT_TICKS: f64 = 1_200_000.0;
/// Time from one trim to the next: what goes at once holds up the server's own writes for a moment.
const PERIOD: Duration = Duration::from_secs(2);
/// Rows deleted in one transaction, of one instrument.
const PIECE: u32 = 2000;

/// A thread that deletes what is old, until it is dropped.
pub(super) struct Trim {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Trim {
    /// Trims a database to which `rate` ticks come a second. Without a thread nothing is trimmed.
    pub(super) fn start(data: &Scratch, rate: f64) -> Self {
        let kept = KEPT.min(Duration::from_secs_f64(KEPT_TICKS / rate));
        let (end, ended) = mpsc::channel::<()>();
        let file = data.database();
        let run = move || {
            while ended.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                let before_ns = wall_ns() - kept.as_nanos() as u64; // ten minutes fit
                if let Err(error) = trim(&file, before_ns) {
                    tracing::warn!(%error, "the demo's history could not be trimmed");
                }
            }
        };
        let thread = std::thread::Builder::new().name("demo-trim".to_owned());
        Self {
            end: Some(end),
            thread: thread.spawn(run).ok(),
        }
    }
}

impl Drop for Trim {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic of it changes nothing for the demo
        }
    }
}

/// Deletes the ticks and the candles of a second that are older than that. Their space is used again.
fn trim(file: &Path, before_ns: u64) -> rusqlite::Result<()> {
    let db = Connection::open(file)?;
    // What a power cut brings back is deleted again.
    db.execute_batch("PRAGMA busy_timeout = 5000; PRAGMA synchronous = OFF")?;
    let topics: Vec<u32> = db
        .prepare("SELECT id FROM topics")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for (table, time) in [("ticks", "event_ns"), ("candles_1s", "start_ns")] {
        // By key, which begins with topic and time.
        let old = format!(
            "DELETE FROM {table} WHERE topic_id = ?1 AND {time} < coalesce((SELECT {time} FROM {table} \
             WHERE topic_id = ?1 AND {time} < ?2 ORDER BY {time} LIMIT 1 OFFSET {PIECE}), ?2)"
        );
        let mut delete = db.prepare(&old)?;
        for topic in &topics {
            while delete.execute((topic, before_ns as i64))? >= PIECE as usize {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_goes_and_what_is_younger_stays() {
        let dir = std::env::temp_dir().join(format!("tickring-trim-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("trim.sqlite");
        let db = Connection::open(&file).unwrap();
        let rows = 2 * i64::from(PIECE) + 10;
        db.execute_batch(&format!(
            "CREATE TABLE topics (id INTEGER PRIMARY KEY); INSERT INTO topics VALUES (1), (2);
             CREATE TABLE ticks (topic_id, event_ns, seq, PRIMARY KEY (topic_id, event_ns, seq)) WITHOUT ROWID;
             CREATE TABLE candles_1s (topic_id, start_ns, PRIMARY KEY (topic_id, start_ns)) WITHOUT ROWID;
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
             INSERT INTO ticks SELECT id, i, i FROM n, topics;
             INSERT INTO candles_1s SELECT 2, event_ns FROM ticks WHERE topic_id = 1;"
        ))
        .unwrap();
        trim(&file, rows as u64 - 4).unwrap();
        let left = |sql| db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(left("SELECT count(*) FROM ticks"), 10);
        assert_eq!(left("SELECT count(*) FROM candles_1s"), 5);
        assert_eq!(left("SELECT min(event_ns) FROM ticks"), rows - 4);
        drop(db);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
