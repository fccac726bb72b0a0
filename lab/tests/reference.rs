//! Random commands and packets: the data plane does what the reference model says, packet by packet, count by count. A
//! sample goes through the loaded programs too.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use xlvs_core::conn::word::Tick;
use xlvs_core::director;
use xlvs_core::env::{Env, Route};
use xlvs_core::packet::Frame;
use xlvs_core::server::Hop;
use xlvs_core::verdict::Verdict;
use xlvs_datapath::conns;
use xlvs_datapath::engine::Engine;
use xlvs_datapath::evict;
use xlvs_datapath::host::HostEnv;
use xlvs_datapath::sweep::Sweeper;
use xlvs_datapath::tables::{Sizes, Tables};
use xlvs_datapath::xdp::{Pins, Xdp};
use xlvs_lab::reference::{End, Fate, Packet, Says, Server, Service, Site};
use xlvs_model::spec::{Method, Protocol, Scheduler};
use xlvs_model::{Change, Persistence, ServerKey, ServerSpec, ServiceKey, ServiceSpec, Tunable};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
const OTHER_VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 101);
/// Servers of each service.
const EACH: usize = 3;

fn services() -> Vec<Service> {
    vec![
        Service::new(false, (VIP, 80), None, false),
        Service::new(false, (VIP, 81), Some((60, 0xffff_fffc)), false),
        Service::new(true, (VIP, 53), None, false),
        Service::new(true, (VIP, 54), None, true),
        Service::new(false, (OTHER_VIP, 0), Some((10, u32::MAX)), false),
    ]
}

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
enum Step {
    Request { client: u8, port: u16, service: usize, other_port: bool, says: Says },
    Reply { client: u8, port: u16, server: usize, says: Says },
    Edit { server: usize, weight: u32, nat: bool, thresholds: (u32, u32) },
    RemoveOrAdd { server: usize, nat: bool },
    Pass { seconds: u64 },
    Tune { which: usize, value: u32 },
}

fn says() -> impl Strategy<Value = Says> {
    prop_oneof![
        4 => Just(Says::Syn),
        1 => Just(Says::SynAck),
        3 => Just(Says::Ack),
        2 => Just(Says::Fin),
        1 => Just(Says::Rst),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let servers = 5 * EACH;
    prop_oneof![
        12 => (1..=5u8, 1000..1002u16, 0..5usize, any::<bool>(), says())
            .prop_map(|(client, port, service, other_port, says)| Step::Request { client, port, service, other_port, says }),
        5 => (1..=5u8, 1000..1002u16, 0..servers, says())
            .prop_map(|(client, port, server, says)| Step::Reply { client, port, server, says }),
        2 => (0..servers, prop_oneof![Just(0), Just(1), Just(5)], any::<bool>(), prop_oneof![Just((0, 0)), Just((2, 0)), Just((3, 1))])
            .prop_map(|(server, weight, nat, thresholds)| Step::Edit { server, weight, nat, thresholds }),
        1 => (0..servers, any::<bool>()).prop_map(|(server, nat)| Step::RemoveOrAdd { server, nat }),
        2 => prop_oneof![Just(1), Just(10), Just(11), Just(59), Just(60), Just(61), Just(120)]
            .prop_map(|seconds| Step::Pass { seconds }),
        1 => (0..4usize, 0..4u32).prop_map(|(which, value)| Step::Tune { which, value }),
    ]
}

fn server_addr(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, 10 + number as u8)
}

/// A server's port: its service's and 8000, which tells NAT from direct routing; of the service for all ports none.
fn server_port(service: &Service, nat: bool) -> u16 {
    match service.at.1 {
        0 => 0,
        port if nat => 8000 + port,
        port => port,
    }
}

const SERVER_SIDE: u32 = 2;
const CLIENT_SIDE: u32 = 1;
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn mac(number: usize) -> [u8; 6] {
    [2, 0, 0, 0, 2, number as u8]
}

fn key_of(service: &Service) -> ServiceKey {
    let protocol = if service.udp { Protocol::Udp } else { Protocol::Tcp };
    ServiceKey::Address { protocol, addr: IpAddr::V4(service.at.0), port: service.at.1 }
}

fn spec_of(server: &Server) -> ServerSpec {
    let method = if server.nat { Method::Masquerade } else { Method::Direct };
    let key = ServerKey { addr: IpAddr::V4(server.at.0), port: server.at.1 };
    let (upper, lower) = server.thresholds;
    ServerSpec { weight: server.weight, upper, lower, ..ServerSpec::new(key, method) }
}

