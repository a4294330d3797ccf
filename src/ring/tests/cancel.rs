//! Stopping, closing, and going away while the kernel is busy.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use super::*;

/// A ring with one accepted connection, and the other end of it.
fn pair() -> (Ring<Vec<u8>>, Slot, TcpStream) {
    let mut ring = Ring::new(&config()).unwrap();
    let (listener, address) = listener_with(&ListenOptions {
        send_buffer: Some(16 * 1024),
        ..ListenOptions::default()
    });
    ring.listen(listener).unwrap();
    let client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let slot = accepted(&mut ring);
    (ring, slot, client)
}

/// More than the sockets of a connection hold.
fn too_much() -> Vec<u8> {
    Random(3).bytes(64 << 20)
}

#[test]
fn a_stopped_receive_ends_once_and_can_begin_again() {
    let (mut ring, slot, mut client) = pair();
    for round in 0..100u8 {
        ring.recv(slot);
        client.write_all(&[round]).unwrap();
        until(&mut ring, |seen| {
            matches!(seen, Seen::Received(_, bytes) if bytes == [round]).then_some(())
        });
        ring.stop_recv(slot);
        ring.stop_recv(slot);
        until(&mut ring, |seen| match seen {
            Seen::ReceiveEnded(ended, Ok(()), true) => {
                assert_eq!(ended, slot);
                Some(())
            }
            other => panic!("{other:?}"),
        });
        assert!(turn(&mut ring).is_empty());
    }
    ring.stop_recv(slot);
    assert!(
        turn(&mut ring).is_empty(),
        "stopping what does not run does nothing"
    );
}

#[test]
fn a_receive_that_is_stopped_before_it_was_submitted_ends_as_well() {
    let (mut ring, slot, _client) = pair();
    ring.recv(slot);
    ring.stop_recv(slot);
    until(&mut ring, |seen| {
        matches!(seen, Seen::ReceiveEnded(_, Ok(()), true)).then_some(())
    });
}

#[test]
fn the_end_of_the_stream_and_a_reset_are_told_apart() {
    let (mut ring, slot, client) = pair();
    ring.recv(slot);
    drop(client);
    until(&mut ring, |seen| {
        matches!(seen, Seen::ReceiveEnded(_, Ok(()), false)).then_some(())
    });

    let (mut ring, slot, client) = pair();
    ring.recv(slot);
    socket2::SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(client);
    until(&mut ring, |seen| {
        matches!(
            seen,
            Seen::ReceiveEnded(_, Err(Some(libc::ECONNRESET)), false)
        )
        .then_some(())
    });
}

#[test]
fn closing_while_sending_to_a_peer_that_does_not_read_gives_the_payload_back_and_then_closes() {
    let (mut ring, slot, mut client) = pair();
    let bytes = too_much();
    ring.recv(slot);
    ring.send(slot, bytes.clone());
    for _ in 0..5 {
        assert!(turn(&mut ring).is_empty(), "the send waits for the peer");
    }
    ring.close(slot);
    let mut given_back = None;
    until(&mut ring, |seen| match seen {
        Seen::Sent(_, payload, result) => {
            assert!(payload == bytes);
            given_back = Some(result);
            None
        }
        Seen::Closed(closed) => {
            assert_eq!(closed, slot);
            Some(())
        }
        other => panic!("{other:?}"),
    });
    let result = given_back.expect("the payload comes back before the slot is free");
    assert_eq!(result, Err(Some(libc::ECANCELED)));
    let mut read = Vec::new();
    let _ = client.read_to_end(&mut read);
    assert!(
        !read.is_empty() && read == bytes[..read.len()],
        "what arrived is what was sent, from the start"
    );
}

/// Sends 20 MB in slices of this length to a reader that takes it in small sips.
fn send_to_a_slow_reader(slice: usize) {
    let mut ring = Ring::<Vec<Arc<[u8]>>>::new(&config()).unwrap();
    let (listener, address) = listener_with(&ListenOptions {
        send_buffer: Some(256 * 1024),
        ..ListenOptions::default()
    });
    ring.listen(listener).unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    let slot = accepted(&mut ring);
    let bytes = Random(5).bytes(20_000_011);
    ring.send(slot, bytes.chunks(slice).map(Arc::from).collect());
    assert!(turn(&mut ring).is_empty(), "the send waits for the peer");
    let reader = thread::spawn(move || {
        let mut read = vec![0; 20_000_011];
        for (sip, part) in read.chunks_mut(4096).enumerate() {
            client.read_exact(part).unwrap();
            if sip % 16 == 0 {
                thread::sleep(Duration::from_micros(50));
            }
        }
        read
    });
    until(&mut ring, |seen| match seen {
        Seen::Sent(_, payload, result) => {
            assert_eq!(result, Ok(bytes.len()));
            assert!(payload.concat() == bytes);
            Some(())
        }
        other => panic!("{other:?}"),
    });
    assert!(reader.join().unwrap() == bytes);
}

