//! The record of a virtual service and the blocks in which its servers' weights and loads lie.
//!
//! A server's id is its block × 16 + its lane. A service's blocks are a chain; a server keeps its lane, also while it is
//! in the trash, so its counts stay with it. What a scheduler compares lies in flat arrays of sixteen.

use crate::cell::{Cell32, Cell64};
use crate::sched::Scheduler;

/// Servers of a block.
pub const BLOCK: usize = 16;

/// "No block": the end of a chain.
pub const NO_BLOCK: u32 = u32::MAX;

/// Bits of a service's flags.
pub mod flag {
    /// Persistent.
    pub const PERSISTENT: u32 = 1 << 8;
    /// One-packet scheduling.
    pub const ONE_PACKET: u32 = 1 << 9;
    /// `flag-1`: fallback of sh and mh.
    pub const FALLBACK: u32 = 1 << 10;
    /// `flag-2`: sh and mh hash the port too.
    pub const PORT: u32 = 1 << 11;
    /// A mark service.
    pub const MARK: u32 = 1 << 12;
    /// The scheduler's number.
    pub const SCHEDULER: u32 = 0xff;
}

/// The record of a service.
#[repr(C, align(64))]
pub struct Service {
    /// Scheduler and [`flag`]s.
    pub kind: Cell32,
    /// The first block of the chain.
    pub first_block: Cell32,
    /// Blocks in the chain.
    pub blocks: Cell32,
    /// Its port in host order (0 = all).
    pub port: Cell32,
    /// Where rr and wrr stand; each scheduler says what it keeps here.
    pub cursor: Cell64,
    /// Two numbers that the scheduler keeps; each says what they are.
    pub kept: [Cell32; 2],
    /// rr, wrr, sh, dh, mh: first line of its table ([`crate::sched::choices`]).
    pub table: Cell32,
    /// Lines of its table: for the daemon, which gives them out.
    pub table_len: Cell32,
    /// Persistence: timeout class of its templates.
    pub persist_class: Cell32,
    /// Persistence: IPv4 mask as on the wire; IPv6 prefix length.
    pub persist_mask: Cell32,
    /// Its mark.
    pub mark: Cell32,
    /// Statistics record for what happened to no server.
    pub stats: Cell32,
    /// The largest TCP segment that its connections' ends may say they take; 0 = any, [`AUTO`] = what fits.
    pub mss: Cell32,
}

/// [`Service::mss`] of a service that goes by what the way to the server takes.
pub const AUTO: u32 = 1 << 16;

#[cfg(not(loom))]
const _: () = assert!(size_of::<Service>() == 64);

impl Service {
    /// Is this flag set?
    #[inline(always)]
    pub fn has(&self, flag: u32) -> bool {
        self.kind.load() & flag != 0
    }

    /// Is this, as on the wire, the service's port?
    #[inline(always)]
    pub fn has_port(&self, port: [u8; 2]) -> bool {
        self.port.load() == u16::from_be_bytes(port) as u32
    }

    /// Its scheduler.
    #[inline(always)]
    pub fn scheduler(&self) -> Option<Scheduler> {
        Scheduler::from_u8((self.kind.load() & flag::SCHEDULER) as u8)
    }
}

/// Sixteen servers of one service.
#[repr(C, align(64))]
pub struct Block {
    /// Active connections.
    pub active: [Cell32; BLOCK],
    /// All connections that count: active and inactive.
    pub total: [Cell32; BLOCK],
    /// Weight; 0 as well where there is no server or one in the trash.
    pub weight: [Cell32; BLOCK],
    /// 1: over its threshold, gets no new connections.
    pub overload: [Cell32; BLOCK],
    /// Order of addition, larger = newer; never 0. The kernel's list begins with the newest.
    pub order: [Cell32; BLOCK],
    /// Persistence templates.
    pub persistent: [Cell32; BLOCK],
    /// Upper threshold, 0 = none.
    pub upper: [Cell32; BLOCK],
    /// Lower threshold as in force (never 0 where there is an upper one).
    pub lower: [Cell32; BLOCK],
    /// Destination port as on the wire, 0 = the packet's.
    pub port: [Cell32; BLOCK],
    /// Next block of the chain.
    pub next: Cell32,
    /// Keeps the line full.
    pub reserved: [Cell32; BLOCK - 1],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Block>() == 640);

/// A server's block.
#[inline(always)]
pub const fn block_of(server: u32) -> u32 {
    server >> 4
}

/// A server's lane in its block.
#[inline(always)]
pub const fn lane_of(server: u32) -> usize {
    (server & 15) as usize
}

/// The server in this lane of this block.
#[inline(always)]
pub const fn server_in(block: u32, lane: usize) -> u32 {
    block << 4 | (lane as u32 & 15)
}

impl Block {
    /// The port of the server in this lane, as on the wire; 0 = the packet's.
    #[inline(always)]
    pub fn port_of(&self, lane: usize) -> [u8; 2] {
        (self.port[lane & (BLOCK - 1)].load() as u16).to_ne_bytes()
    }

    /// A connection was bound to the server in this lane.
    ///
    /// The overload rule is that of kernels from mid-2026 on (6.12.117): judged when the total reaches exactly the
    /// upper threshold.
    #[inline(always)]
    pub fn bind(&self, lane: usize) {
        let lane = lane & (BLOCK - 1);
        let total = self.total[lane].add(1).wrapping_add(1);
        let upper = self.upper[lane].load();
        if upper != 0 && total == upper {
            let over = self.total[lane].load() >= self.lower[lane].load();
            self.overload[lane].store(over as u32);
        }
    }

    /// A connection was taken from the server in this lane.
    ///
    /// Overload ends when the total falls below the lower threshold (same kernels).
    #[inline(always)]
    pub fn unbind(&self, lane: usize) {
        let lane = lane & (BLOCK - 1);
        let before = self.total[lane].add(u32::MAX);
        let upper = self.upper[lane].load();
        if upper != 0 && before == self.lower[lane].load() {
            let over = self.total[lane].load() >= upper;
            self.overload[lane].store(over as u32);
        }
    }

    /// Active connections change: one more, or one less.
    #[inline(always)]
    pub fn count_active(&self, lane: usize, more: bool) {
        let _before = self.active[lane & (BLOCK - 1)].add(if more { 1 } else { u32::MAX });
    }

    /// Persistence templates change: one more, or one less.
    #[inline(always)]
    pub fn count_persistent(&self, lane: usize, more: bool) {
        let _before = self.persistent[lane & (BLOCK - 1)].add(if more { 1 } else { u32::MAX });
    }

    /// Judges overload afresh after an edit of the thresholds: what lies between them keeps what it was.
    pub fn judge_overload(&self, lane: usize) {
        let lane = lane & (BLOCK - 1);
        let (total, upper) = (self.total[lane].load(), self.upper[lane].load());
        if upper == 0 || total < self.lower[lane].load() {
            self.overload[lane].store(0);
        } else if total >= upper {
            self.overload[lane].store(1);
        }
    }
}

/// The lower threshold in force: as given, or three quarters of the upper one, rounded up.
pub const fn effective_lower(upper: u32, lower: u32) -> u32 {
    if lower != 0 { lower } else { upper - (upper >> 2) }
}
