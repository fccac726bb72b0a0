//! Host against kernel: the same random packets through the host build of the core and through the loaded program, by
//! `BPF_PROG_TEST_RUN`. Verdict, bytes and tables must agree. Needs root and the eBPF object.

mod bpffs;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bpffs::BpfFs;
use xlvs_core::conn::Bucket;
use xlvs_core::director;
use xlvs_core::errand::{ErrandView, Kind};
use xlvs_core::packet::Frame;
use xlvs_core::server::Hop;
use xlvs_core::verdict::{PassReason, Verdict};
use xlvs_core::vlan::Tags;
use xlvs_core::wire::ethertype;
use xlvs_datapath::engine::Engine;
use xlvs_datapath::fragments::{Director, Fate, Outgoing};
use xlvs_datapath::host::HostEnv;
use xlvs_datapath::kernel::runs_at_tc;
use xlvs_datapath::nexthop::VlanDevice;
use xlvs_datapath::tables::{Sizes, Tables};
use xlvs_datapath::tc::{TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC, is_runnable};
use xlvs_datapath::xdp::{Pins, Xdp};
use xlvs_model::spec::{Method, Protocol, Scheduler, TunnelChecksum, TunnelType};
use xlvs_model::{
    Change, Family, MarkRule, Persistence, ServerKey, ServerSpec, ServiceKey, ServiceSpec, Tunable, Tunnel,
};

/// Marsaglia's xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 16) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }
}

const VIPS: [[u8; 4]; 2] = [[10, 0, 0, 100], [10, 0, 0, 101]];

fn address(addr: [u8; 4]) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(addr))
}

/// Services of these ports; the last is for every port.
const PORTS: [u16; 6] = [80, 443, 53, 21, 500, 0];

/// Tunables that packets see, and values for them.
const TUNABLES: [(Tunable, &[u32]); 9] = [
    (Tunable::SloppySctp, &[1]),
    (Tunable::ScheduleIcmp, &[1]),
    (Tunable::SloppyTcp, &[1]),
    (Tunable::ConnReuseMode, &[0, 2, 3]),
    (Tunable::ExpireNodestConn, &[1]),
    (Tunable::ExpireQuiescentTemplate, &[1]),
    (Tunable::SecureTcp, &[3]),
    (Tunable::PmtuDisc, &[0]),
    (Tunable::NatIcmpSend, &[1]),
];

fn random_service(random: &mut Random, key: ServiceKey, scheduler: Scheduler) -> ServiceSpec {
    let mut spec = ServiceSpec::new(key, scheduler);
    if random.one_in(3) || matches!(key, ServiceKey::Address { port: 0, .. }) {
        let v4 = key.family() == Family::Inet;
        let netmask = random.of(if v4 { &[u32::MAX, 0xffff_fffc, 0] } else { &[128, 126, 64] });
        spec.persistence = Some(Persistence { timeout: random.of(&[10, 60, 3600]), netmask });
    }
    spec.one_packet = matches!(key, ServiceKey::Address { protocol: Protocol::Udp, .. }) && random.one_in(4);
    spec
}

/// The IPv6 address that stands beside an IPv4 one.
fn address_v6([a, b, c, d]: [u8; 4]) -> IpAddr {
    IpAddr::from([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d])
}

fn random_site(random: &mut Random) -> Vec<Change> {
    let mut changes = Vec::new();
    for (tunable, values) in TUNABLES {
        if random.one_in(3) {
            changes.push(Change::Tune(tunable, values[random.below(values.len() as u64) as usize]));
        }
    }
    for vip in VIPS.map(address).into_iter().chain(VIPS.map(address_v6)) {
        for port in PORTS {
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                if random.one_in(4) {
                    continue;
                }
                let key = ServiceKey::Address { protocol, addr: vip, port };
                // twos is left out: its random numbers are the kernel's own.
                let scheduler = random.of(&Scheduler::ALL[..13]);
                changes.push(Change::AddService(random_service(random, key, scheduler)));
                for i in 0..random.below(20) {
                    changes.push(Change::AddServer(key, random_server(random, i as u8, port, vip.is_ipv6())));
                }
            }
        }
    }
    for family in [Family::Inet, Family::Inet6] {
        if random.one_in(2) {
            changes.extend(random_marked(random, family));
        }
    }
    changes
}

