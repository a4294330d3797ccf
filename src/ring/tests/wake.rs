//! Rings that sleep, and how they are woken.

use std::sync::mpsc;
use std::thread;

use super::*;

fn woken(ring: &mut Ring<Vec<u8>>) {
    // Without a time limit: a lost wake-up would hang the test.
    loop {
        ring.submit_and_wait(None).unwrap();
        let mut woken = false;
        ring.for_each_completion(64, |completion| {
            woken |= matches!(completion, Completion::Woken)
        });
        if woken {
            return;
        }
    }
}

#[test]
fn a_ring_without_work_sleeps_until_its_time_is_over() {
    let mut ring = Ring::<Vec<u8>>::new(&config()).unwrap();
    let start = Instant::now();
    ring.submit_and_wait(Some(Duration::from_millis(50)))
        .unwrap();
    assert!(start.elapsed() >= Duration::from_millis(50));
    let start = Instant::now();
    ring.submit_and_wait(Some(Duration::ZERO)).unwrap();
    assert!(start.elapsed() < Duration::from_millis(40));
    assert_eq!(
        ring.for_each_completion(1, |completion| panic!("{completion:?}")),
        0
    );
}

#[test]
fn any_thread_wakes_a_ring_again_and_again() {
    let mut ring = Ring::<Vec<u8>>::new(&config()).unwrap();
    let waker = ring.waker();
    let (next, rounds) = mpsc::channel();
    let other = thread::spawn(move || rounds.iter().for_each(|()| waker.wake()));
    for _ in 0..1000 {
        next.send(()).unwrap();
        woken(&mut ring);
    }
    drop(next);
    other.join().unwrap();
}

fn ping_pong(message_wake: bool) {
    const ROUNDS: usize = 2000;
    let config = RingConfig {
        techniques: Techniques {
            message_wake,
            ..Techniques::ALL
        },
        ..config()
    };
    let (name, names) = mpsc::channel();
    let mut ring = Ring::<Vec<u8>>::new(&config).unwrap();
    let here = ring.waker();
    let other = thread::spawn(move || {
        let mut ring = Ring::<Vec<u8>>::new(&config).unwrap();
        name.send(ring.waker()).unwrap();
        for _ in 0..ROUNDS {
            woken(&mut ring);
            ring.wake(&here);
        }
        ring.submit().unwrap();
    });
    let there = names.recv().unwrap();
    for _ in 0..ROUNDS {
        ring.wake(&there);
        woken(&mut ring);
    }
    other.join().unwrap();
    // The other ring is gone: waking it does nothing, in either way.
    ring.wake(&there);
    there.wake();
    assert!(turn(&mut ring).is_empty());
}

#[test]
fn two_rings_wake_each_other_by_message() {
    ping_pong(true);
}

#[test]
fn two_rings_wake_each_other_by_eventfd() {
    ping_pong(false);
}
