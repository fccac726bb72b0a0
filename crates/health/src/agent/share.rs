//! From answers to the share in force: smoothed, moved only when it matters, and slow after a return.
//!
//! An agent's figures jump from one second to the next. If weights followed each, schedulers that go by weight would start anew
//! each time, and the load would swing. So the figures are averaged, and the share in force is left alone until the
//! average has moved away from it by [`Pace::step`].

use std::time::Duration;

use xlvs_model::watch::AgentSpec;

use crate::effective::{AgentMode, AgentWord, WHOLE};

/// How fast shares follow their agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Of each new figure so many percent count, and the rest of the average that was; 100 follows at once.
    pub smoothing: u16,
    /// The share in force moves when the average is so many percent points away, or at an end (0, 100 or what is allowed).
    pub step: u16,
    /// A server that was away and returns gets its share in so long, in equal parts; zero at once.
    pub slow_start: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { smoothing: 50, step: 5, slow_start: Duration::from_secs(20) }
    }
}

impl From<&AgentSpec> for Pace {
    fn from(agent: &AgentSpec) -> Self {
        Self { smoothing: agent.smoothing, step: agent.step, slow_start: agent.slow_start }
    }
}

/// The share that a returning server begins with, in percent of what it will have.
const BEGINNING: u64 = 10;

/// What one server's agent has led to.
#[derive(Clone, Debug)]
pub struct Share {
    pace: Pace,
    /// The average in hundredths of a percent; `None` before the first figure.
    average: Option<u32>,
    in_force: u16,
    /// Is it in service, as far as agents and checks say?
    serves: bool,
    returned_at: Option<Duration>,
}

impl Share {
    /// A server whose agent has not said anything.
    pub fn new(pace: Pace) -> Self {
        Self { pace, average: None, in_force: WHOLE, serves: true, returned_at: None }
    }

    /// The agent has said something: the figure counts, the rest is in force at once.
    pub fn said(&mut self, word: AgentWord) {
        let target = u32::from(word.percent) * 100;
        let part = u32::from(self.pace.smoothing.clamp(1, 100));
        let average = match self.average {
            Some(average) => (average * (100 - part) + target * part + 50) / 100,
            None => target,
        };
        self.average = Some(average);
        let rounded = u16::try_from((average + 50) / 100).unwrap_or(u16::MAX);
        let is_close = rounded.abs_diff(self.in_force) < self.pace.step;
        // An average comes close to an end and never there.
        let end = rounded.abs_diff(word.percent) <= 1 && (word.percent == 0 || word.percent >= WHOLE);
        if end {
            self.in_force = word.percent;
        } else if !is_close {
            self.in_force = rounded;
        }
    }

    /// Tells whether the server is in service at all: neither down nor in maintenance, by checks and agent. One that returns begins
    /// slowly; one that was there from the beginning does not.
    pub fn serves(&mut self, serves: bool, now: Duration) {
        if serves && !self.serves {
            self.returned_at = Some(now);
        }
        self.serves = serves;
    }

    /// The share in force at this time, in percent, between 0 and what the agent asked for.
    pub fn at(&self, now: Duration) -> u16 {
        if !self.serves && !self.pace.slow_start.is_zero() {
            // What it begins with when it returns, which others may notice first.
            return self.part(BEGINNING.into());
        }
        let Some(returned_at) = self.returned_at else { return self.in_force };
        let (past, whole) = (now.saturating_sub(returned_at).as_millis(), self.pace.slow_start.as_millis());
        if past >= whole {
            return self.in_force;
        }
        let beginning = u128::from(BEGINNING);
        self.part(beginning + (100 - beginning) * past / whole)
    }

    /// So many percent of the share in force.
    fn part(&self, percent: u128) -> u16 {
        let share = (u128::from(self.in_force) * percent).div_ceil(100);
        u16::try_from(share).unwrap_or(self.in_force)
    }

    /// What is in force now instead of what the agent said last.
    pub fn word(&self, said: AgentWord, now: Duration) -> AgentWord {
        AgentWord { percent: self.at(now), ..said }
    }
}

/// Is a server with this word in service?
pub fn is_in_service(word: AgentWord) -> bool {
    !word.is_down && word.mode != AgentMode::Maint
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn word(percent: u16) -> AgentWord {
        AgentWord { percent, ..AgentWord::default() }
    }

    fn after(pace: Pace, figures: &[u16]) -> Vec<u16> {
        let mut share = Share::new(pace);
        let now = Duration::ZERO;
        figures
            .iter()
            .map(|figure| {
                share.said(word(*figure));
                share.at(now)
            })
            .collect()
    }

    #[test]
    fn the_files_default_is_the_default() {
        assert_eq!(Pace::from(&AgentSpec::at(9999)), Pace::default());
    }

    #[test]
    fn figures_are_averaged() {
        assert_eq!(after(Pace::default(), &[100, 20, 20, 20, 20, 20]), [100, 60, 40, 30, 25, 25]);
        assert_eq!(after(Pace { smoothing: 100, step: 0, ..Pace::default() }, &[37, 38, 90]), [37, 38, 90]);
    }

    #[test]
    fn small_movements_move_nothing() {
        let flutter: Vec<u16> = (0..100).map(|i| if i % 2 == 0 { 58 } else { 62 }).collect();
        let shares = after(Pace::default(), &flutter);
        assert!(shares.windows(2).all(|pair| pair[0] == pair[1]), "{shares:?}");
    }

    #[test]
    fn the_ends_are_reached() {
        let mut figures = vec![50];
        figures.extend([0; 12]);
        assert_eq!(after(Pace::default(), &figures).last(), Some(&0));
        figures.extend([100; 12]);
        assert_eq!(after(Pace::default(), &figures).last(), Some(&100));
    }

    #[test]
    fn a_server_that_returns_begins_slowly() {
        let at = Duration::from_secs;
        let mut share = Share::new(Pace::default());
        share.said(word(80));
        assert_eq!(share.at(at(0)), 80, "it was there from the beginning");
        share.serves(false, at(10));
        assert_eq!(share.at(at(99)), 8, "whoever sees it return first finds this");
        share.serves(true, at(100));
        assert_eq!(share.at(at(100)), 8);
        assert_eq!(share.at(at(110)), 44);
        assert_eq!(share.at(at(120)), 80);
        share.serves(true, at(200));
        assert_eq!(share.at(at(200)), 80, "it did not leave");
    }

    proptest! {
        #[test]
        fn a_share_stays_between_the_figures(figures in prop::collection::vec(0..=100_u16, 1..50)) {
            let mut share = Share::new(Pace::default());
            for figure in &figures {
                share.said(word(*figure));
            }
            let (least, most) = (figures.iter().min().unwrap_or(&0), figures.iter().max().unwrap_or(&0));
            let most = if figures[0].abs_diff(WHOLE) < 5 { &WHOLE } else { most };
            prop_assert!(share.at(Duration::ZERO) >= *least && share.at(Duration::ZERO) <= *most);
        }

        #[test]
        fn steady_figures_are_come_close_to(first in 0..=100_u16, steady in 0..=100_u16) {
            let mut share = Share::new(Pace::default());
            share.said(word(first));
            for _ in 0..20 {
                share.said(word(steady));
            }
            prop_assert!(share.at(Duration::ZERO).abs_diff(steady) < Pace::default().step);
        }
    }
}
