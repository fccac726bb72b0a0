//! Finding connections that have expired, in slices, without a system call; removing them is the data plane's.

use xlvs_core::cell::Cell64;
use xlvs_core::conn::Bucket;
use xlvs_core::conn::table::{LANES, SlotId, is_expired};
use xlvs_core::conn::word::{Tick, Word};
use xlvs_core::family::slot_in;

use crate::tables::Tables;

/// Removes expired connections from wherever the tables live. It judges each slot again, so a connection that a packet
/// refreshed in between stays.
pub trait Remover {
    /// Tries to remove these, which are numbered as [`xlvs_core::family::slot_of`] says; returns how many it removed.
    fn remove_expired(&self, slots: &[u32]) -> usize;
}

/// Where the sweep stands.
#[derive(Debug, Default)]
pub struct Sweeper {
    next: u32,
}

/// What a slice of the sweep saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Entries in use.
    pub live: usize,
    /// Entries removed.
    pub removed: usize,
    /// Did the slice reach the end of the tables?
    pub finished: bool,
}

impl Sweeper {
    /// Looks at the next `buckets` buckets of both families' tables.
    pub fn slice(&mut self, tables: &Tables, now: Tick, buckets: usize, remover: &impl Remover) -> Swept {
        let mut expired = Expired::default();
        let all = tables.conns_v4.len() + tables.conns_v6.len();
        let (first, end) = (self.next as usize, (self.next as usize).saturating_add(buckets).min(all));
        let v4 = tables.conns_v4.len();
        let timeouts: Vec<u32> = tables.config().ticks.iter().map(|ticks| ticks.load()).collect();
        let look = Look { now, timeouts: &timeouts };
        for index in first..end.min(v4) {
            prefetch(&tables.conns_v4, index + AHEAD);
            look.at(
                &tables.conns_v4[index].words,
                |lane| slot_in(false, SlotId::new(index as u32, lane)),
                &mut expired,
            );
        }
        for index in first.max(v4)..end {
            let index = index - v4;
            prefetch(&tables.conns_v6, index + AHEAD);
            look.at(
                &tables.conns_v6[index].words,
                |lane| slot_in(true, SlotId::new(index as u32, lane)),
                &mut expired,
            );
        }
        let Expired { live, templates, others } = expired;
        let mut swept = Swept { live, removed: 0, finished: end == all };
        // In the kernel a template's timer was set before that of the connection which is as old: it ends, or is given
        // another minute, first.
        swept.removed += remover.remove_expired(&templates) + remover.remove_expired(&others);
        self.next = if swept.finished { 0 } else { end as u32 };
        swept
    }
}

/// What was found.
#[derive(Default)]
struct Expired {
    live: usize,
    templates: Vec<u32>,
    others: Vec<u32>,
}

struct Look<'t> {
    now: Tick,
    timeouts: &'t [u32],
}

impl Look<'_> {
    fn at(&self, words: &[Cell64; LANES], slot: impl Fn(usize) -> u32, expired: &mut Expired) {
        for (lane, cell) in words.iter().enumerate() {
            let word = Word(cell.load());
            expired.live += usize::from(word.is_live());
            // Without a branch of its own: whether a slot is in use is anybody's guess, that it has expired is rare.
            if word.is_live() & is_expired(word, self.now, self.timeouts[usize::from(word.class())]) {
                let kind = if word.template() { &mut expired.templates } else { &mut expired.others };
                kind.push(slot(lane));
            }
        }
    }
}

/// Buckets that are fetched ahead: only one line in five of the table is read, which no processor foresees by itself.
const AHEAD: usize = 16;

/// Has the words of a bucket fetched, if there is one.
#[inline(always)]
fn prefetch<const K: usize>(table: &[Bucket<K>], index: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(bucket) = table.get(index) {
        use core::arch::x86_64::{_MM_HINT_NTA, _mm_prefetch};
        // SAFETY: every x86-64 has the instruction, and it has no effect but on caches.
        unsafe { _mm_prefetch::<_MM_HINT_NTA>(bucket.words.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _no_instruction_for_it = (table, index);
}