/// A service of a mark, which any packet to one port has.
fn random_marked(random: &mut Random, family: Family) -> Vec<Change> {
    let key = ServiceKey::Mark { family, mark: 7 };
    let rule = MarkRule { mark: 7, family, to: None, ports: (81, 81), protocol: None };
    let servers: Vec<_> = (0..random.below(4))
        .map(|i| Change::AddServer(key, random_server(random, i as u8, 0, family == Family::Inet6)))
        .collect();
    let service = Change::AddService(random_service(random, key, Scheduler::Rr));
    [Change::AddMark(rule), service].into_iter().chain(servers).collect()
}

fn random_server(random: &mut Random, i: u8, port: u16, is_v6: bool) -> ServerSpec {
    let method = random.of(&[Method::Masquerade, Method::Direct, Method::Tunnel]);
    let port = if method == Method::Masquerade && random.one_in(2) { 8080 } else { port };
    let upper = if random.one_in(6) { 1 + random.below(5) as u32 } else { 0 };
    // A tunnel may lead to a server of the other family.
    let is_v6 = is_v6 != (method == Method::Tunnel && random.one_in(3));
    let addr = [10, 1, 0, 10 + i];
    let key = ServerKey { addr: if is_v6 { address_v6(addr) } else { address(addr) }, port };
    let weight = random.below(4) as u32;
    let kind = random.of(&[TunnelType::IpIp, TunnelType::IpIp, TunnelType::Gre, TunnelType::Gue]);
    let checksum = random.of(&[TunnelChecksum::None, TunnelChecksum::Full, TunnelChecksum::Remote]);
    let tunnel = Tunnel { kind, port: if kind == TunnelType::Gue { 6080 } else { 0 }, checksum };
    ServerSpec { weight, upper, tunnel, ..ServerSpec::new(key, method) }
}

fn random_packet(random: &mut Random) -> Vec<u8> {
    let from_server = random.one_in(5);
    let client = [10, 0, 0, 1 + random.below(4) as u8];
    let server = [10, 1, 0, 10 + random.below(20) as u8];
    if random.one_in(8) {
        return random_error(random, client, server);
    }
    let (client_port, service_port) = (40000 + random.below(40) as u16, random.of(&[80, 443, 53, 8080, 81]));
    let vip = if random.one_in(10) { [10, 0, 0, 99] } else { random.of(&VIPS) };
    let (src, dst, ports) = if from_server {
        (server, client, (service_port, client_port))
    } else {
        (client, vip, (client_port, service_port))
    };
    let ports = if random.one_in(20) { (500, 500) } else { ports };
    let often = [6, 6, 6, 6, 17, 17, 132, 132, 50, 51];
    let protocol = if random.one_in(12) { random.below(256) as u8 } else { random.of(&often) };
    let options = if random.one_in(10) { 4 * random.below(11) as usize } else { 0 };
    let flags = random.of(&[0x02, 0x02, 0x12, 0x10, 0x10, 0x18, 0x11, 0x11, 0x04, 0x14, 0x00, 0x29]);
    let payload = if random.one_in(6) { random.below(1500) as usize } else { random.below(40) as usize };
    let mut frame = if random.one_in(3) {
        let [src, dst] = [src, dst].map(octets_v6);
        let l4 = build_l4(random, ports, protocol, flags, payload);
        build_v6(random, src, dst, protocol, l4)
    } else {
        build(random, src, dst, ports, protocol, options, flags, payload)
    };
    if random.one_in(8) {
        spoil(random, &mut frame);
    }
    frame
}

