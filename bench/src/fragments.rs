//! Fragments: what one costs the director's programs, which hand it to the daemon, and what a datagram costs the daemon, which
//! puts it together, asks a program about it, and cuts it again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use xlvs_core::errand::{ErrandView, Kind};
use xlvs_datapath::fragments::{Errands, Reassembler, cut};

use crate::frames::{Frame, LONG, Payload, checksum};
use crate::harness::Harness;
use crate::measure::Primitives;
use crate::report::{Fact, Figure, Line};
use crate::rows::client;
use crate::site::{SERVERS_MAC, Site, VIPS, port};

/// Bytes of the datagram, and its fragments by Ethernet's MTU.
const DATAGRAM: usize = 8192;
const FRAGMENTS: usize = 6;
/// What the ring has room for at once.
const AT_ONCE: u32 = 128;

/// The name of what programs take for one fragment.
pub const HANDED_OVER: &str = "a fragment, handed to the daemon, UDP IPv4";

/// Both.
pub fn measure(
    harness: &mut Harness,
    primitives: &mut Primitives,
    rounds: usize,
) -> Result<(Line, Vec<Fact>)> {
    let mut site = Site::load(10_000, "fragments")?;
    site.add_services()?;
    Ok((handed_over(harness, primitives, &mut site, rounds)?, put_together(&site, rounds)?))
}

fn handed_over(
    harness: &mut Harness,
    primitives: &mut Primitives,
    site: &mut Site,
    rounds: usize,
) -> Result<Line> {
    let mut ring = site.xdp.take_errands().context("the ring of errands")?;
    let first = fragments(port::DIRECT, 200, 122)?.swap_remove(0);
    let frame = &mut harness.frames(LONG)[..LONG];
    frame.fill(0);
    frame[..first.len()].copy_from_slice(&first);
    let nothing = harness.own("nothing")?;
    let (mut ours, mut alone) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        primitives.sample(harness)?;
        for _ in 0..100 {
            alone.push(harness.run(&nothing, LONG, 1, AT_ONCE)?.ns as f64);
            ours.push(harness.run(site.xdp.director()?, LONG, 1, AT_ONCE)?.ns as f64);
            let handed = std::iter::from_fn(|| ring.next().map(drop)).count();
            ensure!(handed == AT_ONCE as usize, "{handed} fragments were handed over, not {AT_ONCE}");
        }
    }
    Ok(Line::new(HANDED_OVER, Figure::of(&ours, &alone)))
}

fn put_together(site: &Site, rounds: usize) -> Result<Vec<Fact>> {
    [("DR", port::DIRECT), ("NAT", port::NAT), ("TUN", port::TUNNEL)]
        .into_iter()
        .map(|(way, port)| {
            let least = least_time(site, port, rounds).with_context(|| format!("fragments by {way}"))?;
            Ok(Fact {
                name: format!(
                    "{way}, a datagram of {DATAGRAM} bytes in {FRAGMENTS} fragments, in the daemon"
                ),
                value: least.as_secs_f64() * 1e6,
                unit: "µs".to_owned(),
            })
        })
        .collect()
}

/// A datagram's fragments, none of whose frames is longer than that.
fn fragments(port: u16, data: usize, longest: usize) -> Result<Vec<Vec<u8>>> {
    let mut whole = vec![0; 14 + 20 + 8 + data];
    Frame { from: client(false, 0), to: (VIPS[0], port), payload: Payload::Udp }.write(&mut whole);
    // A sender who forbids it would be told that they are too long.
    whole[20..22].fill(0);
    whole[24..26].fill(0);
    let sum = checksum(&[&whole[14..34]]);
    whole[24..26].copy_from_slice(&sum.to_be_bytes());
    Ok(cut(&whole, (longest - 14) as u16, 1, &[])?)
}

fn least_time(site: &Site, port: u16, rounds: usize) -> Result<Duration> {
    let fragments = fragments(port, DATAGRAM, 1514)?;
    ensure!(fragments.len() == FRAGMENTS, "it has {} fragments", fragments.len());
    let mut errands = Errands::new(Reassembler::default(), 7);
    let mut least = Duration::MAX;
    for _ in 0..rounds * 200 {
        let begun = Instant::now();
        let mut sent = Vec::new();
        for frame in &fragments {
            let errand = ErrandView { kind: Kind::PutTogether, ifindex: 1, cut_to: 0, frame };
            sent.extend(errands.run(&errand, Duration::ZERO, &site.xdp).sent);
        }
        least = least.min(begun.elapsed());
        ensure!(sent.len() >= FRAGMENTS, "{} fragments left", sent.len());
        ensure!(sent.iter().all(|out| out.frame[..6] == SERVERS_MAC), "one does not go to the server");
    }
    Ok(least)
}
