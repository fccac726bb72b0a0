//! A set-associative, lock-free table over plain memory.
//!
//! The memory is an array of buckets: a BPF array in the kernel (whose look-ups are inlined), the same array mapped into
//! the daemon, a `Vec` on the host. A bucket is one line with the words of eight slots and then their bodies, so a miss
//! costs one line and a hit two. A key has two candidate buckets; it goes into the first while that is not crowded, else
//! into the emptier.
//!
//! # How an insertion cannot make two
//! An inserter claims an empty slot (`Busy`), writes the body, publishes it `Tentative`, and then looks at all sixteen
//! candidates again. Who finds a live twin withdraws. Of two tentative twins the one in the lower place kills the
//! other by compare-and-swap and the other withdraws; an entry that was killed cannot be settled. What is settled
//! (`Live`) stays: whoever published after its owner's second look sees it in his own. The model in
//! `tests/loom.rs` goes through the interleavings.
//!
//! # How a reader cannot be fooled
//! A body is only written while its slot is `Busy`, and every incarnation has another generation in its word. A reader
//! takes the word, then what it wants of the body, and before it acts on that it calls [`change`] or [`remove`], which
//! fail when the entry is gone, or asks [`Found::is_there`].

use super::word::{Life, Tick, Word};
use crate::cell::{Cell64, barrier};
use crate::verifier::{in_turn, low_bits};

/// Slots of a bucket.
#[cfg(not(loom))]
pub const LANES: usize = 8;
/// Fewer under loom, which goes through the interleavings of every single read.
#[cfg(loom)]
pub const LANES: usize = 2;

/// From this many entries on, a first bucket counts as crowded.
const CROWDED: u64 = (LANES / 2) as u64;

/// Where an entry lies: bucket × 8 + lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct SlotId(pub u32);

impl SlotId {
    /// The slot in this lane of this bucket.
    #[inline(always)]
    pub const fn new(bucket: u32, lane: usize) -> Self {
        Self(bucket << 3 | (lane as u32 & 7))
    }

    /// Its bucket.
    #[inline(always)]
    pub const fn bucket(self) -> u32 {
        self.0 >> 3
    }

    /// Its lane in the bucket.
    #[inline(always)]
    pub const fn lane(self) -> usize {
        (self.0 & 7) as usize
    }
}

/// Key and contents of a slot.
#[repr(C)]
pub struct Body<const K: usize> {
    key: [Cell64; K],
    /// Fixed while the entry lives; see [`super::entry`].
    pub entry: Cell64,
    /// Counters and links; see [`super::entry`].
    pub link: Cell64,
}

/// Eight slots: their words in one line, then their bodies.
#[repr(C, align(64))]
pub struct Bucket<const K: usize> {
    /// The words.
    pub words: [Cell64; LANES],
    /// The bodies.
    pub bodies: [Body<K>; LANES],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Bucket<2>>() == 320 && size_of::<Bucket<5>>() == 512);

#[cfg(not(target_arch = "bpf"))]
impl<const K: usize> Default for Bucket<K> {
    fn default() -> Self {
        let cell = || Cell64::new(0);
        let body = || Body { key: core::array::from_fn(|_| cell()), entry: cell(), link: cell() };
        Self { words: core::array::from_fn(|_| cell()), bodies: core::array::from_fn(|_| body()) }
    }
}

impl<const K: usize> Body<K> {
    #[inline(always)]
    fn holds(&self, key: &[u64; K]) -> bool {
        // One after the other: five words that are read at once are spilled.
        for i in 0..K {
            if self.key[i].load() != key[i] {
                return false;
            }
        }
        true
    }

    /// The key that lies here. Only the word tells whether it means anything.
    pub fn key(&self) -> [u64; K] {
        core::array::from_fn(|i| self.key[i].load())
    }

    #[inline(always)]
    fn write(&self, key: &[u64; K], entry: u64, link: u64) {
        for i in 0..K {
            self.key[i].store(key[i]);
        }
        self.entry.store(entry);
        self.link.store(link);
    }
}

/// The memory of a table.
pub trait Memory<const K: usize> {
    /// How many buckets there are.
    fn buckets(&self) -> u32;

