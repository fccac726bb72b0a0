//! What differs between IPv4 and IPv6 on the way of a packet: the size of addresses and keys, the tables, the header.
//!
//! The way itself ([`crate::director`]) is written once, for any [`Family`]. `K` is the number of words in a key.

use crate::checksum::Sum;
use crate::config::Filter;
use crate::conn::key::{self, Kind};
use crate::conn::table::{Memory, SlotId};
use crate::conn::word::Tick;
use crate::env::{Env, Route, RouteQuery};
use crate::forward::nat::End;
use crate::forward::{Hindrance, v4, v6};
use crate::icmp::quote::Quote;
use crate::icmp::{self, Complaint};
use crate::options;
use crate::packet::Packet;
use crate::parse::{self, Net};
use crate::persist::{Asked, Outcome};
use crate::sched::Question;
use crate::server::{Onward, Server};
use crate::verdict::{DropReason, PassReason};
use crate::vlan::came_by;
use crate::ways;
use crate::wire::{AddrV6, Ipv4, Ipv6, ethertype, ip_protocol};

/// See the module.
pub trait Family<const K: usize>: Sized {
    /// An address, as on the wire.
    type Addr: Copy + PartialEq;
    /// The connection table.
    type Conns<E: Env>: Memory<K>;
    /// The reply table.
    type Replies<E: Env>: Memory<K>;
    /// The service table.
    type Services<E: Env>: Memory<K>;
    /// An address before one was read.
    const NOWHERE: Self::Addr;
    /// The family's number in Ethernet.
    const ETHERTYPE: u16;
    /// The protocol of its ICMP.
    const ICMP: u8;

    /// Connections by client tuple.
    fn conns<E: Env>(env: &E) -> &Self::Conns<E>;
    /// Backlinks of NAT connections.
    fn replies<E: Env>(env: &E) -> &Self::Replies<E>;
    /// Services by address.
    fn services<E: Env>(env: &E) -> &Self::Services<E>;
    /// The key of an entry.
    fn key(ends: &Ends<Self::Addr>, kind: Kind) -> [u64; K];
    /// A key's parts again.
    fn ends(key: [u64; K]) -> Ends<Self::Addr>;
    /// The address under a netmask as [`crate::service::Service::persist_mask`] has it.
    fn masked(addr: Self::Addr, mask: u32) -> Self::Addr;
    /// A mark in the place of an address, as the templates of mark services have it.
    fn mark(mark: u32) -> Self::Addr;
    /// May this address be in the set?
    fn is_in(filter: &Filter, addr: Self::Addr) -> bool;
    /// An address as the rules of marks have it.
    fn as_marked(addr: Self::Addr) -> [u64; 2];
    /// What a scheduler is asked.
    fn question(service: u32, client: Self::Addr, port: [u8; 2], dest: Self::Addr) -> Question;
    /// A server's address.
    fn server_addr(server: &Server) -> Self::Addr;
    /// The director's address towards a server.
    fn server_source(server: &Server) -> Self::Addr;
    /// Does [`crate::persist::find`]; in the kernel in a function that is verified by itself.
    fn find_template<E: Env>(env: &E, asked: &Asked<Self::Addr>) -> Outcome;

