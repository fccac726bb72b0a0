//! What holds for every table and every command line.

mod common;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStringExt;

use common::{Director, call, ipvsadm};
use proptest::prelude::*;
use xlvs_ipvsadm::{Applet, table};
use xlvs_model::spec::{Method, Protocol, Scheduler, TunnelChecksum, TunnelType};
use xlvs_model::{
    Change, Family, Model, Persistence, SchedFlags, ServerKey, ServerSpec, ServiceKey, ServiceSpec, Tunnel,
};

/// Addresses less than 2^31 apart: the order of others has circles, as the original's has, and depends on the order in which
/// they were added.
fn any_addr(family: Family) -> BoxedStrategy<IpAddr> {
    match family {
        Family::Inet => (0..2_u8, 1..255_u8)
            .prop_map(|(net, host)| Ipv4Addr::new(net * 64 + 10, 0, 0, host).into())
            .boxed(),
        Family::Inet6 => (0..4_u16, 1..0x8000_u16)
            .prop_map(|(net, host)| Ipv6Addr::new(0x2001 + net * 0x2000, 0, net, 0, 0, 0, 0, host).into())
            .boxed(),
    }
}

fn any_family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::Inet), Just(Family::Inet6)]
}

fn any_port() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0), Just(53), Just(80), Just(443), any::<u16>()]
}

fn any_key() -> impl Strategy<Value = ServiceKey> {
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)];
    let address = (any_family(), protocol, any_port()).prop_flat_map(|(family, protocol, port)| {
        any_addr(family).prop_map(move |addr| ServiceKey::Address { protocol, addr, port })
    });
    // The original saves a mark of 2^31 and more as a negative number, which it does not take back.
    let mark = (1..1_u32 << 31, any_family()).prop_map(|(mark, family)| ServiceKey::Mark { mark, family });
    prop_oneof![4 => address, 1 => mark]
}

fn any_service() -> impl Strategy<Value = ServiceSpec> {
    let scheduler =
        proptest::sample::select(Scheduler::ALL.into_iter().chain([Scheduler::None]).collect::<Vec<_>>());
    let persistence = proptest::option::of((1..=2_678_400_u32, any::<u32>(), 1..=128_u32));
    let engine = proptest::option::of(Just("sip".to_owned()));
    (any_key(), scheduler, any::<[bool; 4]>(), persistence, engine).prop_map(
        |(key, scheduler, [fallback, port, third, one_packet], persistence, engine)| {
            let family = key.family();
            let netmask = |(_, mask, prefix)| if family == Family::Inet { mask } else { prefix };
            let every_port = matches!(key, ServiceKey::Address { port: 0, .. });
            let persistence = if every_port { persistence.or(Some((1, u32::MAX, 128))) } else { persistence };
            // The third flag has no name for these two schedulers, and is lost in a save.
            let nameless = matches!(scheduler, Scheduler::Sh | Scheduler::Mh);
            ServiceSpec {
                scheduler,
                flags: SchedFlags { fallback, port, third: third && !nameless },
                // Without -p the mask is lost in a save.
                netmask: persistence.map_or(family.whole_netmask(), netmask),
                persistence: persistence.map(|p| Persistence { timeout: p.0, netmask: netmask(p) }),
                engine,
                one_packet: one_packet && takes_one_packet(&key),
                ..ServiceSpec::new(key, scheduler)
            }
        },
    )
}

fn takes_one_packet(key: &ServiceKey) -> bool {
    matches!(key, ServiceKey::Mark { .. } | ServiceKey::Address { protocol: Protocol::Udp, .. })
}

fn any_tunnel() -> impl Strategy<Value = Tunnel> {
    let gue =
        proptest::sample::select(vec![TunnelChecksum::None, TunnelChecksum::Full, TunnelChecksum::Remote]);
    let gre = proptest::sample::select(vec![TunnelChecksum::None, TunnelChecksum::Full]);
    prop_oneof![
        Just(Tunnel::default()),
        (1..=u16::MAX, gue).prop_map(|(port, checksum)| Tunnel { kind: TunnelType::Gue, port, checksum }),
        gre.prop_map(|checksum| Tunnel { kind: TunnelType::Gre, port: 0, checksum }),
    ]
}

/// A server of a service that a command could have made. Thresholds are lost in a save.
fn any_server(service: ServiceKey) -> impl Strategy<Value = ServerSpec> {
    let own = service.family();
    let address = prop_oneof![3 => Just(own), 1 => any_family()].prop_flat_map(any_addr);
    let method = prop_oneof![Just(Method::Masquerade), Just(Method::Tunnel), Just(Method::Direct)];
    (address, any_port(), method, any_tunnel(), 0..=i32::MAX as u32).prop_map(
        move |(addr, port, method, tunnel, weight)| {
            let method = if Family::of(addr) == own { method } else { Method::Tunnel };
            let port = match service {
                ServiceKey::Address { port: own, .. } if method != Method::Masquerade => own,
                _ => port,
            };
            let tunnel = if method == Method::Tunnel { tunnel } else { Tunnel::default() };
            ServerSpec { tunnel, weight, ..ServerSpec::new(ServerKey { addr, port }, method) }
        },
    )
}

