//! Round robin: each server in turn, weights ignored (but 0 = none). For servers that are alike and requests that are too.
//!
//! Servers A, B, C, added in that order, get `C B A C B A …`: the kernel's list begins with the newest.
//!
//! The table holds how many servers there are, then their ids in the kernel's order. The cursor remembers the server that
//! was chosen last, by its order of addition and by its place in the table; a turn is taken by swapping it, so no two
//! processors take the same. When the list has changed the place is looked for anew by the order: the next turn is that of
//! the first server older than the last one. So servers come and go without disturbing the others' turns, and one that is
//! removed while it is the last leaves its predecessor as the last ([`refresh`]).

use crate::carried::Carried;
use crate::env::{Env, Step};
use crate::sched::choices::{self, Listed};
use crate::service::{Service, block_of, lane_of};

#[cfg(not(target_arch = "bpf"))]
use crate::sched::choices::Choices;

/// How often the choice is made anew because another processor took the same turn.
const TURNS: usize = 8;

/// Numbers in the table of so many servers.
pub(super) const fn numbers(servers: usize) -> usize {
    1 + servers
}

/// The server chosen last: what the cursor holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Last {
    order: u32,
    place: u32,
}

impl Last {
    /// Before the first choice: newer than every server.
    const START: Self = Self { order: u32::MAX, place: 0 };

    #[inline(always)]
    const fn from_cursor(cursor: u64) -> Self {
        Self { order: cursor as u32, place: (cursor >> 32) as u32 }
    }

    #[inline(always)]
    const fn cursor(self) -> u64 {
        self.order as u64 | (self.place as u64) << 32
    }
}

/// The server whose turn it is.
#[inline(never)]
pub fn pick<E: Env>(env: &E, service: &Service) -> Option<u32> {
    let table = service.table.load();
    let servers = choices::number(env, table, 0)?;
    let mut shared = None;
    for _ in 0..TURNS {
        let cursor = service.cursor.load();
        let last = Last::from_cursor(cursor);
        let list = List { env, table, servers };
        let place = Carried::new(list.place_after(last));
        let mut next = Next { list, place, order: Carried::new(0), server: Carried::new(choices::NOBODY) };
        env.repeat(servers, &mut next);
        let server = next.server.get();
        if server == choices::NOBODY {
            return None;
        }
        let taken = Last { order: next.order.get(), place: next.place.get() };
        if service.cursor.swap_if(cursor, taken.cursor()).is_ok() {
            return Some(server);
        }
        shared = Some(server);
    }
    // Others took every turn that was tried for: a turn taken twice is better than a client turned away.
    shared
}

/// The servers as the table lists them.
struct List<'e, E> {
    env: &'e E,
    table: u32,
    servers: u32,
}

impl<E: Env> List<'_, E> {
    /// Id and order of the server at a place (counted from 1, after the number of servers).
    #[inline(always)]
    fn at(&self, place: u32) -> Option<(u32, u32)> {
        let server = choices::number(self.env, self.table, place)?;
        let block = self.env.block(block_of(server))?;
        Some((server, block.order[lane_of(server)].load()))
    }

    /// The place from which to go on.
    #[inline(always)]
    fn place_after(&self, last: Last) -> u32 {
        if last.place == 0 && last.order == u32::MAX {
            return 1;
        }
        if last.place <= self.servers
            && let Some((_, order)) = self.at(last.place)
            && order == last.order
        {
            return last.place.wrapping_add(1);
        }
        let mut older = Older { list: self, order: last.order, place: Carried::new(1) };
        self.env.repeat(self.servers, &mut older);
        older.place.get()
    }
}

/// Walks from `place` once round the list to the first usable server.
struct Next<'e, E> {
    list: List<'e, E>,
    place: Carried<u32>,
    order: Carried<u32>,
    server: Carried<u32>,
}

impl<E: Env> Step for Next<'_, E> {
    #[inline(always)]
    fn turn(&mut self, _i: u32) -> bool {
        let List { env, table, servers } = self.list;
        let place = self.place.get();
        let place = if place > servers { 1 } else { place };
        let Some(server) = choices::number(env, table, place) else { return false };
        let Some(block) = env.block(block_of(server)) else { return false };
        if choices::usable_weight(block, server) == 0 {
            self.place.set(place.wrapping_add(1));
            return true;
        }
        self.place.set(place);
        self.server.set(server);
        self.order.set(block.order[lane_of(server)].load());
        false
    }
}

/// Looks for the first place whose server is older than this order.
struct Older<'l, 'e, E> {
    list: &'l List<'e, E>,
    order: u32,
    place: Carried<u32>,
}

impl<E: Env> Step for Older<'_, '_, E> {
    #[inline(always)]
    fn turn(&mut self, i: u32) -> bool {
        let place = i.wrapping_add(1);
        let is_older = self.list.at(place).is_none_or(|(_, order)| order < self.order);
        self.place.set(if is_older { place } else { place.wrapping_add(1) });
        !is_older
    }
}

/// Fills the table.
#[cfg(not(target_arch = "bpf"))]
pub(super) fn fill(servers: &[Listed], table: &[Choices]) {
    choices::write(table, 0, servers.len() as u32);
    for (i, server) in servers.iter().enumerate() {
        choices::write(table, 1 + i, server.id);
    }
}

/// Begins with the newest.
pub(super) fn start(service: &Service) {
    service.cursor.store(Last::START.cursor());
}

/// The list has changed: if the server chosen last is gone, the next newer one takes its place as the last, so that who comes
/// in between later has its turn as in the kernel.
pub(super) fn refresh(service: &Service, servers: &[Listed]) {
    loop {
        let cursor = service.cursor.load();
        let last = Last::from_cursor(cursor);
        if last == Last::START || servers.iter().any(|s| s.order == last.order) {
            return;
        }
        let newer = servers.iter().enumerate().rev().find(|(_, s)| s.order > last.order);
        let anchor = newer.map_or(Last::START, |(i, s)| Last { order: s.order, place: 1 + i as u32 });
        if service.cursor.swap_if(cursor, anchor.cursor()).is_ok() {
            return;
        }
    }
}
