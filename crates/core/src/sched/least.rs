//! The smallest load for its weight: what wlc, lc and sed have in common.
//!
//! Loads are compared as fractions, load₁/weight₁ > load₂/weight₂ as load₁·weight₂ > load₂·weight₁ in 64 bits, and only a
//! strictly smaller one replaces, so among equals the first of the kernel's list wins: the newest.

use crate::carried::Carried;
use crate::sched::walk::{Visit, each_lane};
use crate::service::{Block, server_in};

/// How a scheduler measures a server.
pub trait Measure {
    /// The load of a server with these connections (`total` counts active and inactive ones).
    fn load(active: u32, total: u32) -> u64;
    /// The weight that its load is divided by.
    fn weight(weight: u32) -> u32;
}

/// The best server seen so far.
pub struct Least<M> {
    load: Carried<u64>,
    weight: Carried<u64>,
    order: Carried<u32>,
    server: Carried<u32>,
    measure: core::marker::PhantomData<M>,
}

#[derive(Clone, Copy)]
struct Best {
    load: u64,
    weight: u64,
    order: u32,
    server: u32,
}

impl<M: Measure> Least<M> {
    /// Nothing seen yet: the fraction is 1/0, and everything is smaller.
    #[inline(always)]
    pub fn new() -> Self {
        Self {
            load: Carried::new(1),
            weight: Carried::new(0),
            order: Carried::new(0),
            server: Carried::new(0),
            measure: core::marker::PhantomData,
        }
    }

    /// The winner, if any server was usable.
    #[inline(always)]
    pub fn winner(&self) -> Option<u32> {
        (self.order.get() != 0).then_some(self.server.get())
    }
}

impl<M: Measure> Default for Least<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Measure> Visit for Least<M> {
    #[inline(always)]
    fn block(&mut self, id: u32, block: &Block) {
        // In registers while the block lasts.
        let mut best = Best {
            load: self.load.get(),
            weight: self.weight.get(),
            order: self.order.get(),
            server: self.server.get(),
        };
        each_lane(|lane| {
            let load = M::load(block.active[lane].load(), block.total[lane].load());
            let lanes_weight = block.weight[lane].load();
            let weight = M::weight(lanes_weight) as u64;
            let (mine, least) = (load.wrapping_mul(best.weight), best.load.wrapping_mul(weight));
            // Most lanes end here, the unusable ones later: what is smaller is rare.
            if mine > least {
                return;
            }
            let order = block.order[lane].load();
            let usable = lanes_weight != 0 && block.overload[lane].load() == 0;
            if usable && (mine < least || order > best.order) {
                best = Best { load, weight, order, server: server_in(id, lane) };
            }
        });
        self.load.set(best.load);
        self.weight.set(best.weight);
        self.order.set(best.order);
        self.server.set(best.server);
    }
}
