//! Recorded cases of kernel IPVS, played with real sockets through the director: the same servers, the same listings.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xlvs_lab::play::play;

/// Of every scheduler: connections that stay, short ones past the director, datagrams, and servers that are reweighted,
/// removed and added under way.
const OF_EACH: [&str; 5] =
    ["-123-held-1client", "-123-short-3clients-dr", "-123-udp", "-123-reweight", "-111-delete"];

/// Seconds left that may differ: the recorder's pace was not ours. Where clients were refused, its clients tried most of the
/// times again a second later, which took up to twenty seconds.
const PACE_S: (i64, i64) = (5, 20);

#[test]
fn schedulers_that_take_turns_or_count_connections() -> Result<()> {
    schedulers_choose_as_recorded(&["rr", "wrr", "lc", "wlc", "sed", "nq"])
}

#[test]
fn schedulers_that_hash_or_fill_up() -> Result<()> {
    schedulers_choose_as_recorded(&["lblc", "lblcr", "dh", "sh", "fo", "ovf", "mh"])
}

/// Of each scheduler two cases that were made up at random, and one in which datagrams follow a refusal. Templates would
/// show in the listings of the cases after, so persistence is left to the recorded cases.
#[test]
fn cases_made_up_at_random() -> Result<()> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut chosen = cases("more.json")?;
    let all_lines =
        |case: &Value| list(case, "setup").iter().chain(list(case, "steps")).cloned().collect::<Vec<_>>();
    chosen.retain(|case| {
        let is_wanted = !all_lines(case).iter().any(|line| {
            line["op"] == "sleep" || [" -p", "twos"].iter().any(|words| text(line, "cmd").contains(words))
        });
        let of_scheduler = seen.entry(text(case, "scheduler").to_owned()).or_default();
        *of_scheduler += usize::from(is_wanted);
        is_wanted && (*of_scheduler <= 2 || case["name"] == "r1-44-lc")
    });
    ensure!(chosen.len() >= 26, "only {} cases", chosen.len());
    plays_as_recorded(&chosen)
}

#[test]
fn twos_counts_what_it_chose() -> Result<()> {
    let (lines, failed) = played(&of_each("twos")?)?;
    ensure!((failed, lines.len()) == (0, OF_EACH.len()), "{failed} could not be played: {lines:?}");
    // It chooses by chance, so there is no sequence to compare; but held connections are listed where they went.
    let held = &lines[0];
    let sequence = text(held, "sequence");
    for server in 1..=3 {
        let chosen = sequence.split(' ').filter(|who| *who == server.to_string()).count();
        let line =
            text(&held["after"], "Ln").lines().find(|line| line.contains(&format!(" 10.1.0.1{server}:")));
        let active = line.and_then(|line| line.split_whitespace().nth(4)).context("the server is listed")?;
        ensure!(active == chosen.to_string(), "rs{server} was chosen {chosen} times, listed with {active}");
    }
    Ok(())
}

#[test]
fn flags_and_methods() -> Result<()> {
    let mut chosen = Vec::new();
    for (file, names) in [
        ("sched/hash.json", ["sh-sh-port-11111-64ports", "mh-mh-fallback-511-64clients"].as_slice()),
        ("forwarding.json", &["fwd-nat-v4-tcp", "fwd-dr-v4-tcp", "fwd-tun-v4-tcp", "fwd-tun-v4-udp"]),
    ] {
        chosen.extend(named(cases(file)?, names)?);
    }
    plays_as_recorded(&chosen)
}

#[test]
fn persistence_marks_thresholds_and_both_families() -> Result<()> {
    let mut all = cases("features.json")?;
    all.extend(cases("forwarding.json")?);
    let (lines, failed) = played(&all)?;
    ensure!(failed == 0, "{failed} cases could not be played");
    for (case, line) in all.iter().zip(&lines) {
        // Listings of these recordings show what earlier cases left in the kernel.
        ensure!(
            case["sequence"] == line["sequence"],
            "{}: kernel {}, ours {}",
            case["name"],
            case["sequence"],
            line["sequence"]
        );
    }
    Ok(())
}

#[test]
fn a_case_that_cannot_be_played_does_not_end_the_run() -> Result<()> {
    let case = &named(cases("sched/rr.json")?, &["rr-none"])?[0];
    let mut odd = case.clone();
    odd["name"] = "odd".into();
    odd["steps"] = serde_json::json!([{ "op": "dance" }]);
    // The same port three times: what the first left must not show in the third.
    let (lines, failed) = played(&[case.clone(), odd, case.clone()])?;
    ensure!(failed == 1 && lines.len() == 3, "{failed} failed: {lines:?}");
    ensure!(text(&lines[1], "error").contains("dance"), "{}", lines[1]);
    ensure!(lines[0] == lines[2], "{}\n{}", lines[0], lines[2]);
    Ok(())
}