    /// Reads the network header of a packet in which nothing comes between it and the transport header. `None`: it is not such a
    /// packet.
    fn read_plain<P: Packet>(packet: &P) -> Option<Net<Self::Addr>>;
    /// Reads the network header.
    fn read<P: Packet>(packet: &P) -> Result<Net<Self::Addr>, PassReason>;
    /// Can this be the source of a packet to that destination? What cannot is a martian to the stack.
    fn is_source(src: Self::Addr, dst: Self::Addr) -> bool;
    /// Is it an address that no other host reaches, the loopback's?
    fn is_loopback(addr: Self::Addr) -> bool;
    /// Is the network header's checksum right, where there is one?
    fn is_whole<P: Packet>(packet: &P, net: &Net<Self::Addr>) -> bool;
    /// May a packet with these options be sent on? `Err`: why the stack gets it.
    fn check_options<P: Packet, E: Env>(packet: &mut P, env: &E) -> Result<(), PassReason>;
    /// Does what the packet's options ask of a router that has this address, at this time ([`crate::options`]).
    fn fill_in_options<P: Packet, E: Env>(
        packet: &mut P,
        env: &E,
        own: Self::Addr,
        time: u32,
    ) -> Result<(), DropReason>;
    /// [`Family::prepare`] for the short way, with what was read of server and packet already.
    fn fits<P: Packet>(packet: &P, net: &Net<Self::Addr>, room: u16) -> bool;
    /// What a packet must satisfy to be sent to this server by this method, and where it goes then.
    fn prepare<'s, P: Packet>(packet: &P, server: &'s Server, method: u8) -> Result<Onward<'s>, Hindrance>;
    /// The same for the way to a client, of a packet that came in by this interface, from this source, and is judged as being so
    /// long.
    fn route<P: Packet, E: Env>(
        packet: &P,
        env: &E,
        net: &Net<Self::Addr>,
        ifindex: u32,
        source: Self::Addr,
        len: u16,
    ) -> Result<Route, Hindrance>;
    /// [`Family::route`] for the short way: what was said to the packets before it in this tick counts for this one, too.
    fn route_at_once<P: Packet, E: Env>(
        packet: &P,
        env: &E,
        net: &Net<Self::Addr>,
        source: Self::Addr,
        now: Tick,
    ) -> Result<Route, Hindrance>;
    /// What decides whether a packet of this length is too long that was put together from fragments of which the largest was that
    /// long; 0: it came whole.
    fn judged(len: u16, largest_fragment: u16) -> u16;
    /// Would the director's own routes send a packet with this mark on ([`Env::leads_elsewhere_v4`])?
    fn leads_elsewhere<E: Env>(env: &E, net: &Net<Self::Addr>, mark: u32) -> bool;
    /// Has the daemon look for the next hop towards this address.
    fn want_neighbour<E: Env>(env: &E, addr: Self::Addr);
    /// Will its next router give the packet up?
    fn is_at_its_end<P: Packet>(packet: &P) -> bool;
    /// Lowers the time to live.
    fn lower_ttl<P: Packet>(packet: &mut P) -> Result<(), DropReason>;
    /// Gives the packet another address and port at one end, and lowers the time to live.
    #[inline(always)]
    fn translate<P: Packet>(
        packet: &mut P,
        net: &Net<Self::Addr>,
        end: End,
        addr: Self::Addr,
        port: [u8; 2],
    ) -> Result<(), DropReason> {
        Self::lower_ttl(packet)?;
        Self::translate_here(packet, net, end, addr, port)
    }
    /// [`Family::translate`] of a packet that no router has here: to or from the director's own stack. Its time to live stays.
    fn translate_here<P: Packet>(
        packet: &mut P,
        net: &Net<Self::Addr>,
        end: End,
        addr: Self::Addr,
        port: [u8; 2],
    ) -> Result<(), DropReason>;
    /// Wraps the packet for the tunnel to a server, in a frame to it.
    fn wrap<P: Packet, E: Env>(
        packet: &mut P,
        env: &E,
        net: &Net<Self::Addr>,
        server: &Server,
        hop: &Onward<'_>,
    ) -> Result<(), DropReason>;
    /// Is an ICMP message of this type an error that follows the connection it is about?
    fn is_error(kind: u8) -> bool;
    /// Reads what an ICMP error quotes from this offset on.
    fn read_quote<P: Packet>(packet: &P, at: usize) -> Option<Quote<Self::Addr>>;
    /// What a checksum of UDP covers besides the datagram of so many bytes in this packet.
    fn pseudo_header_in<P: Packet>(packet: &P, length: u16, protocol: u8) -> Option<Sum>;
    /// What the checksum of an ICMP message covers besides the message.
    fn pseudo_header(net: &Net<Self::Addr>) -> Sum;
    /// Gives an ICMP error another address at one end, and the packet that it quotes that address and port at its other end;
    /// lowers the time to live.
    #[inline(always)]
    fn translate_error<P: Packet>(
        packet: &mut P,
        net: &Net<Self::Addr>,
        quote: &Quote<Self::Addr>,
        end: End,
        addr: Self::Addr,
        port: [u8; 2],
    ) -> Result<(), DropReason> {
        Self::lower_ttl(packet)?;
        Self::translate_error_here(packet, net, quote, end, addr, port)
    }
    /// [`Family::translate_error`] likewise.
    fn translate_error_here<P: Packet>(
        packet: &mut P,
        net: &Net<Self::Addr>,
        quote: &Quote<Self::Addr>,
        end: End,
        addr: Self::Addr,
        port: [u8; 2],
    ) -> Result<(), DropReason>;
    /// Turns the packet into an ICMP error about it, from this address.
    fn answer<P: Packet, E: Env>(
        packet: &mut P,
        env: &E,
        complaint: Complaint,
        source: Self::Addr,
        length: u16,
    ) -> Option<()>;
}

