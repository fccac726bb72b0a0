//! A packet's way to one server and back, as forwarding has it: the core's own rewriting, with nothing scheduled, looked up or counted.
//!
//! Checks go this way, so that they find what clients would.

use std::net::{IpAddr, SocketAddr};

use xlvs_core::conn::entry::Entry;
use xlvs_core::conn::word::Tick;
use xlvs_core::env::Route;
use xlvs_core::family::{self, Ends, Family};
use xlvs_core::forward::{Hindrance, to_client, to_server, tunnel};
use xlvs_core::method::Method;
use xlvs_core::packet::Frame;
use xlvs_core::parse::L3;
use xlvs_core::server::{Hop, Server, flag};
use xlvs_core::verdict::DropReason;
use xlvs_core::wire::AddrV6;
use xlvs_model::ServerSpec;

use crate::engine::{addr_bytes, flags_of};
use crate::rehearsal::Rehearsal;
use crate::tables::Tables;

/// The way from the director to one server, for packets to one virtual address and port.
#[derive(Debug)]
pub struct Straight {
    record: Server,
    entry: Entry,
    hop: Hop,
    virt: SocketAddr,
}

impl Straight {
    /// To this server, and at it to this port if its method is NAT; by this next hop, from this address of the director's.
    pub fn new(server: &ServerSpec, port: u16, virt: SocketAddr, hop: Hop, source: IpAddr) -> Self {
        let record = Server::default();
        record.set_addr(addr_bytes(server.key.addr));
        record.set_tunnel_port(server.tunnel.port.to_be_bytes());
        record.set_flags(flags_of(server, 0));
        record.resolve(&hop, addr_bytes(source));
        let entry = Entry::new(0, port.to_be_bytes(), server.method as u8);
        Self { record, entry, hop, virt }
    }

    /// The interface by which packets leave.
    pub fn ifindex(&self) -> u32 {
        self.hop.ifindex
    }

    /// The longest IP packet that may be sent, before it is put into a tunnel. `None`: the way takes too little for a tunnel.
    pub fn room(&self) -> Option<u16> {
        if self.is(Method::Tunnel) {
            tunnel::room(self.record.flags(), self.hop.mtu)
        } else {
            Some(self.hop.mtu)
        }
    }

    /// Is it the server's address that answers come from, and not the virtual one?
    pub fn is_translated(&self) -> bool {
        self.is(Method::Masquerade)
    }

    fn is(&self, method: Method) -> bool {
        self.record.flags() & flag::METHOD == method as u16
    }

    /// The frame that brings an IP packet to the server.
    pub fn frame(&self, tables: &Tables, packet: &[u8]) -> Result<Vec<u8>, Hindrance> {
        match self.virt.ip() {
            IpAddr::V4(_) => self.frame_of::<family::V4, _>(tables, packet),
            IpAddr::V6(_) => self.frame_of::<family::V6, _>(tables, packet),
        }
    }

    fn frame_of<F, const K: usize>(&self, tables: &Tables, packet: &[u8]) -> Result<Vec<u8>, Hindrance>
    where
        F: Family<K>,
    {
        let mut buffer = buffer_of(packet);
        let mut frame = Frame::new(&mut buffer, Frame::HEADROOM);
        let net = F::read(&frame).map_err(|_| DropReason::Malformed)?;
        let onward = F::prepare(&frame, &self.record, self.entry.method())?;
        let env = self.surroundings(tables);
        let _leaves = to_server::<F, _, _, K>(&mut frame, &env, &net, &self.record, self.entry, &onward)?;
        Ok(frame.bytes().to_vec())
    }

    /// The IP packet that a client would get of one that a NAT server sent to it.
    pub fn answer(&self, tables: &Tables, packet: &[u8]) -> Result<Vec<u8>, DropReason> {
        let port = self.virt.port().to_be_bytes();
        match self.virt.ip() {
            IpAddr::V4(addr) => self.answer_of::<family::V4, _>(tables, packet, addr.octets(), port),
            IpAddr::V6(addr) => {
                self.answer_of::<family::V6, _>(tables, packet, AddrV6::from(addr.octets()), port)
            }
        }
    }

    fn answer_of<F, const K: usize>(
        &self,
        tables: &Tables,
        packet: &[u8],
        addr: F::Addr,
        port: [u8; 2],
    ) -> Result<Vec<u8>, DropReason>
    where
        F: Family<K>,
    {
        let mut buffer = buffer_of(packet);
        let mut frame = Frame::new(&mut buffer, Frame::HEADROOM);
        let net = F::read(&frame).map_err(|_| DropReason::Malformed)?;
        let (from, from_port, protocol) = (net.dst, [0; 2], net.protocol);
        let virt = Ends { from, from_port, to: addr, to_port: port, protocol };
        let nowhere = Route::Via { ifindex: self.hop.ifindex, from: [0; 6], to: [0; 6] };
        let _leaves = to_client::<F, _, _, K>(&mut frame, &self.surroundings(tables), &net, &virt, &nowhere)?;
        Ok(frame.bytes()[L3..].to_vec())
    }

