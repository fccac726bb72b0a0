//! Every recorded order of packets of a TCP connection leads to the recorded state and time.

use std::net::SocketAddr;

use serde_json::Value;

use super::director::{self, CLIENT_SIDE, Director, SERVER_SIDE};
use super::wire::{self, ACK, FIN, PSH, RST, SYN, Transport};

const VIP: &str = "10.0.0.100:2000";
const SERVER: &str = "10.1.0.200:2000";
const CLIENT: &str = "10.0.0.200";

fn recording(name: &str) -> Value {
    let path = format!("{}/../tests/oracle/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("the recording is there");
    serde_json::from_str(&text).expect("the recording is JSON")
}

fn flags(event: &str) -> u8 {
    match event {
        "S" => SYN,
        "SA" => SYN | ACK,
        "A" => ACK,
        "F" => FIN | ACK,
        "R" => RST,
        "RA" => RST | ACK,
        "FO" => FIN,
        "SF" => SYN | FIN,
        "SR" => SYN | RST,
        "SAF" => SYN | ACK | FIN,
        "FR" => FIN | RST,
        "FP" => FIN | PSH | ACK,
        "P" => PSH | ACK,
        "N" => 0,
        other => panic!("the recording has no packet {other}"),
    }
}

/// A packet such as `in.S` or `out.SA` of the client's connection from this port.
fn send(director: &Director<'_>, packet: &str, port: u16) {
    let client = SocketAddr::new(CLIENT.parse().unwrap(), port);
    let (way, event) = packet.split_once('.').expect("a way and flags");
    let transport = Transport::Tcp(flags(event));
    if way == "in" {
        director.receive(CLIENT_SIDE, &wire::frame(client, VIP.parse().unwrap(), transport, &[]));
    } else {
        director.receive(SERVER_SIDE, &wire::frame(SERVER.parse().unwrap(), client, transport, &[]));
    }
}

fn run(director: &mut Director<'_>, line: &str) -> String {
    director.ipvsadm(&line.split(' ').collect::<Vec<_>>()).out
}

fn one_server(director: &mut Director<'_>, method: &str) {
    run(director, &format!("-A -t {VIP} -s rr"));
    run(director, &format!("-a -t {VIP} -r {SERVER} {method}"));
}

/// State and seconds left of the connection from this port, as listed.
fn listed(director: &mut Director<'_>, port: u16) -> Option<(String, u64)> {
    let listing = run(director, "-Lnc");
    let client = format!("{CLIENT}:{port}");
    let words: Vec<&str> = listing
        .lines()
        .map(|line| line.split_whitespace().collect())
        .find(|words: &Vec<_>| words.get(3) == Some(&&*client))?;
    let (minutes, seconds) = words[1].split_once(':')?;
    Some((words[2].to_owned(), minutes.parse::<u64>().ok()? * 60 + seconds.parse::<u64>().ok()?))
}

#[test]
fn orders_of_packets() {
    lead_as_recorded("tcp_states");
}

/// Packets with any flags, in orders made up at random.
#[test]
fn more_orders_of_packets() {
    lead_as_recorded("more_states");
}

fn lead_as_recorded(name: &str) {
    let recording = recording(name);
    let mut wrong = Vec::new();
    for (mode, recorded) in recording["modes"].as_object().expect("modes") {
        let tables = director::tables();
        let mut director = Director::new(&tables);
        if let Some((name, value)) = mode.split_once("secure_tcp=").map(|(_, value)| ("secure_tcp", value)) {
            director.sysctl(name, value.parse().unwrap()).expect("a tunable");
        }
        if let Some((_, value)) = mode.split_once("reuse=") {
            director.sysctl("conn_reuse_mode", value.parse().unwrap()).expect("a tunable");
        }
        if mode.ends_with("sloppy") {
            director.sysctl("sloppy_tcp", 1).expect("a tunable");
        }
        if let Some((_, timeouts)) = mode.split_once("-set-") {
            run(&mut director, &format!("--set {}", timeouts.replace('-', " ")));
        }
        let method = if mode.starts_with("nat") {
            "-m"
        } else if mode.starts_with("dr") {
            "-g"
        } else {
            "-i"
        };
        one_server(&mut director, method);
        for (port, (path, expected)) in (1024..).zip(recorded["after"].as_object().expect("paths")) {
            let first = recorded["first"].as_str().into_iter();
            first.chain(path.split_whitespace()).for_each(|packet| send(&director, packet, port));
            let found = listed(&mut director, port);
            let wanted = expected.as_array().map(|e| (e[0].as_str().unwrap(), e[1].as_u64().unwrap()));
            // The recording rounds a moment later than its packet down, the listing a moment of none does not.
            let alike = match (&found, wanted) {
                (Some((state, left)), Some((as_recorded, seconds))) => {
                    state == as_recorded && (seconds..=seconds + 1).contains(left)
                }
                (None, None) => true,
                _ => false,
            };
            if !alike {
                wrong.push(format!("{mode}: {path:?}: the kernel has {wanted:?}, here is {found:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} orders differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// Servers' lines of a listing without the ports, and the connection's state.
fn counts(listing: &str) -> Vec<Vec<&str>> {
    let lines = listing.lines().filter(|line| line.starts_with("  -> 10"));
    lines.map(|line| line.split_whitespace().skip(2).collect()).collect()
}

/// As recorded (`reuse3-lc-*`): who closed a connection and opens it again gets another server where the fewest connections count,
/// though then the old one is gone.
#[test]
fn a_closed_connection_counts_until_its_successor_is_there() {
    let tables = director::tables();
    let mut director = Director::new(&tables);
    run(&mut director, &format!("-A -t {VIP} -s lc"));
    for server in ["10.1.0.11", "10.1.0.12"] {
        run(&mut director, &format!("-a -t {VIP} -r {server} -g"));
    }
    let mut after = |packets: &[&str]| {
        packets.iter().for_each(|packet| send(&director, packet, 1024));
        run(&mut director, "-Ln")
    };
    let listing = after(&["in.S", "in.A", "in.R"]);
    assert_eq!(counts(&listing), [["Route", "1", "0", "0"], ["Route", "1", "0", "1"]]);
    let listing = after(&["in.S"]);
    assert_eq!(counts(&listing), [["Route", "1", "1", "0"], ["Route", "1", "0", "0"]]);
}

/// The address of the service that a listing shows.
fn service(listing: &str) -> &str {
    let line = listing.lines().find(|line| line.starts_with("TCP")).expect("a service");
    line.split_whitespace().nth(1).expect("an address")
}

/// The state of the connection to this service in a listing of connections.
fn state_of<'a>(connections: &'a str, service: &str) -> Option<&'a str> {
    let mut lines = connections.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.find(|words| words.get(4) == Some(&service)).map(|words| words[2])
}

#[test]
fn lives() {
    let recording = recording("tcp_states");
    for (port, life) in (2000..).zip(recording["lives"].as_array().expect("lives")) {
        let tables = director::tables();
        let mut director = Director::new(&tables);
        let method = match life["forward"].as_str() {
            Some("nat") => "-m",
            Some("dr") => "-g",
            _ => "-i",
        };
        one_server(&mut director, method);
        for step in life["steps"].as_array().expect("steps") {
            let packet = step["packet"].as_str().expect("a packet");
            send(&director, packet, port);
            let listing = run(&mut director, "-Ln");
            let name = format!("{} of {}", packet, life["path"]);
            let recorded = |listing: &str| step[listing].as_str().expect("a listing");
            assert_eq!(counts(&listing), counts(recorded("Ln")), "{name}");
            let state = listed(&mut director, port).map(|(state, _)| state);
            assert_eq!(state.as_deref(), state_of(recorded("conn"), service(recorded("Ln"))), "{name}");
        }
    }
}