/// The two ends of a connection and its protocol. Addresses and ports as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Ends<A> {
    /// The client.
    pub from: A,
    /// The other end.
    pub to: A,
    /// The client's port.
    pub from_port: [u8; 2],
    /// The other end's.
    pub to_port: [u8; 2],
    /// IP protocol.
    pub protocol: u8,
}

/// A slot of either family's connection table, in a number: the highest bit tells IPv6.
#[inline(always)]
pub const fn slot_in(is_v6: bool, slot: SlotId) -> u32 {
    slot.0 | (is_v6 as u32) << 31
}

/// What a number means: whether the slot is IPv6's, and which.
#[inline(always)]
pub const fn slot_of(number: u32) -> (bool, SlotId) {
    (number >> 31 != 0, SlotId(number & (u32::MAX >> 1)))
}

/// IPv4.
pub struct V4;
/// IPv6.
pub struct V6;

impl Family<{ key::V4 }> for V4 {
    type Addr = [u8; 4];
    type Conns<E: Env> = E::ConnsV4;
    type Replies<E: Env> = E::RepliesV4;
    type Services<E: Env> = E::ServicesV4;
    const NOWHERE: [u8; 4] = [0; 4];
    const ETHERTYPE: u16 = ethertype::IPV4;
    const ICMP: u8 = ip_protocol::ICMP;

    #[inline(always)]
    fn conns<E: Env>(env: &E) -> &E::ConnsV4 {
        env.conns_v4()
    }

    #[inline(always)]
    fn replies<E: Env>(env: &E) -> &E::RepliesV4 {
        env.replies_v4()
    }

    #[inline(always)]
    fn services<E: Env>(env: &E) -> &E::ServicesV4 {
        env.services_v4()
    }

    #[inline(always)]
    fn key(ends: &Ends<[u8; 4]>, kind: Kind) -> [u64; key::V4] {
        key::v4(ends.from, ends.from_port, ends.to, ends.to_port, ends.protocol, kind)
    }

    #[inline(always)]
    fn ends(key: [u64; key::V4]) -> Ends<[u8; 4]> {
        let (from, from_port, to, to_port, protocol, _) = key::parts_v4(key);
        Ends { from, from_port, to, to_port, protocol }
    }

    #[inline(always)]
    fn masked(addr: [u8; 4], mask: u32) -> [u8; 4] {
        (u32::from_ne_bytes(addr) & mask).to_ne_bytes()
    }

    #[inline(always)]
    fn mark(mark: u32) -> [u8; 4] {
        mark.to_be_bytes()
    }

    #[inline(always)]
    fn is_in(filter: &Filter, addr: [u8; 4]) -> bool {
        filter.may_hold_v4(addr)
    }

    #[inline(always)]
    fn as_marked(addr: [u8; 4]) -> [u64; 2] {
        [u32::from_ne_bytes(addr) as u64, 0]
    }

    #[inline(always)]
    fn question(service: u32, client: [u8; 4], port: [u8; 2], dest: [u8; 4]) -> Question {
        Question::v4(service, client, port, dest)
    }

