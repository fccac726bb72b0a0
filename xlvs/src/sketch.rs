//! A frame in a few words, as people who read packet captures know them. What it is of, another crate reads: the core's own
//! reading is what a trace is to show.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use etherparse::{IpNumber, LaxNetSlice, LaxSlicedPacket, TcpSlice, TransportSlice};

/// A frame of so many bytes in words, of which this is the beginning.
pub fn frame(beginning: &[u8], len: u32) -> String {
    let Ok(packet) = LaxSlicedPacket::from_ethernet(beginning) else {
        return format!("a frame of {len} bytes");
    };
    let mut words = tags_of(&packet);
    words += &layers(&packet).unwrap_or_else(|| "not IP".to_owned());
    let _written = write!(words, ", {len} bytes");
    words
}

/// A frame's VLAN tags, each with a space behind it.
pub fn tags(frame: &[u8]) -> String {
    LaxSlicedPacket::from_ethernet(frame).map_or_else(|_| String::new(), |packet| tags_of(&packet))
}

fn tags_of(packet: &LaxSlicedPacket) -> String {
    packet.vlan_ids().iter().map(|id| format!("VLAN {} ", id.value())).collect()
}

/// Network and transport, and what a tunnel's packet carries.
fn layers(packet: &LaxSlicedPacket) -> Option<String> {
    let (from, to, ttl) = match packet.net.as_ref()? {
        LaxNetSlice::Ipv4(net) => {
            let head = net.header();
            (IpAddr::from(head.source_addr()), IpAddr::from(head.destination_addr()), head.ttl())
        }
        LaxNetSlice::Ipv6(net) => {
            let head = net.header();
            (IpAddr::from(head.source_addr()), IpAddr::from(head.destination_addr()), head.hop_limit())
        }
        LaxNetSlice::Arp(_) => return Some("ARP".to_owned()),
    };
    let ends =
        |ports: (u16, u16)| format!("{} > {}", SocketAddr::new(from, ports.0), SocketAddr::new(to, ports.1));
    let inside = packet.ip_payload();
    let what = match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            format!("TCP {} {}", flags(tcp), ends((tcp.source_port(), tcp.destination_port())))
        }
        Some(TransportSlice::Udp(udp)) => {
            format!("UDP {}", ends((udp.source_port(), udp.destination_port())))
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            format!("ICMP {}/{} {from} > {to}", icmp.type_u8(), icmp.code_u8())
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            format!("ICMPv6 {}/{} {from} > {to}", icmp.type_u8(), icmp.code_u8())
        }
        _ => match inside {
            Some(inside) if inside.fragmented => {
                format!("a fragment of {} {from} > {to}", protocol(inside.ip_number))
            }
            Some(inside) => format!("{} {from} > {to}", protocol(inside.ip_number)),
            None => format!("IP {from} > {to}"),
        },
    };
    let mut words = format!("{what}, TTL {ttl}");
    if let Some(inner) = inside.and_then(|inside| carried(inside.ip_number, inside.payload)) {
        let _written = write!(words, " ({inner})");
    }
    Some(words)
}

/// What IP in IP and GRE carry.
fn carried(protocol: IpNumber, payload: &[u8]) -> Option<String> {
    let packet = match protocol {
        IpNumber::IPV4 | IpNumber::IPV6 => payload,
        IpNumber::GRE => payload.get(gre_header(payload)?..)?,
        _ => return None,
    };
    layers(&LaxSlicedPacket::from_ip(packet).ok()?)
}

/// Bytes of a GRE header: four, and four more for a checksum (RFC 2784).
fn gre_header(payload: &[u8]) -> Option<usize> {
    Some(if payload.first()? & 0x80 == 0 { 4 } else { 8 })
}

fn protocol(number: IpNumber) -> String {
    match number {
        IpNumber::TCP => "TCP".to_owned(),
        IpNumber::UDP => "UDP".to_owned(),
        IpNumber::SCTP => "SCTP".to_owned(),
        IpNumber::IPV4 | IpNumber::IPV6 => "IP in IP".to_owned(),
        IpNumber::GRE => "GRE".to_owned(),
        IpNumber::ENCAPSULATING_SECURITY_PAYLOAD => "ESP".to_owned(),
        IpNumber::AUTHENTICATION_HEADER => "AH".to_owned(),
        IpNumber(number) => format!("IP protocol {number}"),
    }
}

fn flags(tcp: &TcpSlice) -> String {
    let all = [
        (tcp.syn(), "SYN"),
        (tcp.fin(), "FIN"),
        (tcp.rst(), "RST"),
        (tcp.psh(), "PSH"),
        (tcp.ack(), "ACK"),
        (tcp.urg(), "URG"),
    ];
    let set: Vec<&str> = all.into_iter().filter_map(|(is_set, name)| is_set.then_some(name)).collect();
    if set.is_empty() { "without flags".to_owned() } else { set.join(",") }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    fn tcp() -> Vec<u8> {
        let mut bytes = Vec::new();
        let builder = PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 100], 63).tcp(40_000, 80, 1, 1000).syn();
        builder.write(&mut bytes, &[]).expect("a packet");
        bytes
    }

    fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
        [&[2; 12][..], &kind.to_be_bytes(), payload].concat()
    }

    #[test]
    fn plain_and_tagged_packets_are_told_with_their_flags() {
        let plain = ethernet(0x0800, &tcp());
        assert_eq!(frame(&plain, 54), "TCP SYN 10.0.0.1:40000 > 10.0.0.100:80, TTL 63, 54 bytes");
        let tagged = ethernet(0x8100, &[&[0, 5, 8, 0][..], &tcp()].concat());
        assert_eq!(frame(&tagged, 58), "VLAN 5 TCP SYN 10.0.0.1:40000 > 10.0.0.100:80, TTL 63, 58 bytes");
    }

    #[test]
    fn what_tunnels_carry_is_told_too() {
        for (number, head) in [(IpNumber::IPV4, &[][..]), (IpNumber::GRE, &[0, 0, 8, 0])] {
            let payload = [head, &tcp()].concat();
            let mut outer = Vec::new();
            let builder = PacketBuilder::ipv4([10, 1, 0, 254], [10, 1, 0, 11], 64);
            builder.write(&mut outer, number, &payload).expect("a packet");
            let words = frame(&ethernet(0x0800, &outer), 74);
            let inner = "(TCP SYN 10.0.0.1:40000 > 10.0.0.100:80, TTL 63)";
            assert!(words.contains("10.1.0.254 > 10.1.0.11, TTL 64") && words.contains(inner), "{words}");
        }
    }

    #[test]
    fn what_is_cut_or_unknown_is_told_as_far_as_it_goes() {
        assert_eq!(frame(&[1, 2, 3], 3), "a frame of 3 bytes");
        assert_eq!(frame(&ethernet(0x88cc, &[1; 20]), 34), "not IP, 34 bytes");
        let mut esp = Vec::new();
        let builder = PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 100], 64);
        builder.write(&mut esp, IpNumber::ENCAPSULATING_SECURITY_PAYLOAD, &[7; 30]).expect("a packet");
        assert_eq!(frame(&ethernet(0x0800, &esp), 64), "ESP 10.0.0.1 > 10.0.0.100, TTL 64, 64 bytes");
    }
}
