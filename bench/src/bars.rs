//! What is to be reached, and what was.
//!
//! Most bars are shares of what a rival took on another machine, in nanoseconds. They travel as hash hits: a hash hit took
//! 27 ns there.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::report::Report;

/// Nanoseconds of a hash hit where the bars were set.
const HASH_HIT_NS: f64 = 27.0;

/// Rows and how many nanoseconds each may take, on the machine where the bars were set.
const ROWS: [(&str, f64); 12] = [
    ("TUN, TCP IPv4, established, one flow", 72.0),
    ("TUN, UDP IPv4, established, one flow", 72.0),
    ("TUN, TCP IPv6, established, one flow", 82.0),
    ("DR, TCP IPv4, established, one flow", 57.0),
    ("NAT request, TCP IPv4, established, one flow", 82.0),
    ("NAT reply, TCP IPv4, established, one flow", 130.0),
    ("not ours, TCP IPv4", 40.0),
    ("TUN, TCP IPv4, established, 100 k flows", 257.0),
    ("TUN, TCP IPv4, established, 1 M flows", 224.0),
    ("TUN, TCP IPv4, new, wlc over 16", 453.0),
    ("DR, TCP IPv4, new, wlc over 16", 453.0),
    ("DR, ICMP IPv4, fragmentation needed, to the right server", 140.0),
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
    let rows = ROWS.iter().filter_map(|(name, ns)| {
        let line = report.rows.iter().find(|line| line.name == *name)?;
        let bar = (ns / HASH_HIT_NS * 100.0).round() / 100.0;
        Some(Bar { name: line.name.clone(), bar, is: line.hash_hits, unit: "hash hits".to_owned() })
    });
    let facts = FACTS.iter().filter_map(|(name, bar)| {
        let fact = report.facts.iter().find(|fact| fact.name == *name)?;
        Some(Bar { name: fact.name.clone(), bar: *bar, is: fact.value, unit: fact.unit.clone() })
    });
    rows.chain(facts).collect()
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, bar, is, unit } = self;
        let said = if self.is_reached() { "reached" } else { "MISSED" };
        write!(f, "{name:66} {bar:9.2} {is:9.2} {said:8} {unit}")
    }
}
