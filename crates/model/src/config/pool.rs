//! How a service's servers are looked after.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::check::{self, Named};
use super::entry::Entry;
use super::section::Layers;
use crate::spec::{ServerSpec, ServiceKey};
use crate::watch::{Command, OnFailure, Pool, Watch};

/// The greatest quorum.
const MAX_QUORUM: u32 = i32::MAX as u32;

/// Half-lives of failures; 0: they are not counted.
const DAMPING: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(86_400);

/// What is said of the service as a whole.
pub(super) fn read(layers: &Layers<'_>) -> Pool {
    let number = |key, range| layers.get(key).and_then(|entry: Entry<'_>| entry.number(range));
    let quorum = number("quorum", 1..=MAX_QUORUM).unwrap_or(1);
    let hysteresis = number("hysteresis", 0..=MAX_QUORUM).unwrap_or(0);
    if let Some(entry) = layers.get("hysteresis").filter(|_| hysteresis >= quorum && hysteresis != 0) {
        entry.wrong(format!(
            "`hysteresis` must be less than `quorum`, and {hysteresis} is not less than {quorum}"
        ));
    }
    Pool {
        quorum,
        hysteresis,
        panic: number("panic", 0..=100).unwrap_or(0),
        quorum_up: layers.get("quorum_up").and_then(|entry| command(&entry)),
        quorum_down: layers.get("quorum_down").and_then(|entry| command(&entry)),
        ..Pool::default()
    }
}

/// What is said of the servers of a service that has none must be right too.
pub(super) fn check_unused(layers: &Layers<'_>, named: &Named<'_>) {
    if let Some(entry) = layers.get("check") {
        named.check_unused(&entry);
    }
    if let Some(entry) = layers.get("agent") {
        drop(named.agent(&entry));
    }
    let flags = ["alpha", "inhibit_on_failure"].iter().filter_map(|key| layers.get(key));
    flags.for_each(|entry| _ = entry.flag());
    layers.get("on_failure").iter().for_each(|entry| _ = on_failure(entry));
    layers.get("damping").iter().for_each(|entry| _ = entry.duration(DAMPING));
    let commands = ["notify_up", "notify_down"].iter().filter_map(|key| layers.get(key));
    commands.for_each(|entry| _ = command(&entry));
}

/// What is said of one server.
pub(super) fn watch(
    layers: &Layers<'_>,
    at: &Entry<'_>,
    service: ServiceKey,
    server: &ServerSpec,
    named: &Named<'_>,
) -> Watch {
    let checks =
        layers.get("check").map(|entry| named.checks(&entry, at, service, server)).unwrap_or_default();
    let agent = layers.get("agent").and_then(|entry| named.agent(&entry));
    // Of a server that nobody asks about, these say nothing.
    let watched = !checks.is_empty() || agent.is_some();
    let flag = |key: &str, needs: &str, useful: bool| {
        let Some(entry) = layers.get(key) else { return false };
        let on = entry.flag().unwrap_or(false);
        useless(layers, &entry, on && !useful, needs);
        on && useful
    };
    let alpha = flag("alpha", "a `check`", !checks.is_empty());
    let inhibit_on_failure = flag("inhibit_on_failure", "a `check` or an `agent`", watched);
    let on_failure = layers.get("on_failure").and_then(|entry| {
        useless(layers, &entry, !watched, "a `check` or an `agent`");
        on_failure(&entry).filter(|_| watched)
    });
    let damping = layers.get("damping").and_then(|entry| {
        let half_life = entry.duration(DAMPING).filter(|half_life| !half_life.is_zero())?;
        useless(layers, &entry, checks.is_empty(), "a `check`");
        Some(half_life).filter(|_| !checks.is_empty())
    });
    let notify = |key: &str| {
        let entry = layers.get(key)?;
        let command = command(&entry);
        useless(layers, &entry, !watched, "a `check` or an `agent`");
        command.filter(|_| watched)
    };
    let (notify_up, notify_down) = (notify("notify_up"), notify("notify_down"));
    Watch {
        checks,
        agent,
        alpha,
        inhibit_on_failure,
        on_failure: on_failure.unwrap_or_default(),
        damping,
        notify_up,
        notify_down,
    }
}

fn on_failure(entry: &Entry<'_>) -> Option<OnFailure> {
    entry.word("fate of connections", &OnFailure::ALL)
}

/// Something that is said of this service or server, and has nothing that it could be about.
fn useless(layers: &Layers<'_>, entry: &Entry<'_>, is: bool, needs: &str) {
    let is_nothing_said = check::is_said_not_to_be(layers);
    if is && !is_nothing_said && layers.get_here(entry.key).is_some() {
        entry.misplaced(format!("`{}` does nothing without {needs}", entry.key));
    }
}

/// A program with its arguments, or a line for the shell.
pub(super) fn command(entry: &Entry<'_>) -> Option<Command> {
    let words = entry.items();
    let what = "a command: a line for the shell, or a list of a program and its arguments";
    let words: Option<Vec<String>> = words.iter().map(|word| Some(word.string(what)?.to_owned())).collect();
    let words = words?;
    if words.first().is_none_or(String::is_empty) {
        entry.wrong(format!("`{}` is {what}; it is empty", entry.key));
        return None;
    }
    if entry.value.get_ref().is_array() {
        return Some(words);
    }
    Some(["/bin/sh", "-c"].map(str::to_owned).into_iter().chain(words).collect())
}
