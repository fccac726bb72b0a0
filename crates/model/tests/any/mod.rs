//! Random configurations of a small world, so that two of them have much in common.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use xlvs_model::config::{Config, Hook, Http, Sizes};
use xlvs_model::spec::{Method, Mss, Protocol, Scheduler, TunnelChecksum, TunnelType};
use xlvs_model::watch::{
    AgentSpec, CheckKind, CheckSpec, Command, DnsSpec, GrpcSpec, HttpSpec, HttpVersion, OnFailure, Pool,
    Record, SmtpSpec, Timing, TlsSpec, UdpSpec, Via, Watch,
};
use xlvs_model::{
    Change, Family, MarkRule, Persistence, SchedFlags, ServerKey, ServerSpec, ServiceKey, ServiceSpec,
    Timeouts, Tunable, Tunnel,
};

/// A configuration as a file can say it.
pub fn any_config() -> impl Strategy<Value = Config> {
    let services = btree_map(any_key(), any_service(), 0..5);
    let globals = (
        (option::of(Just("eth0".to_owned())), option::of(prop_oneof![Just(Hook::Xdp), Just(Hook::Tc)])),
        (any_sizes(), any_serving()),
        (1..2000_u32, 1..300_u32, 1..400_u32),
        0..4_u32,
        vec(any_mark(), 0..3),
    );
    (services, globals).prop_map(
        |(services, ((interface, hook), (sizes, http), (tcp, tcp_fin, udp), drop_entry, marks))| {
            let interfaces = interface.into_iter().collect();
            let mut config = Config { interfaces, hook, sizes, http, ..Config::default() };
            let mut apply = |change: Change| config.model.apply(&change).is_ok();
            apply(Change::SetTimeouts(Timeouts { tcp, tcp_fin, udp }));
            apply(Change::Tune(Tunable::DropEntry, drop_entry));
            marks.into_iter().for_each(|rule| _ = apply(Change::AddMark(rule)));
            for (key, service) in services {
                add(&mut config, key, service);
            }
            config.pruned()
        },
    )
}

type AnyService = (ServiceSpec, BTreeMap<ServerKey, (ServerSpec, Watch)>, Pool);

/// Fits what was drawn to the service's identity, as a file must.
fn add(config: &mut Config, key: ServiceKey, (spec, servers, pool): AnyService) {
    let is_udp = !matches!(key, ServiceKey::Address { protocol: Protocol::Tcp | Protocol::Sctp, .. });
    let persistence = spec.persistence.map(|p| Persistence { netmask: mask(key, p.netmask), ..p });
    let netmask = persistence.map_or(mask(key, spec.netmask), |p| p.netmask);
    let has_segments = !matches!(key, ServiceKey::Address { protocol: Protocol::Udp | Protocol::Sctp, .. });
    let (one_packet, mss) = (spec.one_packet && is_udp, spec.mss.filter(|_| has_segments));
    let spec = ServiceSpec { key, persistence, netmask, one_packet, mss, ..spec };
    config.model.apply(&Change::AddService(spec)).expect("a service");
    let mut pool = Pool { hysteresis: pool.hysteresis % pool.quorum, ..pool };
    for (server, (spec, mut watch)) in servers {
        if matches!(key, ServiceKey::Mark { .. }) {
            // It has no address that a check could carry.
            watch.checks.iter_mut().for_each(|check| check.via = Via::Server);
        }
        let spec = fitted(key, ServerSpec { key: server, ..spec });
        if config.model.apply(&Change::AddServer(key, spec)).is_ok() && watch != Watch::default() {
            pool.servers.insert(spec.key, watch);
        }
    }
    pool.sorry = pool.sorry.map(|sorry| fitted(key, sorry));
    pool.sorry =
        pool.sorry.filter(|sorry| sorry.key.family() == key.family() || sorry.method == Method::Tunnel);
    if pool.sorry.is_some() {
        pool.panic = 0;
    }
    config.pools.insert(key, pool);
}

