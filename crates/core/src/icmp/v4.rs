//! ICMP errors (RFC 792, RFC 1812 4.3.2.3).

use super::{Complaint, What};
use crate::checksum::{Sum, ipv4_header_sum};
use crate::env::Env;
use crate::forward::tunnel::fresh_id;
use crate::packet::Packet;
use crate::parse::L3;
use crate::segments::{self, Inside};
use crate::wire::{Ethernet, Icmp, Ipv4, ip_protocol};

/// A whole error is no longer than this (RFC 1812).
const LONGEST: usize = 576;
const HEADERS: usize = Ipv4::LEN + Icmp::LEN;
/// So much of the packet is quoted.
const QUOTED: usize = LONGEST - HEADERS;

#[inline(always)]
const fn header(complaint: Complaint) -> Icmp {
    let (kind, code) = match complaint.what {
        What::PortUnreachable => (3, 3),
        What::TtlExceeded => (11, 0),
        What::Incomplete => (11, 1),
        What::TooBig => (3, 4),
    };
    let mtu = complaint.mtu.to_be_bytes();
    Icmp { kind, code, checksum: [0, 0], rest: [0, 0, mtu[0], mtu[1]] }
}

/// Does this type tell of a packet that did not arrive, and does LVS care? Redirects and parameter problems are the stack's.
#[inline(always)]
pub const fn is_error(kind: u8) -> bool {
    matches!(kind, UNREACHABLE | 4 | 11)
}

/// Destination unreachable.
pub const UNREACHABLE: u8 = 3;
/// Its code "fragmentation needed".
pub const TOO_BIG: u8 = 4;

/// Turns a packet of this layer-3 length into an ICMP error about it, from this address, back to where it came from.
#[inline(always)]
pub fn answer<P: Packet, E: Env>(
    packet: &mut P,
    env: &E,
    complaint: Complaint,
    source: [u8; 4],
    length: u16,
) -> Option<()> {
    quote(packet, env, header(complaint), source, length)
}

/// The same with this ICMP header.
#[inline(always)]
pub fn quote<P: Packet, E: Env>(
    packet: &mut P,
    env: &E,
    mut icmp: Icmp,
    source: [u8; 4],
    length: u16,
) -> Option<()> {
    let quoted = if (length as usize) < QUOTED { length as usize } else { QUOTED };
    let surplus = packet.len().checked_sub(L3 + quoted)?;
    if surplus > 0 && !packet.trim_tail(surplus) {
        return None;
    }
    let eth = *packet.header::<Ethernet>(0)?;
    let asked = *packet.header::<Ipv4>(L3)?;
    if !packet.grow_head(HEADERS) {
        return None;
    }
    *packet.header_mut::<Ethernet>(0)? = Ethernet { dst: eth.src, src: eth.dst, kind: eth.kind };
    let mut ip = Ipv4 {
        version_ihl: 0x45,
        // The kernel answers with the packet's type of service and the precedence of network control (icmp.c).
        tos: (asked.tos & 0x1e) | 0xc0,
        total_len: ((HEADERS + quoted) as u16).to_be_bytes(),
        id: fresh_id(env),
        frag: [0, 0],
        ttl: 64,
        protocol: ip_protocol::ICMP,
        checksum: [0, 0],
        src: source,
        dst: asked.src,
    };
    ip.checksum = ipv4_header_sum(&ip).checksum();
    *packet.header_mut::<Ipv4>(L3)? = ip;
    icmp.checksum = [0, 0];
    let head = Sum::ZERO.add16([icmp.kind, icmp.code]).add32(icmp.rest);
    let inside = Inside { at: L3 + HEADERS, is_v6: false };
    icmp.checksum = segments::sum_with(packet, env, L3 + HEADERS, quoted, inside, head)?.checksum();
    *packet.header_mut::<Icmp>(L3 + Ipv4::LEN)? = icmp;
    Some(())
}
