//! Locality-based least connection: a destination stays with its server until that is loaded. For caches behind a mark service,
//! where each destination should be in one cache only.
//!
//! A destination that is not in the cache gets the server of [wlc](super::wlc), and keeps it while that has a weight and is not
//! *loaded*: more active connections than its weight while another server has less than half of its own. Then wlc chooses anew. The
//! threshold (OVERLOAD) counts only in that choice. Servers A, B, C with weights 1, 2, 3, one destination, long connections:
//! `C C C C B B B A A A …`; with a plain VIP there is but one destination.
//!
//! What is not used for a day is forgotten; with more than 16,384 destinations, what is not used for six minutes.

use crate::conn::table::{self, SlotId};
use crate::env::Env;
use crate::sched::affinity::{self, Member};
use crate::sched::{Choice, Question, wlc};
use crate::service::{Service, lane_of};

/// The destination's server.
#[inline(always)]
pub(super) fn choose<E: Env>(env: &E, service: &Service, question: &Question) -> Choice {
    let Some(slot) = affinity::find(env, service, question) else {
        return Choice::of(wlc::pick(env, service)).to_be_remembered();
    };
    if let Some(server) = kept(env, slot, question.service)
        && !affinity::is_loaded(env, service, server)
    {
        return Choice::of(Some(server));
    }
    let server = wlc::pick(env, service);
    if let Some(server) = server {
        keep(env, slot, server);
    }
    Choice::of(server)
}

/// The server that the destination has, if it has a weight.
#[inline(never)]
fn kept<E: Env>(env: &E, slot: SlotId, service: u32) -> Option<u32> {
    let member = Member(table::at(env.affinity(), slot)?.body.entry.load());
    let block = member.block(env, service)?;
    (block.weight[lane_of(member.server())].load() != 0).then_some(member.server())
}

/// Gives the destination another server.
#[inline(never)]
fn keep<E: Env>(env: &E, slot: SlotId, server: u32) {
    if let (Some(found), Some(member)) = (table::at(env.affinity(), slot), Member::of(env, server)) {
        found.body.entry.store(member.0);
    }
}
