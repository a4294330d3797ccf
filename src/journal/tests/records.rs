//! Records: what goes in comes out, and nothing else is taken for a record.

use proptest::prelude::*;

use crate::journal::record::{
    Bad, Event, HEAD, Head, MAX_RECORD, Record, Reply, Snapshot, Topic, decode, decode_verified,
    end_group,
};

#[derive(Clone, Debug)]
struct Owned {
    which: u8,
    topic: u32,
    code: u16,
    a: u64,
    b: u64,
    c: u64,
    d: u64,
    session: u128,
    name: String,
    body: Vec<u8>,
    last: bool,
}

impl Owned {
    fn record(&self) -> Record<'_> {
        match self.which {
            0 => Record::Topic(Topic {
                number: self.topic,
                epoch: self.a,
                name: &self.name,
            }),
            1 => Record::Event(Event {
                topic: self.topic,
                kind: self.code,
                seq: self.a,
                session: self.session,
                request_id: self.b,
                event_ns: self.c,
                node_ns: self.d,
                body: &self.body,
            }),
            2 => Record::Reply(Reply {
                topic: self.topic,
                code: self.code,
                seq: self.a,
                session: self.session,
                request_id: self.b,
                node_ns: self.c,
                payload: &self.body,
            }),
            3 => Record::Snapshot(Snapshot {
                topic: self.topic,
                kind: self.code,
                seq: self.a,
                event_ns: 3,
                node_ns: self.b,
                state: &self.body,
            }),
            _ => Record::Mark {
                position: self.a,
                key: self.b,
            },
        }
    }

    fn is_last(&self) -> bool {
        self.last || self.which > 3
    }
}

prop_compose! {
    fn owned()(
        which in 0u8..5, topic: u32, code: u16, a: u64, b: u64, c: u64, d: u64, session: u128,
        name in "[a-z]{1,30}/[^ ]{1,50}", body in prop::collection::vec(any::<u8>(), 0..300), last: bool,
    ) -> Owned {
        Owned { which, topic, code, a, b, c, d, session, name, body, last }
    }
}

proptest! {
    #[test]
    fn a_record_comes_out_as_it_went_in(records in prop::collection::vec(owned(), 1..20)) {
        let mut bytes = Vec::new();
        for record in &records {
            let place = record.record().encode(record.last, &mut bytes).unwrap();
            prop_assert_eq!(place.end, bytes.len());
        }
        let mut rest = bytes.as_slice();
        for expected in &records {
            let (record, head) = decode(rest).unwrap();
            prop_assert_eq!(record, expected.record());
            prop_assert_eq!(head.last, expected.is_last());
            prop_assert_eq!(decode_verified(rest).unwrap(), (record, head));
            rest = &rest[head.len..];
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn a_changed_byte_is_never_taken_for_a_record(record in owned(), at: prop::sample::Index, flip in 1u8..) {
        let mut bytes = Vec::new();
        record.record().encode(record.last, &mut bytes).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(decode(&bytes).is_err());
    }

    #[test]
    fn a_cut_record_says_how_much_is_missing(record in owned(), at: prop::sample::Index) {
        let mut bytes = Vec::new();
        record.record().encode(record.last, &mut bytes).unwrap();
        let at = at.index(bytes.len());
        let needed = if at < 4 { HEAD } else { bytes.len() };
        prop_assert_eq!(decode(&bytes[..at]), Err(Bad::Short(needed)));
    }

    #[test]
    fn any_bytes_are_decoded_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), len in 0u32..220) {
        let _ = decode(&bytes);
        let mut bytes = bytes;
        if bytes.len() >= 8 {
            // With a good length and checksum, so that the content is looked at.
            bytes[..4].copy_from_slice(&len.to_le_bytes());
            if let Some(rest) = bytes.get(8..len as usize) {
                let sum = crc32c::crc32c_append(len, rest);
                bytes[4..8].copy_from_slice(&sum.to_le_bytes());
            }
        }
        let _ = decode(&bytes);
        let _ = decode_verified(&bytes);
    }

    #[test]
    fn a_group_can_be_ended_afterwards(record in owned()) {
        let mut bytes = vec![1, 2, 3];
        let place = record.record().encode(false, &mut bytes).unwrap();
        end_group(&mut bytes, place);
        let (decoded, head) = decode(&bytes[3..]).unwrap();
        prop_assert_eq!(decoded, record.record());
        prop_assert!(head.last);
    }
}

#[test]
fn what_is_too_long_is_refused_and_nothing_is_appended() {
    let body = vec![0; MAX_RECORD];
    let mut out = vec![7];
    assert!(super::event(1, 1, &body).encode(true, &mut out).is_err());
    let name = "a/".to_string() + &"n".repeat(254);
    assert!(
        Topic {
            number: 1,
            epoch: 1,
            name: &name
        }
        .encode(true, &mut out)
        .is_err()
    );
    assert!(
        Topic {
            number: 1,
            epoch: 1,
            name: ""
        }
        .encode(true, &mut out)
        .is_err()
    );
    assert_eq!(out, [7]);
}

#[test]
fn the_layout_on_disk_is_what_the_documentation_says() {
    let mut out = Vec::new();
    super::event(0x0403_0201, 9, b"xy")
        .encode(true, &mut out)
        .unwrap();
    assert_eq!(out.len(), 66);
    assert_eq!(out[..4], 66u32.to_le_bytes());
    assert_eq!(out[8..16], [2, 1, 1, 0, 1, 2, 3, 4]);
    assert_eq!(out[16..24], 9u64.to_le_bytes());
    assert_eq!(out[64..], *b"xy");
    assert_eq!(Head::verify(&out).unwrap().topic, 0x0403_0201);
    // The checksum's initial value is the length: a value computed by hand would say the same.
    assert_eq!(
        out[4..8],
        crc32c::crc32c_append(66, &out[8..]).to_le_bytes()
    );
    assert_eq!(
        crc32c::crc32c(b"123456789"),
        0xe306_9283,
        "CRC-32C as in RFC 3720"
    );
}