/// An ICMP error: about an answer, about a request behind the director, or about a tunnel's packet.
fn random_error(random: &mut Random, client: [u8; 4], server: [u8; 4]) -> Vec<u8> {
    let vip = random.of(&VIPS);
    let is_v6 = random.one_in(3);
    let (client_port, service_port) = (40000 + random.below(40) as u16, random.of(&[80, 443, 53, 8080, 21]));
    let protocol = random.of(&[6, 6, 17, 17, 50]);
    let request = quoted(random, is_v6, (client, client_port), (vip, service_port), protocol);
    let (quote, dst) = match random.below(3) {
        0 => (quoted(random, is_v6, (vip, service_port), (client, client_port), protocol), vip),
        1 => (quoted(random, is_v6, (client, client_port), (server, service_port), protocol), client),
        _ => {
            let director = [10, 1, 0, 254];
            (in_tunnel(random, director, server, request), director)
        }
    };
    let router = [10, 0, 0, 200 + random.below(3) as u8];
    let kind = if is_v6 { random.of(&[1, 2, 3, 4, 128]) } else { random.of(&[3, 3, 4, 11, 8, 5]) };
    let mut message = vec![kind, random.of(&[0, 4, 4, 3]), 0, 0, 0, 0, 5, random.next() as u8];
    message
        .extend(&quote[..random.of(&[quote.len(), quote.len(), quote.len().min(28), quote.len().min(24)])]);
    let mut frame = if is_v6 {
        let [src, dst] = [router, dst].map(octets_v6);
        let sum = one_complement(&[&src, &dst, &[0, 58], &(message.len() as u16).to_be_bytes(), &message]);
        message[2..4].copy_from_slice(&(!sum).to_be_bytes());
        build_v6(random, src, dst, 58, message)
    } else {
        let sum = !one_complement(&[&message]);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        with_ip(random, router, dst, 1, 0, message)
    };
    if random.one_in(10) {
        spoil(random, &mut frame);
    }
    frame
}

