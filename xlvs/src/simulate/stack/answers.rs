//! What the transport layers of a host say where nobody listens.

use super::super::wire;
use super::packet::{self, ICMP, ICMP_V6, Packet, SCTP, TCP, UDP, long, word};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// The two bits of a packet's class that are not DSCP.
const ECN: u8 = 0x03;
/// SCTP's packets say that they understand ECN.
const ECT_0: u8 = 0x02;

/// What is to be said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// A packet of the same protocol, or of this family's ICMP.
    Packet {
        /// DSCP and ECN.
        class: u8,
        /// No router may cut it up.
        whole: bool,
        /// What follows the IP header.
        payload: Vec<u8>,
    },
    /// ICMP: nobody has this port.
    PortUnreachable,
    /// ICMP: nobody speaks this protocol.
    ProtocolUnreachable,
}

/// What a host without any open port says to a packet that is for it.
pub fn answer(packet: &Packet, now_ms: u64) -> Option<Answer> {
    match packet.protocol {
        ICMP if !packet.is_v6() => icmp(packet, now_ms),
        ICMP_V6 if packet.is_v6() => icmp_v6(packet),
        TCP => tcp(packet),
        UDP => udp(packet),
        SCTP => sctp(packet),
        _ => Some(Answer::ProtocolUnreachable),
    }
}

fn icmp(packet: &Packet, now_ms: u64) -> Option<Answer> {
    const ECHO: u8 = 8;
    const ECHO_REPLY: u8 = 0;
    const TIMESTAMP: u8 = 13;
    const TIMESTAMP_REPLY: u8 = 14;
    let asked = packet.payload();
    if asked.len() < 8 || wire::checksum(&[asked]) != 0 {
        return None;
    }
    let mut payload = match asked[0] {
        ECHO => [&[ECHO_REPLY], &asked[1..]].concat(),
        TIMESTAMP => {
            let clock = (now_ms as u32).to_be_bytes();
            [&[TIMESTAMP_REPLY], &asked[1..8], asked.get(8..12)?, &clock, &clock].concat()
        }
        _ => return None,
    };
    payload[2..4].fill(0);
    let sum = wire::checksum(&[&payload]);
    payload[2..4].copy_from_slice(&sum.to_be_bytes());
    Some(Answer::Packet { class: packet.class, whole: false, payload })
}

fn icmp_v6(packet: &Packet) -> Option<Answer> {
    const ECHO: u8 = 128;
    const ECHO_REPLY: u8 = 129;
    let asked = packet.payload();
    if asked.len() < 8 || asked[0] != ECHO || !is_sound(packet) {
        return None;
    }
    let mut payload = [&[ECHO_REPLY], &asked[1..]].concat();
    payload[2..4].fill(0);
    let sum = wire::segment_checksum(packet.dst, packet.src, ICMP_V6, &payload);
    payload[2..4].copy_from_slice(&sum.to_be_bytes());
    Some(Answer::Packet { class: packet.class, whole: false, payload })
}

/// A reset that the sender must believe (RFC 9293, 3.10.7.1).
fn tcp(packet: &Packet) -> Option<Answer> {
    let segment = packet.payload();
    let (flags, offset) = (*segment.get(13)?, usize::from(segment.get(12)? >> 4) * 4);
    if flags & RST != 0 || offset < 20 || offset > segment.len() || !is_sound(packet) {
        return None;
    }
    let (seq, ack) = (long(segment, 4)?, long(segment, 8)?);
    let (seq, ack, flags) = if flags & ACK != 0 {
        (ack, 0, RST)
    } else {
        let taken =
            (segment.len() - offset) as u32 + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        (0, seq.wrapping_add(taken), RST | ACK)
    };
    let ports = [&segment[2..4], &segment[..2]].concat();
    let rest = [&seq.to_be_bytes()[..], &ack.to_be_bytes(), &[0x50, flags, 0, 0, 0, 0, 0, 0]].concat();
    let mut payload = [ports, rest].concat();
    let sum = wire::segment_checksum(packet.dst, packet.src, TCP, &payload);
    payload[16..18].copy_from_slice(&sum.to_be_bytes());
    Some(Answer::Packet { class: packet.class & !ECN, whole: true, payload })
}

fn udp(packet: &Packet) -> Option<Answer> {
    let datagram = packet.payload();
    let length = usize::from(word(datagram, 4)?);
    let unsummed = word(datagram, 6)? == 0;
    let whole = (8..=datagram.len()).contains(&length);
    let sound = if unsummed { !packet.is_v6() } else { is_sound(packet) };
    (whole && sound).then_some(Answer::PortUnreachable)
}

