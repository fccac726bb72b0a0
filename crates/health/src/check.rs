//! One check of a server: when it is made, and what its outcomes mean.
//!
//! A machine without sockets and clocks. It is told that time has passed and how probes ended, and says when to probe, when
//! to give a probe up, and when it has changed its mind. keepalived's rules hold: while a server is up, a failure is retried
//! before it counts; of a server that is not known yet the first outcome decides.

use std::time::{Duration, Instant};

use xlvs_model::watch::Timing;

/// What a check thinks of its server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Judgement {
    /// No outcome yet.
    #[default]
    Unknown,
    /// It is in order.
    Up,
    /// It is not.
    Down,
}

/// How a probe ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Success,
    /// As it should, but something will be wrong, in a few words.
    Warning(String),
    /// Otherwise, with the reason in a few words.
    Failure(String),
    /// It could not be made, and so says nothing about the server.
    NotMade(String),
}

/// What happens to a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// The probe of this number ended.
    Ended(u64, Outcome),
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Start a probe of this number.
    pub probe: Option<u64>,
    /// Give up the probe of this number; what it says later does not count.
    pub abandon: Option<u64>,
    /// The judgement is another now.
    pub judged: Option<Judgement>,
    /// The warning is another now, or there is none any more.
    pub rewarned: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Check {
    timing: Timing,
    chance: Chance,
    judgement: Judgement,
    reason: Option<String>,
    warning: Option<String>,
    /// Outcomes in a row that speak against the judgement.
    against: u32,
    /// Failures in a row that were not counted but retried.
    retried: u32,
    phase: Phase,
    probes: u64,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Until then nothing is done.
    Waiting(Instant),
    /// A probe runs since then.
    Probing(Instant),
}

/// Intervals are shortened by up to a tenth, so that checks that began together do not stay together.
const JITTER: u32 = 10;

impl Check {
    /// A check that begins with this judgement. Equal seeds behave equally, and number their probes equally.
    pub fn new(timing: Timing, judgement: Judgement, seed: u64, now: Instant) -> Self {
        let mut chance = Chance(seed);
        let first = now + chance.within(timing.warmup);
        // Probes of a check that was here before are not taken for this one's.
        let probes = chance.next() >> 1;
        Self {
            timing,
            chance,
            judgement,
            reason: None,
            warning: None,
            against: 0,
            retried: 0,
            phase: Phase::Waiting(first),
            probes,
        }
    }

    /// What it thinks of its server.
    pub fn judgement(&self) -> Judgement {
        self.judgement
    }

    /// Why the last probe failed, if it did.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// What will be wrong, as the last probe that succeeded has it.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// When it wants a [`Event::Tick`].
    pub fn wakes_at(&self) -> Instant {
        match self.phase {
            Phase::Waiting(due) => due,
            Phase::Probing(began) => began + self.timing.timeout,
        }
    }

    /// Something happened at this time.
    pub fn step(&mut self, event: Event, now: Instant) -> Effects {
        match (event, self.phase) {
            (Event::Tick, Phase::Waiting(due)) if now >= due => {
                self.phase = Phase::Probing(now);
                self.probes += 1;
                Effects { probe: Some(self.probes), ..Effects::default() }
            }
            (Event::Tick, Phase::Probing(began)) if now >= began + self.timing.timeout => {
                let judged = self.failed("no answer in time".to_owned(), began, now);
                Effects { abandon: Some(self.probes), judged, ..Effects::default() }
            }
            (Event::Ended(probe, outcome), Phase::Probing(began)) if probe == self.probes => {
                let (judged, rewarned) = match outcome {
                    Outcome::Success => (self.succeeded(began, now), self.warn(None)),
                    Outcome::Warning(of) => (self.succeeded(began, now), self.warn(Some(of))),
                    Outcome::Failure(why) => (self.failed(why, began, now), false),
                    Outcome::NotMade(why) => (self.learned_nothing(why, began, now), false),
                };
                Effects { judged, rewarned, ..Effects::default() }
            }
            _ => Effects::default(),
        }
    }

    fn succeeded(&mut self, began: Instant, now: Instant) -> Option<Judgement> {
        self.reason = None;
        self.retried = 0;
        self.wait_for_next(began, now);
        match self.judgement {
            Judgement::Up => {
                self.against = 0;
                None
            }
            Judgement::Unknown => self.judge(Judgement::Up),
            Judgement::Down => self.speaks_against(self.timing.rise, Judgement::Up),
        }
    }

    fn warn(&mut self, warning: Option<String>) -> bool {
        let is_news = self.warning != warning;
        self.warning = warning;
        is_news
    }

