//! Power of two choices: draw two servers at random, by weight, and take the less loaded. For many directors at once, which would
//! otherwise all run after the same least loaded server, and for very many servers.
//!
//! Drawn is a number from 0 to the sum of the weights, *both included*, so the kernel's first server, the newest, has one chance
//! more than its weight: with B 1 the newest and A 3, B is drawn in 2 of 5 cases. Load as in [wlc](super::wlc).

use crate::carried::Carried;
use crate::env::Env;
use crate::sched::choices::NOBODY;
use crate::sched::walk::{Visit, each_block};
use crate::sched::wlc::overhead;
use crate::service::{BLOCK, Block, Service, block_of, lane_of, server_in};
use crate::verifier::in_turn;

/// The less loaded of two servers.
#[inline(never)]
pub fn pick<E: Env>(env: &E, service: &Service) -> Option<u32> {
    let mut pool = Pool { sum: Carried::new(0) };
    each_block(env, service, &mut pool);
    let sum = pool.sum.get();
    if sum == 0 {
        return None;
    }
    let mut draw = Draw {
        tickets: [draw(env, sum), draw(env, sum)],
        passed: Carried::new(0),
        drawn: [Carried::new(NOBODY), Carried::new(NOBODY)],
    };
    each_block(env, service, &mut draw);
    // Ticket 0 is the first server's extra chance; so is what a sum that changed meanwhile leaves over.
    let [one, other] = draw.drawn.map(|drawn| drawn.get());
    less_loaded(env, [or_newest(env, service, one)?, or_newest(env, service, other)?])
}

/// The server drawn, or the newest usable one.
#[inline(always)]
fn or_newest<E: Env>(env: &E, service: &Service, drawn: u32) -> Option<u32> {
    if drawn != NOBODY {
        return Some(drawn);
    }
    let mut newest = Newest { order: Carried::new(0), server: Carried::new(NOBODY) };
    each_block(env, service, &mut newest);
    let newest = newest.server.get();
    (newest != NOBODY).then_some(newest)
}

/// A number from 0 to `sum`, each with the same chance as nearly as 32 random bits allow.
#[inline(always)]
fn draw<E: Env>(env: &E, sum: u64) -> u64 {
    let (many, random) = (sum.wrapping_add(1), env.random() as u64);
    let (high, low) = (many >> 32, many & 0xffff_ffff);
    random.wrapping_mul(high).wrapping_add(random.wrapping_mul(low) >> 32)
}

/// The first one, unless the other is less loaded for its weight.
#[inline(always)]
fn less_loaded<E: Env>(env: &E, [one, other]: [u32; 2]) -> Option<u32> {
    let (w1, load1) = weight_and_load(env, one)?;
    let (w2, load2) = weight_and_load(env, other)?;
    Some(if w2.wrapping_mul(load1) > w1.wrapping_mul(load2) { other } else { one })
}

#[inline(always)]
fn weight_and_load<E: Env>(env: &E, server: u32) -> Option<(u64, u64)> {
    let (block, lane) = (env.block(block_of(server))?, lane_of(server));
    let load = overhead(block.active[lane].load(), block.total[lane].load());
    Some((block.weight[lane].load() as u64, load))
}

/// The weight of a lane that may get new connections, else 0. Without a branch (overload is 0 or 1): the verifier would
/// follow both ways of each lane and give up.
#[inline(always)]
fn usable(block: &Block, lane: usize) -> u64 {
    (block.weight[lane].load() & block.overload[lane].load().wrapping_sub(1)) as u64
}

#[inline(always)]
fn usable_sum(block: &Block) -> u64 {
    let mut sum = 0u64;
    for lane in 0..BLOCK {
        sum = in_turn(sum.wrapping_add(usable(block, lane)));
    }
    sum
}

/// The sum of the usable weights.
struct Pool {
    sum: Carried<u64>,
}

impl Visit for Pool {
    #[inline(always)]
    fn block(&mut self, _id: u32, block: &Block) {
        self.sum.set(self.sum.get().wrapping_add(usable_sum(block)));
    }
}

/// Hands the tickets out in the order in which the servers lie in the blocks: for the chances any order is as good.
struct Draw {
    tickets: [u64; 2],
    passed: Carried<u64>,
    drawn: [Carried<u32>; 2],
}

impl Visit for Draw {
    #[inline(always)]
    fn block(&mut self, id: u32, block: &Block) {
        let begin = self.passed.get();
        let end = begin.wrapping_add(usable_sum(block));
        self.passed.set(end);
        for i in 0..2 {
            let ticket = self.tickets[i];
            if ticket > begin && ticket <= end {
                self.drawn[i].set(holder(id, block, ticket.wrapping_sub(begin)));
            }
        }
    }
}

/// Who holds a ticket in a block.
#[inline(always)]
fn holder(id: u32, block: &Block, ticket: u64) -> u32 {
    let mut left = ticket;
    for lane in 0..BLOCK {
        let weight = usable(block, lane);
        if left <= weight {
            return server_in(id, lane);
        }
        left = in_turn(left.wrapping_sub(weight));
    }
    NOBODY
}

/// The newest usable server.
struct Newest {
    order: Carried<u32>,
    server: Carried<u32>,
}

impl Visit for Newest {
    #[inline(always)]
    fn block(&mut self, id: u32, block: &Block) {
        let (mut newest, mut server) = (self.order.get(), self.server.get());
        for lane in 0..BLOCK {
            let order = block.order[lane].load();
            if order > newest && usable(block, lane) != 0 {
                (newest, server) = (order, server_in(id, lane));
            }
        }
        self.order.set(newest);
        self.server.set(server);
    }
}
