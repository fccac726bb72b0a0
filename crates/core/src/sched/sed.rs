//! Shortest expected delay: the server on which the new connection would wait least, (active + 1) / weight. For servers of
//! unlike strength when idle ones should not be preferred to strong ones.
//!
//! Only active connections count, so UDP, which has none, always goes to the heaviest server (the newest of those).
//! Servers A, B, C with weights 3, 2, 1 and long connections get `A B A C B A A B A C B A`.

use crate::env::Env;
use crate::sched::least::{Least, Measure};
use crate::sched::walk::each_block;
use crate::service::Service;

/// sed's measure.
pub(super) enum Sed {}

impl Measure for Sed {
    #[inline(always)]
    fn load(active: u32, _total: u32) -> u64 {
        active as u64 + 1
    }

    #[inline(always)]
    fn weight(weight: u32) -> u32 {
        weight
    }
}

/// The server with the shortest expected delay.
#[inline(never)]
pub fn pick<E: Env>(env: &E, service: &Service) -> Option<u32> {
    let mut least = Least::<Sed>::new();
    each_block(env, service, &mut least);
    least.winner()
}
