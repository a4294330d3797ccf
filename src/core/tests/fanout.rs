//! Fan-out in slices: who is sent to when, and what with.

use tickring_protocol::Ping;

use super::*;

/// The connection that publishes; its room's members are 0 to `members - 1`.
struct Room {
    core: Core,
    mono_ns: u64,
    publisher: u32,
}

impl Room {
    fn new(members: u32, pacing: Pacing) -> Self {
        let config = CoreConfig {
            core: 0,
            cores: 1,
            epoch: 1,
            limits: Limits::default(),
            registry: Arc::new(Registry::standard()),
            parcels: Arc::new(ParcelPool::default()),
            journal: JournalConfig::default(),
            pacing,
            has_database: false,
            plant: None,
        };
        let mut room = Self {
            core: Core::new(config, now(0)),
            mono_ns: 0,
            publisher: members,
        };
        let subscribe = encode(&Frame::Subscribe(Subscribe {
            request_id: 1,
            from_seq: 0,
            epoch: 0,
            policy: Policy::Default,
            topic: "stream/a",
        }));
        room.turn(|core| {
            for slot in 0..=members {
                core.on_accepted(slot, 1);
                core.on_received(slot, &hello());
                if slot < members {
                    core.on_received(slot, &subscribe);
                }
            }
        });
        room
    }

    /// A turn in which `happens`; who was sent what, in order. All of it arrives.
    fn turn(&mut self, happens: impl FnOnce(&mut Core)) -> Vec<(u32, Vec<Told>)> {
        self.mono_ns += 1_000;
        self.core.begin_turn(now(self.mono_ns));
        happens(&mut self.core);
        self.core.end_turn();
        let mut sent = Vec::new();
        let mut over = Vec::new();
        while let Some(action) = self.core.poll_action() {
            if let Action::Send { slot, payload } = action {
                let bytes: Vec<u8> = payload.slices().flatten().copied().collect();
                sent.push((slot, told(&bytes)));
                over.push((slot, payload));
            }
        }
        for (slot, payload) in over {
            let len = payload.byte_len();
            self.core.on_sent(slot, payload, Ok(len));
        }
        sent
    }

    fn publish(&mut self) -> Vec<(u32, Vec<Told>)> {
        let mut payload = Vec::new();
        Publish {
            kind: 1,
            event_ns: 0,
            body: b"something",
        }
        .encode(&mut payload);
        let command = encode(&Frame::Command(Command {
            request_id: 2,
            topic_id: 0,
            command: PUBLISH,
            topic: "stream/a",
            payload: &payload,
            quiet: true,
        }));
        let publisher = self.publisher;
        self.turn(|core| core.on_received(publisher, &command))
    }
}

fn slices_of(slice: u32) -> Pacing {
    Pacing {
        slice,
        many: usize::MAX,
        ..Pacing::default()
    }
}

#[test]
fn whoever_waits_for_its_slice_gets_what_came_meanwhile_with_it() {
    let mut room = Room::new(100, slices_of(40));
    let first = room.publish();
    assert_eq!(first.len(), 40);
    assert!(first.iter().all(|(_, told)| *told == [Told::Event(1)]));
    assert!(room.core.has_due());
    let second = room.publish();
    assert_eq!(second.len(), 40);
    let both = [Told::Event(1), Told::Event(2)];
    assert!(second.iter().all(|(_, told)| *told == both));
    // The last of the first round, and then those that have the first event since the first turn.
    let third = room.turn(|_| {});
    assert!(third[..20].iter().all(|(_, told)| *told == both));
    assert!(
        third[20..]
            .iter()
            .all(|(_, told)| *told == [Told::Event(2)])
    );
    let fourth = room.turn(|_| {});
    assert_eq!((third.len(), fourth.len()), (40, 20));
    assert!(!room.core.has_due() && room.turn(|_| {}).is_empty());
    let mut slots: Vec<u32> = [third, fourth].concat().iter().map(|(s, _)| *s).collect();
    slots.drain(..20);
    let order: Vec<u32> = first.iter().map(|(slot, _)| *slot).collect();
    assert_eq!(slots, order, "those that have waited longest come first");
}

#[test]
fn an_answer_does_not_wait_behind_a_fan_out() {
    let mut room = Room::new(100, slices_of(40));
    let sent = room.publish();
    let waits = |slot: &u32| sent.iter().all(|(sent, _)| sent != slot);
    let member = (0..100).find(waits).expect("sixty of them wait");
    let ping = encode(&Frame::Ping(Ping { token: 7 }));
    // The publisher, and a member that still waits for its slice: its event goes with the answer.
    let publisher = room.publisher;
    let waiting = room.turn(|core| {
        core.on_received(publisher, &ping);
        core.on_received(member, &ping);
    });
    assert_eq!(waiting[0], (publisher, vec![Told::Pong]));
    assert_eq!(waiting[1], (member, vec![Told::Event(1), Told::Pong]));
    assert_eq!(waiting.len(), 2 + 40);
    let rest = room.turn(|_| {});
    assert_eq!(rest.len(), 100 - 2 * 40 - 1, "nobody is sent to twice");
}

#[test]
fn a_busy_stream_lets_its_members_rest_and_a_lone_message_does_not_wait() {
    let mut room = Room::new(20, Pacing::default());
    assert_eq!(room.publish().len(), 20, "alone, it leaves at once");
    for _ in 0..20 {
        room.publish();
    }
    assert!(room.publish().is_empty(), "they rest");
    let until = room.core.rests_until().expect("they rest");
    room.mono_ns = until;
    let sent = room.turn(|_| {});
    assert_eq!(sent.len(), 20);
    assert!(sent.iter().all(|(_, told)| told.len() > 1));
    room.mono_ns += 2_000_000_000;
    assert_eq!(room.publish().len(), 20, "the stream has become quiet");
}

#[test]
fn what_waits_for_those_that_leave_is_not_kept() {
    let mut room = Room::new(100, slices_of(1));
    let mut most = 0;
    for round in 0..200u32 {
        room.publish();
        let slot = round % 100;
        room.turn(|core| {
            core.on_receive_ended(
                slot,
                crate::core::ReceiveEnd::Failed(std::io::ErrorKind::Other.into()),
            );
        });
        room.turn(|core| core.on_closed(slot));
        room.turn(|core| {
            core.on_accepted(slot, 1);
            core.on_received(slot, &hello());
        });
        most = most.max(room.core.batch_bytes());
    }
    while room.core.has_due() {
        room.turn(|_| {});
    }
    room.turn(|_| {});
    assert!(most < 1 << 20, "{most}");
    assert_eq!(room.core.queued_bytes(), 0);
}

#[test]
fn too_much_that_waits_is_sent_at_once() {
    let pacing = Pacing {
        queued_bytes: 500,
        ..slices_of(1)
    };
    let mut room = Room::new(50, pacing);
    let (mut sends, mut rounds) = (0, 0);
    while sends < 50 {
        sends += room.publish().len();
        rounds += 1;
    }
    assert!(rounds < 20, "{rounds}");
}
