//! Recovery, reading and inspection of real files.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{Random, TempDir, bind, event, seq_of, small};
use crate::journal::record::Record;
use crate::journal::segment::{self, HEADER};
use crate::journal::{
    Catalog, JournalError, Lane, OperationKind, Outcome, Place, Progress, Reader, Recovered, dump,
    lane_dir, lane_of, lanes, recover, recover_lanes, verify,
};

/// Writes batches with plain file calls, each batch one write. Returns the committed positions.
pub(super) fn write(
    dir: &Path,
    run: u64,
    seqs: std::ops::RangeInclusive<u64>,
    per_batch: u64,
) -> Vec<u64> {
    let start = recover(dir, 0, |_| {}).unwrap().start(run, 99 << 64 | 77);
    let mut lane = Lane::new(
        start,
        super::Limits {
            journal_bytes: 1 << 30,
            ..small()
        },
        1,
    );
    let (mut next, mut positions) = (*seqs.start(), vec![lane.committed()]);
    while next <= *seqs.end() {
        let mut batch = Vec::new();
        bind(run as u32, "stream/a", &mut batch);
        bind(run as u32 + 100, "stream/b", &mut batch);
        let last = (*seqs.end()).min(next + per_batch - 1);
        for seq in next..=last {
            let body = vec![seq as u8; 40 + (seq % 50) as usize];
            // Each group is an event of either topic.
            event(run as u32, seq, &body)
                .encode(false, &mut batch)
                .unwrap();
            event(run as u32 + 100, seq, &body)
                .encode(true, &mut batch)
                .unwrap();
        }
        next = last + 1;
        lane.append(0, next, &batch, 0).unwrap();
        while let Some(operation) = lane.poll_operation(0) {
            let outcome = perform(dir, operation.kind);
            lane.on_done(operation.id, outcome);
        }
        positions.push(lane.committed());
    }
    positions
}

fn perform(dir: &Path, kind: OperationKind) -> Outcome {
    let open = |segment| {
        OpenOptions::new()
            .write(true)
            .open(segment::path(dir, segment))
    };
    match kind {
        OperationKind::Prepare { bytes } => {
            let file = fs::File::create(segment::spare(dir)).unwrap();
            Outcome::Done(file.set_len(bytes))
        }
        OperationKind::Create {
            segment,
            spare: true,
            ..
        } => Outcome::Done(fs::rename(segment::spare(dir), segment::path(dir, segment))),
        OperationKind::Create { segment, .. } => {
            let path = segment::path(dir, segment);
            Outcome::Done(
                OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .open(path)
                    .map(|_| ()),
            )
        }
        OperationKind::Write {
            segment,
            offset,
            bytes,
            skip,
        } => {
            let result = open(segment).unwrap().write_at(&bytes[skip..], offset);
            Outcome::Written(bytes, result)
        }
        OperationKind::Remove { segment } => {
            Outcome::Done(fs::remove_file(segment::path(dir, segment)))
        }
        OperationKind::Sync { .. } | OperationKind::SyncDirectory => Outcome::Done(Ok(())),
    }
}

fn read(dir: &Path) -> Result<(Recovered, Vec<u64>), JournalError> {
    let mut seqs = Vec::new();
    let recovered = recover(dir, 0, |entry| seqs.extend(seq_of(entry)))?;
    Ok((recovered, seqs))
}

fn twice(seqs: std::ops::RangeInclusive<u64>) -> Vec<u64> {
    seqs.flat_map(|seq| [seq, seq]).collect()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    segment::list(dir)
        .unwrap()
        .into_iter()
        .map(|first| segment::path(dir, first))
        .collect()
}

fn flip(file: &Path, offset: u64) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(file)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], offset).unwrap();
}

fn message(dir: &Path) -> String {
    read(dir).unwrap_err().to_string()
}

