//! Frames of clients and servers, with right checksums.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// TCP's flags.
pub mod flag {
    /// Opens.
    pub const SYN: u8 = 0x02;
    /// Agrees.
    pub const SYN_ACK: u8 = 0x12;
    /// Goes on.
    pub const ACK: u8 = 0x10;
    /// Closes.
    pub const FIN_ACK: u8 = 0x11;
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// TCP with these flags.
    Tcp(u8),
    /// UDP.
    Udp,
}

/// A frame to be built.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// From whom.
    pub from: (IpAddr, u16),
    /// To whom; of the same family.
    pub to: (IpAddr, u16),
    /// With what.
    pub payload: Payload,
}

/// A frame's length that holds every header of IPv4.
pub const SHORT: usize = 64;
/// A frame's length that holds those of IPv6 too.
pub const LONG: usize = 128;

const _: () = assert!(SHORT >= 14 + 20 + 20 && LONG >= 14 + 40 + 20, "every header fits");

impl Frame {
    /// Writes the frame, as long as `frame` is.
    pub fn write(&self, frame: &mut [u8]) {
        frame.fill(0);
        frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 0xfe, 2, 0, 0, 0, 0, 1]);
        match (self.from.0, self.to.0) {
            (IpAddr::V4(from), IpAddr::V4(to)) => self.write_v4(from, to, frame),
            (IpAddr::V6(from), IpAddr::V6(to)) => self.write_v6(from, to, frame),
            _ => unreachable!("both ends are of one family"),
        }
    }

    fn protocol(&self) -> u8 {
        if self.payload == Payload::Udp { 17 } else { 6 }
    }

    fn write_v4(&self, from: Ipv4Addr, to: Ipv4Addr, frame: &mut [u8]) {
        let length = (frame.len() - 14) as u16;
        frame[12..14].copy_from_slice(&[8, 0]);
        let ip = &mut frame[14..34];
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&length.to_be_bytes());
        ip[6..10].copy_from_slice(&[0x40, 0, 64, self.protocol()]);
        ip[12..16].copy_from_slice(&from.octets());
        ip[16..20].copy_from_slice(&to.octets());
        let sum = checksum(&[ip]);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        let addresses = [from.octets(), to.octets()].concat();
        self.write_transport(&addresses, &mut frame[34..]);
    }

    fn write_v6(&self, from: Ipv6Addr, to: Ipv6Addr, frame: &mut [u8]) {
        let length = (frame.len() - 54) as u16;
        frame[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
        frame[18..20].copy_from_slice(&length.to_be_bytes());
        frame[20..22].copy_from_slice(&[self.protocol(), 64]);
        frame[22..38].copy_from_slice(&from.octets());
        frame[38..54].copy_from_slice(&to.octets());
        let addresses = [from.octets(), to.octets()].concat();
        self.write_transport(&addresses, &mut frame[54..]);
    }

    fn write_transport(&self, addresses: &[u8], segment: &mut [u8]) {
        segment[0..2].copy_from_slice(&self.from.1.to_be_bytes());
        segment[2..4].copy_from_slice(&self.to.1.to_be_bytes());
        let length = (segment.len() as u16).to_be_bytes();
        let at = match self.payload {
            Payload::Tcp(flags) => {
                segment[4..12].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
                segment[12..16].copy_from_slice(&[0x50, flags, 0xff, 0xff]);
                16
            }
            Payload::Udp => {
                segment[4..6].copy_from_slice(&length);
                6
            }
        };
        let sum = checksum(&[addresses, &[0, self.protocol()], &length, segment]);
        segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

/// ICMP's "fragmentation needed" of a router that could not hand on what a server sent to a client, as long as `frame` is.
pub fn fragmentation_needed(
    router: Ipv4Addr,
    server: (Ipv4Addr, u16),
    client: (Ipv4Addr, u16),
    frame: &mut [u8],
) {
    const QUOTE: usize = 14 + 20 + 8;
    let payload = Payload::Tcp(flag::ACK);
    let (from, to) = ((server.0.into(), server.1), (client.0.into(), client.1));
    let mut quoted = [0; SHORT];
    Frame { from, to, payload }.write(&mut quoted);
    Frame { from: (router.into(), 0), to: (server.0.into(), 0), payload: Payload::Udp }.write(frame);
    frame[23] = 1;
    frame[24..26].fill(0);
    let sum = checksum(&[&frame[14..34]]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame[34..].fill(0);
    frame[34..36].copy_from_slice(&[3, 4]);
    frame[40..42].copy_from_slice(&1400u16.to_be_bytes());
    frame[QUOTE..QUOTE + SHORT - 14].copy_from_slice(&quoted[14..]);
    let sum = checksum(&[&frame[34..]]);
    frame[36..38].copy_from_slice(&sum.to_be_bytes());
}

/// RFC 1071 over pieces of even length.
pub fn checksum(pieces: &[&[u8]]) -> u16 {
    let words = pieces.iter().flat_map(|piece| piece.chunks_exact(2));
    let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Over data with its checksum in it, the checksum is zero (RFC 1071).
    fn is_right(pieces: &[&[u8]]) -> bool {
        checksum(pieces) == 0
    }

    #[test]
    fn the_router_quotes_the_packet_with_right_checksums() {
        let mut frame = [0; LONG];
        let (vip, client) = (Ipv4Addr::new(10, 200, 1, 1), Ipv4Addr::new(10, 64, 0, 7));
        fragmentation_needed(Ipv4Addr::new(10, 65, 0, 1), (vip, 80), (client, 1234), &mut frame);
        assert!(is_right(&[&frame[14..34]]) && is_right(&[&frame[34..]]) && is_right(&[&frame[42..62]]));
        assert_eq!(
            (&frame[30..34], &frame[54..58], &frame[58..62]),
            (&[10, 200, 1, 1][..], &[10, 200, 1, 1][..], &[10, 64, 0, 7][..])
        );
        assert_eq!(&frame[62..66], &[0, 80, 0x04, 0xd2]);
    }

    #[test]
    fn the_checksums_are_right() {
        for payload in [Payload::Tcp(flag::SYN), Payload::Udp] {
            let mut frame = [0; SHORT];
            let (from, to) = ((IpAddr::from([10, 64, 0, 7]), 1234), (IpAddr::from([10, 200, 1, 1]), 80));
            Frame { from, to, payload }.write(&mut frame);
            assert!(is_right(&[&frame[14..34]]));
            assert!(is_right(&[&frame[26..34], &[0, frame[23]], &30u16.to_be_bytes(), &frame[34..]]));
            let mut frame = [0; LONG];
            let v6 = |n| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n]);
            Frame { from: (v6(1), 1234), to: (v6(2), 80), payload }.write(&mut frame);
            assert!(is_right(&[&frame[22..54], &[0, frame[20]], &74u16.to_be_bytes(), &frame[54..]]));
        }
    }
}
