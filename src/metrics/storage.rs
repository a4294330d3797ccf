//! The journal's lanes, recovery, and the database. Samples of lanes have the label `lane`.

use std::fmt;

use super::Scrape;
use super::page::{Labels, Page, Scale};
use crate::journal::Status;
use crate::node::{LaneView, Recovery};

pub(super) fn encode(scrape: &Scrape, page: &mut Page<'_>) -> fmt::Result {
    recovery(scrape, page)?;
    journal(scrape, page)?;
    disk(scrape, page)?;
    #[cfg(feature = "database")]
    database::encode(scrape, page)?;
    Ok(())
}

fn lanes<'a, V: 'a>(
    scrape: &'a Scrape,
    value: impl Fn(&LaneView) -> V + 'a,
) -> impl Iterator<Item = (Labels, V)> + 'a {
    let lanes = scrape.lanes.iter().enumerate();
    lanes.map(move |(lane, view)| (vec![("lane", lane.to_string())], value(view)))
}

fn recovery(scrape: &Scrape, page: &mut Page<'_>) -> fmt::Result {
    let one = |value: fn(&Recovery) -> f64| {
        let recovery = scrape.recovery.iter();
        recovery.map(move |recovery| (Labels::new(), value(recovery)))
    };
    page.gauge(
        "tickring_recovery_seconds",
        "How long it took at start to read the journal",
        one(|recovery| recovery.took.as_secs_f64()),
    )?;
    page.gauge(
        "tickring_recovery_events",
        "Events that were read from the journal at start",
        one(|recovery| recovery.events as f64),
    )?;
    page.gauge(
        "tickring_recovery_events_per_second",
        "Events that each thread of recovery read per second",
        one(Recovery::rate),
    )
}

fn journal(scrape: &Scrape, page: &mut Page<'_>) -> fmt::Result {
    let each = |value: fn(&Status) -> f64| lanes(scrape, move |lane| value(lane.status()));
    page.counter(
        "tickring_journal_written_bytes",
        "Position up to which the lane is on disk: bytes of records since the journal was made",
        lanes(scrape, |lane| lane.status().committed()),
    )?;
    page.counter(
        "tickring_journal_commits",
        "Writes that were brought to disk",
        lanes(scrape, |lane| lane.status().commits()),
    )?;
    page.histogram(
        "tickring_journal_commit_seconds",
        "How long a write takes until it is on disk, fdatasync included",
        Scale::Time,
        lanes(scrape, |lane| lane.status().commit_ns()),
    )?;
    page.histogram(
        "tickring_journal_batch_bytes",
        "Bytes that one write carries",
        Scale::Bytes,
        lanes(scrape, |lane| lane.status().batch_bytes()),
    )?;
    page.gauge(
        "tickring_journal_lag_bytes",
        "Bytes that the lane has taken and that are not on disk yet",
        each(|lane| lane.unsynced_bytes() as f64),
    )?;
    page.gauge(
        "tickring_journal_lag_seconds",
        "For how long the oldest of those bytes has waited",
        each(|lane| lane.unsynced_for().as_secs_f64()),
    )
}

fn disk(scrape: &Scrape, page: &mut Page<'_>) -> fmt::Result {
    let each = |value: fn(&Status) -> f64| lanes(scrape, move |lane| value(lane.status()));
    page.gauge(
        "tickring_journal_disk_bytes",
        "Bytes of the lane's files",
        each(|lane| lane.disk_bytes() as f64),
    )?;
    page.gauge(
        "tickring_journal_disk_limit_bytes",
        "The most bytes of the lane's files (its share of journal_bytes)",
        lanes(scrape, |lane| lane.limit_bytes() as f64),
    )?;
    page.gauge(
        "tickring_journal_full",
        "Whether the lane has no room, so that commands wait and are then refused",
        each(|lane| f64::from(u8::from(lane.is_full()))),
    )?;
    page.gauge(
        "tickring_journal_failed",
        "Whether the lane's disk has failed; the server then stops",
        each(|lane| f64::from(u8::from(lane.is_failed()))),
    )
}

#[cfg(feature = "database")]
mod database {
    use std::fmt;

    use super::super::Scrape;
    use super::super::page::{Labels, Page, Scale};
    use crate::node::LaneView;
    use crate::writer::follow::Figures;

    pub(super) fn encode(scrape: &Scrape, page: &mut Page<'_>) -> fmt::Result {
        counts(scrape, page)?;
        state(scrape, page)
    }

    fn each<'a, V: 'a>(
        scrape: &'a Scrape,
        value: impl Fn(&LaneView, &Figures) -> V + 'a,
    ) -> impl Iterator<Item = (Labels, V)> + 'a {
        let lanes = scrape.lanes.iter().enumerate();
        lanes.filter_map(move |(lane, view)| {
            let labels = vec![("lane", lane.to_string())];
            Some((labels, value(view, view.projection()?)))
        })
    }

    fn counts(scrape: &Scrape, page: &mut Page<'_>) -> fmt::Result {
        page.counter(
            "tickring_database_records",
            "Events brought to the database",
            each(scrape, |_, database| database.counters().records),
        )?;
        page.counter(
            "tickring_database_rows",
            "Rows written",
            each(scrape, |_, database| database.counters().rows),
        )?;
        page.counter(
            "tickring_database_late",
            "Trades older than the newest candle of their instrument; the candle that they belong to was put right",
            each(scrape, |_, database| database.counters().late),
        )?;
        page.counter(
            "tickring_database_commits",
            "Transactions committed",
            each(scrape, |_, database| database.counters().commits),
        )?;
        page.counter(
            "tickring_database_errors",
            "Failures: connections refused or lost, commits that failed",
            each(scrape, |_, database| database.failures()),
        )?;
        page.counter(
            "tickring_database_connects",
            "Connections made; one more than the reconnects",
            each(scrape, |_, database| database.connects()),
        )?;
        page.histogram(
            "tickring_database_commit_seconds",
            "How long a transaction takes",
            Scale::Time,
            each(scrape, |_, database| database.commit_times()),
        )?;
        page.histogram(
            "tickring_database_batch_records",
            "Events that one transaction carries",
            Scale::Count,
            each(scrape, |_, database| database.batch_sizes()),
        )
    }

    fn state(scrape: &Scrape, page: &mut Page<'_>) -> fmt::Result {
        page.gauge(
            "tickring_database_connected",
            "Whether the database answers",
            each(scrape, |_, database| {
                f64::from(u8::from(database.is_connected()))
            }),
        )?;
        page.gauge(
            "tickring_database_stopped",
            "Whether the lane is no longer brought to the database, because the journal cannot be read",
            each(scrape, |_, database| f64::from(u8::from(database.is_broken()))),
        )?;
        page.gauge(
            "tickring_database_lag_bytes",
            "Bytes of the journal that the tables do not have yet",
            each(scrape, |lane, database| {
                let committed = lane.status().committed();
                committed.saturating_sub(database.position()) as f64
            }),
        )?;
        page.gauge(
            "tickring_database_lag_seconds",
            "How long ago the node took the oldest event that was read from the journal and that the tables do not have yet",
            each(scrape, |_, database| database.lag(crate::node::wall_ns()).as_secs_f64()),
        )
    }
}
