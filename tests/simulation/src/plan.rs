//! What a seed's world is like: its sizes, its bounds, and how unkind it is.

use std::time::Duration;

use tickring::core::{Limits, Pacing};
use tickring::journal::{Limits as LaneLimits, ReplyLimits};

use crate::dice::Dice;
use crate::model::{CANDLE, LEDGER, TALLY, TAPE};

/// The sizes of one world.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) cores: usize,
    pub(crate) clients: usize,
    pub(crate) limits: Limits,
    pub(crate) pacing: Pacing,
    /// Parcels that each mailbox holds.
    pub(crate) mailbox: usize,
    pub(crate) topics: Vec<String>,
    pub(crate) steps: usize,
    /// The longest body of an event, in bytes.
    pub(crate) body: usize,
    /// The most frames that a client puts into one write.
    pub(crate) pipeline: usize,
    /// Bytes that a socket holds in each direction.
    pub(crate) socket_bytes: usize,
    /// Percent: how often a core makes a turn, mail arrives, a socket moves.
    pub(crate) haste: usize,
    /// Percent of completions that are failures of the socket, times 100.
    pub(crate) failures: usize,
    /// Percent of frames that are malformed.
    pub(crate) garbage: usize,
    /// Whether the node stops in the middle of its work.
    pub(crate) early_shutdown: bool,
    /// Whether it is about many events and clients that stall.
    pub(crate) flood: bool,
    pub(crate) journal: JournalPlan,
    /// Whether there is a database to read from, and percent of reads that it does not answer.
    pub(crate) has_database: bool,
    pub(crate) database_away: usize,
    /// How often the node is started.
    pub(crate) lives: usize,
}

/// How the node keeps its journal, and how unkind its disk is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct JournalPlan {
    /// 0: it keeps none.
    pub(crate) lanes: u32,
    pub(crate) limits: LaneLimits,
    pub(crate) replies: ReplyLimits,
    /// How long records are kept at least, in nanoseconds.
    pub(crate) retention_ns: u64,
    /// Batches that a core's mailbox to a lane holds.
    pub(crate) port: usize,
    /// Bytes by which a lane grows before a core that has nothing there is told.
    pub(crate) news_bytes: u64,
    /// Percent of writes that are short.
    pub(crate) short_writes: usize,
    /// Operations of 10,000 that fail.
    pub(crate) failures: usize,
    pub(crate) preallocates: bool,
}

impl JournalPlan {
    fn draw(dice: &mut Dice) -> Self {
        let segment_bytes = dice.pick(&[4 << 10, 4 << 10, 8 << 10, 32 << 10]);
        let age_ms = dice.pick(&[2, 20, 200, 1_000]);
        let age_ns = age_ms * 1_000_000;
        Self {
            lanes: dice.pick(&[1, 1, 2, 3]),
            limits: LaneLimits {
                segment_bytes,
                journal_bytes: dice.pick(&[5, 10, 32, 64]) * segment_bytes,
                group_bytes: dice.pick(&[4 << 10, segment_bytes as usize]),
                max_delay: Duration::from_nanos(dice.pick(&[0, 0, 0, 100_000])),
            },
            replies: ReplyLimits {
                per_session: dice.pick(&[4, 16, 1_024, 1_024]),
                age_ns,
                bytes: dice.pick(&[1 << 10, 8 << 10, 64 << 20, 64 << 20]),
            },
            retention_ns: age_ns + age_ns / 8,
            port: dice.pick(&[1, 2, 8]),
            news_bytes: segment_bytes / 4,
            short_writes: dice.pick(&[0, 0, 10, 40]),
            failures: dice.pick(&[0, 0, 0, 20, 200]),
            preallocates: dice.chance(50),
        }
    }
}