fn mask(key: ServiceKey, drawn: u32) -> u32 {
    match key.family() {
        Family::Inet => drawn,
        Family::Inet6 => drawn % 128 + 1,
    }
}

fn fitted(service: ServiceKey, server: ServerSpec) -> ServerSpec {
    let tunnel = if server.method == Method::Tunnel { server.tunnel } else { Tunnel::default() };
    let port = match service {
        ServiceKey::Address { port, .. } if server.method != Method::Masquerade => port,
        _ => server.key.port,
    };
    ServerSpec { tunnel, key: ServerKey { port, ..server.key }, ..server }
}

fn any_key() -> impl Strategy<Value = ServiceKey> {
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)];
    let addr = prop_oneof!["192\\.0\\.2\\.[1-3]", "2001:db8::[1-3]"];
    let address = (protocol, addr, 1..4_u16).prop_map(|(protocol, addr, port)| ServiceKey::Address {
        protocol,
        addr: addr.parse().expect("one"),
        port,
    });
    let family = prop_oneof![Just(Family::Inet), Just(Family::Inet6)];
    let mark = (prop_oneof![1..3_u32, Just(u32::MAX)], family)
        .prop_map(|(mark, family)| ServiceKey::Mark { mark, family });
    prop_oneof![4 => address, 1 => mark]
}

fn any_service() -> impl Strategy<Value = AnyService> {
    let scheduler = proptest::sample::select(&Scheduler::ALL[..]);
    let any_key = ServiceKey::Mark { mark: 1, family: Family::Inet };
    let spec = (
        scheduler,
        any::<[bool; 4]>(),
        option::of(1..2_678_401_u32),
        prop_oneof![Just(u32::MAX), any::<u32>()],
        option::of(prop_oneof![Just(Mss::Auto), Mss::RANGE.prop_map(Mss::Most)]),
    )
        .prop_map(move |(scheduler, [fallback, port, third, one_packet], persistence, netmask, mss)| {
            ServiceSpec {
                flags: SchedFlags { fallback, port, third },
                persistence: persistence.map(|timeout| Persistence { timeout, netmask }),
                netmask,
                one_packet,
                mss,
                ..ServiceSpec::new(any_key, scheduler)
            }
        });
    let servers = btree_map(any_server_key(), (any_server(), any_watch()), 0..5);
    (spec, servers, any_pool())
}

fn any_server_key() -> impl Strategy<Value = ServerKey> {
    (prop_oneof![4 => "10\\.0\\.0\\.[1-6]", 1 => "fd00::[1-3]"], prop_oneof![Just(80_u16), 0..9000_u16])
        .prop_map(|(addr, port)| ServerKey { addr: addr.parse().expect("an address"), port })
}

fn any_server() -> impl Strategy<Value = ServerSpec> {
    let method = prop_oneof![Just(Method::Masquerade), Just(Method::Tunnel), Just(Method::Direct)];
    let checksum =
        || prop_oneof![Just(TunnelChecksum::None), Just(TunnelChecksum::Full), Just(TunnelChecksum::Remote)];
    let tunnel = prop_oneof![
        Just(Tunnel::default()),
        (1..u16::MAX, checksum()).prop_map(|(port, checksum)| Tunnel {
            kind: TunnelType::Gue,
            port,
            checksum
        }),
        any::<bool>().prop_map(|on| Tunnel {
            kind: TunnelType::Gre,
            port: 0,
            checksum: if on { TunnelChecksum::Full } else { TunnelChecksum::None },
        }),
    ];
    let weight = prop_oneof![0..3_u32, Just(i32::MAX as u32)];
    let key = ServerKey { addr: [10, 0, 0, 1].into(), port: 80 };
    (method, tunnel, weight, 0..1000_u32, 0..1000_u32).prop_map(move |(method, tunnel, weight, a, b)| {
        ServerSpec { tunnel, weight, upper: a.max(b), lower: a.min(b), ..ServerSpec::new(key, method) }
    })
}

