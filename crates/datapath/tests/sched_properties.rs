//! What holds for pools of every size, 1 to 1,024 servers.

mod pool;

use std::collections::HashMap;

use pool::{Member, Pool};
use proptest::prelude::*;
use xlvs_core::sched::Scheduler;
use xlvs_core::service::flag;

/// Sizes from one server to 1,024, small ones more often; weights, some of them 0.
fn weights() -> impl Strategy<Value = Vec<u32>> {
    let size = prop_oneof![4 => 1..20usize, 2 => 20..300usize, 1 => 300..=1024usize];
    let weight = prop_oneof![1 => Just(0u32), 6 => 1..20u32, 1 => 1..1000u32];
    size.prop_flat_map(move |n| proptest::collection::vec(weight.clone(), n))
}

fn positive_weights(most: usize, heaviest: u32) -> impl Strategy<Value = Vec<u32>> {
    proptest::collection::vec(1..=heaviest, 1..=most)
}

fn any_scheduler() -> impl Strategy<Value = Scheduler> {
    proptest::sample::select(Scheduler::ALL.to_vec())
}

/// A client and a destination for a number.
fn ask(pool: &Pool, n: u32) -> Option<u32> {
    let [a, b, c, d] = n.wrapping_mul(2_654_435_761).to_be_bytes();
    pool.pick_for([10, b, c, d], u16::from_be_bytes([a, b]), [198, 51, d, c & 7])
}

