//! What the original said, with a real kernel behind it: every recorded invocation again, byte for byte.

mod common;

use std::ffi::OsString;
use std::net::SocketAddr;

use common::{Director, Names, call, ipvsadm};
use serde::Deserialize;
use xlvs_ipvsadm::{Applet, Resolver, Unreachable};
use xlvs_model::spec::Protocol;
use xlvs_model::view::{ConnView, ServiceView};

#[derive(Deserialize)]
struct Recording {
    commands: Vec<Recorded>,
    #[serde(default)]
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Recorded {
    cmd: String,
    rc: i32,
    #[serde(default)]
    out: String,
    #[serde(default)]
    err: String,
    changed: Option<bool>,
    #[serde(default)]
    removed: Vec<String>,
    #[serde(default)]
    added: Vec<String>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    setup: Vec<Recorded>,
    after: std::collections::BTreeMap<String, String>,
}

fn read(name: &str) -> Recording {
    let path = format!("{}/../../tests/oracle/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect("the recording");
    serde_json::from_str(&text).expect("a recording")
}

/// The table that every invocation of `errors.json` found.
fn preset() -> Director {
    let mut director = Director::default();
    for line in [
        "-A -t 10.0.0.100:80 -s rr",
        "-a -t 10.0.0.100:80 -r 10.1.0.11:80 -m -w 2",
        "-A -u 10.0.0.100:53 -s wlc",
        "-A -f 5 -s rr",
        "-a -f 5 -r 10.1.0.11 -g",
        "-A -t [fd00::100]:80 -s rr",
        "-A -t 10.0.0.100:0 -s rr -p 60",
    ] {
        assert_eq!(ipvsadm(&mut director, line, "").rc, 0, "{line}");
    }
    director
}

fn rules(director: &mut Director) -> Vec<String> {
    ipvsadm(director, "-Sn", "").out.lines().map(str::to_owned).collect()
}

fn without(lines: &[String], others: &[String]) -> Vec<String> {
    lines.iter().filter(|line| !others.contains(line)).cloned().collect()
}

fn words<'a>(recorded: &'a Recorded, director: &mut Director) -> &'a str {
    let mut line = recorded.cmd.as_str();
    if let Some(rest) = line.strip_prefix("(no privilege) ") {
        director.closed = Some(Unreachable::NotPermitted);
        line = rest;
    }
    line.strip_prefix("ipvsadm").unwrap_or_else(|| panic!("not an ipvsadm command: {line}"))
}

#[test]
fn right_odd_and_wrong_invocations() {
    let recording = read("errors");
    assert_eq!(recording.commands.len(), 224);
    for recorded in &recording.commands {
        let mut director = preset();
        let before = rules(&mut director);
        let line = words(recorded, &mut director);
        let done = ipvsadm(&mut director, line, "");
        let said = (done.rc, done.out.as_str(), done.err.as_str());
        assert_eq!(said, (recorded.rc, recorded.out.as_str(), recorded.err.as_str()), "{}", recorded.cmd);
        let after = rules(&mut director);
        if let Some(changed) = recorded.changed {
            assert_eq!(before != after, changed, "{}", recorded.cmd);
            assert_eq!(without(&before, &after), recorded.removed, "{}", recorded.cmd);
            assert_eq!(without(&after, &before), recorded.added, "{}", recorded.cmd);
        }
    }
}

/// An invocation made up at random. What it changed is listed if it changed something.
#[derive(Deserialize)]
struct MadeUp {
    argv: Vec<String>,
    /// What `-R` reads.
    #[serde(default)]
    stdin: String,
    rc: i32,
    out: String,
    err: String,
    #[serde(flatten)]
    left: Option<Left>,
}

#[derive(Deserialize, Debug, PartialEq, Eq)]
struct Left {
    saved: String,
    timeout: String,
    thresholds: String,
    daemon: String,
}