#[test]
fn a_short_send_goes_on_when_the_peer_reads_again() {
    send_to_a_slow_reader(40_000);
}

#[test]
fn a_payload_of_more_slices_than_the_kernel_takes_at_once_arrives_whole() {
    send_to_a_slow_reader(8191);
}

#[test]
fn closing_while_connecting_gives_no_connection() {
    // An address of the documentation block: nobody answers.
    let nowhere = SocketAddr::from(([192, 0, 2, 1], 9));
    let mut ring = Ring::<Vec<u8>>::new(&config()).unwrap();
    let slot = ring
        .install(socket::unconnected(nowhere, None).unwrap())
        .unwrap();
    ring.connect(slot, nowhere);
    ring.submit().unwrap();
    ring.close(slot);
    until(&mut ring, |seen| match seen {
        Seen::Closed(closed) => {
            assert_eq!(closed, slot);
            Some(())
        }
        other => panic!("{other:?}"),
    });
}

#[test]
fn a_refused_connect_says_so() {
    let (listener, address) = listener();
    drop(listener);
    let mut ring = Ring::<Vec<u8>>::new(&config()).unwrap();
    let slot = ring
        .install(socket::unconnected(address, None).unwrap())
        .unwrap();
    ring.connect(slot, address);
    until(&mut ring, |seen| match seen {
        Seen::Connected(_, result) => {
            assert_eq!(result, Err(Some(libc::ECONNREFUSED)));
            Some(())
        }
        other => panic!("{other:?}"),
    });
}

#[test]
fn the_peer_sees_the_end_when_its_connection_is_closed_while_others_stay_idle() {
    let mut ring = Ring::<Vec<u8>>::new(&config()).unwrap();
    let (listener, address) = listener();
    ring.listen(listener).unwrap();
    let idle = TcpStream::connect(address).unwrap();
    let slot = accepted(&mut ring);
    ring.recv(slot);
    let mut client = TcpStream::connect(address).unwrap();
    let slot = accepted(&mut ring);
    ring.recv(slot);
    ring.close(slot);
    closed(&mut ring, slot);
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    drop(idle);
}

#[test]
fn closing_right_after_a_shutdown_closes_once_the_shutdown_is_done() {
    let (mut ring, slot, mut client) = pair();
    ring.shutdown_write(slot);
    ring.close(slot);
    closed(&mut ring, slot);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_ring_that_goes_away_lets_go_of_every_payload() {
    /// Stable bytes whose owner can be counted.
    #[derive(Debug)]
    struct Shared(Rc<Vec<u8>>);
    // SAFETY: the vector is behind an `Rc` that nobody mutates.
    unsafe impl StableBytes for Shared {
        fn slice_count(&self) -> usize {
            1
        }
        fn slice(&self, _index: usize) -> &[u8] {
            &self.0
        }
    }
    let bytes = Rc::new(too_much());
    let mut ring = Ring::new(&config()).unwrap();
    let (listener, address) = listener();
    ring.listen(listener).unwrap();
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(TcpStream::connect(address).unwrap());
        let slot = accepted(&mut ring);
        ring.recv(slot);
        ring.send(slot, Shared(Rc::clone(&bytes)));
    }
    // Some of the sends are with the kernel, the last one is only queued.
    assert_eq!(Rc::strong_count(&bytes), 11);
    drop(ring);
    assert_eq!(Rc::strong_count(&bytes), 1);
}

#[test]
#[should_panic(expected = "is sending")]
fn a_second_send_on_a_slot_is_the_callers_error() {
    let (mut ring, slot, _client) = pair();
    ring.send(slot, vec![1]);
    ring.send(slot, vec![2]);
}

#[test]
#[should_panic(expected = "Receive on Slot")]
fn a_closed_slot_is_not_to_be_used() {
    let (mut ring, slot, _client) = pair();
    ring.close(slot);
    ring.recv(slot);
}

#[test]
fn on_kernels_that_release_sockets_late_a_close_shuts_the_socket_down_first() {
    let mut ring = Ring::<Vec<u8>>::new(&config()).unwrap();
    ring.features.prompt_close = false;
    let (listener, address) = listener();
    ring.listen(listener).unwrap();
    for _ in 0..100 {
        let mut client = TcpStream::connect(address).unwrap();
        let slot = accepted(&mut ring);
        ring.recv(slot);
        ring.send(slot, vec![7]);
        ring.submit().unwrap();
        ring.close(slot);
        closed(&mut ring, slot);
        let mut read = Vec::new();
        client.read_to_end(&mut read).unwrap();
        assert_eq!(read, [7]);
    }
}
