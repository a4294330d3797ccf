//! A short run of the simulator, and the proof that its checks can fail.

use tickring_sim::{Coverage, Plant, run};

/// Where the seeds of these tests begin; `tickring-sim` begins at 0.
const START: u64 = 1 << 40;
const SEEDS: u64 = 2_000;
/// A planted fault has to show within so many seeds.
const MOST_TO_CATCH: u64 = 1_500;

/// Runs `seeds` on two threads and gives what they exercised.
fn hold(seeds: std::ops::Range<u64>) -> Coverage {
    let half = |odd: u64| {
        let seeds = seeds.clone();
        move || {
            let mut coverage = Coverage::default();
            for seed in seeds.filter(|seed| seed % 2 == odd) {
                match run(seed, None) {
                    Ok(report) => coverage.add(&report.coverage),
                    Err(failure) => panic!(
                        "seed {seed}: {}\nreplay: cargo run --profile sim -p tickring-sim -- --seed {seed}",
                        failure.reason
                    ),
                }
            }
            coverage
        }
    };
    let other = std::thread::spawn(half(1));
    let mut coverage = half(0)();
    match other.join() {
        Ok(theirs) => coverage.add(&theirs),
        Err(panic) => std::panic::resume_unwind(panic),
    }
    coverage
}

#[test]
fn random_worlds_keep_every_rule_and_leave_no_path_untrodden() {
    let coverage = hold(START..START + SEEDS);
    let missing: Vec<_> = coverage
        .list()
        .into_iter()
        .filter(|(_, count)| *count == 0)
        .collect();
    assert!(missing.is_empty(), "never exercised: {missing:?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let hashes = || {
        (START..START + 300)
            .map(|seed| run(seed, None).map(|r| r.hash))
            .collect::<Vec<_>>()
    };
    let other = std::thread::spawn(hashes);
    let here = hashes();
    assert_eq!(here, other.join().expect("the other thread ran them too"));
    let mut distinct = here.iter().flatten().collect::<Vec<_>>();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), 300, "each seed is a run of its own");
}

fn is_caught(plant: Plant) -> Option<u64> {
    (START..START + MOST_TO_CATCH)
        .position(|seed| run(seed, Some(plant)).is_err())
        .map(|n| n as u64)
}

#[test]
fn an_unsubscribed_that_overtakes_events_is_caught() {
    assert!(is_caught(Plant::UnsubscribedOvertakes).is_some());
}

#[test]
fn a_catch_up_that_skips_an_event_is_caught() {
    assert!(is_caught(Plant::CatchUpSkipsOne).is_some());
}

#[test]
fn events_that_are_released_before_they_are_on_disk_are_caught() {
    assert!(is_caught(Plant::ReleasedUnsynced).is_some());
}

#[test]
fn answers_that_recovery_forgets_are_caught() {
    assert!(is_caught(Plant::ForgottenReplies).is_some());
}

#[test]
fn a_session_that_is_forgotten_for_want_of_room_is_caught() {
    assert!(is_caught(Plant::ForgottenSessions).is_some());
}

#[test]
fn a_group_that_recovery_leaves_out_is_caught() {
    assert!(is_caught(Plant::RecoverySkipsLastGroup).is_some());
}

#[test]
fn a_seq_that_is_given_out_twice_is_caught() {
    assert!(is_caught(Plant::SeqReused).is_some());
}

#[test]
fn an_epoch_that_outlives_a_loss_of_events_is_caught() {
    assert!(is_caught(Plant::EpochKept).is_some());
}

#[test]
fn a_budget_that_is_ignored_is_caught() {
    assert!(is_caught(Plant::BudgetIgnored).is_some());
}
