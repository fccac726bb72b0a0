//! Finding connections that have expired, in slices, without a system call; removing them is the data plane's.

use xlvs_core::cell::Cell64;
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
            look.at(
                &tables.conns_v4[index].words,
                |lane| slot_in(false, SlotId::new(index as u32, lane)),
                &mut expired,
            );
        }
        for index in first.max(v4)..end {
            let index = index - v4;
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
            if !word.is_live() {
                continue;
            }
            expired.live += 1;
            if is_expired(word, self.now, self.timeouts[usize::from(word.class())]) {
                let kind = if word.template() { &mut expired.templates } else { &mut expired.others };
                kind.push(slot(lane));
            }
        }
    }
}
