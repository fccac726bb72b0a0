//! IP packets as the stack reads and writes them.

use std::net::IpAddr;

use super::super::wire;

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP_V6: u8 = 58;
pub const SCTP: u8 = 132;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

const V4_HEADER: usize = 20;
const V6_HEADER: usize = 40;
const DONT_FRAGMENT: u8 = 0x40;
const MORE_FRAGMENTS: u8 = 0x20;
/// IP options that say where a packet is to go.
const LOOSE_SOURCE_ROUTE: u8 = 0x83;
const STRICT_SOURCE_ROUTE: u8 = 0x89;

/// A packet that came in, without what the frame had after it.
#[derive(Clone, Debug)]
pub struct Packet {
    /// All of it.
    pub bytes: Vec<u8>,
    /// Its source.
    pub src: IpAddr,
    /// Its destination.
    pub dst: IpAddr,
    /// Time to live, or hop limit.
    pub hops: u8,
    /// DSCP and ECN.
    pub class: u8,
    /// What follows the IP headers.
    pub protocol: u8,
    /// Where the header names it.
    pub protocol_at: usize,
    /// Where it begins.
    pub at: usize,
    /// Which part of a packet it is, if it is one.
    pub fragment: Option<Fragment>,
}

/// A part of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// Which packet's.
    pub id: u32,
    /// Where in its payload this part begins.
    pub offset: usize,
    /// Others follow.
    pub more: bool,
    /// IPv6: where the fragment header is.
    pub header_at: usize,
}

impl Packet {
    /// Reads what a frame carries. None: a stack drops it without a word.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => read_v4(bytes),
            6 => read_v6(bytes),
            _ => None,
        }
    }

    /// What follows the IP headers.
    pub fn payload(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Is it IPv6?
    pub fn is_v6(&self) -> bool {
        self.dst.is_ipv6()
    }

    /// Must no router cut it up?
    pub fn must_stay_whole(&self) -> bool {
        self.is_v6() || self.bytes[6] & DONT_FRAGMENT != 0
    }

    /// One router further on.
    pub fn aged(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        if self.is_v6() {
            bytes[7] -= 1;
        } else {
            bytes[8] -= 1;
            seal(&mut bytes, self.v4_header_len());
        }
        bytes
    }

    /// This packet, a first fragment, with all of the payload.
    pub fn completed(&self, payload: &[u8]) -> Option<Self> {
        let part = self.fragment?;
        let mut bytes = self.bytes[..self.at].to_vec();
        if self.is_v6() {
            bytes.drain(part.header_at..self.at);
            bytes[self.protocol_before(part.header_at)] = self.protocol;
            let length = bytes.len() - V6_HEADER + payload.len();
            bytes[4..6].copy_from_slice(&u16::try_from(length).ok()?.to_be_bytes());
        } else {
            bytes[6..8].fill(0);
            let length = u16::try_from(bytes.len() + payload.len()).ok()?;
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
            seal(&mut bytes, self.at);
        }
        bytes.extend(payload);
        Self::read(&bytes)
    }

    /// Where the header before the one at this place names what follows.
    fn protocol_before(&self, place: usize) -> usize {
        let (mut at, mut next, mut named_at) = (V6_HEADER, self.bytes[6], 6);
        while at < place {
            (named_at, next) = (at, self.bytes[at]);
            at += 8 * (usize::from(self.bytes[at + 1]) + 1);
        }
        debug_assert_eq!(next, FRAGMENT);
        named_at
    }

    fn v4_header_len(&self) -> usize {
        usize::from(self.bytes[0] & 0xf) * 4
    }
}

fn read_v4(frame: &[u8]) -> Option<Packet> {
    let at = usize::from(frame[0] & 0xf) * 4;
    let length = usize::from(word(frame, 2)?);
    let header = frame.get(..at).filter(|_| at >= V4_HEADER && length >= at)?;
    let bytes = frame.get(..length)?;
    if wire::checksum(&[header]) != 0 || asks_for_a_way(&header[V4_HEADER..]) {
        return None;
    }
    let (flags, id) = (word(bytes, 6)?, u32::from(word(bytes, 4)?));
    let (offset, more) = (usize::from(flags & 0x1fff) * 8, bytes[6] & MORE_FRAGMENTS != 0);
    let fragment = (offset != 0 || more).then_some(Fragment { id, offset, more, header_at: 0 });
    Some(Packet {
        src: IpAddr::from(<[u8; 4]>::try_from(&bytes[12..16]).ok()?),
        dst: IpAddr::from(<[u8; 4]>::try_from(&bytes[16..20]).ok()?),
        hops: bytes[8],
        class: bytes[1],
        protocol: bytes[9],
        protocol_at: 9,
        at,
        fragment,
        bytes: bytes.to_vec(),
    })
}

