//! A packet that may be ours, as the director sees it.

use core::marker::PhantomData;

use crate::config::Config;
use crate::conn::key::{self, Kind};
use crate::conn::table::{self, Memory, Probe};
use crate::conn::word::{Tick, Word};
use crate::env::Env;
use crate::family::{Ends, Family};
use crate::packet::{self, Packet};
use crate::parse::{self, Net, Transport};
use crate::persist;
use crate::sctp::state::Event;
use crate::service::Service;
use crate::verdict::{DropReason, PassReason};
use crate::wire::{ip_protocol, tcp_flag};

/// Whom the filters recognise in a packet: they tell before any look-up whether it can be ours at all.
#[derive(Clone, Copy)]
pub struct Recognised {
    /// It may come from a real server.
    pub from_server: bool,
    /// It may be for a VIP.
    pub to_vip: bool,
}

impl Recognised {
    /// Looks at both addresses.
    #[inline(always)]
    pub fn in_packet<F: Family<K>, const K: usize>(config: &Config, net: &Net<F::Addr>) -> Self {
        let from_server = F::is_in(&config.rips, net.src);
        // Marks may be for any address.
        let to_vip = F::is_in(&config.vips, net.dst) || config.mark_rules.load() != 0;
        Self { from_server, to_vip }
    }

    /// Does the packet that was looked at concern nobody? So it does when it cannot come from a VIP either.
    #[inline(always)]
    pub fn nobody<F: Family<K>, const K: usize>(self, config: &Config, net: &Net<F::Addr>) -> bool {
        !(self.from_server | self.to_vip) && !F::is_in(&config.vips, net.src)
    }
}

/// See the module.
pub struct Flow<'e, F: Family<K>, const K: usize> {
    /// Its network part.
    pub net: Net<F::Addr>,
    /// Its transport part.
    pub transport: Transport,
    /// The protocol of the connection that it belongs to.
    pub protocol: u8,
    /// The configuration record.
    pub config: &'e Config,
    /// When it came.
    pub now: Tick,
    /// It did not come at all: an ICMP error tells of it.
    pub is_hearsay: bool,
    family: PhantomData<F>,
}

impl<'e, F: Family<K>, const K: usize> Flow<'e, F, K> {
    /// One that nothing was read into yet.
    #[inline(always)]
    pub fn blank(config: &'e Config, now: Tick) -> Self {
        let net = Net { l4: 0, src: F::NOWHERE, dst: F::NOWHERE, protocol: 0, len: 0, fragment: false };
        let transport = Transport { src: [0; 2], dst: [0; 2], flags: 0 };
        Self { net, transport, protocol: 0, config, now, is_hearsay: false, family: PhantomData }
    }

    /// Reads a packet that may be ours. `Err`: why the stack gets it.
    #[inline(always)]
    pub fn read<P: Packet, E: Env>(&mut self, packet: &mut P, env: &E) -> Result<(), PassReason> {
        match PassReason::from_u8(read_packed(packet, self)) {
            None => F::check_options(packet, env),
            Some(reason) => Err(reason),
        }
    }

    /// Does what the packet's options ask of a router with this address.
    #[inline(always)]
    pub fn fill_in_options<P: Packet, E: Env>(
        &self,
        packet: &mut P,
        env: &E,
        own: F::Addr,
    ) -> Result<(), DropReason> {
        F::fill_in_options(packet, env, own, self.config.milliseconds_of_day(self.now))
    }

    /// Reads the rest of a packet that may be ours. `Err`: why the stack gets it.
    #[inline(always)]
    pub fn read_rest<P: Packet>(&mut self, packet: &P) -> Result<(), PassReason> {
        if self.net.fragment {
            return Err(PassReason::Fragment);
        }
        if !F::is_whole(packet, &self.net) {
            return Err(PassReason::Malformed);
        }
        if !self.is_from_source() {
            return Err(PassReason::Source);
        }
        self.read_transport(packet)
    }

    /// Is it from an address that can be one's?
    #[inline(always)]
    pub fn is_from_source(&self) -> bool {
        F::is_source(self.net.src, self.net.dst)
    }

    /// [`Self::read_rest`] of a packet that was read as a plain one, and is of a client that there is already: whose first packet came from
    /// no source has no entry.
    #[inline(always)]
    pub fn read_known<P: Packet>(&mut self, packet: &P) -> Result<(), PassReason> {
        if !F::is_whole(packet, &self.net) {
            return Err(PassReason::Malformed);
        }
        self.read_transport(packet)
    }

    #[inline(always)]
    fn read_transport<P: Packet>(&mut self, packet: &P) -> Result<(), PassReason> {
        self.protocol = self.net.protocol;
        self.transport = parse::transport(packet, self.net.l4, self.net.protocol)?;
        Ok(())
    }

