//! Finding connections that have expired, in slices, without a system call; removing them is the data plane's.

use xlvs_core::conn::table::{LANES, SlotId, is_expired};
use xlvs_core::conn::word::{Tick, Word};

use crate::tables::Tables;

/// Slots handed over for removal at once.
pub const BATCH: usize = 900;

/// Removes expired connections from wherever the tables live. It judges each slot again, so a connection that a packet
/// refreshed in between stays.
pub trait Remover {
    /// Tries to remove these; returns how many it removed.
    fn remove_expired(&self, slots: &[SlotId]) -> usize;
}

/// Where the sweep stands.
#[derive(Debug, Default)]
pub struct Sweeper {
    next: usize,
}

/// What a slice of the sweep saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Entries in use.
    pub live: usize,
    /// Entries removed.
    pub removed: usize,
    /// Did the slice reach the end of the table?
    pub finished: bool,
}

impl Sweeper {
    /// Looks at the next `buckets` buckets.
    pub fn slice(&mut self, tables: &Tables, now: Tick, buckets: usize, remover: &impl Remover) -> Swept {
        let mut swept = Swept::default();
        let (mut templates, mut others) = (Vec::new(), Vec::new());
        let end = (self.next + buckets).min(tables.conns_v4.len());
        for index in self.next..end {
            let bucket = &tables.conns_v4[index];
            for lane in 0..LANES {
                let word = Word(bucket.words[lane].load());
                if !word.is_live() {
                    continue;
                }
                swept.live += 1;
                if is_expired(word, now, tables.config().timeout(word.class())) {
                    let expired = if word.template() { &mut templates } else { &mut others };
                    expired.push(SlotId::new(index as u32, lane));
                }
            }
        }
        // In the kernel a template's timer was set before that of the connection which is as old: it ends, or is given
        // another minute, first.
        for batch in templates.chunks(BATCH).chain(others.chunks(BATCH)) {
            swept.removed += remover.remove_expired(batch);
        }
        swept.finished = end == tables.conns_v4.len();
        self.next = if swept.finished { 0 } else { end };
        swept
    }
}
