//! Plays recorded cases with real sockets through a running director.
//!
//! A case says what was done with a kernel's IPVS: `ipvsadm` lines, then steps (connections opened
//! and closed, datagrams, listings). We do the same and say what we saw: which server got each
//! connection, and the listings. Who compares is not our concern.

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

use crate::asked;
use crate::director::Director;
use crate::layout::Layout;
use crate::topology::Lab;

use scene::Scene;

mod scene;

/// Nearly all recorded cases speak of four real servers.
const SERVERS: u8 = 4;

/// An hour: longer than any timeout that a case could wait for.
const LONGEST_SLEEP_S: f64 = 3600.0;

/// Gives the connection table as many buckets as the kernel's has by default, so that listings begin alike.
const AS_LARGE_AS_THE_KERNELS: [&str; 2] = ["--max-conns", "19660"];

/// Plays the cases of a file whose names are wanted, and prints one line of JSON for each: `name`,
/// `sequence`, `snaps`, `after`; or `name` and `error` when it could not be played. Returns how many could not.
pub fn play(
    file: &Path,
    wanted: impl Fn(&str) -> bool,
    xlvs_bin: &Path,
    out: &mut dyn Write,
) -> Result<usize> {
    let mut cases = cases(read(file)?).with_context(|| format!("{}", file.display()))?;
    cases.retain(|case| wanted(text(case, "name")));
    if cases.is_empty() {
        return Ok(0);
    }
    let lab = Lab::lay_out_by(xlvs_bin, Layout::TwoNetwork, servers(&cases)?)?;
    let mut stage = Stage::set_up(&lab, xlvs_bin)?;
    let mut failed = 0;
    for case in &cases {
        let line = stage.play(case).unwrap_or_else(|error| {
            failed += 1;
            json!({ "name": case["name"], "error": format!("{error:#}") })
        });
        writeln!(out, "{line}")?;
        out.flush()?;
    }
    Ok(failed)
}

fn servers(cases: &[Value]) -> Result<u8> {
    let told =
        |case: &Value| case["servers"].as_u64().unwrap_or_default().max(list(case, "weights").len() as u64);
    let most = cases.iter().map(told).max().unwrap_or_default();
    Ok(u8::try_from(most).context("the lab has room for 240 servers")?.max(SERVERS))
}

/// What a file of recordings holds.
pub fn read(file: &Path) -> Result<Value> {
    let bytes = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    serde_json::from_str(&bytes).with_context(|| format!("{} is no JSON", file.display()))
}

/// The cases of a file: one, a list of them, or an object with a list; recorded ones, or such as one asks a kernel.
///
/// # Errors
/// What should be a list is none.
pub fn cases(mut file: Value) -> Result<Vec<Value>> {
    let mut cases = match file.get_mut("cases").map(Value::take) {
        Some(Value::Array(cases)) => cases,
        Some(_) => anyhow::bail!("`cases` is no list"),
        None => match file {
            Value::Array(cases) => cases,
            case => vec![case],
        },
    };
    asked::recorded_form(&mut cases);
    Ok(cases)
}

/// A director, and what earlier cases did with it.
struct Stage<'a> {
    lab: &'a Lab,
    director: Director<'a>,
    /// What lingers in the tables when services are gone: entries of these.
    used: HashSet<String>,
}

impl<'a> Stage<'a> {
    fn set_up(lab: &'a Lab, xlvs_bin: &Path) -> Result<Stage<'a>> {
        lab.introduce_clients()?;
        let mut director = Director::prepare(lab, xlvs_bin)?.with_options(&AS_LARGE_AS_THE_KERNELS);
        director.restart()?;
        Ok(Stage { lab, director, used: HashSet::new() })
    }

    fn play(&mut self, case: &Value) -> Result<Value> {
        self.freshen(case)?;
        let outcome = tune(&self.director, case)
            .and_then(|()| mark(&self.director, case))
            .and_then(|()| play_steps(self.lab, &self.director, case));
        // The next case finds no service, whatever became of this one.
        self.director.must("-C")?;
        outcome
    }

    /// Makes the director as good as new. `-C` leaves connections, removed servers and settings: where the case could
    /// see something of an earlier one, the director is made anew, which takes a second.
    fn freshen(&mut self, case: &Value) -> Result<()> {
        let mut seen = vec![format!("port {}", case["vport"])];
        if !case["fwmark"].is_null() {
            seen.push(format!("mark {}", case["fwmark"]));
        }
        if seen.iter().any(|what| self.used.contains(what)) || self.used.contains(SETTINGS) {
            self.director.renew()?;
            self.used.clear();
        }
        self.used.extend(seen);
        if changes_settings(case) {
            self.used.insert(SETTINGS.to_owned());
        }
        Ok(())
    }
}

/// Stands for whatever is set for the whole director.
const SETTINGS: &str = "settings";

/// Does a case more than make, change and remove services and servers?
fn changes_settings(case: &Value) -> bool {
    let global = |line: &Value| {
        let mut words = text(line, "cmd").split_whitespace();
        line["op"] == "sh" || words.any(|word| word == "--set" || word.contains("-daemon"))
    };
    let tunes = case["sysctls"].as_object().is_some_and(|all| !all.is_empty());
    let marks = !case["fwmark"].is_null();
    tunes || marks || list(case, "setup").iter().chain(list(case, "steps")).any(global)
}

/// Sets the director's tunables as the case has them.
fn tune(director: &Director, case: &Value) -> Result<()> {
    for (name, value) in case["sysctls"].as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let reply = director.command("tune", &[&format!("{name}={value}")])?;
        ensure!(reply.code == Some(0), "{name} cannot be set to {value}: {}", reply.err.trim_end());
    }
    Ok(())
}

