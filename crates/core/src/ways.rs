//! Ways to clients that a processor has asked the kernel for in this very tick: a reply's way costs more than all the rest of it, and the
//! next reply to the same client goes the same.
//!
//! What the kernel's routes and neighbours say anew is heeded from the next quarter second on.

use crate::cell::Cell64;
use crate::conn::word::Tick;
use crate::env::{Env, Route, RouteQuery};

/// Ways that a processor remembers.
pub const MOST: u32 = 1024;

/// A way, as it was asked for and answered. Only its processor reads and writes it.
///
/// | word | contents |
/// |---|---|
/// | `ends` | client, VIP |
/// | `asked` | interface (32 bits), type of service, protocol, the longest packet that was asked for (16) |
/// | `seen` | interface to leave by (32), tick |
/// | `to`, `from` | MAC (48) |
#[cfg_attr(not(target_arch = "bpf"), derive(Debug, Default))]
#[repr(C, align(64))]
pub struct Way {
    ends: Cell64,
    asked: Cell64,
    seen: Cell64,
    to: Cell64,
    from: Cell64,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Way>() == 64);

/// The bits of `asked` that hold the length.
const LENGTH: u32 = 48;

impl Way {
    /// The answer to this question, if it is remembered.
    #[inline(always)]
    fn recall(&self, query: &RouteQuery<[u8; 4]>, now: Tick) -> Option<Route> {
        let (asked, seen) = (self.asked.load(), self.seen.load());
        let is_same = self.ends.load() == ends(query) && (asked ^ how(query)) << (64 - LENGTH) == 0;
        if !is_same || seen >> 32 != now.count() as u64 || (asked >> LENGTH) < query.len as u64 {
            return None;
        }
        let (from, to) = (mac(self.from.load()), mac(self.to.load()));
        Some(Route::Via { ifindex: seen as u32, from, to })
    }

    /// Remembers this answer. Where a longer packet had another, it is asked for again.
    #[inline(always)]
    fn remember(&self, query: &RouteQuery<[u8; 4]>, now: Tick, ifindex: u32, from: [u8; 6], to: [u8; 6]) {
        self.ends.store(ends(query));
        self.asked.store(how(query) | (query.len as u64) << LENGTH);
        self.seen.store(ifindex as u64 | (now.count() as u64) << 32);
        self.to.store(word(to));
        self.from.store(word(from));
    }
}

/// [`Env::route_v4`], or what it said in this tick already.
#[inline(always)]
pub fn route<E: Env>(env: &E, query: &RouteQuery<[u8; 4]>, now: Tick) -> Route {
    let Some(way) = env.way(place(query)) else { return env.route_v4(query) };
    if let Some(route) = way.recall(query, now) {
        return route;
    }
    let route = env.route_v4(query);
    if let Route::Via { ifindex, from, to } = route {
        way.remember(query, now, ifindex, from, to);
    }
    route
}

/// Where a client's way is remembered.
#[inline(always)]
const fn place(query: &RouteQuery<[u8; 4]>) -> u32 {
    u32::from_ne_bytes(query.dst).wrapping_mul(0x9e37_79b1) >> (32 - MOST.trailing_zeros())
}

#[inline(always)]
const fn ends(query: &RouteQuery<[u8; 4]>) -> u64 {
    u32::from_ne_bytes(query.dst) as u64 | (u32::from_ne_bytes(query.src) as u64) << 32
}

#[inline(always)]
const fn how(query: &RouteQuery<[u8; 4]>) -> u64 {
    query.ifindex as u64 | (query.tos as u64) << 32 | (query.protocol as u64) << 40
}

#[inline(always)]
const fn word([a, b, c, d, e, f]: [u8; 6]) -> u64 {
    u64::from_ne_bytes([a, b, c, d, e, f, 0, 0])
}

#[inline(always)]
const fn mac(word: u64) -> [u8; 6] {
    let [a, b, c, d, e, f, _, _] = word.to_ne_bytes();
    [a, b, c, d, e, f]
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Tick = Tick::new(77);

    fn query() -> RouteQuery<[u8; 4]> {
        RouteQuery { ifindex: 3, src: [10, 0, 0, 100], dst: [10, 0, 0, 1], protocol: 6, tos: 8, len: 1000 }
    }

    fn remembered() -> Way {
        let way = Way::default();
        way.remember(&query(), NOW, 9, [1; 6], [2; 6]);
        way
    }

    #[test]
    fn the_same_question_has_the_same_answer() {
        let way = remembered();
        let answer = Some(Route::Via { ifindex: 9, from: [1; 6], to: [2; 6] });
        assert_eq!(way.recall(&query(), NOW), answer);
        assert_eq!(way.recall(&RouteQuery { len: 40, ..query() }, NOW), answer, "a shorter packet fits too");
        assert_eq!(Way::default().recall(&query(), NOW), None);
    }

    #[test]
    fn another_question_is_asked_anew() {
        let way = remembered();
        let others = [
            RouteQuery { ifindex: 4, ..query() },
            RouteQuery { src: [10, 0, 0, 101], ..query() },
            RouteQuery { dst: [10, 0, 0, 2], ..query() },
            RouteQuery { protocol: 17, ..query() },
            RouteQuery { tos: 0, ..query() },
            RouteQuery { len: 1001, ..query() },
        ];
        for other in others {
            assert_eq!(way.recall(&other, NOW), None, "{other:?}");
        }
        assert_eq!(way.recall(&query(), Tick::new(78)), None, "in the next quarter second");
    }
}