fn schedulers_choose_as_recorded(schedulers: &[&str]) -> Result<()> {
    let mut chosen = Vec::new();
    for scheduler in schedulers {
        chosen.extend(of_each(scheduler)?);
    }
    plays_as_recorded(&chosen)
}

fn of_each(scheduler: &str) -> Result<Vec<Value>> {
    let names = OF_EACH.map(|ending| scheduler.to_owned() + ending);
    named(cases(&format!("sched/{scheduler}.json"))?, &names)
}

#[test]
fn settings_of_one_case_are_not_those_of_the_next() -> Result<()> {
    let mut cases = named(cases("sched/rr.json")?, &["rr-none", "rr-000"])?;
    cases[0]["steps"] = serde_json::json!([{ "op": "adm", "cmd": "ipvsadm --set 100 20 30", "rc": 0 }]);
    for case in &mut cases {
        case["after"] = serde_json::json!({ "timeout": "" });
    }
    let (lines, failed) = played(&cases)?;
    ensure!(failed == 0, "{lines:?}");
    for (line, timeouts) in lines.iter().zip(["100 20 30", "900 120 300"]) {
        let listing = text(&line["after"], "timeout");
        ensure!(listing == format!("Timeout (tcp tcpfin udp): {timeouts}\n"), "{listing}");
    }
    Ok(())
}

/// All cases of a recording.
fn cases(file: &str) -> Result<Vec<Value>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/oracle").join(file);
    let recorded: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    Ok(list(&recorded, "cases").to_vec())
}

fn named<N: AsRef<str>>(mut cases: Vec<Value>, names: &[N]) -> Result<Vec<Value>> {
    cases.retain(|case| names.iter().any(|name| case["name"] == name.as_ref()));
    ensure!(cases.len() == names.len(), "not all of these are recorded");
    Ok(cases)
}

/// What the player prints, and how many cases it could not play.
fn played(cases: &[Value]) -> Result<(Vec<Value>, usize)> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let file = std::env::temp_dir().join(format!("xlvs-play-{}-{number}.json", std::process::id()));
    std::fs::write(&file, serde_json::json!({ "cases": cases }).to_string())?;
    let mut out = Vec::new();
    let outcome = play(&file, |_| true, &xlvs_lab::director::binary()?, &mut out);
    std::fs::remove_file(&file)?;
    let lines = String::from_utf8(out)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    Ok((lines, outcome?))
}

fn plays_as_recorded(cases: &[Value]) -> Result<()> {
    let (lines, _) = played(cases)?;
    ensure!(lines.len() == cases.len(), "{} of {} cases were played", lines.len(), cases.len());
    for (case, line) in cases.iter().zip(&lines) {
        ensure!(case["name"] == line["name"], "{} was played for {}", line["name"], case["name"]);
        compare(case, line).with_context(|| format!("{}", case["name"]))?;
    }
    Ok(())
}

fn compare(case: &Value, ours: &Value) -> Result<()> {
    ensure!(ours["error"].is_null(), "{}", ours["error"]);
    ensure!(ours["sequence"] == case["sequence"], "kernel {}\n  ours {}", case["sequence"], ours["sequence"]);
    let refusing = text(case, "sequence").contains('-');
    let pace = if refusing { PACE_S.1 } else { PACE_S.0 };
    let snaps = list(case, "steps").iter().filter(|step| step["op"] == "snap");
    for (theirs, ours) in snaps.zip(list(ours, "snaps")).chain([(&case["after"], &ours["after"])]) {
        for (name, theirs) in theirs.as_object().into_iter().flatten() {
            // Counters are shown as at the estimator's last look, so what they say is the recorder's moment.
            if matches!(name.as_str(), "op" | "stats" | "rate" | "stats_exact" | "rate_exact") {
                continue;
            }
            let (mut theirs, ours) = (lines(name, theirs), lines(name, &ours[name]));
            theirs.retain(|line| !is_template(&line.0));
            let same = theirs.len() == ours.len() && theirs.iter().zip(&ours).all(|(a, b)| alike(a, b, pace));
            ensure!(same, "{name}\n{theirs:#?}\n  ours\n{ours:#?}");
        }
    }
    Ok(())
}

/// Is it a template's line, without its time? No case that is compared here has any; the recording kernel had those of cases
/// before.
fn is_template(line: &str) -> bool {
    line.split_whitespace().nth(2).is_some_and(|client| client.ends_with(":0"))
}

fn alike(a: &(String, i64), b: &(String, i64), seconds: i64) -> bool {
    a.0 == b.0 && (a.1 - b.1).abs() <= seconds
}

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
    let left = words.get(1).and_then(|word| word.split_once(':'));
    match left
        .and_then(|(minutes, seconds)| Some((minutes.parse::<i64>().ok()?, seconds.parse::<i64>().ok()?)))
    {
        Some((minutes, seconds)) => ([&words[..1], &words[2..]].concat().join(" "), minutes * 60 + seconds),
        None => (line.to_owned(), 0),
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}