#[test]
fn a_journal_goes_on_over_several_runs_and_segments() {
    let dir = TempDir::new();
    write(dir.path(), 1, 1..=100, 7);
    write(dir.path(), 2, 101..=150, 1);
    let (recovered, seqs) = read(dir.path()).unwrap();
    assert_eq!(seqs, twice(1..=150));
    assert_eq!((recovered.events, recovered.cut), (300, None));
    assert!(recovered.segments.len() > 5, "{}", recovered.segments.len());
    let topic = &recovered.topics[1];
    assert_eq!(
        (&*topic.name, topic.epoch, topic.first_seq, topic.last_seq),
        ("stream/b", 7, 1, 150)
    );
    assert_eq!(
        recovered.topics.len(),
        2,
        "a topic keeps its index whatever its number is"
    );
    assert_eq!(recovered.segments.last().unwrap().newest_ns, 1_150);
    let (again, _) = read(dir.path()).unwrap();
    assert_eq!(
        again.segments, recovered.segments,
        "recovery changes nothing that is good"
    );
}

#[test]
fn an_empty_directory_is_an_empty_lane_and_is_made_if_missing() {
    let dir = TempDir::new();
    assert_eq!(lanes(&dir.path().join("none")).unwrap(), 0);
    let lane = lane_dir(dir.path(), 0);
    let (recovered, seqs) = read(&lane).unwrap();
    assert_eq!(
        (recovered.position, recovered.journal, seqs),
        (0, None, vec![])
    );
    assert_eq!(lanes(dir.path()).unwrap(), 1);
    fs::create_dir(lane_dir(dir.path(), 2)).unwrap();
    let error = lanes(dir.path()).unwrap_err().to_string();
    assert!(
        error.contains("lane-2") && error.contains("2 lanes"),
        "{error}"
    );
}

#[test]
fn a_topic_has_one_lane_for_ever() {
    assert_eq!(lane_of("market/AAPL", 1), 0);
    let spread: Vec<u32> = ["market/AAPL", "market/MSFT", "stream/news"]
        .map(|t| lane_of(t, 4))
        .into();
    assert_eq!(
        spread,
        [
            lane_of("market/AAPL", 4),
            lane_of("market/MSFT", 4),
            lane_of("stream/news", 4)
        ]
    );
    assert!(spread.iter().all(|lane| *lane < 4));
}

#[test]
fn a_tail_that_was_torn_anywhere_in_the_last_write_is_cut_at_the_last_whole_group() {
    let dir = TempDir::in_memory();
    let positions = write(dir.path(), 1, 1..=12, 3);
    let files = segments(dir.path());
    let (last, len) = (
        files.last().unwrap(),
        fs::metadata(files.last().unwrap()).unwrap().len(),
    );
    let bytes = fs::read(last).unwrap();
    let first = segment::position_of(last.file_name().unwrap().to_str().unwrap()).unwrap();
    let durable = HEADER as u64 + positions[positions.len() - 2] - first;
    for cut in durable..len {
        fs::write(last, &bytes[..cut as usize]).unwrap();
        let (recovered, seqs) = read(dir.path()).unwrap();
        let newest = *seqs.last().unwrap();
        assert!((9..12).contains(&newest), "{newest}");
        assert_eq!(seqs, twice(1..=newest), "cut at {cut}");
        let end = HEADER as u64 + recovered.position - first;
        assert_eq!(
            recovered.cut.map(|cut| cut.offset),
            (end != cut).then_some(end)
        );
        assert_eq!(
            fs::metadata(last).unwrap().len(),
            end,
            "what was cut is gone"
        );
        // The other way to tear: zeros, or other bytes, from there on.
        for filler in [0u8, 0xff] {
            let mut torn = bytes[..cut as usize].to_vec();
            torn.resize(len as usize + 600, filler);
            fs::write(last, &torn).unwrap();
            assert_eq!(read(dir.path()).unwrap().1, twice(1..=newest));
        }
    }
}

#[test]
fn damage_before_a_later_write_is_an_error_and_changes_no_file() {
    let dir = TempDir::in_memory();
    let positions = write(dir.path(), 1, 1..=12, 3);
    let file = segments(dir.path()).remove(0);
    let bytes = fs::read(&file).unwrap();
    let mut random = Random(1);
    let durable = (HEADER as u64 + positions[positions.len() - 2]).min(bytes.len() as u64);
    for _ in 0..200 {
        let offset = random.below(durable as usize) as u64;
        flip(&file, offset);
        let damaged = fs::read(&file).unwrap();
        let error = read(dir.path()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(file.to_str().unwrap()), "{text}");
        if offset >= HEADER as u64 {
            let JournalError::Corrupt { offset: found, .. } = error else {
                panic!("{text}")
            };
            assert!(
                found <= offset && text.contains("damaged at byte"),
                "{text}"
            );
        }
        assert_eq!(fs::read(&file).unwrap(), damaged);
        fs::write(&file, &bytes).unwrap();
    }
    assert_eq!(read(dir.path()).unwrap().1, twice(1..=12));
}