impl Plan {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let cores = dice.pick(&[1, 1, 2, 2, 3, 4]);
        let clients = dice.between(2, 9);
        let journal = if dice.chance(60) {
            JournalPlan::draw(dice)
        } else {
            JournalPlan::default()
        };
        let lives = match journal.lanes {
            0 => 1,
            _ => dice.pick(&[1, 2, 2, 3, 4]),
        };
        let kinds: &[&str] = match journal.lanes {
            0 if dice.chance(90) => &["stream", "market", TALLY],
            _ => &["stream", "market", "log", "log", TALLY, TAPE, LEDGER],
        };
        let mut topics: Vec<String> = (0..dice.between(1, 6))
            .map(|i| format!("{}/t{i}", dice.pick(kinds)))
            .collect();
        if dice.chance(15) {
            topics.push(format!("node/core-{}", dice.below(cores)));
        }
        for n in 0..topics.len() {
            if let Some(instrument) = topics[n].strip_prefix("market/")
                && dice.chance(60)
            {
                let period = dice.pick(&["1s", "1m", "1h", "1d"]);
                topics.push(format!("{CANDLE}/{period}/{instrument}"));
            }
        }
        let ms = |dice: &mut Dice, low, high| Duration::from_millis(dice.between(low, high) as u64);
        let outbox_bytes = dice.pick(&[1 << 10, 2 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10]);
        let history_topic_bytes = dice.pick(&[1 << 10, 4 << 10, 64 << 10, 1 << 20]);
        let limits = Limits {
            max_connections: if dice.chance(20) {
                dice.between(1, 3)
            } else {
                64
            },
            max_subscriptions: if dice.chance(25) {
                dice.between(1, 3)
            } else {
                64
            },
            // A node does not start if it cannot hold the topics that it had.
            max_topics: if journal.lanes == 0 && dice.chance(20) {
                dice.between(1, 3)
            } else {
                1_000
            },
            max_frame_bytes: dice.pick(&[1 << 10, 4 << 10, 64 << 10]),
            outbox_bytes,
            inbox_bytes: dice.pick(&[64, 512, 4 << 10, 64 << 10]),
            history_topic_bytes,
            history_bytes: dice.pick(&[2 << 10, 16 << 10, 256 << 10, 4 << 20]),
            overload_patience: ms(dice, 1, 20),
            hello_timeout: ms(dice, 5, 30),
            idle_timeout: if dice.chance(40) {
                Duration::ZERO
            } else {
                ms(dice, 30, 120)
            },
            drain_timeout: ms(dice, 5, 60),
            linger_timeout: ms(dice, 2, 20),
            max_reads: dice.pick(&[1, 2, 4, 256]),
            max_connection_reads: dice.pick(&[1, 2, 4]),
        };
        let body = dice.pick(&[8, 64, 300, 900]);
        let mut plan = Self {
            cores,
            clients,
            limits,
            pacing: Pacing {
                slice: dice.pick(&[1, 2, 64]),
                many: dice.pick(&[1, 2, 8]),
                queued_bytes: dice.pick(&[1 << 10, 16 << 10, 1 << 20]),
            },
            mailbox: dice.between(1, 4),
            topics,
            steps: dice.between(150, 700),
            body: body.min(limits.max_frame_bytes / 2),
            pipeline: dice.pick(&[1, 2, 4, 12]),
            socket_bytes: dice.pick(&[64, 300, 2 << 10, 16 << 10]),
            haste: dice.pick(&[15, 40, 80]),
            failures: dice.pick(&[0, 0, 5, 30]),
            garbage: dice.pick(&[0, 0, 2, 8]),
            early_shutdown: dice.chance(15),
            flood: dice.chance(10),
            journal,
            has_database: dice.chance(60),
            database_away: dice.pick(&[0, 20, 100]),
            lives,
        };
        if plan.flood {
            plan.flood();
        }
        plan
    }

    /// Which answers a core keeps.
    pub(crate) fn replies(&self) -> ReplyLimits {
        self.journal.replies
    }

    /// Bytes of a core on their way to a lane, as the node has it.
    pub(crate) fn window_bytes(&self) -> usize {
        self.journal.limits.segment_bytes as usize / (4 * self.cores)
    }

    /// Many events in small turns, for clients that often stall: what piles up shows.
    fn flood(&mut self) {
        (self.pipeline, self.haste, self.garbage) = (2, 80, 0);
        self.limits.outbox_bytes = self.limits.outbox_bytes.min(4 << 10);
        self.body = 900.min(self.limits.max_frame_bytes / 2);
        self.limits.max_connections = 64;
        self.socket_bytes = self.socket_bytes.max(2 << 10);
    }
}
