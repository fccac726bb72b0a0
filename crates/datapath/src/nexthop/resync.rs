//! When to look at everything again.
//!
//! Notifications tell what changes, but some never come (the kernel removes the IPv4 routes of an interface
//! that goes down in silence, learns path MTUs in silence) and some get lost when the socket's buffer is full.
//! A full look heals all of that: dump the links, dump the neighbours, ask for every route again.

use std::time::{Duration, Instant};

/// From one full look to the next when nothing seems wrong.
const PERIOD: Duration = Duration::from_secs(30);
/// Between full looks at least, so that a flood of notifications cannot turn into a flood of dumps.
const GAP: Duration = Duration::from_secs(1);
/// A dump that is not over by then was lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// A kernel table that is read as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dump {
    /// The interfaces.
    Links,
    /// The IPv4 and IPv6 neighbours.
    Neighbours,
}

/// The full look that runs, and the time of the next one.
#[derive(Debug)]
pub(super) struct Resync {
    running: Option<Dump>,
    started: Option<Instant>,
    next: Instant,
    again: bool,
    live: bool,
}

impl Resync {
    pub(super) fn new(now: Instant) -> Self {
        Self { running: None, started: None, next: now, again: false, live: false }
    }

    /// Whether one full look is over: before that, no answer can be trusted.
    pub(super) fn is_live(&self) -> bool {
        self.live
    }

    /// Something was missed: look again soon.
    pub(super) fn distrust(&mut self, now: Instant) {
        self.again = true;
        if self.running.is_none() {
            self.next = self.next.min(self.earliest(now));
        }
    }

    /// Starts a full look if it is time; the first dump to ask for.
    pub(super) fn begin_due(&mut self, now: Instant) -> Option<Dump> {
        if now < self.deadline() {
            return None;
        }
        self.started = Some(now);
        self.again = false;
        self.running = Some(Dump::Links);
        self.running
    }

    /// A dump ended. Returns what follows, or `None` if this was not the one being waited for.
    pub(super) fn advance(&mut self, dump: Dump, complete: bool, now: Instant) -> Option<Next> {
        if self.running != Some(dump) {
            return None;
        }
        self.again |= !complete;
        if dump == Dump::Links {
            self.running = Some(Dump::Neighbours);
            return Some(Next::Dump(Dump::Neighbours));
        }
        self.running = None;
        self.next = if self.again { self.earliest(now) } else { now + PERIOD };
        self.live = true;
        Some(Next::AskRoutes)
    }

    /// When [`Resync::begin_due`] has something to do.
    pub(super) fn deadline(&self) -> Instant {
        match (self.running, self.started) {
            (Some(_), Some(started)) => started + PATIENCE,
            _ => self.next,
        }
    }

    fn earliest(&self, now: Instant) -> Instant {
        self.started.map_or(now, |started| now.max(started + GAP))
    }
}

/// What follows a dump.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Dump(Dump),
    AskRoutes,
}
