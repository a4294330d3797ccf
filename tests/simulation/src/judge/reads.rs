//! Answers to HISTORY.

use tickring_protocol::{Decoded, ErrorCode, ErrorFrame, Frame, HistoryPage, TopicName, decode};

use crate::client::Around;
use crate::ensure;
use crate::shadow::{Asked, Shadow};

/// A page must be the one that was read for this connection.
pub(super) fn page(
    it: &HistoryPage<'_>,
    socket: usize,
    shadow: &mut Shadow,
    around: &mut Around<'_>,
) -> Result<(), String> {
    around.coverage.pages += 1;
    let asked = |asked: &Asked| matches!(asked, Asked::History { .. });
    let Some(place) = shadow.find(it.request_id, asked) else {
        return Err("no HISTORY asked for it, or it was answered before".into());
    };
    shadow.pending.remove(place);
    let pages = around.model.pages.get_mut(&(socket, it.request_id));
    let same = |bytes: &Vec<u8>| matches!(decode(bytes, bytes.len()), Ok(Decoded::Frame { frame: Frame::HistoryPage(read), .. }) if read == *it);
    let known = pages.and_then(|pages| Some(pages.swap_remove(pages.iter().position(same)?)));
    ensure!(known.is_some(), "it is not what was read");
    Ok(())
}

/// A read was refused while `reading` others of the connection may have been open.
pub(super) fn read_refused(
    topic: &str,
    code: ErrorCode,
    it: &ErrorFrame<'_>,
    (socket, reading): (usize, usize),
    around: &mut Around<'_>,
) -> Result<(), String> {
    let (plan, coverage) = (around.plan, &mut *around.coverage);
    if let Err(error) = TopicName::new(topic) {
        ensure!(code == error.code(), "the reason is {}", error.code());
        return Ok(());
    }
    if !plan.has_database {
        coverage.no_database += 1;
        ensure!(code == ErrorCode::NoDatabase, "there is no database");
        return Ok(());
    }
    ensure!(
        code == ErrorCode::Overloaded && it.retry_after_ms > 0,
        "there is a database, and the name is right"
    );
    let model = &mut *around.model;
    if model.unread.remove(&(socket, it.request_id)) {
        coverage.reads_unanswered += 1;
        return Ok(());
    }
    coverage.reads_refused += 1;
    ensure!(
        reading >= plan.limits.max_connection_reads || model.reads_full,
        "no bound was reached"
    );
    Ok(())
}
