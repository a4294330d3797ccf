//! What cores, connections and topics do. Each sample has the label `core`.

use std::fmt;

use tickring_protocol::{ErrorCode, GapReason};

use super::Scrape;
use super::page::{Labels, Page, Scale, one};
use crate::core::Slow;
use crate::histogram::Histogram;
use crate::node::CoreReport;

/// The slowest connections that are told by name.
const SLOWEST: usize = 5;
/// Characters of a client's name that are told.
const NAME: usize = 64;

pub(super) fn encode(scrape: &Scrape, page: &mut Page<'_>) -> fmt::Result {
    rates(scrape, page)?;
    troubles(scrape, page)?;
    holdings(scrape, page)?;
    slowest(scrape, page)?;
    times(scrape, page)
}

/// A sample of each core that has answered once.
fn each<'a, V: 'a>(
    scrape: &'a Scrape,
    value: impl Fn(&CoreReport) -> V + 'a,
) -> impl Iterator<Item = (Labels, V)> + 'a {
    reports(scrape).map(move |(core, report)| (vec![("core", core.to_string())], value(report)))
}

fn reports(scrape: &Scrape) -> impl Iterator<Item = (usize, &CoreReport)> {
    let cores = scrape.cores.iter().enumerate();
    cores.filter_map(|(core, (report, _))| Some((core, report.as_ref()?)))
}

/// What happens all the time.
fn rates(scrape: &Scrape, page: &mut Page<'_>) -> fmt::Result {
    let all = scrape.cores.iter().enumerate();
    page.gauge(
        "tickring_core_up",
        "Whether the core has answered this scrape within a second",
        all.map(|(core, (_, answered))| (vec![("core", core.to_string())], i64::from(*answered))),
    )?;
    page.counter(
        "tickring_turns",
        "Turns of the core's loop",
        each(scrape, |core| core.figures.stats.turns),
    )?;
    page.counter(
        "tickring_commands",
        "Commands given to the machines of the core's topics, those that they refused included",
        each(scrape, |core| core.figures.stats.commands),
    )?;
    page.counter(
        "tickring_commands_repeated",
        "Commands that came again and got their first reply",
        each(scrape, |core| core.figures.counts.repeated),
    )?;
    page.counter(
        "tickring_events",
        "Events of the core's topics that were released to their subscribers",
        each(scrape, |core| core.figures.stats.events),
    )?;
    page.counter(
        "tickring_deliveries",
        "Events handed to subscribers connected to the core",
        each(scrape, |core| core.figures.stats.delivered),
    )?;
    page.counter(
        "tickring_sends",
        "Sends submitted; each carries all that a connection was due",
        each(scrape, |core| core.figures.stats.sends),
    )?;
    page.counter(
        "tickring_sent_bytes",
        "Bytes sent to clients",
        each(scrape, |core| core.figures.stats.sent_bytes),
    )?;
    page.counter(
        "tickring_received_bytes",
        "Bytes received from clients",
        each(scrape, |core| core.figures.counts.received_bytes),
    )?;
    page.counter(
        "tickring_connections_accepted",
        "Connections accepted, those that were then refused included",
        each(scrape, |core| core.figures.counts.accepted),
    )
}

/// What should be rare.
fn troubles(scrape: &Scrape, page: &mut Page<'_>) -> fmt::Result {
    let reasons = [
        (GapReason::Delayed, "delayed"),
        (GapReason::Conflated, "conflated"),
        (GapReason::Expired, "expired"),
        (GapReason::Reset, "reset"),
    ];
    let gaps = reports(scrape).flat_map(|(core, report)| {
        reasons.map(|(reason, name)| {
            let labels = vec![("core", core.to_string()), ("reason", name.to_owned())];
            (labels, report.figures.counts.gaps(reason))
        })
    });
    page.counter("tickring_gaps", "GAPs told to clients, by reason", gaps)?;
    let codes = ErrorCode::ALL.iter().skip(1); // without `ok`
    let errors = reports(scrape).flat_map(|(core, report)| {
        codes.clone().map(move |code| {
            let labels = vec![("core", core.to_string()), ("code", code.name().to_owned())];
            (labels, report.figures.counts.errors(*code))
        })
    });
    page.counter(
        "tickring_errors",
        "REPLY, ERROR and GOODBYE with a code other than ok, by code: what was refused by a bound has the bound's code",
        errors,
    )?;
    page.counter(
        "tickring_crowded_turns",
        "Turns after which something was left for lack of room in a mailbox of another core or of the journal",
        each(scrape, |core| core.crowded_turns),
    )
}

