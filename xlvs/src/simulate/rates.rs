//! The recorded busy service is listed here as it was there: counters, and the rates that the estimator makes of them every
//! two seconds, while there is traffic and after it.

use std::net::SocketAddr;

use serde_json::Value;

use super::director::{self, CLIENT_SIDE, Director};
use super::wire::{self, Transport};

const VIP: &str = "10.0.0.100:2050";
/// Ports of the recording's four clients.
const FLOWS: std::ops::Range<u16> = 50000..50004;
/// Bytes of each datagram.
const PAYLOAD: [u8; 972] = [b'x'; 972];

fn run(director: &mut Director<'_>, line: &str) -> String {
    director.ipvsadm(&line.split(' ').collect::<Vec<_>>()).out
}

/// Incoming packets of the service in a listing of its counters.
fn packets(stats: &str) -> u64 {
    let line = stats.lines().find(|line| line.starts_with("UDP")).expect("the service is listed");
    line.split_whitespace().nth(3).and_then(|word| word.parse().ok()).expect("a number")
}

#[test]
fn a_busy_service_is_listed_as_recorded() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/oracle/rate.json");
    let text = std::fs::read_to_string(path).expect("the recording is there");
    let recording: Value = serde_json::from_str(&text).expect("the recording is JSON");
    let tables = director::tables();
    let mut director = Director::new(&tables);
    run(&mut director, &format!("-A -u {VIP} -s rr"));
    for server in ["10.1.0.11", "10.1.0.12"] {
        run(&mut director, &format!("-a -u {VIP} -r {server}:2050 -m"));
    }
    let vip: SocketAddr = VIP.parse().expect("an address");
    let (mut sent, mut before, mut looks) = (0, (String::new(), String::new()), 0);
    for sample in recording["samples"].as_array().expect("samples") {
        let listed = |name: &str| sample[name].as_str().unwrap_or_default().to_owned();
        if let Some(exact) = sample["exact"].as_str() {
            assert_eq!(run(&mut director, "-Ln --stats --exact"), exact);
            continue;
        }
        let recorded = (listed("stats"), listed("rate"));
        if recorded != before {
            // The estimator has come by in the meantime.
            while sent < packets(&recorded.0) {
                for port in FLOWS {
                    let client = SocketAddr::new([10, 0, 0, 1].into(), port);
                    director.receive(CLIENT_SIDE, &wire::frame(client, vip, Transport::Udp, &PAYLOAD));
                    sent += 1;
                }
            }
            director.pass(2000);
            looks += 1;
        }
        let ours = (run(&mut director, "-Ln --stats"), run(&mut director, "-Ln --rate"));
        assert_eq!(ours, recorded, "{} s", sample["t"]);
        before = recorded;
    }
    assert!(looks >= 8 && sent == 5348, "{looks} changes of the listing, {sent} packets");
}