impl Left {
    fn by(director: &mut Director) -> Self {
        let mut listed = |line| ipvsadm(director, line, "").out;
        Self {
            saved: listed("-Sn"),
            timeout: listed("-L --timeout"),
            thresholds: listed("-Ln --thresholds"),
            daemon: listed("-L --daemon"),
        }
    }
}

/// How we differ from what was recorded.
fn difference(recorded: &MadeUp) -> Option<String> {
    let mut director = preset();
    let before = Left::by(&mut director);
    let words = recorded.argv.iter().map(OsString::from).collect();
    let done = call(Applet::Ipvsadm, &mut director, words, recorded.stdin.as_bytes());
    let said = (done.rc, done.out.as_str(), done.err.as_str());
    let theirs = (recorded.rc, recorded.out.as_str(), recorded.err.as_str());
    let (left, their_left) = (Left::by(&mut director), recorded.left.as_ref().unwrap_or(&before));
    let differs = said != theirs || left != *their_left;
    differs.then(|| {
        let MadeUp { argv, stdin, .. } = recorded;
        format!("{argv:?} {stdin:?}\n  original {theirs:?} {their_left:?}\n  ours     {said:?} {left:?}")
    })
}

#[test]
fn invocations_made_up_at_random() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/oracle/invocations.json");
    let text = std::fs::read_to_string(path).expect("the recording");
    let recorded: Vec<MadeUp> = serde_json::from_str(&text).expect("a list of invocations");
    assert!(recorded.len() >= 500, "{} invocations", recorded.len());
    let wrong: Vec<_> = recorded.iter().filter_map(difference).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), recorded.len(), wrong.join("\n"));
}

/// A listing's services, each with its servers; the director's own order of services is that of a hash table, which
/// depends on where the kernel lies in memory.
fn blocks(listing: &str) -> Vec<String> {
    let mut blocks: Vec<String> = Vec::new();
    for line in listing.lines() {
        match blocks.last_mut() {
            Some(block) if line.starts_with("  ->") => *block += &format!("\n{line}"),
            _ => blocks.push(line.to_owned()),
        }
    }
    blocks.sort();
    blocks
}

#[test]
fn a_rack_of_services_listed_saved_and_restored() {
    let recording = read("listing");
    let mut director = Director::default();
    let mut saved = String::new();
    // What stood on standard input was not recorded; this is what the recorder's program gave.
    let mut inputs = [
        None,
        Some("-A -t 10.0.0.100:80 -s rr\n"),
        Some(
            "-A -t 10.0.0.110:80 -s rr\n-a -t 10.0.0.110:80 -r 10.1.0.11:80 -m -w 1\n# comment\n\nbogus line\n-A -t 10.0.0.111:80 -s rr\n",
        ),
    ]
    .into_iter();
    for recorded in &recording.commands {
        if recorded.cmd.starts_with("COMPARE") {
            assert_eq!(ipvsadm(&mut director, "-Sn", "").out, saved, "saved, restored and saved again");
            continue;
        }
        let line = words(recorded, &mut director);
        let input = match line.trim() {
            "-R" => inputs.next().expect("three restorations").map_or_else(|| saved.clone(), str::to_owned),
            _ => String::new(),
        };
        if line.starts_with(" -Lnc") || line.starts_with(" -Lc") {
            director.connections = connections(&recorded.out);
        }
        let done = ipvsadm(&mut director, line, &input);
        if line.contains("--nosort") {
            assert_eq!(
                (done.rc, blocks(&done.out)),
                (recorded.rc, blocks(&recorded.out)),
                "{}",
                recorded.cmd
            );
        } else {
            let said = (done.rc, done.out.as_str(), done.err.as_str());
            assert_eq!(said, (recorded.rc, recorded.out.as_str(), recorded.err.as_str()), "{}", recorded.cmd);
        }
        if line.trim() == "-Sn" && saved.is_empty() {
            saved.clone_from(&recorded.out);
        }
    }
}

