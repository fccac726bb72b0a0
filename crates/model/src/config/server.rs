//! A real server.

use std::net::{Ipv4Addr, SocketAddr};

use super::address;
use super::entry::Entry;
use super::section::{Layers, Section};
use crate::check;
use crate::spec::{Family, Method, ServerKey, ServerSpec, ServiceKey, Tunnel, TunnelChecksum, TunnelType};

/// The keys of a server.
pub(super) const KEYS: &[&str] = &[
    "address",
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
];

/// Those that a service has too, for its servers: all but the address.
pub const OF_SERVERS: &[&str] = KEYS.split_at(1).1;

/// Those of a sorry server, which nobody looks after.
const SORRY_KEYS: &[&str] = KEYS.split_at(8).0;

/// The greatest weight and threshold.
const MAX: u32 = i32::MAX as u32;

/// What is read: the words of a sorry server are fewer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Server,
    Sorry,
}

/// Reads `"10.0.0.11:80"`, or a table with more, and with it the layers in which the rest is said of it.
pub(super) fn read<'d>(
    entry: &Entry<'d>,
    service: &Layers<'d>,
    key: ServiceKey,
    shape: Shape,
) -> Option<(ServerSpec, Layers<'d>)> {
    let (layers, at) = if entry.value.get_ref().as_table().is_some() {
        let (what, keys) = match shape {
            Shape::Server => ("a server", KEYS),
            Shape::Sorry => ("a sorry server", SORRY_KEYS),
        };
        let section = Section::of(entry, what, keys)?;
        let Some(at) = section.get("address") else {
            section.wrong(format!("{what} has an `address` such as \"10.0.0.11:80\""));
            return None;
        };
        (service.below(section), at)
    } else {
        (service.clone(), *entry)
    };
    let spec = specification(&layers, &at, key)?;
    Some((spec, layers))
}

fn specification(layers: &Layers<'_>, at: &Entry<'_>, service: ServiceKey) -> Option<ServerSpec> {
    let (addr, said_port) = address::with_port(at)?;
    let method = method(layers)?;
    let port = port(at, service, method, said_port)?;
    let mut spec = ServerSpec::new(ServerKey { addr, port }, method);
    if check::server_address(addr).is_err() {
        at.wrong(format!("{addr} is no address of a server: it is not unicast, or only of one link"));
        return None;
    }
    if check::families(service.family(), &spec, false).is_err() {
        let family = if service.family() == Family::Inet { "IPv4" } else { "IPv6" };
        at.wrong(format!("the service is {family}; a server of the other family needs method = \"tun\""));
        return None;
    }
    fill(&mut spec, layers)?;
    Some(spec)
}

/// All but address and method.
fn fill(spec: &mut ServerSpec, layers: &Layers<'_>) -> Option<()> {
    let number = |key, default| layers.get(key).map_or(Some(default), |entry| entry.number(0..=MAX));
    spec.tunnel = tunnel(layers, spec.method)?;
    spec.weight = number("weight", 1)?;
    spec.upper = number("upper", 0)?;
    spec.lower = number("lower", 0)?;
    if let Some(entry) = layers.get("lower").filter(|_| spec.lower > spec.upper) {
        entry.wrong(format!("`lower` must not be above `upper`, and {} is above {}", spec.lower, spec.upper));
        return None;
    }
    Some(())
}

/// What is said of the servers of a service that has none must be right too.
pub(super) fn check_unused(layers: &Layers<'_>) {
    let nobody = ServerKey { addr: Ipv4Addr::UNSPECIFIED.into(), port: 0 };
    if let Some(method) = method(layers) {
        _ = fill(&mut ServerSpec::new(nobody, method), layers);
    }
}

fn method(layers: &Layers<'_>) -> Option<Method> {
    let methods = [("nat", Method::Masquerade), ("dr", Method::Direct), ("tun", Method::Tunnel)];
    layers.get("method").map_or(Some(Method::Direct), |entry| entry.word("method", &methods))
}

/// The server's port is the service's where none is said; only NAT can have another.
fn port(at: &Entry<'_>, service: ServiceKey, method: Method, said: Option<u16>) -> Option<u16> {
    let ServiceKey::Address { port: own, .. } = service else { return Some(said.unwrap_or(0)) };
    match said {
        Some(port) if port != own && method != Method::Masquerade => {
            let word = if method == Method::Tunnel { "a tunnel" } else { "direct routing" };
            at.wrong(format!("{word} cannot change the port {own} to {port}; leave it out, or use NAT"));
            None
        }
        Some(port) => Some(port),
        None => Some(own),
    }
}

fn tunnel(layers: &Layers<'_>, method: Method) -> Option<Tunnel> {
    let keys = ["tun_type", "tun_port", "tun_csum"];
    if method != Method::Tunnel {
        // What is inherited may be there for other servers.
        if let Some(entry) = keys.iter().find_map(|key| layers.own().get(key)).filter(|_| is_own(layers)) {
            entry.misplaced(format!("`{}` is for method = \"tun\"", entry.key));
        }
        return Some(Tunnel::default());
    }
    let types = [("ipip", TunnelType::IpIp), ("gue", TunnelType::Gue), ("gre", TunnelType::Gre)];
    let kind = layers.get("tun_type").map_or(Some(TunnelType::IpIp), |e| e.word("tunnel type", &types))?;
    let port = match (layers.get("tun_port"), kind) {
        (Some(entry), TunnelType::Gue) => entry.port()?,
        (None, TunnelType::Gue) => {
            layers.own().wrong("a GUE tunnel needs its `tun_port`, for instance 6080");
            return None;
        }
        (Some(entry), _) if is_overruled(layers, &entry) => 0,
        (Some(entry), _) => {
            entry.misplaced("`tun_port` is for tun_type = \"gue\"");
            return None;
        }
        (None, _) => 0,
    };
    Some(Tunnel { kind, port, checksum: checksum(layers, kind)? })
}

/// Is the nearest table the server's own, and not its service's?
fn is_own(layers: &Layers<'_>) -> bool {
    layers.own().get("address").is_some()
}

/// Does the server have a tunnel type of its own, which what is said for its service need not suit?
fn is_overruled(layers: &Layers<'_>, inherited: &Entry<'_>) -> bool {
    let own = layers.own();
    is_own(layers) && own.get("tun_type").is_some() && own.get(inherited.key).is_none()
}

fn checksum(layers: &Layers<'_>, kind: TunnelType) -> Option<TunnelChecksum> {
    let Some(entry) = layers.get("tun_csum") else { return Some(TunnelChecksum::None) };
    let all = [
        ("nocsum", TunnelChecksum::None),
        ("csum", TunnelChecksum::Full),
        ("remcsum", TunnelChecksum::Remote),
    ];
    let possible: &[_] = match kind {
        TunnelType::IpIp if is_overruled(layers, &entry) => return Some(TunnelChecksum::None),
        TunnelType::IpIp => {
            entry.misplaced("`tun_csum` is for GUE and GRE tunnels");
            return None;
        }
        TunnelType::Gre => &all[..2],
        TunnelType::Gue => &all,
    };
    entry.word("checksum of such a tunnel", possible)
}

/// A server by name.
pub(super) fn name(key: &ServerKey) -> String {
    SocketAddr::new(key.addr, key.port).to_string()
}