/// How often each server was chosen.
fn shares(picks: impl Iterator<Item = Option<u32>>) -> HashMap<u32, usize> {
    let mut shares = HashMap::new();
    for id in picks.flatten() {
        *shares.entry(id).or_default() += 1;
    }
    shares
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn nobody_without_weight_and_nobody_overloaded_gets_a_connection(
        scheduler in any_scheduler(),
        weights in weights(),
        overloaded in proptest::collection::vec(any::<bool>(), 1024),
        flags in any::<bool>(),
    ) {
        let pool = Pool::with_weights(scheduler, &weights);
        pool.set_flags(if flags { flag::FALLBACK | flag::PORT } else { 0 });
        for (id, over) in overloaded.iter().enumerate().take(weights.len()) {
            pool.set_overload(id as u32, *over);
        }
        for n in 0..64 {
            if let Some(id) = ask(&pool, n) {
                prop_assert!(weights[id as usize] != 0 && !overloaded[id as usize], "{scheduler:?} chose {id}");
                pool.bind(id, n % 3 != 0);
            }
        }
    }

    #[test]
    fn a_usable_server_is_found(
        scheduler in any_scheduler(), weights in weights(), only in any::<prop::sample::Index>(),
    ) {
        prop_assume!(!matches!(scheduler, Scheduler::Dh));
        let pool = Pool::with_weights(scheduler, &weights);
        pool.set_flags(flag::FALLBACK);
        let only = only.index(weights.len()) as u32;
        prop_assume!(weights[only as usize] != 0);
        // sh and mh have a place for it only if the table was large enough; mh's is up to some hundred servers.
        prop_assume!(!matches!(scheduler, Scheduler::Sh | Scheduler::Mh) || weights.len() < 12);
        (0..weights.len() as u32).filter(|id| *id != only).for_each(|id| pool.set_overload(id, true));
        let found = ask(&pool, 1);
        // Of sh's 256 slots the heavy ones may take all; mh's hashed attempts are many but blind.
        prop_assert!(found == Some(only) || (found.is_none() && matches!(scheduler, Scheduler::Sh | Scheduler::Mh)));
    }

    #[test]
    fn rr_gives_every_server_the_same(weights in positive_weights(1024, 9), rounds in 1..4usize) {
        let pool = Pool::with_weights(Scheduler::Rr, &weights);
        let shares = shares((0..weights.len() * rounds).map(|_| pool.pick()));
        prop_assert!(shares.len() == weights.len() && shares.values().all(|n| *n == rounds));
    }

    #[test]
    fn wrr_gives_every_server_its_weight(weights in positive_weights(200, 30), rounds in 1..4u32) {
        let pool = Pool::with_weights(Scheduler::Wrr, &weights);
        let divisor = xlvs_core::sched::weights::common_divisor(weights.iter().copied());
        let turns: u32 = weights.iter().map(|w| w / divisor).sum();
        let shares = shares((0..turns * rounds).map(|_| pool.pick()));
        for (id, weight) in weights.iter().enumerate() {
            prop_assert_eq!(shares[&(id as u32)] as u32, weight / divisor * rounds);
        }
    }

    #[test]
    fn wlc_gives_every_server_its_weight_when_connections_stay(weights in positive_weights(64, 20), rounds in 1..4u32) {
        let pool = Pool::with_weights(Scheduler::Wlc, &weights);
        let sum: u32 = weights.iter().sum();
        let opened = (0..sum * rounds).filter(|_| pool.open().is_some()).count();
        prop_assert_eq!(opened as u32, sum * rounds);
        for (id, weight) in weights.iter().enumerate() {
            let (has, due) = (pool.active(id as u32), weight * rounds);
            prop_assert!(has.abs_diff(due) <= 1, "server {id} of weight {weight} has {has}, not {due}");
        }
    }

    #[test]
    fn nq_never_queues_while_a_server_is_idle(weights in weights(), opened in 1..80usize) {
        let pool = Pool::with_weights(Scheduler::Nq, &weights);
        for _ in 0..opened {
            let idle = (0..weights.len()).any(|id| weights[id] != 0 && pool.active(id as u32) == 0);
            let Some(id) = pool.pick() else { break };
            prop_assert!(!idle || pool.active(id) == 0);
            pool.bind(id, true);
        }
    }

    #[test]
    fn least_loaded_means_that_nobody_is_less_loaded(
        weights in weights(), loads in proptest::collection::vec((0..500u32, 0..500u32), 1024), seed in any::<u32>(),
    ) {
        for scheduler in [Scheduler::Wlc, Scheduler::Lc, Scheduler::Sed] {
            let pool = Pool::with_weights(scheduler, &weights);
            for (id, (active, inactive)) in loads.iter().enumerate().take(weights.len()) {
                pool.set_load(id as u32, *active, active + inactive);
            }
            let load = |id: usize| {
                let (active, inactive) = loads[id];
                match scheduler {
                    Scheduler::Sed => (u64::from(active) + 1, u64::from(weights[id])),
                    Scheduler::Lc => (u64::from(active) * 257 + u64::from(inactive), 1),
                    _ => (u64::from(active) * 257 + u64::from(inactive), u64::from(weights[id])),
                }
            };
            let usable = (0..weights.len()).rev().filter(|id| weights[*id] != 0);
            // The newest of the least loaded: `min_by` keeps the first of equals, and the newest come first.
            let due = usable.min_by(|a, b| {
                let ((load_a, weight_a), (load_b, weight_b)) = (load(*a), load(*b));
                (load_a * weight_b).cmp(&(load_b * weight_a))
            });
            prop_assert_eq!(ask(&pool, seed), due.map(|id| id as u32));
        }
    }

    #[test]
    fn sh_and_dh_are_stable(scheduler in prop_oneof![Just(Scheduler::Sh), Just(Scheduler::Dh)], weights in weights()) {
        let pool = Pool::with_weights(scheduler, &weights);
        for n in 0..64 {
            let first = ask(&pool, n);
            if let Some(id) = first {
                pool.bind(id, true);
            }
            prop_assert_eq!(ask(&pool, n), first);
        }
    }

    #[test]
    fn mh_moves_few_clients_when_a_server_leaves(servers in 2..60usize, leaver in any::<prop::sample::Index>()) {
        let mut pool = Pool::with_weights(Scheduler::Mh, &vec![1; servers]);
        let clients = 0..2000;
        let before: Vec<_> = clients.clone().map(|n| ask(&pool, n)).collect();
        let leaver = leaver.index(servers) as u32;
        pool.remove(leaver);
        let (mut had, mut moved) = (0, 0);
        for (n, before) in clients.zip(before) {
            let after = ask(&pool, n);
            prop_assert_ne!(after, Some(leaver));
            had += usize::from(before == Some(leaver));
            moved += usize::from(before != Some(leaver) && before != after);
        }
        // Its own clients must move; of the others Maglev moves a few in a hundred (its paper, figure 12).
        prop_assert!(had <= 2 * 2000 / servers + 60, "{had} of 2000 belonged to one of {servers}");
        prop_assert!(moved <= 2000 / servers + 120, "{moved} of 2000 moved without need");
    }

    #[test]
    fn wrr_walks_pass_by_pass(
        weights in proptest::collection::vec(prop_oneof![0..7u32, Just(12), Just(18)], 1..8),
        changes in proptest::collection::vec((0..6u8, any::<prop::sample::Index>(), 0..13u32), 1..80),
    ) {
        let mut pool = Pool::new(Scheduler::Wrr);
        let mut model = Passes::default();
        for (i, weight) in weights.iter().enumerate() {
            pool.add([10, 0, 0, i as u8], 80, *weight);
            model.changed(&pool);
        }
        let mut overloaded = vec![false; weights.len()];
        for (change, which, weight) in changes {
            let at = which.index(weights.len());
            let id = at as u32;
            match change {
                0 if pool.members[at].order == 0 => {
                    pool.add(pool.members[at].addr, 80, weight);
                    model.changed(&pool);
                }
                0 => {
                    pool.remove(id);
                    model.changed(&pool);
                }
                1 if pool.members[at].order != 0 => {
                    pool.edit(id, weight);
                    model.changed(&pool);
                }
                2 => {
                    overloaded[at] = !overloaded[at];
                    pool.set_overload(id, overloaded[at]);
                }
                _ => prop_assert_eq!(pool.pick(), model.next(&pool, &overloaded)),
            }
        }
    }

    #[test]
    fn turns_survive_changes_of_the_list(
        weights in positive_weights(12, 3),
        changes in proptest::collection::vec((0..4u8, any::<prop::sample::Index>(), 0..4u32), 1..60),
    ) {
        let mut pool = Pool::with_weights(Scheduler::Rr, &weights);
        let mut model = Turns::default();
        for (change, which, weight) in changes {
            let id = which.index(pool.members.len()) as u32;
            let Member { order, .. } = pool.members[id as usize];
            match change {
                0 if order == 0 => {
                    pool.add(pool.members[id as usize].addr, 80, weight);
                }
                0 => {
                    model.removed(&pool, id);
                    pool.remove(id);
                }
                1 if order != 0 => pool.edit(id, weight),
                _ => prop_assert_eq!(pool.pick(), model.next(&pool)),
            }
        }
    }
}

