//! What is to be reached, and what was.
//!
//! The bars of packets are shares of what a rival took on another machine, in nanoseconds. So they are told in three ways: as they
//! were set; in hash hits, one of which took 27 ns there; and in floors, of which there is one for each kind of packet: what the
//! helpers that the rival cannot do without took by themselves, there and here. Processors differ in what a call costs, so
//! the last says most.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::report::Report;

/// Nanoseconds of a hash hit where the bars were set.
const HASH_HIT_NS: f64 = 27.0;

/// A bar of packets: the row, the nanoseconds that it may take on the machine where the bars were set, the row that has its floor, and
/// the nanoseconds of that floor there.
type OfRow = (&'static str, f64, &'static str, f64);

const TUNNEL: &str = "TUN, TCP IPv4, established, one flow";
const TUNNEL_NEW: &str = "TUN, TCP IPv4, new, wlc over 16";

#[rustfmt::skip]
const ROWS: [OfRow; 12] = [
    (TUNNEL, 72.0, TUNNEL, 68.0),
    ("TUN, UDP IPv4, established, one flow", 72.0, TUNNEL, 68.0),
    ("TUN, TCP IPv6, established, one flow", 82.0, TUNNEL, 68.0),
    ("DR, TCP IPv4, established, one flow", 57.0, TUNNEL, 68.0),
    ("NAT request, TCP IPv4, established, one flow", 82.0, TUNNEL, 68.0),
    ("NAT reply, TCP IPv4, established, one flow", 130.0, TUNNEL, 68.0),
    ("DR, ICMP IPv4, fragmentation needed, to the right server", 140.0, TUNNEL, 68.0),
    ("not ours, TCP IPv4", 40.0, "not ours, TCP IPv4", 23.0),
    ("TUN, TCP IPv4, established, 100 k flows", 257.0, "TUN, TCP IPv4, established, 100 k flows", 340.0),
    ("TUN, TCP IPv4, established, 1 M flows", 224.0, "TUN, TCP IPv4, established, 1 M flows", 258.0),
    (TUNNEL_NEW, 453.0, TUNNEL_NEW, 735.0),
    ("DR, TCP IPv4, new, wlc over 16", 453.0, TUNNEL_NEW, 735.0),
];

/// Facts and how much each may be.
const FACTS: [(&str, f64); 8] = [
    ("choosing by wlc, a server more", 2.0),
    ("a DR or TUN connection, IPv4, table 80 % full", 80.0),
    ("a NAT connection, IPv4, table 80 % full", 128.0),
    ("one pass of the sweep, all live, 10 M connections", 1000.0),
    ("a server's weight changed, among 10,000 services of 10 servers", 10.0),
    ("10,000 services of 10 servers restored", 2.0),
    ("the idle daemon, 1 M connections", 1.0),
    ("connections refused, of so many that the table is for, 10 M connections", 0.0),
];

/// A bar, and what there is of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bar {
    /// The row or fact.
    pub name: String,
    /// At the most so much.
    pub bar: f64,
    /// So much it is.
    pub is: f64,
    /// Of what.
    pub unit: String,
}

impl Bar {
    /// Is it within the bar?
    pub fn is_reached(&self) -> bool {
        self.is <= self.bar
    }
}

/// The bars of what was measured.
pub fn of(report: &Report) -> Vec<Bar> {
    let line = |name: &str| report.rows.iter().find(|line| line.name == name);
    let rows = ROWS.iter().filter_map(|(name, ns, with_floor, floor_ns)| {
        let row = line(name)?;
        let bar = |bar: f64, is: f64, unit: &str| {
            let round = |n: f64| (n * 100.0).round() / 100.0;
            Bar { name: row.name.clone(), bar: round(bar), is: round(is), unit: unit.to_owned() }
        };
        let floor = line(with_floor).and_then(|line| line.floor);
        let in_floors = floor.map(|floor| bar(ns / floor_ns, row.figure.min / floor.min.max(1.0), "floors"));
        let others = [bar(*ns, row.figure.min, "ns"), bar(ns / HASH_HIT_NS, row.hash_hits, "hash hits")];
        Some(others.into_iter().chain(in_floors))
    });
    let facts = FACTS.iter().filter_map(|(name, bar)| {
        let fact = report.facts.iter().find(|fact| fact.name == *name)?;
        Some(Bar { name: fact.name.clone(), bar: *bar, is: fact.value, unit: fact.unit.clone() })
    });
    rows.flatten().chain(facts).collect()
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, bar, is, unit } = self;
        let said = if self.is_reached() { "reached" } else { "MISSED" };
        write!(f, "{name:66} {bar:9.2} {is:9.2} {said:8} {unit}")
    }
}