#[test]
fn damage_in_a_segment_before_the_last_is_an_error_that_names_file_and_offset() {
    let dir = TempDir::new();
    write(dir.path(), 1, 1..=200, 7);
    let middle = &segments(dir.path())[2];
    let len = fs::metadata(middle).unwrap().len();
    flip(middle, len - 5);
    let text = message(dir.path());
    assert!(
        text.contains(middle.to_str().unwrap()) && text.contains("restore"),
        "{text}"
    );
    flip(middle, len - 5);
    OpenOptions::new()
        .write(true)
        .open(middle)
        .unwrap()
        .set_len(len - 5)
        .unwrap();
    assert!(message(dir.path()).contains("the record is cut off"));
}

#[test]
fn a_missing_segment_is_an_error() {
    let dir = TempDir::new();
    write(dir.path(), 1, 1..=200, 7);
    fs::remove_file(&segments(dir.path())[2]).unwrap();
    let text = message(dir.path());
    assert!(text.contains("the segment before it ends at"), "{text}");
}

#[test]
fn files_of_others_of_another_lane_or_journal_and_newer_ones_are_refused() {
    let dir = TempDir::new();
    write(dir.path(), 1, 1..=20, 7);
    let stranger = dir.path().join("notes.txt");
    fs::write(&stranger, "hello").unwrap();
    let text = message(dir.path());
    assert!(
        text.contains("notes.txt") && text.contains("move it out"),
        "{text}"
    );
    fs::remove_file(stranger).unwrap();

    let text = recover(dir.path(), 3, |_| {}).unwrap_err().to_string();
    assert!(text.contains("belongs to lane 0"), "{text}");

    let (recovered, _) = read(dir.path()).unwrap();
    let next = segment::path(dir.path(), recovered.position);
    let header = segment::Header {
        lane: 0,
        journal: 5,
        first: recovered.position,
        run: 1,
    };
    fs::write(&next, header.encode()).unwrap();
    assert!(message(dir.path()).contains("another journal"));
    fs::write(
        &next,
        "this is no segment, and longer than a header is, so that it is no torn one",
    )
    .unwrap();
    assert!(message(dir.path()).contains("does not begin like one"));

    let mut newer = segment::Header {
        journal: recovered.journal.unwrap(),
        ..header
    }
    .encode();
    newer[8] = 2;
    fs::write(&next, newer).unwrap();
    let text = message(dir.path());
    assert!(
        text.contains("format 2") && text.contains("up to format 1"),
        "{text}"
    );
    assert!(next.exists(), "nothing of others is removed");
}

#[test]
fn a_directory_that_cannot_be_written_to_is_an_error_that_says_what_to_do() {
    // The tests may run as root, who may write anywhere but in the kernel's own file systems.
    let text = recover(Path::new("/sys/tickring/lane-0"), 0, |_| {})
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("cannot create /sys/tickring/lane-0"),
        "{text}"
    );
    assert!(text.contains("must be able to write there"), "{text}");
}

#[test]
fn a_reader_sees_what_recovery_sees_from_any_batch_on() {
    let dir = TempDir::new();
    let mut positions = write(dir.path(), 1, 1..=100, 7);
    positions.extend(write(dir.path(), 2, 101..=150, 5));
    let end = *positions.last().unwrap();
    let mut all = Vec::new();
    recover(dir.path(), 0, |entry| {
        all.extend(seq_of(entry).map(|seq| (entry.position, seq)))
    })
    .unwrap();
    for from in positions {
        let mut reader = Reader::open(dir.path(), 0, from).unwrap();
        let mut seen = Vec::new();
        while let Some(batch) = reader.batch(end).unwrap() {
            for entry in batch.entries() {
                let name = batch.topic(entry.topic).0;
                assert!(name == "stream/a" || name == "stream/b");
                seen.extend(seq_of(&entry).map(|seq| (entry.position, seq)));
            }
        }
        let expected: Vec<_> = all.iter().copied().filter(|(at, _)| *at >= from).collect();
        assert_eq!(seen, expected, "from {from}");
        assert_eq!(reader.position(), end);
    }
}

