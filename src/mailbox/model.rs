//! Every interleaving of small programs, by loom: `RUSTFLAGS="--cfg loom" cargo test --release --lib mailbox`.

use std::sync::Arc as PlainArc;
use std::sync::atomic::{AtomicUsize as PlainCount, Ordering as PlainOrdering};

use loom::sync::Arc;
use loom::thread;

use super::{Doorbell, channel};

#[test]
fn letters_arrive_once_in_order_and_the_ring_wraps() {
    loom::model(|| {
        let (mut sender, mut receiver) = channel::<Box<u32>>(2);
        let producer = thread::spawn(move || {
            for number in 0..3 {
                let mut letter = Box::new(number);
                while let Err(refused) = sender.try_send(letter) {
                    letter = refused;
                    thread::yield_now();
                }
            }
        });
        for expected in 0..3 {
            let letter = loop {
                match receiver.try_recv() {
                    Some(letter) => break letter,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(*letter, expected);
        }
        assert!(receiver.is_empty());
        producer.join().unwrap();
    });
}

#[test]
fn what_is_left_is_dropped_whichever_end_goes_last() {
    struct Counted(PlainArc<PlainCount>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, PlainOrdering::Relaxed);
        }
    }
    loom::model(|| {
        let drops = PlainArc::new(PlainCount::new(0));
        let (mut sender, mut receiver) = channel(2);
        let (first, second) = (Counted(drops.clone()), Counted(drops.clone()));
        let producer = thread::spawn(move || {
            let _ = sender.try_send(first);
            let _ = sender.try_send(second);
        });
        drop(receiver.try_recv());
        drop(receiver);
        producer.join().unwrap();
        assert_eq!(drops.load(PlainOrdering::Relaxed), 2);
    });
}

/// An owner with a mailbox for each of `senders` threads goes to sleep once, while each sender puts a letter. Fails if it
/// sleeps although there is mail and nobody was told to wake it.
fn the_owner_is_never_left_asleep_with_mail(senders: usize, looks_again: bool) {
    let bell = Arc::new(Doorbell::new());
    let mut receivers = Vec::new();
    let mut threads = Vec::new();
    for number in 0..senders {
        let (mut sender, receiver) = channel(1);
        receivers.push(receiver);
        let bell = Arc::clone(&bell);
        threads.push(thread::spawn(move || {
            sender.try_send(number).unwrap();
            bell.ring()
        }));
    }
    let mut taken = receivers
        .iter_mut()
        .filter_map(|receiver| receiver.try_recv())
        .count();
    bell.arm();
    let sleeps = !looks_again || receivers.iter().all(|receiver| receiver.is_empty());
    let wake_ups = threads
        .into_iter()
        .map(|thread| usize::from(thread.join().unwrap()))
        .sum::<usize>();
    let mail = receivers.iter().any(|receiver| !receiver.is_empty());
    taken += receivers
        .iter_mut()
        .filter_map(|receiver| receiver.try_recv())
        .count();
    assert_eq!(taken, senders, "every letter arrives");
    assert!(wake_ups <= 1, "one sender wakes the owner, not each");
    assert!(!(sleeps && mail && wake_ups == 0), "a wake-up was lost");
}

#[test]
fn no_wake_up_of_one_sender_is_lost() {
    loom::model(|| the_owner_is_never_left_asleep_with_mail(1, true));
}

#[test]
fn no_wake_up_of_two_senders_is_lost() {
    loom::model(|| the_owner_is_never_left_asleep_with_mail(2, true));
}

#[test]
#[should_panic(expected = "a wake-up was lost")]
fn an_owner_that_does_not_look_again_sleeps_through_its_mail() {
    loom::model(|| the_owner_is_never_left_asleep_with_mail(1, false));
}
