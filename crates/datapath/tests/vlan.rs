//! Frames with VLAN tags on the host build: which are balanced, and with which tags they leave.

use std::net::IpAddr;

use xlvs_core::checksum::Sum;
use xlvs_core::director;
use xlvs_core::env::Route;
use xlvs_core::packet::Frame;
use xlvs_core::server::Hop;
use xlvs_core::verdict::{PassReason, Verdict};
use xlvs_core::vlan::Tags;
use xlvs_core::wire::ethertype::{QINQ, VLAN};
use xlvs_datapath::engine::Engine;
use xlvs_datapath::host::HostEnv;
use xlvs_datapath::nexthop::VlanDevice;
use xlvs_datapath::tables::{Sizes, Tables};
use xlvs_model::spec::{Method, Protocol, Scheduler};
use xlvs_model::{Change, ServerKey, ServerSpec, ServiceKey, ServiceSpec};

const ETH: u32 = 1;
const OTHER: u32 = 2;
/// 100 and 200 on `ETH`, 6 in 5 on `ETH`, 100 on `OTHER`.
const V100: u32 = 10;
const V200: u32 = 11;
const DOUBLE: u32 = 12;
const OTHER_100: u32 = 13;

const CLIENT: [u8; 4] = [10, 0, 0, 1];
const VIP: [u8; 4] = [10, 0, 0, 100];
const SERVER: [u8; 4] = [10, 1, 0, 11];
const DIRECTOR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 2, 1];

/// A director with one service of one server, which is reached by this interface.
fn site(method: Method, by: u32) -> Tables {
    let tables = std::sync::Arc::new(Tables::on_heap(Sizes::for_site(64, 8, 8, 1), 1));
    let mut engine = Engine::new(std::sync::Arc::clone(&tables));
    let key = ServiceKey::Address { protocol: Protocol::Tcp, addr: IpAddr::from(VIP), port: 80 };
    let server = ServerKey { addr: IpAddr::from(SERVER), port: 80 };
    let changes = [
        Change::AddService(ServiceSpec::new(key, Scheduler::Rr)),
        Change::AddServer(key, ServerSpec::new(server, method)),
    ];
    engine.apply(&changes).expect("a site that is right");
    let double = Tags::one(QINQ, 5).with_inside(VLAN, 6).expect("two tags");
    let devices = [
        VlanDevice { ifindex: V100, lower: ETH, tags: Tags::one(VLAN, 100) },
        VlanDevice { ifindex: V200, lower: ETH, tags: Tags::one(VLAN, 200) },
        VlanDevice { ifindex: DOUBLE, lower: ETH, tags: double },
        VlanDevice { ifindex: OTHER_100, lower: OTHER, tags: Tags::one(VLAN, 100) },
    ];
    assert_eq!(engine.set_vlan_devices(&devices), 0, "there is room for them");
    let hop = Hop { to: SERVER_MAC, from: DIRECTOR_MAC, ifindex: by, mtu: 1500 };
    for destination in engine.destinations() {
        engine.resolve(destination.id, &hop, IpAddr::from([10, 1, 0, 254]));
    }
    drop(engine);
    std::sync::Arc::into_inner(tables).expect("nobody else holds the tables")
}

/// A TCP segment with these tags (each as on the wire) in its frame.
fn frame(tags: &[[u8; 4]], src: ([u8; 4], u16), dst: ([u8; 4], u16), flags: u8, ttl: u8) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, ttl, 6, 0, 0];
    ip.extend([src.0, dst.0].concat());
    let sum = ip.as_chunks::<4>().0.iter().fold(Sum::ZERO, |sum, word| sum.add32(*word));
    ip[10..12].copy_from_slice(&sum.checksum());
    ip.extend([src.1.to_be_bytes(), dst.1.to_be_bytes()].concat());
    ip.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    [&DIRECTOR_MAC[..], &CLIENT_MAC, &tags.concat(), &[8, 0], &ip].concat()
}

fn syn(tags: &[[u8; 4]], ttl: u8) -> Vec<u8> {
    frame(tags, (CLIENT, 40000), (VIP, 80), 2, ttl)
}