    /// One of them; `None` beyond the end.
    fn bucket(&self, index: u32) -> Option<&Bucket<K>>;

    /// [`find`], where it may be a function that is verified on its own.
    #[inline(always)]
    fn look_up(&self, probe: &Probe<K>) -> Option<SlotId>
    where
        Self: Sized,
    {
        find(self, probe).map(|found| found.id)
    }

    /// [`insert`], where it may be a function that is verified on its own.
    #[inline(always)]
    fn put(&self, probe: &Probe<K>, new: &New) -> Result<SlotId, Refused>
    where
        Self: Sized,
    {
        insert(self, probe, new).map(|found| found.id)
    }
}

/// A table's operations as functions of the eBPF object that are verified on their own want and give scalars only.
pub mod packed {
    use super::{Memory, New, Probe, Refused, SlotId, find, insert};
    use crate::conn::word::Word;

    const EXISTS: u64 = 1 << 32;
    const FULL: u64 = 2 << 32;
    /// What [`put`] gives when there is no room.
    pub const NO_ROOM: u64 = FULL;
    const CONTENDED: u64 = 3 << 32;

    /// [`find`]: a slot, or something above 32 bits.
    #[inline(always)]
    pub fn look_up<const K: usize, M: Memory<K>>(memory: &M, probe: &Probe<K>) -> u64 {
        find(memory, probe).map_or(EXISTS, |found| found.id.0 as u64)
    }

    /// What [`look_up`] gave.
    #[inline(always)]
    pub fn unpack_look_up(packed: u64) -> Option<SlotId> {
        (packed >> 32 == 0).then_some(SlotId(packed as u32))
    }

    /// [`insert`]: a slot, or a refusal above 32 bits.
    #[inline(always)]
    pub fn put<const K: usize, M: Memory<K>>(
        memory: &M,
        probe: &Probe<K>,
        word: u64,
        entry: u64,
        link: u64,
    ) -> u64 {
        match insert(memory, probe, &New { word: Word(word), entry, link }) {
            Ok(found) => found.id.0 as u64,
            Err(Refused::Exists) => EXISTS,
            Err(Refused::Full) => FULL,
            Err(Refused::Contended) => CONTENDED,
        }
    }

    /// What [`put`] gave.
    #[inline(always)]
    pub fn unpack_put(packed: u64) -> Result<SlotId, Refused> {
        match packed >> 32 {
            0 => Ok(SlotId(packed as u32)),
            1 => Err(Refused::Exists),
            2 => Err(Refused::Full),
            _ => Err(Refused::Contended),
        }
    }
}

/// A key with its hash and what follows from it: computed once a packet.
#[derive(Clone, Copy, Debug)]
pub struct Probe<const K: usize> {
    /// The key.
    pub key: [u64; K],
    first: u32,
    second: u32,
    tag: u16,
}

impl<const K: usize> Probe<K> {
    /// Where to look for `key` in a table of this many buckets.
    #[inline(always)]
    pub fn new(key: [u64; K], seed: u64, buckets: u32) -> Self {
        let h = super::key::hash(&key, seed);
        // Multiply-shift: any number of buckets, no division. The tag takes bits that the second choice hardly uses.
        let first = (((h >> 32) * buckets as u64) >> 32) as u32;
        let second = (((h & 0xffff_ffff) * buckets as u64) >> 32) as u32;
        Self { key, first, second, tag: (h & 0x3ff) as u16 }
    }

    /// The same with its second choice worked out now: where the stack is scarce, one number is kept, not the two that make it.
    #[inline(always)]
    pub fn worked_out(self) -> Self {
        Self { second: in_turn(self.second.into()) as u32, ..self }
    }

    /// Its candidate buckets. They may be the same one.
    #[inline(always)]
    pub const fn candidates(&self) -> [u32; 2] {
        [self.first, self.second]
    }
}

/// An entry that was found: the slot, its word as read, and its place.
pub struct Found<'m, const K: usize> {
    /// Where it lies.
    pub id: SlotId,
    /// The slot's word.
    pub cell: &'m Cell64,
    /// Its body.
    pub body: &'m Body<K>,
    /// The word as it was read; always live.
    pub word: Word,
}

