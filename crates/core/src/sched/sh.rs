//! Source hashing: one server for each client address (with `sh-port`: for each client address and port). For clients that must
//! come back to their server without the director remembering them.
//!
//! The table has 256 slots. The servers take as many in a row as they have weight (at least one), in the kernel's order,
//! round and round: with A 3, B 1, C 2 the slots read `C C B A A A C C B …`; 192.0.2.10 falls into slot 162, C's. A server
//! that is unusable leaves its clients without service, unless `sh-fallback` says that they try the slots that follow.

use crate::carried::Carried;
use crate::env::{Env, Step};
use crate::sched::Question;
use crate::sched::choices::{self, NOBODY, slot_of};
use crate::service::{Service, flag};

#[cfg(not(target_arch = "bpf"))]
use crate::sched::choices::{Choices, Listed};

/// Slots of the table.
pub(super) const SLOTS: usize = 256;

/// The client's server.
#[inline(always)]
pub fn pick<E: Env>(env: &E, service: &Service, question: &Question) -> Option<u32> {
    serve(env, service, question.client_as_hashed(service))
}

#[inline(never)]
fn serve<E: Env>(env: &E, service: &Service, client: u32) -> Option<u32> {
    let first = slot_of(client);
    let server = choices::at(env, service, first)?;
    if choices::is_usable(env, server) {
        return Some(server);
    }
    if !service.has(flag::FALLBACK) || server == NOBODY {
        return None;
    }
    let mut fallback = Fallback { env, table: service.table.load(), first, server: Carried::new(NOBODY) };
    env.repeat(SLOTS as u32, &mut fallback);
    let server = fallback.server.get();
    (server != NOBODY).then_some(server)
}

/// Looks through the slots, beginning with twice the first one's number as the kernel does.
struct Fallback<'e, E> {
    env: &'e E,
    table: u32,
    first: u32,
    server: Carried<u32>,
}

impl<E: Env> Step for Fallback<'_, E> {
    #[inline(always)]
    fn turn(&mut self, i: u32) -> bool {
        const MASK: u32 = SLOTS as u32 - 1;
        let offset = i.wrapping_add(self.first) & MASK;
        let slot = self.first.wrapping_add(offset) & MASK;
        match choices::number(self.env, self.table, slot) {
            Some(server) if choices::is_usable(self.env, server) => {
                self.server.set(server);
                false
            }
            Some(server) => server != NOBODY,
            None => false,
        }
    }
}

/// Fills the table.
#[cfg(not(target_arch = "bpf"))]
pub(super) fn fill(servers: &[Listed], table: &[Choices]) {
    let mut turns = servers.iter().cycle();
    let mut left = 0;
    let mut server = NOBODY;
    for slot in 0..SLOTS {
        if left == 0
            && let Some(next) = turns.next()
        {
            (server, left) = (next.id, next.weight.max(1));
        }
        left = left.saturating_sub(1);
        choices::write(table, slot, server);
    }
}
