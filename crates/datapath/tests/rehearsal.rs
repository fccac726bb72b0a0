//! A rehearsal tells what the director then does, and leaves every byte of the tables as it was.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use proptest::prelude::*;
use xlvs_core::conn::word::Tick;
use xlvs_core::director;
use xlvs_core::env::Route;
use xlvs_core::packet::Frame;
use xlvs_core::server::Hop;
use xlvs_core::verdict::{DropReason, PassReason, Verdict};
use xlvs_core::vlan::Tags;
use xlvs_datapath::engine::Engine;
use xlvs_datapath::host::HostEnv;
use xlvs_datapath::nexthop::VlanDevice;
use xlvs_datapath::rehearsal::{Rehearsal, Routes, Tuple};
use xlvs_datapath::tables::{Sizes, Tables};
use xlvs_model::spec::{Method, Protocol, Scheduler};
use xlvs_model::{Change, Family, ServerKey, ServerSpec, ServiceKey, ServiceSpec, Tunable};

const VIP: [u8; 4] = [10, 0, 0, 100];
const PORT: u16 = 80;
const INGRESS: u32 = 1;
const SEED: u64 = 0x5eed;

fn tables() -> Arc<Tables> {
    let sizes = Sizes { affinity: 64, choices: 4096, ..Sizes::for_site(1000, 16, 64, 1) };
    Arc::new(Tables::on_heap(sizes, 42))
}

fn service(protocol: Protocol, scheduler: Scheduler) -> ServiceSpec {
    let key = ServiceKey::Address { protocol, addr: address(VIP), port: PORT };
    ServiceSpec::new(key, scheduler)
}

fn server(number: u8, method: Method, weight: u32) -> ServerSpec {
    let key = ServerKey { addr: address([10, 1, 0, 10 + number]), port: PORT };
    ServerSpec { weight, ..ServerSpec::new(key, method) }
}

fn address(addr: [u8; 4]) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(addr))
}

/// Servers whose number is a multiple of five have no next hop.
fn resolve(engine: &Engine) {
    for destination in engine.destinations() {
        let IpAddr::V4(addr) = destination.addr else { continue };
        let number = addr.octets()[3] - 10;
        if number % 5 != 0 {
            let hop = Hop { to: [2, 0, 0, 0, 2, number], from: [2, 0, 0, 0, 1, 0xfe], ifindex: 2, mtu: 1500 };
            engine.resolve(destination.id, &hop, address([10, 1, 0, 254]));
        }
    }
}

/// A whole packet without a payload; transport checksums do not matter to a director.
fn frame(tuple: &Tuple, flags: u8) -> Vec<u8> {
    let (SocketAddr::V4(src), SocketAddr::V4(dst)) = (tuple.client, tuple.dest) else { unreachable!() };
    let mut l4 = [src.port().to_be_bytes(), dst.port().to_be_bytes()].concat();
    if tuple.protocol == 6 {
        l4.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0x20, 0, 1, 2, 0, 0]);
    } else {
        l4.extend([0, 8, 0, 0]);
    }
    let mut ip = vec![0x45, 0, 0, 20 + l4.len() as u8, 0, 1, 0x40, 0, 64, tuple.protocol, 0, 0];
    ip.extend(src.ip().octets());
    ip.extend(dst.ip().octets());
    let sum = ip.chunks(2).fold(0u32, |s, p| s + u32::from(u16::from_be_bytes([p[0], p[1]])));
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    [vec![2, 0, 0, 0, 0, 0xfe, 2, 0, 0, 0, 0, 1, 8, 0], ip, l4].concat()
}

fn play(env: &HostEnv<'_>, frame: &[u8]) -> (Verdict, Vec<u8>) {
    let mut buffer = vec![0; Frame::HEADROOM];
    buffer.extend(frame);
    let mut packet = Frame::new(&mut buffer, Frame::HEADROOM);
    let verdict = director::balance(&mut packet, env);
    (verdict, packet.bytes().to_vec())
}

/// All bytes of all tables.
fn memory(t: &Tables) -> Vec<u64> {
    fn words<T>(records: &[T]) -> Vec<u64> {
        // SAFETY: records consist of 64-bit cells or pairs of 32-bit ones, and nobody writes them now.
        unsafe { std::slice::from_raw_parts(records.as_ptr().cast::<u64>(), size_of_val(records) / 8) }
            .to_vec()
    }
    let tables = [words(&t.conns_v4), words(&t.replies_v4), words(&t.services_v4), words(&t.affinity)];
    let records = [words(&t.sets), words(&t.choices), words(&t.config), words(&t.services), words(&t.blocks)];
    let counts = [words(&t.servers), words(&t.stats), words(&t.counters)];
    [tables.concat(), records.concat(), counts.concat()].concat()
}