// By hand: a derive would ask for more than a reference can be copied with.
impl<const K: usize> Clone for Found<'_, K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<const K: usize> Copy for Found<'_, K> {}

impl<const K: usize> Found<'_, K> {
    /// Is the entry still there? Then all that was read of its body before was its own.
    #[inline(always)]
    pub fn is_there(&self) -> bool {
        Word(self.cell.load()).is_same_entry(self.word)
    }
}

/// Looks a key up. Expired entries are found like others; the caller judges them.
#[inline(always)]
pub fn find<'m, const K: usize, M: Memory<K>>(memory: &'m M, probe: &Probe<K>) -> Option<Found<'m, K>> {
    if let Some(found) = find_in(memory.bucket(probe.first)?, probe.first, probe) {
        return Some(found);
    }
    find_in(memory.bucket(probe.second)?, probe.second, probe)
}

#[inline(always)]
fn find_in<'m, const K: usize>(bucket: &'m Bucket<K>, index: u32, probe: &Probe<K>) -> Option<Found<'m, K>> {
    // One lane after the other, as in `glance_in`: hardly any has the tag, and who foresees that has nothing to add up.
    for lane in 0..LANES {
        let (cell, body) = (&bucket.words[lane], &bucket.bodies[lane]);
        let word = Word(cell.load());
        if word.is_live_with(probe.tag) && body.holds(&probe.key) && Word(cell.load()).is_same_entry(word) {
            return Some(Found { id: SlotId::new(index, lane), cell, body, word });
        }
    }
    None
}

/// Has the memory bring what a look-up will read, for who has something else to do first: of a table that is larger than the caches
/// it takes longer to come than everything else that a new connection takes.
#[inline(always)]
pub fn ask_for<const K: usize, M: Memory<K>>(memory: &M, probe: &Probe<K>) {
    for candidate in probe.candidates() {
        if let Some(bucket) = memory.bucket(candidate) {
            let _to_come = bucket.words[0].load();
        }
    }
}

/// What a quick look found.
pub enum Glance<'m, const K: usize> {
    /// The entry.
    Found(Found<'m, K>),
    /// Nothing, for certain.
    Nothing,
    /// Another entry has the same tag: only [`find`] can tell.
    Unsure,
}

/// [`find`] for the short way: looks at no more than one candidate of each bucket. About one entry in three hundred has
/// a neighbour with the same tag in a place before it; who is unsure takes the long way. The key is only as sure as
/// the rest of the body: see the module.
#[inline(always)]
pub fn glance<'m, const K: usize, M: Memory<K>>(memory: &'m M, probe: &Probe<K>) -> Glance<'m, K> {
    match glance_in(memory.bucket(probe.first), probe.first, probe) {
        Glance::Nothing => glance_in(memory.bucket(probe.second), probe.second, probe),
        glance => glance,
    }
}

/// One lane after the other: a bucket fills from its first lane on, so that most entries are found with one or two comparisons.
#[inline(always)]
fn glance_in<'m, const K: usize>(
    bucket: Option<&'m Bucket<K>>,
    index: u32,
    probe: &Probe<K>,
) -> Glance<'m, K> {
    let Some(bucket) = bucket else { return Glance::Unsure };
    for lane in 0..LANES {
        let word = Word(bucket.words[lane].load());
        if word.is_live_with(probe.tag) {
            let (cell, body) = (&bucket.words[lane], &bucket.bodies[lane]);
            return if body.holds(&probe.key) {
                Glance::Found(Found { id: SlotId::new(index, lane), cell, body, word })
            } else {
                Glance::Unsure
            };
        }
    }
    Glance::Nothing
}

/// A set of lanes, one bit each.
#[derive(Clone, Copy)]
struct Lanes(u64);

impl Lanes {
    /// The lanes for whose word `test` gives 1.
    #[inline(always)]
    fn of<const K: usize>(bucket: &Bucket<K>, test: impl Fn(Word) -> u64) -> Self {
        let mut set = 0;
        for lane in 0..LANES {
            set = in_turn(set | test(Word(bucket.words[lane].load())) << lane);
        }
        Self(set)
    }