/// A frame of a packet, its IPv4 header whole.
fn frame(packet: &Packet) -> Vec<u8> {
    let mut segment = [packet.from.1.to_be_bytes(), packet.to.1.to_be_bytes()].concat();
    let protocol = match packet.says {
        Some(says) => {
            let flags = match says {
                Says::Syn => 0x02,
                Says::SynAck => 0x12,
                Says::Fin => 0x11,
                Says::Ack => 0x10,
                Says::Rst => 0x04,
            };
            segment.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
            6
        }
        None => {
            segment.extend([0, 10, 0, 0, b'h', b'i']);
            17
        }
    };
    let mut ip = vec![0x45, 0, 0, (20 + segment.len()) as u8, 0, 1, 0x40, 0, 64, protocol, 0, 0];
    ip.extend(packet.from.0.octets());
    ip.extend(packet.to.0.octets());
    let sum: u32 = ip.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    [&[2, 0, 0, 0, 0, 0xfe, 2, 0, 0, 0, 0, 1, 8, 0][..], &ip, &segment].concat()
}

/// Where packets go through the core.
enum Plane<'t> {
    Host(HostEnv<'t>),
    Kernel(Xdp),
}

impl Plane<'_> {
    /// What becomes of a frame, and its bytes afterwards.
    fn run(&self, frame: &[u8]) -> (Verdictish, Vec<u8>) {
        match self {
            Self::Host(env) => {
                let mut buffer = vec![0; Frame::HEADROOM];
                buffer.extend(frame);
                let mut packet = Frame::new(&mut buffer, Frame::HEADROOM);
                let verdict = match director::balance(&mut packet, env) {
                    Verdict::Transmit { .. }
                    | Verdict::Redirect { .. }
                    | Verdict::Cut { .. }
                    | Verdict::PutTogether { .. }
                    | Verdict::Answer { .. } => Verdictish::Sent,
                    Verdict::Drop(_) => Verdictish::Dropped,
                    Verdict::Pass(_) | Verdict::Local { .. } => Verdictish::Passed,
                };
                (verdict, packet.bytes().to_vec())
            }
            Self::Kernel(xdp) => {
                let (action, bytes) = xdp.try_packet(frame).expect("the packet runs");
                let verdict = match action {
                    1 => Verdictish::Dropped,
                    2 => Verdictish::Passed,
                    3 | 4 => Verdictish::Sent,
                    other => panic!("the program returned {other}"),
                };
                (verdict, bytes)
            }
        }
    }

    fn now(&self) -> Tick {
        match self {
            Self::Host(env) => env.now(),
            Self::Kernel(xdp) => xdp.now().expect("the clock runs"),
        }
    }
}

/// As much of a verdict as an XDP action tells.
#[derive(PartialEq)]
enum Verdictish {
    Sent,
    Dropped,
    Passed,
}

struct Both<'t> {
    site: Site,
    engine: Engine,
    plane: Plane<'t>,
    tick: u32,
}

impl<'t> Both<'t> {
    fn new(tables: &'t Arc<Tables>, plane: Plane<'t>) -> Self {
        let mut both =
            Self { site: Site::new(services()), engine: Engine::new(Arc::clone(tables)), plane, tick: 1000 };
        if let Plane::Host(env) = &both.plane {
            env.set_route(Route::Via { ifindex: CLIENT_SIDE, from: mac(0xfe), to: CLIENT_MAC });
            env.set_ingress(CLIENT_SIDE);
            env.set_now(both.tick);
        }
        for service in services() {
            let persistence = service
                .persistence
                .map(|(timeout, netmask)| Persistence { timeout: timeout as u32, netmask });
            let spec = ServiceSpec {
                persistence,
                one_packet: service.one_packet,
                ..ServiceSpec::new(key_of(&service), Scheduler::Rr)
            };
            both.apply(Change::AddService(spec));
        }
        for number in 0..services().len() * EACH {
            both.add(number, number % 2 == 0);
        }
        both
    }

    fn apply(&mut self, change: Change) {
        self.engine.apply(&[change]).expect("a change that is right");
        for destination in self.engine.destinations() {
            let IpAddr::V4(addr) = destination.addr else { continue };
            let number = usize::from(addr.octets()[3] - 10);
            let hop = Hop { to: mac(number), from: mac(0xfe), ifindex: SERVER_SIDE, mtu: 1500 };
            self.engine.resolve(destination.id, &hop, IpAddr::from([10, 1, 0, 254]));
        }
    }

