//! Never queue: an idle server at once, however weak; when none is idle, the shortest expected delay. For servers of unlike
//! strength when no request should wait behind another while a server has nothing to do.
//!
//! Idle means no active connection; of several idle servers the newest. So UDP always goes to the newest. Servers A, B, C
//! with weights 3, 2, 1 and long connections get `C B A A B A A B A C B A`.

use crate::carried::Carried;
use crate::env::Env;
use crate::sched::least::Least;
use crate::sched::sed::Sed;
use crate::sched::walk::{Visit, each_block, each_lane};
use crate::service::{Block, Service, server_in};

/// The newest idle server, or else the one with the shortest expected delay.
#[inline(never)]
pub fn pick<E: Env>(env: &E, service: &Service) -> Option<u32> {
    let mut queue = NoQueue { idle: Carried::new(0), order: Carried::new(0), least: Least::new() };
    each_block(env, service, &mut queue);
    if queue.order.get() != 0 { Some(queue.idle.get()) } else { queue.least.winner() }
}

struct NoQueue {
    idle: Carried<u32>,
    order: Carried<u32>,
    least: Least<Sed>,
}

impl Visit for NoQueue {
    #[inline(always)]
    fn block(&mut self, id: u32, block: &Block) {
        let (mut idle, mut newest) = (self.idle.get(), self.order.get());
        each_lane(|lane| {
            if block.active[lane].load() != 0 {
                return;
            }
            let order = block.order[lane].load();
            let usable = block.weight[lane].load() != 0 && block.overload[lane].load() == 0;
            if usable && order > newest {
                (newest, idle) = (order, server_in(id, lane));
            }
        });
        self.idle.set(idle);
        self.order.set(newest);
        if newest == 0 {
            self.least.block(id, block);
        }
    }
}