/// rr as the kernel keeps it: a pointer into the list.
#[derive(Default)]
struct Turns {
    last: Option<u32>,
}

impl Turns {
    /// The pointer moves to the predecessor of the server that it points to, or to the list's head.
    fn removed(&mut self, pool: &Pool, id: u32) {
        if self.last == Some(id) {
            let list = pool.listed();
            let at = list.iter().position(|s| s.id == id).unwrap();
            self.last = at.checked_sub(1).map(|before| list[before].id);
        }
    }

    fn next(&mut self, pool: &Pool) -> Option<u32> {
        let list = pool.listed();
        let start = self.last.map_or(0, |last| list.iter().position(|s| s.id == last).unwrap() + 1);
        let turn = (start..start + list.len()).map(|i| list[i % list.len()]).find(|s| s.weight != 0)?;
        self.last = Some(turn.id);
        self.last
    }
}

/// wrr as the kernel walks it: pass after pass through the list.
#[derive(Default)]
struct Passes {
    /// Servers of the list that the present pass has seen.
    seen: usize,
    threshold: u32,
    top: u32,
    step: u32,
}

impl Passes {
    fn changed(&mut self, pool: &Pool) {
        let list = pool.listed();
        self.step = xlvs_core::sched::weights::common_divisor(list.iter().map(|s| s.weight)).max(1);
        let max = list.iter().map(|s| s.weight).max().unwrap_or(0);
        self.top = (max + 1).saturating_sub(self.step);
        self.seen = 0;
        if self.threshold > self.top || self.threshold == 0 {
            self.threshold = self.top;
        } else if self.step > 1 {
            self.threshold = self.threshold / self.step * self.step + 1;
        }
    }

    fn next(&mut self, pool: &Pool, overloaded: &[bool]) -> Option<u32> {
        let list = pool.listed();
        if self.top == 0 {
            return None;
        }
        let (first, mut last_pass, mut restarted, mut stop) = (self.seen, false, false, None);
        loop {
            while self.seen < list.len() {
                let server = list[self.seen];
                self.seen += 1;
                if !overloaded[server.id as usize] && server.weight >= self.threshold {
                    return Some(server.id);
                }
                if stop == Some(self.seen) {
                    return None;
                }
            }
            self.seen = 0;
            self.threshold = self.threshold.saturating_sub(self.step);
            if self.threshold == 0 {
                self.threshold = self.top;
                if last_pass || first == 0 {
                    return None;
                }
                restarted = true;
            }
            last_pass = self.threshold <= self.step;
            if last_pass && restarted && first != 0 {
                stop = Some(first);
            }
        }
    }
}
