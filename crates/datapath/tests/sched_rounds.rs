//! Housekeeping in the destination caches of lblc and lblcr.

mod pool;

use pool::Pool;
use xlvs_core::sched::Scheduler;
use xlvs_core::sched::affinity::{self, MOST, Round};

const HOUR: u32 = 3600;

/// Destination number n is asked for.
fn ask(pool: &Pool, n: u32) {
    let [_, a, b, c] = n.to_be_bytes();
    assert!(pool.pick_for([1, 2, 3, 4], 5, [198, a, b, c]).is_some());
}

fn round(pool: &Pool, round: Round) -> u32 {
    affinity::begin_round(pool.service());
    affinity::collect(&pool.env(), 0, pool.tables.affinity.len() as u32 * 8, round)
}

fn entries(pool: &Pool) -> u32 {
    pool.service().kept[0].load()
}

#[test]
fn a_destination_that_nobody_asked_for_since_a_day_is_forgotten() {
    for scheduler in [Scheduler::Lblc, Scheduler::Lblcr] {
        let pool = Pool::with_weights(scheduler, &[1, 1]);
        (0..100).for_each(|n| ask(&pool, n));
        pool.pass_seconds(20 * HOUR);
        (0..40).for_each(|n| ask(&pool, n));
        assert_eq!((round(&pool, Round::Full), entries(&pool)), (0, 100));
        pool.pass_seconds(5 * HOUR);
        assert_eq!((round(&pool, Round::Partial), entries(&pool)), (0, 100), "there is room for all");
        assert_eq!((round(&pool, Round::Full), entries(&pool)), (60, 40));
    }
}

#[test]
fn too_many_destinations_lose_the_idle_ones() {
    let pool = Pool::with_weights(Scheduler::Lblc, &[1, 1]);
    (0..MOST + 3000).for_each(|n| ask(&pool, n));
    assert_eq!(round(&pool, Round::Partial), 0, "all were asked for a moment ago");
    pool.pass_seconds(360);
    assert_eq!(round(&pool, Round::Partial), 4000, "four thirds of what is too many");
    assert_eq!(entries(&pool), MOST - 1000);
    assert_eq!(round(&pool, Round::Partial), 0);
}

#[test]
fn a_service_remembers_so_many_destinations_and_not_more() {
    let pool = Pool::with_weights(Scheduler::Lblc, &[1, 1]);
    (0..30_000).for_each(|n| ask(&pool, n));
    assert_eq!(entries(&pool), MOST / 2 * 3);
}

#[test]
fn what_another_scheduler_left_goes_in_every_round() {
    let mut pool = Pool::with_weights(Scheduler::Lblc, &[1, 1]);
    (0..50).for_each(|n| ask(&pool, n));
    pool.set_scheduler(Scheduler::Lblcr);
    (0..10).for_each(|n| ask(&pool, n));
    assert_eq!((round(&pool, Round::Partial), entries(&pool)), (50, 10));
}
