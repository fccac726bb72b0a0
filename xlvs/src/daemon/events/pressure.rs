//! How full the connection table is, told where thresholds are passed.

use crate::event::Happening;

/// In percent of the slots; `xlvs status` colours by the same.
const THRESHOLDS: [u8; 3] = [70, 85, 95];
/// A threshold is left only so far below it, in percent, so that a table that hovers there is not told of every second.
const HYSTERESIS: u8 = 5;

/// The threshold that was passed last; 0: none.
#[derive(Debug, Default)]
pub struct Pressure {
    passed: u8,
}

impl Pressure {
    /// Looks at the table: entries of so many slots.
    pub fn look(&mut self, used: u64, slots: u64) -> Option<Happening> {
        let is_above = |percent: u8| used * 100 >= slots * u64::from(percent);
        let reached = THRESHOLDS.into_iter().rev().find(|percent| is_above(*percent)).unwrap_or(0);
        let kept = THRESHOLDS.into_iter().rev().find(|percent| is_above(percent - HYSTERESIS)).unwrap_or(0);
        let before = self.passed;
        self.passed = reached.max(kept.min(before));
        let is_news = self.passed > before || self.passed == 0 && before != 0;
        is_news.then_some(Happening::TablePressure { percent: self.passed, used, slots })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_told_upwards_and_the_end_of_all_of_it() {
        let mut pressure = Pressure::default();
        let mut percent = |used| match pressure.look(used, 1000) {
            Some(Happening::TablePressure { percent, .. }) => Some(percent),
            _ => None,
        };
        let looks = [690, 700, 699, 701, 860, 790, 851, 960, 700, 660, 649, 700];
        let told =
            [None, Some(70), None, None, Some(85), None, Some(85), Some(95), None, None, Some(0), Some(70)];
        assert_eq!(looks.map(&mut percent), told);
    }

    #[test]
    fn a_table_may_fill_at_once() {
        let told = Pressure::default().look(100, 100);
        assert_eq!(told, Some(Happening::TablePressure { percent: 95, used: 100, slots: 100 }));
    }
}
