//! What sending does to an IPv6 packet.

use super::Hindrance;
use super::nat::{End, fit_checksum, translate_port};
use super::tunnel::{self, Inner};
use crate::checksum::Update;
use crate::env::{Env, Route};
use crate::icmp::quote::{self, Quote};
use crate::packet::Packet;
use crate::parse::{L3, Net};
use crate::server::{Onward, Server, flag};
use crate::verdict::DropReason;
use crate::wire::{AddrV6, Ipv6, ip_protocol};

/// See [`crate::family::Family::fits`].
#[inline(always)]
pub fn fits<P: Packet>(packet: &P, net: &Net<AddrV6>, room: u16) -> bool {
    let Some(ip) = packet.header::<Ipv6>(L3) else { return false };
    (ip.hop_limit > 1) & (packet.judged(net.len) <= room)
}

/// See [`crate::family::Family::prepare`]. IPv6 packets are never fragmented on their way; those that were put together are judged
/// by the largest of their fragments.
#[inline(always)]
pub fn prepare<'s, P: Packet>(packet: &P, server: &'s Server, method: u8) -> Result<Onward<'s>, Hindrance> {
    let hop = server.onward();
    let flags = hop.flags();
    let Some(ip) = packet.header::<Ipv6>(L3) else { return Err(DropReason::Malformed.into()) };
    if ip.hop_limit <= 1 {
        return Err(Hindrance::TtlExceeded);
    }
    if flags & flag::RESOLVED == 0 {
        return Err(DropReason::Unresolved.into());
    }
    let Some(room) = tunnel::room_by(flags, hop.mtu(), method) else { return Err(DropReason::TooBig.into()) };
    if packet.judged(ip.packet_len()) > room {
        let largest = packet.largest_fragment();
        if largest == 0 || largest > room {
            return Err(Hindrance::TooBig { mtu: room });
        }
        return Err(tunnel::may_be_cut(flags, method, ip.packet_len(), hop.mtu()));
    }
    Ok(hop)
}

/// See [`crate::family::Family::route`]; `look_up` is given the traffic class.
#[inline(always)]
pub fn route<P: Packet>(packet: &P, look_up: impl FnOnce(u8) -> Route) -> Result<Route, Hindrance> {
    let Some(ip) = packet.header::<Ipv6>(L3) else { return Err(DropReason::Malformed.into()) };
    if ip.hop_limit <= 1 {
        return Err(Hindrance::TtlExceeded);
    }
    match look_up(ip.class()) {
        Route::TooBig { mtu } => Err(Hindrance::TooBig { mtu }),
        Route::None => Err(DropReason::NoRoute.into()),
        route => Ok(route),
    }
}

/// Lowers the hop limit.
#[inline(always)]
pub fn lower_ttl<P: Packet>(packet: &mut P) -> Result<(), DropReason> {
    let Some(ip) = packet.header_mut::<Ipv6>(L3) else { return Err(DropReason::Malformed) };
    ip.hop_limit = ip.hop_limit.wrapping_sub(1);
    Ok(())
}

/// See [`crate::family::Family::translate_here`].
#[inline(always)]
pub fn translate_here<P: Packet>(
    packet: &mut P,
    net: &Net<AddrV6>,
    end: End,
    addr: AddrV6,
    port: [u8; 2],
) -> Result<(), DropReason> {
    let Some(ip) = packet.header_mut::<Ipv6>(L3) else { return Err(DropReason::Malformed) };
    let changed = readdress(ip, end, addr);
    translate_port(packet, net.l4, net.protocol, end, port, changed)
}

/// Gives a header another address at one end. Returns what that changes in the pseudo header's sum.
#[inline(always)]
pub fn readdress(ip: &mut Ipv6, end: End, addr: AddrV6) -> Update {
    let place = match end {
        End::Destination => &mut ip.dst,
        End::Source => &mut ip.src,
    };
    let changed = Update::NONE.replace_v6(place.get(), addr);
    place.set(addr);
    changed
}

/// See [`crate::family::Family::translate_error_here`].
#[inline(always)]
pub fn translate_error_here<P: Packet>(
    packet: &mut P,
    net: &Net<AddrV6>,
    quote: &Quote<AddrV6>,
    end: End,
    addr: AddrV6,
    port: [u8; 2],
) -> Result<(), DropReason> {
    let changed = quote::translate_v6(packet, quote, end.other(), addr, port)?;
    let Some(ip) = packet.header_mut::<Ipv6>(L3) else { return Err(DropReason::Malformed) };
    let readdressed = readdress(ip, end, addr);
    fit_checksum(packet, net.l4, changed.and(readdressed))
}

/// See [`crate::family::Family::wrap`].
#[inline(always)]
pub fn wrap<P: Packet, E: Env>(
    packet: &mut P,
    env: &E,
    net: &Net<AddrV6>,
    server: &Server,
    hop: &Onward<'_>,
) -> Result<(), DropReason> {
    let Some(ip) = packet.header_mut::<Ipv6>(L3) else { return Err(DropReason::Malformed) };
    ip.hop_limit = ip.hop_limit.wrapping_sub(1);
    let inner = Inner {
        protocol: ip_protocol::IPV6,
        length: ip.packet_len(),
        class: ip.class(),
        ttl: ip.hop_limit,
        dont_fragment: false,
        flow: net.src.folded() ^ net.dst.folded().rotate_left(7),
    };
    tunnel::wrap(packet, env, &inner, net.l4, server, hop)
}