    fn add(&mut self, number: usize, nat: bool) {
        let service = number / EACH;
        let known = self.site.servers.get(number).map(|server| server.at);
        // One that comes back has the port that it had: its identity.
        let at = known.unwrap_or((server_addr(number), server_port(&self.site.services[service], nat)));
        let server = Server::new(service, at, nat, 1);
        self.apply(Change::AddServer(key_of(&self.site.services[service]), spec_of(&server)));
        self.site.add(server);
    }

    fn edit(&mut self, number: usize, weight: u32, nat: bool, thresholds: (u32, u32)) {
        if !self.site.servers[number].listed {
            return;
        }
        self.site.edit(number, weight, nat, thresholds);
        let server = &self.site.servers[number];
        self.apply(Change::EditServer(key_of(&self.site.services[server.service]), spec_of(server)));
    }

    fn remove(&mut self, number: usize) {
        let server = &self.site.servers[number];
        let key = ServerKey { addr: IpAddr::V4(server.at.0), port: server.at.1 };
        let service = key_of(&self.site.services[server.service]);
        self.site.remove(number);
        self.apply(Change::DeleteServer(service, key));
        if self.site.tunables.expire_nodest {
            let tables = Arc::clone(self.engine.tables());
            let slots = 0..tables.slots();
            match &self.plane {
                Plane::Host(env) => evict::drop_of_removed_servers(&tables, slots, env),
                Plane::Kernel(xdp) => evict::drop_of_removed_servers(&tables, slots, xdp),
            };
        }
    }

    fn tune(&mut self, which: usize, value: u32) {
        let (tunable, value) = match which {
            0 => (Tunable::ExpireNodestConn, value & 1),
            1 => (Tunable::ExpireQuiescentTemplate, value & 1),
            2 => (Tunable::SloppyTcp, value & 1),
            _ => (Tunable::ConnReuseMode, value),
        };
        let tunables = &mut self.site.tunables;
        match which {
            0 => tunables.expire_nodest = value == 1,
            1 => tunables.expire_quiescent = value == 1,
            2 => tunables.sloppy = value == 1,
            _ => tunables.reuse = value,
        }
        self.apply(Change::Tune(tunable, value));
    }

    fn pass(&mut self, seconds: u64) {
        let Plane::Host(env) = &self.plane else { return };
        for _ in 0..seconds {
            self.tick += Tick::PER_SECOND;
            env.set_now(self.tick);
            Sweeper::default().slice(self.engine.tables(), env.now(), usize::MAX / 2, env);
        }
        self.site.pass(seconds);
    }

    fn packet(&mut self, packet: &Packet) -> Result<(), TestCaseError> {
        let expected = self.site.packet(packet);
        let sent = frame(packet);
        let (verdict, bytes) = self.plane.run(&sent);
        let fate = match verdict {
            Verdictish::Dropped => Fate::Dropped,
            Verdictish::Passed => Fate::Passed,
            // An answer is ICMP; what goes to a server carries its MAC.
            Verdictish::Sent if bytes[23] == 1 => Fate::Refused,
            Verdictish::Sent if bytes[..5] == mac(0)[..5] => Fate::To(usize::from(bytes[5])),
            Verdictish::Sent => Fate::Back,
        };
        // The test's kernel has no way to its clients: a reply is recognised, and dropped for that.
        let lost = matches!(self.plane, Plane::Kernel(_)) && expected == Fate::Back && fate == Fate::Dropped;
        prop_assert!(fate == expected || lost, "{packet:?}: {fate:?} instead of {expected:?}");
        Ok(())
    }

    fn play(&mut self, step: Step) -> Result<(), TestCaseError> {
        let client = |number: u8| Ipv4Addr::new(10, 0, 0, number);
        match step {
            Step::Request { client: number, port, service, other_port, says } => {
                let service = &self.site.services[service];
                let to_port = match (service.at.1, other_port) {
                    (0, false) => 80,
                    (0, true) => 443,
                    (port, _) => port,
                };
                let says = (!service.udp).then_some(says);
                let to = (service.at.0, to_port);
                self.packet(&Packet { says, from: (client(number), port), to })?;
            }
            Step::Reply { client: number, port, server, says } => {
                let server = &self.site.servers[server];
                let service = &self.site.services[server.service];
                let any = |port| if port == 0 { 80 } else { port };
                let from: End = if server.nat {
                    (server.at.0, any(server.at.1))
                } else {
                    (service.at.0, any(service.at.1))
                };
                let says = (!service.udp).then_some(says);
                self.packet(&Packet { says, from, to: (client(number), port) })?;
            }
            Step::Edit { server, weight, nat, thresholds } => self.edit(server, weight, nat, thresholds),
            Step::RemoveOrAdd { server, nat } if self.site.servers[server].listed => {
                let _only_for_adding = nat;
                self.remove(server);
            }
            Step::RemoveOrAdd { server, nat } => self.add(server, nat),
            Step::Pass { seconds } => self.pass(seconds),
            Step::Tune { which, value } => self.tune(which, value),
        }
        self.compare()
    }