/// The verdict and the frame afterwards.
fn balance(env: &HostEnv<'_>, frame: &[u8]) -> (Verdict, Vec<u8>) {
    let mut buffer = vec![0; Frame::HEADROOM];
    buffer.extend(frame);
    let mut packet = Frame::new(&mut buffer, Frame::HEADROOM);
    let verdict = director::balance(&mut packet, env);
    (verdict, packet.bytes().to_vec())
}

/// Destination, tags, and ethertype of what they announce.
fn head(frame: &[u8]) -> ([u8; 6], Vec<[u8; 4]>, [u8; 2]) {
    let (macs, mut rest) = frame.split_at(12);
    let mut tags = Vec::new();
    while let [kind @ (0x81 | 0x88), low @ (0 | 0xa8), high_tci, low_tci, ..] = *rest {
        tags.push([kind, low, high_tci, low_tci]);
        rest = &rest[4..];
    }
    (*macs.first_chunk().expect("a MAC"), tags, *rest.first_chunk().expect("an ethertype"))
}

const TAG_100: [u8; 4] = [0x81, 0, 0, 100];
const TAG_200: [u8; 4] = [0x81, 0, 0, 200];
const IPV4: [u8; 2] = [8, 0];

#[test]
fn with_one_arm_a_frame_leaves_with_the_tag_that_it_came_with_but_not_its_priority() {
    for method in [Method::Direct, Method::Masquerade, Method::Tunnel] {
        let tables = site(method, V100);
        let env = HostEnv::new(&tables, 0);
        for (flags, which) in [(2, "the first packet"), (0x10, "a later one")] {
            let came = frame(&[[0x81, 0, 0xa0, 100]], (CLIENT, 40000), (VIP, 80), flags, 64);
            let (verdict, left) = balance(&env, &came);
            assert_eq!(verdict, Verdict::Transmit { ifindex: ETH }, "{method:?}, {which}");
            assert_eq!(head(&left), (SERVER_MAC, vec![TAG_100], IPV4), "{method:?}, {which}");
        }
    }
}

#[test]
fn the_tags_are_those_of_the_servers_way() {
    let ways = [
        (ETH, ETH, vec![]),
        (V200, ETH, vec![TAG_200]),
        (DOUBLE, ETH, vec![[0x88, 0xa8, 0, 5], [0x81, 0, 0, 6]]),
        (OTHER_100, OTHER, vec![TAG_100]),
    ];
    for (by, lower, tags) in ways {
        let tables = site(Method::Direct, by);
        let env = HostEnv::new(&tables, 0);
        for came in [&[][..], &[TAG_100], &[[0x88, 0xa8, 0x20, 5], [0x81, 0, 0x20, 6]]] {
            let (verdict, left) = balance(&env, &syn(came, 64));
            let expected = if lower == ETH {
                Verdict::Transmit { ifindex: ETH }
            } else {
                Verdict::Redirect { ifindex: lower }
            };
            assert_eq!(verdict, expected, "from {came:02x?} by {by}");
            assert_eq!(head(&left), (SERVER_MAC, tags.clone(), IPV4), "from {came:02x?}");
        }
    }
}

#[test]
fn a_tag_with_a_priority_alone_is_none() {
    let tables = site(Method::Direct, ETH);
    let env = HostEnv::new(&tables, 0);
    let (verdict, left) = balance(&env, &syn(&[[0x81, 0, 0xe0, 0]], 64));
    assert_eq!(verdict, Verdict::Transmit { ifindex: ETH });
    assert_eq!(head(&left), (SERVER_MAC, vec![], IPV4));
    let (_, left) = balance(&env, &syn(&[[0x81, 0, 0xe0, 0], TAG_100], 64));
    assert_eq!(head(&left), (SERVER_MAC, vec![], IPV4), "the inner one is a device's");
}

