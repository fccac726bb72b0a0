//! Several processors choose at once: nobody is turned away, and the shares stay what they are.

mod pool;

use std::collections::HashMap;
use std::thread;

use pool::Pool;
use xlvs_core::sched::{self, Question, Scheduler};
use xlvs_datapath::host::HostEnv;

const THREADS: usize = 4;

/// How often each server was chosen by threads that picked so many times each.
fn shares(pool: &Pool, each: usize) -> HashMap<u32, usize> {
    let tables = &pool.tables;
    let picks = || {
        let env = HostEnv::new(tables, 0);
        let question = Question::v4(0, [192, 0, 2, 1], [0, 0], [10, 0, 0, 100]);
        let mut picked = Vec::with_capacity(each);
        while picked.len() < each {
            picked.push(sched::pick(&env, &question).expect("every server can take a connection"));
        }
        picked
    };
    let picked = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(picks)).collect();
        threads.into_iter().flat_map(|t| t.join().unwrap()).collect::<Vec<_>>()
    });
    let mut shares = HashMap::new();
    picked.iter().for_each(|id| *shares.entry(*id).or_default() += 1);
    shares
}

/// A turn is shared when others were faster eight times in a row, which only threads that do nothing but choose come to:
/// a twentieth is what they may be off.
fn assert_about(times: usize, share: usize) {
    assert!(times.abs_diff(share) * 20 <= share, "{times} instead of {share}");
}

#[test]
fn rr_shares_are_equal() {
    for servers in [1, 2, 3, 16, 100] {
        let pool = Pool::with_weights(Scheduler::Rr, &vec![1; servers]);
        let shares = shares(&pool, servers * 200);
        assert_eq!(shares.len(), servers);
        shares.values().for_each(|times| assert_about(*times, THREADS * 200));
    }
}

#[test]
fn wrr_shares_are_the_weights() {
    let weights = [5, 1, 3, 2, 9, 4];
    let sum: u32 = weights.iter().sum();
    let pool = Pool::with_weights(Scheduler::Wrr, &weights);
    let shares = shares(&pool, sum as usize * 100);
    for (id, weight) in weights.iter().enumerate() {
        assert_about(shares[&(id as u32)], *weight as usize * 100 * THREADS);
    }
}

#[test]
fn one_destination_has_one_entry_whoever_asks_first() {
    let question = Question::v4(0, [192, 0, 2, 1], [0, 0], [198, 51, 100, 1]);
    for _ in 0..50 {
        let pool = Pool::with_weights(Scheduler::Lblc, &[1; 20]);
        let tables = &pool.tables;
        let pick = || sched::pick(&HostEnv::new(tables, 0), &question);
        thread::scope(|scope| (0..THREADS).for_each(|_| drop(scope.spawn(pick))));
        assert_eq!(pool.service().kept[0].load(), 1, "entries");
    }
}
