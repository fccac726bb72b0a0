//! Plays recorded cases: `ipvsadm` lines, then steps. Says what was seen; who compares is not our concern.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};
use xlvs_lab::play::{connections_of, words_of};

use super::client::Connection;
use super::director::{self, Director};

/// How long a step takes, milliseconds: a case of fifty lasts about a second.
const STEP_MS: u64 = 20;

/// Plays a case: its name, the sequence of servers, the listings asked for on the way, and those at its end.
pub fn play(case: &Value) -> Result<Value> {
    let tables = director::tables();
    let mut scene = Scene::new(Director::new(&tables), case)?;
    scene.director.seed(seed(text(case, "name")));
    for (name, value) in case["sysctls"].as_object().into_iter().flatten() {
        let value =
            value.as_u64().or_else(|| value.as_str()?.parse().ok()).context("a tunable is a number")?;
        scene.director.sysctl(name, value as u32)?;
    }
    if let Some(mark) = case["fwmark"].as_u64() {
        scene.director.mark(mark as u32, case["ipv6"] == true, scene.port, scene.udp)?;
    }
    // Lines that failed in the recording are tried too: they may have done something.
    list(case, "setup").iter().try_for_each(|line| scene.command(line))?;
    for step in list(case, "steps") {
        scene.play(step)?;
        scene.director.pass(STEP_MS);
    }
    let after = scene.listings(&case["after"])?;
    let Scene { sequence, snaps, .. } = scene;
    Ok(json!({ "name": case["name"], "sequence": sequence.join(" "), "snaps": snaps, "after": after }))
}

/// Where a case's chance begins: the same whenever it is played, another than that of other cases.
fn seed(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

struct Scene<'t> {
    director: Director<'t>,
    udp: bool,
    vip: IpAddr,
    port: u16,
    /// By number; what failed to open has a number too.
    connections: Vec<Connection>,
    sequence: Vec<String>,
    snaps: Vec<Value>,
}

impl<'t> Scene<'t> {
    fn new(director: Director<'t>, case: &Value) -> Result<Self> {
        Ok(Self {
            director,
            udp: case["proto"] == "udp",
            vip: text(case, "vip").parse().context("a case has a `vip`")?,
            port: case["vport"].as_u64().context("a case has a `vport`")? as u16,
            connections: Vec::new(),
            sequence: Vec::new(),
            snaps: Vec::new(),
        })
    }

    fn play(&mut self, step: &Value) -> Result<()> {
        match text(step, "op") {
            "open" => self.open(step)?,
            "short" => {
                self.open(step)?;
                self.with(self.connections.len() - 1, Connection::close)?;
            }
            "dgram" => {
                let connection =
                    self.connections.get_mut(index(step, "conn")?).context("no such connection")?;
                let server = connection.datagram(&mut self.director);
                self.note(server);
            }
            "close" => self.with(index(step, "closed")?, Connection::close)?,
            "rst" => self.with(index(step, "closed")?, Connection::reset)?,
            "adm" => self.command(step)?,
            "snap" => {
                let listings = self.listings(step)?;
                self.snaps.push(listings);
            }
            "sleep" => self.director.pass((step["s"].as_f64().unwrap_or(0.0) * 1000.0) as u64),
            "sh" => self.shell(text(step, "cmd"))?,
            other => bail!("the step {other:?} cannot be simulated"),
        }
        Ok(())
    }

    /// Runs a recorded command. One that went well for the kernel must go well here, or the rest means nothing.
    fn command(&mut self, recorded: &Value) -> Result<()> {
        let line = text(recorded, "cmd");
        let printed = self.director.ipvsadm(&line.split_whitespace().skip(1).collect::<Vec<_>>());
        ensure!(printed.rc == 0 || recorded["rc"] != 0, "{line}: {}", printed.err.trim_end());
        Ok(())
    }

    /// There is no shell without a kernel, but for the commands that a director's shell is used for.
    fn shell(&mut self, line: &str) -> Result<()> {
        match &line.split_whitespace().collect::<Vec<_>>()[..] {
            ["ipvsadm", words @ ..] => drop(self.director.ipvsadm(words)),
            ["sysctl", "-w", settings @ ..] => {
                for setting in settings {
                    let (name, value) =
                        setting.split_once('=').with_context(|| format!("{setting}: no value"))?;
                    self.director
                        .sysctl(name, value.parse().with_context(|| format!("{setting}: no number"))?)?;
                }
            }
            _ => bail!("{line:?} cannot be simulated; only ipvsadm and sysctl -w can, or play it in the lab"),
        }
        Ok(())
    }

