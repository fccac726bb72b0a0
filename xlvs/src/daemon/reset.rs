//! Ends the connections of servers that failed, where `on_failure = "reset"` wants it.
//!
//! Their entries are removed, so that the next packet of a UDP client finds another server, and one of a TCP client's the director's own
//! stack, which has no such connection and says so by a RST. A TCP client that waits for an answer sends nothing, and the director does
//! not know the sequence numbers that a RST of its own would need: so it sends the client a segment that is none of the connection's.
//! That is acknowledged with the right numbers (RFC 9293, 3.10.7.4), and the acknowledgement is the packet that brings about the RST.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use etherparse::PacketBuilder;
use socket2::{Domain, Protocol, Socket, Type};
use xlvs_core::conn::LANES;
use xlvs_datapath::engine::Engine;
use xlvs_datapath::{conns, evict};
use xlvs_health::keeper::ServerId;

use super::Daemon;

/// Slots that are looked at before others have their turn.
const SLICE: usize = 4096 * LANES;
const TTL: u8 = 64;

/// Numbers of servers, as connections hold them.
pub type Numbers = HashSet<u32>;

/// The numbers that servers have while they are in their services.
pub fn numbers(engine: &Engine, servers: &[ServerId]) -> Numbers {
    servers.iter().filter_map(|(service, server)| Some(engine.destination(service, server)?.id)).collect()
}

/// Ends the connections of these servers, templates too.
pub async fn connections_of(daemon: &Daemon, servers: &Numbers) {
    if servers.is_empty() {
        return;
    }
    let mut prodder = Prodder::default();
    let tables = Arc::clone(daemon.engine.borrow().tables());
    let (slots, mut ended) = (tables.slots(), 0);
    for first in (0..slots).step_by(SLICE) {
        let slice = || first..slots.min(first.saturating_add(SLICE as u32));
        let is_theirs = |server| servers.contains(&server);
        let mut ends = Vec::new();
        conns::each_tcp_of(&tables, slice(), is_theirs, |client, virt| ends.push((client, virt)));
        ended += evict::drop_of_servers(&tables, slice(), is_theirs, &*daemon.xdp.borrow());
        // Now that an answer does not find its way to the server any more.
        ends.into_iter().for_each(|(client, virt)| prodder.prod(client, virt));
        tokio::task::yield_now().await;
    }
    prodder.tell();
    tracing::info!(connections = ended, "the connections of failed servers ended, as `on_failure` says");
}

/// Sends segments to clients. Sockets are opened when they are needed.
#[derive(Default)]
struct Prodder {
    v4: Option<Socket>,
    v6: Option<Socket>,
    unsent: usize,
    why: Option<io::Error>,
}

impl Prodder {
    fn prod(&mut self, client: SocketAddr, virt: SocketAddr) {
        let sent = self.socket(client).and_then(|socket| {
            let packet = segment(client, virt, fastrand::u32(..))?;
            // A raw socket takes no port.
            socket.send_to(&packet, &SocketAddr::new(client.ip(), 0).into())
        });
        if let Err(why) = sent {
            self.unsent += 1;
            self.why = Some(why);
        }
    }

    fn socket(&mut self, client: SocketAddr) -> io::Result<&Socket> {
        let (socket, domain) =
            if client.is_ipv4() { (&mut self.v4, Domain::IPV4) } else { (&mut self.v6, Domain::IPV6) };
        if socket.is_none() {
            // IPPROTO_RAW: packets have their IP header already, of both families.
            let raw = Socket::new(domain, Type::RAW, Some(Protocol::from(nix::libc::IPPROTO_RAW)))?;
            raw.set_nonblocking(true)?;
            *socket = Some(raw);
        }
        socket.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn tell(&self) {
        if let Some(why) = &self.why {
            let clients = self.unsent;
            tracing::warn!(clients, %why, "clients cannot be told that their connections ended; they find out when they send");
        }
    }
}

/// An acknowledgement from the VIP that is out of every window but by a rare chance, and harmless then: it has no data.
fn segment(client: SocketAddr, virt: SocketAddr, sequence: u32) -> io::Result<Vec<u8>> {
    let ip = match (virt.ip(), client.ip()) {
        (IpAddr::V4(virt), IpAddr::V4(client)) => PacketBuilder::ipv4(virt.octets(), client.octets(), TTL),
        (IpAddr::V6(virt), IpAddr::V6(client)) => PacketBuilder::ipv6(virt.octets(), client.octets(), TTL),
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    let segment = ip.tcp(virt.port(), client.port(), sequence, 0).ack(0);
    let mut packet = Vec::with_capacity(segment.size(0));
    segment.write(&mut packet, &[]).map_err(io::Error::other)?;
    Ok(packet)
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    #[test]
    fn a_client_is_sent_a_segment_without_data_from_the_vip() {
        for (client, virt) in [("10.0.0.1:40000", "192.0.2.1:80"), ("[fd00::1]:40000", "[2001:db8::1]:80")] {
            let (client, virt): (SocketAddr, SocketAddr) = (client.parse().unwrap(), virt.parse().unwrap());
            let packet = segment(client, virt, 7).expect("a segment");
            let sliced = SlicedPacket::from_ip(&packet).expect("IP");
            let (from, to): (IpAddr, IpAddr) = match sliced.net {
                Some(NetSlice::Ipv4(ip)) => {
                    (ip.header().source_addr().into(), ip.header().destination_addr().into())
                }
                Some(NetSlice::Ipv6(ip)) => {
                    (ip.header().source_addr().into(), ip.header().destination_addr().into())
                }
                other => panic!("{other:?}"),
            };
            let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("no TCP") };
            assert_eq!((from, to), (virt.ip(), client.ip()));
            assert_eq!((tcp.source_port(), tcp.destination_port()), (virt.port(), client.port()));
            assert!(tcp.ack() && !tcp.rst() && !tcp.syn() && tcp.payload().is_empty());
            assert_eq!(tcp.sequence_number(), 7);
        }
    }

    #[test]
    fn ends_of_two_families_are_none_of_a_connection() {
        let mixed = segment("10.0.0.1:1".parse().unwrap(), "[fd00::1]:2".parse().unwrap(), 0);
        assert_eq!(mixed.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
