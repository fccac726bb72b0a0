//! What the daemon tells the data plane as a whole: one record, shared, changed word by word while packets flow.

use crate::cell::{Cell8, Cell32, Cell64};
use crate::conn::word::Tick;
use crate::sctp::state::SctpState;
use crate::state::TcpState;
use crate::wire::AddrV6;

/// Timeout classes that never change their meaning.
pub mod class {
    /// Class of TCP state 0; the states follow.
    pub const TCP: u8 = 0;
    /// UDP.
    pub const UDP: u8 = 16;
    /// Class of SCTP state 0; the states follow.
    pub const SCTP: u8 = 17;
    /// What is re-armed while others depend on it (60 s).
    pub const REARMED: u8 = 32;
    /// A new entry before its first packet (3 s).
    pub const NEW: u8 = 33;
    /// From here on: given out for values that an operator sets.
    pub const FREE: u8 = 48;
}

const MILLISECONDS_A_DAY: u64 = 86_400_000;

/// Ticks of a day.
const DAY: u32 = 86_400 * Tick::PER_SECOND;

/// Places of an address filter: a set of addresses that may say "perhaps" but never a wrong "no". A byte each: a bit would have to be
/// found in its word, for every packet twice.
pub const FILTER_PLACES: usize = 1 << 16;

/// Where an address falls in a filter.
#[inline(always)]
pub const fn filter_place_v4(addr: [u8; 4]) -> usize {
    filter_place(u32::from_ne_bytes(addr))
}

/// The same for IPv6.
#[inline(always)]
pub const fn filter_place_v6(addr: AddrV6) -> usize {
    filter_place(addr.folded())
}

#[inline(always)]
const fn filter_place(folded: u32) -> usize {
    (folded.wrapping_mul(0x9e37_79b1) >> 16) as usize
}

/// A set of addresses, small and fast: whether a packet can be ours is decided here before any look-up.
#[repr(C)]
pub struct Filter {
    places: [Cell8; FILTER_PLACES],
}

impl Filter {
    /// May this address be in the set?
    #[inline(always)]
    pub fn may_hold_v4(&self, addr: [u8; 4]) -> bool {
        self.holds(filter_place_v4(addr))
    }

    /// May this address be in the set?
    #[inline(always)]
    pub fn may_hold_v6(&self, addr: AddrV6) -> bool {
        self.holds(filter_place_v6(addr))
    }

    #[inline(always)]
    fn holds(&self, place: usize) -> bool {
        match self.places.get(place) {
            Some(cell) => cell.load() != 0,
            None => false,
        }
    }

    /// Says whether anybody in the set falls on this place. The daemon works out all of them and stores those that changed, so that an
    /// address that stays is never absent in between.
    pub fn store(&self, place: usize, held: bool) {
        if let Some(cell) = self.places.get(place)
            && (cell.load() != 0) != held
        {
            cell.store(held.into());
        }
    }
}

/// The record.
#[repr(C)]
pub struct Config {
    /// Ticks by timeout class.
    pub ticks: [Cell32; 256],
    /// Timeout class by TCP state.
    pub tcp_class: [Cell32; 16],
    /// Timeout class of UDP.
    pub udp_class: Cell32,
    /// Bits of [`switch`].
    pub switches: Cell32,
    /// `conn_reuse_mode`.
    pub reuse_mode: Cell32,
    /// `drop_packet`'s rate in force: every n-th packet to be scheduled is dropped; 0 = none.
    pub drop_rate: Cell32,
    /// Counts packets towards `drop_rate`.
    pub drop_counter: Cell32,
    /// Milliseconds since midnight, universal time, that it was at tick 0.
    pub midnight: Cell32,
    /// `lblc_expiration` in ticks.
    pub lblc_expiration: Cell32,
    /// `lblcr_expiration` in ticks.
    pub lblcr_expiration: Cell32,
    /// Rules of marks that there are.
    pub mark_rules: Cell32,
    /// VLAN devices that there are.
    pub vlan_devices: Cell32,
    /// `cache_bypass`: the id of what stands in for a server in entries of IPv4 connections that have none, the next one for IPv6;
    /// 0 = there are no such connections.
    pub bypass: Cell32,
    /// Seed of the tables' hash.
    pub seed: Cell64,
    /// Addresses that packets to us may carry as their destination.
    pub vips: Filter,
    /// Addresses that replies to be translated may carry as their source.
    pub rips: Filter,
}

