//! Recorded frames of kernel IPVS through the XDP program: they leave as they left the kernel.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xlvs_lab::frames::compare::{Difference, difference};
use xlvs_lab::frames::{fixtures, live};
use xlvs_lab::play::read;

const GROUPS: [&str; 9] =
    ["forward", "edges", "icmp", "fragments", "refused", "sctp-esp", "reuse", "misc", "local"];

/// Of each group every so many-th is played: some eighty, in less than a minute. `XLVS_ALL_FRAMES` has all played of the group
/// that it names, or of every group.
const EVERY: usize = 10;

#[test]
fn recorded_frames_leave_the_program_as_they_left_the_kernel() -> Result<()> {
    let all = std::env::var("XLVS_ALL_FRAMES").ok();
    let every = if all.is_some() { 1 } else { EVERY };
    let only = GROUPS.iter().find(|group| all.as_deref() == Some(*group));
    let (mut names, mut chosen) = (Vec::new(), Vec::new());
    for group in GROUPS.iter().filter(|group| only.is_none_or(|only| only == *group)) {
        for fixture in fixtures(read(&place(&format!("{group}.json")))?)?.into_iter().step_by(every) {
            names.push(format!("{group}/{}", fixture["name"].as_str().context("a fixture has a name")?));
            chosen.push(fixture);
        }
    }
    let mut played = Vec::new();
    live::play_all(&chosen, &xlvs_lab::director::binary()?, |line| {
        played.push(line);
        Ok(())
    })?;
    let differing = differing(&names, &chosen, &played);
    let (known, tolerated) = known()?;
    let worse: Vec<_> = differing.difference(&known).filter(|name| !tolerated.contains(*name)).collect();
    ensure!(worse.is_empty(), "these differ now: {worse:#?}");
    let played: BTreeSet<_> =
        names.iter().cloned().flat_map(|name| [format!("entries {name}"), name]).collect();
    let better: Vec<_> = known.intersection(&played).filter(|name| !differing.contains(*name)).collect();
    ensure!(better.is_empty(), "these are alike now; take them out of the lists: {better:#?}");
    Ok(())
}

fn differing(names: &[String], fixtures: &[Value], played: &[Value]) -> BTreeSet<String> {
    let mut differing = BTreeSet::new();
    for ((name, fixture), ours) in names.iter().zip(fixtures).zip(played) {
        let Some(difference) = difference(fixture, ours) else { continue };
        let kind = if matches!(difference, Difference::Entries(_)) { "entries " } else { "" };
        if std::env::var_os("XLVS_LIST_DIFFERING").is_some() {
            println!("differs {kind}{name}: {difference}");
        }
        differing.insert(format!("{kind}{name}"));
    }
    differing
}

/// What differs on the host differs here too, but for what the lab's list says; and what may differ here only, as it depends on
/// the kernel.
fn known() -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    let host = names(&recorded("not-yet.txt")?);
    let here = recorded("not-yet-live.txt")?;
    let (tolerated, alike) = here.split_once(ALIKE).context("the list has two parts")?;
    let alike = names(alike);
    Ok((host.difference(&alike).cloned().collect(), names(tolerated)))
}

/// Where the second part of the lab's list begins.
const ALIKE: &str = "# Alike here, though not on the host:";

fn names(list: &str) -> BTreeSet<String> {
    list.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(str::to_owned).collect()
}

fn recorded(name: &str) -> Result<String> {
    std::fs::read_to_string(place(name)).with_context(|| format!("read {name}"))
}

fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/oracle/packets").join(name)
}