#[test]
fn a_reader_never_looks_beyond_the_committed_position() {
    let dir = TempDir::new();
    let positions = write(dir.path(), 1, 1..=60, 7);
    let mut reader = Reader::open(dir.path(), 0, 0).unwrap();
    let mut seen = Vec::new();
    for committed in positions {
        while let Some(batch) = reader.batch(committed).unwrap() {
            assert!(batch.end() <= committed);
            seen.extend(batch.entries().filter_map(|entry| seq_of(&entry)));
        }
        assert_eq!(reader.position(), committed);
    }
    assert_eq!(seen, twice(1..=60));
}

#[test]
fn a_reader_says_that_a_position_is_gone_or_no_group_begins_there() {
    let dir = TempDir::new();
    write(dir.path(), 1, 1..=200, 7);
    let error = Reader::open(dir.path(), 0, 33).unwrap_err();
    assert!(
        matches!(error, JournalError::NoSuchPosition { position: 33, .. }),
        "{error}"
    );
    fs::remove_file(&segments(dir.path())[0]).unwrap();
    let error = Reader::open(dir.path(), 0, 0).unwrap_err();
    assert!(
        matches!(error, JournalError::Expired { wanted: 0, .. }),
        "{error}"
    );
}

#[test]
fn a_catalog_finds_any_event_of_a_topic_near_by() {
    let dir = TempDir::new();
    write(dir.path(), 1, 1..=150, 7);
    write(dir.path(), 2, 151..=400, 3);
    let mut catalog = Catalog::new(1_000, 1 << 10);
    let mut topics = Vec::new();
    let recovered = recover(dir.path(), 0, |entry| match entry.record {
        Record::Topic(topic) if entry.topic == topics.len() => {
            topics.push(catalog.topic(topic.name, topic.epoch));
        }
        Record::Event(event) => {
            let place = Place {
                seq: event.seq,
                position: entry.position,
                number: event.topic,
            };
            catalog.note(topics[entry.topic], place);
        }
        _ => {}
    })
    .unwrap();
    assert!(catalog.len() > 40);
    for wanted in 1..=400 {
        let place = catalog.find("stream/b", 7, wanted).unwrap();
        let mut reader = Reader::open_at(dir.path(), 0, ("stream/b", 7), place).unwrap();
        let mut seqs = Vec::new();
        while let Some(batch) = reader.batch(recovered.position).unwrap() {
            let ours = batch
                .entries()
                .filter(|entry| batch.topic(entry.topic).0 == "stream/b");
            seqs.extend(ours.filter_map(|entry| seq_of(&entry)));
        }
        assert!(
            place.seq <= wanted && wanted - place.seq < 30,
            "{place:?} for {wanted}"
        );
        assert_eq!(seqs, (place.seq..=400).collect::<Vec<_>>());
    }
    assert_eq!(catalog.find("stream/none", 7, 1), None);
    catalog.forget_below(recovered.position / 2);
    assert_eq!(
        catalog.find("stream/b", 7, 1),
        None,
        "reading begins with the lane"
    );
    assert!(catalog.find("stream/b", 7, 400).is_some());
}

#[test]
fn a_catalog_stays_within_its_bound_and_keeps_each_topic() {
    let mut catalog = Catalog::new(100, 10);
    let topics: Vec<usize> = (0..20)
        .map(|n| catalog.topic(&format!("t/{n}"), 1))
        .collect();
    for seq in 1..=10_000u64 {
        for (number, topic) in topics.iter().enumerate() {
            let position = seq * 1_000 + number as u64;
            catalog.note(
                *topic,
                Place {
                    seq,
                    position,
                    number: number as u32,
                },
            );
        }
        assert!(catalog.len() <= 100);
    }
    for number in 0..20 {
        let place = catalog.find(&format!("t/{number}"), 1, 10_000).unwrap();
        assert_eq!(place.position, place.seq * 1_000 + number);
        assert_eq!(catalog.find(&format!("t/{number}"), 1, 1).unwrap().seq, 1);
    }
}

