//! Recorded frames through the XDP program: a director in a namespace of its own, and a raw socket at either end.
//!
//! All fixtures of a run share one [`Site`] and one daemon. Between them the director is made as good as new.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::raw::Ends;
use super::site::{self, Site};
use super::{Command, Seen, Side, Stage, fixtures, from_hex, list};
use crate::director::Director;
use crate::play::read;

/// How long frames are waited for; the recorder's patience was the same.
const SOON: Duration = Duration::from_millis(25);

/// The same for what goes by way of the daemon: fragments, and packets that may have to be cut. A busy machine lets it wait.
const SOON_BY_THE_DAEMON: Duration = Duration::from_millis(100);

/// From so many bytes on a frame may be too long for a way.
const LONG: usize = 1300;

/// How long the daemon takes to hear of a change of links, addresses or routes.
const HEARD: Duration = Duration::from_millis(50);

/// Gives the connection table as many buckets as the kernel's has by default.
const AS_LARGE_AS_THE_KERNELS: [&str; 2] = ["--max-conns", "19660"];

/// Plays the fixtures of a file whose names are wanted, and prints one line of JSON for each: `name`, `steps`, `after`; or
/// `name` and `error` when it could not be played. Returns how many could not.
pub fn play(
    file: &Path,
    wanted: impl Fn(&str) -> bool,
    xlvs_bin: &Path,
    out: &mut dyn Write,
) -> Result<usize> {
    let mut all = fixtures(read(file)?).with_context(|| file.display().to_string())?;
    all.retain(|fixture| wanted(fixture["name"].as_str().unwrap_or_default()));
    play_all(&all, xlvs_bin, |line| {
        writeln!(out, "{line}")?;
        Ok(out.flush()?)
    })
}

/// Plays these fixtures, and hands over the line of each as soon as it is there. Returns how many could not be played.
pub fn play_all(
    fixtures: &[Value],
    xlvs_bin: &Path,
    mut done: impl FnMut(Value) -> Result<()>,
) -> Result<usize> {
    if fixtures.is_empty() {
        return Ok(0);
    }
    let site = Site::lay_out()?;
    let mut live = Live::set_up(&site, xlvs_bin)?;
    let mut failed = 0;
    for fixture in fixtures {
        let line = live.play(fixture).unwrap_or_else(|error| {
            failed += 1;
            json!({ "name": fixture["name"], "error": format!("{error:#}") })
        });
        done(line)?;
    }
    Ok(failed)
}

/// A director, and what the present fixture has changed in it.
struct Live<'a> {
    site: &'a Site,
    director: Director<'a>,
    ends: Ends,
    /// Tunables that were set, with what they were before.
    tuned: BTreeMap<String, String>,
    /// The words of rules of marks.
    marks: Vec<Vec<String>>,
    /// Links, addresses, routes or rules.
    is_rebuilt: bool,
    /// Nothing but a new daemon helps.
    is_spent: bool,
}

impl<'a> Live<'a> {
    fn set_up(site: &'a Site, xlvs_bin: &Path) -> Result<Self> {
        let mut director =
            Director::prepare_on(&site.director, &site::INTERFACES, site.directory(), xlvs_bin)?
                .with_options(&AS_LARGE_AS_THE_KERNELS);
        director.restart()?;
        let ends = Ends::open(site)?;
        let (tuned, marks) = (BTreeMap::new(), Vec::new());
        Ok(Live { site, director, ends, tuned, marks, is_rebuilt: false, is_spent: false })
    }

    fn play(&mut self, fixture: &Value) -> Result<Value> {
        self.is_spent |= leaves_more_than_can_be_taken_back(fixture);
        self.ends.forget()?;
        let outcome = super::play(fixture, self);
        // The next one finds nothing, whatever became of this one.
        self.freshen()?;
        outcome
    }

    fn freshen(&mut self) -> Result<()> {
        if self.is_rebuilt || self.is_spent {
            self.site.restore()?;
            self.is_rebuilt = false;
        }
        if self.is_spent || !self.is_emptied()? {
            self.director.renew()?;
            self.tuned.clear();
            self.marks.clear();
            self.is_spent = false;
        }
        Ok(())
    }

