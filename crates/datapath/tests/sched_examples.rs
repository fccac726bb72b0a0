//! The examples with which the schedulers are documented.

mod pool;

use std::collections::BTreeSet;

use pool::{Pool, letter};
use xlvs_core::cell::Cell32;
use xlvs_core::sched::choices::{self, Choices, Listed, NOBODY};
use xlvs_core::sched::{self, Scheduler};
use xlvs_core::service::flag;

/// The servers of so many long connections.
fn long(pool: &Pool, connections: usize) -> String {
    (0..connections).map(|_| letter(pool.open())).collect()
}

/// The servers of so many one-packet connections, which leave nothing behind.
fn fleeting(pool: &Pool, connections: usize) -> String {
    (0..connections).map(|_| letter(pool.pick())).collect()
}

fn long_on(scheduler: Scheduler, weights: &[u32], connections: usize) -> String {
    long(&Pool::with_weights(scheduler, weights), connections)
}

#[test]
fn rr_begins_with_the_newest() {
    assert_eq!(long_on(Scheduler::Rr, &[1, 1, 1], 7), "CBACBAC");
    assert_eq!(long_on(Scheduler::Rr, &[1, 0, 1], 5), "CACAC");
    assert_eq!(long_on(Scheduler::Rr, &[0, 0], 1), "-");
    assert_eq!(long_on(Scheduler::Rr, &[], 1), "-");
}

#[test]
fn rr_goes_on_where_it_was_when_servers_come_and_go() {
    let mut pool = Pool::with_weights(Scheduler::Rr, &[1, 1, 1]);
    assert_eq!(fleeting(&pool, 2), "CB");
    pool.remove(1);
    pool.add([10, 0, 1, 0], 80, 1);
    assert_eq!(fleeting(&pool, 4), "ADCA", "B was last: after it A, then the head");
}

#[test]
fn rr_begins_with_the_head_when_the_last_one_was_the_head_and_is_gone() {
    let mut pool = Pool::with_weights(Scheduler::Rr, &[1, 1, 1]);
    assert_eq!(fleeting(&pool, 1), "C");
    pool.remove(2);
    pool.add([10, 0, 0, 2], 80, 1);
    assert_eq!(fleeting(&pool, 3), "CBA");
}

#[test]
fn rr_keeps_its_place_while_nobody_is_usable() {
    let pool = Pool::with_weights(Scheduler::Rr, &[1, 1, 1]);
    assert_eq!(fleeting(&pool, 1), "C");
    (0..3).for_each(|id| pool.set_overload(id, true));
    assert_eq!(fleeting(&pool, 1), "-");
    (0..3).for_each(|id| pool.set_overload(id, false));
    assert_eq!(fleeting(&pool, 2), "BA");
}

/// A service that gets wrr when its servers are there: the walk begins with the highest threshold.
fn wrr_from_the_top(weights: &[u32], connections: usize) -> String {
    let mut pool = Pool::with_weights(Scheduler::Rr, weights);
    pool.set_scheduler(Scheduler::Wrr);
    fleeting(&pool, connections)
}

#[test]
fn wrr_lowers_its_threshold_by_the_common_divisor() {
    assert_eq!(wrr_from_the_top(&[4, 3, 2], 18), "ABACBACBAABACBACBA");
    assert_eq!(wrr_from_the_top(&[4, 2, 2], 8), "ACBAACBA");
    assert_eq!(wrr_from_the_top(&[5, 1, 1], 14), "AAAACBAAAAACBA");
}

#[test]
fn wrr_keeps_its_threshold_when_a_heavier_server_is_added() {
    // After the first server, of weight 4, the step is 4 and the threshold 1; the others only raise the top.
    assert_eq!(long_on(Scheduler::Wrr, &[4, 3, 2], 12), "CBAABACBACBA");
}

#[test]
fn wrr_as_recorded_when_servers_are_added_one_by_one_with_growing_weights() {
    assert_eq!(long_on(Scheduler::Wrr, &[1, 2, 3], 12), "CBACCBCBACCB");
    assert_eq!(long_on(Scheduler::Wrr, &[0, 1, 2], 6), "CBCCBC");
}

#[test]
fn wrr_passes_over_who_is_overloaded() {
    let pool = Pool::with_weights(Scheduler::Wrr, &[5, 1, 1]);
    pool.set_overload(0, true);
    assert_eq!(fleeting(&pool, 4), "CBCB");
    pool.set_overload(1, true);
    pool.set_overload(2, true);
    assert_eq!(fleeting(&pool, 2), "--");
    pool.set_overload(0, false);
    assert_eq!(fleeting(&pool, 6), "AAAAAA");
}

#[test]
fn lc_ignores_weights() {
    assert_eq!(long_on(Scheduler::Lc, &[1, 1, 1], 6), "CBACBA");
    assert_eq!(long_on(Scheduler::Lc, &[9, 1, 0], 4), "BABA");
}

