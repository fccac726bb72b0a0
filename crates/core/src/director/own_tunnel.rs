//! ICMP errors about the director's own tunnel packets: a router on the way to a server could not pass one on.
//!
//! The client is told instead, about its own packet, as far as the router quoted that: its request lies inside. What the way takes
//! is learned for the server's address. As in the kernel, only IPv4 in IPv4 is unwrapped; of everything else GUE's
//! socket learns the way's MTU, since that needs no more than the ports.

use super::answer::Sent;
use super::flow::Flow;
use super::related::is_sound;
use crate::conn::entry::Entry;
use crate::conn::key::{self, Kind};
use crate::conn::table::{self, Memory};
use crate::env::{Env, Route};
use crate::family::{Family, V4, V6};
use crate::forward::{self, Hindrance, tunnel};
use crate::icmp::{self, quote::Quote};
use crate::method::Method;
use crate::packet::{Packet, by_reference};
use crate::parse::{FARTHEST_L4, L3, Net};
use crate::verdict::{DropReason, PassReason, Verdict};
use crate::vlan;
use crate::wire::{AddrV6, Ethernet, Gre, GreSum, Gue, Icmp, Ipv4, Udp, ethertype, ip_protocol};

/// An IPv4 error that is about no connection's packet.
#[inline(always)]
pub fn v4<P: Packet, E: Env>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, V4, { key::V4 }>,
    quote: &mut Quote<[u8; 4]>,
) -> Verdict {
    if !is_tunnelled(quote.net.protocol) || quote.net.src != flow.net.dst {
        return Verdict::Pass(PassReason::Icmp);
    }
    let mut request = Request { at: 0, mtu: 0, length: 0, client: [0; 4], vip: [0; 4] };
    if !is_request_found(packet, env, flow, by_reference(quote), &mut request) {
        return Verdict::Pass(PassReason::Icmp);
    }
    match Sent::unpack(tell_client(packet, env, flow, &mut request)) {
        Ok(verdict) => verdict,
        Err(Hindrance::Drop(reason)) => Verdict::Drop(reason),
        Err(_) => Verdict::Drop(DropReason::TooBig),
    }
}

/// An IPv6 one.
#[inline(always)]
pub fn v6<P: Packet, E: Env>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, V6, { key::V6 }>,
    quote: &Quote<AddrV6>,
) -> Verdict {
    if quote.net.protocol == ip_protocol::UDP
        && quote.net.src == flow.net.dst
        && flow.net.l4 <= FARTHEST_L4
        && let Some(icmp) = packet.header::<Icmp>(flow.net.l4)
        && icmp.kind == icmp::v6::TOO_BIG
    {
        env.learned_path_mtu(quote.net.dst, mtu_in(icmp));
    }
    Verdict::Pass(PassReason::Icmp)
}

/// Can it be the protocol of a tunnel's packet?
#[inline(always)]
const fn is_tunnelled(protocol: u8) -> bool {
    matches!(protocol, ip_protocol::IPIP | ip_protocol::GRE | ip_protocol::UDP)
}

/// What the way takes, as a router says.
#[inline(always)]
const fn mtu_in(icmp: &Icmp) -> u16 {
    let [_, _, high, low] = icmp.rest;
    u16::from_be_bytes([high, low])
}

/// The client's request that is quoted inside.
struct Request {
    /// Where it begins in the frame.
    at: usize,
    /// How much of it is there.
    length: u16,
    /// What its client is told that the way takes, if that is what is wrong.
    mtu: u16,
    client: [u8; 4],
    vip: [u8; 4],
}

/// Finds it. A function with a stack frame of its own: what it needs is not needed afterwards, and 512 bytes must do for all
/// that is. `false`: nobody is told.
#[inline(never)]
fn is_request_found<P: Packet, E: Env>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, V4, { key::V4 }>,
    outer: &mut Quote<[u8; 4]>,
    request: &mut Request,
) -> bool {
    find_request(packet, env, flow, &*by_reference(outer), request).is_some()
}

#[inline(always)]
fn find_request<P: Packet, E: Env>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, V4, { key::V4 }>,
    outer: &Quote<[u8; 4]>,
    request: &mut Request,
) -> Option<()> {
    let icmp = *packet.header::<Icmp>(flow.net.l4)?;
    let is_too_big = icmp.kind == icmp::v4::UNREACHABLE && icmp.code == icmp::v4::TOO_BIG;
    if is_too_big && outer.net.protocol == ip_protocol::UDP {
        env.learned_path_mtu(mapped(outer.net.dst), mtu_in(&icmp));
    }
    let at = inner_offset(packet, &outer.net)?;
    let inner = icmp::quote::read_v4(packet, at)?;
    let room = room_towards(env, flow, &inner, outer.net.dst)?;
    if !is_sound(packet, env, flow) {
        return None;
    }
    if is_too_big {
        if outer.net.protocol != ip_protocol::UDP {
            env.learned_path_mtu(mapped(outer.net.dst), mtu_in(&icmp));
        }
        if !packet.header::<Ipv4>(at)?.dont_fragment() {
            // Its client does not care.
            return None;
        }
    }
    let length = (L3 + flow.net.len as usize).checked_sub(at)? as u16;
    *request = Request { at, length, mtu: room, client: inner.net.src, vip: inner.net.dst };
    Some(())
}

