//! Room for the schedulers' tables: runs of lines in one array.
//!
//! A table that was replaced may still be read by a packet on its way, so its lines rest for a while before they are given
//! to another.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// How long lines rest: a packet is through in microseconds, even on a virtual machine that is stopped for a moment.
const REST: Duration = Duration::from_secs(2);

/// The free runs, by first line, and those at rest.
#[derive(Debug)]
pub struct Lines {
    free: BTreeMap<u32, u32>,
    resting: VecDeque<(Instant, u32, u32)>,
}

impl Lines {
    /// All of so many lines are free.
    pub fn new(lines: u32) -> Self {
        Self { free: BTreeMap::from([(0, lines)]), resting: VecDeque::new() }
    }

    /// Takes this run out of what is free: it was in use before.
    pub fn reserve(&mut self, first: u32, len: u32) {
        let Some((&start, &free)) = self.free.range(..=first).next_back() else { return };
        if len == 0 || first + len > start + free {
            return;
        }
        self.free.remove(&start);
        if first > start {
            self.free.insert(start, first - start);
        }
        if first + len < start + free {
            self.free.insert(first + len, start + free - first - len);
        }
    }

    /// A run of this length.
    pub fn take(&mut self, len: u32, now: Instant) -> Option<u32> {
        self.wake(now);
        let first = self.free.iter().find(|(_, free)| **free >= len).map(|(first, _)| *first)?;
        self.reserve(first, len);
        Some(first)
    }

    /// Gives a run back; it rests first.
    pub fn give_back(&mut self, first: u32, len: u32, now: Instant) {
        if len != 0 {
            self.resting.push_back((now, first, len));
        }
    }

    fn wake(&mut self, now: Instant) {
        while let Some((since, first, len)) = self.resting.front().copied() {
            if now.duration_since(since) < REST {
                break;
            }
            self.resting.pop_front();
            self.insert(first, len);
        }
    }

    fn insert(&mut self, mut first: u32, mut len: u32) {
        if let Some((&before, &free)) = self.free.range(..first).next_back()
            && before + free == first
        {
            self.free.remove(&before);
            (first, len) = (before, len + free);
        }
        if let Some(free) = self.free.remove(&(first + len)) {
            len += free;
        }
        self.free.insert(first, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_rest_and_then_join_their_neighbours() {
        let start = Instant::now();
        let mut lines = Lines::new(10);
        let (a, b) = (lines.take(4, start).unwrap(), lines.take(6, start).unwrap());
        assert_eq!((a, b), (0, 4));
        lines.give_back(a, 4, start);
        lines.give_back(b, 6, start);
        assert_eq!(lines.take(1, start), None);
        assert_eq!(lines.take(10, start + REST), Some(0));
    }

    #[test]
    fn a_reserved_run_is_not_given_out() {
        let mut lines = Lines::new(10);
        lines.reserve(3, 2);
        let now = Instant::now();
        assert_eq!(lines.take(5, now), Some(5));
        assert_eq!(lines.take(3, now), Some(0));
        assert_eq!(lines.take(1, now), None);
    }
}