    /// Nothing of the tables that rewriting asks for can be changed there.
    fn surroundings<'t>(&self, tables: &'t Tables) -> Rehearsal<'t> {
        Rehearsal::of(tables, Tick::new(0), self.hop.ifindex, 1)
    }
}

/// An IP packet behind room for what it is wrapped in, and for an Ethernet header.
fn buffer_of(packet: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; Frame::HEADROOM + L3];
    buffer.extend(packet);
    buffer
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use xlvs_model::spec::Tunnel;
    use xlvs_model::{ServerKey, ServerSpec};

    use super::*;
    use crate::tables::Sizes;

    const HOP: Hop = Hop { to: [2, 0, 0, 0, 2, 1], from: [2, 0, 0, 0, 1, 0xfe], ifindex: 2, mtu: 1500 };

    fn tables() -> Arc<Tables> {
        Arc::new(Tables::on_heap(Sizes::for_site(1000, 16, 64, 1), 42))
    }

    fn straight(method: Method) -> Straight {
        let key = ServerKey { addr: [10, 1, 0, 11].into(), port: 8080 };
        let spec = ServerSpec { tunnel: Tunnel::default(), ..ServerSpec::new(key, method) };
        let virt = SocketAddr::new([10, 0, 0, 100].into(), 80);
        Straight::new(&spec, 8080, virt, HOP, [10, 1, 0, 254].into())
    }

    /// A SYN, or what looks like one to a router.
    fn packet(from: ([u8; 4], u16), to: ([u8; 4], u16)) -> Vec<u8> {
        let mut ip = vec![0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0];
        ip.extend(from.0);
        ip.extend(to.0);
        let sum = ip.chunks(2).fold(0u32, |s, p| s + u32::from(u16::from_be_bytes([p[0], p[1]])));
        ip[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
        ip.extend(from.1.to_be_bytes());
        ip.extend(to.1.to_be_bytes());
        ip.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0x20, 0, 1, 2, 0, 0]);
        ip
    }

    const PROBE: ([u8; 4], u16) = ([10, 0, 0, 254], 61_440);
    const VIRT: ([u8; 4], u16) = ([10, 0, 0, 100], 80);
    const REAL: ([u8; 4], u16) = ([10, 1, 0, 11], 8080);

    fn ends(packet: &[u8]) -> (([u8; 4], u16), ([u8; 4], u16)) {
        let addr = |at: usize| <[u8; 4]>::try_from(&packet[at..at + 4]).expect("four bytes");
        let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        ((addr(12), port(20)), (addr(16), port(22)))
    }

    #[test]
    fn nat_gives_it_the_servers_address_and_its_answer_the_virtual_one() {
        let (tables, straight) = (tables(), straight(Method::Masquerade));
        let frame = straight.frame(&tables, &packet(PROBE, VIRT)).expect("a frame");
        assert_eq!(frame[..12], [HOP.to, HOP.from].concat());
        assert_eq!(ends(&frame[14..]), (PROBE, REAL));
        let answer = straight.answer(&tables, &packet(REAL, PROBE)).expect("a packet");
        assert_eq!(ends(&answer), (VIRT, PROBE));
    }

    #[test]
    fn direct_routing_changes_the_frame_only_and_a_tunnel_wraps_it() {
        let tables = tables();
        let direct = straight(Method::Direct).frame(&tables, &packet(PROBE, VIRT)).expect("a frame");
        assert_eq!(direct[..12], [HOP.to, HOP.from].concat());
        assert_eq!(ends(&direct[14..]), (PROBE, VIRT));
        let tunnel = straight(Method::Tunnel);
        let wrapped = tunnel.frame(&tables, &packet(PROBE, VIRT)).expect("a frame");
        assert_eq!(wrapped[26..34], [[10, 1, 0, 254], [10, 1, 0, 11]].concat());
        assert_eq!(wrapped[34..], direct[14..]);
        assert_eq!((straight(Method::Direct).room(), tunnel.room()), (Some(1500), Some(1480)));
    }

    #[test]
    fn what_is_no_packet_or_too_long_is_not_sent() {
        let (tables, straight) = (tables(), straight(Method::Direct));
        assert!(straight.frame(&tables, b"no packet").is_err());
        assert!(straight.answer(&tables, b"").is_err());
        let mut long = packet(PROBE, VIRT);
        long[2..4].copy_from_slice(&1501_u16.to_be_bytes());
        long.resize(1501, 0);
        assert_eq!(straight.frame(&tables, &long), Err(Hindrance::TooBig { mtu: 1500 }));
    }
}
