//! Whose packet it is: protocol and ends of what came in, and of what an ICMP error quotes.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use xlvs_core::wire::ip_protocol;

/// A packet's protocol and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// IP protocol number.
    pub protocol: u8,
    /// Source address and port.
    pub from: SocketAddr,
    /// Destination address and port.
    pub to: SocketAddr,
}

/// Of an IPv6 header, which has no length of its own.
const V6: usize = 40;
/// Of an ICMP error's head, before what it quotes.
const ICMP: usize = 8;

impl Tuple {
    /// Of a TCP or UDP packet, of which so much must be there as an ICMP error quotes at least.
    pub fn of(packet: &[u8]) -> Option<Self> {
        let (protocol, at) = payload(packet)?;
        if !matches!(protocol, ip_protocol::TCP | ip_protocol::UDP) {
            return None;
        }
        let ports = packet.get(at..at + 4)?;
        let [from, to] = [0, 2].map(|at| u16::from_be_bytes([ports[at], ports[at + 1]]));
        Some(match packet[0] >> 4 {
            4 => {
                let addr =
                    |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
                let (from, to) =
                    (SocketAddr::new(addr(12)?.into(), from), SocketAddr::new(addr(16)?.into(), to));
                Self { protocol, from, to }
            }
            _ => {
                let addr =
                    |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
                let (from, to) =
                    (SocketAddr::new(addr(8)?.into(), from), SocketAddr::new(addr(24)?.into(), to));
                Self { protocol, from, to }
            }
        })
    }

    /// Of the packet that an ICMP error "unreachable" is about.
    pub fn quoted_in(packet: &[u8]) -> Option<Self> {
        let (protocol, at) = payload(packet)?;
        let unreachable = match protocol {
            ip_protocol::ICMP => 3,
            ip_protocol::ICMPV6 => 1,
            _ => return None,
        };
        if packet.get(at) != Some(&unreachable) {
            return None;
        }
        Self::of(packet.get(at + ICMP..)?)
    }
}

/// The protocol above IP, and where it begins.
fn payload(packet: &[u8]) -> Option<(u8, usize)> {
    match packet.first()? >> 4 {
        4 => Some((*packet.get(9)?, usize::from(packet[0] & 15) * 4)),
        6 => Some((*packet.get(6)?, V6)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet.extend(payload);
        packet
    }

    fn v6(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let (from, to) = (Ipv6Addr::from(1).octets(), Ipv6Addr::from(2).octets());
        [&[0x60, 0, 0, 0, 0, 0, protocol, 64], &from[..], &to[..], payload].concat()
    }

    const PORTS: [u8; 8] = [0, 80, 0xf0, 1, 0, 8, 0, 0];

    #[test]
    fn packets_and_errors_about_them_are_told_from_others() {
        let ends = |from: &str, to: &str, protocol| Tuple {
            protocol,
            from: from.parse().expect("an end"),
            to: to.parse().expect("an end"),
        };
        let (in_v4, in_v6) = (ends("10.0.0.1:80", "10.0.0.2:61441", 17), ends("[::1]:80", "[::2]:61441", 6));
        assert_eq!(Tuple::of(&v4(17, &PORTS)), Some(in_v4));
        assert_eq!(Tuple::of(&v6(6, &PORTS)), Some(in_v6));
        let error = |kind, about: &[u8]| [&[kind, 3, 0, 0, 0, 0, 0, 0], about].concat();
        assert_eq!(Tuple::quoted_in(&v4(1, &error(3, &v4(17, &PORTS)))), Some(in_v4));
        assert_eq!(Tuple::quoted_in(&v6(58, &error(1, &v6(6, &PORTS)))), Some(in_v6));
        assert_eq!(Tuple::quoted_in(&v4(1, &error(8, &v4(17, &PORTS)))), None);
        assert_eq!(Tuple::quoted_in(&v4(17, &PORTS)), None);
    }

    #[test]
    fn what_is_cut_off_is_nobodys() {
        for whole in [v4(17, &PORTS), v6(6, &PORTS), v4(1, &[&[3; 8][..], &v4(17, &PORTS)].concat())] {
            let needed = whole.len() - 4;
            for length in 0..needed {
                assert_eq!(Tuple::of(&whole[..length]).or(Tuple::quoted_in(&whole[..length])), None);
            }
        }
        assert_eq!(Tuple::of(&v4(132, &PORTS)), None);
    }
}