    /// The lowest lane, which is taken out of the set.
    #[inline(always)]
    fn take_first(&mut self) -> Option<usize> {
        let set = self.0 & 0xff;
        if set == 0 {
            return None;
        }
        self.0 = set & (set - 1);
        Some(lowest_bit(set))
    }

    #[inline(always)]
    fn count(self) -> u64 {
        let pairs = (self.0 & 0x55) + (self.0 >> 1 & 0x55);
        let fours = (pairs & 0x33) + (pairs >> 2 & 0x33);
        (fours & 0x0f) + (fours >> 4)
    }
}

/// The number of the lowest bit of a set of eight: the target has no instruction for it. The three highest bits of a de Bruijn
/// sequence that was shifted by the number tell it.
#[inline(always)]
fn lowest_bit(set: u64) -> usize {
    const SEQUENCE: u64 = 0b0001_0111;
    const NUMBERS: u64 = 0x5637_4210;
    let bit = set & set.wrapping_neg();
    let place = ((bit * SEQUENCE) & 0xff) >> 5;
    low_bits::<7>(NUMBERS >> (place * 4))
}

/// The live entry in a slot that is known by number.
#[inline(always)]
pub fn at<const K: usize, M: Memory<K>>(memory: &M, id: SlotId) -> Option<Found<'_, K>> {
    let bucket = memory.bucket(id.bucket())?;
    let cell = bucket.words.get(id.lane())?;
    let body = bucket.bodies.get(id.lane())?;
    let word = Word(cell.load());
    word.is_live().then_some(Found { id, cell, body, word })
}

/// The live entry with this key in the slot where [`Memory::look_up`] found it, unless it has gone meanwhile. The key is
/// only as sure as the rest of the body: see the module.
#[inline(always)]
pub fn hold<'m, const K: usize, M: Memory<K>>(
    memory: &'m M,
    slot: SlotId,
    probe: &Probe<K>,
) -> Option<Found<'m, K>> {
    at(memory, slot).filter(|found| found.body.holds(&probe.key))
}

/// What came of changing an entry's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Change {
    /// It is as it should be.
    Done,
    /// The entry is gone.
    Gone,
    /// Others kept changing it; they have refreshed it, but not for this packet.
    Contended,
}

/// Changes an entry's word to what `next` makes of it, in at most `tries` tries. Who wins a change owes the counters what
/// differs: `settle` is called with the word before and after.
///
/// Nothing is written where nothing changes.
#[inline(always)]
pub fn change<const K: usize>(
    found: &Found<'_, K>,
    tries: usize,
    next: impl Fn(Word) -> Word,
    settle: impl FnOnce(Word, Word),
) -> Change {
    let mut word = found.word;
    for _ in 0..tries {
        let changed = next(word);
        if changed.0 == word.0 {
            // The word as it is now may be another already; all that counts here is that it is of the same entry.
            return if found.is_there() { Change::Done } else { Change::Gone };
        }
        match found.cell.swap_if(word.0, changed.0) {
            Ok(()) => {
                settle(word, changed);
                return Change::Done;
            }
            Err(now) if Word(now).is_same_entry(word) => word = Word(now),
            Err(_gone) => return Change::Gone,
        }
    }
    Change::Contended
}

/// Why nothing was inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Another processor inserted the same key: look it up.
    Exists,
    /// Both candidate buckets are full of live entries.
    Full,
    /// Others kept taking the slots that were seen free.
    Contended,
}

/// What is to be inserted.
#[derive(Clone, Copy, Debug)]
pub struct New {
    /// State, class, flags and last-seen; life, tag and generation are put in here.
    pub word: Word,
    /// The entry's fixed part.
    pub entry: u64,
    /// Its links.
    pub link: u64,
}

