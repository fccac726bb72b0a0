//! What the daemon has done, in numbers.

use std::cell::Cell;
use std::time::Duration;

use crate::overview::WorkDone;

/// Counts; see the module.
#[derive(Default)]
pub struct Work(Cell<WorkDone>);

impl Work {
    /// Until now.
    pub fn done(&self) -> WorkDone {
        self.0.get()
    }

    /// A slice of a sweep took so long, removed so many connections, and may have been a sweep's last.
    pub fn swept(&self, took: Duration, removed: usize, finished: bool) {
        self.count(|done| {
            done.sweeps += u64::from(finished);
            done.swept += removed as u64;
            done.sweeping_us += took.as_micros() as u64;
        });
    }

    /// A check ended.
    pub fn checked(&self, succeeded: bool) {
        self.count(|done| *if succeeded { &mut done.checks_succeeded } else { &mut done.checks_failed } += 1);
    }

    /// An agent was asked.
    pub fn asked_agent(&self, answered: bool) {
        self.count(|done| *if answered { &mut done.agents_answered } else { &mut done.agents_silent } += 1);
    }

    fn count(&self, more: impl FnOnce(&mut WorkDone)) {
        let mut done = self.0.get();
        more(&mut done);
        self.0.set(done);
    }
}
