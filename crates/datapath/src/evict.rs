//! Entries that must go before their time: found here, removed by the data plane.

use std::ops::Range;

use xlvs_core::conn::entry::{Entry, Link};
use xlvs_core::conn::table::{Found, LANES, SlotId, at};
use xlvs_core::conn::word::{Tick, Word};
use xlvs_core::family::{self, Family, slot_in};
use xlvs_core::pressure::{DropEntry, LOOKED_AT, Suspect};
use xlvs_core::server::flag as server_flag;
use xlvs_core::service::flag as service_flag;

use crate::tables::{Buckets, Tables};

/// Entries handed over at once.
pub const BATCH: usize = 100;

/// An entry that must go: its slot, numbered as [`xlvs_core::family::slot_of`] says, and its word as it was seen.
pub type Doomed = (u32, Word);

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
    let buckets = u64::from(tables.slots()) / LANES as u64;
    let mut eviction = Eviction::new(evictor);
    for _ in 0..buckets.div_ceil(u64::from(LOOKED_AT)) {
        let bucket = ((u64::from(random()) * buckets) >> 32) as u32;
        for lane in 0..LANES as u32 {
            eviction.look_at(tables, bucket * LANES as u32 + lane, |entry| {
                drop_entry.takes(&suspect(tables, entry), now)
            });
        }
    }
    eviction.finish()
}

fn suspect(tables: &Tables, found: &Live) -> Suspect {
    let Live { word, entry, link, protocol } = *found;
    let service = tables.servers.get(entry.server() as usize).map(|server| server.place().service);
    let service = service.and_then(|id| tables.services.get(id as usize));
    Suspect {
        word,
        link,
        protocol,
        one_packet: service.is_some_and(|service| service.has(service_flag::ONE_PACKET)),
    }
}

/// Removes what belongs to servers that were removed (`expire_nodest_conn`), as [`drop_of_servers`] does.
pub fn drop_of_removed_servers(tables: &Tables, slots: Range<u32>, evictor: &impl Evictor) -> usize {
    let is_gone = |server: u32| {
        let server = tables.servers.get(server as usize);
        server.is_some_and(|server| server.flags() & server_flag::AVAILABLE == 0)
    };
    drop_of_servers(tables, slots, is_gone, evictor)
}

/// Removes what belongs to these servers, by their numbers, from these slots, and the templates, wherever they are, that
/// controlled nothing else: assured ones too, unlike [`drop_entries`]. Returns how many entries it removed.
pub fn drop_of_servers(
    tables: &Tables,
    slots: Range<u32>,
    which: impl Fn(u32) -> bool,
    evictor: &impl Evictor,
) -> usize {
    let mut eviction = Eviction::new(evictor);
    let mut orphans = Vec::new();
    for slot in slots {
        eviction.look_at(tables, slot, |found| {
            let must_go = which(found.entry.server()) && !is_needed(found);
            if must_go && let Some(template) = found.link.template().filter(|_| !found.word.template()) {
                let (is_v6, _) = tables.family_of(slot);
                orphans.push(tables.slot_of(is_v6, SlotId(template)));
            }
            must_go
        });
    }
    eviction.flush();
    orphans.sort_unstable();
    orphans.dedup();
    for slot in orphans {
        eviction.look_at(tables, slot, |found| {
            found.word.template() && which(found.entry.server()) && !is_needed(found)
        });
    }
    eviction.finish()
}

/// Is it a template that controls something?
fn is_needed(found: &Live) -> bool {
    found.word.template() && found.link.controlled() != 0
}

/// An entry of either family.
struct Live {
    word: Word,
    entry: Entry,
    link: Link,
    protocol: u8,
}

impl Live {
    fn of<const K: usize>(found: &Found<'_, K>, protocol: u8) -> Self {
        Self {
            word: found.word,
            entry: Entry(found.body.entry.load()),
            link: Link(found.body.link.load()),
            protocol,
        }
    }
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

    fn look_at(&mut self, tables: &Tables, slot: u32, must_go: impl FnOnce(&Live) -> bool) {
        let (is_v6, slot) = tables.family_of(slot);
        let found = if is_v6 {
            at(&Buckets(&tables.conns_v6), slot)
                .map(|found| Live::of(&found, family::V6::ends(found.body.key()).protocol))
        } else {
            at(&Buckets(&tables.conns_v4), slot)
                .map(|found| Live::of(&found, family::V4::ends(found.body.key()).protocol))
        };
        if let Some(found) = found
            && must_go(&found)
        {
            self.doomed.push((slot_in(is_v6, slot), found.word));
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
