//! Weighted failover: everything to the heaviest server that is usable. For a main server and its stand-ins.
//!
//! Servers A, B, C with weights 3, 2, 1: always A; when A is at weight 0 or over its threshold, B. Of equals the newest.

use crate::env::Env;
use crate::sched::heaviest::{Admission, Heaviest};
use crate::sched::walk::each_block;
use crate::service::Service;

enum Anyone {}

impl Admission for Anyone {
    #[inline(always)]
    fn admits(_weight: u32, _active: u32) -> bool {
        true
    }
}

/// The heaviest usable server.
#[inline(never)]
pub fn pick<E: Env>(env: &E, service: &Service) -> Option<u32> {
    let mut heaviest = Heaviest::<Anyone>::new();
    each_block(env, service, &mut heaviest);
    heaviest.winner()
}