    #[inline(always)]
    fn server_addr(server: &Server) -> [u8; 4] {
        server.addr_v4()
    }

    #[inline(always)]
    fn server_source(server: &Server) -> [u8; 4] {
        server.source_v4()
    }

    #[inline(always)]
    fn find_template<E: Env>(env: &E, asked: &Asked<[u8; 4]>) -> Outcome {
        env.find_template_v4(asked)
    }

    #[inline(always)]
    fn read_plain<P: Packet>(packet: &P) -> Option<Net<[u8; 4]>> {
        parse::plain_v4(packet)
    }

    #[inline(always)]
    fn read<P: Packet>(packet: &P) -> Result<Net<[u8; 4]>, PassReason> {
        parse::network_v4(packet)
    }

    /// 0/8, 127/8 and everything from multicast on are no sources, nor is the director's own address.
    #[inline(always)]
    fn is_source(src: [u8; 4], dst: [u8; 4]) -> bool {
        src != dst && src[0].wrapping_sub(1) < 223 && src[0] != 127
    }

    #[inline(always)]
    fn is_loopback(addr: [u8; 4]) -> bool {
        addr[0] == 127
    }

    #[inline(always)]
    fn is_whole<P: Packet>(packet: &P, net: &Net<[u8; 4]>) -> bool {
        parse::checksum_holds_v4(packet, net)
    }

    #[inline(always)]
    fn check_options<P: Packet, E: Env>(packet: &mut P, env: &E) -> Result<(), PassReason> {
        options::check(packet, env)
    }

    #[inline(always)]
    fn fill_in_options<P: Packet, E: Env>(
        packet: &mut P,
        env: &E,
        own: [u8; 4],
        time: u32,
    ) -> Result<(), DropReason> {
        options::fill_in(packet, env, own, time)
    }

    #[inline(always)]
    fn fits<P: Packet>(packet: &P, net: &Net<[u8; 4]>, room: u16) -> bool {
        v4::fits(packet, net, room)
    }