fn any_model() -> impl Strategy<Value = Model> {
    let service = any_service().prop_flat_map(|spec| {
        let servers = proptest::collection::vec(any_server(spec.key), 0..5);
        (Just(spec), servers)
    });
    proptest::collection::vec(service, 0..8).prop_map(|services| {
        let mut model = Model::default();
        for (spec, servers) in services {
            let key = spec.key;
            // Two of one identity: the second is refused, and so are its servers' twins.
            _ = model.apply(&Change::AddService(spec));
            for server in servers {
                _ = model.apply(&Change::AddServer(key, server));
            }
        }
        model
    })
}

/// The same with the servers in the order of a save, which is that of their addresses.
fn as_saved(model: &Model) -> Vec<(ServiceSpec, Vec<ServerSpec>)> {
    let mut services: Vec<_> = model.services().iter().map(|s| (s.spec.clone(), s.servers.clone())).collect();
    services.sort_by_key(|(spec, _)| spec.key);
    services.iter_mut().for_each(|(_, servers)| servers.sort_by_key(|server| server.key));
    services
}

/// Words that could mean something, and some that could not.
fn any_word() -> impl Strategy<Value = Vec<u8>> {
    let names: Vec<Vec<u8>> = table::rows()
        .flat_map(|row| {
            let shorts = row.shorts.chars().map(|short| format!("-{short}"));
            shorts.chain([format!("--{}", row.long), format!("--{}=80", row.long)]).collect::<Vec<_>>()
        })
        .map(String::into_bytes)
        .collect();
    let values = [
        "10.0.0.1:80",
        "10.0.0.1",
        "[fd00::1]:80",
        "fd00::1",
        "::",
        "[",
        "[]:",
        "80",
        "0",
        "-1",
        "4294967295",
        "master",
        "backup",
        "rr",
        "sh",
        "wlc",
        "gue",
        "gre",
        "sh-port",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.0",
        "1..2",
        "0x",
        "",
        "-",
        "--",
        "-=",
        "--=",
        "99999999999999999999",
        "1.2.3.4.5.6.7.8.9",
        "ipvsadm",
    ];
    let values: Vec<Vec<u8>> = values.iter().map(|value| value.as_bytes().to_vec()).collect();
    prop_oneof![
        6 => proptest::sample::select(names),
        6 => proptest::sample::select(values),
        1 => proptest::collection::vec(any::<u8>(), 0..12),
        1 => "-[a-zA-Z6=]{1,6}".prop_map(String::into_bytes),
    ]
}

proptest! {
    #[test]
    fn what_is_saved_is_restored(model in any_model(), numeric in any::<bool>()) {
        let save = if numeric { "-Sn" } else { "-S" };
        let mut original = Director { model, ..Director::default() };
        let saved = ipvsadm(&mut original, save, "");
        let mut restored = Director::default();
        let done = ipvsadm(&mut restored, "-R", &saved.out);
        prop_assert_eq!((done.rc, done.err.as_str()), (0, ""), "{}", saved.out);
        prop_assert_eq!(as_saved(&restored.model), as_saved(&original.model), "{}", saved.out);
        prop_assert_eq!(ipvsadm(&mut restored, save, ""), saved);
        let listing = ipvsadm(&mut original, "-Ln", "");
        prop_assert_eq!(ipvsadm(&mut restored, "-Ln", ""), listing);
    }

    #[test]
    fn no_command_line_is_too_strange(words in proptest::collection::vec(any_word(), 0..8)) {
        let args: Vec<_> = words.iter().cloned().map(OsString::from_vec).collect();
        let done = call(Applet::Ipvsadm, &mut Director::default(), args.clone(), b"");
        prop_assert!([0, 1, 2, 255].contains(&done.rc), "{:?}", done);
        prop_assert_eq!(done.rc == 0, done.err.is_empty(), "{:?}", done);
        let saved = call(Applet::Save, &mut Director::default(), args, b"");
        prop_assert!([0, 1].contains(&saved.rc), "{:?}", saved);
    }

    #[test]
    fn no_input_is_too_strange(words in proptest::collection::vec(any_word(), 0..20), breaks in any::<u32>()) {
        let mut text = Vec::new();
        for (at, word) in words.iter().enumerate() {
            text.extend_from_slice(word);
            text.push(if breaks >> at & 1 == 1 { b'\n' } else { b' ' });
        }
        for applet in [Applet::Ipvsadm, Applet::Restore] {
            let done = call(applet, &mut Director::default(), vec!["-R".into()], &text);
            prop_assert!([0, 1, 2, 255].contains(&done.rc), "{:?}", done);
        }
    }
}
