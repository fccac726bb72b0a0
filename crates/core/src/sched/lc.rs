//! Least connection: the server with the fewest connections. For servers that are alike and requests of unlike length.
//!
//! Load as in [wlc](super::wlc), weights ignored (but 0 = none). Servers A, B, C with long connections get `C B A C B A`.

use crate::env::Env;
use crate::sched::least::{Least, Measure};
use crate::sched::walk::each_block;
use crate::sched::wlc::overhead;
use crate::service::Service;

/// lc's measure.
enum Lc {}

impl Measure for Lc {
    #[inline(always)]
    fn load(active: u32, total: u32) -> u64 {
        overhead(active, total)
    }

    #[inline(always)]
    fn weight(_weight: u32) -> u32 {
        1
    }
}

/// The server with the smallest load.
#[inline(never)]
pub fn pick<E: Env>(env: &E, service: &Service) -> Option<u32> {
    let mut least = Least::<Lc>::new();
    each_block(env, service, &mut least);
    least.winner()
}
