//! What an ICMP error says of the packet that it is about: its headers, as far as they are quoted (RFC 792, RFC 4443 2.4).

use crate::checksum::{Update, ipv4_header_sum};
use crate::family::Ends;
use crate::forward::nat::End;
use crate::forward::{v4, v6};
use crate::packet::Packet;
use crate::parse::{self, FARTHEST_L4, Net, Word};
use crate::unaligned::load32;
use crate::verdict::DropReason;
use crate::wire::{AddrV6, Ipv4, Ipv6, ip_protocol};

/// A quoted packet. Seldom whole: its length is what its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Quote<A> {
    /// Its network part; `l4` is where its transport header is in the frame.
    pub net: Net<A>,
    /// Where its network header is in the frame.
    pub at: usize,
    /// Its source and its destination port, as on the wire; 0 for a protocol that has none.
    pub ports: [[u8; 2]; 2],
}

impl<A: Copy> Quote<A> {
    /// One that nothing was read into yet.
    #[inline(always)]
    pub fn blank(nowhere: A) -> Self {
        let net = Net { l4: 0, src: nowhere, dst: nowhere, protocol: 0, len: 0, fragment: false };
        Self { net, at: 0, ports: [[0; 2]; 2] }
    }

    /// The protocol of the connection that it belongs to: IPsec's packets follow their key exchange.
    #[inline(always)]
    fn protocol(&self) -> u8 {
        if ip_protocol::is_ipsec(self.net.protocol) { ip_protocol::UDP } else { self.net.protocol }
    }

    /// The quoted packet's ends.
    #[inline(always)]
    pub fn ends(&self) -> Ends<A> {
        let ([from_port, to_port], net) = (self.ports, &self.net);
        Ends { from: net.src, from_port, to: net.dst, to_port, protocol: self.protocol() }
    }

    /// The ends of a packet in the other direction.
    #[inline(always)]
    pub fn reversed(&self) -> Ends<A> {
        let ([to_port, from_port], net) = (self.ports, &self.net);
        Ends { from: net.dst, from_port, to: net.src, to_port, protocol: self.protocol() }
    }
}

/// Reads an IPv4 packet that is quoted there. Four bytes of its transport header are enough; a fragment without them is nobody's.
#[inline(always)]
pub fn read_v4<P: Packet>(packet: &P, at: usize) -> Option<Quote<[u8; 4]>> {
    // For the verifier, which cannot know it.
    if at > FARTHEST_L4 {
        return None;
    }
    let ip = packet.header::<Ipv4>(at)?;
    let header = ip.header_len();
    if ip.version_ihl >> 4 != 4 || header < Ipv4::LEN || u16::from_be_bytes(ip.frag) & Ipv4::OFFSET != 0 {
        return None;
    }
    let net = Net {
        l4: at + header,
        src: load32(&ip.src).to_ne_bytes(),
        dst: load32(&ip.dst).to_ne_bytes(),
        protocol: ip.protocol,
        len: ip.packet_len(),
        fragment: false,
    };
    let ports = read_ports(packet, net.l4, net.protocol)?;
    Some(Quote { net, at, ports })
}

/// Reads an IPv6 packet that is quoted there, likewise.
#[inline(always)]
pub fn read_v6<P: Packet>(packet: &P, at: usize) -> Option<Quote<AddrV6>> {
    if at > FARTHEST_L4 {
        return None;
    }
    let ip = packet.header::<Ipv6>(at)?;
    if ip.version_class_flow[0] >> 4 != 6 {
        return None;
    }
    let mut net = Net {
        l4: at + Ipv6::LEN,
        src: ip.src.get(),
        dst: ip.dst.get(),
        protocol: ip.next,
        len: ip.packet_len(),
        fragment: false,
    };
    parse::walk_extensions(packet, &mut net).ok()?;
    if net.fragment {
        return None;
    }
    let ports = read_ports(packet, net.l4, net.protocol)?;
    Some(Quote { net, at, ports })
}

#[inline(always)]
fn read_ports<P: Packet>(packet: &P, l4: usize, protocol: u8) -> Option<[[u8; 2]; 2]> {
    if ip_protocol::is_ipsec(protocol) {
        return Some([parse::IKE; 2]);
    }
    if !ip_protocol::has_ports(protocol) {
        return Some([[0; 2]; 2]);
    }
    if l4 > FARTHEST_L4 {
        return None;
    }
    let Word([a, b, c, d]) = *packet.header::<Word>(l4)?;
    Some([[a, b], [c, d]])
}

/// Gives the quoted IPv4 packet another address and port at one end. Its header's checksum is made right, that of its transport
/// stays as it was, as in the kernel. Returns what that changes in the sum of the ICMP message.
#[inline(always)]
pub fn translate_v4<P: Packet>(
    packet: &mut P,
    quote: &Quote<[u8; 4]>,
    end: End,
    addr: [u8; 4],
    port: [u8; 2],
) -> Result<Update, DropReason> {
    if quote.at > FARTHEST_L4 {
        return Err(DropReason::Malformed);
    }
    let options =
        parse::options_sum(packet, quote.at + Ipv4::LEN, quote.net.l4).ok_or(DropReason::Malformed)?;
    let Some(ip) = packet.header_mut::<Ipv4>(quote.at) else { return Err(DropReason::Malformed) };
    let changed = v4::readdress(ip, end, addr);
    let old = ip.checksum;
    ip.checksum = [0, 0];
    ip.checksum = ipv4_header_sum(ip).add(options).checksum();
    let changed = changed.replace16(old, ip.checksum);
    translate_port(packet, quote.net.l4, quote.net.protocol, end, port, changed)
}

/// The same for IPv6, whose header has no checksum.
#[inline(always)]
pub fn translate_v6<P: Packet>(
    packet: &mut P,
    quote: &Quote<AddrV6>,
    end: End,
    addr: AddrV6,
    port: [u8; 2],
) -> Result<Update, DropReason> {
    if quote.at > FARTHEST_L4 {
        return Err(DropReason::Malformed);
    }
    let Some(ip) = packet.header_mut::<Ipv6>(quote.at) else { return Err(DropReason::Malformed) };
    let changed = v6::readdress(ip, end, addr);
    translate_port(packet, quote.net.l4, quote.net.protocol, end, port, changed)
}

#[inline(always)]
fn translate_port<P: Packet>(
    packet: &mut P,
    l4: usize,
    protocol: u8,
    end: End,
    port: [u8; 2],
    changed: Update,
) -> Result<Update, DropReason> {
    if !ip_protocol::has_ports(protocol) {
        return Ok(changed);
    }
    if l4 > FARTHEST_L4 {
        return Err(DropReason::Malformed);
    }
    let Some(Word(ports)) = packet.header_mut::<Word>(l4) else { return Err(DropReason::Malformed) };
    let [a, b, c, d] = *ports;
    let [e, f] = port;
    *ports = match end {
        End::Source => [e, f, c, d],
        End::Destination => [a, b, e, f],
    };
    Ok(changed.replace32([a, b, c, d], *ports))
}
