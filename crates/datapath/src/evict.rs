//! Entries that must go before their time: found here, removed by the data plane.

use std::ops::Range;

use xlvs_core::conn::entry::{Entry, Link};
use xlvs_core::conn::key;
use xlvs_core::conn::table::{Found, LANES, SlotId, at};
use xlvs_core::conn::word::{Tick, Word};
use xlvs_core::pressure::{DropEntry, LOOKED_AT, Suspect};
use xlvs_core::server::flag as server_flag;
use xlvs_core::service::flag as service_flag;

use crate::tables::{Buckets, Tables};

/// Entries handed over at once.
pub const BATCH: usize = 100;

/// An entry that must go, as it was seen.
pub type Doomed = (SlotId, Word);

/// Removes entries from wherever the tables live, if their words still say what they said.
pub trait Evictor {
    /// Tries to remove these; returns how many it removed.
    fn evict(&self, doomed: &[Doomed]) -> usize;
}

/// A second's work of `drop_entry`: looks at a 32nd of the table, by chance, and returns how many entries it removed.
pub fn drop_entries(
    tables: &Tables,
    drop_entry: &mut DropEntry,
    now: Tick,
    mut random: impl FnMut() -> u32,
    evictor: &impl Evictor,
) -> usize {
    let buckets = tables.conns_v4.len() as u64;
    let mut eviction = Eviction::new(evictor);
    for _ in 0..buckets.div_ceil(u64::from(LOOKED_AT)) {
        let bucket = ((u64::from(random()) * buckets) >> 32) as u32;
        for lane in 0..LANES {
            eviction.look_at(tables, SlotId::new(bucket, lane), |found| {
                drop_entry.takes(&suspect(tables, found), now)
            });
        }
    }
    eviction.finish()
}

fn suspect(tables: &Tables, found: &Found<'_, 2>) -> Suspect {
    let entry = Entry(found.body.entry.load());
    let service = tables.servers.get(entry.server() as usize).map(|server| server.place().service);
    let service = service.and_then(|id| tables.services.get(id as usize));
    let (.., protocol, _) = key::parts_v4(found.body.key());
    Suspect {
        word: found.word,
        link: Link(found.body.link.load()),
        protocol,
        one_packet: service.is_some_and(|service| service.has(service_flag::ONE_PACKET)),
    }
}

/// Removes what belongs to servers that were removed (`expire_nodest_conn`) from these slots. A template that controls
/// connections follows them at the next look.
pub fn drop_of_removed_servers(tables: &Tables, slots: Range<u32>, evictor: &impl Evictor) -> usize {
    let mut eviction = Eviction::new(evictor);
    for slot in slots {
        eviction.look_at(tables, SlotId(slot), |found| {
            let server = tables.servers.get(Entry(found.body.entry.load()).server() as usize);
            let is_gone = server.is_some_and(|server| server.flags() & server_flag::AVAILABLE == 0);
            let is_needed = found.word.template() && Link(found.body.link.load()).controlled() != 0;
            is_gone && !is_needed
        });
    }
    eviction.finish()
}

/// Collects what must go and has it removed.
struct Eviction<'e, E> {
    evictor: &'e E,
    doomed: Vec<Doomed>,
    removed: usize,
}

impl<'e, E: Evictor> Eviction<'e, E> {
    fn new(evictor: &'e E) -> Self {
        Self { evictor, doomed: Vec::with_capacity(BATCH), removed: 0 }
    }

    fn look_at(&mut self, tables: &Tables, slot: SlotId, must_go: impl FnOnce(&Found<'_, 2>) -> bool) {
        let memory = Buckets(&tables.conns_v4);
        if let Some(found) = at(&memory, slot)
            && must_go(&found)
        {
            self.doomed.push((slot, found.word));
            if self.doomed.len() == BATCH {
                self.flush();
            }
        }
    }

    fn flush(&mut self) {
        if !self.doomed.is_empty() {
            self.removed += self.evictor.evict(&self.doomed);
            self.doomed.clear();
        }
    }

    fn finish(mut self) -> usize {
        self.flush();
        self.removed
    }
}
