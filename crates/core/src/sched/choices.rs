//! The tables that rr, wrr, sh, dh and mh choose by: made in user space, only looked up by packets.
//!
//! All of them lie in one array of lines of sixteen numbers. A service names the first line of its table, so a new table is
//! filled beside the old one and put in its place by a single store. What a table holds, its scheduler says; most
//! numbers are server ids, and [`NOBODY`] is none.

use crate::cell::Cell32;
use crate::env::Env;
use crate::sched::Scheduler;
use crate::service::{Block, Service, block_of, lane_of};

/// Numbers of a line.
pub const LINE: usize = 16;

/// "No server" in a table.
pub const NOBODY: u32 = u32::MAX;

/// "No table" in a service's record.
pub const NO_TABLE: u32 = u32::MAX;

/// Sixteen numbers of a table.
#[repr(C, align(64))]
pub struct Choices(pub [Cell32; LINE]);

#[cfg(not(loom))]
const _: () = assert!(size_of::<Choices>() == 64);

/// A server as the tables are made from it. Lists of them begin with the newest, as the kernel's list does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: u32,
    /// Its order of addition; see [`Block::order`].
    pub order: u32,
    /// Its weight.
    pub weight: u32,
    /// Its last weight that was not 0.
    pub last_weight: u32,
    /// Its address in the service's family, folded as in [`super::Question`].
    pub address: u32,
    /// Its port in host order, 0 = the packet's.
    pub port: u16,
}

/// Lines that this scheduler's table takes for so many servers; 0 when it has none.
pub const fn lines(scheduler: Scheduler, servers: usize) -> usize {
    let numbers = match scheduler {
        Scheduler::Rr => super::rr::numbers(servers),
        Scheduler::Wrr => super::wrr::numbers(servers),
        Scheduler::Dh => super::dh::SLOTS,
        Scheduler::Sh => super::sh::SLOTS,
        Scheduler::Mh => super::mh::SLOTS,
        _ => 0,
    };
    numbers.div_ceil(LINE)
}

/// The number at this place of the service's table.
#[inline(always)]
pub(super) fn at<E: Env>(env: &E, service: &Service, place: u32) -> Option<u32> {
    number(env, service.table.load(), place)
}

/// The number at this place of the table that begins with this line.
#[inline(always)]
pub(super) fn number<E: Env>(env: &E, first_line: u32, place: u32) -> Option<u32> {
    let line = env.choices(first_line.wrapping_add(place >> 4))?;
    Some(line.0[(place & 15) as usize].load())
}

/// Writes the number at this place of a table that is being filled.
#[cfg(not(target_arch = "bpf"))]
pub(super) fn write(table: &[Choices], place: usize, number: u32) {
    if let Some(line) = table.get(place / LINE) {
        line.0[place % LINE].store(number);
    }
}

/// Weight of a server if it may get new connections, else 0.
#[inline(always)]
pub(super) fn usable_weight(block: &Block, server: u32) -> u32 {
    let lane = lane_of(server);
    if block.overload[lane].load() != 0 { 0 } else { block.weight[lane].load() }
}

/// May this server get new connections?
#[inline(always)]
pub(super) fn is_usable<E: Env>(env: &E, server: u32) -> bool {
    match env.block(block_of(server)) {
        Some(block) => usable_weight(block, server) != 0,
        None => false,
    }
}

/// The number of bits that a hash of LVS's keeps for its 256 slots.
const HASH_BITS: u32 = 8;

/// LVS's hash of 32 bits into 256 slots: the golden ratio's product, its upper bits.
#[inline(always)]
pub(super) const fn slot_of(value: u32) -> u32 {
    value.wrapping_mul(0x61c8_8647) >> (32 - HASH_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_fall_into_the_kernels_slots() {
        assert_eq!(slot_of(u32::from_be_bytes([198, 51, 100, 7])), 171);
        assert_eq!(slot_of(u32::from_be_bytes([198, 51, 100, 8])), 12);
        assert_eq!(slot_of(u32::from_be_bytes([192, 0, 2, 10])), 162);
        assert_eq!(slot_of(u32::from_be_bytes([192, 0, 2, 10]).wrapping_add(40000)), 70);
    }
}