fn any_pool() -> impl Strategy<Value = Pool> {
    let sorry = (any_server_key(), any_server()).prop_map(|(key, spec)| ServerSpec { key, ..spec });
    let quorum = (1..5_u32, any::<u32>(), 0..101_u32);
    (quorum, option::of(sorry), option::of(any_command()), option::of(any_command())).prop_map(
        |((quorum, hysteresis, panic), sorry, quorum_up, quorum_down)| Pool {
            quorum,
            hysteresis,
            panic,
            sorry,
            quorum_up,
            quorum_down,
            servers: BTreeMap::new(),
        },
    )
}

fn any_watch() -> impl Strategy<Value = Watch> {
    let words = (option::of(any_command()), option::of(any_command()));
    (
        vec(any_check(), 0..3),
        option::of(any_agent()),
        any::<(bool, bool, bool)>(),
        words,
        option::of(1..9_u64),
    )
        .prop_map(|(checks, agent, (alpha, inhibit, reset), (notify_up, notify_down), damping)| {
            let watched = !checks.is_empty() || agent.is_some();
            Watch {
                alpha: alpha && !checks.is_empty(),
                inhibit_on_failure: inhibit && watched,
                damping: damping.filter(|_| !checks.is_empty()).map(Duration::from_secs),
                on_failure: if reset && watched { OnFailure::Reset } else { OnFailure::Keep },
                notify_up: notify_up.filter(|_| watched),
                notify_down: notify_down.filter(|_| watched),
                checks,
                agent,
            }
        })
}

fn any_command() -> impl Strategy<Value = Command> {
    (Just("/usr/bin/logger".to_owned()), vec(any_text(), 0..3))
        .prop_map(|(program, arguments)| [program].into_iter().chain(arguments).collect())
}

/// With what must be escaped in a file.
fn any_text() -> impl Strategy<Value = String> {
    "[a-z \"\\\\\n\tä#']{0,8}"
}

fn any_check() -> impl Strategy<Value = CheckSpec> {
    let kind = prop_oneof![
        Just(CheckKind::Tcp),
        any_http().prop_map(CheckKind::Http),
        (option::of(any_tls()), option::of("[a-z]{1,5}(:80)?"), "[a-zA-Z.]{0,9}")
            .prop_map(|(tls, host, service)| CheckKind::Grpc(GrpcSpec { tls, host, service })),
        (any_text(), option::of("[a-z.\"]{0,5}"))
            .prop_map(|(send, answer)| CheckKind::Udp(UdpSpec { send, answer })),
        (prop_oneof![Just(".".to_owned()), "[a-z]{1,5}\\.example\\.?"], 0..Record::ALL.len())
            .prop_map(|(name, record)| CheckKind::Dns(DnsSpec { name, record: Record::ALL[record].1 })),
        option::of("[a-z]{1,5}").prop_map(|helo| CheckKind::Smtp(SmtpSpec { helo })),
        Just(CheckKind::Ping),
        any_text().prop_map(|text| CheckKind::File(format!("/{text}"))),
        any_command().prop_map(CheckKind::Script)
    ];
    let address =
        option::of("10\\.9\\.0\\.[1-3]").prop_map(|addr| addr.map(|a| a.parse().expect("an address")));
    (kind, address, 1..u16::MAX, any::<bool>(), any_timing()).prop_map(
        |(kind, address, port, is_path, timing)| {
            let can_be = (kind.speaks_tcp() || kind.speaks_udp()) && address.is_none();
            let via = if is_path && can_be { Via::Path } else { Via::Server };
            CheckSpec { kind, address, port, via, timing }
        },
    )
}

