//! What a model takes, what it refuses, and that a plan leads where it says.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::select;
use xlvs_model::change::{SyncDaemon, SyncRole};
use xlvs_model::spec::{Method, Mss, Protocol, Scheduler, TunnelChecksum, TunnelType};
use xlvs_model::{
    Change, Family, MarkRule, Model, Persistence, Refusal, SchedFlags, ServerKey, ServerSpec, ServiceKey,
    ServiceSpec, Timeouts, Tunable, Tunnel, diff, supported,
};

fn address(text: &str) -> ServiceKey {
    let at: std::net::SocketAddr = text.parse().expect("an address");
    ServiceKey::Address { protocol: Protocol::Tcp, addr: at.ip(), port: at.port() }
}

fn at(text: &str) -> ServerKey {
    let at: std::net::SocketAddr = text.parse().expect("an address");
    ServerKey { addr: at.ip(), port: at.port() }
}

fn nat(text: &str) -> ServerSpec {
    ServerSpec::new(at(text), Method::Masquerade)
}

/// One service 10.0.0.100:80 with one server.
fn small() -> (Model, ServiceKey) {
    let key = address("10.0.0.100:80");
    let mut model = Model::default();
    model.apply(&Change::AddService(ServiceSpec::new(key, Scheduler::Rr))).expect("add service");
    model.apply(&Change::AddServer(key, nat("10.1.0.11:80"))).expect("add server");
    (model, key)
}

fn daemon(role: SyncRole) -> SyncDaemon {
    SyncDaemon { role, interface: "eth0".into(), syncid: 1, maxlen: 0, group: None, port: 0, ttl: 0 }
}

#[track_caller]
fn refuses(model: &Model, change: Change, refusal: Refusal) {
    let mut changed = model.clone();
    assert_eq!(changed.apply(&change), Err(refusal), "{change:?}");
    assert_eq!(&changed, model, "a refused change left something behind");
}

#[test]
fn what_is_there_cannot_be_added_and_what_is_not_cannot_be_changed() {
    let (model, key) = small();
    let other = address("10.0.0.100:81");
    refuses(&model, Change::AddService(ServiceSpec::new(key, Scheduler::Rr)), Refusal::Exists);
    refuses(&model, Change::EditService(ServiceSpec::new(other, Scheduler::Rr)), Refusal::NoService);
    refuses(&model, Change::DeleteService(other), Refusal::NoService);
    refuses(&model, Change::Zero(Some(other)), Refusal::NoService);
    refuses(&model, Change::AddServer(other, nat("10.1.0.11:80")), Refusal::NoService);
    refuses(&model, Change::AddServer(key, nat("10.1.0.11:80")), Refusal::Exists);
    refuses(&model, Change::EditServer(key, nat("10.1.0.12:80")), Refusal::NotFound);
    refuses(&model, Change::EditServer(other, nat("10.1.0.11:80")), Refusal::NoService);
    refuses(&model, Change::DeleteServer(key, at("10.1.0.12:80")), Refusal::NotFound);
    refuses(&model, Change::DeleteServer(other, at("10.1.0.11:80")), Refusal::NoService);
}

#[test]
fn a_mark_is_another_service_in_each_family() {
    let mut model = Model::default();
    for family in [Family::Inet, Family::Inet6] {
        let key = ServiceKey::Mark { mark: 6, family };
        assert_eq!(model.apply(&Change::AddService(ServiceSpec::new(key, Scheduler::Rr))), Ok(()));
    }
    let zero = ServiceKey::Mark { mark: 0, family: Family::Inet };
    refuses(&model, Change::AddService(ServiceSpec::new(zero, Scheduler::Rr)), Refusal::Invalid);
}

#[test]
fn an_edit_replaces_all_but_the_identity() {
    let (mut model, key) = small();
    let spec = ServerSpec { weight: 9, upper: 10, lower: 5, ..nat("10.1.0.11:80") };
    model.apply(&Change::EditServer(key, spec)).expect("edit");
    model.apply(&Change::EditServer(key, nat("10.1.0.11:80"))).expect("edit back");
    assert_eq!(model.service(&key).expect("service").servers, [nat("10.1.0.11:80")]);
}

