//! Points of time that outlive a daemon: it ends, and with it the clock that it reckons by; the machine goes on.

use std::time::{Duration, Instant};

/// One moment by two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// By the daemon's own.
    pub now: Instant,
    /// By one that goes on from daemon to daemon: how long ago the machine was booted.
    pub since_boot: Duration,
}

impl Moment {
    /// How a point of time is written down: in milliseconds since the machine was booted.
    pub fn written(&self, at: Instant) -> u64 {
        let earlier = self.now.saturating_duration_since(at);
        let later = at.saturating_duration_since(self.now);
        u64::try_from((self.since_boot + later).saturating_sub(earlier).as_millis()).unwrap_or(u64::MAX)
    }

    /// The point of time that was written down so. What is told to have been later than now has just been.
    pub fn read(&self, written: u64) -> Instant {
        let ago = self.since_boot.saturating_sub(Duration::from_millis(written));
        self.now.checked_sub(ago).unwrap_or(self.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn what_one_daemon_wrote_the_next_one_reads_by_its_own_clock() {
        let instant = Instant::now() + 100 * MINUTE;
        let first = Moment { now: instant, since_boot: 10 * MINUTE };
        let written = first.written(instant - 2 * MINUTE);
        // Three minutes later, by a clock that begins elsewhere.
        let next = Moment { now: instant + 40 * MINUTE, since_boot: 13 * MINUTE };
        assert_eq!(next.read(written), next.now - 5 * MINUTE);
    }

    #[test]
    fn nothing_is_in_the_future_and_nothing_before_time_began() {
        let moment = Moment { now: Instant::now(), since_boot: MINUTE };
        assert_eq!(moment.read(u64::MAX), moment.now);
        assert_eq!(moment.written(moment.now - MINUTE), 0);
    }
}
