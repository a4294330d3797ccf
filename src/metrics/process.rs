//! The server and its process.

use std::fmt;

use procfs::process::{LimitValue, Process, Stat};
use procfs::{WithCurrentSystemInfo, ticks_per_second};

use super::page::{Collected, Page, one};

pub(super) fn encode(collected: &Collected, page: &mut Page<'_>) -> fmt::Result {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    page.gauge(
        "tickring_build_info",
        "The running version; always 1",
        [(vec![("version", version)], 1.0)],
    )?;
    page.gauge(
        "tickring_ready",
        "Whether /readyz says that the server takes commands",
        one(f64::from(u8::from(collected.scrape.ready.is_ok()))),
    )?;
    page.gauge(
        "tickring_uptime_seconds",
        "For how long the server has been running",
        one(collected.uptime.as_secs_f64()),
    )?;
    page.gauge(
        "tickring_scrape_seconds",
        "How long the cores took to answer this scrape",
        one(collected.took.as_secs_f64()),
    )?;
    process(page)
}

/// By the names that Prometheus' own client libraries give. What /proc does not tell is left out.
fn process(page: &mut Page<'_>) -> fmt::Result {
    let process = Process::myself().ok();
    let stat = process.as_ref().and_then(|process| process.stat().ok());
    let stat = stat.as_ref();
    let sample = |value: Option<f64>| value.map(|value| (Vec::new(), value));
    let seconds = |ticks: u64| ticks as f64 / ticks_per_second() as f64;
    page.counter(
        "process_cpu_seconds",
        "Time on a CPU, in the program and in the kernel",
        sample(stat.map(|stat| seconds(stat.utime + stat.stime))),
    )?;
    page.gauge(
        "process_resident_memory_bytes",
        "Memory in use",
        sample(stat.map(|stat| stat.rss_bytes().get() as f64)),
    )?;
    page.gauge(
        "process_threads",
        "Threads",
        sample(stat.map(|stat| stat.num_threads as f64)),
    )?;
    page.gauge(
        "process_start_time_seconds",
        "When it started, in seconds since 1970-01-01 UTC",
        sample(stat.and_then(started)),
    )?;
    let open = process.as_ref().and_then(|process| process.fd_count().ok());
    page.gauge(
        "process_open_fds",
        "Open file descriptors; connections are none",
        sample(open.map(|count| count as f64)),
    )?;
    let limit = process.as_ref().and_then(|process| process.limits().ok());
    let limit = limit.and_then(|limits| match limits.max_open_files.soft_limit {
        LimitValue::Value(most) => Some(most as f64),
        LimitValue::Unlimited => None,
    });
    page.gauge(
        "process_max_fds",
        "The most open file descriptors",
        sample(limit),
    )
}

fn started(stat: &Stat) -> Option<f64> {
    let booted = procfs::boot_time_secs().ok()?;
    Some(booted as f64 + stat.starttime as f64 / ticks_per_second() as f64)
}
