//! Weighted round robin: servers in turn, as often as their weights say. For servers of unlike strength and requests that
//! are alike.
//!
//! The list is passed again and again with a falling threshold, and a server has its turn when its weight reaches the
//! threshold: from the largest weight down to 1 in steps of the weights' greatest common divisor. Servers A, B, C with weights
//! 4, 3, 2 get `A B A C B A C B A` and so on; with 5, 1, 1 `A A A A C B A`.
//!
//! The cursor holds the threshold and the place in the table at which the last server was found. The table holds the number of
//! servers, then for each, in the kernel's order, its id and where the next one of a larger weight stands: what is too light
//! for the threshold is passed over in a few leaps. [`Service::kept`] holds the step and the highest threshold.
//!
//! As in the kernel, any change of the servers sends the walk back to the head of the list; the threshold stays as far as
//! the new weights allow ([`refresh`]).

use crate::carried::Carried;
use crate::env::{Env, Step};
use crate::sched::choices::{self, Listed};
use crate::sched::weights;
use crate::service::{Service, block_of};

#[cfg(not(target_arch = "bpf"))]
use crate::sched::choices::Choices;

/// How often the choice is made anew because another processor took the same turn.
const TURNS: usize = 8;

/// Which of [`Service::kept`] is the step between thresholds.
const STEP: usize = 0;
/// Which of [`Service::kept`] is the highest threshold.
const TOP: usize = 1;

/// Numbers in the table of so many servers.
pub(super) const fn numbers(servers: usize) -> usize {
    1 + 2 * servers
}

/// Where the walk stands: what the cursor holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Walk {
    /// Weight that a server must reach.
    threshold: u32,
    /// Where the walk goes on: places passed in the list.
    passed: u32,
}

impl Walk {
    #[inline(always)]
    const fn from_cursor(cursor: u64) -> Self {
        Self { threshold: cursor as u32, passed: (cursor >> 32) as u32 }
    }

    #[inline(always)]
    const fn cursor(self) -> u64 {
        self.threshold as u64 | (self.passed as u64) << 32
    }
}

/// The server whose turn it is.
#[inline(never)]
pub fn pick<E: Env>(env: &E, service: &Service) -> Option<u32> {
    let mut shared = None;
    for _ in 0..TURNS {
        let cursor = service.cursor.load();
        let (walk, server) = next(env, service, Walk::from_cursor(cursor))?;
        if service.cursor.swap_if(cursor, walk.cursor()).is_ok() {
            return (server != choices::NOBODY).then_some(server);
        }
        shared = (server != choices::NOBODY).then_some(server);
    }
    // Others took every turn that was tried for: a turn taken twice is better than a client turned away.
    shared
}

/// Where the walk stands after its next turn, and whose turn that is.
#[inline(always)]
fn next<E: Env>(env: &E, service: &Service, walk: Walk) -> Option<(Walk, u32)> {
    let (step, top) = (service.kept[STEP].load(), service.kept[TOP].load());
    let table = service.table.load();
    let servers = choices::number(env, table, 0)?;
    if top == 0 {
        return None;
    }
    let here = search(env, table, servers, walk);
    if here.1 != choices::NOBODY {
        return Some(here);
    }
    let threshold = if walk.threshold > step { walk.threshold.wrapping_sub(step) } else { top };
    let below = search(env, table, servers, Walk { threshold, passed: 0 });
    if below.1 != choices::NOBODY {
        return Some(below);
    }
    // Whoever reaches this threshold is overloaded. The walk would go down to the heaviest server that is not.
    let (weight, passed, server) = heaviest(env, table, servers);
    let stands = match server {
        // Where the kernel's walk stops that has found nobody.
        choices::NOBODY if walk.passed != 0 && walk.threshold <= step => walk,
        choices::NOBODY => Walk { threshold: top, passed: 0 },
        _ => Walk { threshold: top_of(weight, step), passed },
    };
    Some((stands, server))
}

/// The highest threshold that a weight reaches.
#[inline(always)]
const fn top_of(weight: u32, step: u32) -> u32 {
    weight.wrapping_sub(step.wrapping_sub(1))
}

/// Where the walk finds a usable server of the threshold's weight before the end of the list, and whom.
#[inline(always)]
fn search<E: Env>(env: &E, table: u32, servers: u32, walk: Walk) -> (Walk, u32) {
    let Walk { threshold, passed } = walk;
    let (passed, server) = (Carried::new(passed), Carried::new(choices::NOBODY));
    let mut search = Search { env, table, servers, threshold, passed, server };
    env.repeat(servers, &mut search);
    (Walk { threshold, passed: search.passed.get() }, search.server.get())
}