#[test]
fn wlc_prefers_the_newest_among_the_idle() {
    assert_eq!(long_on(Scheduler::Wlc, &[3, 2, 1], 12), "CBAABACBAABA");
    assert_eq!(fleeting(&Pool::with_weights(Scheduler::Wlc, &[3, 2, 1]), 3), "CCC");
}

#[test]
fn sed_looks_at_the_delay_to_come() {
    assert_eq!(long_on(Scheduler::Sed, &[3, 2, 1], 12), "ABACBAABACBA");
}

#[test]
fn nq_gives_an_idle_server_work_first() {
    assert_eq!(long_on(Scheduler::Nq, &[3, 2, 1], 12), "CBAABAABACBA");
    assert_eq!(fleeting(&Pool::with_weights(Scheduler::Nq, &[3, 2, 1]), 3), "CCC");
}

#[test]
fn fo_stays_with_the_heaviest() {
    let mut pool = Pool::with_weights(Scheduler::Fo, &[3, 2, 1]);
    assert_eq!(long(&pool, 3), "AAA");
    pool.set_overload(0, true);
    assert_eq!(long(&pool, 2), "BB");
    pool.edit(1, 0);
    assert_eq!(long(&pool, 2), "CC");
    assert_eq!(long_on(Scheduler::Fo, &[2, 2, 1], 1), "B", "of equals the newest");
}

#[test]
fn ovf_fills_one_after_the_other() {
    assert_eq!(long_on(Scheduler::Ovf, &[3, 2, 1], 10), "AAAABBBCC-");
}

#[test]
fn dh_gives_a_destination_its_slot() {
    let mut pool = Pool::with_weights(Scheduler::Dh, &[1, 5, 1]);
    let to = |pool: &Pool, last| letter(pool.pick_for([1, 2, 3, 4], 5, [198, 51, 100, last]));
    assert_eq!((to(&pool, 7), to(&pool, 8)), ('C', 'C'));
    pool.edit(2, 0);
    assert_eq!((to(&pool, 7), to(&pool, 8)), ('-', '-'), "nobody else gets them");
    pool.remove(2);
    assert_eq!(to(&pool, 8), 'B', "the table is filled anew");
}

#[test]
fn sh_gives_slots_by_weight() {
    let pool = Pool::with_weights(Scheduler::Sh, &[3, 1, 2]);
    let from = |pool: &Pool, last| letter(pool.pick_for([192, 0, 2, last], 40000, [10, 0, 0, 100]));
    assert_eq!([10, 11, 12].map(|c| from(&pool, c)), ['C', 'A', 'C']);
    pool.set_flags(flag::PORT);
    assert_eq!(from(&pool, 10), 'A');
}

#[test]
fn sh_falls_back_only_when_told() {
    let mut pool = Pool::with_weights(Scheduler::Sh, &[1, 1, 1]);
    let from = |pool: &Pool, last| letter(pool.pick_for([192, 0, 2, last], 0, [10, 0, 0, 100]));
    let before: Vec<_> = (0..64).map(|c| from(&pool, c)).collect();
    pool.edit(1, 0);
    pool.set_flags(flag::FALLBACK);
    let with: Vec<_> = (0..64).map(|c| from(&pool, c)).collect();
    pool.set_flags(0);
    let without: Vec<_> = (0..64).map(|c| from(&pool, c)).collect();
    for ((before, with), without) in before.iter().zip(&with).zip(&without) {
        if *before == 'B' {
            assert!(['A', 'C'].contains(with) && *without == '-');
        } else {
            assert_eq!((before, before), (with, without), "who had a server keeps it");
        }
    }
}

#[test]
fn mh_gives_the_documented_slots() {
    let mut pool = Pool::new(Scheduler::Mh);
    for i in 1..=3 {
        pool.add([10, 0, 0, i], 80, 1);
    }
    let from = |pool: &Pool, last| letter(pool.pick_for([192, 0, 2, last], 0, [10, 0, 0, 100]));
    assert_eq!([10, 11, 12, 13].map(|c| from(&pool, c)), ['B', 'C', 'B', 'A']);
    assert_eq!(slots(&pool, 3), [1364, 1364, 1365]);
    pool.edit(1, 0);
    assert_eq!(slots(&pool, 3), [1364, 1364, 1365], "weight 0 takes no slot away");
    assert_eq!(from(&pool, 10), '-');
    pool.set_flags(flag::FALLBACK);
    assert_ne!(from(&pool, 10), '-');
}

#[test]
fn mh_shares_slots_by_weight() {
    let mut pool = Pool::new(Scheduler::Mh);
    for (i, weight) in [(1, 3), (2, 1), (3, 2)] {
        pool.add([10, 0, 0, i], 80, weight);
    }
    assert_eq!(slots(&pool, 3), [2046, 682, 1365]);
}

