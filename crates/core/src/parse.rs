//! From bytes to what the director needs to know of a packet.
//!
//! In two steps, so that traffic that is not ours costs only the first: [`network`] reads Ethernet and IP and trusts
//! nothing; [`transport`] reads ports and flags of a packet that may be ours.

use crate::checksum::ipv4_header_sum;
use crate::packet::Packet;
use crate::verdict::PassReason;
use crate::wire::{Ethernet, Ipv4, Tcp, Udp, ethertype, ip_protocol};

/// An IPv4 packet's network part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetV4 {
    /// Offset of the transport header in the frame.
    pub l4: usize,
    /// Source address.
    pub src: [u8; 4],
    /// Destination address.
    pub dst: [u8; 4],
    /// IP protocol.
    pub protocol: u8,
    /// Layer-3 length in bytes.
    pub len: u16,
    /// Is it a fragment (the first one included)?
    pub fragment: bool,
}

/// Offset of the IP header in the frames that are balanced.
pub const L3: usize = Ethernet::LEN;

/// A packet that is one of the families that are balanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    /// IPv4.
    V4(NetV4),
}

/// Reads Ethernet and IP. `Err`: why the stack gets the packet instead.
#[inline(always)]
pub fn network<P: Packet>(packet: &P) -> Result<Net, PassReason> {
    let Some(eth) = packet.header::<Ethernet>(0) else { return Err(PassReason::NotIp) };
    if eth.dst[0] & 1 != 0 {
        // Group addresses: IPVS takes only what was sent to the director itself (PACKET_HOST).
        return Err(PassReason::Group);
    }
    match eth.ethertype() {
        ethertype::IPV4 => network_v4(packet),
        ethertype::IPV6 | ethertype::VLAN | ethertype::QINQ => Err(PassReason::Family),
        _ => Err(PassReason::NotIp),
    }
}

#[inline(always)]
fn network_v4<P: Packet>(packet: &P) -> Result<Net, PassReason> {
    let Some(ip) = packet.header::<Ipv4>(L3) else { return Err(PassReason::Malformed) };
    let header = ip.header_len();
    let len = ip.packet_len();
    if ip.version_ihl >> 4 != 4
        || header < Ipv4::LEN
        || (len as usize) < header
        || L3 + len as usize > packet.len()
    {
        return Err(PassReason::Malformed);
    }
    Ok(Net::V4(NetV4 {
        l4: L3 + header,
        src: ip.src,
        dst: ip.dst,
        protocol: ip.protocol,
        len,
        fragment: u16::from_be_bytes(ip.frag) & Ipv4::FRAGMENT != 0,
    }))
}

/// Is the IPv4 header's checksum right? The stack drops packets whose is not before IPVS would see them.
#[inline(always)]
pub fn checksum_holds_v4<P: Packet>(packet: &P, net: &NetV4) -> bool {
    let Some(ip) = packet.header::<Ipv4>(L3) else { return false };
    let mut sum = ipv4_header_sum(ip);
    if net.l4 != L3 + Ipv4::LEN {
        for i in 0..10 {
            let at = L3 + Ipv4::LEN + i * 4;
            if at >= net.l4 {
                break;
            }
            let Some(option) = packet.header::<Word>(at) else { return false };
            sum = sum.add32(option.0);
        }
    }
    sum.fold() == 0xffff
}

/// Four bytes of anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Word(pub [u8; 4]);
// SAFETY: an array of bytes.
unsafe impl crate::wire::Header for Word {}

/// The transport part of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// Source port, as on the wire.
    pub src: [u8; 2],
    /// Destination port, as on the wire.
    pub dst: [u8; 2],
    /// TCP's flags; 0 for others.
    pub flags: u8,
}

/// Reads ports and flags. `Err`: why the stack gets the packet instead.
#[inline(always)]
pub fn transport<P: Packet>(packet: &P, l4: usize, protocol: u8) -> Result<Transport, PassReason> {
    // An IPv4 header has 20 to 60 bytes; said again for the verifier, which cannot know it.
    if l4 > L3 + 60 {
        return Err(PassReason::Malformed);
    }
    match protocol {
        ip_protocol::TCP => {
            let Some(tcp) = packet.header::<Tcp>(l4) else { return Err(PassReason::Malformed) };
            Ok(Transport { src: tcp.src, dst: tcp.dst, flags: tcp.flags })
        }
        ip_protocol::UDP => {
            let Some(udp) = packet.header::<Udp>(l4) else { return Err(PassReason::Malformed) };
            Ok(Transport { src: udp.src, dst: udp.dst, flags: 0 })
        }
        ip_protocol::ICMP => Err(PassReason::Icmp),
        _ => Err(PassReason::Protocol),
    }
}