    #[inline(always)]
    fn prepare<'s, P: Packet>(packet: &P, server: &'s Server, method: u8) -> Result<Onward<'s>, Hindrance> {
        v4::prepare(packet, server, method)
    }

    #[inline(always)]
    fn route<P: Packet, E: Env>(
        packet: &P,
        env: &E,
        net: &Net<[u8; 4]>,
        ifindex: u32,
        src: [u8; 4],
        len: u16,
    ) -> Result<Route, Hindrance> {
        v4::route(packet, net, |tos| {
            env.route_v4(&RouteQuery { ifindex, src, dst: net.dst, protocol: net.protocol, tos, len })
        })
    }

    #[inline(always)]
    fn route_at_once<P: Packet, E: Env>(
        packet: &P,
        env: &E,
        net: &Net<[u8; 4]>,
        src: [u8; 4],
        now: Tick,
    ) -> Result<Route, Hindrance> {
        let (ifindex, len) = (env.ingress(), packet.judged(net.len));
        v4::route(packet, net, |tos| {
            let query = RouteQuery { ifindex, src, dst: net.dst, protocol: net.protocol, tos, len };
            ways::route(env, &query, now)
        })
    }

    /// The whole: it may be cut again, or must not.
    #[inline(always)]
    fn judged(len: u16, _largest_fragment: u16) -> u16 {
        len
    }

    #[inline(always)]
    fn leads_elsewhere<E: Env>(env: &E, net: &Net<[u8; 4]>, mark: u32) -> bool {
        env.leads_elsewhere_v4(came_by(env), &net.src, &net.dst, mark)
    }

    #[inline(always)]
    fn want_neighbour<E: Env>(env: &E, addr: [u8; 4]) {
        env.want_neighbour_v4(addr);
    }

    #[inline(always)]
    fn is_at_its_end<P: Packet>(packet: &P) -> bool {
        packet.header::<Ipv4>(parse::L3).is_some_and(|ip| ip.ttl <= 1)
    }

    #[inline(always)]
    fn lower_ttl<P: Packet>(packet: &mut P) -> Result<(), DropReason> {
        v4::lower_ttl(packet)
    }

    /// The header's checksum is fitted once to both.
    #[inline(always)]
    fn translate<P: Packet>(
        packet: &mut P,
        net: &Net<[u8; 4]>,
        end: End,
        addr: [u8; 4],
        port: [u8; 2],
    ) -> Result<(), DropReason> {
        v4::translate(packet, net, end, addr, port)
    }

    #[inline(always)]
    fn translate_here<P: Packet>(
        packet: &mut P,
        net: &Net<[u8; 4]>,
        end: End,
        addr: [u8; 4],
        port: [u8; 2],
    ) -> Result<(), DropReason> {
        v4::translate_here(packet, net, end, addr, port)
    }

    #[inline(always)]
    fn wrap<P: Packet, E: Env>(
        packet: &mut P,
        env: &E,
        net: &Net<[u8; 4]>,
        server: &Server,
        hop: &Onward<'_>,
    ) -> Result<(), DropReason> {
        v4::wrap(packet, env, net, server, hop)
    }

    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        icmp::v4::is_error(kind)
    }

    #[inline(always)]
    fn read_quote<P: Packet>(packet: &P, at: usize) -> Option<Quote<[u8; 4]>> {
        icmp::quote::read_v4(packet, at)
    }

    #[inline(always)]
    fn pseudo_header_in<P: Packet>(packet: &P, length: u16, protocol: u8) -> Option<Sum> {
        let ip = packet.header::<Ipv4>(parse::L3)?;
        Some(Sum::ZERO.add32(ip.src).add32(ip.dst).add16(length.to_be_bytes()).add16([0, protocol]))
    }

    #[inline(always)]
    fn pseudo_header(_net: &Net<[u8; 4]>) -> Sum {
        Sum::ZERO
    }

    #[inline(always)]
    fn translate_error_here<P: Packet>(
        packet: &mut P,
        net: &Net<[u8; 4]>,
        quote: &Quote<[u8; 4]>,
        end: End,
        addr: [u8; 4],
        port: [u8; 2],
    ) -> Result<(), DropReason> {
        v4::translate_error_here(packet, net, quote, end, addr, port)
    }

    #[inline(always)]
    fn answer<P: Packet, E: Env>(
        packet: &mut P,
        env: &E,
        complaint: Complaint,
        source: [u8; 4],
        length: u16,
    ) -> Option<()> {
        icmp::v4::answer(packet, env, complaint, source, length)
    }
}

impl Family<{ key::V6 }> for V6 {
    type Addr = AddrV6;
    type Conns<E: Env> = E::ConnsV6;
    type Replies<E: Env> = E::RepliesV6;
    type Services<E: Env> = E::ServicesV6;
    const NOWHERE: AddrV6 = AddrV6([0; 2]);
    const ETHERTYPE: u16 = ethertype::IPV6;
    const ICMP: u8 = ip_protocol::ICMPV6;

    #[inline(always)]
    fn conns<E: Env>(env: &E) -> &E::ConnsV6 {
        env.conns_v6()
    }

    #[inline(always)]
    fn replies<E: Env>(env: &E) -> &E::RepliesV6 {
        env.replies_v6()
    }

    #[inline(always)]
    fn services<E: Env>(env: &E) -> &E::ServicesV6 {
        env.services_v6()
    }

    #[inline(always)]
    fn key(ends: &Ends<AddrV6>, kind: Kind) -> [u64; key::V6] {
        key::v6(ends.from, ends.from_port, ends.to, ends.to_port, ends.protocol, kind)
    }

    #[inline(always)]
    fn ends(key: [u64; key::V6]) -> Ends<AddrV6> {
        let (from, from_port, to, to_port, protocol, _) = key::parts_v6(key);
        Ends { from, from_port, to, to_port, protocol }
    }

