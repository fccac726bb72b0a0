//! What the tests with a director share.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod arp;
pub mod browser;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use xlvs_lab::client::ask_again;
use xlvs_lab::{Director, Lab, Layout};

/// The forwarding methods.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    Nat,
    Dr,
    Tun,
}

impl Method {
    pub fn flag(self) -> &'static str {
        match self {
            Method::Nat => "-m",
            Method::Dr => "-g",
            Method::Tun => "-i",
        }
    }
}

/// A lab and its director; the director goes first.
pub fn with_director(
    layout: Layout,
    servers: u8,
    test: impl FnOnce(&Lab, &mut Director) -> Result<()>,
) -> Result<()> {
    let lab = Lab::lay_out(layout, servers)?;
    directed(&lab, test)
}

/// The same with the director at each hook, in a lab of its own each time.
pub fn with_director_at_each_hook(
    layout: Layout,
    servers: u8,
    test: impl Fn(&Lab, &mut Director) -> Result<()>,
) -> Result<()> {
    for hook in ["xdp", "tc"] {
        let lab = Lab::lay_out(layout, servers)?;
        let director = Director::prepare(&lab, &xlvs_lab::director::binary()?)?;
        directed_by(director.with_options(&["--hook", hook]), &lab, &test)
            .with_context(|| format!("at the {hook} hook"))?;
    }
    Ok(())
}

/// Runs the daemon in a lab for the time of a test, and compares table and counters at its end.
pub fn directed(lab: &Lab, test: impl FnOnce(&Lab, &mut Director) -> Result<()>) -> Result<()> {
    directed_by(Director::prepare(lab, &xlvs_lab::director::binary()?)?, lab, test)
}

/// The same with a director whose daemon does not run yet.
pub fn directed_by(
    mut director: Director<'_>,
    lab: &Lab,
    test: impl FnOnce(&Lab, &mut Director) -> Result<()>,
) -> Result<()> {
    director.restart()?;
    tried(director, lab, test)
}

/// The same with a daemon that a file rules (`xlvs.toml`).
pub fn ruled_by(lab: &Lab, file: &Path, test: impl FnOnce(&Lab, &mut Director) -> Result<()>) -> Result<()> {
    tried(Director::ruled_by(lab, &xlvs_lab::director::binary()?, file)?, lab, test)
}

fn tried(
    mut director: Director<'_>,
    lab: &Lab,
    test: impl FnOnce(&Lab, &mut Director) -> Result<()>,
) -> Result<()> {
    let outcome = test(lab, &mut director).and_then(|()| director.check());
    outcome.with_context(|| format!("the daemon's log:\n{}", director.log()))
}

/// Makes a TCP or UDP service (`-t`, `-u`) of these servers: (index, method, weight).
pub fn serve(
    lab: &Lab,
    director: &Director,
    (kind, at): (&str, SocketAddr),
    scheduler: &str,
    servers: &[(usize, Method, u32)],
) -> Result<()> {
    director.must(&format!("-A {kind} {at} -s {scheduler}"))?;
    servers.iter().try_for_each(|server| add(lab, director, (kind, at), *server))
}

/// Adds one server to a service, at the service's own port.
pub fn add(
    lab: &Lab,
    director: &Director,
    (kind, at): (&str, SocketAddr),
    server: (usize, Method, u32),
) -> Result<()> {
    let (index, method, weight) = server;
    let address = SocketAddr::new(lab.servers[index].address.into(), at.port());
    director.must(&format!("-a {kind} {at} -r {address} {} -w {weight}", method.flag())).map(drop)
}

/// All servers of a lab by one method, with the same weight.
pub fn all(lab: &Lab, method: Method) -> Vec<(usize, Method, u32)> {
    (0..lab.servers.len()).map(|index| (index, method, 1)).collect()
}

/// How often each name occurs.
pub fn spread(names: &[String]) -> BTreeMap<String, usize> {
    names.iter().fold(BTreeMap::new(), |mut spread, name| {
        *spread.entry(name.clone()).or_default() += 1;
        spread
    })
}

/// Every one of these names occurs as often as it should, or at most `slack` more or less.
pub fn ensure_spread(
    spread: &BTreeMap<String, usize>,
    expected: &[(&str, usize)],
    slack: usize,
) -> Result<()> {
    ensure!(spread.len() == expected.len(), "answers came from {spread:?}, not from {expected:?}");
    for (name, count) in expected {
        let seen = spread.get(*name).copied().unwrap_or(0);
        ensure!(seen.abs_diff(*count) <= slack, "{name} answered {seen} times, not {count}: {spread:?}");
    }
    Ok(())
}

/// Active and inactive connections of each server in `ipvsadm -Ln`, by the order of its lines.
pub fn counts(listing: &str) -> Vec<(String, u32, u32)> {
    let lines = listing.lines().filter_map(|line| line.trim_start().strip_prefix("-> "));
    lines.filter_map(server_line).collect()
}

// 10.1.0.11:80                Masq    1      3          2
fn server_line(line: &str) -> Option<(String, u32, u32)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [address, _method, _weight, active, inactive] = words[..] else { return None };
    Some((address.to_owned(), active.parse().ok()?, inactive.parse().ok()?))
}

/// What is pinned below a directory. The kernel puts some `.debug` files of its own into a bpffs.
pub fn pins(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(pins(&entry.path())?);
        } else if entry.path().extension().is_none_or(|extension| extension != "debug") {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Waits until something holds, but not for long.
pub fn eventually(what: &str, holds: impl FnMut() -> Result<bool>) -> Result<()> {
    within(Duration::from_secs(10), what, holds)
}

/// Waits so long until something holds.
pub fn within(patience: Duration, what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + patience;
    while !holds()? {
        ensure!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Short connections without a pause, none of which may fail, while something else is done.
pub fn under_load(lab: &Lab, at: SocketAddr, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| -> Result<usize> {
            let mut asked = 0;
            while !done.load(Ordering::Relaxed) {
                asked += lab.client().ask_times(at, 20)?.len();
            }
            Ok(asked)
        });
        let outcome = act();
        done.store(true, Ordering::Relaxed);
        let asked = load
            .join()
            .map_err(|_| anyhow::anyhow!("the load panicked"))?
            .context("a short connection failed")?;
        ensure!(asked > 100, "only {asked} short connections: that was no load");
        outcome
    })
}

/// A connection that stays open, and who is at its other end.
pub type Held = (TcpStream, String);

pub fn hold(lab: &Lab, at: SocketAddr, count: usize) -> Result<Vec<Held>> {
    let one = |_| {
        let mut stream = lab.client().connect_to(at)?;
        let name = ask_again(&mut stream)?;
        Ok((stream, name))
    };
    (0..count).map(one).collect()
}

pub fn still_there(held: &mut [Held]) -> Result<()> {
    for (stream, name) in held {
        let now = ask_again(stream).with_context(|| format!("a connection to {name} was disturbed"))?;
        ensure!(now == *name, "a connection to {name} now reaches {now}");
    }
    Ok(())
}