/// Marks packets as the case has it: those to its port, whatever their address.
fn mark(director: &Director, case: &Value) -> Result<()> {
    let Some(mark) = case["fwmark"].as_u64() else { return Ok(()) };
    let (mark, port) = (mark.to_string(), case["vport"].to_string());
    let mut words = vec!["add", &mark, "--port", &port, "--protocol", text(case, "proto")];
    if case["ipv6"] == true {
        words.push("--ipv6");
    }
    let reply = director.command("mark", &words)?;
    ensure!(reply.code == Some(0), "packets cannot be marked: {}", reply.err.trim_end());
    Ok(())
}

fn play_steps(lab: &Lab, director: &Director, case: &Value) -> Result<Value> {
    let mut scene = Scene::new(lab, case)?;
    // Lines that failed in the recording must be tried too: they may have done something.
    for line in list(case, "setup") {
        command(director, line)?;
    }
    let (mut sequence, mut snaps) = (Vec::new(), Vec::new());
    for step in list(case, "steps") {
        match text(step, "op") {
            "open" => sequence.push(scene.open(step)?),
            "short" => sequence.push(scene.short(step)?),
            "dgram" => sequence.push(scene.datagram(index(step, "conn")?)?),
            "close" => scene.close(index(step, "closed")?),
            "rst" => scene.reset(index(step, "closed")?)?,
            "adm" => command(director, step)?,
            "snap" => snaps.push(listings(director, step, scene.port())?),
            "sleep" => std::thread::sleep(Duration::from_secs_f64(
                step["s"].as_f64().unwrap_or(0.0).clamp(0.0, LONGEST_SLEEP_S),
            )),
            "sh" => drop(director.shell(text(step, "cmd"))?),
            other => anyhow::bail!("the step {other:?} cannot be played"),
        }
    }
    let after = listings(director, &case["after"], scene.port())?;
    Ok(json!({ "name": case["name"], "sequence": sequence.join(" "), "snaps": snaps, "after": after }))
}

/// Runs a recorded command. One that went well for the kernel must go well here, or the rest means nothing.
fn command(director: &Director, recorded: &Value) -> Result<()> {
    let line = text(recorded, "cmd");
    let reply = director.ipvsadm(&line.split_whitespace().skip(1).collect::<Vec<_>>())?;
    ensure!(reply.code == Some(0) || recorded["rc"] != 0, "{line}: {}", reply.err.trim_end());
    Ok(())
}

/// The same listings as in a recorded step or at a case's end, by their names there.
fn listings(director: &Director, recorded: &Value, port: u16) -> Result<Value> {
    let names = recorded.as_object().into_iter().flat_map(Map::keys).filter(|name| *name != "op");
    let mut listings = Map::new();
    for name in names {
        let words = words_of(name).with_context(|| format!("no listing is called {name:?}"))?;
        let reply = director.ipvsadm(&words.split(' ').collect::<Vec<_>>())?;
        let mut listing = if name == "conn" { connections_of(&reply.out, port) } else { reply.out };
        if !reply.err.is_empty() {
            // As the recordings have it.
            listing += &format!("STDERR {}", reply.err);
        }
        listings.insert(name.clone(), listing.into());
    }
    Ok(Value::Object(listings))
}

/// The words that print a listing, by its name in a recorded case.
pub fn words_of(listing: &str) -> Option<&'static str> {
    Some(match listing {
        "Ln" => "-Ln",
        "stats" => "-Ln --stats",
        "rate" => "-Ln --rate",
        "conn" => "-Lnc",
        "save" => "-Sn",
        "thresholds" => "-Ln --thresholds",
        "persistent_conn" => "-Ln --persistent-conn",
        "stats_exact" => "-Ln --stats --exact",
        "rate_exact" => "-Ln --rate --exact",
        "timeout" => "-L --timeout",
        "daemon" => "-L --daemon",
        "tun_info" => "-Ln --tun-info",
        _ => return None,
    })
}

/// Of a listing of connections what the recorder kept: head lines, those of the case's port, and templates, whose client port
/// is 0.
pub fn connections_of(listing: &str, port: u16) -> String {
    let own = |line: &&str| {
        let mut words = line.split_whitespace().skip(1);
        let is_entry = words.next().is_some_and(|left| left.starts_with(|c: char| c.is_ascii_digit()));
        !is_entry || words.any(|word| word.ends_with(&format!(":{port}")) || word.ends_with(":0"))
    };
    listing.lines().filter(own).flat_map(|line| [line, "\n"]).collect()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn number(value: &Value, key: &str) -> Option<u16> {
    value[key].as_u64().and_then(|number| u16::try_from(number).ok())
}

fn index(step: &Value, key: &str) -> Result<usize> {
    let number =
        step[key].as_u64().with_context(|| format!("the step {} has no {key:?}", text(step, "op")))?;
    Ok(usize::try_from(number)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_other_cases_are_left_out() {
        let listing = "IPVS connection entries\n\
                       pro expire state       source             virtual            destination\n\
                       TCP 01:58  TIME_WAIT   10.0.0.1:10003     10.0.0.100:2001    10.1.0.11:2001\n\
                       TCP 01:58  TIME_WAIT   10.0.0.1:10004     10.0.0.100:2002    10.1.0.11:2002\n\
                       TCP 00:58  ASSURED     10.0.0.1:0         10.0.0.100:2001    10.1.0.11:2001\n";
        let kept: Vec<String> = connections_of(listing, 2002).lines().map(str::to_owned).collect();
        assert_eq!(kept.len(), 4);
        assert!(kept[2].contains(":2002") && kept[3].contains(":0 "));
    }
}