    /// The mask is a prefix length.
    #[inline(always)]
    fn masked(addr: AddrV6, mask: u32) -> AddrV6 {
        let [first, second] = addr.0;
        if mask >= 64 {
            AddrV6([first, second & high_bits(mask - 64).to_be()])
        } else {
            AddrV6([first & high_bits(mask).to_be(), 0])
        }
    }

    /// The kernel writes the mark into the first word.
    #[inline(always)]
    fn mark(mark: u32) -> AddrV6 {
        AddrV6([((mark as u64) << 32).to_be(), 0])
    }

    #[inline(always)]
    fn is_in(filter: &Filter, addr: AddrV6) -> bool {
        filter.may_hold_v6(addr)
    }

    #[inline(always)]
    fn as_marked(addr: AddrV6) -> [u64; 2] {
        addr.0
    }

    #[inline(always)]
    fn question(service: u32, client: AddrV6, port: [u8; 2], dest: AddrV6) -> Question {
        Question::v6(service, client, port, dest)
    }

    #[inline(always)]
    fn server_addr(server: &Server) -> AddrV6 {
        server.addr()
    }

    #[inline(always)]
    fn server_source(server: &Server) -> AddrV6 {
        server.source()
    }

    #[inline(always)]
    fn find_template<E: Env>(env: &E, asked: &Asked<AddrV6>) -> Outcome {
        env.find_template_v6(asked)
    }

    #[inline(always)]
    fn read_plain<P: Packet>(packet: &P) -> Option<Net<AddrV6>> {
        parse::plain_v6(packet)
    }

    #[inline(always)]
    fn read<P: Packet>(packet: &P) -> Result<Net<AddrV6>, PassReason> {
        parse::network_v6(packet)
    }

    /// ::1 and multicast are no sources. The kernel takes the director's own address.
    #[inline(always)]
    fn is_source(src: AddrV6, _dst: AddrV6) -> bool {
        !Self::is_loopback(src) && src.0[0] as u8 != 0xff
    }

    #[inline(always)]
    fn is_loopback(addr: AddrV6) -> bool {
        addr.0[0] == 0 && addr.0[1] == 1u64.to_be()
    }

    /// IPv6 has none.
    #[inline(always)]
    fn is_whole<P: Packet>(_packet: &P, _net: &Net<AddrV6>) -> bool {
        true
    }

    #[inline(always)]
    fn check_options<P: Packet, E: Env>(_packet: &mut P, _env: &E) -> Result<(), PassReason> {
        Ok(())
    }

    /// Those of IPv6 ask nothing of routers that they must do.
    #[inline(always)]
    fn fill_in_options<P: Packet, E: Env>(
        _packet: &mut P,
        _env: &E,
        _own: AddrV6,
        _time: u32,
    ) -> Result<(), DropReason> {
        Ok(())
    }

    #[inline(always)]
    fn fits<P: Packet>(packet: &P, net: &Net<AddrV6>, room: u16) -> bool {
        v6::fits(packet, net, room)
    }

