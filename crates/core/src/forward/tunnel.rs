//! Tunnelling: the packet travels unchanged inside another one, addressed to the server (RFC 2003).

use super::lower_ttl;
use crate::checksum::{Update, ipv4_header_sum};
use crate::env::Env;
use crate::packet::Packet;
use crate::parse::L3;
use crate::server::Server;
use crate::verdict::DropReason;
use crate::wire::{Ipv4, ip_protocol};

/// Wraps the packet in an IPv4 header (ipip). The frame's header is undefined afterwards.
///
/// The outer time to live is the inner one after it was lowered, DSCP is copied, and "don't fragment" too.
#[inline(always)]
pub fn wrap_ipip<P: Packet, E: Env>(packet: &mut P, env: &E, server: &Server) -> Result<(), DropReason> {
    let Some(inner) = packet.header_mut::<Ipv4>(L3) else { return Err(DropReason::Malformed) };
    lower_ttl(inner, Update::NONE);
    let outer = outer_v4(env, inner, server);
    if !packet.grow_head(Ipv4::LEN) {
        return Err(DropReason::NoHeadroom);
    }
    let Some(place) = packet.header_mut::<Ipv4>(L3) else { return Err(DropReason::Malformed) };
    *place = outer;
    Ok(())
}

/// The outer header of an IPv4 packet.
#[inline(always)]
fn outer_v4<E: Env>(env: &E, inner: &Ipv4, server: &Server) -> Ipv4 {
    let dont_fragment = inner.dont_fragment();
    let mut outer = Ipv4 {
        version_ihl: 0x45,
        tos: outer_tos(inner.tos),
        total_len: inner.packet_len().wrapping_add(Ipv4::LEN as u16).to_be_bytes(),
        id: if dont_fragment { [0, 0] } else { fresh_id(env) },
        frag: if dont_fragment { Ipv4::DF.to_be_bytes() } else { [0, 0] },
        ttl: inner.ttl,
        protocol: ip_protocol::IPIP,
        checksum: [0, 0],
        src: server.source_v4(),
        dst: server.addr_v4(),
    };
    outer.checksum = ipv4_header_sum(&outer).checksum();
    outer
}

/// DSCP and ECN of the outer header: as inside, but "congestion experienced" goes out as ECT(0), so that what happened
/// before the tunnel is not counted twice (RFC 3168, 9.1.1, full functionality).
#[inline(always)]
const fn outer_tos(inner: u8) -> u8 {
    if inner & 0x03 == 0x03 { inner & !0x01 } else { inner }
}

#[inline(always)]
fn fresh_id<E: Env>(env: &E) -> [u8; 2] {
    let Some(counters) = env.counters() else { return [0, 0] };
    counters.ip_id.bump(1);
    (counters.ip_id.load() as u16).to_be_bytes()
}