#[test]
fn a_server_keeps_the_bounds_that_the_kernel_sets() {
    let (model, key) = small();
    let fresh = nat("10.1.0.12:80");
    let beyond = i32::MAX as u32 + 1;
    let add = |spec| Change::AddServer(key, spec);
    refuses(&model, add(ServerSpec { weight: beyond, ..fresh }), Refusal::OutOfRange);
    refuses(&model, add(ServerSpec { upper: 5, lower: 10, ..fresh }), Refusal::OutOfRange);
    refuses(&model, add(ServerSpec { lower: 10, ..fresh }), Refusal::OutOfRange);
    refuses(&model, add(ServerSpec { upper: beyond, ..fresh }), Refusal::Invalid);
    refuses(&model, add(ServerSpec { method: Method::Local, ..fresh }), Refusal::Invalid);
    let gue = Tunnel { kind: TunnelType::Gue, ..Tunnel::default() };
    refuses(&model, add(ServerSpec { method: Method::Tunnel, tunnel: gue, ..fresh }), Refusal::Invalid);
}

#[test]
fn a_server_has_a_unicast_address() {
    let (model, key) = small();
    for refused in ["0.0.0.0:80", "224.0.0.1:80", "255.255.255.255:80"] {
        refuses(&model, Change::AddServer(key, nat(refused)), Refusal::Invalid);
    }
    for taken in ["127.0.0.1:80", "10.0.0.254:80", "0.0.0.1:80", "240.0.0.1:80"] {
        assert_eq!(model.clone().apply(&Change::AddServer(key, nat(taken))), Ok(()), "{taken}");
    }
    let six = address("[fd00::100]:80");
    let mut model = Model::default();
    model.apply(&Change::AddService(ServiceSpec::new(six, Scheduler::Rr))).expect("add service");
    for refused in ["[::]:80", "[ff02::1]:80", "[fe80::1]:80", "[::ffff:10.0.0.1]:80"] {
        refuses(&model, Change::AddServer(six, nat(refused)), Refusal::Invalid);
    }
    assert_eq!(model.apply(&Change::AddServer(six, nat("[fd01::11]:80"))), Ok(()));
}

#[test]
fn the_other_family_needs_a_tunnel_and_no_synchronisation() {
    let (mut model, key) = small();
    let six = at("[fd01::11]:80");
    for method in [Method::Masquerade, Method::Direct] {
        refuses(&model, Change::AddServer(key, ServerSpec::new(six, method)), Refusal::Invalid);
    }
    let tunnelled = Change::AddServer(key, ServerSpec::new(six, Method::Tunnel));
    model.apply(&Change::StartSync(daemon(SyncRole::Master))).expect("start");
    refuses(&model, tunnelled.clone(), Refusal::Invalid);
    model.apply(&Change::StopSync(SyncRole::Master)).expect("stop");
    model.apply(&tunnelled).expect("add");
    refuses(&model, Change::StartSync(daemon(SyncRole::Master)), Refusal::Invalid);
}

#[test]
fn a_service_has_a_known_engine_and_a_possible_mask() {
    let (model, _) = small();
    let six = ServiceSpec::new(address("[fd00::100]:80"), Scheduler::Rr);
    for netmask in [0, 129] {
        refuses(&model, Change::AddService(ServiceSpec { netmask, ..six.clone() }), Refusal::Invalid);
    }
    refuses(&model, Change::AddService(ServiceSpec { engine: Some("ftp".into()), ..six }), Refusal::NotFound);
}

#[test]
fn a_timeout_of_zero_keeps_the_old_one() {
    let mut model = Model::default();
    model.apply(&Change::SetTimeouts(Timeouts { tcp: 100, tcp_fin: 0, udp: 30 })).expect("set");
    assert_eq!(model.timeouts(), Timeouts { tcp: 100, tcp_fin: 120, udp: 30 });
    let long = Timeouts { tcp: u32::MAX, tcp_fin: 0, udp: 0 };
    refuses(&model, Change::SetTimeouts(long), Refusal::Invalid);
}

