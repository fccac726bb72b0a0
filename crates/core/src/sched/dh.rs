//! Destination hashing: one server for each destination address. For caches and firewalls behind a mark service, which see many
//! destinations.
//!
//! The table has 256 slots, which the servers take in turn in the kernel's order, whatever their weights: with A, B, C the
//! slots read `C B A C B A …`; 198.51.100.7 falls into slot 171, C's. A server that is unusable leaves its destinations
//! without service: nobody else gets them.

use crate::env::Env;
use crate::sched::Question;
use crate::sched::choices::{self, slot_of};
use crate::service::Service;

#[cfg(not(target_arch = "bpf"))]
use crate::sched::choices::{Choices, Listed, NOBODY};

/// Slots of the table.
pub(super) const SLOTS: usize = 256;

/// The destination's server.
#[inline(always)]
pub fn pick<E: Env>(env: &E, service: &Service, question: &Question) -> Option<u32> {
    let server = choices::at(env, service, slot_of(question.dest))?;
    choices::is_usable(env, server).then_some(server)
}

/// Fills the table.
#[cfg(not(target_arch = "bpf"))]
pub(super) fn fill(servers: &[Listed], table: &[Choices]) {
    let mut turns = servers.iter().cycle();
    for slot in 0..SLOTS {
        choices::write(table, slot, turns.next().map_or(NOBODY, |s| s.id));
    }
}
