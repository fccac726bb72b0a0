//! Tunnelling: the packet travels unchanged inside another one, addressed to the server. IP in IP (RFC 2003, RFC 2473), GRE
//! (RFC 2784) and GUE (as `fou` in Linux has it, version 0).
//!
//! The outer time to live is the inner one after it was lowered, DSCP is copied, and "don't fragment" too, unless `pmtu_disc` is off.

use super::{Hindrance, address_onward};
use crate::checksum::Sum;
use crate::env::Env;
use crate::method::{Method, TunnelType};
use crate::packet::{Outer, Packet, Within};
use crate::parse::{FARTHEST_L4, L3, Word};
use crate::segments::{self, Inside};
use crate::server::{Onward, Server, flag};
use crate::verdict::DropReason;
use crate::wire::{FrameV4, Gre, GreSum, Gue, Ipv4, Ipv6, Udp, ethertype, ip_protocol};

/// What a tunnel wants to know of the packet inside.
#[derive(Clone, Copy, Debug)]
pub struct Inner {
    /// Its number as a payload of IP.
    pub protocol: u8,
    /// Its length.
    pub length: u16,
    /// Its type of service or traffic class.
    pub class: u8,
    /// Its time to live, lowered.
    pub ttl: u8,
    /// Must it not be fragmented?
    pub dont_fragment: bool,
    /// A number of its addresses, the same for all of a flow.
    pub flow: u32,
}

/// How a server's packets are wrapped.
#[derive(Clone, Copy)]
struct Shape {
    kind: u8,
    summed: bool,
    outer_v6: bool,
}

impl Shape {
    #[inline(always)]
    const fn of(flags: u16) -> Self {
        Self {
            kind: (flags >> flag::TUNNEL_TYPE & 3) as u8,
            // A remote checksum is for what the sender left to its device, which no packet here did: then it is a whole one.
            summed: flags >> flag::TUNNEL_CHECKSUM & 3 != 0,
            outer_v6: flags & flag::IPV6 != 0,
        }
    }

    #[inline(always)]
    const fn is(self, kind: TunnelType) -> bool {
        self.kind == kind as u8
    }

    /// Bytes between the outer IP header and the packet.
    #[inline(always)]
    const fn between(self) -> u16 {
        if self.is(TunnelType::Gue) {
            (Udp::LEN + Gue::LEN) as u16
        } else if self.is(TunnelType::Gre) {
            if self.summed { GreSum::LEN as u16 } else { Gre::LEN as u16 }
        } else {
            0
        }
    }

    #[inline(always)]
    const fn outer(self) -> u16 {
        if self.outer_v6 { Ipv6::LEN as u16 } else { Ipv4::LEN as u16 }
    }

    #[inline(always)]
    const fn headers(self) -> Outer {
        let within = if self.is(TunnelType::Gue) {
            Within::Udp
        } else if self.is(TunnelType::Gre) {
            Within::Gre
        } else {
            Within::Ip
        };
        let len = (self.outer() + self.between()) as usize;
        Outer { len, is_v6: self.outer_v6, within, is_summed: self.between() != 0 && self.summed }
    }

    #[inline(always)]
    const fn protocol(self, inner: u8) -> u8 {
        if self.is(TunnelType::Gue) {
            ip_protocol::UDP
        } else if self.is(TunnelType::Gre) {
            ip_protocol::GRE
        } else {
            inner
        }
    }
}

/// Bytes that a tunnel to a server with these flags costs.
#[inline(always)]
pub fn overhead(flags: u16) -> u16 {
    let shape = Shape::of(flags);
    shape.outer() + shape.between()
}

/// Is what is too long for the way cut outside the tunnel, whatever it forbids (`pmtu_disc`=0)?
#[inline(always)]
pub const fn cuts_outside(flags: u16, method: u8) -> bool {
    method == Method::Tunnel as u8 && flags & flag::CUT_OUTSIDE != 0
}

/// A packet of this length may be cut for a way of this MTU, unless it is so long that in the tunnel it would be none any more.
#[inline(always)]
pub fn may_be_cut(flags: u16, method: u8, len: u16, mtu: u16) -> Hindrance {
    if method == Method::Tunnel as u8 && len > u16::MAX - overhead(flags) {
        return DropReason::TooBig.into();
    }
    Hindrance::MayBeCut { mtu }
}

/// What a way of this MTU takes of a packet inside such a tunnel. `None`: too little to be worth it, as the kernel finds (every IPv4
/// way takes 68 bytes, RFC 791, every IPv6 way 1280, RFC 8200).
#[inline(always)]
pub fn room(flags: u16, mtu: u16) -> Option<u16> {
    let room = mtu.saturating_sub(overhead(flags));
    let least = if Shape::of(flags).outer_v6 { 1280 } else { 68 };
    if room < least { None } else { Some(room) }
}