#[test]
fn each_daemon_runs_once_and_shows_its_defaults() {
    let mut model = Model::default();
    refuses(&model, Change::StopSync(SyncRole::Backup), Refusal::NoService);
    model.apply(&Change::StartSync(daemon(SyncRole::Backup))).expect("start backup");
    model.apply(&Change::StartSync(daemon(SyncRole::Master))).expect("start master");
    refuses(&model, Change::StartSync(daemon(SyncRole::Master)), Refusal::Exists);
    let [master, backup] = model.daemons() else { panic!("two daemons") };
    assert_eq!((master.role, backup.role), (SyncRole::Master, SyncRole::Backup));
    assert_eq!((master.maxlen, master.port, master.ttl), (1472, 8848, 1));
    assert_eq!(master.group, Some("224.0.0.81".parse::<IpAddr>().expect("group")));
}

#[test]
fn a_flush_takes_the_services_and_leaves_the_timeouts() {
    let (mut model, key) = small();
    model.apply(&Change::SetTimeouts(Timeouts { tcp: 1, tcp_fin: 2, udp: 3 })).expect("set");
    model.apply(&Change::Flush).expect("flush");
    assert_eq!((model.services().len(), model.service(&key)), (0, None));
    assert_eq!(model.timeouts(), Timeouts { tcp: 1, tcp_fin: 2, udp: 3 });
}

#[test]
fn services_stand_in_order_of_addition_also_after_removals() {
    let keys: Vec<_> = (1..=5).map(|port| address(&format!("10.0.0.1:{port}"))).collect();
    let mut model = Model::default();
    for key in &keys {
        model.apply(&Change::AddService(ServiceSpec::new(*key, Scheduler::Rr))).expect("add");
    }
    for key in [keys[0], keys[2]] {
        model.apply(&Change::DeleteService(key)).expect("delete");
    }
    model.apply(&Change::AddService(ServiceSpec::new(keys[0], Scheduler::Wlc))).expect("add again");
    let listed: Vec<_> = model.services().iter().map(|s| s.spec.key).collect();
    assert_eq!(listed, [keys[1], keys[3], keys[4], keys[0]]);
    assert_eq!(model.service(&keys[0]).map(|s| s.spec.scheduler), Some(Scheduler::Wlc));
}

#[test]
fn ten_thousand_services_with_ten_servers_each_are_applied_at_once() {
    let began = Instant::now();
    let mut model = Model::default();
    for n in 0..10_000_u32 {
        let key =
            ServiceKey::Address { protocol: Protocol::Tcp, addr: IpAddr::from(n.to_be_bytes()), port: 80 };
        model.apply(&Change::AddService(ServiceSpec::new(key, Scheduler::Rr))).expect("add service");
        for server in 1..=10 {
            let spec = nat(&format!("10.1.0.{server}:80"));
            model.apply(&Change::AddServer(key, spec)).expect("add server");
        }
    }
    assert_eq!(diff(&Model::default(), &model).len(), 110_000);
    for change in diff(&model, &Model::default()) {
        model.apply(&change).expect("delete");
    }
    // A scan per change would take minutes; the bound leaves room for a slow, busy machine.
    assert!(began.elapsed() < Duration::from_secs(20), "took {:?}", began.elapsed());
}

#[test]
fn what_the_data_plane_lacks_is_refused_with_a_sentence() {
    let key = ServiceKey::Address { protocol: Protocol::Udp, addr: [10, 0, 0, 1].into(), port: 5060 };
    let sip = ServiceSpec { engine: Some("sip".to_owned()), ..ServiceSpec::new(key, Scheduler::Rr) };
    let refused = [Change::StartSync(daemon(SyncRole::Master)), Change::AddService(sip)];
    for change in refused {
        let Err(Refusal::Unsupported(sentence)) = supported(&change) else {
            panic!("{change:?} is let through")
        };
        assert!(sentence.ends_with('.'), "{sentence}");
    }
    let (_, key) = small();
    assert_eq!(supported(&Change::AddService(ServiceSpec::new(key, Scheduler::Rr))), Ok(()));
    assert_eq!(supported(&Change::AddServer(key, nat("10.1.0.11:80"))), Ok(()));
}

