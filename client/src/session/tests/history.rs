//! Reading stored rows back.

use tickring_protocol::{Candle, Cursor, ErrorCode, ErrorFrame, FrameType, HistoryPage, Series};

use super::*;
use crate::HistoryQuery;

fn rows(candles: u64) -> Vec<u8> {
    let mut rows = Vec::new();
    for start_ns in 0..candles {
        Candle {
            start_ns,
            ..Candle::default()
        }
        .encode(&mut rows);
    }
    rows
}

fn page(request_id: u64, rows: &[u8]) -> Frame<'_> {
    Frame::HistoryPage(HistoryPage {
        request_id,
        series: Series::Minute,
        more: true,
        next: Cursor {
            event_ns: 1,
            seq: 1,
        },
        rows,
    })
}

fn refusal(request_id: u64, fatal: bool) -> Frame<'static> {
    Frame::Error(ErrorFrame {
        code: ErrorCode::Overloaded as u16,
        frame_type: FrameType::History as u8,
        fatal,
        retry_after_ms: 500,
        request_id,
        text: "no",
    })
}

#[test]
fn a_page_is_told_with_its_rows_even_with_extension_fields_behind_them() {
    let mut pair = Pair::active();
    let query = HistoryQuery::of(Series::Minute);
    let asked = pair.session.history("market/A", query).unwrap();
    assert_eq!(pair.sends(), ["HISTORY 1 market/A Minute"]);
    let (rows, mut bytes) = (rows(2), Vec::new());
    page(asked, &rows).encode(&mut bytes);
    bytes.extend_from_slice(&[40, 0, 2, 0, 9, 9]);
    let len = u32::try_from(bytes.len()).unwrap();
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    pair.session.receive(&bytes, pair.now);
    let Some(Notice::History(page)) = pair.session.next() else {
        panic!("a page was sent");
    };
    let starts: Vec<u64> = page.candles().map(|c| c.unwrap().start_ns).collect();
    assert_eq!(starts, [0, 1]);
    assert!(page.more);
}

#[test]
fn a_read_that_is_refused_is_over() {
    let mut pair = Pair::active();
    let asked = pair
        .session
        .history("market/A", HistoryQuery::default())
        .unwrap();
    assert_eq!(
        pair.serve(&[refusal(asked, false)]),
        ["refused 1 None 25 no"]
    );
    pair.cut();
    pair.connect(true);
    assert!(pair.sends().is_empty());
}

#[test]
fn a_read_whose_connection_broke_is_asked_for_again_in_any_session() {
    let mut pair = Pair::active();
    let query = HistoryQuery::of(Series::Minute);
    let asked = pair.session.history("market/A", query).unwrap();
    pair.sends();
    pair.cut();
    pair.connect(false);
    assert_eq!(pair.sends(), ["HISTORY 1 market/A Minute"]);
    assert_eq!(pair.serve(&[page(asked, &[])]), ["page 1 of 0 rows"]);
}

#[test]
fn a_page_that_nobody_asked_for_breaks_the_protocol() {
    let mut pair = Pair::active();
    pair.serve(&[page(9, &[])]);
    assert_eq!(
        violation(&pair),
        ProtocolError::UnknownRequest {
            frame: FrameType::HistoryPage,
            request_id: 9
        }
    );
}

#[test]
fn reads_are_bounded() {
    let mut pair = Pair::active();
    let mut ask = || pair.session.history("market/A", HistoryQuery::default());
    for _ in 0..1024 {
        ask().unwrap();
    }
    assert_eq!(ask(), Err(RequestError::TooManyReads { limit: 1024 }));
}