    #[inline(always)]
    fn prepare<'s, P: Packet>(packet: &P, server: &'s Server, method: u8) -> Result<Onward<'s>, Hindrance> {
        v6::prepare(packet, server, method)
    }

    #[inline(always)]
    fn route<P: Packet, E: Env>(
        packet: &P,
        env: &E,
        net: &Net<AddrV6>,
        ifindex: u32,
        src: AddrV6,
        len: u16,
    ) -> Result<Route, Hindrance> {
        v6::route(packet, |tos| {
            env.route_v6(&RouteQuery { ifindex, src, dst: net.dst, protocol: net.protocol, tos, len })
        })
    }

    #[inline(always)]
    fn route_at_once<P: Packet, E: Env>(
        packet: &P,
        env: &E,
        net: &Net<AddrV6>,
        source: AddrV6,
        _now: Tick,
    ) -> Result<Route, Hindrance> {
        Self::route(packet, env, net, env.ingress(), source, packet.judged(net.len))
    }

    /// The largest fragment: it is what a router would refuse.
    #[inline(always)]
    fn judged(len: u16, largest_fragment: u16) -> u16 {
        if largest_fragment == 0 { len } else { largest_fragment }
    }

    #[inline(always)]
    fn leads_elsewhere<E: Env>(env: &E, net: &Net<AddrV6>, mark: u32) -> bool {
        env.leads_elsewhere_v6(came_by(env), &net.src, &net.dst, mark)
    }

    #[inline(always)]
    fn want_neighbour<E: Env>(env: &E, addr: AddrV6) {
        env.want_neighbour_v6(addr);
    }

    #[inline(always)]
    fn is_at_its_end<P: Packet>(packet: &P) -> bool {
        packet.header::<Ipv6>(parse::L3).is_some_and(|ip| ip.hop_limit <= 1)
    }

    #[inline(always)]
    fn lower_ttl<P: Packet>(packet: &mut P) -> Result<(), DropReason> {
        v6::lower_ttl(packet)
    }

    #[inline(always)]
    fn translate_here<P: Packet>(
        packet: &mut P,
        net: &Net<AddrV6>,
        end: End,
        addr: AddrV6,
        port: [u8; 2],
    ) -> Result<(), DropReason> {
        v6::translate_here(packet, net, end, addr, port)
    }

    #[inline(always)]
    fn wrap<P: Packet, E: Env>(
        packet: &mut P,
        env: &E,
        net: &Net<AddrV6>,
        server: &Server,
        hop: &Onward<'_>,
    ) -> Result<(), DropReason> {
        v6::wrap(packet, env, net, server, hop)
    }

    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        icmp::v6::is_error(kind)
    }

    #[inline(always)]
    fn read_quote<P: Packet>(packet: &P, at: usize) -> Option<Quote<AddrV6>> {
        icmp::quote::read_v6(packet, at)
    }

    #[inline(always)]
    fn pseudo_header_in<P: Packet>(packet: &P, length: u16, protocol: u8) -> Option<Sum> {
        let ip = packet.header::<Ipv6>(parse::L3)?;
        Some(
            Sum::ZERO
                .add_v6(ip.src.get())
                .add_v6(ip.dst.get())
                .add16(length.to_be_bytes())
                .add16([0, protocol]),
        )
    }

    #[inline(always)]
    fn pseudo_header(net: &Net<AddrV6>) -> Sum {
        let length = net.len.wrapping_sub((net.l4 - parse::L3) as u16);
        Sum::ZERO.add16(length.to_be_bytes()).add16([0, ip_protocol::ICMPV6]).add_v6(net.src).add_v6(net.dst)
    }

    #[inline(always)]
    fn translate_error_here<P: Packet>(
        packet: &mut P,
        net: &Net<AddrV6>,
        quote: &Quote<AddrV6>,
        end: End,
        addr: AddrV6,
        port: [u8; 2],
    ) -> Result<(), DropReason> {
        v6::translate_error_here(packet, net, quote, end, addr, port)
    }

    #[inline(always)]
    fn answer<P: Packet, E: Env>(
        packet: &mut P,
        env: &E,
        complaint: Complaint,
        source: AddrV6,
        length: u16,
    ) -> Option<()> {
        icmp::v6::answer(packet, env, complaint, source, length)
    }
}

/// So many of the highest bits, 0 to 64.
#[inline(always)]
const fn high_bits(n: u32) -> u64 {
    if n == 0 { 0 } else { u64::MAX << ((64 - n) & 63) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_cut_anywhere() {
        let addr = AddrV6::from_bytes([0xff; 16]);
        for (mask, expected) in [
            (128, "ffffffffffffffffffffffffffffffff"),
            (126, "fffffffffffffffffffffffffffffffc"),
            (64, "ffffffffffffffff0000000000000000"),
            (65, "ffffffffffffffff8000000000000000"),
            (63, "fffffffffffffffe0000000000000000"),
            (1, "80000000000000000000000000000000"),
        ] {
            let masked = <V6 as Family<{ key::V6 }>>::masked(addr, mask);
            assert_eq!(format!("{:032x}", u128::from_be_bytes(masked.bytes())), expected, "{mask}");
        }
    }
}
