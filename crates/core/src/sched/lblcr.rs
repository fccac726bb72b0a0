//! Locality-based least connection with replication: a destination has a set of servers, which grows when they are loaded and
//! shrinks again. For caches behind a mark service with destinations that one cache cannot serve alone.
//!
//! Of the set's servers the least loaded one ([wlc](super::wlc)'s rule) serves. When it is loaded, as [lblc](super::lblc) means it, wlc chooses
//! from all servers, and that one joins the set. A set of several servers that did not change for a day loses its most
//! loaded one. Servers A, B, C with weights 1, 2, 3, one destination, long connections: `C C C C B B B A A C B C …`.
//!
//! # The set
//! The first server lies in the destination's entry, up to sixteen further ones in its [`Set`](affinity::Set), the newest last; the
//! entry's link word says how many, when they changed, and whether somebody is changing them. Whoever finds that somebody
//! else is changing the set leaves it alone. The kernel's sets have no bound; here a server that would be the eighteenth takes the
//! place of the one that joined first, after seventeen servers were found loaded.

use crate::carried::Carried;
use crate::conn::table::{self, Found, SlotId};
use crate::conn::word::Tick;
use crate::env::{Env, Step};
use crate::sched::affinity::{self, FURTHER, KEY, Member, Set};
use crate::sched::wlc::{self, overhead};
use crate::sched::{Choice, Question};
use crate::service::{Service, lane_of};

/// The destination's server.
#[inline(always)]
pub(super) fn choose<E: Env>(env: &E, service: &Service, question: &Question) -> Choice {
    let Some(slot) = affinity::find(env, service, question) else {
        return Choice::of(wlc::pick(env, service)).to_be_remembered();
    };
    let best = least(env, slot, question.service);
    shrink(env, slot, question.service);
    if let Some(server) = best
        && !affinity::is_loaded(env, service, server)
    {
        return Choice::of(Some(server));
    }
    let server = wlc::pick(env, service);
    if let Some(server) = server {
        join(env, slot, server);
    }
    Choice::of(server)
}

/// The link word of an entry: how many further servers, since when, and whether somebody is at it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Shape(u64);

impl Shape {
    const BUSY: u64 = 1 << 40;

    #[inline(always)]
    const fn new(further: u32, changed: Tick) -> Self {
        Self(changed.count() as u64 | (further as u64) << 24)
    }

    #[inline(always)]
    const fn further(self) -> u32 {
        (self.0 >> 24) as u32 & 0xff
    }

    #[inline(always)]
    const fn changed(self) -> Tick {
        Tick::new(self.0 as u32)
    }
}

/// The servers of the destination in a slot.
struct Replicas<'e, E> {
    env: &'e E,
    slot: SlotId,
}

impl<'e, E: Env> Replicas<'e, E> {
    #[inline(always)]
    fn entry(&self) -> Option<Found<'e, KEY>> {
        table::at(self.env.affinity(), self.slot)
    }

    #[inline(always)]
    fn shape(&self) -> Shape {
        Shape(self.entry().map_or(0, |found| found.body.link.load()))
    }

    #[inline(always)]
    fn set(&self) -> Option<&'e Set> {
        self.env.set(self.slot.0)
    }

    /// The server at a place: 0 is the one that came first.
    #[inline(always)]
    fn at(&self, place: u32) -> Option<Member> {
        if place == 0 {
            return self.entry().map(|found| Member(found.body.entry.load()));
        }
        Some(Member(self.set()?.members[further(place)].load()))
    }

    /// Puts a server at a place.
    #[inline(always)]
    fn put(&self, place: u32, member: Member) {
        if place != 0 {
            if let Some(set) = self.set() {
                set.members[further(place)].store(member.0);
            }
        } else if let Some(found) = self.entry() {
            found.body.entry.store(member.0);
        }
    }

    /// Takes the set for changing; `None`: somebody else has it.
    #[inline(always)]
    fn take(&self) -> Option<Shape> {
        let link = &self.entry()?.body.link;
        let shape = Shape(link.load());
        let free = shape.0 & Shape::BUSY == 0;
        (free && link.swap_if(shape.0, shape.0 | Shape::BUSY).is_ok()).then_some(shape)
    }

    #[inline(always)]
    fn give_back(&self, shape: Shape) {
        if let Some(found) = self.entry() {
            found.body.link.store(shape.0);
        }
    }

    /// Takes the server at this place out; those behind it move up.
    #[inline(always)]
    fn close_up(&self, place: u32, last: u32) {
        let mut shift = Shift { replicas: self, place };
        self.env.repeat(last.wrapping_sub(place), &mut shift);
    }

    /// Is this server among them?
    #[inline(always)]
    fn has(&self, member: Member, last: u32) -> bool {
        let mut search = Search { replicas: self, member, found: Carried::new(false) };
        self.env.repeat(last.wrapping_add(1), &mut search);
        search.found.get()
    }
}

/// Where in the set a place other than 0 lies.
#[inline(always)]
fn further(place: u32) -> usize {
    // Opaque, lest the compiler leave out the mask where it knows the place to be small: the verifier does not know.
    core::hint::black_box(place.wrapping_sub(1)) as usize & (FURTHER - 1)
}