    fn failed(&mut self, why: String, began: Instant, now: Instant) -> Option<Judgement> {
        self.reason = Some(why);
        if self.judgement == Judgement::Up && self.retried < self.timing.retry {
            self.retried += 1;
            self.phase = Phase::Waiting(now + self.timing.delay_before_retry);
            return None;
        }
        self.retried = 0;
        self.wait_for_next(began, now);
        match self.judgement {
            Judgement::Down => {
                self.against = 0;
                None
            }
            Judgement::Unknown => self.judge(Judgement::Down),
            Judgement::Up => self.speaks_against(self.timing.fall, Judgement::Down),
        }
    }

    fn learned_nothing(&mut self, why: String, began: Instant, now: Instant) -> Option<Judgement> {
        self.reason = Some(why);
        self.wait_for_next(began, now);
        None
    }

    fn speaks_against(&mut self, enough: u32, other: Judgement) -> Option<Judgement> {
        self.against += 1;
        if self.against < enough { None } else { self.judge(other) }
    }

    fn judge(&mut self, judgement: Judgement) -> Option<Judgement> {
        self.against = 0;
        self.judgement = judgement;
        Some(judgement)
    }

    /// From the beginning of one check to that of the next; a slow one is followed by the next at once.
    fn wait_for_next(&mut self, began: Instant, now: Instant) {
        let jitter = self.chance.within(self.timing.interval / JITTER);
        self.phase = Phase::Waiting((began + self.timing.interval - jitter).max(now));
    }
}

