//! Weighted overflow: the heaviest server until it is full, then the next. For filling servers one after another, so that the
//! others can be switched off.
//!
//! A server is full when it has more active connections than its weight; it thus takes one more than its weight. Servers A, B, C with
//! weights 3, 2, 1 and long connections get `A A A A B B B C C` and then nobody. UDP is never active: always A.

use crate::env::Env;
use crate::sched::heaviest::{Admission, Heaviest};
use crate::sched::walk::each_block;
use crate::service::Service;

enum NotFull {}

impl Admission for NotFull {
    #[inline(always)]
    fn admits(weight: u32, active: u32) -> bool {
        active <= weight
    }
}

/// The heaviest usable server that is not full.
#[inline(never)]
pub fn pick<E: Env>(env: &E, service: &Service) -> Option<u32> {
    let mut heaviest = Heaviest::<NotFull>::new();
    each_block(env, service, &mut heaviest);
    heaviest.winner()
}