    /// Takes back what a fixture did. Of the connections of a removed server nothing is left with `expire_nodest_conn`.
    fn is_emptied(&mut self) -> Result<bool> {
        self.tune("net.ipv4.vs.expire_nodest_conn", 1)?;
        self.director.must("-C")?;
        for (name, before) in std::mem::take(&mut self.tuned) {
            self.command("tune", &[&format!("{name}={before}")])?;
        }
        for words in std::mem::take(&mut self.marks) {
            let words: Vec<&str> = ["delete"].into_iter().chain(words.iter().map(String::as_str)).collect();
            self.command("mark", &words)?;
        }
        Ok(super::lines(&self.director.must("-Lnc")?, super::HEAD_OF_CONNECTIONS).is_empty())
    }

    fn command(&self, word: &str, words: &[&str]) -> Result<()> {
        let reply = self.director.command(word, words)?;
        ensure!(reply.code == Some(0), "xlvs {word} {}: {}", words.join(" "), reply.err.trim_end());
        Ok(())
    }
}

/// What ways are said to take the daemon believes for minutes, and timeouts stay as they were set.
fn leaves_more_than_can_be_taken_back(fixture: &Value) -> bool {
    let is_setting =
        |line: &Value| line.as_str().is_some_and(|line| line.split_whitespace().any(|word| word == "--set"));
    let steps = list(fixture, "steps");
    let mut lines = list(fixture, "setup").iter().chain(steps.iter().map(|step| &step["run"]));
    lines.any(is_setting) || steps.iter().any(|step| step["at"] == "server" && says_too_big(step))
}

/// Is its frame an ICMP error that says what a way takes?
fn says_too_big(step: &Value) -> bool {
    let frame = step["hex"].as_str().and_then(|hex| from_hex(hex).ok()).unwrap_or_default();
    match frame.get(14).map(|first| (first >> 4, usize::from(first & 0xf) * 4)) {
        Some((4, header)) => {
            frame.get(23) == Some(&1) && frame.get(14 + header..16 + header) == Some(&[3, 4])
        }
        Some((6, _)) => frame.get(20) == Some(&58) && frame.get(54) == Some(&2),
        _ => false,
    }
}

fn goes_by_the_daemon(frame: &[u8]) -> bool {
    const MORE_OR_OFFSET: u8 = 0x3f;
    const FRAGMENT: u8 = 44;
    let is_fragment = match frame.get(14).map(|first| first >> 4) {
        Some(4) => frame.get(20..22).is_some_and(|field| field[0] & MORE_OR_OFFSET != 0 || field[1] != 0),
        Some(6) => frame.get(20) == Some(&FRAGMENT),
        _ => false,
    };
    is_fragment || frame.len() > LONG
}

impl Stage for Live<'_> {
    fn tune(&mut self, name: &str, value: u32) -> Result<()> {
        let shown = self.director.command("tune", &[name])?;
        let before = shown.out.trim_end().rsplit(" = ").next().unwrap_or_default().to_owned();
        self.command("tune", &[&format!("{name}={value}")])?;
        self.tuned.entry(name.to_owned()).or_insert(before);
        Ok(())
    }

    fn run(&mut self, command: &Command) -> Result<()> {
        match command {
            Command::Ipvsadm(words) => {
                let reply = self.director.ipvsadm(words)?;
                ensure!(reply.code == Some(0), "{}", reply.err.trim_end());
            }
            Command::Ip(words) => {
                self.is_rebuilt = true;
                match words.split_first() {
                    Some((&"-6", rest)) => self.site.director.ip6(&[rest.join(" ")])?,
                    _ => self.site.director.ip(&[words.join(" ")])?,
                }
                std::thread::sleep(HEARD);
            }
            Command::Mark { mark, is_v6, protocol, port } => {
                let (mark, port) = (mark.to_string(), port.to_string());
                let mut words = vec![mark.as_str(), "--port", &port, "--protocol", protocol];
                words.extend(is_v6.then_some("--ipv6"));
                self.command("mark", &[&["add"], &words[..]].concat())?;
                self.marks.push(words.into_iter().map(str::to_owned).collect());
            }
            Command::Nothing => {}
        }
        Ok(())
    }

    fn send(&mut self, side: Side, frame: &[u8]) -> Result<Vec<Seen>> {
        self.ends.send(side, frame)?;
        self.ends.seen_within(if goes_by_the_daemon(frame) { SOON_BY_THE_DAEMON } else { SOON })
    }

    fn wait(&mut self, time: Duration) -> Result<Vec<Seen>> {
        self.ends.seen_within(time)
    }

    fn list(&mut self, option: &str) -> Result<String> {
        self.director.must(option)
    }
}
