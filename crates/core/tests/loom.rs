//! The connection table in every interleaving of a few steps: insertion, removal and reuse, refreshment against the sweeper.
//!
//! Built with `--cfg loom` only, where a bucket has two slots; `cargo xtask test` does it.
#![cfg(loom)]

use loom::sync::Arc;
use loom::thread;
use xlvs_core::conn::table::{self, Change, Memory, New, Probe, Refused, SlotId};
use xlvs_core::conn::word::{Tick, Word};
use xlvs_core::conn::{Bucket, LANES};

/// A table of one bucket: the smallest in which everything can happen.
struct OneBucket(Bucket<1>);

impl Memory<1> for OneBucket {
    fn buckets(&self) -> u32 {
        1
    }

    fn bucket(&self, index: u32) -> Option<&Bucket<1>> {
        (index == 0).then_some(&self.0)
    }
}

const KEY: u64 = 7;
const OTHER_KEY: u64 = 8;
/// Ticks that an entry lives; inserted at 0, it has had its time at `NOW`.
const TIMEOUT: u32 = 4;
const NOW: Tick = Tick::new(5);

fn probe(key: u64) -> Probe<1> {
    Probe::new([key], 42, 1)
}

fn put(memory: &OneBucket, key: u64) -> Result<SlotId, Refused> {
    let new = New { word: Word(0).seen_at(Tick::new(0)), entry: key * 100, link: 0 };
    table::insert(memory, &probe(key), &new).map(|found| found.id)
}

/// Finds the entry of a key or inserts it, as a packet does.
fn find_or_put(memory: &OneBucket, key: u64) -> Option<SlotId> {
    for _ in 0..3 {
        if let Some(found) = table::find(memory, &probe(key)) {
            return Some(found.id);
        }
        if let Ok(slot) = put(memory, key) {
            return Some(slot);
        }
        thread::yield_now();
    }
    None
}

fn live(memory: &OneBucket, key: u64) -> Vec<SlotId> {
    let slots = (0..LANES).map(|lane| SlotId::new(0, lane));
    let holds = |slot: &SlotId| table::at(memory, *slot).is_some_and(|found| found.body.key() == [key]);
    slots.filter(holds).collect()
}

fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

#[test]
fn two_packets_make_one_entry_of_a_key() {
    explore(|| {
        let memory = Arc::new(OneBucket(Bucket::default()));
        let other = {
            let memory = Arc::clone(&memory);
            thread::spawn(move || find_or_put(&memory, KEY))
        };
        let slots = [find_or_put(&memory, KEY), other.join().unwrap()];
        let live = live(&memory, KEY);
        assert!(live.len() <= 1, "{live:?}");
        // Who got a slot got that one.
        assert!(slots.into_iter().flatten().all(|slot| live == [slot]), "{slots:?} {live:?}");
    });
}

/// A packet that finds the entry and refreshes it. `None`: it was not there.
fn refresh(memory: &OneBucket) -> Option<Change> {
    let found = table::find(memory, &probe(KEY))?;
    Some(table::change(&found, 2, |word| word.seen_at(NOW), |_, _| {}))
}

/// What the sweeper does with a slot.
fn sweep(memory: &OneBucket, slot: SlotId) -> bool {
    let Some(found) = table::at(memory, slot) else { return false };
    table::is_expired(found.word, NOW, TIMEOUT) && table::remove(&found)
}

#[test]
fn at_its_last_moment_an_entry_is_refreshed_or_removed_and_never_both() {
    explore(|| {
        let memory = Arc::new(OneBucket(Bucket::default()));
        let slot = put(&memory, KEY).unwrap();
        let sweeper = {
            let memory = Arc::clone(&memory);
            thread::spawn(move || sweep(&memory, slot))
        };
        let refreshed = refresh(&memory) == Some(Change::Done);
        let removed = sweeper.join().unwrap();
        assert_ne!(refreshed, removed);
        assert_eq!(live(&memory, KEY).len(), usize::from(refreshed));
    });
}

#[test]
fn two_packets_and_the_sweeper_agree_on_one_slot() {
    explore(|| {
        let memory = Arc::new(OneBucket(Bucket::default()));
        let slot = put(&memory, KEY).unwrap();
        let spawn = |work: fn(&OneBucket, SlotId) -> bool| {
            let memory = Arc::clone(&memory);
            thread::spawn(move || work(&memory, slot))
        };
        let packet = |memory: &OneBucket, _: SlotId| refresh(memory) == Some(Change::Done);
        let (other, sweeper) = (spawn(packet), spawn(sweep));
        let refreshed = packet(&memory, slot) | other.join().unwrap();
        let removed = sweeper.join().unwrap();
        assert_ne!(refreshed, removed);
        assert_eq!(live(&memory, KEY).len(), usize::from(refreshed));
    });
}

#[test]
fn a_reader_never_takes_what_lies_there_later_for_its_own() {
    explore(|| {
        let memory = Arc::new(OneBucket(Bucket::default()));
        let slot = put(&memory, KEY).unwrap();
        let other = {
            let memory = Arc::clone(&memory);
            thread::spawn(move || {
                assert!(table::remove(&table::at(&*memory, slot).unwrap()));
                put(&memory, OTHER_KEY).unwrap()
            })
        };
        if let Some(found) = table::find(&*memory, &probe(KEY)) {
            let entry = found.body.entry.load();
            if found.is_there() {
                assert_eq!(entry, KEY * 100);
            }
        }
        let there = other.join().unwrap();
        assert_eq!((live(&memory, KEY).len(), live(&memory, OTHER_KEY)), (0, vec![there]));
    });
}
