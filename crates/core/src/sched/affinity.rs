//! The destination caches of lblc and lblcr: which servers serve which destination.
//!
//! One table for all services, of the same make as the connection table. A destination's entry names its server; its
//! word holds when it was last used. lblcr's further servers lie in a [`Set`] of the same slot number.
//!
//! A service's entries carry its serial number, which is new whenever it gets its scheduler ([`super::start`]), so a cache is
//! emptied by changing a number; what is left over is removed by the daemon's rounds ([`collect`]).

use crate::carried::Carried;
use crate::cell::Cell64;
use crate::conn::table::{self, Memory, New, Probe, SlotId};
use crate::conn::word::{Tick, Word};
use crate::env::{Env, Step};
use crate::sched::walk::{Visit, each_block};
use crate::sched::{Question, Scheduler};
use crate::service::{BLOCK, Block, Service, block_of, lane_of};

/// Words of a key: the destination and the service with its serial number.
pub const KEY: usize = 3;

/// Further servers of a destination at the most.
pub const FURTHER: usize = 16;

/// The further servers of a destination.
#[repr(C, align(64))]
pub struct Set {
    pub(super) members: [Cell64; FURTHER],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Set>() == 128);

/// Entries of a service beyond which a round removes those that were not used lately (the kernel's `max_size`).
pub const MOST: u32 = 16_384;
/// Entries beyond which a service gets no new ones.
const STOP: u32 = MOST / 2 * 3;
/// Which of [`Service::kept`] counts the service's entries.
const ENTRIES: usize = 0;
/// Which of [`Service::kept`] says how many entries the round under way may still remove before their time is over.
const GOAL: usize = 1;
/// Age from which on such an entry may be removed.
const IDLE: u32 = 360 * Tick::PER_SECOND;

/// A server as an entry names it: its id, and a stamp of its address, so that a server that got the id of another is not
/// mistaken for it, while one that comes back from the trash is known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member(pub u64);

impl Member {
    /// The server with this id.
    #[inline(always)]
    pub fn of<E: Env>(env: &E, server: u32) -> Option<Self> {
        let port = env.block(block_of(server))?.port[lane_of(server)].load();
        let [first, second] = env.server(server)?.addr().0;
        let folded = first ^ second;
        let stamp = (folded as u32 ^ (folded >> 32) as u32).wrapping_add(port.wrapping_mul(0x9e37_79b1));
        Some(Self(server as u64 | (stamp as u64) << 32))
    }

    /// Its server's id.
    #[inline(always)]
    pub const fn server(self) -> u32 {
        self.0 as u32
    }

    /// Its server's block, if the server is still who was meant and belongs to this service.
    #[inline(always)]
    pub fn block<E: Env>(self, env: &E, service: u32) -> Option<&Block> {
        let place = env.server(self.server())?.place();
        if place.service != service || Self::of(env, self.server())? != self {
            return None;
        }
        env.block(block_of(self.server()))
    }
}

/// The key of the question's destination.
#[inline(always)]
pub(super) fn key(service: &Service, question: &Question) -> [u64; KEY] {
    let [low, high] = question.dest_words;
    [low, high, question.service as u64 | service.cursor.load() << 32]
}

/// Where a key lies, or may lie.
#[inline(always)]
pub fn probe<E: Env>(env: &E, key: [u64; KEY]) -> Probe<KEY> {
    Probe::new(key, env.config().map_or(0, |config| config.seed.load()), env.affinity().buckets())
}

/// The slot in which the question's destination lies, which is noted as used now.
#[inline(always)]
pub(super) fn find<E: Env>(env: &E, service: &Service, question: &Question) -> Option<SlotId> {
    let slot = env.affinity().look_up(&probe(env, key(service, question)))?;
    let found = table::at(env.affinity(), slot)?;
    let now = env.now();
    if found.word.last_seen() != now {
        // Whoever else swapped it noted the same.
        let _noted_by_another = found.cell.swap_if(found.word.0, found.word.seen_at(now).0);
    }
    Some(slot)
}

