//! At each bound something defined happens.

use std::collections::HashSet;
use std::io::Read;
use std::net::TcpStream;
use std::sync::Arc;

use super::super::{MAX_SLICES, RingError, machine};
use super::*;

#[test]
fn a_full_table_is_reported_and_accepting_goes_on_after_a_close() {
    let mut ring = Ring::<Vec<u8>>::new(&RingConfig {
        descriptors: 2,
        ..config()
    })
    .unwrap();
    let (listener, address) = listener();
    ring.listen(listener).unwrap();
    let _first = TcpStream::connect(address).unwrap();
    let slot = accepted(&mut ring);
    let _second = TcpStream::connect(address).unwrap();
    accepted(&mut ring);
    let mut third = TcpStream::connect(address).unwrap();
    until(&mut ring, |seen| match seen {
        Seen::AcceptFailed(error) => {
            assert_eq!(error, Some(libc::ENFILE));
            Some(())
        }
        other => panic!("{other:?}"),
    });
    assert!(
        matches!(third.read(&mut [0]), Ok(0) | Err(_)),
        "the connection that found no room is dropped"
    );
    ring.close(slot);
    closed(&mut ring, slot);
    ring.rearm_accept();
    let _fourth = TcpStream::connect(address).unwrap();
    assert_eq!(accepted(&mut ring), slot);
}

#[test]
fn a_client_ring_with_a_full_table_refuses_the_next_socket() {
    let (_listener, address) = listener();
    let mut ring = Ring::<Vec<u8>>::new(&RingConfig {
        descriptors: 2,
        ..config()
    })
    .unwrap();
    let slots: HashSet<_> = (0..2)
        .map(|_| {
            ring.install(socket::unconnected(address, None).unwrap())
                .unwrap()
        })
        .collect();
    assert_eq!(slots.len(), 2);
    let refused = ring
        .install(socket::unconnected(address, None).unwrap())
        .unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::QuotaExceeded);
    let slot = *slots.iter().next().unwrap();
    ring.close(slot);
    closed(&mut ring, slot);
    assert_eq!(
        ring.install(socket::unconnected(address, None).unwrap())
            .unwrap(),
        slot
    );
}

#[test]
fn a_ring_either_listens_or_installs() {
    let (first, address) = listener();
    let mut ring = Ring::<Vec<u8>>::new(&config()).unwrap();
    ring.listen(first).unwrap();
    assert!(
        ring.install(socket::unconnected(address, None).unwrap())
            .is_err()
    );
    let (second, _) = listener();
    assert!(ring.listen(second).is_err());

    let mut ring = Ring::<Vec<u8>>::new(&config()).unwrap();
    ring.install(socket::unconnected(address, None).unwrap())
        .unwrap();
    let (third, _) = listener();
    assert!(ring.listen(third).is_err());
}

#[test]
fn nobody_is_accepted_after_the_ring_stopped_listening_and_it_can_listen_again() {
    let mut ring = Ring::<Vec<u8>>::new(&config()).unwrap();
    let (listening, address) = listener();
    ring.listen(listening).unwrap();
    let _client = TcpStream::connect(address).unwrap();
    accepted(&mut ring);
    ring.stop_listening();
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_ok() {
        assert!(
            Instant::now() < deadline,
            "the listening socket is still open"
        );
        assert!(
            turn(&mut ring)
                .iter()
                .all(|seen| matches!(seen, Seen::Accepted(_)))
        );
    }
    let (listening, address) = listener();
    ring.listen(listening).unwrap();
    let _client = TcpStream::connect(address).unwrap();
    accepted(&mut ring);
}