#[test]
fn what_is_passed_is_passed_as_it_came() {
    let tables = site(Method::Direct, V100);
    let env = HostEnv::new(&tables, 0);
    let others = frame(&[[0x81, 0, 0x60, 100]], (CLIENT, 40000), ([10, 0, 0, 9], 80), 2, 64);
    assert_eq!(balance(&env, &others), (Verdict::Pass(PassReason::NotOurs), others.clone()));
    let no_service = frame(&[[0x88, 0xa8, 0x60, 5], [0x81, 0, 0x70, 6]], (CLIENT, 40000), (VIP, 81), 2, 64);
    assert_eq!(balance(&env, &no_service), (Verdict::Pass(PassReason::NoService), no_service.clone()));
    for tags in [&[[0x81, 0, 0, 101]][..], &[[0x88, 0xa8, 0, 100]], &[TAG_100, TAG_100], &[TAG_100; 3]] {
        let strange = syn(tags, 64);
        assert_eq!(
            balance(&env, &strange),
            (Verdict::Pass(PassReason::Vlan), strange.clone()),
            "{tags:02x?}"
        );
    }
    env.set_ingress(OTHER);
    let elsewhere = syn(&[TAG_200], 64);
    assert_eq!(balance(&env, &elsewhere), (Verdict::Pass(PassReason::Vlan), elsewhere.clone()));
}

#[test]
fn an_icmp_error_goes_back_by_the_device_that_the_packet_came_by() {
    let tables = site(Method::Direct, V200);
    let env = HostEnv::new(&tables, 0);
    let (verdict, left) = balance(&env, &syn(&[[0x81, 0, 0x60, 100]], 1));
    assert_eq!(verdict, Verdict::Answer { ifindex: ETH });
    assert_eq!(head(&left), (CLIENT_MAC, vec![TAG_100], IPV4));
    assert_eq!(left[18 + 20], 11, "time exceeded");
}

#[test]
fn a_reply_of_nat_gets_the_tags_of_its_clients_way() {
    let tables = site(Method::Masquerade, V200);
    let env = HostEnv::new(&tables, 0);
    let (verdict, _) = balance(&env, &syn(&[TAG_100], 64));
    assert_eq!(verdict, Verdict::Transmit { ifindex: ETH });
    for (by, lower, tags) in
        [(V100, ETH, vec![TAG_100]), (OTHER_100, OTHER, vec![TAG_100]), (ETH, ETH, vec![])]
    {
        env.set_routes(move |asked| {
            assert_eq!(asked.ifindex, V200, "the kernel is asked as if the reply had come by its device");
            Route::Via { ifindex: by, from: DIRECTOR_MAC, to: CLIENT_MAC }
        });
        let (verdict, left) = balance(&env, &frame(&[TAG_200], (SERVER, 80), (CLIENT, 40000), 0x12, 64));
        let expected = if lower == ETH {
            Verdict::Transmit { ifindex: ETH }
        } else {
            Verdict::Redirect { ifindex: lower }
        };
        assert_eq!(verdict, expected);
        assert_eq!(head(&left), (CLIENT_MAC, tags, IPV4));
    }
}

#[test]
fn a_fragment_is_handed_over_without_tags_as_its_devices() {
    let tables = site(Method::Direct, V100);
    let env = HostEnv::new(&tables, 0);
    let mut came = syn(&[TAG_100], 64);
    let ip = 18;
    came[ip + 6] = 0x20;
    came[ip + 10..ip + 12].copy_from_slice(&[0, 0]);
    let sum = came[ip..ip + 20].as_chunks::<4>().0.iter().fold(Sum::ZERO, |sum, word| sum.add32(*word));
    came[ip + 10..ip + 12].copy_from_slice(&sum.checksum());
    let (verdict, handed) = balance(&env, &came);
    assert_eq!(verdict, Verdict::PutTogether { ifindex: V100 });
    assert_eq!(head(&handed), (DIRECTOR_MAC, vec![], IPV4));
    let (_, next) = balance(&env, &frame(&[], (CLIENT, 40001), ([10, 0, 0, 9], 80), 2, 64));
    assert_eq!(head(&next).1, Vec::<[u8; 4]>::new(), "the next frame has nothing of it");
}

#[test]
fn no_more_devices_than_there_is_room_for() {
    let tables = std::sync::Arc::new(Tables::on_heap(Sizes::for_site(64, 8, 8, 1), 1));
    let engine = Engine::new(tables);
    let device = |id: u16| VlanDevice { ifindex: u32::from(id) + 10, lower: ETH, tags: Tags::one(VLAN, id) };
    let devices: Vec<VlanDevice> = (1..=300).map(device).collect();
    assert_eq!(engine.set_vlan_devices(&devices), 44);
    assert_eq!(engine.set_vlan_devices(&[]), 0);
}
