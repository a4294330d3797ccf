//! Bytes come back as they went: all of them, in order, whatever the sizes and techniques.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use super::*;

/// Echoes every connection until it has served `connections` of them to their end.
fn serve(config: RingConfig, listener: TcpListener, connections: usize) {
    let mut ring = Ring::<Vec<u8>>::new(&config).unwrap();
    ring.listen(listener).unwrap();
    let mut waiting: HashMap<Slot, (Vec<u8>, bool, bool)> = HashMap::new();
    let mut served = 0;
    let deadline = Instant::now() + PATIENCE * 3;
    while served < connections {
        assert!(
            Instant::now() < deadline,
            "served {served} of {connections}"
        );
        let mut dirty = Vec::new();
        for seen in turn(&mut ring) {
            match seen {
                Seen::Accepted(slot) => {
                    assert!(
                        waiting.insert(slot, (Vec::new(), false, false)).is_none(),
                        "{slot:?} is in use"
                    );
                    ring.recv(slot);
                }
                Seen::Received(slot, bytes) => {
                    waiting.get_mut(&slot).unwrap().0.extend(bytes);
                    dirty.push(slot);
                }
                Seen::Sent(slot, payload, result) => {
                    assert_eq!(result, Ok(payload.len()));
                    waiting.get_mut(&slot).unwrap().1 = false;
                    dirty.push(slot);
                }
                Seen::ReceiveEnded(slot, result, cancelled) => {
                    assert_eq!((result, cancelled), (Ok(()), false));
                    waiting.get_mut(&slot).unwrap().2 = true;
                    dirty.push(slot);
                }
                Seen::Closed(slot) => {
                    waiting.remove(&slot).unwrap();
                    served += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        dirty.sort_unstable();
        dirty.dedup();
        for slot in dirty {
            let (bytes, sending, ended) = waiting.get_mut(&slot).unwrap();
            if !*sending && !bytes.is_empty() {
                *sending = true;
                ring.send(slot, std::mem::take(bytes));
            } else if !*sending && *ended {
                ring.close(slot);
            }
        }
    }
}

/// Sends `total` random bytes over each of `connections` connections from a ring of its own, and compares the echo.
fn ask(config: &RingConfig, address: SocketAddr, connections: usize, total: usize) {
    struct Talk {
        out: Vec<u8>,
        sent: usize,
        back: usize,
    }
    let mut ring = Ring::<Vec<Arc<[u8]>>>::new(config).unwrap();
    let mut random = Random(7);
    let mut talks = HashMap::new();
    for _ in 0..connections {
        let slot = ring
            .install(socket::unconnected(address, None).unwrap())
            .unwrap();
        ring.connect(slot, address);
        talks.insert(
            slot,
            Talk {
                out: random.bytes(total),
                sent: 0,
                back: 0,
            },
        );
    }
    let mut done = 0;
    let deadline = Instant::now() + PATIENCE * 3;
    while done < connections {
        assert!(
            Instant::now() < deadline,
            "{done} of {connections} are done"
        );
        for seen in turn(&mut ring) {
            let next = match seen {
                Seen::Connected(slot, result) => {
                    assert_eq!(result, Ok(()));
                    ring.recv(slot);
                    slot
                }
                Seen::Sent(slot, payload, result) => {
                    assert_eq!(result, Ok(payload.iter().map(|slice| slice.len()).sum()));
                    slot
                }
                Seen::Received(slot, bytes) => {
                    let talk = talks.get_mut(&slot).unwrap();
                    assert_eq!(
                        bytes,
                        talk.out[talk.back..talk.back + bytes.len()],
                        "{slot:?} at {}",
                        talk.back
                    );
                    talk.back += bytes.len();
                    continue;
                }
                Seen::ReceiveEnded(slot, result, cancelled) => {
                    assert_eq!((result, cancelled), (Ok(()), false));
                    assert_eq!(talks[&slot].back, total);
                    ring.close(slot);
                    continue;
                }
                Seen::Closed(_) => {
                    done += 1;
                    continue;
                }
                other => panic!("{other:?}"),
            };
            let talk = talks.get_mut(&next).unwrap();
            if talk.sent == total {
                ring.shutdown_write(next);
                continue;
            }
            let slices = (0..1 + random.below(40)).map_while(|_| {
                let len = random.below(3000).min(total - talk.sent);
                let slice = &talk.out[talk.sent..talk.sent + len];
                talk.sent += len;
                (talk.sent < total || len > 0).then(|| slice.into())
            });
            ring.send(next, slices.collect());
        }
    }
}

fn echo(techniques: Techniques) {
    let config = RingConfig {
        techniques,
        ..config()
    };
    let (listener, address) = listener();
    let server = {
        let config = config.clone();
        thread::spawn(move || serve(config, listener, 50))
    };
    ask(&config, address, 50, 100_000);
    server.join().unwrap();
}

#[test]
fn random_bytes_in_random_slices_come_back_with_all_techniques() {
    echo(Techniques::ALL);
}

#[test]
fn they_come_back_with_a_buffer_for_each_arrival() {
    echo(Techniques {
        incremental_buffers: false,
        ..Techniques::ALL
    });
}

#[test]
fn they_come_back_with_a_receive_for_each_arrival() {
    echo(Techniques {
        multishot_recv: false,
        ..Techniques::ALL
    });
}

#[test]
fn they_come_back_without_any_technique() {
    echo(Techniques {
        multishot_recv: false,
        incremental_buffers: false,
        defer_taskrun: false,
        coop_taskrun: false,
        message_wake: false,
        gather: false,
        slices: false,
        spin: false,
    });
}

#[test]
fn they_come_back_through_two_tiny_buffers_and_a_completion_queue_that_overflows() {
    for incremental_buffers in [true, false] {
        let techniques = Techniques {
            incremental_buffers,
            ..Techniques::ALL
        };
        let small = RingConfig {
            entries: 4,
            cq_entries: 4,
            recv_buffers: 2,
            recv_buffer_len: 100,
            techniques,
            ..config()
        };
        let (listener, address) = listener();
        let server = thread::spawn(move || serve(small, listener, 20));
        ask(&config(), address, 20, 10_000);
        server.join().unwrap();
    }
}

#[test]
fn a_ring_serves_plain_clients_until_the_end_of_their_stream() {
    let (listener, address) = listener();
    let server = thread::spawn(move || serve(config(), listener, 2));
    for text in ["first", "second"] {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(text.as_bytes()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut back = String::new();
        client.read_to_string(&mut back).unwrap();
        assert_eq!(back, text);
    }
    server.join().unwrap();
}

#[test]
fn slots_are_reused_twenty_thousand_times_and_never_mix_up_their_connections() {
    const CYCLES: usize = 20_000;
    const AT_ONCE: usize = 40;
    // The server may still be busy closing the last connections when the next ones come.
    let config = RingConfig {
        descriptors: 4 * AT_ONCE as u32,
        ..config()
    };
    let (listener, address) = listener();
    let server = {
        let config = config.clone();
        thread::spawn(move || serve(config, listener, CYCLES))
    };
    let mut ring = Ring::<Vec<u8>>::new(&config).unwrap();
    let mut open: HashMap<Slot, u32> = HashMap::new();
    let (mut begun, mut finished) = (0u32, 0);
    let deadline = Instant::now() + PATIENCE * 3;
    while finished < CYCLES {
        assert!(Instant::now() < deadline, "{finished} of {CYCLES} cycles");
        while open.len() < AT_ONCE && (begun as usize) < CYCLES {
            let slot = ring
                .install(socket::unconnected(address, None).unwrap())
                .unwrap();
            ring.connect(slot, address);
            open.insert(slot, begun);
            begun += 1;
        }
        for seen in turn(&mut ring) {
            match seen {
                Seen::Connected(slot, result) => {
                    assert_eq!(result, Ok(()));
                    ring.recv(slot);
                    ring.send(slot, open[&slot].to_le_bytes().to_vec());
                }
                Seen::Sent(_, _, result) => assert_eq!(result, Ok(4)),
                Seen::Received(slot, bytes) => {
                    assert_eq!(bytes, open[&slot].to_le_bytes());
                    ring.close(slot);
                }
                Seen::Closed(slot) => {
                    open.remove(&slot).unwrap();
                    finished += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    server.join().unwrap();
}
