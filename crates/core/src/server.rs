//! The record of a real server: one line, ready to be copied into a packet.
//!
//! The daemon writes it word by word while packets are forwarded, so what must not be torn lies in one word: the MAC
//! that a packet is sent to together with the flags that allow it.

use crate::cell::Cell64;
use crate::forward::tunnel;
use crate::method::Method;
use crate::wire::{AddrV6, Ethernet};

/// Bits of a server's flags.
pub mod flag {
    /// The bits of [`super::Method`].
    pub const METHOD: u16 = 0x7;
    /// It is in its service (not in the trash).
    pub const AVAILABLE: u16 = 1 << 3;
    /// Its next hop is known.
    pub const RESOLVED: u16 = 1 << 4;
    /// Shift of the tunnel type, two bits.
    pub const TUNNEL_TYPE: u16 = 5;
    /// Shift of the tunnel's checksum option, two bits.
    pub const TUNNEL_CHECKSUM: u16 = 7;
    /// What decides what a tunnel looks like; 0: IP in IP, between IPv4 addresses.
    pub const TUNNEL_SHAPE: u16 = 3 << TUNNEL_TYPE | 3 << TUNNEL_CHECKSUM | IPV6;
    /// The director itself has its address.
    pub const LOCAL: u16 = 1 << 9;
    /// Its address is an IPv6 one.
    pub const IPV6: u16 = 1 << 10;
    /// Its weight is 0.
    pub const QUIESCED: u16 = 1 << 11;
    /// `pmtu_disc` is off: what is too long for a tunnel is cut outside, and never refused.
    pub const CUT_OUTSIDE: u16 = 1 << 12;
    /// The way to it leaves by a VLAN device.
    pub const TAGGED: u16 = 1 << 13;
}

/// Is it one to which packets of a connection of this method can go the short way: in its service, another host, with a known next
/// hop, without VLAN tags, a tunnel, if it is one, without a checksum over the packet, and still of that method?
#[inline(always)]
pub const fn is_usual(flags: u16, method: u8) -> bool {
    const WANTED: u16 = flag::AVAILABLE | flag::RESOLVED;
    const UNWANTED: u16 = flag::LOCAL | flag::TAGGED | 3 << flag::TUNNEL_CHECKSUM;
    flags & (WANTED | UNWANTED | flag::METHOD) == WANTED | method as u16
}

/// The record. See [`Hop`] and [`Place`] for the words' contents.
#[cfg_attr(not(target_arch = "bpf"), derive(Debug, Default))]
#[repr(C, align(64))]
pub struct Server {
    to: Cell64,
    from: Cell64,
    out: Cell64,
    place: Cell64,
    addr: [Cell64; 2],
    source: [Cell64; 2],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Server>() == 64);

/// Where packets to a server go on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Hop {
    /// Destination MAC.
    pub to: [u8; 6],
    /// Source MAC.
    pub from: [u8; 6],
    /// Interface.
    pub ifindex: u32,
    /// Largest IP packet that the way takes.
    pub mtu: u16,
}

/// The same as packets need it: the flags with the MAC that they allow, taken together, and the rest when it is asked for. Words that are
/// copied whole.
#[derive(Clone, Copy)]
pub struct Onward<'s> {
    to: u64,
    server: &'s Server,
}

impl Onward<'_> {
    /// The flags that were in force with that MAC.
    #[inline(always)]
    pub const fn flags(&self) -> u16 {
        (self.to >> 48) as u16
    }

    /// Interface.
    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        self.server.out.load_low()
    }

    /// Largest IP packet that the way takes.
    #[inline(always)]
    pub fn mtu(&self) -> u16 {
        (self.server.out.load() >> 32) as u16
    }

    /// The same less what the server's present method puts around a packet; 0 where that leaves too little to be worth it.
    #[inline(always)]
    pub fn room(&self) -> u16 {
        (self.server.out.load() >> 48) as u16
    }

    /// Writes a frame's header.
    #[inline(always)]
    pub fn address(&self, frame: &mut Ethernet, ethertype: u16) {
        frame.fill(self.to, self.server.from.load(), ethertype);
    }
}

/// What a server is, apart from how it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Place {
    /// Its service.
    pub service: u32,
    /// Its statistics record.
    pub stats: u32,
}

impl Server {
    /// The flags and the destination MAC, taken together.
    #[inline(always)]
    pub fn flags_and_mac(&self) -> (u16, [u8; 6]) {
        let w = self.to.load().to_ne_bytes();
        (u16::from_ne_bytes([w[6], w[7]]), [w[0], w[1], w[2], w[3], w[4], w[5]])
    }