fn one_complement(parts: &[&[u8]]) -> u16 {
    let pairs = parts.iter().flat_map(|part| part.chunks(2));
    let sum = pairs.fold(0u32, |s, p| s + u32::from(u16::from_be_bytes([p[0], *p.get(1).unwrap_or(&0)])));
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

fn octets_v6(addr: [u8; 4]) -> [u8; 16] {
    match address_v6(addr) {
        IpAddr::V6(v6) => v6.octets(),
        IpAddr::V4(_) => unreachable!("an IPv6 address"),
    }
}

/// A packet from its IP header on.
fn quoted(
    random: &mut Random,
    is_v6: bool,
    (src, from): ([u8; 4], u16),
    (dst, to): ([u8; 4], u16),
    protocol: u8,
) -> Vec<u8> {
    let payload = random.below(30) as usize;
    let l4 = build_l4(random, (from, to), protocol, 0x10, payload);
    let frame = if is_v6 {
        build_v6(random, octets_v6(src), octets_v6(dst), protocol, l4)
    } else {
        let options = if random.one_in(6) { 4 * random.below(11) as usize } else { 0 };
        with_ip(random, src, dst, protocol, options, l4)
    };
    frame[14..].to_vec()
}

fn in_tunnel(random: &mut Random, src: [u8; 4], dst: [u8; 4], inner: Vec<u8>) -> Vec<u8> {
    let (protocol, mut l4) = match random.below(4) {
        0 => (4, vec![]),
        1 => (47, vec![0, 0, 8, 0]),
        2 => (47, vec![0x80, 0, 8, 0, 1, 2, 0, 0]),
        _ => (17, vec![0x90, 0, 0x17, 0xc0, 0, 40, 0, 0, 0, 4, 0, 0]),
    };
    l4.extend(inner);
    with_ip(random, src, dst, protocol, 0, l4)[14..].to_vec()
}

#[expect(clippy::too_many_arguments, reason = "a packet has that many parts")]
fn build(
    random: &mut Random,
    src: [u8; 4],
    dst: [u8; 4],
    ports: (u16, u16),
    protocol: u8,
    options: usize,
    flags: u8,
    payload: usize,
) -> Vec<u8> {
    let l4 = build_l4(random, ports, protocol, flags, payload);
    with_ip(random, src, dst, protocol, options, l4)
}

fn with_ip(
    random: &mut Random,
    src: [u8; 4],
    dst: [u8; 4],
    protocol: u8,
    options: usize,
    l4: Vec<u8>,
) -> Vec<u8> {
    let header = 20 + options;
    let mut ip = vec![0x40 | (header / 4) as u8, random.next() as u8];
    ip.extend(((header + l4.len()) as u16).to_be_bytes());
    ip.extend((random.next() as u16).to_be_bytes());
    let fragment: u16 = if random.one_in(20) { 0x2000 } else { random.of(&[0, 0x4000]) };
    ip.extend(fragment.to_be_bytes());
    let ttl = if random.one_in(15) { random.below(3) as u8 } else { 64 };
    ip.extend([ttl, protocol, 0, 0]);
    ip.extend(src);
    ip.extend(dst);
    ip.extend(random_options(random, options));
    let sum = !one_complement(&[&ip]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut frame = vec![2, 0, 0, 0, 0, 0xfe, 2, 0, 0, 0, 0, 1, 8, 0];
    frame.extend(ip);
    frame.extend(l4);
    frame
}

/// So many bytes of IPv4 options: more or less sound ones, and what a router makes of them.
fn random_options(random: &mut Random, room: usize) -> Vec<u8> {
    let mut options = Vec::new();
    while options.len() < room {
        let left = room - options.len();
        let kind = random.of(&[1, 1, 1, 7, 7, 7, 68, 68, 68, 0, 148, 131, 137, 134, 25]);
        if kind < 2 || left < 4 {
            options.push(kind.min(1));
            continue;
        }
        let any = random.below(left as u64 + 2) as usize;
        let length = random.of(&[left, left, 4.min(left), any]);
        let mut option = vec![0; length.max(2)];
        (option[0], option[1]) = (kind, length as u8);
        if let Some(pointer) = option.get_mut(2) {
            let any = random.next() as u8;
            *pointer = random.of(&[4, 5, 5, 8, 9, 12, length as u8 + 1, any]);
        }
        if let Some(what) = option.get_mut(3) {
            *what = random.of(&[0, 1, 3, 0xf0, 0x20, 2]);
        }
        options.extend(option);
    }
    options.truncate(room);
    options
}

fn build_l4(random: &mut Random, ports: (u16, u16), protocol: u8, flags: u8, payload: usize) -> Vec<u8> {
    let mut l4 = Vec::new();
    l4.extend(ports.0.to_be_bytes());
    l4.extend(ports.1.to_be_bytes());
    if protocol == 6 {
        l4.extend((random.next() as u32).to_be_bytes());
        l4.extend((random.next() as u32).to_be_bytes());
        l4.extend([0x50, flags, 0x20, 0, random.next() as u8, random.next() as u8, 0, 0]);
    } else if protocol == 132 {
        l4.extend((random.next() as u32).to_be_bytes());
        l4.extend((random.next() as u32).to_be_bytes());
        let chunk = random.of(&[1, 1, 2, 10, 11, 0, 3, 6, 7, 8, 9, 14]);
        l4.extend([chunk, 0, 0, random.of(&[4, 7, 8])]);
        if random.one_in(3) {
            l4.extend([0, 0, 0, 0, 6, 0, 0, 4]);
        }
    } else {
        let sum = if random.one_in(3) { 0u16 } else { random.next() as u16 };
        l4.extend((8 + payload as u16).to_be_bytes());
        l4.extend(sum.to_be_bytes());
    }
    l4.extend((0..payload).map(|i| i as u8));
    l4
}

/// An IPv6 packet, now and then with extension headers.
fn build_v6(random: &mut Random, src: [u8; 16], dst: [u8; 16], protocol: u8, l4: Vec<u8>) -> Vec<u8> {
    let extensions: Vec<u8> = (0..if random.one_in(8) { random.below(6) } else { 0 })
        .map(|_| random.of(&[0, 43, 44, 60]))
        .collect();
    let mut payload = Vec::new();
    for (i, kind) in extensions.iter().enumerate() {
        let next = extensions.get(i + 1).copied().unwrap_or(protocol);
        let length = if *kind == 44 { 0 } else { random.below(3) as u8 };
        payload.extend([next, length, 0, 0, 0, 0, 0, 0]);
        payload.extend(vec![0; usize::from(length) * 8]);
    }
    payload.extend(l4);
    let limit = if random.one_in(15) { random.below(3) as u8 } else { 64 };
    let mut ip = vec![0x60 | random.below(16) as u8, random.next() as u8, 0, 1];
    ip.extend((payload.len() as u16).to_be_bytes());
    ip.extend([extensions.first().copied().unwrap_or(protocol), limit]);
    ip.extend(src);
    ip.extend(dst);
    let mut frame = vec![2, 0, 0, 0, 0, 0xfe, 2, 0, 0, 0, 0, 1, 0x86, 0xdd];
    frame.extend(ip);
    frame.extend(payload);
    frame
}

fn spoil(random: &mut Random, frame: &mut Vec<u8>) {
    match random.below(4) {
        0 => frame.truncate(14 + random.below(frame.len() as u64 - 13) as usize),
        1 => frame.extend(vec![0; random.below(30) as usize]),
        2 => {
            let len = frame.len() as u64;
            for _ in 0..1 + random.below(3) {
                frame[random.below(len) as usize] = random.next() as u8;
            }
        }
        _ => frame[16..18].copy_from_slice(&(random.next() as u16).to_be_bytes()),
    }
}

/// The VLAN devices of every site: two on the interface by which packets come in, and one on another.
const DEVICES: [VlanDevice; 3] = [
    VlanDevice { ifindex: 20, lower: 1, tags: Tags::one(ethertype::VLAN, 100) },
    VlanDevice { ifindex: 21, lower: 1, tags: Tags(0x88a8_0005_8100_0006) },
    VlanDevice { ifindex: 22, lower: 7, tags: Tags::one(ethertype::VLAN, 100) },
];

/// Puts up to three tags on a frame, mostly such as a device takes.
fn tag(random: &mut Random, frame: Vec<u8>) -> Vec<u8> {
    let priority = random.below(16) as u8 & 0xe | random.below(2) as u8;
    let inner = [0x81, 0, priority << 4, 6];
    let tags = match random.below(8) {
        0..=2 => vec![0x81, 0, priority << 4, 100],
        3 | 4 => [&[0x88, 0xa8, priority << 4, 5][..], &inner].concat(),
        5 => vec![0x81, 0, priority << 4, 0],
        6 => [&[0x81, 0, priority << 4, 0, 0x81, 0, 0, 100][..]].concat(),
        _ => [&inner[..], &inner, &inner].concat()[..4 + 4 * random.below(3) as usize].to_vec(),
    };
    let (macs, rest) = frame.split_at(12.min(frame.len()));
    [macs, &tags, rest].concat()
}

fn resolve(engine: &Engine, random: &mut Random) {
    let mut destinations = engine.destinations();
    destinations.sort_by_key(|d| d.id);
    for destination in destinations {
        if random.one_in(12) {
            continue;
        }
        if random.one_in(6) {
            engine.unresolve(destination.id, true);
            continue;
        }
        let hop = Hop {
            to: [2, 0, 0, 0, 2, destination.id as u8],
            from: [2, 0, 0, 0, 1, 0xfe],
            ifindex: random.of(&[1, 1, 7, 7, DEVICES[0].ifindex, DEVICES[1].ifindex, DEVICES[2].ifindex]),
            mtu: if destination.id % 3 == 0 { 600 } else { 1500 },
        };
        let source = [10, 1, 0, 254];
        let source = if destination.addr.is_ipv6() { address_v6(source) } else { address(source) };
        engine.resolve(destination.id, &hop, source);
    }
}

/// Where the kernel's programs run.
#[derive(Clone, Copy, PartialEq)]
enum Hook {
    Xdp,
    Tc,
}

impl Hook {
    /// Runs the director on a frame: its action in XDP's numbers, and the frame afterwards. At tc all that leaves is redirected.
    fn run(self, xdp: &Xdp, frame: &[u8], expected: u32) -> (u32, Vec<u8>) {
        if self == Self::Xdp {
            return xdp.try_packet(frame).expect("the packet runs");
        }
        let tc = xdp.tc().expect("its programs are loaded");
        let (action, bytes) = tc.try_packet(frame, 0).unwrap_or_else(|why| panic!("{why}: {frame:02x?}"));
        let action = match action {
            TC_ACT_UNSPEC => 2,
            TC_ACT_SHOT => 1,
            TC_ACT_REDIRECT if expected == 3 => 3,
            TC_ACT_REDIRECT => 4,
            other => panic!("the director returned {other}"),
        };
        (action, bytes)
    }
}

fn action(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Drop(_) | Verdict::Cut { .. } | Verdict::PutTogether { .. } => 1,
        Verdict::Pass(_) | Verdict::Local { .. } => 2,
        Verdict::Transmit { .. } | Verdict::Answer { .. } => 3,
        Verdict::Redirect { .. } => 4,
    }
}

/// Everything of a table but when its entries were last seen.
fn contents<const K: usize>(buckets: &[Bucket<K>]) -> Vec<(u64, [u64; K], u64, u64)> {
    let lanes = buckets.iter().flat_map(|b| b.words.iter().zip(&b.bodies));
    lanes.map(|(w, b)| (w.load() >> 24, b.key(), b.entry.load(), b.link.load())).collect()
}

fn counts(tables: &Tables) -> Vec<[u32; 3]> {
    let lanes = tables.blocks.iter().flat_map(|b| (0..16).map(move |i| (b, i)));
    lanes.map(|(b, i)| [b.active[i].load(), b.total[i].load(), b.overload[i].load()]).collect()
}

fn pin_to_first_processor() {
    let mut set = nix::sched::CpuSet::new();
    set.set(0).expect("there is a first processor");
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)
        .expect("the first processor is ours to use");
}

