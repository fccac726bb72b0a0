//! Packets that the kernel keeps as one until they leave (segmentation offload), and checksums that it leaves to the device until
//! then: what socket buffers have, and XDP frames have not.

use core::mem::offset_of;

use crate::checksum::{Sum, sum_packed};
use crate::env::Env;
use crate::packet::Packet;
use crate::parse::{FARTHEST_L4, L3, Word};
use crate::wire::{Ipv4, Ipv6, Tcp, Udp, ip_protocol};

/// Bytes, as an IP packet, of the longest of the packets that are made of this one, of so many bytes, when each gets so many of its
/// payload.
#[inline(always)]
pub fn longest<P: Packet>(packet: &P, is_v6: bool, payload: u16, len: u16) -> u16 {
    let longest = headers(packet, is_v6).unwrap_or(0) as u32 + payload as u32;
    if longest < len as u32 { longest as u16 } else { len }
}

/// Bytes of the headers that each of them gets. `None`: it has other headers than such packets have.
#[inline(always)]
fn headers<P: Packet>(packet: &P, is_v6: bool) -> Option<u16> {
    let (l4, protocol) = transport_at(packet, L3, is_v6)?;
    let transport = match protocol {
        ip_protocol::TCP => (packet.header::<Tcp>(l4)?.offset >> 4 << 2) as usize,
        ip_protocol::UDP => Udp::LEN,
        _ => return None,
    };
    Some((l4 - L3 + transport) as u16)
}

/// Where the transport header of the IP packet at this offset begins, and its protocol. Extension headers are not walked.
#[inline(always)]
fn transport_at<P: Packet>(packet: &P, at: usize, is_v6: bool) -> Option<(usize, u8)> {
    if at > FARTHEST_L4 {
        return None;
    }
    if is_v6 {
        return Some((at + Ipv6::LEN, packet.header::<Ipv6>(at)?.next));
    }
    let ip = packet.header::<Ipv4>(at)?;
    Some((at + ip.header_len(), ip.protocol))
}

/// An IP packet inside another.
#[derive(Clone, Copy)]
pub struct Inside {
    /// Where it begins.
    pub at: usize,
    /// Is it IPv6?
    pub is_v6: bool,
}

/// The sum of so many bytes from this offset on, up to the end of a packet inside, added to another. If the checksum of the packet inside
/// is left to the device, as it will be when that has completed it: then all from the transport header on adds up to the complement of what
/// stands in the checksum's place now, whatever it is. `None`: they are not there.
#[inline(always)]
pub fn sum_with<P: Packet, E: Env>(
    packet: &mut P,
    env: &E,
    at: usize,
    length: usize,
    inside: Inside,
    start: Sum,
) -> Option<Sum> {
    if P::KEEPS_NOTES && packet.is_left_to_device() {
        let (l4, protocol) = transport_at(packet, inside.at, inside.is_v6)?;
        let open = open_checksum(packet, l4, protocol)?;
        let head = sum_packed(packet, env, at, l4.checked_sub(at)?, start)?;
        return Some(head.add16([!open[0], !open[1]]));
    }
    sum_packed(packet, env, at, length, start)
}

/// What stands in the place of a checksum.
#[inline(always)]
fn open_checksum<P: Packet>(packet: &P, l4: usize, protocol: u8) -> Option<[u8; 2]> {
    // With what is beside it: an ICMP error may quote no more.
    let (word, second) = match protocol {
        ip_protocol::TCP => (offset_of!(Tcp, checksum), false),
        ip_protocol::UDP => (offset_of!(Udp, len), true),
        _ => return None,
    };
    let Word([a, b, c, d]) = *packet.header::<Word>(l4 + word)?;
    Some(if second { [c, d] } else { [a, b] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Frame;

    fn judged(is_v6: bool, header: &[u8], l4: &[u8], payload: u16, len: u16) -> u16 {
        let mut buffer = [&[0; L3][..], header, l4].concat();
        longest(&Frame::new(&mut buffer, 0), is_v6, payload, len)
    }

    #[test]
    fn a_segment_has_all_headers_and_its_share_of_the_payload() {
        let mut tcp = [0; 32];
        tcp[12] = 8 << 4;
        let v4 = [&[0x45, 0, 0xff, 0xff, 0, 0, 0, 0, 64, ip_protocol::TCP][..], &[0; 10]].concat();
        assert_eq!(judged(false, &v4, &tcp, 1448, 65_000), 1500);
        let with_options = [&[0x47][..], &v4[1..], &[0; 8]].concat();
        assert_eq!(judged(false, &with_options, &tcp, 1448, 65_000), 1508);
        let v6 = [&[0x60, 0, 0, 0, 0xff, 0xff, ip_protocol::UDP, 64][..], &[0; 32]].concat();
        assert_eq!(judged(true, &v6, &[0; 8], 1200, 65_000), 1248);
        assert_eq!(judged(false, &v4, &tcp, 1448, 900), 900, "never longer than the whole");
    }
}