    /// Its flags.
    #[inline(always)]
    pub fn flags(&self) -> u16 {
        (self.to.load() >> 48) as u16
    }

    /// Changes flags, keeping the MAC that goes with them. Only the daemon writes.
    pub fn set_flags(&self, flags: u16) {
        let out = self.out.load();
        self.set_out(flags, out as u32, (out >> 32) as u16);
        self.set_to(flags, self.flags_and_mac().1);
    }

    /// The room that the way has is worked out here, once, and not for every packet.
    fn set_out(&self, flags: u16, ifindex: u32, mtu: u16) {
        let room = tunnel::room_by(flags, mtu, (flags & flag::METHOD) as u8).unwrap_or(0);
        self.out.store(u64::from(ifindex) | u64::from(mtu) << 32 | u64::from(room) << 48);
    }

    fn set_to(&self, flags: u16, mac: [u8; 6]) {
        let f = flags.to_ne_bytes();
        self.to.store(u64::from_ne_bytes([mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], f[0], f[1]]));
    }

    /// Its method at present; a connection keeps the one it was made with.
    #[inline(always)]
    pub fn method(&self) -> Option<Method> {
        Method::from_u8((self.flags() & flag::METHOD) as u8)
    }

    /// Where its packets go.
    #[inline(always)]
    pub fn onward(&self) -> Onward<'_> {
        Onward { to: self.to.load(), server: self }
    }

    /// Gives it a next hop: the last word written makes it usable.
    pub fn resolve(&self, hop: &Hop, source: [u8; 16]) {
        let m = hop.from;
        let port = self.tunnel_port();
        self.from.store(u64::from_ne_bytes([m[0], m[1], m[2], m[3], m[4], m[5], port[0], port[1]]));
        self.set_out(self.flags(), hop.ifindex, hop.mtu);
        store16(&self.source, source);
        self.set_to(self.flags() | flag::RESOLVED, hop.to);
    }

    /// Takes its next hop away.
    pub fn unresolve(&self) {
        self.set_flags(self.flags() & !flag::RESOLVED);
    }

    /// Nobody has its number any more: whoever gets it next has no next hop, and no address of the director's towards it.
    pub fn vacate(&self) {
        self.set_flags(0);
        store16(&self.source, [0; 16]);
    }

    /// The port of its GUE tunnel, as on the wire.
    #[inline(always)]
    pub fn tunnel_port(&self) -> [u8; 2] {
        let f = self.from.load().to_ne_bytes();
        [f[6], f[7]]
    }

    /// Sets the port of its GUE tunnel.
    pub fn set_tunnel_port(&self, port: [u8; 2]) {
        let mut f = self.from.load().to_ne_bytes();
        [f[6], f[7]] = port;
        self.from.store(u64::from_ne_bytes(f));
    }

    /// What it is.
    #[inline(always)]
    pub fn place(&self) -> Place {
        let w = self.place.load();
        Place { service: w as u32, stats: (w >> 32) as u32 }
    }

    /// Says what it is.
    pub fn set_place(&self, place: Place) {
        self.place.store(u64::from(place.service) | u64::from(place.stats) << 32);
    }

    /// Its address when it is an IPv4 one.
    #[inline(always)]
    pub fn addr_v4(&self) -> [u8; 4] {
        self.addr[0].load_low().to_ne_bytes()
    }

    /// The director's address towards it, for IPv4.
    #[inline(always)]
    pub fn source_v4(&self) -> [u8; 4] {
        self.source[0].load_low().to_ne_bytes()
    }

    /// Its address in sixteen bytes; an IPv4 one in the first four.
    #[inline(always)]
    pub fn addr(&self) -> AddrV6 {
        AddrV6([self.addr[0].load(), self.addr[1].load()])
    }

    /// The director's address towards the server, in sixteen bytes.
    #[inline(always)]
    pub fn source(&self) -> AddrV6 {
        AddrV6([self.source[0].load(), self.source[1].load()])
    }

    /// Sets its address; an IPv4 one goes into the first four bytes.
    pub fn set_addr(&self, addr: [u8; 16]) {
        store16(&self.addr, addr);
    }
}

fn store16(cells: &[Cell64; 2], bytes: [u8; 16]) {
    let w = u128::from_ne_bytes(bytes);
    cells[0].store(w as u64);
    cells[1].store((w >> 64) as u64);
}