fn tuple(client: u8, port: u16, dest_port: u16, protocol: u8) -> Tuple {
    let client = SocketAddr::new(address([10, 0, 0, client]), port);
    Tuple { client, dest: SocketAddr::new(address(VIP), dest_port), protocol }
}

#[derive(Clone, Debug)]
struct Step {
    tuple: Tuple,
    flags: u8,
    /// Quarter seconds that pass before.
    pause: u32,
}

fn step() -> impl Strategy<Value = Step> {
    let tuple = (
        1u8..5,
        40_000u16..40_010,
        prop_oneof![4 => Just(PORT), 1 => Just(81)],
        prop_oneof![Just(6u8), Just(17)],
    )
        .prop_map(|(client, port, dest, protocol)| tuple(client, port, dest, protocol));
    let flags = prop::sample::select(vec![0x02u8, 0x02, 0x10, 0x18, 0x11, 0x04]);
    let pause = prop_oneof![6 => 0u32..3, 1 => 200u32..600];
    (tuple, flags, pause).prop_map(|(tuple, flags, pause)| Step { tuple, flags, pause })
}

fn servers() -> impl Strategy<Value = Vec<(Method, u32)>> {
    let method = prop::sample::select(vec![Method::Masquerade, Method::Direct, Method::Tunnel]);
    prop::collection::vec((method, 0u32..4), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_is_rehearsed_is_what_happens(
        schedulers in prop::collection::vec(prop::sample::select(Scheduler::ALL.to_vec()), 2),
        servers in servers(),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let tables = tables();
        let mut engine = Engine::new(Arc::clone(&tables));
        for (protocol, scheduler) in [Protocol::Tcp, Protocol::Udp].into_iter().zip(schedulers) {
            let service = service(protocol, scheduler);
            let mut changes = vec![Change::AddService(service.clone())];
            changes.extend(servers.iter().zip(1..).map(|((method, weight), number)| {
                Change::AddServer(service.key, server(number, *method, *weight))
            }));
            engine.apply(&changes).expect("a site that is right");
        }
        resolve(&engine);
        let env = HostEnv::new(&tables, 0);
        env.set_route(Route::Via { ifindex: INGRESS, from: [0; 6], to: [0; 6] });
        let mut now = 1000;
        for step in steps {
            now += step.pause;
            env.set_now(now);
            env.set_random_seed(SEED);
            let frame = frame(&step.tuple, step.flags);
            let before = memory(&tables);
            let stage = Rehearsal::of(&tables, Tick::new(now), INGRESS, SEED);
            let told = stage.play(&frame, &step.tuple);
            prop_assert!(memory(&tables) == before, "the rehearsal left traces");
            let (verdict, bytes) = play(&env, &frame);
            prop_assert_eq!(told.verdict, verdict);
            prop_assert!(told.frame == bytes);
            let after = Rehearsal::of(&tables, Tick::new(now), INGRESS, SEED).connection(&step.tuple);
            prop_assert_eq!(told.connection, after);
        }
    }
}

#[test]
fn a_new_connection_tells_whom_the_scheduler_chose_and_a_known_one_that_nobody_was_asked() {
    for scheduler in [Scheduler::Rr, Scheduler::Wlc, Scheduler::Sh] {
        let tables = tables();
        let mut engine = Engine::new(Arc::clone(&tables));
        let service = service(Protocol::Tcp, scheduler);
        let servers = (1..=3).map(|n| Change::AddServer(service.key, server(n, Method::Masquerade, 1)));
        let changes: Vec<Change> =
            std::iter::once(Change::AddService(service.clone())).chain(servers).collect();
        engine.apply(&changes).expect("a site that is right");
        resolve(&engine);
        let tuple = tuple(1, 40_000, PORT, 6);
        let stage = Rehearsal::of(&tables, Tick::new(0), INGRESS, SEED);
        assert_eq!(stage.connection(&tuple), None);
        let told = stage.play(&frame(&tuple, 0x02), &tuple);
        let asked = told.asked.expect("the scheduler was asked");
        let connection = told.connection.expect("a connection was made");
        assert_eq!((asked.chosen, connection.view.state.as_str()), (Some(connection.server), "SYN_RECV"));
        assert_eq!(Rehearsal::of(&tables, Tick::new(0), INGRESS, SEED).connection(&tuple), None);

        let env = HostEnv::new(&tables, 0);
        let (_sent, _) = play(&env, &frame(&tuple, 0x02));
        let stage = Rehearsal::of(&tables, Tick::new(1), INGRESS, SEED);
        assert_eq!(stage.connection(&tuple).map(|c| c.server), Some(connection.server));
        assert_eq!(stage.play(&frame(&tuple, 0x10), &tuple).asked, None);
    }
}

#[test]
fn a_server_without_a_next_hop_is_chosen_and_the_packet_is_dropped() {
    let tables = tables();
    let mut engine = Engine::new(Arc::clone(&tables));
    let service = service(Protocol::Udp, Scheduler::Rr);
    let changes =
        [Change::AddService(service.clone()), Change::AddServer(service.key, server(5, Method::Direct, 1))];
    engine.apply(&changes).expect("a site that is right");
    resolve(&engine);
    let tuple = tuple(1, 40_000, PORT, 17);
    let told = Rehearsal::of(&tables, Tick::new(0), INGRESS, SEED).play(&frame(&tuple, 0), &tuple);
    assert_eq!(told.verdict, Verdict::Drop(DropReason::Unresolved));
    assert!(told.asked.is_some_and(|asked| asked.chosen.is_some()));
}

#[test]
fn a_tagged_packet_is_rehearsed_where_a_device_takes_its_tags() {
    let tables = tables();
    let mut engine = Engine::new(Arc::clone(&tables));
    let service = service(Protocol::Tcp, Scheduler::Rr);
    let changes =
        [Change::AddService(service.clone()), Change::AddServer(service.key, server(1, Method::Direct, 1))];
    engine.apply(&changes).expect("a site that is right");
    resolve(&engine);
    let tuple = tuple(1, 40_000, PORT, 6);
    let mut tagged = frame(&tuple, 0x02);
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    let told = || Rehearsal::of(&tables, Tick::new(0), INGRESS, SEED).play(&tagged, &tuple).verdict;
    assert_eq!(told(), Verdict::Pass(PassReason::Vlan));
    engine.set_vlan_devices(&[VlanDevice { ifindex: 9, lower: INGRESS, tags: Tags::one(0x8100, 5) }]);
    assert_eq!(told(), Verdict::Redirect { ifindex: 2 });
}

/// All but the director's addresses is by one neighbour.
struct Elsewhere;

impl Routes for Elsewhere {
    fn route(&self, ifindex: u32, _from: IpAddr, _to: IpAddr) -> Route {
        assert_eq!(ifindex, INGRESS, "it is asked for as it came");
        Route::Via { ifindex: 3, from: [0; 6], to: [2, 0, 0, 0, 3, 1] }
    }

    fn leads_elsewhere(&self, _ifindex: u32, _from: IpAddr, _to: IpAddr, mark: u32) -> bool {
        mark == 0
    }
}

#[test]
fn a_packet_without_a_server_goes_where_the_routes_say() {
    let tables = tables();
    let mut engine = Engine::new(Arc::clone(&tables));
    let key = ServiceKey::Mark { mark: 8, family: Family::Inet };
    let changes = [
        Change::Tune(Tunable::CacheBypass, 1),
        Change::AddMark("8 --to 10.9.0.0/16".parse().expect("a rule")),
        Change::AddService(ServiceSpec::new(key, Scheduler::Rr)),
    ];
    engine.apply(&changes).expect("a site that is right");
    let tuple = Tuple {
        client: "10.0.0.1:40000".parse().unwrap(),
        dest: "10.9.0.1:80".parse().unwrap(),
        protocol: 6,
    };
    let with = Rehearsal::by(Rc::new(Elsewhere), &tables, Tick::new(0), INGRESS, SEED);
    let told = with.play(&frame(&tuple, 0x02), &tuple);
    assert_eq!(told.verdict, Verdict::Redirect { ifindex: 3 });
    assert!(told.is_bypassed() && told.routed && told.frame[..6] == [2, 0, 0, 0, 3, 1], "{told:?}");
    let without = Rehearsal::of(&tables, Tick::new(0), INGRESS, SEED).play(&frame(&tuple, 0x02), &tuple);
    assert!(!without.is_bypassed() && matches!(without.verdict, Verdict::Answer { .. }), "{without:?}");
}
