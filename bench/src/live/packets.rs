//! Packets of a generator in the kernel, sent as a network card would hand them over, and counted at the other end.
//!
//!     ours (generator)  g0 ─ l0  director  l1 ─ e0  sink, an XDP program that counts and drops

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use xlvs_lab::Netns;
use xlvs_lab::director::{Director, binary};

use super::{Live, dnat, middle, nft};
use crate::frames::{Frame, Payload, SHORT};
use crate::harness::Harness;
use crate::outcome::Outcome;
use crate::rows::client;
use crate::site::{CLIENTS_MAC, SERVERS_MAC, VIPS};

const PORT: u16 = 9000;
const SERVERS: [&str; 4] = ["10.1.0.11", "10.1.0.12", "10.1.0.13", "10.1.0.14"];
const FLOWS: u32 = 1000;
const PACKETS: u32 = 200_000;

/// Who is in the director's place.
enum Who {
    /// Nobody: an XDP program drops what comes in. What the generator takes by itself.
    Nobody,
    /// The kernel's forwarding, to a server's own address.
    Forwarding,
    /// xlvs by this method.
    Xlvs(&'static str),
    /// nftables, choosing so.
    Nftables(&'static str),
}

const CONTESTANTS: [(&str, Who, Outcome); 7] = [
    ("no director, dropped as it comes in", Who::Nobody, Outcome::Direct),
    ("the kernel's forwarding, no balancing", Who::Forwarding, Outcome::Direct),
    ("xlvs DR", Who::Xlvs("-g"), Outcome::Direct),
    ("xlvs NAT", Who::Xlvs("-m"), Outcome::Translated),
    ("xlvs TUN", Who::Xlvs("-i"), Outcome::Tunnelled),
    ("nftables DNAT, numgen", Who::Nftables("numgen inc mod 4"), Outcome::Translated),
    ("nftables DNAT, jhash", Who::Nftables("jhash ip saddr . udp sport mod 4"), Outcome::Translated),
];

/// All of them, in rounds.
pub fn measure(harness: &mut Harness, rounds: usize) -> Result<Vec<Live>> {
    let mut costs: Vec<Vec<f64>> = vec![Vec::new(); CONTESTANTS.len()];
    for round in 0..rounds {
        eprintln!("    round {} of {rounds}", round + 1);
        for ((name, who, outcome), costs) in CONTESTANTS.iter().zip(&mut costs) {
            let bed = Bed::lay_out(harness)?;
            costs.push(bed.measure(harness, who, *outcome).with_context(|| (*name).to_owned())?);
        }
    }
    let least = |costs: &[f64]| costs.iter().copied().fold(f64::INFINITY, f64::min);
    let alone = least(&costs[0]);
    let named = CONTESTANTS.iter().zip(&mut costs);
    let live = named.map(|((name, ..), costs)| Live {
        name: format!("UDP packets of 64 bytes, {FLOWS} flows: {name}"),
        per_second: 1e6 / least(costs),
        added_us: least(costs) - alone,
        p50_us: middle(costs),
        p99_us: 0.0,
    });
    Ok(live.collect())
}

/// The hosts. The generator is in the namespace that the benchmark itself lives in.
struct Bed {
    director: Netns,
    sink: Netns,
    directory: PathBuf,
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _gone_with_the_other_end = std::process::Command::new("ip").args(["link", "del", "g0"]).status();
        let _removed = std::fs::remove_dir_all(&self.directory);
    }
}

impl Bed {
    fn lay_out(harness: &mut Harness) -> Result<Self> {
        let (director, sink) = (Netns::of_our_own("lb")?, Netns::of_our_own("sink")?);
        let directory = std::env::temp_dir().join(director.name());
        std::fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        let lines = [
            format!(
                "link add g0 address 02:00:00:00:00:01 type veth peer name l0 netns {} address 02:00:00:00:00:fe",
                director.name()
            ),
            "link set g0 up".to_owned(),
        ];
        let bed = Self { director, sink, directory };
        for line in lines {
            let done = std::process::Command::new("ip").args(line.split(' ')).output().context("run ip")?;
            ensure!(done.status.success(), "ip {line}: {}", String::from_utf8_lossy(&done.stderr).trim());
        }
        bed.connect_director()?;
        bed.sink.ip(&["link set e0 up"])?;
        harness.attach("swallow", &bed.sink, "e0")?;
        Ok(bed)
    }

