//! What sending does to an IPv4 packet.

use super::Hindrance;
use super::nat::{End, fit_checksum, translate_port};
use super::tunnel::{self, Inner};
use crate::checksum::Update;
use crate::env::{Env, Route};
use crate::icmp::quote::{self, Quote};
use crate::packet::Packet;
use crate::parse::{L3, Net};
use crate::server::{Onward, Server, flag};
use crate::unaligned::{load32, store32};
use crate::verdict::DropReason;
use crate::wire::{FrameV4, Ipv4, ip_protocol};

/// See [`crate::family::Family::fits`].
#[inline(always)]
pub fn fits<P: Packet>(packet: &P, net: &Net<[u8; 4]>, room: u16) -> bool {
    let Some(frame) = packet.header::<FrameV4>(0) else { return false };
    (frame.ip.ttl > 1) & (packet.judged(net.len) <= room)
}

/// See [`crate::family::Family::prepare`].
#[inline(always)]
pub fn prepare<'s, P: Packet>(packet: &P, server: &'s Server, method: u8) -> Result<Onward<'s>, Hindrance> {
    let hop = server.onward();
    let flags = hop.flags();
    let Some(ip) = packet.header::<Ipv4>(L3) else { return Err(DropReason::Malformed.into()) };
    if ip.ttl <= 1 {
        return Err(Hindrance::TtlExceeded);
    }
    if flags & flag::RESOLVED == 0 {
        return Err(DropReason::Unresolved.into());
    }
    let Some(room) = tunnel::room_by(flags, hop.mtu(), method) else { return Err(DropReason::TooBig.into()) };
    if packet.judged(ip.packet_len()) > room {
        if ip.dont_fragment() && !tunnel::cuts_outside(flags, method) {
            return Err(Hindrance::TooBig { mtu: room });
        }
        return Err(tunnel::may_be_cut(flags, method, ip.packet_len(), hop.mtu()));
    }
    Ok(hop)
}

/// See [`crate::family::Family::route`]; `look_up` is given the type of service.
#[inline(always)]
pub fn route<P: Packet>(
    packet: &P,
    _net: &Net<[u8; 4]>,
    look_up: impl FnOnce(u8) -> Route,
) -> Result<Route, Hindrance> {
    let Some(ip) = packet.header::<Ipv4>(L3) else { return Err(DropReason::Malformed.into()) };
    if ip.ttl <= 1 {
        return Err(Hindrance::TtlExceeded);
    }
    match look_up(ip.tos) {
        Route::TooBig { mtu } if ip.dont_fragment() => Err(Hindrance::TooBig { mtu }),
        Route::TooBig { mtu } => Err(Hindrance::MayBeCut { mtu }),
        Route::None => Err(DropReason::NoRoute.into()),
        route => Ok(route),
    }
}

/// Lowers the time to live of a packet that is not changed otherwise.
#[inline(always)]
pub fn lower_ttl<P: Packet>(packet: &mut P) -> Result<(), DropReason> {
    let Some(frame) = packet.header_mut::<FrameV4>(0) else { return Err(DropReason::Malformed) };
    frame.lower_ttl();
    Ok(())
}

/// Lowers the time to live, which is not 0, by one and fits the header's checksum (RFC 1624).
#[inline(always)]
fn lower(ip: &mut Ipv4, changed: Update) {
    ip.ttl = ip.ttl.wrapping_sub(1);
    changed.first_less_one().apply_to(&mut ip.checksum);
}

/// See [`crate::family::Family::translate`].
#[inline(always)]
pub fn translate<P: Packet>(
    packet: &mut P,
    net: &Net<[u8; 4]>,
    end: End,
    addr: [u8; 4],
    port: [u8; 2],
) -> Result<(), DropReason> {
    let Some(ip) = packet.header_mut::<Ipv4>(L3) else { return Err(DropReason::Malformed) };
    let changed = readdress(ip, end, addr);
    lower(ip, changed);
    translate_port(packet, net.l4, net.protocol, end, port, changed)
}

/// See [`crate::family::Family::translate_here`].
#[inline(always)]
pub fn translate_here<P: Packet>(
    packet: &mut P,
    net: &Net<[u8; 4]>,
    end: End,
    addr: [u8; 4],
    port: [u8; 2],
) -> Result<(), DropReason> {
    let Some(ip) = packet.header_mut::<Ipv4>(L3) else { return Err(DropReason::Malformed) };
    let changed = readdress(ip, end, addr);
    changed.apply_to(&mut ip.checksum);
    translate_port(packet, net.l4, net.protocol, end, port, changed)
}

/// Gives a header another address at one end; its checksum is not fitted.
#[inline(always)]
pub fn readdress(ip: &mut Ipv4, end: End, addr: [u8; 4]) -> Update {
    let place = match end {
        End::Destination => &mut ip.dst,
        End::Source => &mut ip.src,
    };
    let changed = Update::NONE.replace32(load32(place).to_ne_bytes(), addr);
    store32(place, u32::from_ne_bytes(addr));
    changed
}

/// See [`crate::family::Family::translate_error_here`].
#[inline(always)]
pub fn translate_error_here<P: Packet>(
    packet: &mut P,
    net: &Net<[u8; 4]>,
    quote: &Quote<[u8; 4]>,
    end: End,
    addr: [u8; 4],
    port: [u8; 2],
) -> Result<(), DropReason> {
    let changed = quote::translate_v4(packet, quote, end.other(), addr, port)?;
    fit_checksum(packet, net.l4, changed)?;
    let Some(ip) = packet.header_mut::<Ipv4>(L3) else { return Err(DropReason::Malformed) };
    let readdressed = readdress(ip, end, addr);
    readdressed.apply_to(&mut ip.checksum);
    Ok(())
}

/// See [`crate::family::Family::wrap`].
#[inline(always)]
pub fn wrap<P: Packet, E: Env>(
    packet: &mut P,
    env: &E,
    net: &Net<[u8; 4]>,
    server: &Server,
    hop: &Onward<'_>,
) -> Result<(), DropReason> {
    let Some(frame) = packet.header_mut::<FrameV4>(0) else { return Err(DropReason::Malformed) };
    frame.lower_ttl();
    let inner = Inner {
        protocol: ip_protocol::IPIP,
        length: frame.packet_len(),
        class: frame.ip.tos,
        ttl: frame.ip.ttl,
        dont_fragment: frame.dont_fragment() & (hop.flags() & flag::CUT_OUTSIDE == 0),
        flow: u32::from_ne_bytes(net.src) ^ u32::from_ne_bytes(net.dst).rotate_left(7),
    };
    tunnel::wrap(packet, env, &inner, net.l4, server, hop)
}
