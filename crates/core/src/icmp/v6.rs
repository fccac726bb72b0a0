//! ICMPv6 errors (RFC 4443).

use super::{Complaint, What};
use crate::checksum::Sum;
use crate::env::Env;
use crate::packet::Packet;
use crate::parse::L3;
use crate::segments::{self, Inside};
use crate::wire::{AddrV6, Ethernet, Icmp, Ipv6, ip_protocol};

/// A whole error is no longer than the smallest MTU (RFC 4443, 2.4).
const LONGEST: usize = 1280;
const HEADERS: usize = Ipv6::LEN + Icmp::LEN;
/// So much of the packet is quoted.
const QUOTED: usize = LONGEST - HEADERS;

#[inline(always)]
const fn header(complaint: Complaint) -> Icmp {
    let (kind, code) = match complaint.what {
        What::PortUnreachable => (1, 4),
        What::TtlExceeded => (3, 0),
        What::Incomplete => (3, 1),
        What::TooBig => (2, 0),
    };
    let mtu = complaint.mtu.to_be_bytes();
    Icmp { kind, code, checksum: [0, 0], rest: [0, 0, mtu[0], mtu[1]] }
}

/// Does this type tell of a packet that did not arrive? All below 128 do (RFC 4443, 2.1).
#[inline(always)]
pub const fn is_error(kind: u8) -> bool {
    kind < 128
}

/// Packet too big.
pub const TOO_BIG: u8 = 2;

/// Turns a packet of this layer-3 length into an ICMPv6 error about it, from this address, back to where it came from.
#[inline(always)]
pub fn answer<P: Packet, E: Env>(
    packet: &mut P,
    env: &E,
    complaint: Complaint,
    source: AddrV6,
    length: u16,
) -> Option<()> {
    let quoted = if (length as usize) < QUOTED { length as usize } else { QUOTED };
    let surplus = packet.len().checked_sub(L3 + quoted)?;
    if surplus > 0 && !packet.trim_tail(surplus) {
        return None;
    }
    let eth = *packet.header::<Ethernet>(0)?;
    let asked = packet.header::<Ipv6>(L3)?.src.get();
    if !packet.grow_head(HEADERS) {
        return None;
    }
    *packet.header_mut::<Ethernet>(0)? = Ethernet { dst: eth.src, src: eth.dst, kind: eth.kind };
    let payload = ((Icmp::LEN + quoted) as u16).to_be_bytes();
    packet.header_mut::<Ipv6>(L3)?.fill(0, payload, ip_protocol::ICMPV6, 64, source, asked);
    let mut icmp = header(complaint);
    let head = Sum::ZERO
        .add16([icmp.kind, icmp.code])
        .add32(icmp.rest)
        .add16(payload)
        .add16([0, ip_protocol::ICMPV6])
        .add_v6(source)
        .add_v6(asked);
    let inside = Inside { at: L3 + HEADERS, is_v6: true };
    icmp.checksum = segments::sum_with(packet, env, L3 + HEADERS, quoted, inside, head)?.checksum();
    *packet.header_mut::<Icmp>(L3 + Ipv6::LEN)? = icmp;
    Some(())
}