#[test]
fn spellings_of_an_ipv6_marks_servers() {
    let mut director = Director::default();
    for recorded in &read("fwmark6").commands {
        let line = words(recorded, &mut director);
        let done = ipvsadm(&mut director, line, "");
        let said = (done.rc, done.out.as_str(), done.err.as_str());
        assert_eq!(said, (recorded.rc, recorded.out.as_str(), recorded.err.as_str()), "{}", recorded.cmd);
    }
}

/// Gives every server the connections that a listing of `--persistent-conn` shows for its address.
fn counts_of(listing: &str) -> impl Fn(&mut ServiceView) + 'static {
    let listing = listing.to_owned();
    move |service| {
        for server in &mut service.servers {
            let key = server.spec.key;
            let name = SocketAddr::new(key.addr, key.port).to_string();
            let line = listing.lines().find(|line| line.contains(&name)).expect("the server's line");
            let numbers = line.split_whitespace().rev().map_while(|word| word.parse().ok());
            let [inactive, active, persistent, ..] = numbers.collect::<Vec<u32>>()[..] else {
                panic!("a short line: {line}")
            };
            (server.inactive, server.active, server.persistent) = (inactive, active, persistent);
        }
    }
}

#[test]
fn listings_after_traffic() {
    for case in read("fwmark6").cases {
        let mut director = Director::default();
        for recorded in &case.setup {
            assert_eq!(ipvsadm(&mut director, words(recorded, &mut Director::default()), "").rc, recorded.rc);
        }
        director.counted = Some(Box::new(counts_of(&case.after["persistent_conn"])));
        director.connections = connections(&case.after["conn"]);
        for (name, options) in [
            ("Ln", "-Ln"),
            ("stats", "-Ln --stats"),
            ("rate", "-Ln --rate"),
            ("conn", "-Lnc"),
            ("save", "-Sn"),
            ("thresholds", "-Ln --thresholds"),
            ("persistent_conn", "-Ln --persistent-conn"),
            ("stats_exact", "-Ln --stats --exact"),
            ("rate_exact", "-Ln --rate --exact"),
            ("timeout", "-L --timeout"),
            ("daemon", "-L --daemon"),
        ] {
            assert_eq!(ipvsadm(&mut director, options, "").out, case.after[name], "{} {name}", case.name);
        }
    }
}

/// The connections that a listing of `-Lc` shows, with names or without.
fn connections(listing: &str) -> Vec<ConnView> {
    listing.lines().skip(2).map(connection).collect()
}

fn connection(line: &str) -> ConnView {
    let words: Vec<_> = line.split_whitespace().collect();
    let [protocol, expires, state, client, virt, dest, ..] = words[..] else {
        panic!("a short line: {line}")
    };
    let (minutes, seconds) = expires.split_once(':').expect("MM:SS");
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let (protocol, naming) = match protocol {
        "TCP" => (6, Protocol::Tcp),
        "UDP" => (17, Protocol::Udp),
        "IP" => (0, Protocol::Tcp),
        other => panic!("protocol {other}"),
    };
    let at = |text: &str| address(text, naming);
    ConnView {
        protocol,
        expires_ms: (number(minutes) * 60 + number(seconds)) * 1000 + 999,
        state: state.to_owned(),
        client: at(client),
        virt: at(virt),
        dest: at(dest),
        engine: words.get(6).map(|name| (*name).to_owned()),
        engine_data: words.get(7).map(|data| (*data).to_owned()),
    }
}

fn address(text: &str, protocol: Protocol) -> SocketAddr {
    let (host, port) = text.rsplit_once(':').expect("host:port");
    let host = host.trim_matches(['[', ']']).parse().expect("an address");
    let port = port.parse().ok().or_else(|| Names::new().service_port(port, protocol));
    SocketAddr::new(host, port.expect("a port"))
}
