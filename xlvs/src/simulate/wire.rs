//! Frames as clients and servers of the recorded cases send them, and where the director sent them.

use std::net::{IpAddr, SocketAddr};

/// TCP flags.
pub const SYN: u8 = 0x02;
/// See [`SYN`].
pub const FIN: u8 = 0x01;
/// See [`SYN`].
pub const RST: u8 = 0x04;
/// See [`SYN`].
pub const PSH: u8 = 0x08;
/// See [`SYN`].
pub const ACK: u8 = 0x10;

const ETHERNET: usize = 14;
/// The MACs of the director's interfaces end in this byte.
const DIRECTOR: u8 = 0xfe;

/// The layer above IP.
#[derive(Clone, Copy, Debug)]
pub enum Transport {
    /// TCP with these flags.
    Tcp(u8),
    /// UDP.
    Udp,
}

impl Transport {
    const fn number(self) -> u8 {
        match self {
            Self::Tcp(_) => 6,
            Self::Udp => 17,
        }
    }
}

/// A frame to the director. TCP carries the options that Linux sends: 20 bytes with a SYN, else 12.
pub fn frame(from: SocketAddr, to: SocketAddr, transport: Transport, payload: &[u8]) -> Vec<u8> {
    let mut segment = Vec::with_capacity(64);
    segment.extend(from.port().to_be_bytes());
    segment.extend(to.port().to_be_bytes());
    match transport {
        Transport::Tcp(flags) => {
            let options = if flags & SYN != 0 { 20 } else { 12 };
            segment.extend([0; 8]);
            segment.extend([((20 + options) / 4 * 16) as u8, flags, 0xff, 0xff, 0, 0, 0, 0]);
            segment.extend(std::iter::repeat_n(1, options));
        }
        Transport::Udp => {
            segment.extend((8 + payload.len() as u16).to_be_bytes());
            segment.extend([0, 0]);
        }
    }
    segment.extend(payload);
    let at = if matches!(transport, Transport::Udp) { 6 } else { 16 };
    let sum = segment_checksum(from.ip(), to.ip(), transport.number(), &segment);
    segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    let (kind, mut packet) = match (from.ip(), to.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            (0x0800u16, v4_header(src.octets(), dst.octets(), transport.number(), segment.len()))
        }
        (src, dst) => (0x86dd, v6_header(octets(src), octets(dst), transport.number(), segment.len())),
    };
    packet.extend(segment);
    let mut frame = vec![2, 0, 0, 0, 0, DIRECTOR, 2, 0, 0, 0, 0, 1];
    frame.extend(kind.to_be_bytes());
    frame.extend(packet);
    frame
}

/// An IPv4 header before so many bytes: identification 1, "don't fragment", time to live 64.
pub fn v4_header(src: [u8; 4], dst: [u8; 4], protocol: u8, payload: usize) -> Vec<u8> {
    let mut ip = vec![0x45, 0];
    ip.extend((20 + payload as u16).to_be_bytes());
    ip.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
    ip.extend(src);
    ip.extend(dst);
    let sum = checksum(&[&ip]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    ip
}

/// An IPv6 header before so many bytes: no flow label, hop limit 64.
pub fn v6_header(src: [u8; 16], dst: [u8; 16], next: u8, payload: usize) -> Vec<u8> {
    let mut ip = vec![0x60, 0, 0, 0];
    ip.extend((payload as u16).to_be_bytes());
    ip.extend([next, 64]);
    ip.extend(src);
    ip.extend(dst);
    ip
}

fn octets(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The checksum of TCP, UDP or ICMPv6 with these addresses, where its own field is 0; of what holds one already, 0 when it is
/// right.
pub fn segment_checksum(src: IpAddr, dst: IpAddr, protocol: u8, segment: &[u8]) -> u16 {
    let rest = [&[0, protocol][..], &(segment.len() as u16).to_be_bytes()].concat();
    let sum = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => checksum(&[&src.octets(), &dst.octets(), &rest, segment]),
        _ => checksum(&[&octets(src), &octets(dst), &rest, segment]),
    };
    if sum == 0 && protocol == 17 { 0xffff } else { sum }
}

/// The Internet checksum of these parts, all but the last of even length.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u32 = words.map(|w| u32::from(u16::from_be_bytes([w[0], w.get(1).copied().unwrap_or(0)]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// The MAC of the server with this number.
pub const fn server_mac(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 2, number]
}

/// The number of the server that a frame goes to, if it goes to one.
pub fn server_of(frame: &[u8]) -> Option<u8> {
    match frame.get(..6)? {
        [2, 0, 0, 0, 2, number] => Some(*number),
        _ => None,
    }
}

/// The address and port that a frame is for, where it is TCP or UDP and not in a tunnel.
pub fn destination(frame: &[u8]) -> Option<SocketAddr> {
    let packet = frame.get(ETHERNET..)?;
    let (protocol, addr, segment) = match packet.first()? >> 4 {
        4 => {
            let addr: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            (packet[9], IpAddr::from(addr), packet.get(usize::from(packet[0] & 0xf) * 4..)?)
        }
        _ => {
            let addr: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            (packet[6], IpAddr::from(addr), packet.get(40..)?)
        }
    };
    let port = segment.get(2..4).filter(|_| protocol == 6 || protocol == 17)?;
    Some(SocketAddr::new(addr, u16::from_be_bytes([port[0], port[1]])))
}
