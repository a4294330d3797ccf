//! Mailboxes under real threads.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use proptest::prelude::*;

use super::{Doorbell, channel};

proptest! {
    #[test]
    fn a_mailbox_behaves_like_a_bounded_queue(capacity in 1usize..20, steps in prop::collection::vec(any::<bool>(), 0..200)) {
        let (mut sender, mut receiver) = channel(capacity);
        let mut model = VecDeque::new();
        for (number, put) in steps.into_iter().enumerate() {
            if put {
                let full = model.len() == sender.capacity();
                prop_assert_eq!(sender.try_send(number), if full { Err(number) } else { Ok(()) });
                if !full {
                    model.push_back(number);
                }
            } else {
                prop_assert_eq!(receiver.try_recv(), model.pop_front());
            }
            prop_assert_eq!(receiver.len(), model.len());
            prop_assert_eq!(sender.free(), sender.capacity() - model.len());
        }
    }
}

#[test]
fn the_capacity_is_rounded_up_to_a_power_of_two_and_is_never_zero() {
    assert_eq!(channel::<u8>(0).0.capacity(), 1);
    assert_eq!(channel::<u8>(1000).1.capacity(), 1024);
}

#[test]
fn letters_that_nobody_took_are_dropped_once() {
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let drops = Arc::new(AtomicUsize::new(0));
    let (mut sender, mut receiver) = channel(8);
    for _ in 0..5 {
        assert!(sender.try_send(Counted(drops.clone())).is_ok());
    }
    drop(receiver.try_recv());
    drop(receiver);
    assert_eq!(drops.load(Ordering::Relaxed), 1);
    drop(sender);
    assert_eq!(drops.load(Ordering::Relaxed), 5);
}

#[test]
fn two_threads_pass_two_million_letters_in_order_with_an_owner_that_sleeps() {
    const LETTERS: u64 = 2_000_000;
    let (mut sender, mut receiver) = channel::<Box<u64>>(64);
    let doorbell = Arc::new(Doorbell::new());
    let owner = {
        let doorbell = Arc::clone(&doorbell);
        thread::spawn(move || {
            let mut next = 0;
            while next < LETTERS {
                while let Some(letter) = receiver.try_recv() {
                    assert_eq!(*letter, next);
                    next += 1;
                }
                doorbell.arm();
                if receiver.is_empty() && next < LETTERS {
                    // A park without a time limit: a lost wake-up would hang the test.
                    thread::park();
                }
                doorbell.disarm();
            }
        })
    };
    for number in 0..LETTERS {
        let mut letter = Box::new(number);
        while let Err(refused) = sender.try_send(letter) {
            letter = refused;
            thread::yield_now();
        }
        if doorbell.ring() {
            owner.thread().unpark();
        }
    }
    owner.join().unwrap();
}