/// Tunables that are on or off.
pub mod switch {
    /// `sloppy_tcp`
    pub const SLOPPY_TCP: u32 = 1 << 0;
    /// `expire_nodest_conn`
    pub const EXPIRE_NODEST_CONN: u32 = 1 << 1;
    /// `expire_quiescent_template`
    pub const EXPIRE_QUIESCENT_TEMPLATE: u32 = 1 << 2;
    /// `secure_tcp` in force
    pub const SECURE_TCP: u32 = 1 << 3;
    /// `nat_icmp_send`
    pub const NAT_ICMP_SEND: u32 = 1 << 4;
    /// A service with port 0 exists.
    pub const ANY_PORT_SERVICE: u32 = 1 << 6;
    /// A TCP service with port 21 exists.
    pub const FTP_SERVICE: u32 = 1 << 7;
    /// `schedule_icmp`
    pub const SCHEDULE_ICMP: u32 = 1 << 8;
    /// `sloppy_sctp`
    pub const SLOPPY_SCTP: u32 = 1 << 9;
    /// A service with [`crate::service::Service::mss`] exists.
    pub const CLAMPS_MSS: u32 = 1 << 10;
    /// What the director's own stack sends is seen as it leaves, so that the director can be a NAT server.
    pub const SEES_OWN: u32 = 1 << 11;
}

impl Config {
    /// Is this tunable on?
    #[inline(always)]
    pub fn has(&self, bit: u32) -> bool {
        self.switches.load() & bit != 0
    }

    /// Ticks that an entry of this class lives without a packet.
    #[inline(always)]
    pub fn timeout(&self, class: u8) -> u32 {
        match self.ticks.get(class as usize) {
            Some(t) => t.load(),
            None => 0,
        }
    }

    /// The class of a TCP connection in this state.
    #[inline(always)]
    pub fn tcp_class_of(&self, state: u8) -> u8 {
        match self.tcp_class.get((state & 15) as usize) {
            Some(c) => c.load() as u8,
            None => 0,
        }
    }

    /// Milliseconds since midnight, universal time, to a quarter of a second.
    #[inline(always)]
    pub fn milliseconds_of_day(&self, now: Tick) -> u32 {
        let since_tick_0 = now.count() as u64 * (1000 / Tick::PER_SECOND as u64);
        ((self.midnight.load() as u64 + since_tick_0) % MILLISECONDS_A_DAY) as u32
    }

    /// Says what time it is, in milliseconds since a midnight.
    pub fn set_time(&self, now: Tick, milliseconds: u64) {
        let since_tick_0 = u64::from(now.count()) * (1000 / u64::from(Tick::PER_SECOND));
        let short = since_tick_0 % MILLISECONDS_A_DAY;
        self.midnight.store(((milliseconds + MILLISECONDS_A_DAY - short) % MILLISECONDS_A_DAY) as u32);
    }

    /// Writes LVS's defaults into a record of zeros.
    pub fn set_defaults(&self, seed: u64) {
        for state in TcpState::ALL {
            let class = class::TCP + state as u8;
            self.ticks[class as usize].store(state.timeout() * Tick::PER_SECOND);
            self.tcp_class[state as usize].store(u32::from(class));
        }
        for state in SctpState::ALL {
            self.ticks[(class::SCTP + state as u8) as usize].store(state.timeout() * Tick::PER_SECOND);
        }
        self.ticks[class::UDP as usize].store(crate::state::UDP_TIMEOUT * Tick::PER_SECOND);
        self.udp_class.store(u32::from(class::UDP));
        self.ticks[class::REARMED as usize].store(60 * Tick::PER_SECOND);
        self.ticks[class::NEW as usize].store(3 * Tick::PER_SECOND);
        self.reuse_mode.store(1);
        self.lblc_expiration.store(DAY);
        self.lblcr_expiration.store(DAY);
        self.seed.store(seed);
    }
}
