//! Looks at frames by etherparse.

use etherparse::checksum::Sum16BitWords;
use etherparse::{IpNumber, IpSlice, Ipv4HeaderSlice, Ipv6HeaderSlice};

/// Where the IP header begins.
pub const L3: usize = 14;

/// What a transport checksum is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sum {
    Right,
    Wrong,
    /// There is none, or none that can be reckoned.
    None,
}

/// Is the IP packet in a frame sound: does etherparse read its header, has the frame nothing behind it, is the header's checksum right?
pub fn assert_sound(frame: &[u8]) {
    let bytes = &frame[L3..];
    match frame[12..L3] {
        [8, 0] => {
            let header = Ipv4HeaderSlice::from_slice(bytes).expect("an IPv4 header leaves");
            assert_eq!(usize::from(header.total_len()), bytes.len(), "nothing lies behind the packet");
            assert_eq!(sum_of(header.slice()), 0, "the header's checksum is right");
        }
        [0x86, 0xdd] => {
            let header = Ipv6HeaderSlice::from_slice(bytes).expect("an IPv6 header leaves");
            assert_eq!(
                usize::from(header.payload_length()) + 40,
                bytes.len(),
                "nothing lies behind the packet"
            );
        }
        ref kind => panic!("an ethertype of {kind:02x?} leaves"),
    }
}

/// A frame without what lies behind its IP packet.
pub fn without_padding(frame: &[u8]) -> &[u8] {
    let word = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let length = if frame[12..L3] == [8, 0] { word(L3 + 2) } else { word(L3 + 4) + 40 };
    &frame[..L3 + length]
}

/// The complement of the sum of RFC 1071, in this machine's order of bytes, in which etherparse adds.
pub fn sum_of(bytes: &[u8]) -> u16 {
    Sum16BitWords::new().add_slice(bytes).ones_complement()
}

/// Time to live, or hop limit.
pub fn ttl(frame: &[u8]) -> u8 {
    if frame[12..L3] == [8, 0] { frame[L3 + 8] } else { frame[L3 + 7] }
}

/// The checksum of TCP, UDP or ICMP in a frame.
pub fn transport_sum(frame: &[u8]) -> Sum {
    let Ok(ip) = IpSlice::from_slice(&frame[L3..]) else { return Sum::None };
    let (payload, number) = (ip.payload(), ip.payload_ip_number());
    let bytes = payload.payload;
    let at = match number {
        IpNumber::TCP if bytes.len() >= 20 => 16,
        IpNumber::UDP if bytes.len() >= 8 => 6,
        IpNumber::ICMP | IpNumber::IPV6_ICMP if bytes.len() >= 8 => 2,
        _ => return Sum::None,
    };
    if payload.fragmented || (number == IpNumber::UDP && bytes[at..at + 2] == [0, 0]) {
        return Sum::None;
    }
    let mut sum = Sum16BitWords::new().add_slice(bytes);
    let length = (bytes.len() as u32).to_be_bytes();
    match (ip.source_addr(), ip.destination_addr()) {
        (std::net::IpAddr::V4(from), std::net::IpAddr::V4(to)) if number != IpNumber::ICMP => {
            sum = sum.add_4bytes(from.octets());
            sum = sum.add_4bytes(to.octets());
            sum = sum.add_4bytes(length).add_2bytes([0, number.0]);
        }
        (std::net::IpAddr::V6(from), std::net::IpAddr::V6(to)) => {
            sum = sum.add_16bytes(from.octets()).add_16bytes(to.octets());
            sum = sum.add_4bytes(length).add_2bytes([0, number.0]);
        }
        _ => {}
    }
    if sum.ones_complement() == 0 { Sum::Right } else { Sum::Wrong }
}