/// The host has none either.
fn enter_a_network_without_routes() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
}

/// Runs `packets` packets through both and compares; `known`: through the short way and then the long one, as the kernel.
fn compare(hook: Hook, name: &str, seed: u64, packets: usize) {
    pin_to_first_processor();
    enter_a_network_without_routes();
    let mut random = Random(seed);
    let fs = BpfFs::new(name);
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get()) as u32;
    let sizes = Sizes::for_site(2000, 128, 2048, cpus);
    let mut xdp =
        Xdp::load(Pins::on(&fs.0).expect("a BPF file system"), sizes, 42).expect("the program loads");
    if hook == Hook::Tc {
        xdp.load_for_tc().expect("the programs of the tc hook load");
    }
    let mut ring = xdp.take_errands().expect("a ring of errands");
    let sees_own = !seed.is_multiple_of(4) && runs_at_tc().is_ok();
    if sees_own {
        xdp.see_own().expect("the program at egress loads");
    }
    let host = Arc::new(Tables::on_heap(sizes, 42));
    let site = random_site(&mut random);
    let mut engines = [Engine::new(Arc::clone(&host)), Engine::new(Arc::clone(xdp.tables()))];
    let hops = random.next() | 1;
    for engine in &mut engines {
        engine.apply(&site).expect("a site that is right");
        engine.defend(u32::MAX);
        engine.see_own(sees_own);
        // Where there is none, the replies of NAT go the short way.
        assert_eq!(
            engine.set_vlan_devices(if hook == Hook::Xdp && seed.is_multiple_of(2) { &DEVICES } else { &[] }),
            0
        );
        resolve(engine, &mut Random(hops));
    }
    let env = HostEnv::new(&host, 0);
    let mut verdicts = std::collections::BTreeMap::new();
    let mut delivered: Vec<Vec<u8>> = Vec::new();
    for n in 0..packets {
        if hook == Hook::Xdp && random.one_in(12) {
            let verdict = compare_whole(&mut random, &xdp, &env, &format!("packet {n} of seed {seed}"));
            *verdicts.entry(format!("whole {}", kind(verdict))).or_insert(0) += 1;
            continue;
        }
        let mut frame = random_packet(&mut random);
        if sees_own && random.one_in(4) {
            if random.one_in(2) && !delivered.is_empty() {
                let which = random.below(delivered.len() as u64) as usize;
                frame = answer_to(&mut random, &delivered[which]);
            }
            if is_runnable(&frame) {
                let verdict = compare_leaving(&xdp, &env, &frame, &format!("packet {n} of seed {seed}"));
                *verdicts.entry(format!("own {}", kind(verdict))).or_insert(0) += 1;
            }
            continue;
        }
        // At tc the kernel takes tags off before, and puts them on.
        if hook == Hook::Xdp && random.one_in(4) {
            frame = tag(&mut random, frame);
        }
        if hook == Hook::Tc && !is_runnable(&frame) {
            continue;
        }
        let mut buffer = vec![0; Frame::HEADROOM];
        buffer.extend(&frame);
        let mut packet = Frame::new(&mut buffer, Frame::HEADROOM);
        env.set_now(xdp.now().expect("the clock runs").count());
        let verdict = director::balance(&mut packet, &env);
        let (kernel_action, kernel_bytes) = hook.run(&xdp, &frame, action(verdict));
        *verdicts.entry(kind(verdict)).or_insert(0) += 1;
        assert_eq!(action(verdict), kernel_action, "packet {n} of seed {seed}: {verdict:?}\n{frame:02x?}");
        if matches!(verdict, Verdict::Local { .. } | Verdict::Pass(PassReason::Local)) {
            delivered.push(packet.bytes().to_vec());
        }
        let errand = match verdict {
            Verdict::Cut { ifindex } => Some((Kind::Cut, ifindex, packet.bytes())),
            Verdict::PutTogether { ifindex } => Some((Kind::PutTogether, ifindex, packet.bytes())),
            _ => None,
        };
        let record = ring.next();
        let handed = record.as_deref().and_then(ErrandView::from_bytes);
        let cut_to = handed.map(|handed| handed.cut_to).filter(|_| matches!(verdict, Verdict::Cut { .. }));
        assert_eq!(cut_to.unwrap_or(env.cut_to.get()), env.cut_to.get(), "packet {n} of seed {seed}");
        let handed = handed.map(|handed| (handed.kind, handed.ifindex, handed.frame));
        assert!(handed == errand, "packet {n} of seed {seed}: {verdict:?}\n{frame:02x?}");
        if kernel_action > 1 {
            let (host, kernel) = (packet.bytes(), &kernel_bytes);
            assert!(
                host == kernel,
                "packet {n} of seed {seed}: {verdict:?}\n{frame:02x?}\n{host:02x?}\n{kernel:02x?}"
            );
        }
    }
    assert_eq!(counts(&host), counts(xdp.tables()), "counts after seed {seed}");
    assert!(contents(&host.conns_v4) == contents(&xdp.tables().conns_v4), "connections after seed {seed}");
    assert!(contents(&host.replies_v4) == contents(&xdp.tables().replies_v4), "replies after seed {seed}");
    assert!(contents(&host.conns_v6) == contents(&xdp.tables().conns_v6), "connections after seed {seed}");
    assert!(contents(&host.replies_v6) == contents(&xdp.tables().replies_v6), "replies after seed {seed}");
    assert_eq!(xlvs_datapath::conns::discrepancies(&host), []);
    println!("seed {seed}: {verdicts:?}");
    assert!(verdicts.len() > 8, "the packets met too few fates: {verdicts:?}");
    // Where hardly anything was for servers, nothing may have been for the director.
    assert!(
        !sees_own || delivered.len() < 10 || verdicts.contains_key("own Local"),
        "no answer of the director's own was seen: {verdicts:?}"
    );
    assert!(
        hook == Hook::Tc || verdicts.contains_key("whole Cut"),
        "no packet was sent on that had come in fragments: {verdicts:?}"
    );
}