/// Remembers a destination's first server. When the table is full it does not: the next packet is scheduled anew.
#[inline(always)]
pub(super) fn remember<E: Env>(env: &E, question: &Question, server: u32) {
    let Some(service) = env.service(question.service) else { return };
    if service.kept[ENTRIES].load() >= STOP {
        return;
    }
    let Some(member) = Member::of(env, server) else { return };
    let now = env.now();
    let new = New { word: Word(0).seen_at(now), entry: member.0, link: now.count() as u64 };
    if table::insert(env.affinity(), &probe(env, key(service, question)), &new).is_ok() {
        service.kept[ENTRIES].add(1);
    }
}

/// Has this server more active connections than its weight while another has less than half of its own?
#[inline(never)]
pub(super) fn is_loaded<E: Env>(env: &E, service: &Service, server: u32) -> bool {
    let Some(block) = env.block(block_of(server)) else { return true };
    let lane = lane_of(server);
    if block.active[lane].load() <= block.weight[lane].load() {
        return false;
    }
    let mut half = UnderHalf { found: Carried::new(false) };
    each_block(env, service, &mut half);
    half.found.get()
}

struct UnderHalf {
    found: Carried<bool>,
}

impl Visit for UnderHalf {
    #[inline(always)]
    fn block(&mut self, _id: u32, block: &Block) {
        for lane in 0..BLOCK {
            if (block.active[lane].load() as u64) << 1 < block.weight[lane].load() as u64 {
                self.found.set(true);
                return;
            }
        }
    }
}

// ------------------------------------------------------------------------------------------------------- housekeeping

/// Begins a service's cache: empty, under a serial number that was never used before.
pub(super) fn start(service: &Service, serial: u32) {
    service.kept[ENTRIES].store(0);
    service.kept[GOAL].store(0);
    service.cursor.store(serial as u64);
}

/// Begins a round for a service of lblc or lblcr: the kernel's rule, every 60 seconds, of how many entries have to go.
pub fn begin_round(service: &Service) {
    let entries = service.kept[ENTRIES].load();
    let goal = (entries.saturating_sub(MOST) * 4 / 3).min(MOST / 2);
    service.kept[GOAL].store(goal);
}

/// What a round removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// What was not used for `lblc_expiration` or `lblcr_expiration`: every 30th round.
    Full,
    /// As many as [`begin_round`] said of those not used for six minutes.
    Partial,
}

/// Goes through `slots` slots of the caches from `first` on, and returns how many entries it removed. Those of a scheduler that
/// its service no longer has go in every round.
#[inline(always)]
pub fn collect<E: Env>(env: &E, first: u32, slots: u32, round: Round) -> u32 {
    let mut collect = Collect { env, first, round, removed: Carried::new(0) };
    env.repeat(slots, &mut collect);
    collect.removed.get()
}

struct Collect<'e, E> {
    env: &'e E,
    first: u32,
    round: Round,
    removed: Carried<u32>,
}

impl<E: Env> Step for Collect<'_, E> {
    #[inline(always)]
    fn turn(&mut self, i: u32) -> bool {
        let slot = SlotId(self.first.wrapping_add(i));
        let Some(found) = table::at(self.env.affinity(), slot) else { return true };
        let [_, _, whose] = found.body.key();
        let Some(service) = self.env.service(whose as u32) else { return true };
        let age = self.env.now().since(found.word.last_seen());
        let current = is_current(service, whose >> 32);
        let due = match self.round {
            Round::Full => age >= expiration(self.env, service),
            Round::Partial => age >= IDLE && service.kept[GOAL].load() != 0,
        };
        if (!current || due) && table::remove(&found) {
            self.removed.set(self.removed.get().wrapping_add(1));
            if current {
                service.kept[ENTRIES].add(u32::MAX);
            }
            if current && matches!(self.round, Round::Partial) {
                service.kept[GOAL].add(u32::MAX);
            }
        }
        true
    }
}

/// Age from which on an entry of this service has had its time.
#[inline(always)]
fn expiration<E: Env>(env: &E, service: &Service) -> u32 {
    let Some(config) = env.config() else { return u32::MAX };
    match service.scheduler() {
        Some(Scheduler::Lblcr) => config.lblcr_expiration.load(),
        _ => config.lblc_expiration.load(),
    }
}

/// Does the service still have the scheduler that made entries of this serial number?
#[inline(always)]
fn is_current(service: &Service, serial: u64) -> bool {
    let caches = matches!(service.scheduler(), Some(Scheduler::Lblc | Scheduler::Lblcr));
    caches && service.cursor.load() == serial
}
