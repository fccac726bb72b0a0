//! What the director was in the last minutes, for who looks only now.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};
use utoipa::ToSchema;

use super::ask::Asker;
use crate::overview::{Overview, Reason};
use crate::protocol::{Answer, Request};

/// So often the director is looked at.
const EVERY: Duration = Duration::from_secs(5);
/// Samples that are kept: ten minutes.
const KEPT: usize = 120;

/// The director at one time. Counters count from when it came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Sample {
    /// Seconds since 1970.
    pub time: u64,
    /// Packets sent on.
    pub forwarded: u64,
    /// Packets answered with an ICMP error.
    pub answered: u64,
    /// Packets dropped.
    pub dropped: u64,
    /// Packets left to the director's own stack.
    pub passed: u64,
    /// Active connections.
    pub active: u64,
    /// Inactive ones.
    pub inactive: u64,
    /// Persistence templates.
    pub persistent: u64,
}

impl Sample {
    fn of(overview: &Overview, time: SystemTime) -> Self {
        let sum = |reasons: &[Reason]| reasons.iter().map(|reason| reason.packets).sum();
        Self {
            time: time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs(),
            forwarded: overview.forwarded,
            answered: overview.answered,
            dropped: sum(&overview.drops),
            passed: sum(&overview.passes),
            active: overview.connections.active,
            inactive: overview.connections.inactive,
            persistent: overview.connections.persistent,
        }
    }
}

/// The last samples, in bounded memory.
#[derive(Clone, Default)]
pub struct History(Arc<Mutex<VecDeque<Sample>>>);

impl History {
    /// The samples, the oldest first.
    pub fn samples(&self) -> Vec<Sample> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// Looks at the director now and then. Never ends.
    pub async fn keep(self, asker: Asker) {
        let mut looks = interval(EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            if let Ok(Answer::Overview(overview)) = asker.ask(Request::Overview).await {
                self.add(Sample::of(&overview, SystemTime::now()));
            }
        }
    }

    fn add(&self, sample: Sample) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() == KEPT {
            samples.pop_front();
        }
        samples.push_back(sample);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::http::sight::tests::example;

    #[test]
    fn the_last_ten_minutes_are_kept_and_no_more() {
        let history = History::default();
        let overview = example().overview;
        let samples = 3 * KEPT as u64;
        for n in 0..samples {
            history.add(Sample::of(&overview, SystemTime::UNIX_EPOCH + EVERY * n as u32));
        }
        let kept = history.samples();
        assert_eq!(kept.len(), KEPT);
        assert_eq!(kept.last().map(|sample| sample.time), Some(EVERY.as_secs() * (samples - 1)));
        assert_eq!(kept[1].time - kept[0].time, EVERY.as_secs());
        assert_eq!((kept[0].forwarded, kept[0].dropped, kept[0].inactive), (190, 9, 5));
    }
}