/// Walks to the end of the list, or to the first usable server of the threshold's weight.
struct Search<'e, E> {
    env: &'e E,
    table: u32,
    servers: u32,
    threshold: u32,
    passed: Carried<u32>,
    server: Carried<u32>,
}

impl<E: Env> Step for Search<'_, E> {
    #[inline(always)]
    fn turn(&mut self, _i: u32) -> bool {
        let place = self.passed.get();
        if place >= self.servers {
            return false;
        }
        let entry = place.wrapping_mul(2).wrapping_add(1);
        let Some(server) = choices::number(self.env, self.table, entry) else { return false };
        let Some(block) = self.env.block(block_of(server)) else { return false };
        let weight = block.weight[crate::service::lane_of(server)].load();
        let next = if weight < self.threshold {
            choices::number(self.env, self.table, entry.wrapping_add(1)).unwrap_or(self.servers)
        } else {
            place.wrapping_add(1)
        };
        self.passed.set(next);
        if weight >= self.threshold && choices::usable_weight(block, server) != 0 {
            self.server.set(server);
            return false;
        }
        true
    }
}

/// The first of the heaviest usable servers: its weight, the places up to it, and its id.
#[inline(always)]
fn heaviest<E: Env>(env: &E, table: u32, servers: u32) -> (u32, u32, u32) {
    let (weight, passed) = (Carried::new(0), Carried::new(0));
    let mut heaviest = Heaviest { env, table, weight, server: Carried::new(choices::NOBODY), passed };
    env.repeat(servers, &mut heaviest);
    (heaviest.weight.get(), heaviest.passed.get(), heaviest.server.get())
}

/// Finds the first of the heaviest usable servers.
struct Heaviest<'e, E> {
    env: &'e E,
    table: u32,
    weight: Carried<u32>,
    server: Carried<u32>,
    passed: Carried<u32>,
}

impl<E: Env> Step for Heaviest<'_, E> {
    #[inline(always)]
    fn turn(&mut self, i: u32) -> bool {
        let entry = i.wrapping_mul(2).wrapping_add(1);
        let Some(server) = choices::number(self.env, self.table, entry) else { return false };
        let Some(block) = self.env.block(block_of(server)) else { return false };
        let weight = choices::usable_weight(block, server);
        if weight > self.weight.get() {
            self.weight.set(weight);
            self.server.set(server);
            self.passed.set(i.wrapping_add(1));
        }
        true
    }
}

/// Fills the table.
#[cfg(not(target_arch = "bpf"))]
pub(super) fn fill(servers: &[Listed], table: &[Choices]) {
    choices::write(table, 0, servers.len() as u32);
    for (i, server) in servers.iter().enumerate() {
        let heavier = servers.iter().skip(i).position(|s| s.weight > server.weight);
        choices::write(table, 1 + 2 * i, server.id);
        choices::write(table, 2 + 2 * i, heavier.map_or(servers.len(), |n| i + n) as u32);
    }
}

/// Begins at the head of the list with the highest threshold.
pub(super) fn start(service: &Service, servers: &[Listed]) {
    let top = keep(service, servers);
    service.cursor.store(Walk { threshold: top, passed: 0 }.cursor());
}

/// The servers or their weights have changed.
pub(super) fn refresh(service: &Service, servers: &[Listed]) {
    let top = keep(service, servers);
    let step = service.kept[STEP].load();
    loop {
        let cursor = service.cursor.load();
        let was = Walk::from_cursor(cursor).threshold;
        let threshold = if was > top || was == 0 { top } else { rounded(was, step) };
        if service.cursor.swap_if(cursor, Walk { threshold, passed: 0 }.cursor()).is_ok() {
            return;
        }
    }
}

/// The threshold that belongs to this step.
const fn rounded(threshold: u32, step: u32) -> u32 {
    match threshold.checked_rem(step) {
        Some(rest) if step > 1 => threshold - rest + 1,
        _ => threshold,
    }
}

/// Computes step and highest threshold, and returns the latter.
fn keep(service: &Service, servers: &[Listed]) -> u32 {
    let step = weights::common_divisor(servers.iter().map(|s| s.weight)).max(1);
    let max = servers.iter().map(|s| s.weight).max().unwrap_or(0);
    let top = if max == 0 { 0 } else { top_of(max, step) };
    service.kept[STEP].store(step);
    service.kept[TOP].store(top);
    top
}