#[test]
fn a_file_cannot_hold_what_a_command_could_not_say() {
    let (model, _) = small();
    let text = serde_json::to_string(&model).expect("to JSON");
    let twice = text.replace("10.1.0.11", "224.0.0.1");
    let error = serde_json::from_str::<Model>(&twice).expect_err("a multicast server");
    assert!(error.to_string().starts_with("invalid operation"), "{error}");
    assert!(serde_json::from_str::<Model>(&text.replace("services", "servcies")).is_err());
}

#[test]
fn a_new_first_server_takes_its_place_also_in_a_running_director() {
    let (old, key) = small();
    let mut new = Model::default();
    new.apply(&Change::AddService(ServiceSpec::new(key, Scheduler::Rr))).expect("add service");
    for server in ["10.1.0.10:80", "10.1.0.11:80"] {
        new.apply(&Change::AddServer(key, nat(server))).expect("add server");
    }
    let delete = Change::DeleteServer(key, at("10.1.0.11:80"));
    let add = ["10.1.0.10:80", "10.1.0.11:80"].map(|server| Change::AddServer(key, nat(server)));
    assert_eq!(diff(&old, &new), [vec![delete], add.to_vec()].concat());
    assert_eq!(diff(&new, &old), [Change::DeleteServer(key, at("10.1.0.10:80"))]);
}

/// Changes over a small world, so that they meet each other often.
fn any_change() -> impl Strategy<Value = Change> {
    let role = prop_oneof![Just(SyncRole::Master), Just(SyncRole::Backup)];
    let rule = (1..3u32, 0..3u16).prop_map(|(mark, port)| MarkRule {
        mark,
        family: Family::Inet,
        to: None,
        ports: (port, port),
        protocol: None,
    });
    prop_oneof![
        1 => (0..5u32).prop_map(|value| Change::Tune(Tunable::DropEntry, value)),
        1 => rule.clone().prop_map(Change::AddMark),
        1 => rule.prop_map(Change::DeleteMark),
        6 => any_service().prop_map(Change::AddService),
        3 => any_service().prop_map(Change::EditService),
        1 => any_key().prop_map(Change::DeleteService),
        12 => (any_key(), any_server()).prop_map(|(key, server)| Change::AddServer(key, server)),
        4 => (any_key(), any_server()).prop_map(|(key, server)| Change::EditServer(key, server)),
        4 => (any_key(), any_server()).prop_map(|(key, server)| Change::DeleteServer(key, server.key)),
        1 => (0..3_u32, 0..3_u32, 0..3_u32)
            .prop_map(|(tcp, tcp_fin, udp)| Change::SetTimeouts(Timeouts { tcp, tcp_fin, udp })),
        1 => (role.clone(), 0..3_u8)
            .prop_map(|(role, syncid)| Change::StartSync(SyncDaemon { syncid, ..daemon(role) })),
        1 => role.prop_map(Change::StopSync),
    ]
}

/// Changes of few services that often concern the same one.
fn any_service_change() -> impl Strategy<Value = Change> {
    let protocol = select(&[Protocol::Tcp, Protocol::Udp][..]);
    let mss = proptest::option::of(select(&[Mss::Auto, Mss::Most(1400)][..]));
    let spec =
        (protocol, 0..3_u8, select(&[0_u16, 21, 80][..]), mss).prop_map(|(protocol, host, port, mss)| {
            let key = ServiceKey::Address { protocol, addr: [10, 0, 0, host].into(), port };
            // Without persistence there is none for all ports.
            let netmask = key.family().whole_netmask();
            let persistence = (port == 0).then_some(Persistence { timeout: 60, netmask });
            ServiceSpec { mss, persistence, ..ServiceSpec::new(key, Scheduler::Rr) }
        });
    let mark = (1..3_u32)
        .prop_map(|mark| ServiceSpec::new(ServiceKey::Mark { mark, family: Family::Inet }, Scheduler::Rr));
    let spec = prop_oneof![9 => spec, 1 => mark];
    (0..20, spec).prop_map(|(what, spec)| match what {
        0 => Change::Flush,
        1..9 => Change::AddService(spec),
        9..15 => Change::EditService(spec),
        _ => Change::DeleteService(spec.key),
    })
}

fn any_key() -> impl Strategy<Value = ServiceKey> {
    prop_oneof![
        (0..3_u8, 0..2_u16).prop_map(|(host, port)| address(&format!("10.0.0.{host}:{port}"))),
        (1..3_u32).prop_map(|mark| ServiceKey::Mark { mark, family: Family::Inet }),
        Just(address("[fd00::100]:80")),
    ]
}

