//! Recorded frames: what goes into a director and what comes out of it, byte for byte.
//!
//! The recordings are of kernel IPVS. Here is what their players share: the format, the site that they were recorded at, and
//! how two plays of a fixture are compared. [`play`] goes through a fixture with any [`Stage`]: the director on the host, or
//! [`live`] the XDP program in network namespaces.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

pub mod compare;
pub mod live;
mod raw;
pub mod site;

/// The two ends of a site.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Where clients are: out of c0, into l0.
    Client,
    /// Where servers are: out of s0, into l1.
    Server,
}

impl Side {
    /// Its name in the format.
    pub fn name(self) -> &'static str {
        match self {
            Side::Client => "client",
            Side::Server => "server",
        }
    }

    fn of_step(step: &Value) -> Self {
        if step["at"] == "server" { Side::Server } else { Side::Client }
    }
}

/// A frame that came out of the director.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Where.
    pub at: Side,
    /// The whole Ethernet frame.
    pub frame: Vec<u8>,
}

/// A command of a fixture, run in the director.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command<'a> {
    /// `ipvsadm` with these words.
    Ipvsadm(Vec<&'a str>),
    /// `ip` with these words, family first where it is named.
    Ip(Vec<&'a str>),
    /// TCP or UDP packets to this port carry this mark from now on.
    Mark {
        /// The mark.
        mark: u32,
        /// Of IPv6 packets.
        is_v6: bool,
        /// `tcp` or `udp`.
        protocol: &'a str,
        /// The destination port.
        port: u16,
    },
    /// Concerns devices that the director's packets do not depend on.
    Nothing,
}

impl<'a> Command<'a> {
    /// The commands of a line, which are separated by semicolons.
    pub fn of_line(line: &'a str) -> Result<Vec<Self>> {
        line.split(';')
            .map(|one| Self::read(one).with_context(|| format!("the command {:?}", one.trim())))
            .collect()
    }

    fn read(line: &'a str) -> Result<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        Ok(match words[..] {
            ["ipvsadm", ref rest @ ..] => Self::Ipvsadm(rest.to_vec()),
            // The checksums of these frames are as they are.
            ["ip", "netns", "exec", _, "ethtool", ..] | ["ethtool", ..] => Self::Nothing,
            ["ip", ref rest @ ..] => Self::Ip(rest.to_vec()),
            [table, ref rest @ ..] if table.starts_with("iptables") => mark(rest, false)?,
            [table, ref rest @ ..] if table.starts_with("ip6tables") => mark(rest, true)?,
            _ => bail!("cannot be played"),
        })
    }
}

/// What a rule of the mangle table says, where it marks packets to a port.
fn mark<'a>(words: &[&'a str], is_v6: bool) -> Result<Command<'a>> {
    if words.contains(&"-F") {
        // Rules are only emptied before the first one comes.
        return Ok(Command::Nothing);
    }
    let after = |name: &str| words.windows(2).find(|pair| pair[0] == name).map(|pair| pair[1]);
    let value =
        |name: &str| after(name).with_context(|| format!("only marks by port can be played: no {name}"));
    ensure!(after("-j") == Some("MARK"), "only rules that mark can be played");
    Ok(Command::Mark {
        mark: value("--set-mark")?.parse().context("a mark is a number")?,
        is_v6,
        protocol: value("-p")?,
        port: value("--dport")?.parse().context("a port is a number")?,
    })
}

/// Who plays: a director between two ends that have no stack of their own.
pub trait Stage {
    /// Sets a tunable of LVS.
    fn tune(&mut self, name: &str, value: u32) -> Result<()>;
    /// Runs a command in the director. What a program printed comes back as the error when it failed.
    fn run(&mut self, command: &Command) -> Result<()>;
    /// Sends a frame into the director; what came out soon after.
    fn send(&mut self, side: Side, frame: &[u8]) -> Result<Vec<Seen>>;
    /// Time goes by; what came out meanwhile.
    fn wait(&mut self, time: Duration) -> Result<Vec<Seen>>;
    /// What `ipvsadm` lists.
    fn list(&mut self, option: &str) -> Result<String>;
}

