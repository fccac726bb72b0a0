//! A virtual service.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use xlvs_core::sched;

use super::address;
use super::check::Named;
use super::entry::Entry;
use super::globals;
use super::pool;
use super::section::{Layers, Section};
use super::server::{self, Shape};
use super::words;
use crate::check::MAX_PERSISTENCE;
use crate::spec::{
    Family, Mss, Persistence, Protocol, SchedFlags, Scheduler, ServerSpec, ServiceKey, ServiceSpec,
};
use crate::state::Service;
use crate::watch::Pool;

/// The keys of a service.
pub(super) const KEYS: &[&str] = &[
    "tcp",
    "udp",
    "sctp",
    "mark",
    "family",
    "servers",
    "sorry",
    "scheduler",
    "flags",
    "persistent",
    "netmask",
    "ops",
    "mss",
    "pe",
    "method",
    "tun_type",
    "tun_port",
    "tun_csum",
    "weight",
    "upper",
    "lower",
    "check",
    "agent",
    "alpha",
    "inhibit_on_failure",
    "on_failure",
    "damping",
    "notify_up",
    "notify_down",
    "quorum",
    "hysteresis",
    "panic",
    "quorum_up",
    "quorum_down",
];

/// Those of `[defaults]`: all but what names a service and its servers.
pub(super) const DEFAULT_KEYS: &[&str] = KEYS.split_at(7).1;

/// LVS's persistence timeout when none is said, in seconds.
const PERSISTENT: u32 = 360;

/// Services that were read already, and where.
pub(super) type Seen = BTreeMap<ServiceKey, usize>;

/// Reads a service and how it is looked after; `None`: not even its identity could be read.
pub(super) fn read(layers: &Layers<'_>, named: &Named<'_>, seen: &mut Seen) -> Option<(Service, Pool)> {
    let (key, at) = identity(layers.own())?;
    if let Some(before) = seen.insert(key, at) {
        let sink = layers.own().sink();
        sink.note(at, format!("{} is there already, at line {}", name(&key), sink.line(before)));
        return None;
    }
    let spec = specification(layers, key);
    let mut pool = pool::read(layers);
    let servers = servers(layers, &spec, named, &mut pool);
    if servers.is_empty() {
        server::check_unused(layers);
        pool::check_unused(layers, named);
    }
    pool.sorry = sorry(layers, key, &servers);
    if pool.sorry.is_some() {
        pool.panic = 0;
    }
    if let Some(entry) = layers.get("servers").filter(|_| !sched::accepts(spec.scheduler, servers.len())) {
        entry.wrong(format!("{} does not take so many servers", spec.scheduler.name()));
    }
    Some((Service { spec, servers }, pool))
}

fn name(key: &ServiceKey) -> String {
    match key {
        ServiceKey::Address { protocol, addr, port } => {
            format!("{} {}", protocol.listed(), std::net::SocketAddr::new(*addr, *port))
        }
        ServiceKey::Mark { mark, family: Family::Inet } => format!("mark {mark}"),
        ServiceKey::Mark { mark, family: Family::Inet6 } => format!("mark {mark} of IPv6"),
    }
}

/// What identifies the service, and where that is said.
fn identity(section: &Section<'_>) -> Option<(ServiceKey, usize)> {
    let protocols = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("sctp", Protocol::Sctp)];
    let addresses = protocols.iter().filter_map(|(key, protocol)| Some((section.get(key)?, Some(*protocol))));
    let mark = section.get("mark").map(|entry| (entry, None));
    let mut said: Vec<(Entry<'_>, Option<Protocol>)> = addresses.chain(mark).collect();
    said.sort_by_key(|(entry, _)| entry.key_at);
    let Some(((entry, protocol), more)) = said.split_first() else {
        section.wrong("a service says where it is: tcp = \"192.0.2.10:80\", or udp, sctp or mark");
        return None;
    };
    if let Some((other, _)) = more.first() {
        let message =
            format!("a service has `{}` or `{}`, not both; make two services", entry.key, other.key);
        other.misplaced(message);
        return None;
    }
    let key = match protocol {
        Some(protocol) => at_address(section, entry, *protocol)?,
        None => of_mark(section, entry)?,
    };
    Some((key, entry.value.span().start))
}