/// A few random numbers, the same for the same seed (SplitMix64).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A time from zero to less than this one.
    pub(crate) fn within(&mut self, time: Duration) -> Duration {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(((u128::from(self.next()) * u128::from(nanos)) >> 64) as u64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIMING: Timing = Timing {
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        rise: 2,
        fall: 3,
        retry: 0,
        delay_before_retry: Duration::from_secs(1),
        warmup: Duration::from_secs(2),
    };

    /// A check and a clock that only the test moves.
    struct Site {
        check: Check,
        now: Instant,
    }

    impl Site {
        fn new(timing: Timing, judgement: Judgement) -> Self {
            let now = Instant::now();
            Self { check: Check::new(timing, judgement, 7, now), now }
        }

        /// Waits for the next probe; returns it and how long that took.
        fn probe(&mut self) -> (u64, Duration) {
            let waited = self.check.wakes_at().saturating_duration_since(self.now);
            self.now += waited;
            let effects = self.check.step(Event::Tick, self.now);
            (effects.probe.expect("a probe is due"), waited)
        }

        /// The next probe ends so, at once. Returns the new judgement, if there is one.
        fn next(&mut self, succeeds: bool) -> Option<Judgement> {
            let (probe, _) = self.probe();
            let failure = || Outcome::Failure("refused".to_owned());
            let outcome = if succeeds { Outcome::Success } else { failure() };
            self.check.step(Event::Ended(probe, outcome), self.now).judged
        }
    }

    #[test]
    fn the_first_outcome_decides_about_a_server_that_is_not_known() {
        assert_eq!(Site::new(TIMING, Judgement::Unknown).next(true), Some(Judgement::Up));
        assert_eq!(Site::new(TIMING, Judgement::Unknown).next(false), Some(Judgement::Down));
    }

    #[test]
    fn it_takes_fall_failures_in_a_row_to_be_down_and_rise_successes_to_be_up() {
        let mut site = Site::new(TIMING, Judgement::Up);
        let outcomes = [false, false, true, false, false, false, false, true, false, true, true, true];
        let judged: Vec<_> = outcomes.into_iter().map(|outcome| site.next(outcome)).collect();
        let changes = judged.iter().enumerate().filter_map(|(at, judged)| Some((at, (*judged)?)));
        assert_eq!(changes.collect::<Vec<_>>(), [(5, Judgement::Down), (10, Judgement::Up)]);
    }

    #[test]
    fn failures_are_retried_before_they_count() {
        let timing = Timing { retry: 2, fall: 1, ..TIMING };
        let mut site = Site::new(timing, Judgement::Up);
        assert_eq!(site.next(false), None);
        for _ in 0..2 {
            assert_eq!(site.check.wakes_at() - site.now, timing.delay_before_retry);
            assert_eq!(site.check.judgement(), Judgement::Up);
            let last = site.next(false);
            assert_eq!(last.is_some(), site.check.judgement() == Judgement::Down);
        }
        assert_eq!(site.check.judgement(), Judgement::Down);
        // While it is down nothing is retried: keepalived's delay_loop goes on.
        site.next(false);
        assert!(site.check.wakes_at() - site.now > timing.delay_before_retry);
    }

    #[test]
    fn a_success_among_retries_clears_them() {
        let mut site = Site::new(Timing { retry: 1, fall: 1, ..TIMING }, Judgement::Up);
        for outcome in [false, true, false, true] {
            assert_eq!(site.next(outcome), None);
        }
    }

    #[test]
    fn a_probe_that_takes_too_long_has_failed_and_its_late_word_does_not_count() {
        let mut site = Site::new(Timing { fall: 1, ..TIMING }, Judgement::Up);
        let (probe, _) = site.probe();
        assert_eq!(site.check.step(Event::Tick, site.now + TIMING.timeout / 2), Effects::default());
        site.now += TIMING.timeout;
        let effects = site.check.step(Event::Tick, site.now);
        assert_eq!((effects.abandon, effects.judged), (Some(probe), Some(Judgement::Down)));
        assert_eq!(site.check.reason(), Some("no answer in time"));
        assert_eq!(site.check.step(Event::Ended(probe, Outcome::Success), site.now), Effects::default());
        let (next, _) = site.probe();
        assert_eq!(site.check.step(Event::Ended(probe, Outcome::Success), site.now), Effects::default());
        assert!(next > probe);
    }

    #[test]
    fn a_probe_that_could_not_be_made_says_nothing_about_the_server() {
        for judgement in [Judgement::Unknown, Judgement::Up, Judgement::Down] {
            let mut site = Site::new(Timing { fall: 1, rise: 1, ..TIMING }, judgement);
            let (probe, _) = site.probe();
            let not_made = Outcome::NotMade("too many open files".to_owned());
            assert_eq!(site.check.step(Event::Ended(probe, not_made), site.now), Effects::default());
            assert_eq!(
                (site.check.judgement(), site.check.reason()),
                (judgement, Some("too many open files"))
            );
            site.probe();
        }
    }

    #[test]
    fn a_warning_is_a_success_and_is_news_once() {
        let mut site = Site::new(TIMING, Judgement::Unknown);
        let mut ends = |outcome: Outcome| {
            let (probe, _) = site.probe();
            let effects = site.check.step(Event::Ended(probe, outcome), site.now);
            (effects.judged, effects.rewarned, site.check.warning().map(str::to_owned))
        };
        let late = || Some("it is late".to_owned());
        let warning = || Outcome::Warning("it is late".to_owned());
        assert_eq!(ends(warning()), (Some(Judgement::Up), true, late()));
        assert_eq!(ends(warning()), (None, false, late()));
        assert_eq!(ends(Outcome::Failure("refused".to_owned())), (None, false, late()));
        assert_eq!(ends(Outcome::Success), (None, true, None));
        assert_eq!(ends(Outcome::Success), (None, false, None));
    }

    #[test]
    fn checks_that_begin_together_do_not_beat_together() {
        let now = Instant::now();
        let due = |seed| Check::new(TIMING, Judgement::Up, seed, now).wakes_at() - now;
        let times: Vec<Duration> = (0..100).map(due).collect();
        let early = times.iter().filter(|time| **time < TIMING.warmup / 2).count();
        assert!(times.iter().all(|time| *time < TIMING.warmup) && (30..70).contains(&early), "{times:?}");
    }

    proptest! {
        #[test]
        fn a_check_is_always_on_its_way_and_keeps_its_interval(
            seed: u64,
            steps in proptest::collection::vec((0..4_u8, 0..3000_u64), 1..80),
        ) {
            let timing = Timing { retry: 1, ..TIMING };
            let mut now = Instant::now();
            let mut check = Check::new(timing, Judgement::Unknown, seed, now);
            let mut running = None;
            for (what, ms) in steps {
                now += Duration::from_millis(ms);
                let event = match (what, running) {
                    (0, Some(probe)) => Event::Ended(probe, Outcome::Success),
                    (1, Some(probe)) => Event::Ended(probe, Outcome::Failure("no".to_owned())),
                    (2, _) => Event::Ended(0, Outcome::Success),
                    _ => Event::Tick,
                };
                let ended = matches!(event, Event::Ended(probe, _) if Some(probe) == running);
                let effects = check.step(event, now);
                prop_assert!(effects.probe.is_none() || running.is_none(), "one probe at a time");
                if ended || effects.abandon.is_some() {
                    running = None;
                }
                running = effects.probe.or(running);
                // It never sleeps longer than an interval.
                prop_assert!(check.wakes_at() <= now + timing.interval.max(timing.timeout));
                if effects.judged.is_some() {
                    prop_assert_eq!(effects.judged, Some(check.judgement()));
                }
            }
        }
    }
}