fn kind(verdict: Verdict) -> String {
    format!("{verdict:?}").split(" {").next().unwrap_or_default().to_owned()
}

/// What the stack may say to a frame that it got: a packet to who sent it, or that nobody has the port.
fn answer_to(random: &mut Random, frame: &[u8]) -> Vec<u8> {
    let mut answer = frame.to_vec();
    // Of a frame with VLAN tags or a longer header, what comes of it is nobody's.
    let (at, length) = if frame[12..14] == [8, 0] { (26, 4) } else { (22, 16) };
    let l4 = at + 2 * length;
    if answer.len() < l4 + 14 {
        return answer;
    }
    let addresses = [&frame[at + length..l4], &frame[at..at + length]].concat();
    answer[at..l4].copy_from_slice(&addresses);
    let ports = [&frame[l4 + 2..l4 + 4], &frame[l4..l4 + 2]].concat();
    answer[l4..l4 + 4].copy_from_slice(&ports);
    if frame[12..14] == [8, 0] && random.one_in(5) {
        let [src, dst] = [at, at + 4].map(|at| answer[at..at + 4].try_into().expect("an address"));
        let message = [&[3, 3, 0, 0, 0, 0, 0, 0][..], &frame[14..]].concat();
        return with_ip(random, src, dst, 1, 0, message);
    }
    if frame[23] == 6 || frame[20] == 6 {
        answer[l4 + 13] = random.of(&[0x12, 0x12, 0x10, 0x11, 0x14]);
    }
    answer
}

