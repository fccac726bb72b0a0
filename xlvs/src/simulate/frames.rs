//! Recorded frames, byte for byte: what goes into the director and what leaves it.
//!
//! Only the director is here, not the stack behind it: what it passes to the stack leaves no trace.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use xlvs_core::verdict::Verdict;

use super::director::{self, CLIENT_SIDE, Director, SERVER_SIDE};

/// Milliseconds between a frame and the next.
const STEP_MS: u64 = 25;

/// The fixtures of a file: one, or an object with a list of them.
pub fn fixtures(mut file: Value) -> Result<Vec<Value>> {
    match file.get_mut("fixtures").map(Value::take) {
        Some(Value::Array(fixtures)) => Ok(fixtures),
        Some(_) => bail!("`fixtures` is no list"),
        None => Ok(vec![file]),
    }
}

/// Plays a fixture: `name`, `steps` (for each frame what was `seen`, and `conn`), `after`.
pub fn play(fixture: &Value) -> Result<Value> {
    let tables = director::tables();
    let mut director = Director::new(&tables);
    for (name, value) in fixture["sysctls"].as_object().into_iter().flatten() {
        let value = value.as_u64().or_else(|| value.as_str()?.trim().parse().ok());
        director.sysctl(name, value.context("a tunable is a number")? as u32)?;
    }
    for line in list(fixture, "setup") {
        run(&mut director, line.as_str().unwrap_or_default())?;
    }
    let steps = list(fixture, "steps").iter().map(|step| play_step(&mut director, step));
    let steps = steps.collect::<Result<Vec<_>>>()?;
    let after = listed(&mut director, "-Ln", 3);
    Ok(json!({ "name": fixture["name"], "steps": steps, "after": after }))
}

fn play_step(director: &mut Director<'_>, step: &Value) -> Result<Value> {
    if let Some(command) = step["run"].as_str() {
        run(director, command)?;
        return Ok(json!({}));
    }
    if let Some(seconds) = step["sleep"].as_f64().or_else(|| step["wait"].as_f64()) {
        director.pass((seconds * 1000.0) as u64);
        return Ok(json!({ "seen": [] }));
    }
    let frame = from_hex(step["hex"].as_str().context("a step has a frame")?)?;
    let side = if step["at"] == "server" { SERVER_SIDE } else { CLIENT_SIDE };
    let (verdict, bytes) = director.forward(side, &frame);
    let out = match verdict {
        Verdict::Transmit { ifindex } | Verdict::Redirect { ifindex } | Verdict::Answer { ifindex } => {
            Some(ifindex)
        }
        Verdict::Drop(_) | Verdict::Pass(_) => None,
    };
    let at = |ifindex: u32| if ifindex == SERVER_SIDE { "server" } else { "client" };
    let seen: Vec<_> = out.iter().map(|out| json!({ "at": at(*out), "hex": to_hex(&bytes) })).collect();
    director.pass(STEP_MS);
    Ok(json!({ "seen": seen, "conn": listed(director, "-Lnc", 2) }))
}

fn run(director: &mut Director<'_>, line: &str) -> Result<()> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["ipvsadm", ..] => {
            let printed = director.ipvsadm(&words[1..]);
            if printed.rc != 0 {
                bail!("{line}: {}", printed.err.trim_end());
            }
        }
        ["ip", "link", "set", "l1", "mtu", mtu] | ["ip", "link", "set", "dev", "l1", "mtu", mtu] => {
            director.set_mtu(mtu.parse().context("an MTU is a number")?);
        }
        // The checksums of these frames are as they are.
        ["ip", "netns", "exec", _, "ethtool", ..] => {}
        _ => bail!("the command {line:?} cannot be simulated"),
    }
    Ok(())
}

/// A listing's lines without its head.
fn listed(director: &mut Director<'_>, option: &str, head: usize) -> Vec<String> {
    director.ipvsadm(&[option]).out.lines().skip(head).map(str::to_owned).collect()
}

fn from_hex(text: &str) -> Result<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair)?, 16).map_err(anyhow::Error::from);
    pairs.map(byte).collect::<Result<_>>().context("a frame is in hexadecimal")
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const GROUPS: [&str; 8] =
        ["forward", "edges", "icmp", "fragments", "refused", "sctp-esp", "reuse", "misc"];

    /// A frame without what differs from boot to boot: the outer identification where it counts, GUE's source port, and the
    /// checksums over these.
    fn comparable(hex: &str) -> Vec<u8> {
        let mut frame = from_hex(hex).expect("hexadecimal");
        let is_v4 = frame.get(12..14) == Some(&[8, 0]);
        if is_v4 && frame.len() >= 34 {
            let (may_be_fragmented, protocol) = (frame[20] & 0x40 == 0, frame[23]);
            let own = matches!(protocol, 1 | 4 | 41 | 47) || is_gue(&frame, 34);
            if own && may_be_fragmented {
                frame[18..20].fill(0);
                frame[24..26].fill(0);
            }
            if is_gue(&frame, 34) {
                frame[34..36].fill(0);
                frame[40..42].fill(0);
            }
        } else if frame.get(12..14) == Some(&[0x86, 0xdd]) && frame.len() >= 54 {
            if is_gue(&frame, 54) {
                frame[54..56].fill(0);
                frame[60..62].fill(0);
            }
            if frame[20] == 58 {
                // The flow label of what the director makes itself.
                frame[15] &= 0xf0;
                frame[16..18].fill(0);
            }
        }
        frame
    }

    /// The recordings' GUE has a port of its own.
    fn is_gue(frame: &[u8], at: usize) -> bool {
        let protocol = if at == 34 { frame[23] } else { frame[20] };
        protocol == 17 && frame.get(at + 2..at + 4) == Some(&5555u16.to_be_bytes())
    }

    fn fares_alike(fixture: &Value) -> bool {
        let Ok(ours) = play(fixture) else { return false };
        list(fixture, "steps").iter().zip(list(&ours, "steps")).all(|(theirs, ours)| {
            let seen = |step: &Value| -> Vec<_> {
                let frames = list(step, "seen").iter();
                frames
                    .map(|frame| (frame["at"].clone(), comparable(frame["hex"].as_str().unwrap())))
                    .collect()
            };
            seen(theirs) == seen(ours)
        })
    }

    #[test]
    fn recorded_frames_leave_as_they_left_the_kernel() {
        let place = format!("{}/../tests/oracle/packets", env!("CARGO_MANIFEST_DIR"));
        let read = |name: &str| std::fs::read_to_string(format!("{place}/{name}")).expect(name);
        let not_yet: BTreeSet<String> =
            read("not-yet.txt").lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
        let mut differing = BTreeSet::new();
        for group in GROUPS {
            let file = serde_json::from_str(&read(&format!("{group}.json"))).expect("JSON");
            let all = fixtures(file).expect("fixtures");
            let wrong = all.iter().filter(|fixture| !fares_alike(fixture));
            let wrong: Vec<_> =
                wrong.map(|fixture| format!("{group}/{}", fixture["name"].as_str().unwrap())).collect();
            println!("{group}: {} of {} alike", all.len() - wrong.len(), all.len());
            differing.extend(wrong);
        }
        if std::env::var_os("XLVS_LIST_DIFFERING").is_some() {
            differing.iter().for_each(|name| println!("differs {name}"));
        }
        let worse: Vec<_> = differing.difference(&not_yet).collect();
        let better: Vec<_> = not_yet.difference(&differing).collect();
        assert!(worse.is_empty(), "these differ now: {worse:#?}");
        assert!(better.is_empty(), "these are alike now; take them out of not-yet.txt: {better:#?}");
    }
}