fn at_address(section: &Section<'_>, entry: &Entry<'_>, protocol: Protocol) -> Option<ServiceKey> {
    if let Some(family) = section.get("family") {
        family.misplaced("`family` is for services of marks; an address says its own");
    }
    let (addr, port) = address::with_port(entry)?;
    let Some(port) = port else {
        let every = std::net::SocketAddr::new(addr, 0);
        entry.wrong(format!("a port is missing after \"{addr}\"; \"{every}\" is every port"));
        return None;
    };
    Some(ServiceKey::Address { protocol, addr, port })
}

fn of_mark(section: &Section<'_>, entry: &Entry<'_>) -> Option<ServiceKey> {
    let family = section.get("family").map_or(Some(Family::Inet), |entry| globals::family(&entry));
    Some(ServiceKey::Mark { mark: entry.number(1..=u32::MAX)?, family: family? })
}

fn specification(layers: &Layers<'_>, key: ServiceKey) -> ServiceSpec {
    let schedulers: Vec<_> =
        Scheduler::ALL.into_iter().chain([Scheduler::None]).map(|s| (s.name(), s)).collect();
    let scheduler = layers.get("scheduler").and_then(|entry| entry.word("scheduler", &schedulers));
    let mut spec = ServiceSpec::new(key, scheduler.unwrap_or(Scheduler::Wlc));
    spec.flags = flags(layers, spec.scheduler);
    let netmask = layers.get("netmask").and_then(|entry| netmask(&entry, key.family()));
    spec.netmask = netmask.unwrap_or(spec.netmask);
    let timeout = layers.get("persistent").and_then(|entry| persistent(&entry));
    spec.persistence = timeout.map(|timeout| Persistence { timeout, netmask: spec.netmask });
    spec.one_packet = one_packet(layers, key);
    spec.mss = mss(layers, key);
    if let Some(entry) = layers.get("pe") {
        entry.misplaced("xlvs has no persistence engines yet");
    }
    if matches!(key, ServiceKey::Address { port: 0, .. })
        && spec.persistence.is_none()
        && layers.get("persistent").is_none()
    {
        layers.own().wrong("a service of every port (port 0) is persistent; add persistent = true");
    }
    spec
}

fn flags(layers: &Layers<'_>, scheduler: Scheduler) -> SchedFlags {
    let names: [(&str, (u8, Option<Scheduler>)); 7] = [
        ("flag-1", (1, None)),
        ("flag-2", (2, None)),
        ("flag-3", (3, None)),
        ("sh-fallback", (1, Some(Scheduler::Sh))),
        ("sh-port", (2, Some(Scheduler::Sh))),
        ("mh-fallback", (1, Some(Scheduler::Mh))),
        ("mh-port", (2, Some(Scheduler::Mh))),
    ];
    let mut flags = SchedFlags::default();
    for item in layers.get("flags").iter().flat_map(Entry::items) {
        let Some((flag, of)) = item.word("scheduler flag", &names) else { continue };
        if let Some(of) = of.filter(|of| *of != scheduler) {
            item.wrong(format!(
                "{} is a flag of {}, not of {}",
                item.described(),
                of.name(),
                scheduler.name()
            ));
        }
        match flag {
            1 => flags.fallback = true,
            2 => flags.port = true,
            _ => flags.third = true,
        }
    }
    flags
}

/// `true`, or a time; `false` takes back what the defaults say.
fn persistent(entry: &Entry<'_>) -> Option<u32> {
    match entry.value.get_ref().as_bool() {
        Some(on) => on.then_some(PERSISTENT),
        None => entry.seconds(1..=MAX_PERSISTENCE),
    }
}

