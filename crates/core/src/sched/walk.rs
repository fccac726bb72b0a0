//! Walking a service's servers, sixteen at a time.

use crate::carried::Carried;
use crate::env::{Env, Step};
use crate::service::{BLOCK, Block, NO_BLOCK, Service};

/// What a scheduler does with each block.
pub trait Visit {
    /// Looks at the block with this id.
    fn block(&mut self, id: u32, block: &Block);
}

struct Walk<'a, E, V> {
    env: &'a E,
    next: Carried<u32>,
    visit: &'a mut V,
}

impl<E: Env, V: Visit> Step for Walk<'_, E, V> {
    #[inline(always)]
    fn turn(&mut self, _i: u32) -> bool {
        let id = self.next.get();
        let Some(block) = self.env.block(id) else { return false };
        self.visit.block(id, block);
        let next = block.next.load();
        self.next.set(next);
        next != NO_BLOCK
    }
}

/// Shows every block of the service to `visit`.
#[inline(always)]
pub fn each_block<E: Env, V: Visit>(env: &E, service: &Service, visit: &mut V) {
    let mut walk = Walk { env, next: Carried::new(service.first_block.load()), visit };
    env.repeat(service.blocks.load(), &mut walk);
}

/// Calls `look` for every lane of a block, written out: a loop would cost as much as what is done in it.
#[inline(always)]
pub fn each_lane(mut look: impl FnMut(usize)) {
    const { assert!(BLOCK == 16) };
    look(0);
    look(1);
    look(2);
    look(3);
    look(4);
    look(5);
    look(6);
    look(7);
    look(8);
    look(9);
    look(10);
    look(11);
    look(12);
    look(13);
    look(14);
    look(15);
}
