//! From bytes to what the director needs to know of a packet.
//!
//! In steps, so that traffic that is not ours costs only the first: [`ethernet`], then [`network_v4`] or [`network_v6`], which
//! trust nothing; [`transport`] reads ports and flags of a packet that may be ours.

use crate::checksum::Sum;
use crate::packet::Packet;
use crate::sctp;
use core::mem::offset_of;

use crate::unaligned::{load16_at, load32_at};
use crate::verdict::PassReason;
use crate::wire::{
    AddrV6, Ethernet, Extension, FrameV4, Header, Ipv4, Ipv6, Tcp, Udp, ethertype, ip_protocol,
};

/// A packet's network part. Laid out so that nothing of it is copied by the byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Net<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Offset of the transport header in the frame.
    pub l4: usize,
    /// Protocol of what follows IP's own headers.
    pub protocol: u8,
    /// Layer-3 length in bytes.
    pub len: u16,
    /// Is it a fragment (the first one included)?
    pub fragment: bool,
}

/// Offset of the IP header in the frames that are balanced.
pub const L3: usize = Ethernet::LEN;

/// Reads Ethernet: the ethertype of a family that is balanced, or why the stack gets the packet instead; of a tagged frame, if its tags
/// stay on.
#[inline(always)]
pub fn ethernet<P: Packet>(packet: &P) -> Result<u16, PassReason> {
    let Some(eth) = packet.header::<Ethernet>(0) else { return Err(PassReason::NotIp) };
    if eth.is_to_group() {
        // Group addresses: IPVS takes only what was sent to the director itself (PACKET_HOST).
        return Err(PassReason::Group);
    }
    match eth.ethertype() {
        kind @ (ethertype::IPV4 | ethertype::IPV6) => Ok(kind),
        ethertype::VLAN | ethertype::QINQ => Err(PassReason::Vlan),
        _ => Err(PassReason::NotIp),
    }
}

/// Reads an IPv4 header, and trusts nothing. `Err`: why the stack gets the packet instead.
#[inline(always)]
pub fn network_v4<P: Packet>(packet: &P) -> Result<Net<[u8; 4]>, PassReason> {
    let Some(ip) = packet.header::<Ipv4>(L3) else { return Err(PassReason::Malformed) };
    let header = ip.header_len();
    let len = ip.packet_len();
    if ip.version_ihl >> 4 != 4
        || header < Ipv4::LEN
        || (len as usize) < header
        || !packet.reaches(L3 + len as usize)
    {
        return Err(PassReason::Malformed);
    }
    Ok(Net {
        l4: L3 + header,
        src: load32_at::<{ offset_of!(Ipv4, src) }, _>(ip).to_ne_bytes(),
        dst: load32_at::<{ offset_of!(Ipv4, dst) }, _>(ip).to_ne_bytes(),
        protocol: ip.protocol,
        len,
        fragment: ip.is_fragment(),
    })
}

/// [`network_v4`] of a whole packet without options, where nothing else is wanted. `None`: that, or malformed.
#[inline(always)]
pub fn plain_v4<P: Packet>(packet: &P) -> Option<Net<[u8; 4]>> {
    const VERSION_AND_LEN: u8 = 4 << 4 | (Ipv4::LEN / 4) as u8;
    let frame = packet.header::<FrameV4>(0)?;
    let len = frame.packet_len();
    if frame.ip.version_ihl != VERSION_AND_LEN
        || frame.is_fragment()
        || (len as usize) < Ipv4::LEN
        // A difference: what lies behind the packet is asked for again when it is cut off.
        || (packet.len().wrapping_sub(L3 + len as usize) as isize) < 0
    {
        return None;
    }
    let [src, dst] = frame.addresses();
    let protocol = frame.ip.protocol;
    Some(Net { l4: L3 + Ipv4::LEN, src, dst, protocol, len, fragment: false })
}

/// Extension headers that are walked; who has more is left to the stack.
const MOST_EXTENSIONS: usize = 4;

/// Reads an IPv6 header and walks its extension headers: hop-by-hop and destination options, routing, fragment.
#[inline(always)]
pub fn network_v6<P: Packet>(packet: &P) -> Result<Net<AddrV6>, PassReason> {
    let Some(mut net) = plain_v6(packet) else { return Err(PassReason::Malformed) };
    walk_extensions(packet, &mut net)?;
    Ok(net)
}

/// Reads an IPv6 header, and takes its extension headers for what it carries. `None`: malformed.
#[inline(always)]
pub fn plain_v6<P: Packet>(packet: &P) -> Option<Net<AddrV6>> {
    let ip = packet.header::<Ipv6>(L3)?;
    let len = (Ipv6::LEN as u16).wrapping_add(u16::from_be_bytes(ip.payload_len));
    if ip.version_class_flow[0] >> 4 != 6 || (len as usize) < Ipv6::LEN || !packet.reaches(L3 + len as usize)
    {
        return None;
    }
    Some(Net {
        l4: L3 + Ipv6::LEN,
        src: ip.src.get(),
        dst: ip.dst.get(),
        protocol: ip.next,
        len,
        fragment: false,
    })
}