    /// Counts and connections are the same in both.
    fn compare(&self) -> Result<(), TestCaseError> {
        for service in self.engine.services(None) {
            for view in &service.servers {
                let number = self.site.servers.iter().position(|s| {
                    IpAddr::V4(s.at.0) == view.spec.key.addr
                        && key_of(&self.site.services[s.service]) == service.spec.key
                });
                let number = number.expect("a server of the model's");
                let expected =
                    [self.site.active(number), self.site.total(number), self.site.persistent(number)];
                let found = [view.active, view.active + view.inactive, view.persistent];
                prop_assert_eq!(found, expected, "server {}", number);
            }
        }
        let mut found = Vec::new();
        let tables = self.engine.tables();
        conns::each_in(tables, self.plane.now(), 0..tables.slots(), |view| {
            let seconds = if matches!(self.plane, Plane::Host(_)) { view.expires_ms / 1000 } else { 0 };
            found.push((view.protocol, view.client, view.virt, view.dest, view.state, seconds));
        });
        let mut expected: Vec<_> = self
            .site
            .conns
            .iter()
            .map(|conn| {
                let end = |(addr, port): End| (IpAddr::V4(addr), port).into();
                let dest = (self.site.servers[conn.server].at.0, conn.port);
                let seconds = if matches!(self.plane, Plane::Host(_)) { conn.left(self.site.now) } else { 0 };
                let protocol = if conn.udp { 17 } else { 6 };
                (protocol, end(conn.client), end(conn.virt), end(dest), conn.state.to_owned(), seconds)
            })
            .collect();
        found.sort();
        expected.sort();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(conns::discrepancies(tables), []);
        Ok(())
    }
}

fn sizes() -> Sizes {
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get()) as u32;
    Sizes { conns: 64, replies: 64, affinity: 16, ..Sizes::for_site(1, 16, 64, cpus) }
}

fn play_all(steps: &[Step], both: &mut Both<'_>) -> Result<(), TestCaseError> {
    steps.iter().try_for_each(|step| both.play(*step))
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config { cases, failure_persistence: None, max_shrink_iters: 2000, ..Config::default() })
}

#[test]
fn the_host_build_does_what_the_model_says() {
    let steps = prop::collection::vec(step(), 1..150);
    let ran = runner(3000).run(&steps, |steps| {
        let tables = Arc::new(Tables::on_heap(sizes(), 42));
        let mut both = Both::new(&tables, Plane::Host(HostEnv::new(&tables, 0)));
        play_all(&steps, &mut both)
    });
    ran.unwrap_or_else(|why| panic!("{why}"));
}

/// A BPF file system of the test's own.
struct BpfFs(PathBuf);

impl Drop for BpfFs {
    fn drop(&mut self) {
        let _unmounted = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
        let _removed = std::fs::remove_dir(&self.0);
    }
}

/// The kernel's clock is not ours, so nothing passes but packets and commands, of which there are fewer.
#[test]
fn the_loaded_programs_do_what_the_model_says() {
    let steps = prop::collection::vec(step(), 1..80);
    let ran = runner(40).run(&steps, |steps| {
        let fs = BpfFs(std::env::temp_dir().join(format!("xlvs-reference-{}", std::process::id())));
        let xdp =
            Xdp::load(Pins::on(&fs.0).expect("a BPF file system"), sizes(), 42).expect("the programs load");
        let tables = Arc::clone(xdp.tables());
        let mut both = Both::new(&tables, Plane::Kernel(xdp));
        let without_time = steps.iter().filter(|step| !matches!(step, Step::Pass { .. })).copied();
        play_all(&without_time.collect::<Vec<_>>(), &mut both)
    });
    ran.unwrap_or_else(|why| panic!("{why}"));
}