/// What a way of this MTU takes of a packet that is sent by this method to a server with these flags. `None`: see [`room`].
#[inline(always)]
pub fn room_by(flags: u16, mtu: u16, method: u8) -> Option<u16> {
    if method == Method::Tunnel as u8 { room(flags, mtu) } else { Some(mtu) }
}

/// Wraps the packet, in a frame to the server.
#[inline(always)]
pub fn wrap<P: Packet, E: Env>(
    packet: &mut P,
    env: &E,
    inner: &Inner,
    l4: usize,
    server: &Server,
    hop: &Onward<'_>,
) -> Result<(), DropReason> {
    let is_v6 = inner.protocol == ip_protocol::IPV6;
    if hop.flags() & (3 << flag::TUNNEL_TYPE | flag::IPV6) != if is_v6 { flag::IPV6 } else { 0 } {
        // What is looked at by reference lies in memory: only this copy has to.
        let inner = *inner;
        return match packet.apart(|packet| wrap_otherwise(packet, env, &inner, l4, server)) {
            NO_HEADROOM => Err(DropReason::NoHeadroom),
            MALFORMED => Err(DropReason::Malformed),
            ethertype => address_onward(packet, hop, ethertype),
        };
    }
    let outer = if is_v6 { Ipv6::LEN } else { Ipv4::LEN };
    let room = Outer { len: outer, is_v6, within: Within::Ip, is_summed: false };
    if !packet.grow_head_for(room) {
        return Err(DropReason::NoHeadroom);
    }
    if is_v6 {
        put_outer_v6(packet, inner, server, inner.protocol, inner.length)?;
        address_onward(packet, hop, ethertype::IPV6)
    } else {
        put_outer_v4(packet, env, inner, server, inner.protocol, inner.length)?;
        address_onward(packet, hop, ethertype::IPV4)
    }
}

const NO_HEADROOM: u16 = 0;
const MALFORMED: u16 = 1;

/// Anything but IP in IP of one family, in a function with a stack frame of its own: it would make the short way longer.
/// Returns an ethertype, or why there is none.
#[inline(never)]
fn wrap_otherwise<P: Packet, E: Env>(
    packet: &mut P,
    env: &E,
    inner: &Inner,
    l4: usize,
    server: &Server,
) -> u16 {
    match wrap_any(packet, env, inner, l4, server) {
        Ok(ethertype) => ethertype,
        Err(DropReason::NoHeadroom) => NO_HEADROOM,
        Err(_) => MALFORMED,
    }
}

#[inline(always)]
fn wrap_any<P: Packet, E: Env>(
    packet: &mut P,
    env: &E,
    inner: &Inner,
    l4: usize,
    server: &Server,
) -> Result<u16, DropReason> {
    let shape = Shape::of(server.flags());
    let source_port = if shape.is(TunnelType::Gue) { source_port(packet, inner.flow, l4) } else { [0, 0] };
    let between = shape.between();
    if !packet.grow_head_for(shape.headers()) {
        return Err(DropReason::NoHeadroom);
    }
    let payload = between.wrapping_add(inner.length);
    let protocol = shape.protocol(inner.protocol);
    if shape.outer_v6 {
        put_outer_v6(packet, inner, server, protocol, payload)?;
    } else {
        put_outer_v4(packet, env, inner, server, protocol, payload)?;
    }
    if shape.is(TunnelType::Gre) {
        gre(packet, env, shape, inner)?;
    } else if shape.is(TunnelType::Gue) {
        gue(packet, env, shape, inner, server, source_port)?;
    }
    Ok(if shape.outer_v6 { ethertype::IPV6 } else { ethertype::IPV4 })
}

#[inline(always)]
fn put<P: Packet, T: crate::wire::Header>(packet: &mut P, at: usize, header: T) -> Result<(), DropReason> {
    let Some(place) = packet.header_mut::<T>(at) else { return Err(DropReason::Malformed) };
    *place = header;
    Ok(())
}

#[inline(always)]
fn put_outer_v4<P: Packet, E: Env>(
    packet: &mut P,
    env: &E,
    inner: &Inner,
    server: &Server,
    protocol: u8,
    payload: u16,
) -> Result<(), DropReason> {
    let Some(outer) = packet.header_mut::<FrameV4>(0) else { return Err(DropReason::Malformed) };
    let [high, low] = (Ipv4::LEN as u16).wrapping_add(payload).to_be_bytes();
    let [df, _] = Ipv4::DF.to_be_bytes();
    let [id_high, id_low] = if inner.dont_fragment { [0, 0] } else { fresh_id(env) };
    let mut words = [
        [0x45, outer_class(inner.class), high, low],
        [id_high, id_low, if inner.dont_fragment { df } else { 0 }, 0],
        [inner.ttl, protocol, 0, 0],
        server.source_v4(),
        server.addr_v4(),
    ];
    let sum = words.iter().fold(Sum::ZERO, |sum, word| sum.add32(*word));
    [words[2][2], words[2][3]] = sum.checksum_of_few();
    outer.fill_ip(&words);
    Ok(())
}