fn any_http() -> impl Strategy<Value = HttpSpec> {
    let over = (option::of(any_tls()), prop_oneof![Just(HttpVersion::One), Just(HttpVersion::Two)]);
    let status = proptest::collection::btree_set(100..600_u16, 1..3)
        .prop_map(|codes| codes.into_iter().map(|code| (code, (code + 9).min(599))).collect());
    let body = (option::of("[a-z.\"]{0,5}"), option::of("[0-9a-f]{64}"));
    (over, "/[a-z?=&]{0,5}", option::of("[a-z]{1,5}(:80)?"), status, body).prop_map(
        |((tls, version), path, host, status, (body, digest))| HttpSpec {
            tls,
            version,
            path,
            host,
            status,
            body,
            digest,
        },
    )
}

fn any_tls() -> impl Strategy<Value = TlsSpec> {
    (option::of("[a-z]{1,5}\\.example"), any::<bool>(), 0..90_u64).prop_map(|(sni, verify, days)| TlsSpec {
        verify: verify && sni.is_some(),
        sni,
        warn_expiry: Duration::from_secs(days * 86_400),
    })
}

fn any_timing() -> impl Strategy<Value = Timing> {
    let ms = |range: std::ops::Range<u64>| range.prop_map(Duration::from_millis);
    (
        ms(50..100_000),
        ms(1..100_000),
        1..5_u32,
        1..5_u32,
        option::of((1..3_u32, ms(0..10_000))),
        ms(0..10_000),
    )
        .prop_map(|(interval, timeout, rise, fall, retries, warmup)| {
            let usual = Timing::default();
            let (retry, delay_before_retry) = retries.unwrap_or((0, usual.delay_before_retry));
            Timing { interval, timeout, rise, fall, retry, delay_before_retry, warmup }
        })
}

fn any_agent() -> impl Strategy<Value = AgentSpec> {
    let times = (50..9000_u64, 1..9000_u64, 0..90_000_u64);
    let percents = (1..300_u16, 1..101_u16, 0..101_u16);
    (1..u16::MAX, times, option::of(any_text()), percents).prop_map(
        |(port, (interval, timeout, slow_start), send, (most, smoothing, step))| AgentSpec {
            interval: Duration::from_millis(interval),
            timeout: Duration::from_millis(timeout),
            slow_start: Duration::from_millis(slow_start),
            send,
            most,
            smoothing,
            step,
            ..AgentSpec::at(port)
        },
    )
}

fn any_sizes() -> impl Strategy<Value = Sizes> {
    (option::of(1000..100_000_u32), option::of(1..100_u32)).prop_map(|(max_conns, max_services)| Sizes {
        max_conns,
        max_services,
        ..Sizes::default()
    })
}

fn any_serving() -> impl Strategy<Value = Http> {
    let secured = prop_oneof![Just(None), Just(Some("192.0.2.1:443")), Just(Some("[::1]:9110"))];
    (secured, option::of(Just("adm".to_owned())), any::<bool>()).prop_map(|(listen, group, per_server)| {
        Http {
            listen: listen.map(|at| at.parse().expect("an address")),
            tls: listen.map(|_| ("a \"certificate\".pem".into(), "key.pem".into())),
            tokens: listen.map(|_| "tokens".into()),
            group,
            per_server,
        }
    })
}

fn any_mark() -> impl Strategy<Value = MarkRule> {
    let to = option::of(prop_oneof![("192\\.0\\.2\\.[1-3]", 0..33_u8), ("2001:db8::[1-3]", 0..129_u8)]);
    let ports =
        prop_oneof![Just((0, u16::MAX)), (0..100_u16, 0..100_u16).prop_map(|(a, b)| (a.min(b), a.max(b)))];
    let protocol = option::of(prop_oneof![Just(Protocol::Tcp as u8), Just(Protocol::Udp as u8)]);
    (1..3_u32, to, any::<bool>(), ports, protocol).prop_map(|(mark, to, six, ports, protocol)| {
        let to = to.map(|(addr, prefix)| (addr.parse().expect("an address"), prefix));
        let unnamed = if six { Family::Inet6 } else { Family::Inet };
        MarkRule { mark, family: to.map_or(unnamed, |(addr, _)| Family::of(addr)), to, ports, protocol }
    })
}
