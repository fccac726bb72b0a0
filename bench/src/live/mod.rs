//! Real packets and real connections through veth, beside what else Linux has for the purpose.
//!
//! Everything runs on one processor: the generator or the client, the director, the servers. So what takes less is more in a
//! second, and the cost of the director alone is the difference to the row without one.

mod connections;
mod packets;

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use xlvs_lab::Netns;

use crate::harness::Harness;

/// What came of one contestant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Live {
    /// Of what, and by whom.
    pub name: String,
    /// Packets or connections in a second of one processor.
    pub per_second: f64,
    /// Microseconds of one processor for each, less those of the row without a director.
    pub added_us: f64,
    /// Microseconds that half of them took at the most.
    pub p50_us: f64,
    /// Microseconds that 99 of 100 took at the most; 0 where only whole runs are timed.
    pub p99_us: f64,
}

/// Everything of this kind.
pub fn measure(harness: &mut Harness, is_quick: bool) -> Result<Vec<Live>> {
    eprintln!("==> packets through veth, side by side");
    let mut live = packets::measure(harness, if is_quick { 3 } else { 7 }).context("packets through veth")?;
    eprintln!("==> connections through veth, side by side");
    live.extend(connections::measure(if is_quick { 2 } else { 5 }).context("connections through veth")?);
    Ok(live)
}

/// For people.
pub fn print(live: &[Live]) {
    if live.is_empty() {
        return;
    }
    println!(
        "\n{:66} {:>10} {:>9} {:>9} {:>9}",
        "through veth, all on one processor", "per second", "added us", "p50 us", "p99 us"
    );
    for Live { name, per_second, added_us, p50_us, p99_us } in live {
        println!("{name:66} {per_second:10.0} {added_us:9.2} {p50_us:9.2} {p99_us:9.2}");
    }
}

/// Gives a namespace these rules of nftables.
fn nft(netns: &Netns, rules: &str) -> Result<()> {
    let output = netns.output(Command::new("nft").arg(rules)).context("run nft")?;
    ensure!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// The rules that balance `VIP:port` of this protocol over these servers, who is next by `choice`.
fn dnat(protocol: &str, vip: &str, port: u16, servers: &[String], choice: &str) -> String {
    let numbered = (0..).zip(servers).map(|(number, server): (usize, _)| format!("{number} : {server}"));
    let map = numbered.collect::<Vec<_>>().join(", ");
    format!(
        "add table ip lb; add chain ip lb pre {{ type nat hook prerouting priority -100; }}; add rule ip lb pre ip daddr {vip} \
         {protocol} dport {port} dnat to {choice} map {{ {map} }}"
    )
}

/// The value in the middle.
fn middle(values: &mut [f64]) -> f64 {
    at_share(values, 0.5)
}

/// The value below which that share of them lies.
fn at_share(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share) as usize]
}
