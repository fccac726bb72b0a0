//! The last events, as many as there is room for.

use std::collections::VecDeque;

use crate::event::{Event, Happening};

/// Events by number. Who reads too slowly loses the oldest; who writes never waits.
#[derive(Debug)]
pub struct Ring {
    events: VecDeque<Event>,
    room: usize,
    /// The number of the event that comes next.
    next: u64,
}

/// What a reader finds.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// So many events are gone that it has not seen.
    pub missed: u64,
    /// The oldest that it has not seen.
    pub events: Vec<Event>,
}

impl Ring {
    /// Room for so many events, at least one.
    pub fn of(room: usize) -> Self {
        Self { events: VecDeque::new(), room: room.max(1), next: 1 }
    }

    /// Takes an event in, in the place of the oldest if there is no room. `time_ms`: milliseconds since 1970.
    pub fn push(&mut self, what: Happening, time_ms: u64) {
        if self.events.len() == self.room {
            self.events.pop_front();
        }
        self.events.push_back(Event { number: self.next, time_ms, what });
        self.next += 1;
    }

    /// Where a reader begins who wants to see the last so many events, too.
    pub fn cursor(&self, last: u64) -> u64 {
        self.next - last.min(self.events.len() as u64)
    }

    /// Where a reader begins who has seen the event with this number. One that has not been yet is an older daemon's: then from
    /// the beginning.
    pub fn after(&self, number: u64) -> u64 {
        let next = number.saturating_add(1);
        if next > self.next { 1 } else { next }
    }

    /// Up to so many events from the reader's cursor on, which moves behind them.
    pub fn read(&self, cursor: &mut u64, most: usize) -> Found {
        let oldest = self.next - self.events.len() as u64;
        let missed = oldest.saturating_sub(*cursor);
        let from = (*cursor).max(oldest);
        let events = self.events.iter().skip((from - oldest) as usize).take(most);
        let events: Vec<Event> = events.cloned().collect();
        *cursor = from + events.len() as u64;
        Found { missed, events }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ring(room: usize, pushed: u64) -> Ring {
        let mut ring = Ring::of(room);
        (1..=pushed).for_each(|n| ring.push(Happening::TableFull { refused: n }, n));
        ring
    }

    fn numbers(found: &Found) -> Vec<u64> {
        found.events.iter().map(|event| event.number).collect()
    }

    #[test]
    fn a_reader_who_keeps_up_sees_everything_once() {
        let mut ring = ring(3, 2);
        let mut cursor = ring.cursor(0);
        assert_eq!(ring.read(&mut cursor, 9), Found { missed: 0, events: vec![] });
        ring.push(Happening::TableTakesAgain, 5);
        let found = ring.read(&mut cursor, 9);
        assert_eq!((found.missed, numbers(&found)), (0, vec![3]));
        assert_eq!(numbers(&ring.read(&mut cursor, 9)), [0; 0]);
    }

    #[test]
    fn a_slow_reader_loses_the_oldest_and_is_told_how_many() {
        let mut ring = ring(3, 0);
        let mut cursor = ring.cursor(0);
        (1..=5).for_each(|n| ring.push(Happening::TableFull { refused: n }, n));
        let found = ring.read(&mut cursor, 2);
        assert_eq!((found.missed, numbers(&found)), (2, vec![3, 4]));
        let found = ring.read(&mut cursor, 2);
        assert_eq!((found.missed, numbers(&found)), (0, vec![5]));
    }

    #[test]
    fn the_past_can_be_asked_for_as_far_as_it_is_there() {
        let ring = ring(3, 5);
        let mut cursor = ring.cursor(2);
        assert_eq!(numbers(&ring.read(&mut cursor, 9)), [4, 5]);
        let mut cursor = ring.cursor(100);
        let found = ring.read(&mut cursor, 9);
        assert_eq!((found.missed, numbers(&found)), (0, vec![3, 4, 5]));
    }

    #[test]
    fn who_has_seen_an_event_goes_on_behind_it() {
        let ring = ring(3, 5);
        let seen = |number| {
            let found = ring.read(&mut ring.after(number), 9);
            (found.missed, numbers(&found))
        };
        assert_eq!(seen(4), (0, vec![5]));
        assert_eq!(seen(5), (0, vec![]));
        assert_eq!(seen(1), (1, vec![3, 4, 5]), "2 is gone");
        assert_eq!(seen(0), (2, vec![3, 4, 5]));
        assert_eq!(seen(17), (2, vec![3, 4, 5]), "of an older daemon");
    }

    proptest! {
        #[test]
        fn what_was_seen_and_what_was_missed_is_all_there_was(
            room in 1..9_usize,
            steps in proptest::collection::vec((0..12_u64, 1..9_usize), 1..40),
        ) {
            let mut ring = Ring::of(room);
            let mut cursor = ring.cursor(0);
            let (mut pushed, mut accounted) = (0, 0);
            for (more, most) in steps {
                (0..more).for_each(|n| ring.push(Happening::TableFull { refused: n }, 0));
                pushed += more;
                let found = ring.read(&mut cursor, most);
                accounted += found.missed;
                for event in &found.events {
                    accounted += 1;
                    prop_assert_eq!(event.number, accounted);
                }
                prop_assert!(found.events.len() <= most.min(room));
                prop_assert!(accounted <= pushed);
            }
            let found = ring.read(&mut cursor, usize::MAX);
            prop_assert_eq!(accounted + found.missed + found.events.len() as u64, pushed);
        }
    }
}
