//! Weighted least connection, LVS's default: the server with the fewest connections for its weight. For requests of
//! unlike length on servers of unlike strength.
//!
//! Load = 256 × active + all connections (Linux 6.12.117; before mid-2026 inactive instead of all, which alters only
//! near-ties). Servers A, B, C with weights 3, 2, 1 and long connections get `C B A A B A C B A A B A`: an idle tie goes
//! to the newest, even when its weight is the smallest.

use crate::env::Env;
use crate::sched::Choice;
use crate::sched::least::{Least, Measure};
use crate::sched::walk::each_block;
use crate::service::Service;

/// wlc's measure.
pub enum Wlc {}

impl Measure for Wlc {
    #[inline(always)]
    fn load(active: u32, total: u32) -> u64 {
        overhead(active, total)
    }

    #[inline(always)]
    fn weight(weight: u32) -> u32 {
        weight
    }
}

/// What connections weigh in wlc, lc and their relatives.
#[inline(always)]
pub fn overhead(active: u32, total: u32) -> u64 {
    ((active as u64) << 8).wrapping_add(total as u64)
}

/// The server with the smallest load for its weight.
#[inline(never)]
pub fn pick<E: Env>(env: &E, service: &Service) -> Option<u32> {
    pick_at_once(env, service)
}

/// [`super::choose`] of a service that is by wlc ([`super::is_by_wlc`]).
#[inline(always)]
pub fn choose<E: Env>(env: &E, service: u32) -> Choice {
    let Some(service) = env.service(service) else { return Choice::NOBODY };
    Choice::of(pick_at_once(env, service))
}

#[inline(always)]
fn pick_at_once<E: Env>(env: &E, service: &Service) -> Option<u32> {
    let mut least = Least::<Wlc>::new();
    each_block(env, service, &mut least);
    least.winner()
}
