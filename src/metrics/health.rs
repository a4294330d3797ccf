//! Whether the server is alive, and whether it is ready.

use super::Scrape;
use crate::journal::Progress;
use crate::node::Observer;

/// Why a server that has no node yet is not ready.
pub(super) fn recovering(progress: Option<&Progress>) -> String {
    match progress {
        Some(progress) if progress.total_bytes() > 0 => {
            let (read, all) = (progress.bytes(), progress.total_bytes());
            let percent = read.min(all) * 100 / all;
            let records = progress.records();
            format!("recovering the journal: {percent} % read, {records} records")
        }
        _ => "starting".into(),
    }
}

/// Whether the node takes commands, or why not.
pub(super) fn ready(observer: &Observer) -> Result<(), String> {
    if observer.is_stopping() {
        return Err("stopping".into());
    }
    if let Some((core, _)) = silent(observer.cores().map(|(_, answered)| answered)).next() {
        return Err(format!("core {core} does not answer"));
    }
    for (number, lane) in observer.lanes().iter().enumerate() {
        if let Some(why) = lane.status().failure() {
            return Err(format!("lane {number} of the journal has failed: {why}"));
        }
        if lane.status().is_disk_full() {
            return Err(format!(
                "the disk of lane {number} of the journal is full; commands are refused until there is room"
            ));
        }
        if lane.status().is_full() {
            return Err(format!(
                "lane {number} of the journal has used its disk bytes up; commands are refused until \
                 the database has taken events over, or journal_bytes is raised"
            ));
        }
    }
    Ok(())
}

/// The cores that have not answered.
fn silent(answered: impl Iterator<Item = bool>) -> impl Iterator<Item = (usize, bool)> {
    answered.enumerate().filter(|(_, answered)| !answered)
}

impl Scrape {
    /// What `/healthz` says: an error if a core is stuck.
    pub(super) fn alive(&self) -> Result<String, String> {
        let answered = self.cores.iter().map(|(_, answered)| *answered);
        let stuck: Vec<String> = silent(answered).map(|(core, _)| core.to_string()).collect();
        if stuck.is_empty() {
            return Ok("ok".into());
        }
        Err(format!(
            "no answer within a second from core {}",
            stuck.join(", ")
        ))
    }

    /// What is worth knowing beside whether the server is ready; a line each.
    pub(super) fn remarks(&self) -> Vec<String> {
        #[cfg(feature = "database")]
        let remarks = self.lanes.iter().enumerate().filter_map(|(number, lane)| {
            let database = lane.projection()?;
            let state = match (database.is_broken(), database.is_connected()) {
                (true, _) => "stopped for good, see the log",
                (false, true) => "connected",
                (false, false) => "not connected; events wait in the journal",
            };
            Some(format!("database of lane {number}: {state}"))
        });
        #[cfg(not(feature = "database"))]
        let remarks = std::iter::empty();
        remarks.collect()
    }
}