/// Has the director's own stack send a frame, in both.
fn compare_leaving(xdp: &Xdp, env: &HostEnv<'_>, frame: &[u8], which: &str) -> Verdict {
    env.set_now(xdp.now().expect("the clock runs").count());
    let mut buffer = frame.to_vec();
    let mut packet = Frame::new(&mut buffer, 0);
    let verdict = director::see_off(&mut packet, env);
    let (action, bytes) = xdp.try_outgoing(frame, 0).expect("the packet runs");
    let expected = if matches!(verdict, Verdict::Drop(_)) { TC_ACT_SHOT } else { TC_ACT_UNSPEC };
    assert_eq!(action, expected, "{which} leaves: {verdict:?}\n{frame:02x?}");
    assert!(action == TC_ACT_SHOT || packet.bytes() == bytes, "{which} leaves: {verdict:?}\n{frame:02x?}");
    verdict
}

/// Asks both about a packet that came in fragments. The kernel sees the head of a long one only, and must say the same.
fn compare_whole(random: &mut Random, xdp: &Xdp, env: &HostEnv<'_>, which: &str) -> Verdict {
    let frame = random_whole(random);
    let largest = random.of(&[576, 1280, 1400, 1500]);
    env.set_now(xdp.now().expect("the clock runs").count());
    let mut buffer = vec![0; Frame::HEADROOM];
    buffer.extend(&frame);
    let mut packet = Frame::new(&mut buffer, Frame::HEADROOM).put_together_from(largest);
    let verdict = director::balance_whole(&mut packet, env);
    let bytes = packet.bytes().to_vec();
    let expected = match verdict {
        Verdict::Pass(_) => Fate::Passes,
        Verdict::Local { .. } => Fate::PassesRewritten(bytes, largest),
        Verdict::Answer { ifindex } => Fate::Leaves(Outgoing { ifindex, frame: bytes }),
        Verdict::Cut { ifindex } => {
            Fate::LeavesInPieces(Outgoing { ifindex, frame: bytes }, env.cut_to.get())
        }
        Verdict::Drop(_) | Verdict::PutTogether { .. } => Fate::Dropped,
        Verdict::Transmit { .. } | Verdict::Redirect { .. } => panic!("{which} leaves whole"),
    };
    let fate = xdp.decide(1, &frame, largest);
    assert!(
        fate == expected,
        "{which}: {verdict:?}, {} bytes\n{:02x?}",
        frame.len(),
        &frame[..frame.len().min(120)]
    );
    verdict
}

