//! Damping of servers that flap, as RFC 2439 has it for routes.
//!
//! Each time that a server breaks counts a point, and points halve with every half-life. With more than two the server is held
//! out, though its checks succeed, until three quarters of a point are left.

use std::time::{Duration, Instant};

/// A point, in the thousandths that are counted.
const POINT: u32 = 1000;
/// RFC 2439: the cutoff threshold.
const HELD_ABOVE: u32 = 2 * POINT;
/// RFC 2439: the reuse threshold.
const FREE_BELOW: u32 = POINT * 3 / 4;
/// Never more than this, so that nobody is held for more than four half-lives after it broke last.
const MOST: u32 = FREE_BELOW << 4;

/// How often a server broke lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flaps {
    /// Points, in thousandths, as of then.
    points: Option<(u32, Instant)>,
    is_held: bool,
}

impl Flaps {
    /// A server that is held since it broke with so many thousandths of a point, as an earlier daemon knew.
    pub fn held_with(points: u32, since: Instant) -> Self {
        Self { points: Some((points.min(MOST), since)), is_held: true }
    }

    /// The thousandths of a point that it had when it broke last, and when that was, if it is held.
    pub fn of_held(&self) -> Option<(u32, Instant)> {
        self.points.filter(|_| self.is_held)
    }

    /// Is the server held out?
    pub fn is_held(&self) -> bool {
        self.is_held
    }

    /// The server broke.
    pub fn broke(&mut self, half_life: Duration, now: Instant) {
        let points = (self.left(half_life, now) + POINT).min(MOST);
        self.points = Some((points, now));
        self.is_held |= points > HELD_ABOVE;
    }

    /// When the server is held no more.
    pub fn free_at(&self, half_life: Duration) -> Option<Instant> {
        let (points, since) = self.points.filter(|_| self.is_held)?;
        let half_lives = (f64::from(points) / f64::from(FREE_BELOW)).log2().max(0.0);
        Some(since + half_life.mul_f64(half_lives))
    }

    /// Lets the server go when it is time. Returns whether that is now.
    pub fn let_go(&mut self, half_life: Duration, now: Instant) -> bool {
        let is_time = self.free_at(half_life).is_some_and(|at| at <= now);
        self.is_held &= !is_time;
        is_time
    }

    /// Points that are left, in thousandths.
    fn left(&self, half_life: Duration, now: Instant) -> u32 {
        let Some((points, since)) = self.points else { return 0 };
        let half_lives = now.saturating_duration_since(since).as_secs_f64() / half_life.as_secs_f64();
        (f64::from(points) * 0.5_f64.powf(half_lives)) as u32
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// Breaks at these seconds; returns what is known then, and the beginning.
    fn broken_at(seconds: &[u64]) -> (Flaps, Instant) {
        let began = Instant::now();
        let mut flaps = Flaps::default();
        seconds.iter().for_each(|at| flaps.broke(MINUTE, began + Duration::from_secs(*at)));
        (flaps, began)
    }

    #[test]
    fn a_third_failure_soon_after_the_second_holds_a_server_for_two_half_lives() {
        assert!(!broken_at(&[0, 0]).0.is_held());
        let (mut flaps, began) = broken_at(&[0, 0, 0]);
        assert!(flaps.is_held());
        let free_at = flaps.free_at(MINUTE).expect("it is held");
        assert_eq!(free_at, began + 2 * MINUTE, "of three points three quarters are left");
        assert!(!flaps.let_go(MINUTE, free_at - Duration::from_millis(1)) && flaps.is_held());
        assert!(flaps.let_go(MINUTE, free_at) && !flaps.is_held());
        assert!(!flaps.let_go(MINUTE, free_at), "once");
    }

    #[test]
    fn failures_far_from_each_other_hold_nobody() {
        // 1, 1.5, 1.75, 1.875 …: less than two, however long it goes on.
        let every_minute: Vec<u64> = (0..100).map(|n| n * 60).collect();
        assert!(!broken_at(&every_minute).0.is_held());
    }

    #[test]
    fn who_goes_on_failing_is_held_on_but_never_for_more_than_four_half_lives() {
        let (few, _) = broken_at(&[0, 1, 2]);
        let (more, _) = broken_at(&[0, 1, 2, 30, 40]);
        assert!(more.free_at(MINUTE) > few.free_at(MINUTE));
        let (most, began) = broken_at(&[0; 1000]);
        assert!(most.free_at(MINUTE) <= Some(began + 4 * MINUTE));
    }

    #[test]
    fn the_next_daemon_holds_whom_the_one_before_held() {
        let (flaps, began) = broken_at(&[0, 0, 0]);
        let (points, since) = flaps.of_held().expect("it is held");
        assert_eq!(Flaps::held_with(points, since).free_at(MINUTE), Some(began + 2 * MINUTE));
        assert_eq!(broken_at(&[0]).0.of_held(), None);
    }

    proptest! {
        #[test]
        fn everybody_is_let_go_in_the_end(
            half_life in 1..100_000_u64,
            waits in proptest::collection::vec(0..1_000_000_u64, 0..40),
        ) {
            let half_life = Duration::from_millis(half_life);
            let mut now = Instant::now();
            let mut flaps = Flaps::default();
            for wait in waits {
                now += Duration::from_millis(wait);
                flaps.let_go(half_life, now);
                flaps.broke(half_life, now);
                prop_assert_eq!(flaps.free_at(half_life).is_some(), flaps.is_held());
                prop_assert!(flaps.free_at(half_life).is_none_or(|at| at > now && at <= now + 4 * half_life));
            }
            let was_held = flaps.is_held();
            prop_assert_eq!(flaps.let_go(half_life, now + 4 * half_life), was_held);
            prop_assert!(!flaps.is_held());
        }
    }
}