/// The fixtures of a file: one, or an object with a list of them.
pub fn fixtures(mut file: Value) -> Result<Vec<Value>> {
    match file.get_mut("fixtures").map(Value::take) {
        Some(Value::Array(fixtures)) => Ok(fixtures),
        Some(_) => bail!("`fixtures` is no list"),
        None => Ok(vec![file]),
    }
}

/// Plays a fixture: `name`, `steps` (for each what was `seen`, and the connections, `conn`), `after`.
pub fn play(fixture: &Value, stage: &mut impl Stage) -> Result<Value> {
    for (name, value) in fixture["sysctls"].as_object().into_iter().flatten() {
        let number = value.as_u64().or_else(|| value.as_str()?.trim().parse().ok());
        let number = number.and_then(|number| u32::try_from(number).ok());
        stage.tune(name, number.with_context(|| format!("{name} is set to {value}, which is no number"))?)?;
    }
    for line in list(fixture, "setup") {
        run(stage, line.as_str().context("a line of `setup` is no text")?)?;
    }
    let steps =
        list(fixture, "steps").iter().map(|step| play_step(step, stage)).collect::<Result<Vec<_>>>()?;
    let after = lines(&stage.list("-Ln")?, HEAD_OF_SERVICES);
    Ok(json!({ "name": fixture["name"], "steps": steps, "after": after }))
}

/// Lines before the first service of `-Ln`.
const HEAD_OF_SERVICES: usize = 3;
/// Lines before the first connection of `-Lnc`.
const HEAD_OF_CONNECTIONS: usize = 2;

fn play_step(step: &Value, stage: &mut impl Stage) -> Result<Value> {
    let seen = if let Some(line) = step["run"].as_str() {
        // One that failed in the recording must be tried too: it may have done something.
        run(stage, line).or_else(|why| if step["rc"] == 0 { Err(why) } else { Ok(()) })?;
        Vec::new()
    } else if let Some(seconds) = step["sleep"].as_f64().or_else(|| step["wait"].as_f64()) {
        stage.wait(Duration::try_from_secs_f64(seconds).context("a wait is so many seconds")?)?
    } else {
        let frame = from_hex(step["hex"].as_str().context("a step has a frame, a command or a wait")?)?;
        stage.send(Side::of_step(step), &frame)?
    };
    let seen: Vec<_> =
        seen.iter().map(|seen| json!({ "at": seen.at.name(), "hex": to_hex(&seen.frame) })).collect();
    Ok(json!({ "seen": seen, "conn": lines(&stage.list("-Lnc")?, HEAD_OF_CONNECTIONS) }))
}

fn run(stage: &mut impl Stage, line: &str) -> Result<()> {
    for command in Command::of_line(line)? {
        stage.run(&command).with_context(|| line.to_owned())?;
    }
    Ok(())
}

/// A listing's lines after its head.
fn lines(listing: &str, head: usize) -> Vec<String> {
    listing.lines().skip(head).map(|line| line.trim_end().to_owned()).collect()
}

/// The bytes of a frame.
pub fn from_hex(text: &str) -> Result<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair)?, 16).map_err(anyhow::Error::from);
    pairs.map(byte).collect::<Result<_>>().context("a frame is in hexadecimal")
}

/// A frame as the format writes it.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_the_recordings_are_understood() {
        let line = "ip6tables-legacy -t mangle -F PREROUTING; ip6tables-legacy -t mangle -A PREROUTING -i l0 -p tcp --dport 80 -j MARK --set-mark 7";
        let mark = Command::Mark { mark: 7, is_v6: true, protocol: "tcp", port: 80 };
        assert_eq!(Command::of_line(line).unwrap(), [Command::Nothing, mark]);
        let line = "ip rule add fwmark 7 lookup 100; ipvsadm -C";
        let rule = Command::Ip(vec!["rule", "add", "fwmark", "7", "lookup", "100"]);
        assert_eq!(Command::of_line(line).unwrap(), [rule, Command::Ipvsadm(vec!["-C"])]);
        assert!(Command::of_line("rm -r x").is_err());
        assert!(Command::of_line("iptables -A INPUT -j DROP").is_err());
    }

    #[test]
    fn hexadecimal_is_read_and_written() {
        assert_eq!(from_hex("00ff10").unwrap(), [0, 255, 16]);
        assert_eq!(to_hex(&[0, 255, 16]), "00ff10");
        assert!(from_hex("zz").is_err());
    }
}
