//! What does not show in one packet: the sweep, memory, and changes of a large configuration.

use std::time::Instant;

use anyhow::{Result, ensure};
use xlvs_core::conn::Bucket;
use xlvs_core::conn::LANES;

use crate::frames::{Payload, SHORT, flag};
use crate::harness::Harness;
use crate::report::{Fact, Line};
use crate::rows::client;
use crate::site::{Site, VIPS, port};

/// Fills a table, and sweeps it while all live, and when all have expired.
pub fn sweep(harness: &mut Harness, conns: u32) -> Result<Vec<Fact>> {
    let site = {
        let mut site = Site::load(conns, "scale")?;
        site.add_services()?;
        site
    };
    let begun = Instant::now();
    open(harness, &site, conns)?;
    let opened = begun.elapsed();
    let live = site.live();
    let refused = u64::from(conns) - live;
    let begun = Instant::now();
    let removed = site.sweep(site.xdp.now()?);
    let pass = begun.elapsed();
    ensure!(removed == 0, "{removed} connections that live were removed");
    let now = site.age(|_| true)?;
    let begun = Instant::now();
    let removed = site.sweep(now);
    let removal = begun.elapsed();
    ensure!(removed as u64 == live, "{removed} of {live} expired connections were removed");
    let count = f64::from(conns) / 1e6;
    let fact = |name: &str, value: f64, unit: &str| Fact {
        name: format!("{name}, {count} M connections"),
        value,
        unit: unit.to_owned(),
    };
    Ok(vec![
        fact("connections refused, of so many that the table is for", refused as f64, "connections"),
        fact("opening them all, the harness included", opened.as_secs_f64(), "s"),
        fact("one pass of the sweep, all live", pass.as_secs_f64() * 1e3, "ms of one core"),
        fact("one pass of the sweep, all expired", removal.as_secs_f64() * 1e3, "ms of one core"),
    ])
}

fn open(harness: &mut Harness, site: &Site, conns: u32) -> Result<()> {
    const AT_ONCE: u32 = 1_000_000;
    for first in (0..conns).step_by(AT_ONCE as usize) {
        let count = AT_ONCE.min(conns - first);
        for (number, frame) in (first..first + count).zip(harness.frames(SHORT).chunks_exact_mut(SHORT)) {
            let packet = crate::frames::Frame {
                from: client(false, number),
                to: (VIPS[0], port::DIRECT),
                payload: Payload::Tcp(flag::SYN),
            };
            packet.write(frame);
        }
        harness.run(site.xdp.director()?, SHORT, count, count)?;
    }
    Ok(())
}

/// What a connection takes, in a table that is filled so far.
pub fn memory() -> Vec<Fact> {
    // The bars are for this fill; `--max-conns` is 60 % of the table's slots.
    const FILL: f64 = 0.8;
    let slot = |bucket: usize| bucket as f64 / LANES as f64 / FILL;
    let (v4, v6) = (slot(size_of::<Bucket<2>>()), slot(size_of::<Bucket<5>>()));
    let fact = |name: &str, value| Fact { name: name.to_owned(), value, unit: "bytes".to_owned() };
    vec![
        fact("a DR or TUN connection, IPv4, table 80 % full", v4),
        fact("a NAT connection, IPv4, table 80 % full", v4 * 2.0),
        fact("a DR or TUN connection, IPv6, table 80 % full", v6),
        fact("a NAT connection, IPv6, table 80 % full", v6 * 2.0),
    ]
}

/// What choosing costs, by the rows of new connections over 16 and over 1024 servers.
pub fn choosing(rows: &[Line]) -> Vec<Fact> {
    let ns = |kind: &str, servers: u32| {
        let name = format!("DR, TCP IPv4, new, {kind} over {servers}");
        rows.iter().find(|line| line.name == name).map(|line| line.figure.min)
    };
    let kinds = ["lc", "wlc", "sed", "nq"].into_iter();
    let facts = kinds.filter_map(|kind| {
        let value = (ns(kind, 1024)? - ns(kind, 16)?) / (1024.0 - 16.0);
        Some(Fact { name: format!("choosing by {kind}, a server more"), value, unit: "ns".to_owned() })
    });
    facts.collect()
}
