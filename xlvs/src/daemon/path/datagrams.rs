//! UDP on a client's way.

use std::io;
use std::net::SocketAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpProtocol, IpRepr, Ipv4Packet, Ipv6Packet, UdpPacket, UdpRepr};

use super::Line;
use super::post::Heard;

/// Of what is sent.
const HOPS: u8 = 64;

/// Datagrams to one server and from it.
pub struct Datagrams {
    line: Line,
}

impl Datagrams {
    /// Begins.
    pub fn over(line: Line) -> Self {
        Self { line }
    }

    /// Sends one.
    pub fn send(&self, payload: &[u8]) -> io::Result<()> {
        let packet = datagram(self.line.own(), self.line.virt, payload);
        if packet.len() > self.line.room().into() {
            return Err(io::Error::other("message too long"));
        }
        self.line.send(&packet);
        Ok(())
    }

    /// Waits for one, and returns its length; more of it than there is room for is lost.
    pub async fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(heard) = self.line.hear().await {
            let Heard::Packet(packet) = heard else { return Err(io::ErrorKind::ConnectionRefused.into()) };
            let Some(payload) = payload(&packet) else { continue };
            let length = payload.len().min(buffer.len());
            buffer[..length].copy_from_slice(&payload[..length]);
            return Ok(length);
        }
        Err(io::ErrorKind::BrokenPipe.into())
    }
}

fn datagram(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let udp = UdpRepr { src_port: from.port(), dst_port: to.port() };
    let length = udp.header_len() + payload.len();
    let (src, dst) = (from.ip().into(), to.ip().into());
    let ip = IpRepr::new(src, dst, IpProtocol::Udp, length, HOPS);
    let mut packet = vec![0; ip.header_len() + length];
    let sums = ChecksumCapabilities::default();
    ip.emit(&mut packet, &sums);
    let mut datagram = UdpPacket::new_unchecked(&mut packet[ip.header_len()..]);
    udp.emit(&mut datagram, &src, &dst, payload.len(), |room| room.copy_from_slice(payload), &sums);
    packet
}

fn payload(packet: &[u8]) -> Option<&[u8]> {
    let datagram = if packet.first()? >> 4 == 4 {
        Ipv4Packet::new_checked(packet).ok()?.payload()
    } else {
        Ipv6Packet::new_checked(packet).ok()?.payload()
    };
    Some(UdpPacket::new_checked(datagram).ok()?.payload())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_what_is_read() {
        for (from, to) in [("10.0.0.1:61440", "10.0.0.2:53"), ("[fd00::1]:61440", "[fd00::2]:53")] {
            let (from, to) = (from.parse().expect("an end"), to.parse().expect("an end"));
            let packet = datagram(from, to, b"hello");
            assert_eq!(payload(&packet), Some(&b"hello"[..]));
            assert_eq!(payload(&packet[..packet.len() - 1]), None);
            assert_eq!(payload(&datagram(from, to, b"")), Some(&b""[..]));
        }
        assert_eq!(payload(b""), None);
    }
}