/// Goes on behind all extension headers; of a fragment, behind those that all fragments have.
#[inline(always)]
pub fn walk_extensions<P: Packet>(packet: &P, net: &mut Net<AddrV6>) -> Result<(), PassReason> {
    for _ in 0..MOST_EXTENSIONS {
        if !ip_protocol::is_extension(net.protocol) {
            return Ok(());
        }
        step_over(packet, net)?;
        if net.fragment {
            // In all fragments but the first, what follows is anything.
            return Ok(());
        }
    }
    if ip_protocol::is_extension(net.protocol) { Err(PassReason::Extensions) } else { Ok(()) }
}

/// Goes on behind an extension header.
#[inline(always)]
fn step_over<P: Packet>(packet: &P, net: &mut Net<AddrV6>) -> Result<(), PassReason> {
    if net.l4 > FARTHEST_L4 {
        return Err(PassReason::Extensions);
    }
    let Some(extension) = packet.header::<Extension>(net.l4) else { return Err(PassReason::Malformed) };
    if net.protocol == ip_protocol::FRAGMENT {
        // Of a whole packet (RFC 6946) it is taken off where fragments are put together; ICMP is not, and the header does no harm.
        let is_whole = u16::from_be_bytes([extension.rest[0], extension.rest[1]]) & 0xfff9 == 0;
        net.fragment |= !is_whole || extension.next != ip_protocol::ICMPV6;
        net.l4 += Extension::LEN;
    } else {
        net.l4 += Extension::LEN + ((extension.len as usize) << 3);
    }
    net.protocol = extension.next;
    Ok(())
}

/// How far behind the frame's beginning a transport header may lie.
pub const FARTHEST_L4: usize = 512;

/// Is the IPv4 header's checksum right? The stack drops packets whose is not before IPVS would see them.
#[inline(always)]
pub fn checksum_holds_v4<P: Packet>(packet: &P, net: &Net<[u8; 4]>) -> bool {
    let Some(frame) = packet.header::<FrameV4>(0) else { return false };
    let sum = frame.header_sum();
    if net.l4 == L3 + Ipv4::LEN {
        return sum.holds();
    }
    options_sum(packet, L3 + Ipv4::LEN, net.l4).is_some_and(|options| sum.add(options).holds())
}

/// The sum of an IPv4 header's options, which lie between these offsets.
#[inline(always)]
pub fn options_sum<P: Packet>(packet: &P, from: usize, to: usize) -> Option<Sum> {
    let mut sum = Sum::ZERO;
    for i in 0..10 {
        let at = from + i * 4;
        if at >= to {
            break;
        }
        sum = sum.add32(packet.header::<Word>(at)?.0);
    }
    Some(sum)
}

/// Four bytes of anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Word(pub [u8; 4]);
// SAFETY: an array of bytes.
unsafe impl crate::wire::Header for Word {}

/// The transport part of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct Transport {
    /// Source port, as on the wire.
    pub src: [u8; 2],
    /// Destination port, as on the wire.
    pub dst: [u8; 2],
    /// TCP's flags. UDP: 1 when it has no checksum. SCTP: the number of a [`crate::sctp::state::Event`].
    pub flags: u8,
}

/// Reads ports and flags of TCP and UDP. `Err`: why the stack gets the packet instead; of [`transport_otherwise`], if that is
/// the protocol.
#[inline(always)]
pub fn transport<P: Packet>(packet: &P, l4: usize, protocol: u8) -> Result<Transport, PassReason> {
    // For the verifier, which cannot know it.
    if l4 > FARTHEST_L4 {
        return Err(PassReason::Extensions);
    }
    match protocol {
        ip_protocol::TCP => {
            let Some(tcp) = packet.header::<Tcp>(l4) else { return Err(PassReason::Malformed) };
            let [src, dst] = ports(tcp);
            Ok(Transport { src, dst, flags: tcp.flags })
        }
        ip_protocol::UDP => {
            let Some(udp) = packet.header::<Udp>(l4) else { return Err(PassReason::Malformed) };
            let [src, dst] = ports(udp);
            let flags = (load16_at::<{ offset_of!(Udp, checksum) }, _>(udp) == 0) as u8;
            Ok(Transport { src, dst, flags })
        }
        ip_protocol::ICMP | ip_protocol::ICMPV6 => Err(PassReason::Icmp),
        _ => Err(PassReason::Protocol),
    }
}

/// The ports, with which every transport header that is read here begins.
#[inline(always)]
fn ports<T: Header>(header: &T) -> [[u8; 2]; 2] {
    let [a, b, c, d] = load32_at::<0, _>(header).to_ne_bytes();
    [[a, b], [c, d]]
}

/// Reads what [`transport`] does not: SCTP, and IPsec, which has no ports but follows the key exchange that made it.
#[inline(always)]
pub fn transport_otherwise<P: Packet>(packet: &P, l4: usize, protocol: u8) -> Result<Transport, PassReason> {
    match protocol {
        ip_protocol::SCTP => sctp::transport(packet, l4),
        ip_protocol::ESP | ip_protocol::AH => Ok(Transport { src: IKE, dst: IKE, flags: 0 }),
        _ => Err(PassReason::Protocol),
    }
}

/// The port of the Internet key exchange (RFC 7296), at both ends.
pub const IKE: [u8; 2] = 500u16.to_be_bytes();
