//! What a seed's world is like: its sizes, its bounds, and how unkind it is.

use std::time::Duration;

use tickring::core::Limits;

use crate::dice::Dice;
use crate::model::{CANDLE, TALLY};

/// The sizes of one world.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) cores: usize,
    pub(crate) clients: usize,
    pub(crate) epoch: u64,
    pub(crate) limits: Limits,
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
}

impl Plan {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let cores = dice.pick(&[1, 1, 2, 2, 3, 4]);
        let clients = dice.between(2, 9);
        let kinds = ["stream", "market", TALLY];
        let mut topics: Vec<String> = (0..dice.between(1, 6))
            .map(|i| format!("{}/t{i}", dice.pick(&kinds)))
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
            max_topics: if dice.chance(20) {
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
        };
        let body = dice.pick(&[8, 64, 300, 900]);
        let mut plan = Self {
            cores,
            clients,
            epoch: dice.word() | 1,
            limits,
            mailbox: dice.between(1, 4),
            topics,
            steps: dice.between(150, 900),
            body: body.min(limits.max_frame_bytes / 2),
            pipeline: dice.pick(&[1, 2, 4, 12]),
            socket_bytes: dice.pick(&[64, 300, 2 << 10, 16 << 10]),
            haste: dice.pick(&[15, 40, 80]),
            failures: dice.pick(&[0, 0, 5, 30]),
            garbage: dice.pick(&[0, 0, 2, 8]),
            early_shutdown: dice.chance(15),
            flood: dice.chance(10),
        };
        if plan.flood {
            plan.flood();
        }
        plan
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
