//! How long records are kept that nobody needs any more.

use std::time::Duration;

use super::Limits;

/// Records that are in the database are kept for as long as is wished, and for as long as replies
/// must be remembered when the disk bytes run out: what is wished gives way before commands do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    wish: Duration,
    least: Duration,
    crowded_bytes: u64,
}

impl Retention {
    /// Records are kept for `wish`, but only for `least` while a lane of these `limits` has room for
    /// no more than two segments, or an eighth of its bytes.
    #[must_use]
    pub fn new(wish: Duration, least: Duration, limits: &Limits) -> Self {
        let reserve = (2 * limits.segment_bytes).max(limits.journal_bytes / 8);
        Self {
            wish,
            least: least.min(wish),
            crowded_bytes: limits.journal_bytes - reserve.min(limits.journal_bytes),
        }
    }

    /// The node time before which records may go, of a lane that has `disk_bytes`.
    #[must_use]
    pub fn older_than_ns(&self, disk_bytes: u64, now_ns: u64) -> u64 {
        let age = match disk_bytes > self.crowded_bytes {
            true => self.least,
            false => self.wish,
        };
        now_ns.saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wished_gives_way_when_room_runs_out_and_what_must_be_kept_does_not() {
        let limits = Limits {
            segment_bytes: 10,
            journal_bytes: 100,
            ..Limits::default()
        };
        let seconds = Duration::from_secs;
        let retention = Retention::new(seconds(60), seconds(10), &limits);
        let now_ns = 100_000_000_000;
        for (disk_bytes, kept_s) in [(0, 60), (80, 60), (81, 10), (100, 10)] {
            let oldest = retention.older_than_ns(disk_bytes, now_ns);
            assert_eq!((now_ns - oldest) / 1_000_000_000, kept_s, "{disk_bytes}");
        }
        let short = Retention::new(seconds(5), seconds(10), &limits);
        assert_eq!(short.older_than_ns(100, now_ns), 95_000_000_000);
        assert_eq!(short.older_than_ns(0, 1), 0, "before there was a clock");
    }
}
