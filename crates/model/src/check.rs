//! What kernel IPVS checks before it takes a service, a server or a timeout, in its order.

use std::net::{IpAddr, Ipv6Addr};

use xlvs_core::method::{Method, TunnelType};

use crate::refusal::Refusal;
use crate::spec::{Family, ServerSpec, ServiceKey, ServiceSpec, Timeouts};

/// The longest persistence timeout in seconds: 31 days.
pub const MAX_PERSISTENCE: u32 = 31 * 86_400;

/// The longest connection timeout in seconds: what a signed 32-bit count of Debian's 250 Hz ticks holds.
pub const MAX_TIMEOUT: u32 = i32::MAX as u32 / 250;

pub(crate) fn service(spec: &ServiceSpec) -> Result<(), Refusal> {
    if matches!(spec.key, ServiceKey::Mark { mark: 0, .. }) {
        return Err(Refusal::Invalid);
    }
    if spec.engine.as_deref().is_some_and(|name| name != "sip") {
        return Err(Refusal::NotFound);
    }
    let netmask = spec.persistence.map_or(spec.netmask, |p| p.netmask);
    if spec.key.family() == Family::Inet6 && !(1..=128).contains(&netmask) {
        return Err(Refusal::Invalid);
    }
    if spec.persistence.is_some_and(|p| !(1..=MAX_PERSISTENCE).contains(&p.timeout)) {
        return Err(Refusal::Invalid);
    }
    Ok(())
}

/// A server of the other family is reached through a tunnel only, and never while connections are synchronised.
pub(crate) fn families(service: Family, server: &ServerSpec, syncing: bool) -> Result<(), Refusal> {
    let mixed = server.key.family() != service;
    if mixed && (syncing || server.method != Method::Tunnel) {
        return Err(Refusal::Invalid);
    }
    Ok(())
}

pub(crate) fn server(spec: &ServerSpec) -> Result<(), Refusal> {
    const MAX: u32 = i32::MAX as u32;
    // The kernel finds out by itself whether a server is local; nobody asks for it.
    if spec.method == Method::Local || spec.upper > MAX {
        return Err(Refusal::Invalid);
    }
    if spec.weight > MAX || spec.lower > spec.upper {
        return Err(Refusal::OutOfRange);
    }
    if spec.tunnel.kind == TunnelType::Gue && spec.tunnel.port == 0 {
        return Err(Refusal::Invalid);
    }
    Ok(())
}

/// A server's address must be unicast.
///
/// The kernel asks its routing table, and so refuses the broadcast addresses of its own networks as well, and takes a
/// link-local IPv6 address when it is its own; a model knows no interfaces.
pub(crate) fn server_address(addr: IpAddr) -> Result<(), Refusal> {
    let unicast = match addr {
        IpAddr::V4(v4) => !v4.is_unspecified() && !v4.is_broadcast() && !v4.is_multicast(),
        IpAddr::V6(v6) => is_routed_unicast(v6),
    };
    if unicast { Ok(()) } else { Err(Refusal::Invalid) }
}

fn is_routed_unicast(addr: Ipv6Addr) -> bool {
    !addr.is_unspecified()
        && !addr.is_multicast()
        && !addr.is_unicast_link_local()
        && addr.to_ipv4_mapped().is_none()
}

pub(crate) fn timeouts(t: &Timeouts) -> Result<(), Refusal> {
    if [t.tcp, t.tcp_fin, t.udp].iter().any(|&seconds| seconds > MAX_TIMEOUT) {
        return Err(Refusal::Invalid);
    }
    Ok(())
}