#[test]
fn mh_with_more_servers_than_slots_gives_the_newest_a_slot_each() {
    const SLOTS: u32 = 4093;
    let servers = SLOTS + 107;
    let listed = |id| Listed {
        id,
        order: servers - id,
        weight: 1,
        last_weight: 1,
        address: 0x0a01_0000 + id,
        port: 80,
    };
    let listed: Vec<Listed> = (0..servers).map(listed).collect();
    let line = |_| Choices(std::array::from_fn(|_| Cell32::new(NOBODY)));
    let table: Vec<Choices> = (0..choices::lines(Scheduler::Mh, listed.len())).map(line).collect();
    sched::fill(Scheduler::Mh, &listed, &table);
    let numbers = table.iter().flat_map(|line| &line.0).take(SLOTS as usize);
    let owners: BTreeSet<u32> = numbers.map(|number| number.load()).collect();
    assert_eq!(owners, (0..SLOTS).collect(), "the list begins with the newest");
}

/// How many slots of mh's table each server has.
fn slots(pool: &Pool, servers: usize) -> Vec<usize> {
    let mut counts = vec![0; servers];
    let first = pool.service().table.load() as usize;
    let numbers = pool.tables.choices[first..].iter().flat_map(|line| &line.0).take(4093);
    numbers.for_each(|id| counts[id.load() as usize] += 1);
    counts
}

#[test]
fn lblc_moves_a_destination_only_from_a_loaded_server_to_an_idle_one() {
    assert_eq!(long_on(Scheduler::Lblc, &[1, 2, 3], 14), "CCCCBBBAAAAAAA");
}

#[test]
fn lblcr_keeps_a_set() {
    assert_eq!(long_on(Scheduler::Lblcr, &[1, 2, 3], 16), "CCCCBBBAACBCABCC");
}

#[test]
fn lblc_knows_a_server_again_that_comes_back() {
    let mut pool = Pool::with_weights(Scheduler::Lblc, &[1, 1, 1]);
    let to = |pool: &Pool, last| letter(pool.pick_for([1, 2, 3, 4], 5, [198, 51, 100, last]));
    assert_eq!(to(&pool, 1), 'C');
    pool.remove(2);
    pool.add([10, 0, 0, 2], 80, 1);
    pool.set_load(2, 1, 1);
    assert_eq!(to(&pool, 1), 'C');
    pool.remove(2);
    assert_eq!(to(&pool, 1), 'B');
    pool.add([10, 0, 0, 2], 80, 1);
    assert_eq!(to(&pool, 1), 'B', "it moved while C was away");
}

#[test]
fn another_scheduler_forgets_the_destinations() {
    let mut pool = Pool::with_weights(Scheduler::Lblc, &[1, 1]);
    assert_eq!(letter(pool.pick()), 'B');
    pool.set_load(1, 1, 1);
    assert_eq!(letter(pool.pick()), 'B', "from the cache");
    pool.set_scheduler(Scheduler::Lblcr);
    assert_eq!(letter(pool.pick()), 'A');
}

#[test]
fn a_set_that_was_left_alone_for_a_day_loses_its_most_loaded_server() {
    let pool = Pool::with_weights(Scheduler::Lblcr, &[2, 1]);
    assert_eq!(long(&pool, 3), "BBA", "B, twice its weight, is loaded while A is idle: A joins");
    pool.set_load(0, 1, 1);
    pool.set_load(1, 0, 0);
    for _ in 0..30 {
        pool.pass_seconds(3600);
        assert_eq!(letter(pool.pick()), 'B', "the less loaded of the two");
    }
    pool.set_load(0, 0, 0);
    pool.set_load(1, 1, 1);
    assert_eq!(
        letter(pool.pick()),
        'B',
        "A, which had more connections when the day was over, has left the set"
    );
}

#[test]
fn a_set_that_is_full_takes_the_newest_for_the_oldest() {
    let pool = Pool::with_weights(Scheduler::Lblcr, &[1; 30]);
    for _ in 0..30 {
        // One server after the other is loaded twice over, until all were in the set once.
        let id = pool.open().unwrap();
        pool.bind(id, true);
    }
    assert!((0..30).all(|id| pool.active(id) >= 2));
}

#[test]
fn twos_is_drawn_to_the_head_of_the_list() {
    let pool = Pool::with_weights(Scheduler::Twos, &[3, 1]);
    // B is given when both draws are B: 2 in 5 each. When idle, the first drawn stays: B first in 2 of 5.
    let b = (0..50_000).filter(|_| pool.pick() == Some(1)).count();
    assert!((19_000..21_000).contains(&b), "{b} of 50000");
    pool.set_load(1, 1, 1);
    let b = (0..50_000).filter(|_| pool.pick() == Some(1)).count();
    assert!((7_300..8_700).contains(&b), "{b} of 50000: only when both draws are B");
}

#[test]
fn a_service_without_a_scheduler_has_no_server() {
    assert_eq!(Pool::with_weights(Scheduler::None, &[1, 1]).pick(), None);
}