/// As the daemon wants addresses (RFC 4291, 2.5.5.2).
#[inline(always)]
const fn mapped(addr: [u8; 4]) -> AddrV6 {
    let [a, b, c, d] = addr;
    AddrV6::from_bytes([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
}

/// Where the packet inside begins. `None`: it is not IPv4, or not ours.
#[inline(always)]
fn inner_offset<P: Packet>(packet: &P, outer: &Net<[u8; 4]>) -> Option<usize> {
    let at = outer.l4;
    if at > FARTHEST_L4 {
        return None;
    }
    match outer.protocol {
        ip_protocol::IPIP => Some(at),
        ip_protocol::GRE => {
            let gre = packet.header::<Gre>(at)?;
            if u16::from_be_bytes(gre.kind) != ethertype::IPV4 {
                return None;
            }
            match gre.flags {
                [0, 0] => Some(at + Gre::LEN),
                [0x80, 0] => Some(at + GreSum::LEN),
                _ => None,
            }
        }
        _ => {
            let gue = packet.header::<Gue>(at + Udp::LEN)?;
            let plain = gue.control & 0xe0 == 0 && gue.protocol == ip_protocol::IPIP;
            plain.then_some(at + Udp::LEN + Gue::LEN + (((gue.control & 0x1f) as usize) << 2))
        }
    }
}

/// What the way through this tunnel takes of a packet inside, if this one belongs to a connection that goes there.
#[inline(always)]
fn room_towards<E: Env>(
    env: &E,
    flow: &Flow<'_, V4, { key::V4 }>,
    inner: &Quote<[u8; 4]>,
    tunnel_end: [u8; 4],
) -> Option<u16> {
    let memory = V4::conns(env);
    let probe = flow.probe(memory, V4::key(&inner.ends(), Kind::Conn));
    let slot = memory.look_up(&probe)?;
    let found = table::hold(memory, slot, &probe)?;
    let entry = Entry(found.body.entry.load());
    if flow.has_outlived(found.word) || entry.method() != Method::Tunnel as u8 {
        return None;
    }
    let server = env.server(entry.server())?;
    let hop = server.onward();
    if server.addr_v4() == tunnel_end { tunnel::room(hop.flags(), hop.mtu()) } else { None }
}

/// Turns the error into one about the request inside, from the VIP to the client. Returns a packed [`Sent`].
#[inline(never)]
fn tell_client<P: Packet, E: Env>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, V4, { key::V4 }>,
    request: &mut Request,
) -> u64 {
    Sent::pack(turn(packet, env, flow, &*by_reference(request)))
}

#[inline(always)]
fn turn<P: Packet, E: Env>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, V4, { key::V4 }>,
    request: &Request,
) -> Result<Verdict, Hindrance> {
    let may_send = env.counters().is_some_and(|counters| counters.may_send_icmp(flow.now));
    if !may_send || flow.net.l4 > FARTHEST_L4 || request.at > FARTHEST_L4 {
        return Err(DropReason::TooBig.into());
    }
    let Some(mut icmp) = packet.header::<Icmp>(flow.net.l4).copied() else {
        return Err(DropReason::Malformed.into());
    };
    if icmp.kind == icmp::v4::UNREACHABLE && icmp.code == icmp::v4::TOO_BIG {
        let [high, low] = request.mtu.to_be_bytes();
        icmp.rest = [0, 0, high, low];
    }
    let surplus = request.at.wrapping_sub(Ethernet::LEN);
    if surplus > FARTHEST_L4 || !packet.shrink_head(surplus) {
        return Err(DropReason::Malformed.into());
    }
    if icmp::v4::quote(packet, env, icmp, request.vip, request.length).is_none() {
        return Err(DropReason::Malformed.into());
    }
    let net = Net { src: request.vip, dst: request.client, protocol: ip_protocol::ICMP, ..flow.net };
    match V4::route(packet, env, &net, vlan::came_by(env), request.vip, net.len)? {
        Route::Via { ifindex, from, to } => {
            forward::address_frame(packet, to, from, ethertype::IPV4)?;
            Ok(forward::leave_by(env, ifindex))
        }
        Route::NoNeighbour => {
            V4::want_neighbour(env, request.client);
            Err(DropReason::ClientUnresolved.into())
        }
        _ => Err(DropReason::NoRoute.into()),
    }
}