#[inline(always)]
fn put_outer_v6<P: Packet>(
    packet: &mut P,
    inner: &Inner,
    server: &Server,
    next: u8,
    payload: u16,
) -> Result<(), DropReason> {
    let Some(outer) = packet.header_mut::<Ipv6>(L3) else { return Err(DropReason::Malformed) };
    let class = outer_class(inner.class);
    outer.fill(class, payload.to_be_bytes(), next, inner.ttl, server.source(), server.addr());
    Ok(())
}

/// DSCP and ECN of the outer header: as inside, but "congestion experienced" goes out as ECT(0), so that what happened
/// before the tunnel is not counted twice (RFC 3168, 9.1.1, full functionality).
#[inline(always)]
const fn outer_class(inner: u8) -> u8 {
    if inner & 0x03 == 0x03 { inner & !0x01 } else { inner }
}

/// A fresh identification, for a packet that may be fragmented.
#[inline(always)]
pub fn fresh_id<E: Env>(env: &E) -> [u8; 2] {
    let Some(counters) = env.counters() else { return [0, 0] };
    counters.ip_id.bump(1);
    (counters.ip_id.load() as u16).to_be_bytes()
}

/// The kernel's ephemeral ports.
const FIRST_PORT: u32 = 32_768;
const PORTS: u32 = 28_232;

/// The outer source port: one a flow, spread over the ephemeral ports, so that a server's receive queues share the load.
#[inline(always)]
fn source_port<P: Packet>(packet: &P, flow: u32, l4: usize) -> [u8; 2] {
    let ports =
        if l4 <= FARTHEST_L4 { packet.header::<Word>(l4).map_or([0; 4], |word| word.0) } else { [0; 4] };
    let mixed = (flow ^ u32::from_ne_bytes(ports)).wrapping_mul(0x9e37_79b1);
    let port = FIRST_PORT + ((mixed as u64 * PORTS as u64) >> 32) as u32;
    (port as u16).to_be_bytes()
}

#[inline(always)]
fn gre<P: Packet, E: Env>(packet: &mut P, env: &E, shape: Shape, inner: &Inner) -> Result<(), DropReason> {
    let kind = if inner.protocol == ip_protocol::IPIP { ethertype::IPV4 } else { ethertype::IPV6 };
    let at = L3 + if shape.outer_v6 { Ipv6::LEN } else { Ipv4::LEN };
    if !shape.summed {
        return put(packet, at, Gre { flags: [0, 0], kind: kind.to_be_bytes() });
    }
    let mut header =
        GreSum { flags: [0x80, 0], kind: kind.to_be_bytes(), checksum: [0, 0], reserved: [0, 0] };
    put(packet, at, header)?;
    let sum = sum(packet, env, at, GreSum::LEN, inner, Sum::ZERO)?;
    header.checksum = sum.checksum();
    put(packet, at, header)
}

#[inline(always)]
fn gue<P: Packet, E: Env>(
    packet: &mut P,
    env: &E,
    shape: Shape,
    inner: &Inner,
    server: &Server,
    source_port: [u8; 2],
) -> Result<(), DropReason> {
    let length = shape.between().wrapping_add(inner.length);
    let mut udp =
        Udp { src: source_port, dst: server.tunnel_port(), len: length.to_be_bytes(), checksum: [0, 0] };
    let at = L3 + if shape.outer_v6 { Ipv6::LEN } else { Ipv4::LEN };
    put(packet, at, udp)?;
    put(packet, at + Udp::LEN, Gue { control: 0, protocol: inner.protocol, flags: [0, 0] })?;
    if !shape.summed {
        return Ok(());
    }
    let pseudo = pseudo_header(server, shape).add16([0, ip_protocol::UDP]).add16(length.to_be_bytes());
    udp.checksum = match sum(packet, env, at, Udp::LEN + Gue::LEN, inner, pseudo)?.checksum() {
        [0, 0] => [0xff, 0xff],
        checksum => checksum,
    };
    put(packet, at, udp)
}

#[inline(always)]
fn pseudo_header(server: &Server, shape: Shape) -> Sum {
    if !shape.outer_v6 {
        return Sum::ZERO.add32(server.source_v4()).add32(server.addr_v4());
    }
    Sum::ZERO.add_v6(server.source()).add_v6(server.addr())
}

/// The sum of so many bytes of headers and of the packet inside, which follows them.
#[inline(always)]
fn sum<P: Packet, E: Env>(
    packet: &mut P,
    env: &E,
    at: usize,
    headers: usize,
    inner: &Inner,
    start: Sum,
) -> Result<Sum, DropReason> {
    let inside = Inside { at: at + headers, is_v6: inner.protocol == ip_protocol::IPV6 };
    segments::sum_with(packet, env, at, headers + inner.length as usize, inside, start)
        .ok_or(DropReason::Malformed)
}