    /// Reads what [`Self::read_rest`] calls another protocol.
    #[inline(always)]
    fn read_otherwise<P: Packet>(&mut self, packet: &P) -> Result<(), PassReason> {
        if self.net.protocol == ip_protocol::AH && K != key::V4 {
            // To IPv6, and so to the kernel, it is an extension header (RFC 4302, 3.1), before what LVS does not know.
            return Err(PassReason::Protocol);
        }
        self.transport = parse::transport_otherwise(packet, self.net.l4, self.net.protocol)?;
        if self.is_ipsec() {
            self.protocol = ip_protocol::UDP;
        }
        Ok(())
    }

    /// The packet's ends.
    #[inline(always)]
    pub fn ends(&self) -> Ends<F::Addr> {
        let (net, t) = (&self.net, &self.transport);
        Ends { from: net.src, from_port: t.src, to: net.dst, to_port: t.dst, protocol: self.protocol }
    }

    /// The packet's key as a client's.
    #[inline(always)]
    pub fn request_key(&self) -> [u64; K] {
        F::key(&self.ends(), Kind::Conn)
    }

    /// The key of the connection to which the packet, seen from its other end, belongs.
    #[inline(always)]
    pub fn reverse_key(&self) -> [u64; K] {
        let (net, t) = (&self.net, &self.transport);
        let ends =
            Ends { from: net.dst, from_port: t.dst, to: net.src, to_port: t.src, protocol: self.protocol };
        F::key(&ends, Kind::Conn)
    }

    /// Where a key is looked for in a table.
    #[inline(always)]
    pub fn probe<M: Memory<K>>(&self, memory: &M, key: [u64; K]) -> Probe<K> {
        Probe::new(key, self.config.seed.load(), memory.buckets())
    }

    /// The packet, to who keeps clients on their servers.
    #[inline(always)]
    pub fn asked(&self, service: u32) -> persist::Asked<F::Addr> {
        persist::Asked {
            service,
            client: self.net.src,
            vip: self.net.dst,
            port: self.transport.dst,
            protocol: self.net.protocol,
        }
    }

    /// Where the template of the packet's client is, or will be.
    #[inline(always)]
    pub fn template_probe<E: Env>(&self, env: &E, service: &Service) -> Probe<K> {
        self.probe(F::conns(env), persist::template_key::<F, K>(service, &self.asked(0)))
    }

    /// Is it TCP?
    #[inline(always)]
    pub fn is_tcp(&self) -> bool {
        self.net.protocol == ip_protocol::TCP
    }

    /// Is it SCTP?
    #[inline(always)]
    pub fn is_sctp(&self) -> bool {
        self.net.protocol == ip_protocol::SCTP
    }

    /// Is it IPsec?
    #[inline(always)]
    pub fn is_ipsec(&self) -> bool {
        ip_protocol::is_ipsec(self.net.protocol)
    }

    /// Would it open a connection?
    #[inline(always)]
    pub fn looks_new(&self) -> bool {
        if self.is_sctp() {
            return self.transport.flags == Event::Init as u8;
        }
        self.is_syn()
    }

    /// The same of TCP alone.
    #[inline(always)]
    pub fn is_syn(&self) -> bool {
        self.is_tcp() && self.transport.flags & tcp_flag::SYN != 0
    }

    /// Is it a datagram without a checksum?
    #[inline(always)]
    pub fn is_unsummed(&self) -> bool {
        self.net.protocol == ip_protocol::UDP && self.transport.flags != 0
    }

    /// Had an entry with this word had its time when the packet came?
    #[inline(always)]
    pub fn has_outlived(&self, word: Word) -> bool {
        word.last_seen().count() != self.now.count()
            && table::is_expired(word, self.now, self.config.timeout(word.class()))
    }
}

/// The reading itself, in a function with a stack frame of its own: what it needs is not needed afterwards, and 512 bytes
/// must do for all that is. Returns the number of a [`PassReason`], or one that none has.
#[inline(never)]
fn read_packed<F: Family<K>, P: Packet, const K: usize>(packet: &mut P, flow: &mut Flow<'_, F, K>) -> u8 {
    match read_into(packet::by_reference(packet), flow) {
        Ok(()) => u8::MAX,
        Err(reason) => reason as u8,
    }
}

#[inline(always)]
fn read_into<F: Family<K>, P: Packet, const K: usize>(
    packet: &P,
    flow: &mut Flow<'_, F, K>,
) -> Result<(), PassReason> {
    flow.net = F::read(packet)?;
    match flow.read_rest(packet) {
        Err(PassReason::Protocol) => flow.read_otherwise(packet),
        outcome => outcome,
    }
}
