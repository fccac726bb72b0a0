//! The largest weight: what fo and ovf have in common. Among equals the first of the kernel's list wins: the newest.

use crate::sched::walk::{Visit, each_lane};
use crate::service::{Block, server_in};

/// Which servers take part.
pub trait Admission {
    /// Does a server with this weight and these active connections?
    fn admits(weight: u32, active: u32) -> bool;
}

/// The heaviest server seen so far.
pub struct Heaviest<A> {
    weight: u32,
    order: u32,
    server: u32,
    admission: core::marker::PhantomData<A>,
}

impl<A: Admission> Heaviest<A> {
    /// Nothing seen yet.
    #[inline(always)]
    pub const fn new() -> Self {
        Self { weight: 0, order: 0, server: 0, admission: core::marker::PhantomData }
    }

    /// The winner, if any server was usable.
    #[inline(always)]
    pub fn winner(&self) -> Option<u32> {
        (self.weight != 0).then_some(self.server)
    }
}

impl<A: Admission> Default for Heaviest<A> {
    fn default() -> Self {
        Self::new()
    }
}

impl<A: Admission> Visit for Heaviest<A> {
    #[inline(always)]
    fn block(&mut self, id: u32, block: &Block) {
        each_lane(|lane| {
            let weight = block.weight[lane].load();
            if weight < self.weight {
                return;
            }
            let order = block.order[lane].load();
            let usable = weight != 0 && block.overload[lane].load() == 0;
            let heavier = weight > self.weight || order > self.order;
            if usable && heavier && A::admits(weight, block.active[lane].load()) {
                (self.weight, self.order, self.server) = (weight, order, server_in(id, lane));
            }
        });
    }
}