/// What there is.
fn holdings(scrape: &Scrape, page: &mut Page<'_>) -> fmt::Result {
    page.gauge(
        "tickring_connections",
        "Open connections",
        each(scrape, |core| i64::from(core.figures.stats.connections)),
    )?;
    page.gauge(
        "tickring_connections_limit",
        "The most open connections of the node (max_connections)",
        one(scrape.max_connections as f64),
    )?;
    page.gauge(
        "tickring_subscriptions",
        "Subscriptions of the core's connections",
        each(scrape, |core| i64::from(core.figures.stats.subscriptions)),
    )?;
    page.gauge(
        "tickring_topics",
        "Topics that the core owns",
        each(scrape, |core| i64::from(core.figures.stats.topics)),
    )?;
    page.gauge(
        "tickring_slow_consumers",
        "Connections that are behind",
        each(scrape, |core| i64::from(core.figures.stats.slow)),
    )?;
    page.gauge(
        "tickring_waiting_connections",
        "Connections that are not read, because what they sent finds no room in a mailbox",
        each(scrape, |core| core.figures.waiting as f64),
    )?;
    page.gauge(
        "tickring_outbox_bytes",
        "Bytes that wait to be sent",
        each(scrape, |core| core.figures.stats.outbox_bytes as f64),
    )?;
    page.gauge(
        "tickring_history_bytes",
        "Bytes of events kept in memory for replay",
        each(scrape, |core| core.figures.stats.history_bytes as f64),
    )?;
    page.gauge(
        "tickring_held_bytes",
        "Bytes of events and replies that wait for the journal's disk",
        each(scrape, |core| core.figures.held_bytes as f64),
    )?;
    let depths = reports(scrape).flat_map(|(core, report)| {
        let mail = report.mail;
        [
            ("requests", mail.requests),
            ("deliveries", mail.deliveries),
            ("journal", mail.journal),
        ]
        .map(|(mailbox, depth)| {
            let labels = vec![("core", core.to_string()), ("mailbox", mailbox.to_owned())];
            (labels, depth as f64)
        })
    });
    page.gauge(
        "tickring_mailbox_depth",
        "Parcels that nobody has taken in yet: requests and deliveries to the core, batches from it to the journal",
        depths,
    )
}

/// The slowest connections of the node by name: bounded, whatever clients call themselves.
fn slowest(scrape: &Scrape, page: &mut Page<'_>) -> fmt::Result {
    let of_core = |(core, report): (usize, &'_ CoreReport)| {
        let slow = report.figures.slowest.clone();
        slow.into_iter().map(move |slow| (core, slow))
    };
    let mut slow: Vec<(usize, Slow)> = reports(scrape).flat_map(of_core).collect();
    slow.sort_by_key(|(_, slow)| std::cmp::Reverse(slow.since_ns));
    slow.truncate(SLOWEST);
    // The rank makes the labels differ where names are the same.
    let labels = |rank: usize, core: usize, slow: &Slow| {
        let name: String = slow.name.chars().take(NAME).collect();
        vec![
            ("core", core.to_string()),
            ("rank", (rank + 1).to_string()),
            ("client", name),
        ]
    };
    let each = |value: fn(&Slow) -> f64| {
        let ranked = slow.iter().enumerate();
        ranked.map(move |(rank, (core, slow))| (labels(rank, *core, slow), value(slow)))
    };
    page.gauge(
        "tickring_slowest_consumer_bytes",
        "Bytes that wait for each of the five connections that have been behind for longest",
        each(|slow| slow.behind_bytes as f64),
    )?;
    page.gauge(
        "tickring_slowest_consumer_seconds",
        "For how long each of the five connections that have been behind for longest has been so",
        each(|slow| slow.since_ns as f64 / 1e9),
    )
}

/// How long things take.
fn times(scrape: &Scrape, page: &mut Page<'_>) -> fmt::Result {
    type Pick = fn(&CoreReport) -> Histogram;
    let families: [(&str, &str, Pick); 4] = [
        (
            "tickring_turn_seconds",
            "Length of a turn: how long what comes now waits at most before it is looked at",
            |core| core.figures.times.turn,
        ),
        (
            "tickring_command_seconds",
            "From the beginning of the turn that took a command in to the end of the turn that applied it, its events being in the outboxes or at the journal",
            |core| core.figures.times.command,
        ),
        (
            "tickring_release_seconds",
            "From the turn that made a durable event or reply to the turn that released it, because it was on disk",
            |core| core.figures.times.release,
        ),
        (
            "tickring_mail_seconds",
            "From the turn that wrote a parcel to the turn of another core that took it in",
            |core| core.figures.times.mail,
        ),
    ];
    for (name, help, pick) in families {
        page.histogram(name, help, Scale::Time, each(scrape, pick))?;
    }
    Ok(())
}