/// `"255.255.255.0"`, or the length of a prefix.
fn netmask(entry: &Entry<'_>, family: Family) -> Option<u32> {
    if let Some(text) = entry.value.get_ref().as_str() {
        let mask = text.parse::<Ipv4Addr>().ok().filter(|_| family == Family::Inet);
        if mask.is_none() {
            let write = match family {
                Family::Inet => "255.255.255.0, or the length of a prefix such as 24",
                Family::Inet6 => "the length of a prefix, such as 64",
            };
            entry.wrong(format!("\"{text}\" is no netmask; write {write}"));
        }
        return mask.map(u32::from);
    }
    match family {
        Family::Inet => {
            let bits = entry.number(0..=32)?;
            Some(u32::try_from(u64::from(u32::MAX) << (32 - bits) & u64::from(u32::MAX)).unwrap_or(0))
        }
        Family::Inet6 => entry.number(1..=128),
    }
}

fn one_packet(layers: &Layers<'_>, key: ServiceKey) -> bool {
    let Some(entry) = layers.get("ops") else { return false };
    let on = entry.flag().unwrap_or(false);
    let is_udp = !matches!(key, ServiceKey::Address { protocol: Protocol::Tcp | Protocol::Sctp, .. });
    if on && !is_udp && layers.get_here("ops").is_some() {
        entry.wrong("one-packet scheduling is only for UDP");
    }
    on && is_udp
}

/// `1400`, or `"auto"`; `false` takes back what the defaults say.
fn mss(layers: &Layers<'_>, key: ServiceKey) -> Option<Mss> {
    let entry = layers.get("mss")?;
    let value = entry.value.get_ref();
    let mss = match (value.as_str(), value.as_bool()) {
        (_, Some(false)) => None,
        (Some("auto"), _) => Some(Mss::Auto),
        (None, None) => {
            let (least, most) = Mss::RANGE.into_inner();
            let bytes = entry.number(u32::from(least)..=u32::from(most));
            bytes.and_then(|bytes| u16::try_from(bytes).ok()).map(Mss::Most)
        }
        _ => entry.is_not("bytes such as 1400, \"auto\" or false"),
    };
    if !matches!(key, ServiceKey::Address { protocol: Protocol::Udp | Protocol::Sctp, .. }) {
        return mss;
    }
    if mss.is_some() && layers.get_here("mss").is_some() {
        entry.misplaced("`mss` is about TCP");
    }
    None
}

fn servers(
    layers: &Layers<'_>,
    service: &ServiceSpec,
    named: &Named<'_>,
    pool: &mut Pool,
) -> Vec<ServerSpec> {
    let mut servers: Vec<ServerSpec> = Vec::new();
    let mut seen = BTreeMap::new();
    for item in layers.get("servers").iter().flat_map(Entry::items) {
        let Some((spec, own)) = server::read(&item, layers, service.key, Shape::Server) else { continue };
        if let Some(before) = seen.insert(spec.key, item.value.span().start) {
            let server = std::net::SocketAddr::new(spec.key.addr, spec.key.port);
            item.wrong(format!("server {server} is there already, at line {}", item.sink.line(before)));
            continue;
        }
        let watch = pool::watch(&own, &item, service.key, &spec, named);
        if watch != Default::default() {
            pool.servers.insert(spec.key, watch);
        }
        servers.push(spec);
    }
    servers
}

fn sorry(layers: &Layers<'_>, service: ServiceKey, servers: &[ServerSpec]) -> Option<ServerSpec> {
    let entry = layers.get("sorry")?;
    if let Some(panic) = layers.get_here("panic").filter(|panic| panic.integer() != Some(0)) {
        panic.misplaced("a service has `panic` or `sorry`: who does not believe that all are down needs nobody in their place");
    }
    let (spec, _) = server::read(&entry, layers, service, Shape::Sorry)?;
    if servers.iter().any(|server| server.key == spec.key) {
        entry.wrong(format!(
            "{} serves already; a sorry server is none of the others",
            words::quoted(&std::net::SocketAddr::new(spec.key.addr, spec.key.port).to_string())
        ));
        return None;
    }
    Some(spec)
}