/// Packets out of the blue (RFC 9260, 8.4).
fn sctp(packet: &Packet) -> Option<Answer> {
    const INIT: u8 = 1;
    const ABORT: u8 = 6;
    const SHUTDOWN_ACK: u8 = 8;
    const COOKIE_ACK: u8 = 11;
    const SHUTDOWN_COMPLETE: u8 = 14;
    /// The tag is the one that came: who speaks has none.
    const REFLECTED: u8 = 1;
    let asked = packet.payload();
    let (tag, chunk) = (asked.get(4..8)?, *asked.get(12)?);
    let sum = asked.get(8..12)?;
    if sum != crc32c(&[&asked[..8], &[0; 4], &asked[12..]]).to_le_bytes() {
        return None;
    }
    let (kind, flags, tag) = match chunk {
        ABORT | SHUTDOWN_COMPLETE | COOKIE_ACK => return None,
        SHUTDOWN_ACK => (SHUTDOWN_COMPLETE, REFLECTED, tag),
        // The tag that an INIT wants to see is in it.
        INIT => (ABORT, 0, asked.get(16..20)?),
        _ => (ABORT, REFLECTED, tag),
    };
    let mut payload = [&asked[2..4], &asked[..2], tag, &[0; 4], &[kind, flags, 0, 4]].concat();
    let sum = crc32c(&[&payload]);
    payload[8..12].copy_from_slice(&sum.to_le_bytes());
    Some(Answer::Packet { class: ECT_0, whole: true, payload })
}

/// Is its checksum right?
fn is_sound(packet: &Packet) -> bool {
    let payload = packet.payload();
    let payload = match packet.protocol {
        // The datagram may be shorter than the packet.
        UDP => payload.get(..usize::from(word(payload, 4).unwrap_or(0))).unwrap_or(payload),
        _ => payload,
    };
    matches!(wire::segment_checksum(packet.src, packet.dst, packet.protocol, payload), 0 | 0xffff)
}

/// SCTP's checksum (RFC 9260, appendix A).
fn crc32c(parts: &[&[u8]]) -> u32 {
    const CASTAGNOLI: u32 = 0x82f6_3b78;
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 != 0 { CASTAGNOLI } else { 0 })
    };
    !parts.iter().copied().flatten().fold(u32::MAX, step)
}

/// An ICMP error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// Nobody has the port.
    Port,
    /// Nobody speaks the protocol.
    Protocol,
    /// There is no way to the destination.
    NoRoute,
    /// The time to live ended here.
    TimeToLive,
    /// The rest of the fragments did not come in time.
    Reassembly,
    /// The way takes no more than so many bytes.
    TooBig(u16),
}

impl Error {
    /// Type, code and the four bytes after the checksum.
    fn words(self, about: &Packet) -> (u8, u8, u32) {
        match (self, about.is_v6()) {
            (Self::Port, false) => (3, 3, 0),
            (Self::Protocol, false) => (3, 2, 0),
            (Self::NoRoute, false) => (3, 0, 0),
            (Self::TimeToLive, false) => (11, 0, 0),
            (Self::Reassembly, false) => (11, 1, 0),
            (Self::TooBig(mtu), false) => (3, 4, u32::from(mtu)),
            (Self::Port, true) => (1, 4, 0),
            // IPv6 says where in the header it names the protocol.
            (Self::Protocol, true) => (4, 1, about.protocol_at as u32),
            (Self::NoRoute, true) => (1, 0, 0),
            (Self::TimeToLive, true) => (3, 0, 0),
            (Self::Reassembly, true) => (3, 1, 0),
            (Self::TooBig(mtu), true) => (2, 0, u32::from(mtu)),
        }
    }

    /// May there be an ICMP error about this packet (RFC 1122, 3.2.2; RFC 4443, 2.4)?
    pub fn may_be_about(packet: &Packet) -> bool {
        let is_error = match (packet.protocol, packet.payload().first()) {
            (ICMP, Some(kind)) if !packet.is_v6() => matches!(kind, 3..=5 | 11 | 12),
            (ICMP_V6, Some(kind)) if packet.is_v6() => *kind < 128,
            _ => false,
        };
        let is_first = packet.fragment.is_none_or(|part| part.offset == 0);
        let is_somebody = !packet.src.is_unspecified() && !packet.src.is_multicast();
        !is_error && is_first && is_somebody
    }

    /// The error about this packet, from that address.
    pub fn about(self, packet: &Packet, from: std::net::IpAddr, id: u16) -> Vec<u8> {
        /// What every host takes: so much of the packet is quoted that the error is not longer.
        const MOST_V4: usize = 576;
        const MOST_V6: usize = 1280;
        /// RFC 1812, 4.3.2.5: internetwork control, and the packet's own type of service.
        const INTERNETWORK_CONTROL: u8 = 0xc0;
        const TYPE_OF_SERVICE: u8 = 0x1e;
        let (kind, code, rest) = self.words(packet);
        let (protocol, most, class) = if packet.is_v6() {
            (ICMP_V6, MOST_V6 - 48, 0)
        } else {
            (ICMP, MOST_V4 - 28, INTERNETWORK_CONTROL | packet.class & TYPE_OF_SERVICE)
        };
        let quote = &packet.bytes[..packet.bytes.len().min(most)];
        let mut payload = [&[kind, code, 0, 0], &rest.to_be_bytes()[..], quote].concat();
        let sum = if packet.is_v6() {
            wire::segment_checksum(from, packet.src, ICMP_V6, &payload)
        } else {
            wire::checksum(&[&payload])
        };
        payload[2..4].copy_from_slice(&sum.to_be_bytes());
        packet::packet(from, packet.src, protocol, class, packet::Whole::If(id), &payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_is_that_of_the_rfc() {
        assert_eq!(crc32c(&[b"1234", b"56789"]), 0xe306_9283);
    }
}