    fn open(&mut self, step: &Value) -> Result<()> {
        let client: IpAddr = text(step, "client").parse().context("a step has a `client`")?;
        let sport = step["sport"].as_u64().context("a step has a `sport`")? as u16;
        let vip = step["vip"].as_str().map_or(Ok(self.vip), str::parse).context("a step's `vip`")?;
        let port = step["vport"].as_u64().map_or(self.port, |port| port as u16);
        let (client, vip) = (SocketAddr::new(client, sport), SocketAddr::new(vip, port));
        let connection = Connection::open(&mut self.director, self.udp, client, vip);
        self.note(connection.server());
        self.connections.push(connection);
        Ok(())
    }

    fn note(&mut self, server: Option<u8>) {
        self.sequence.push(server.map_or("-".to_owned(), |number| number.to_string()));
    }

    fn with(&mut self, number: usize, end: impl Fn(&mut Connection, &mut Director<'t>)) -> Result<()> {
        end(self.connections.get_mut(number).context("no such connection")?, &mut self.director);
        Ok(())
    }

    /// The same listings as in a recorded step or at a case's end, by their names there.
    fn listings(&mut self, recorded: &Value) -> Result<Value> {
        let names = recorded.as_object().into_iter().flat_map(Map::keys).filter(|name| *name != "op");
        let mut listings = Map::new();
        for name in names {
            let words = words_of(name).with_context(|| format!("no listing is called {name:?}"))?;
            let printed = self.director.ipvsadm(&words.split(' ').collect::<Vec<_>>());
            let mut listing =
                if name == "conn" { connections_of(&printed.out, self.port) } else { printed.out };
            if !printed.err.is_empty() {
                // As the recordings have it.
                listing += &format!("STDERR {}", printed.err);
            }
            listings.insert(name.clone(), listing.into());
        }
        Ok(Value::Object(listings))
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn index(step: &Value, key: &str) -> Result<usize> {
    let number =
        step[key].as_u64().with_context(|| format!("the step {} has no {key:?}", text(step, "op")))?;
    Ok(usize::try_from(number)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use xlvs_lab::play::cases;

    use super::*;

    /// A listing's lines, each with the seconds that its connection has left; connections in one order.
    fn lines(name: &str, listing: &Value) -> Vec<(String, i64)> {
        let mut lines: Vec<_> = listing.as_str().unwrap_or_default().lines().map(apart).collect();
        if name == "conn" {
            lines.sort();
        }
        lines
    }

    fn apart(line: &str) -> (String, i64) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |text: &str| text.parse::<i64>().ok();
        let left = words.get(1).and_then(|word| word.split_once(':'));
        match left.and_then(|(minutes, seconds)| Some((number(minutes)?, number(seconds)?))) {
            Some((minutes, seconds)) => {
                ([&words[..1], &words[2..]].concat().join(" "), minutes * 60 + seconds)
            }
            None => (line.to_owned(), 0),
        }
    }

    /// Is it a line of a listing's head, or a connection to the case's port? Templates of cases before it are recorded too.
    fn is_of_this_case(case: &Value, line: &(String, i64)) -> bool {
        let virt = line.0.split_whitespace().nth(3).and_then(|addr| addr.rsplit_once(':'));
        virt.is_none_or(|(_, port)| {
            case["vport"] == port.parse::<u16>().unwrap_or(0) || port.parse::<u16>().is_err()
        })
    }

    /// The same, so many seconds more or less.
    fn alike(a: &[(String, i64)], b: &[(String, i64)], seconds: i64) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() <= seconds)
    }

    /// Cases whose mark others of their file have too: it has no port of its own that keeps a case's servers apart from those
    /// of the cases before it, so their connections are in the listings, and in what the schedulers of least connections
    /// choose.
    fn share_their_mark(cases: &[Value]) -> Vec<&str> {
        let marks = |mark: &Value| cases.iter().filter(|case| case["fwmark"] == *mark).count();
        let sharing = |case: &&Value| !case["fwmark"].is_null() && marks(&case["fwmark"]) > 1;
        cases.iter().filter(sharing).map(|case| text(case, "name")).collect()
    }

    /// Recordings whose list of connections lacks one that the servers' counts have.
    const INCOMPLETE: [&str; 2] = ["fo-111-short-8clients", "wrr-511-held-1client"];

    /// How a case played here differs from the recording. One that shares its mark shows traces of others there.
    fn difference(case: &Value, shares_its_mark: bool) -> Option<String> {
        let ours = match play(case) {
            Ok(ours) => ours,
            Err(why) => return Some(format!("{why:#}")),
        };
        let by_load = ["lblc", "lblcr"].contains(&text(case, "scheduler"));
        if shares_its_mark && by_load {
            return None;
        }
        if ours["sequence"] != case["sequence"] && case["scheduler"] != "twos" {
            return Some(format!("kernel {}\n  ours {}", case["sequence"], ours["sequence"]));
        }
        if case["scheduler"] == "twos" || shares_its_mark {
            return None;
        }
        // A refusal that came while its client was still busy with the SYN was not heard; the SYN was sent again a second
        // later. How often that was so is the recorder's chance: up to twenty seconds in a case.
        let seconds = if text(case, "sequence").contains('-') { 20 } else { 2 };
        let comparable = |name: &str| match name {
            // The recorder looked at the tunnels when the case's service was gone already.
            "op" | "rate" | "rate_exact" | "tun_info" => false,
            // Counters are shown as they were at the estimator's last look, two seconds ago at most: the recorder's time. Cases
            // of this name wait for it.
            "stats" | "stats_exact" => text(case, "name").starts_with("stats-"),
            "conn" => !INCOMPLETE.contains(&text(case, "name")),
            _ => true,
        };
        let snaps = list(case, "steps").iter().filter(|step| step["op"] == "snap");
        for (theirs, ours) in snaps.zip(list(&ours, "snaps")).chain([(&case["after"], &ours["after"])]) {
            for (name, theirs) in
                theirs.as_object().into_iter().flatten().filter(|(name, _)| comparable(name))
            {
                let (mut a, b) = (lines(name, theirs), lines(name, &ours[name]));
                if name == "conn" {
                    let of_others = |line: &(String, i64)| !is_of_this_case(case, line);
                    let mut ours: Vec<_> = b.iter().map(|line| &line.0).collect();
                    a.retain(|line| {
                        let twin = ours.iter().position(|text| **text == line.0);
                        twin.map(|at| ours.swap_remove(at)).is_some() || !of_others(line)
                    });
                }
                if !alike(&a, &b, seconds) {
                    return Some(format!("{name}\n{a:#?}\n  ours\n{b:#?}"));
                }
            }
        }
        None
    }

    fn compare(file: &str) {
        let cases = recorded_cases(file);
        let sharing = share_their_mark(&cases);
        let differing = |case| {
            let name = text(case, "name");
            Some(format!("{name}\n  {}", difference(case, sharing.contains(&name))?))
        };
        let wrong: Vec<String> = cases.iter().filter_map(differing).collect();
        assert!(wrong.is_empty(), "{} cases differ:\n{}", wrong.len(), wrong.join("\n"));
    }

    macro_rules! recorded {
        ($($name:ident)*) => {
            $(
                #[test]
                fn $name() {
                    compare(concat!("sched/", stringify!($name)));
                }
            )*
        };
    }

    recorded!(rr wrr lc wlc lblc lblcr dh sh sed nq fo ovf mh twos hash);

    fn recorded_cases(file: &str) -> Vec<Value> {
        let path = format!("{}/../tests/oracle/{file}.json", env!("CARGO_MANIFEST_DIR"));
        let recorded = std::fs::read_to_string(path).expect("the recording is there");
        cases(serde_json::from_str(&recorded).expect("the recording is JSON")).expect("cases")
    }

    /// twos draws at random, so no sequence can be compared; but all cases together share as they did.
    #[test]
    fn chance_has_the_recorded_shares() {
        let all = recorded_cases("sched/twos");
        let short = all.iter().filter(|case| text(case, "name").contains("-short-"));
        let mut shares: BTreeMap<String, [[f64; 5]; 2]> = BTreeMap::new();
        for case in short {
            let ours = play(case).expect("it can be played");
            for (who, played) in [case, &ours].into_iter().enumerate() {
                let chosen =
                    text(played, "sequence").split(' ').filter_map(|word| word.parse::<usize>().ok());
                let counts = shares.entry(case["weights"].to_string()).or_default();
                chosen.for_each(|server| counts[who][server] += 1.0);
            }
        }
        for (weights, [kernel, ours]) in shares {
            // Four standard deviations of the difference of two draws.
            let spread = 4.0 * (kernel.iter().sum::<f64>() / 2.0).sqrt();
            let alike = kernel.iter().zip(&ours).all(|(a, b)| (a - b).abs() < spread);
            assert!(alike, "{weights}: {kernel:?} {ours:?}");
        }
    }

    #[test]
    fn chance_is_the_same_again_and_another_in_another_case() {
        let mut case = recorded_cases("sched/twos").swap_remove(0);
        let sequence = |case: &Value| play(case).expect("it can be played")["sequence"].clone();
        let first = sequence(&case);
        assert_eq!(sequence(&case), first);
        case["name"] = "another".into();
        assert_ne!(sequence(&case), first);
    }

    #[test]
    fn features() {
        compare("features");
    }

    #[test]
    fn forwarding() {
        compare("forwarding");
    }

    #[test]
    fn ipv6_marks() {
        compare("fwmark6");
    }

    /// Cases made up at random, of all kinds, and what the kernel did with them.
    #[test]
    fn more() {
        compare("more");
    }
}
