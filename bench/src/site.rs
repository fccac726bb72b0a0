//! A director with services of every kind, loaded but attached nowhere.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use xlvs_core::conn::Bucket;
use xlvs_core::conn::word::{Tick, Word};
use xlvs_core::server::Hop;
use xlvs_datapath::engine::Engine;
use xlvs_datapath::sweep::Sweeper;
use xlvs_datapath::tables::{Sizes, Tables};
use xlvs_datapath::xdp::{Pins, Xdp};
use xlvs_model::spec::{Method, Protocol, Scheduler};
use xlvs_model::{Change, Persistence, ServerKey, ServerSpec, ServiceKey, ServiceSpec};

/// The device behind which servers and clients are.
const DEVICE: &str = "xlvsb0";

/// The virtual addresses, of either family.
pub const VIPS: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(10, 200, 1, 1)),
    IpAddr::V6(std::net::Ipv6Addr::new(0xfc00, 1, 0, 0, 0, 0, 0, 1)),
];

/// The next hop towards every server.
pub const SERVERS_MAC: [u8; 6] = [2, 0, 0, 0, 2, 1];

/// The next hop towards every client, as the kernel's neighbour table has it.
pub const CLIENTS_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// Ports of the services by which the rows of established connections go.
pub mod port {
    /// Tunnelling to 16 servers.
    pub const TUNNEL: u16 = 80;
    /// Direct routing to 16 servers.
    pub const DIRECT: u16 = 81;
    /// Network address translation to 16 servers.
    pub const NAT: u16 = 82;
    /// The same to a single one, whose replies are known beforehand.
    pub const NAT_ONE: u16 = 83;
    /// Direct routing to 16 servers, persistent.
    pub const PERSISTENT: u16 = 84;
    /// The first of those for choices.
    pub const CHOICES: u16 = 1000;
}

/// The one server of [`port::NAT_ONE`].
pub fn only_server(is_v6: bool) -> (IpAddr, u16) {
    (server(is_v6, 4, 0), 8080)
}

fn server(is_v6: bool, net: u8, number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    match is_v6 {
        false => IpAddr::from([10, 208 + net, high, low + 1]),
        true => IpAddr::from([0xfc00, 2, u16::from(net), 0, 0, 0, 0, number + 1]),
    }
}

/// The loaded director.
pub struct Site {
    /// The programs.
    pub xdp: Xdp,
    /// Their memory's keeper.
    pub engine: Engine,
    bpffs: PathBuf,
}

impl Drop for Site {
    fn drop(&mut self) {
        let _unmounted = nix::mount::umount2(&self.bpffs, nix::mount::MntFlags::MNT_DETACH);
        let _removed = std::fs::remove_dir(&self.bpffs);
    }
}

/// Moves this thread into a network namespace of its own with a way to the clients, so that nothing here reaches anybody.
pub fn enter_namespace() -> Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
        .context("make a network namespace; are you root?")?;
    for line in [
        "link set lo up",
        &format!("link add {DEVICE} type veth peer name xlvsb1"),
        "link set xlvsb1 up",
        &format!("link set {DEVICE} up"),
        &format!("addr add 10.200.0.2/24 dev {DEVICE}"),
        &format!("-6 addr add fc00:1::fffe/64 dev {DEVICE} nodad"),
        &format!("neigh add 10.200.0.1 lladdr 02:00:00:00:00:01 dev {DEVICE}"),
        &format!("-6 neigh add fc00:1::ffff lladdr 02:00:00:00:00:01 dev {DEVICE}"),
        "route add default via 10.200.0.1",
        "-6 route add default via fc00:1::ffff",
    ] {
        let output =
            Command::new("ip").args(line.split(' ')).output().context("run ip; is iproute2 installed?")?;
        ensure!(output.status.success(), "ip {line}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        std::fs::write(format!("/proc/sys/{key}"), "1").with_context(|| format!("set {key}"))?;
    }
    Ok(())
}