/// Inserts a key that was not found. On success the entry is live and nobody else's.
///
/// Tries once: who is [`Refused::Contended`] starts over with a look-up.
#[inline(always)]
pub fn insert<'m, const K: usize, M: Memory<K>>(
    memory: &'m M,
    probe: &Probe<K>,
    new: &New,
) -> Result<Found<'m, K>, Refused> {
    let first = memory.bucket(probe.first).ok_or(Refused::Full)?;
    let second = memory.bucket(probe.second).ok_or(Refused::Full)?;
    let Some((bucket, id)) = roomier(first, second, probe) else { return Err(Refused::Full) };
    let (Some(cell), Some(body)) = (bucket.words.get(id.lane()), bucket.bodies.get(id.lane())) else {
        return Err(Refused::Full);
    };
    let empty = Word(cell.load());
    let busy = Word::bare(Life::Busy, empty.generation().wrapping_add(1), probe.tag);
    if !empty.is_empty() || cell.swap_if(empty.0, busy.0).is_err() {
        return Err(Refused::Contended);
    }
    body.write(&probe.key, new.entry, new.link);
    let tentative = Word(new.word.0 & 0xff_ffff_ffff | busy.with_life(Life::Tentative).0);
    // The second look must not be done before the others can see this one.
    if cell.swap_if(busy.0, tentative.0).is_err() {
        return Err(Refused::Contended);
    }
    barrier();
    settle(first, second, probe, Found { id, cell, body, word: tentative })
}

/// Makes a tentative entry live, unless a twin has precedence.
#[inline(always)]
fn settle<'m, const K: usize>(
    first: &Bucket<K>,
    second: &Bucket<K>,
    probe: &Probe<K>,
    mine: Found<'m, K>,
) -> Result<Found<'m, K>, Refused> {
    let alone = prevails(first, probe.first, probe, &mine)
        && (probe.first == probe.second || prevails(second, probe.second, probe, &mine));
    if !alone {
        // May fail when a twin killed it already; it is gone either way.
        let _gone = mine.cell.swap_if(mine.word.0, mine.word.removed().0);
        return Err(Refused::Exists);
    }
    let live = mine.word.with_life(Life::Live);
    match mine.cell.swap_if(mine.word.0, live.0) {
        Ok(()) => Ok(Found { word: live, ..mine }),
        Err(_killed) => Err(Refused::Exists),
    }
}

/// Does my tentative entry prevail over every twin in this bucket? Kills those in higher places.
#[inline(always)]
fn prevails<const K: usize>(bucket: &Bucket<K>, index: u32, probe: &Probe<K>, mine: &Found<'_, K>) -> bool {
    for lane in 0..LANES {
        let (cell, body) = (&bucket.words[lane], &bucket.bodies[lane]);
        let (word, id) = (Word(cell.load()), SlotId::new(index, lane));
        let is_twin = word.is_published_with(probe.tag) && id != mine.id && body.holds(&probe.key);
        // One that was settled meanwhile makes the swap fail.
        let prevails =
            || !word.is_live() && id.0 > mine.id.0 && cell.swap_if(word.0, word.removed().0).is_ok();
        if is_twin && !prevails() {
            return false;
        }
    }
    true
}

/// The bucket that a new entry goes into, and the lane, if it has a free one.
#[inline(always)]
fn roomier<'m, const K: usize>(
    first: &'m Bucket<K>,
    second: &'m Bucket<K>,
    probe: &Probe<K>,
) -> Option<(&'m Bucket<K>, SlotId)> {
    let mut free = Lanes::of(first, Word::is_free);
    let (mut bucket, mut index) = (first, probe.first);
    if free.count() <= LANES as u64 - CROWDED {
        let other = Lanes::of(second, Word::is_free);
        if other.count() > free.count() {
            (bucket, index, free) = (second, probe.second, other);
        }
    }
    let lane = free.take_first()?;
    Some((bucket, SlotId::new(index, lane)))
}

/// Removes an entry as it was seen. `false`: it changed meanwhile, nothing was removed.
///
/// Whoever gets `true` owes the counters what the entry had counted.
#[inline(always)]
#[must_use]
pub fn remove<const K: usize>(found: &Found<'_, K>) -> bool {
    found.cell.swap_if(found.word.0, found.word.removed().0).is_ok()
}

/// Has an entry outlived its timeout?
#[inline(always)]
pub fn is_expired(word: Word, now: Tick, timeout: u32) -> bool {
    now.since(word.last_seen()) > timeout
}
