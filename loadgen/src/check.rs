//! Loss, duplicates and order: what each connection saw of each topic.

use std::collections::HashMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// What a [`Checker`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Numbers that never came, those that a GAP announced included.
    pub lost: u64,
    /// Numbers that came again.
    pub duplicated: u64,
    /// Numbers that came after a later one.
    pub out_of_order: u64,
    /// Those of `lost` that a GAP announced.
    pub announced: u64,
}

impl Tally {
    /// Adds what another checker found.
    pub fn add(&mut self, other: &Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
        self.announced += other.announced;
    }

    /// The larger of each figure. Two checkers that read different numbers of the same events
    /// (seq and payload counter) see one fault twice; the sum would count it double.
    pub fn worse(&self, other: &Self) -> Self {
        Self {
            lost: self.lost.max(other.lost),
            duplicated: self.duplicated.max(other.duplicated),
            out_of_order: self.out_of_order.max(other.out_of_order),
            announced: self.announced.max(other.announced),
        }
    }
}

/// The next number of a stream that may start anywhere.
const ANYWHERE: u64 = u64::MAX;

/// Most missing ranges that a checker remembers. What comes late once they are used up counts as
/// duplicated instead of out of order; the run has failed by far either way.
const MAX_HOLES: usize = 1 << 16;

/// Checks that each of many streams counts up by one.
///
/// A number ahead of its turn opens a hole, counted as lost at once; when the missing number
/// comes after all it was not lost but out of order. A number outside every hole is a duplicate.
/// An expected number costs one comparison and touches eight bytes.
#[derive(Debug)]
pub struct Checker {
    next: Vec<u64>,
    holes: HashMap<u32, Vec<Range<u64>>>,
    hole_count: usize,
    tally: Tally,
}

impl Checker {
    /// A checker of `streams` streams, each starting at 0.
    pub fn new(streams: usize) -> Self {
        Self {
            next: vec![0; streams],
            holes: HashMap::new(),
            hole_count: 0,
            tally: Tally::default(),
        }
    }

    /// The next number of `stream` is `next`; what was missing before stays lost.
    pub fn start(&mut self, stream: u32, next: u64) {
        self.next[stream as usize] = next;
        self.forget_holes(stream);
    }

    /// `stream` may go on with any number.
    pub fn start_anywhere(&mut self, stream: u32) {
        self.start(stream, ANYWHERE);
    }

    /// The number that `stream` should come to next; `None` before its first.
    pub fn next(&self, stream: u32) -> Option<u64> {
        Some(self.next[stream as usize]).filter(|&next| next != ANYWHERE)
    }

    /// `number` came on `stream`.
    #[inline]
    pub fn see(&mut self, stream: u32, number: u64) {
        let next = &mut self.next[stream as usize];
        if *next == number {
            *next = number + 1;
        } else {
            self.surprise(stream, number);
        }
    }

    #[cold]
    fn surprise(&mut self, stream: u32, number: u64) {
        let next = self.next[stream as usize];
        if next == ANYWHERE {
            self.next[stream as usize] = number + 1;
        } else if number > next {
            self.miss(stream, next..number);
            self.next[stream as usize] = number + 1;
        } else if self.fill(stream, number) {
            self.tally.lost -= 1;
            self.tally.out_of_order += 1;
        } else {
            self.tally.duplicated += 1;
        }
    }

    /// The other side said that `first..=last` will not come. They are lost, but not in silence.
    pub fn skip(&mut self, stream: u32, first: u64, last: u64) {
        let next = self.next[stream as usize];
        if next == ANYWHERE || last < next {
            return;
        }
        if first > next {
            self.miss(stream, next..first);
        }
        let announced = last - first.max(next) + 1;
        self.tally.lost += announced;
        self.tally.announced += announced;
        self.next[stream as usize] = last + 1;
    }

    /// The stream is over: every number below `end` should have come.
    pub fn finish(&mut self, stream: u32, end: u64) {
        let next = self.next[stream as usize];
        if next != ANYWHERE && next < end {
            self.tally.lost += end - next;
            self.next[stream as usize] = end;
        }
    }

    /// What was found so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    fn miss(&mut self, stream: u32, numbers: Range<u64>) {
        self.tally.lost += numbers.end - numbers.start;
        if self.hole_count < MAX_HOLES {
            self.hole_count += 1;
            self.holes.entry(stream).or_default().push(numbers);
        }
    }

    /// Takes `number` out of the hole that it is in, if there is one.
    fn fill(&mut self, stream: u32, number: u64) -> bool {
        let Some(holes) = self.holes.get_mut(&stream) else {
            return false;
        };
        let Some(at) = holes.iter().position(|hole| hole.contains(&number)) else {
            return false;
        };
        let hole = holes.swap_remove(at);
        let before = holes.len();
        holes.extend(
            [hole.start..number, number + 1..hole.end]
                .into_iter()
                .filter(|r| !r.is_empty()),
        );
        self.hole_count = self.hole_count - 1 + holes.len() - before;
        true
    }

    fn forget_holes(&mut self, stream: u32) {
        if self.hole_count > 0
            && let Some(holes) = self.holes.remove(&stream)
        {
            self.hole_count -= holes.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally_of(numbers: &[u64], end: u64) -> Tally {
        let mut checker = Checker::new(2);
        for &number in numbers {
            checker.see(1, number);
        }
        checker.finish(1, end);
        checker.tally()
    }

    #[test]
    fn a_whole_stream_has_no_fault() {
        assert_eq!(tally_of(&[0, 1, 2, 3], 4), Tally::default());
    }

    #[test]
    fn a_missing_number_is_lost() {
        assert_eq!(tally_of(&[0, 2, 3], 4).lost, 1);
    }

    #[test]
    fn a_missing_tail_is_lost() {
        assert_eq!(tally_of(&[0, 1], 4).lost, 2);
    }

    #[test]
    fn a_repeated_number_is_duplicated() {
        let found = tally_of(&[0, 1, 1, 2, 0, 3], 4);
        assert_eq!(
            (found.lost, found.duplicated, found.out_of_order),
            (0, 2, 0)
        );
    }

    #[test]
    fn a_late_number_is_out_of_order_and_not_lost() {
        let found = tally_of(&[0, 4, 2, 5, 1, 2], 6);
        assert_eq!(
            (found.lost, found.duplicated, found.out_of_order),
            (1, 1, 2)
        );
    }

    #[test]
    fn announced_numbers_are_lost_but_not_in_silence() {
        let mut checker = Checker::new(1);
        checker.see(0, 0);
        checker.skip(0, 2, 4);
        checker.see(0, 5);
        checker.skip(0, 1, 3);
        checker.finish(0, 6);
        let found = checker.tally();
        assert_eq!((found.lost, found.announced), (4, 3));
        assert_eq!((found.duplicated, found.out_of_order), (0, 0));
    }

    #[test]
    fn a_stream_that_starts_anew_forgets_what_it_missed() {
        let mut checker = Checker::new(1);
        checker.see(0, 2);
        checker.start_anywhere(0);
        assert_eq!(checker.next(0), None);
        checker.see(0, 7);
        checker.see(0, 1);
        assert_eq!(checker.next(0), Some(8));
        let found = checker.tally();
        assert_eq!(
            (found.lost, found.duplicated, found.out_of_order),
            (2, 1, 0)
        );
    }

    #[test]
    fn streams_do_not_disturb_each_other() {
        let mut checker = Checker::new(3);
        checker.see(2, 0);
        checker.see(0, 0);
        checker.see(2, 1);
        assert_eq!(checker.tally(), Tally::default());
    }
}