impl Site {
    /// Loads a director for that many connections, and makes it the services of established connections, or those for
    /// choices.
    pub fn load(conns: u32, name: &str) -> Result<Self> {
        let bpffs = std::env::temp_dir().join(format!("xlvs-bench{}-{name}", std::process::id()));
        let cpus = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_CONF)?.unwrap_or(1) as u32;
        let sizes = Sizes::for_site(conns, 256, 24_576, cpus);
        let xdp = Xdp::load(Pins::on(&bpffs)?, sizes, 42)?;
        let engine = Engine::new(Arc::clone(xdp.tables()));
        Ok(Self { xdp, engine, bpffs })
    }

    /// The memory.
    pub fn tables(&self) -> &Tables {
        self.xdp.tables()
    }

    /// Makes the services through which established connections go.
    pub fn add_services(&mut self) -> Result<()> {
        let mut changes = Vec::new();
        for vip in VIPS {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                for (net, (port, method, servers)) in [
                    (port::TUNNEL, Method::Tunnel, 16),
                    (port::DIRECT, Method::Direct, 16),
                    (port::NAT, Method::Masquerade, 16),
                    (port::NAT_ONE, Method::Masquerade, 1),
                    (port::PERSISTENT, Method::Direct, 16),
                ]
                .into_iter()
                .enumerate()
                {
                    let key = ServiceKey::Address { protocol, addr: vip, port };
                    let netmask = if vip.is_ipv6() { 128 } else { u32::MAX };
                    let persistence =
                        (port == port::PERSISTENT).then_some(Persistence { timeout: 360, netmask });
                    changes.push(Change::AddService(ServiceSpec {
                        persistence,
                        ..ServiceSpec::new(key, Scheduler::Wlc)
                    }));
                    for number in 0..servers {
                        let port = if method == Method::Masquerade { 8080 } else { port };
                        let server = ServerKey { addr: server(vip.is_ipv6(), net as u8 + 1, number), port };
                        changes.push(Change::AddServer(key, ServerSpec::new(server, method)));
                    }
                }
            }
        }
        self.make(&changes)
    }

    /// Makes a service for each scheduler and number of servers, from [`port::CHOICES`] on in this order.
    pub fn add_choices(&mut self, kinds: &[(Scheduler, u16)]) -> Result<()> {
        let mut changes = Vec::new();
        for (port, (scheduler, servers)) in (port::CHOICES..).zip(kinds) {
            let key = ServiceKey::Address { protocol: Protocol::Tcp, addr: VIPS[0], port };
            changes.push(Change::AddService(ServiceSpec::new(key, *scheduler)));
            for number in 0..*servers {
                // Not one per address: a server in many services is one seat each all the same.
                let server = ServerKey { addr: server(false, 6, number), port };
                // ovf overflows a server at as many active connections as its weight says.
                let weight = if *scheduler == Scheduler::Ovf { 1 << 30 } else { 1 };
                changes.push(Change::AddServer(
                    key,
                    ServerSpec { weight, ..ServerSpec::new(server, Method::Direct) },
                ));
            }
        }
        self.make(&changes)
    }

    fn make(&mut self, changes: &[Change]) -> Result<()> {
        self.engine.apply_all(changes)?;
        let ifindex = nix::net::if_::if_nametoindex(DEVICE)?;
        let hop = Hop { to: SERVERS_MAC, from: [2, 0, 0, 0, 1, 0xfe], ifindex, mtu: 1500 };
        for destination in self.engine.destinations() {
            let source = if destination.addr.is_ipv6() {
                IpAddr::from([0xfc00, 1, 0, 0, 0, 0, 0, 0xfffe])
            } else {
                IpAddr::from([10, 200, 0, 2])
            };
            self.engine.resolve(destination.id, &hop, source);
        }
        Ok(())
    }

    /// Packets counted with the servers so far.
    pub fn packets(&self) -> u64 {
        self.tables().stats.iter().map(|stats| stats.in_packets.load() + stats.out_packets.load()).sum()
    }

    /// Connections that were scheduled so far.
    pub fn scheduled(&self) -> u64 {
        self.tables().stats.iter().map(|stats| stats.conns.load()).sum()
    }

    /// Connections that live.
    pub fn live(&self) -> u64 {
        let buckets = self.tables().conns_v4.iter().flat_map(|bucket| &bucket.words);
        buckets.filter(|cell| Word(cell.load()).is_live()).count() as u64
    }

    /// Lets connections age by an hour: those for whose number `which` holds.
    pub fn age(&self, which: impl Fn(u64) -> bool) -> Result<Tick> {
        let now = self.xdp.now()?;
        let hour_ago = Tick::new(now.count().wrapping_sub(3600 * Tick::PER_SECOND));
        let words = self.tables().conns_v4.iter().flat_map(|bucket| &bucket.words);
        for (number, cell) in (0..).zip(words.filter(|cell| Word(cell.load()).is_live())) {
            if which(number) {
                cell.store(Word(cell.load()).seen_at(hour_ago).0);
            }
        }
        Ok(now)
    }

    /// One whole sweep; returns how many it removed.
    pub fn sweep(&self, now: Tick) -> usize {
        Sweeper::default().slice(self.tables(), now, usize::MAX / 2, &self.xdp).removed
    }

    /// Forgets all connections at once, without the bookkeeping, which begins anew too.
    pub fn forget_connections(&self) {
        let tables = self.tables();
        empty(&tables.conns_v4);
        empty(&tables.replies_v4);
        empty(&tables.conns_v6);
        empty(&tables.replies_v6);
        for block in tables.blocks.iter() {
            for counts in [&block.active, &block.total, &block.persistent] {
                counts.iter().for_each(|count| count.store(0));
            }
        }
    }
}

fn empty<const K: usize>(table: &[Bucket<K>]) {
    table.iter().flat_map(|bucket| &bucket.words).for_each(|word| word.store(0));
}