fn any_service() -> impl Strategy<Value = ServiceSpec> {
    let scheduler = prop_oneof![Just(Scheduler::Rr), Just(Scheduler::Sh), Just(Scheduler::None)];
    (any_key(), scheduler, any::<bool>(), any::<bool>(), proptest::option::of((1..3_u32, 1..129_u32)))
        .prop_map(|(key, scheduler, fallback, one_packet, persistence)| ServiceSpec {
            flags: SchedFlags { fallback, ..SchedFlags::default() },
            persistence: persistence.map(|(timeout, netmask)| Persistence { timeout, netmask }),
            one_packet,
            ..ServiceSpec::new(key, scheduler)
        })
}

fn any_server() -> impl Strategy<Value = ServerSpec> {
    let key = prop_oneof![
        5 => (11..17_u8).prop_map(|host| at(&format!("10.1.0.{host}:80"))),
        1 => Just(at("[fd01::11]:80"))
    ];
    let method = prop_oneof![Just(Method::Masquerade), Just(Method::Tunnel), Just(Method::Direct)];
    let tunnel = prop_oneof![
        Just(Tunnel::default()),
        Just(Tunnel { kind: TunnelType::Gue, port: 6080, checksum: TunnelChecksum::Remote })
    ];
    (key, method, tunnel, 0..3_u32, 0..3_u32, 0..3_u32).prop_map(
        |(key, method, tunnel, weight, upper, lower)| ServerSpec {
            key,
            method,
            tunnel,
            weight,
            upper,
            lower,
        },
    )
}

/// A model as any history of changes, refused ones included, leaves it.
fn any_model() -> impl Strategy<Value = Model> {
    proptest::collection::vec(any_change(), 0..60).prop_map(|changes| {
        let mut model = Model::default();
        for change in changes {
            let before = model.clone();
            if model.apply(&change).is_err() {
                assert_eq!(model, before, "a refused change left something behind: {change:?}");
            }
        }
        model
    })
}

proptest! {
    #[test]
    fn a_plan_leads_from_any_model_to_any_other(old in any_model(), new in any_model()) {
        let mut model = old.clone();
        for change in diff(&old, &new) {
            prop_assert_eq!(model.apply(&change), Ok(()), "{:?}", change);
        }
        prop_assert_eq!(&model, &new);
        prop_assert!(diff(&model, &new).is_empty());
        prop_assert_eq!(diff(&old, &new).is_empty(), old == new);
    }

    #[test]
    fn the_tally_is_what_a_search_finds(changes in proptest::collection::vec(any_service_change(), 0..60)) {
        let mut model = Model::default();
        for change in &changes {
            // Changes that are refused count nothing.
            let _outcome = model.apply(change);
            let keys: Vec<ServiceKey> = model.services().iter().map(|service| service.spec.key).collect();
            let serves = |which: &dyn Fn(Protocol, IpAddr, u16) -> bool| {
                keys.iter().any(|key| match *key {
                    ServiceKey::Address { protocol, addr, port } => which(protocol, addr, port),
                    ServiceKey::Mark { .. } => false,
                })
            };
            let tally = model.tally();
            prop_assert_eq!(tally.serves_all_ports(), serves(&|_, _, port| port == 0));
            prop_assert_eq!(tally.serves_ftp(), serves(&|protocol, _, port| (protocol, port) == (Protocol::Tcp, 21)));
            prop_assert_eq!(tally.has_mss(), model.services().iter().any(|service| service.spec.mss.is_some()));
            for host in 0..4 {
                let vip = IpAddr::from([10, 0, 0, host]);
                prop_assert_eq!(tally.is_vip(&vip), serves(&|_, addr, _| addr == vip), "{}", vip);
            }
        }
    }

    #[test]
    fn a_model_comes_back_from_json(model in any_model()) {
        let text = serde_json::to_string(&model).expect("to JSON");
        let back: Model = serde_json::from_str(&text).expect("from JSON");
        prop_assert_eq!(back.services(), model.services());
        prop_assert_eq!(back, model);
    }
}