/// The least loaded usable server; among equals the one that joined last.
#[inline(never)]
fn least<E: Env>(env: &E, slot: SlotId, service: u32) -> Option<u32> {
    let replicas = Replicas { env, slot };
    let last = replicas.shape().further();
    let mut least = Extreme::new(&replicas, service, last, Extremity::Least);
    env.repeat(last.wrapping_add(1), &mut least);
    (least.weight.get() != 0).then_some(least.server.get())
}

/// A set that did not change for `lblcr_expiration` loses its most loaded server.
#[inline(never)]
fn shrink<E: Env>(env: &E, slot: SlotId, service: u32) {
    let replicas = Replicas { env, slot };
    let (shape, now) = (replicas.shape(), env.now());
    let expiration = env.config().map_or(u32::MAX, |config| config.lblcr_expiration.load());
    if shape.further() == 0 || now.since(shape.changed()) <= expiration {
        return;
    }
    let Some(shape) = replicas.take() else { return };
    let last = shape.further();
    let mut most = Extreme::new(&replicas, service, last, Extremity::Most);
    env.repeat(last.wrapping_add(1), &mut most);
    if most.weight.get() == 0 || last == 0 {
        return replicas.give_back(shape);
    }
    replicas.close_up(most.place.get(), last);
    replicas.give_back(Shape::new(last.wrapping_sub(1), now));
}

/// A server joins the set, if it is not in it.
#[inline(never)]
fn join<E: Env>(env: &E, slot: SlotId, server: u32) {
    let replicas = Replicas { env, slot };
    let Some(member) = Member::of(env, server) else { return };
    let Some(shape) = replicas.take() else { return };
    let last = shape.further();
    if replicas.has(member, last) {
        return replicas.give_back(shape);
    }
    if last < FURTHER as u32 {
        replicas.put(last.wrapping_add(1), member);
        return replicas.give_back(Shape::new(last.wrapping_add(1), env.now()));
    }
    replicas.close_up(0, last);
    replicas.put(last, member);
    replicas.give_back(Shape::new(last, env.now()));
}

/// Which server is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extremity {
    /// The least loaded one that may get new connections.
    Least,
    /// The most loaded one that has a weight.
    Most,
}

/// Looks for a server in the set, from the one that joined last.
struct Extreme<'r, 'e, E> {
    replicas: &'r Replicas<'e, E>,
    load: Carried<u64>,
    weight: Carried<u32>,
    service: u32,
    last: u32,
    place: Carried<u32>,
    server: Carried<u32>,
    wanted: Extremity,
}

impl<'r, 'e, E> Extreme<'r, 'e, E> {
    #[inline(always)]
    fn new(replicas: &'r Replicas<'e, E>, service: u32, last: u32, wanted: Extremity) -> Self {
        Self {
            replicas,
            load: Carried::new(0),
            weight: Carried::new(0),
            service,
            last,
            place: Carried::new(0),
            server: Carried::new(0),
            wanted,
        }
    }
}

impl<E: Env> Step for Extreme<'_, '_, E> {
    #[inline(always)]
    fn turn(&mut self, i: u32) -> bool {
        let place = self.last.wrapping_sub(i);
        let Some(member) = self.replicas.at(place) else { return true };
        let Some(block) = member.block(self.replicas.env, self.service) else { return true };
        let lane = lane_of(member.server());
        let weight = block.weight[lane].load();
        let least = matches!(self.wanted, Extremity::Least);
        if weight == 0 || (least && block.overload[lane].load() != 0) {
            return true;
        }
        let load = overhead(block.active[lane].load(), block.total[lane].load());
        let bests_weight = self.weight.get();
        let mine = load.wrapping_mul(bests_weight as u64);
        let best = self.load.get().wrapping_mul(weight as u64);
        let better = if least { mine < best } else { mine > best };
        if bests_weight == 0 || better {
            self.load.set(load);
            self.weight.set(weight);
            self.place.set(place);
            self.server.set(member.server());
        }
        true
    }
}

/// Moves the servers behind a place up by one.
struct Shift<'r, 'e, E> {
    replicas: &'r Replicas<'e, E>,
    place: u32,
}

impl<E: Env> Step for Shift<'_, '_, E> {
    #[inline(always)]
    fn turn(&mut self, i: u32) -> bool {
        let place = self.place.wrapping_add(i);
        if let Some(next) = self.replicas.at(place.wrapping_add(1)) {
            self.replicas.put(place, next);
        }
        true
    }
}

/// Looks for a server in the set.
struct Search<'r, 'e, E> {
    replicas: &'r Replicas<'e, E>,
    member: Member,
    found: Carried<bool>,
}

impl<E: Env> Step for Search<'_, '_, E> {
    #[inline(always)]
    fn turn(&mut self, i: u32) -> bool {
        let Some(member) = self.replicas.at(i) else { return false };
        let found = member == self.member;
        self.found.set(found);
        !found
    }
}