    fn connect_director(&self) -> Result<()> {
        let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
        let mut lines = vec![
            format!(
                "link add l1 address 02:00:00:00:01:fe type veth peer name e0 netns {} address {}",
                self.sink.name(),
                mac(SERVERS_MAC)
            ),
            "link set l0 up".to_owned(),
            "link set l1 up".to_owned(),
            "addr add 10.0.0.254/24 dev l0".to_owned(),
            format!("addr add {}/32 dev l0", VIPS[0]),
            "addr add 10.1.0.254/24 dev l1".to_owned(),
            "route add 10.64.0.0/10 via 10.0.0.1".to_owned(),
            format!("neigh add 10.0.0.1 lladdr {} dev l0", mac(CLIENTS_MAC)),
        ];
        lines.extend(SERVERS.map(|server| format!("neigh add {server} lladdr {} dev l1", mac(SERVERS_MAC))));
        self.director.ip(&lines)?;
        self.director.sysctl("net.ipv4.ip_forward", "1")?;
        for scope in ["all", "l0", "l1"] {
            self.director.sysctl(&format!("net.ipv4.conf.{scope}.rp_filter"), "0")?;
        }
        // Where no XDP program is, a veth takes raw frames only with GRO on.
        self.director.ethtool("l0", "gro on")
    }

    /// Microseconds a packet.
    fn measure(&self, harness: &mut Harness, who: &Who, outcome: Outcome) -> Result<f64> {
        let to = match who {
            Who::Forwarding => (SERVERS[0].parse()?, PORT),
            _ => (VIPS[0], PORT),
        };
        for (number, frame) in (0..FLOWS).zip(harness.frames(SHORT).chunks_exact_mut(SHORT)) {
            Frame { from: client(false, number), to, payload: Payload::Udp }.write(frame);
        }
        match who {
            Who::Nobody => {
                harness.attach("swallow", &self.director, "l0")?;
                self.blast(harness, None)
            }
            Who::Forwarding => self.blast(harness, Some(outcome)),
            Who::Nftables(choice) => {
                let servers = SERVERS.map(str::to_owned);
                nft(&self.director, &dnat("udp", &VIPS[0].to_string(), PORT, &servers, choice))?;
                self.blast(harness, Some(outcome))
            }
            Who::Xlvs(method) => {
                let interfaces = ["l0", "l1"];
                let mut xlvs =
                    Director::prepare_on(&self.director, &interfaces, &self.directory, &binary()?)?
                        .with_options(&["--max-conns", "100000", "--max-conns-v6", "1000"]);
                xlvs.restart()?;
                xlvs.must(&format!("-A -u {}:{PORT} -s rr", VIPS[0]))?;
                for server in SERVERS {
                    xlvs.must(&format!("-a -u {}:{PORT} -r {server}:{PORT} {method}", VIPS[0]))?;
                }
                self.blast(harness, Some(outcome))
            }
        }
    }

    /// Sends the packets once to open the flows, and once on the clock. They must all have arrived, as what they must become.
    fn blast(&self, harness: &mut Harness, outcome: Option<Outcome>) -> Result<f64> {
        let ifindex = nix::net::if_::if_nametoindex("g0")?;
        harness.generate(FLOWS, FLOWS * 2, ifindex)?;
        let before = harness.swallowed()?.0;
        let begun = Instant::now();
        harness.generate(FLOWS, PACKETS, ifindex)?;
        let took = begun.elapsed();
        // The last ones may still lie in a queue.
        std::thread::sleep(std::time::Duration::from_millis(20));
        let (count, last) = harness.swallowed()?;
        let arrived = count - before;
        ensure!(arrived == u64::from(PACKETS), "{arrived} of {PACKETS} packets arrived");
        if let Some(outcome) = outcome {
            let sent = harness.frames(SHORT)[..SHORT].to_vec();
            outcome.verify_beginning(&sent, &last).context("a packet that arrived")?;
        }
        Ok(took.as_secs_f64() * 1e6 / f64::from(PACKETS))
    }
}