#[test]
fn a_burst_larger_than_the_submission_queue_is_sent_whole() {
    let (listener, address) = listener();
    let mut ring = Ring::<Vec<Arc<[u8]>>>::new(&RingConfig {
        entries: 4,
        ..config()
    })
    .unwrap();
    ring.listen(listener).unwrap();
    let mut clients = Vec::new();
    let mut slots = Vec::new();
    for _ in 0..50 {
        clients.push(TcpStream::connect(address).unwrap());
        slots.push(accepted(&mut ring));
    }
    // All slices in one go: the headers of what is queued must survive the submits in between.
    for slot in &slots {
        let text = format!("{slot:?}");
        ring.send(*slot, text.bytes().map(|byte| Arc::from([byte])).collect());
    }
    let mut left = slots.len();
    until(&mut ring, |seen| {
        let Seen::Sent(slot, _, result) = seen else {
            panic!("{seen:?}")
        };
        assert_eq!(result, Ok(format!("{slot:?}").len()));
        left -= 1;
        (left == 0).then_some(())
    });
    for (client, slot) in clients.iter_mut().zip(&slots) {
        let expected = format!("{slot:?}");
        let mut read = vec![0; expected.len()];
        client.read_exact(&mut read).unwrap();
        assert_eq!(read, expected.as_bytes());
    }
}

#[test]
fn a_payload_of_as_many_slices_as_the_kernel_takes_arrives_whole_and_an_empty_one_is_nothing() {
    let (listener, address) = listener();
    let mut ring = Ring::<Vec<Arc<[u8]>>>::new(&config()).unwrap();
    ring.listen(listener).unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    let slot = accepted(&mut ring);
    ring.send(slot, Vec::new());
    until(&mut ring, |seen| {
        matches!(seen, Seen::Sent(_, _, Ok(0))).then_some(())
    });
    let slices: Vec<Arc<[u8]>> = (0..MAX_SLICES)
        .map(|index| Arc::from((index as u32).to_le_bytes()))
        .collect();
    ring.send(slot, slices.clone());
    until(&mut ring, |seen| {
        matches!(seen, Seen::Sent(_, _, Ok(len)) if len == 4 * MAX_SLICES).then_some(())
    });
    let mut read = vec![0; 4 * MAX_SLICES];
    client.read_exact(&mut read).unwrap();
    assert_eq!(read, slices.concat());
}

#[test]
fn a_configuration_out_of_bounds_is_refused_by_the_name_of_its_field() {
    let refused = |config: RingConfig| Ring::<Vec<u8>>::new(&config).unwrap_err().to_string();
    assert!(
        refused(RingConfig {
            entries: 3,
            ..config()
        })
        .contains("entries is 3")
    );
    assert!(
        refused(RingConfig {
            cq_entries: 32,
            ..config()
        })
        .contains("cq_entries")
    );
    assert!(
        refused(RingConfig {
            recv_buffers: 0,
            ..config()
        })
        .contains("recv_buffers")
    );
    assert!(
        refused(RingConfig {
            recv_buffer_len: 0,
            ..config()
        })
        .contains("recv_buffer_len")
    );
    assert!(
        refused(RingConfig {
            descriptors: 0,
            ..config()
        })
        .contains("descriptors")
    );
    let limit = machine::open_file_limit();
    if limit < 1 << 20 {
        let asked = limit as u32 + 1;
        let error = Ring::<Vec<u8>>::new(&RingConfig {
            descriptors: asked,
            ..config()
        })
        .unwrap_err();
        assert!(matches!(error, RingError::Descriptors { .. }), "{error}");
    }
}

#[test]
fn the_limit_of_a_batch_is_kept_and_nothing_is_lost() {
    let (listener, address) = listener();
    let mut ring = Ring::<Vec<u8>>::new(&config()).unwrap();
    ring.listen(listener).unwrap();
    let clients: Vec<_> = (0..10)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let mut slots = HashSet::new();
    let deadline = Instant::now() + PATIENCE;
    while slots.len() < clients.len() {
        assert!(Instant::now() < deadline);
        ring.submit_and_wait(Some(PATIENCE)).unwrap();
        let before = slots.len();
        let taken = ring.for_each_completion(3, |completion| {
            let Completion::Accepted(slot) = completion else {
                panic!("{completion:?}")
            };
            assert!(slots.insert(slot));
        });
        assert!(taken <= 3 && slots.len() == before + taken);
    }
}
