//! The largest weight: what fo and ovf have in common. Among equals the first of the kernel's list wins: the newest.

use crate::carried::Carried;
use crate::sched::walk::{Visit, each_lane};
use crate::service::{Block, server_in};

/// Which servers take part.
pub trait Admission {
    /// Does a server with this weight and these active connections?
    fn admits(weight: u32, active: u32) -> bool;
}

/// The heaviest server seen so far.
pub struct Heaviest<A> {
    weight: Carried<u32>,
    order: Carried<u32>,
    server: Carried<u32>,
    admission: core::marker::PhantomData<A>,
}

impl<A: Admission> Heaviest<A> {
    /// Nothing seen yet.
    #[inline(always)]
    pub fn new() -> Self {
        let nothing = || Carried::new(0);
        Self { weight: nothing(), order: nothing(), server: nothing(), admission: core::marker::PhantomData }
    }

    /// The winner, if any server was usable.
    #[inline(always)]
    pub fn winner(&self) -> Option<u32> {
        (self.weight.get() != 0).then_some(self.server.get())
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
        // In registers while the block lasts.
        let (mut most, mut newest, mut server) = (self.weight.get(), self.order.get(), self.server.get());
        each_lane(|lane| {
            let weight = block.weight[lane].load();
            if weight < most {
                return;
            }
            let order = block.order[lane].load();
            let usable = weight != 0 && block.overload[lane].load() == 0;
            let heavier = weight > most || order > newest;
            if usable && heavier && A::admits(weight, block.active[lane].load()) {
                (most, newest, server) = (weight, order, server_in(id, lane));
            }
        });
        self.weight.set(most);
        self.order.set(newest);
        self.server.set(server);
    }
}