#[test]
fn verify_and_dump_show_what_is_there_and_where_it_breaks() {
    let dir = TempDir::new();
    write(dir.path(), 1, 1..=200, 7);
    let report = verify(dir.path(), 0, &Progress::default()).unwrap();
    assert!(report.is_good() && report.torn.is_none());
    assert_eq!(report.segments.iter().map(|s| s.events).sum::<u64>(), 400);
    assert_eq!(report.segments[0].oldest_ns, 1_001);
    assert_eq!(report.segments.last().unwrap().newest_ns, 1_200);
    assert!(
        report.segments.iter().all(|s| s.topics == 2),
        "every segment explains itself"
    );

    write(dir.path(), 2, 205..=206, 1);
    let report = verify(dir.path(), 0, &Progress::default()).unwrap();
    assert_eq!(report.seq_breaks.len(), 2);
    assert_eq!(
        (report.seq_breaks[0].expected, report.seq_breaks[0].found),
        (201, 205)
    );

    let before: Vec<_> = segments(dir.path())
        .iter()
        .map(|f| fs::read(f).unwrap())
        .collect();
    flip(&segments(dir.path())[1], 200);
    let report = verify(dir.path(), 0, &Progress::default()).unwrap();
    assert!(matches!(report.error, Some(JournalError::Corrupt { .. })) && !report.is_good());
    let mut dumped = 0;
    assert!(dump(dir.path(), 0, |_| dumped += 1).is_err());
    assert!(dumped > 40, "all that is before the damage is shown");
    flip(&segments(dir.path())[1], 200);
    let after: Vec<_> = segments(dir.path())
        .iter()
        .map(|f| fs::read(f).unwrap())
        .collect();
    assert!(before == after, "inspection changes nothing");
}

#[test]
fn all_lanes_are_recovered_at_once_with_their_progress() {
    let dir = TempDir::new();
    let progress = Progress::default();
    let open = |fresh, threads, progress: &Progress| {
        recover_lanes(
            dir.path(),
            fresh,
            threads,
            progress,
            |_| Vec::new(),
            |seqs: &mut Vec<u64>, entry| {
                seqs.extend(seq_of(entry));
            },
        )
    };
    assert_eq!(
        open(3, 2, &progress).unwrap().len(),
        3,
        "made with as many lanes as asked for"
    );
    assert_eq!((progress.total_bytes(), progress.records()), (0, 0));
    write(&lane_dir(dir.path(), 0), 1, 1..=3_000, 100);
    let found = open(5, 8, &progress).unwrap();
    let lanes: Vec<u32> = found.iter().map(|(recovered, _)| recovered.lane).collect();
    assert_eq!(lanes, [0, 1, 2], "the number of lanes stays");
    assert_eq!(found[0].1, twice(1..=3_000));
    assert!(found[1].1.is_empty() && found[2].1.is_empty());
    assert!(progress.records() >= 6_000);
    assert!(progress.bytes() <= progress.total_bytes());
    assert!(progress.bytes() * 100 > progress.total_bytes() * 95);

    let file = segment::path(&lane_dir(dir.path(), 0), 0);
    flip(&file, 700);
    let error = open(3, 2, &progress).unwrap_err().to_string();
    assert!(error.contains("lane-0"), "{error}");
}

#[test]
fn a_reader_opens_a_lane_whose_first_segment_has_no_header_yet() {
    let dir = TempDir::new();
    let file = segment::path(dir.path(), 0);
    fs::write(&file, vec![0; HEADER]).unwrap();
    let mut reader = Reader::open(dir.path(), 0, 0).unwrap();
    assert!(reader.batch(0).unwrap().is_none());
    fs::remove_file(&file).unwrap();
    let positions = write(dir.path(), 1, 1..=3, 3);
    let committed = *positions.last().unwrap();
    assert_eq!(reader.batch(committed).unwrap().unwrap().end(), committed);
}