/// Source routes are refused.
fn asks_for_a_way(mut options: &[u8]) -> bool {
    while let [kind, rest @ ..] = options {
        match *kind {
            0 => return false,
            1 => options = rest,
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => return true,
            _ => {
                options = rest.first().and_then(|len| options.get(usize::from(*len).max(2)..)).unwrap_or(&[])
            }
        }
    }
    false
}

fn read_v6(frame: &[u8]) -> Option<Packet> {
    let length = V6_HEADER + usize::from(word(frame, 4)?);
    let bytes = frame.get(..length)?;
    let (mut at, mut protocol, mut protocol_at, mut fragment) = (V6_HEADER, bytes[6], 6, None);
    while let HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | FRAGMENT = protocol {
        let header = bytes.get(at..at + 8)?;
        if protocol == FRAGMENT {
            let (place, id) = (word(header, 2)?, u32::from_be_bytes(header[4..8].try_into().ok()?));
            let part = Fragment { id, offset: usize::from(place & !7), more: place & 1 != 0, header_at: at };
            // One that is the whole packet is none (RFC 6946).
            fragment = Some(part).filter(|part| part.offset != 0 || part.more);
        }
        let extent = if protocol == FRAGMENT { 8 } else { 8 * (usize::from(header[1]) + 1) };
        (protocol, protocol_at, at) = (header[0], at, at + extent);
        if fragment.is_some() {
            // The rest is the payload's.
            break;
        }
    }
    Some(Packet {
        src: IpAddr::from(<[u8; 16]>::try_from(&bytes[8..24]).ok()?),
        dst: IpAddr::from(<[u8; 16]>::try_from(&bytes[24..40]).ok()?),
        hops: bytes[7],
        class: bytes[0] << 4 | bytes[1] >> 4,
        protocol,
        protocol_at,
        at,
        fragment,
        bytes: bytes.to_vec(),
    })
}

/// Whether the stack lets routers cut up what it says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whole {
    /// It must not be cut, and so needs no identification.
    Always,
    /// It may be, and has this identification. IPv6 knows no such thing.
    If(u16),
}

/// A packet of the stack's own, with time to live 64.
pub fn packet(src: IpAddr, dst: IpAddr, protocol: u8, class: u8, whole: Whole, payload: &[u8]) -> Vec<u8> {
    let mut packet = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut ip = wire::v4_header(src.octets(), dst.octets(), protocol, payload.len());
            ip[1] = class;
            let (id, flags) = match whole {
                Whole::Always => (0, DONT_FRAGMENT),
                Whole::If(id) => (id, 0),
            };
            ip[4..6].copy_from_slice(&id.to_be_bytes());
            ip[6] = flags;
            seal(&mut ip, V4_HEADER);
            ip
        }
        (src, dst) => {
            let octets = |addr| match addr {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                IpAddr::V6(v6) => v6.octets(),
            };
            let mut ip = wire::v6_header(octets(src), octets(dst), protocol, payload.len());
            ip[0] |= class >> 4;
            ip[1] |= class << 4;
            ip
        }
    };
    packet.extend(payload);
    packet
}

/// An IPv4 packet in parts that are not longer than that.
pub fn cut_up(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let header = usize::from(packet[0] & 0xf) * 4;
    let (before, is_last) = (u16::from_be_bytes([packet[6], packet[7]]), packet[6] & MORE_FRAGMENTS == 0);
    let room = mtu.saturating_sub(header) & !7;
    if packet.len() <= mtu || room == 0 {
        return vec![packet.to_vec()];
    }
    let parts: Vec<&[u8]> = packet[header..].chunks(room).collect();
    let part = |(number, payload): (usize, &&[u8])| {
        let mut part = packet[..header].to_vec();
        part.extend(*payload);
        let more = if number + 1 == parts.len() && is_last { 0 } else { u16::from(MORE_FRAGMENTS) << 8 };
        let place = (before & !(u16::from(MORE_FRAGMENTS) << 8)) + (number * room / 8) as u16;
        part[2..4].copy_from_slice(&((header + payload.len()) as u16).to_be_bytes());
        part[6..8].copy_from_slice(&(place | more).to_be_bytes());
        seal(&mut part, header);
        part
    };
    parts.iter().enumerate().map(part).collect()
}

/// Puts the right checksum into an IPv4 header.
fn seal(packet: &mut [u8], header: usize) {
    packet[10..12].fill(0);
    let sum = wire::checksum(&[&packet[..header]]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Two bytes as a number.
pub fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).map(|two| u16::from_be_bytes([two[0], two[1]]))
}

/// Four bytes as a number.
pub fn long(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