/// A packet from a client or a server, of any length.
fn random_whole(random: &mut Random) -> Vec<u8> {
    let (client, server) = ([10, 0, 0, 1 + random.below(4) as u8], [10, 1, 0, 10 + random.below(20) as u8]);
    let (client_port, service_port) = (40000 + random.below(40) as u16, random.of(&[80, 443, 53, 8080]));
    let vip = random.of(&VIPS);
    let (src, dst, ports) = if random.one_in(4) {
        (server, client, (service_port, client_port))
    } else {
        (client, vip, (client_port, service_port))
    };
    let payload = random.of(&[20, 1900, 9000]);
    // SCTP's checksum is made of all of a packet, which is not shown.
    let protocol = if payload > 1900 { random.of(&[6, 17]) } else { random.of(&[6, 17, 17, 132]) };
    let (flags, payload) = (random.of(&[0x02, 0x10, 0x11]), random.below(payload) as usize);
    let l4 = build_l4(random, ports, protocol, flags, payload);
    if random.one_in(2) {
        let [src, dst] = [src, dst].map(octets_v6);
        return build_v6(random, src, dst, protocol, l4);
    }
    with_ip(random, src, dst, protocol, 0, l4)
}

#[test]
fn twenty_sites_with_two_thousand_packets_each_fare_alike_in_both() {
    for seed in 1..=20 {
        compare(Hook::Xdp, &format!("diff{seed}"), u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15), 2000);
    }
}

#[test]
fn a_site_with_three_thousand_packets_fares_alike_at_the_tc_hook() {
    if let Err(why) = runs_at_tc() {
        return println!("left out: {why}");
    }
    compare(Hook::Tc, "tc", u64::wrapping_mul(21, 0x9e37_79b9_7f4a_7c15), 3000);
}
