//! The end of a connection: whoever removes its entry settles its accounts.

use core::marker::PhantomData;

use crate::carried::Carried;
use crate::cell::barrier;
use crate::config::{Config, class};
use crate::conn::Memory;
use crate::conn::entry::{Backlink, Entry, Link};
use crate::conn::key::{self, Kind};
use crate::conn::table::{self, Found, Probe, SlotId};
use crate::conn::word::{Tick, Word};
use crate::env::{Env, Step};
use crate::family::{self, Ends, Family};
use crate::method::Method;
use crate::service::{block_of, lane_of};
use crate::state;

/// Removes an entry as it was seen, and takes from the counters what it had counted. `false`: it changed
/// meanwhile, and nothing happened.
#[inline(always)]
pub fn remove<F: Family<K>, E: Env, const K: usize>(env: &E, config: &Config, found: &Found<'_, K>) -> bool {
    // Read before the slot is free: afterwards another connection may lie there.
    let key = found.body.key();
    let entry = Entry(found.body.entry.load());
    let link = Link(found.body.link.load());
    if !table::remove(found) {
        return false;
    }
    if let Some(block) = env.block(block_of(entry.server())) {
        let lane = lane_of(entry.server());
        if found.word.template() {
            block.count_persistent(lane, false);
        } else {
            if found.word.active() {
                block.count_active(lane, false);
            }
            block.unbind(lane);
        }
    }
    if found.word.template() {
        return true;
    }
    release_template::<F, E, K>(env, link);
    if entry.method() == Method::Masquerade as u8 {
        forget_reply::<F, E, K>(env, config, found, key, entry);
    }
    true
}

/// A connection's template controls one less. It is still there: none ends while it controls any.
#[inline(always)]
pub fn release_template<F: Family<K>, E: Env, const K: usize>(env: &E, link: Link) {
    if let Some(slot) = link.template()
        && let Some(template) = table::at(F::conns(env), SlotId(slot))
    {
        let _before = template.body.link.add(Link::CONTROLLED.wrapping_neg());
    }
}

/// Ends an entry whose time is over. A template that still controls connections lives on, for 60 s at a time, as in the
/// kernel. Returns whether the entry was removed.
#[inline(always)]
pub fn end<F: Family<K>, E: Env, const K: usize>(env: &E, config: &Config, found: &Found<'_, K>) -> bool {
    if found.word.template() && Link(found.body.link.load()).controlled() != 0 {
        // If it fails, the template was used meanwhile: nothing is over.
        let _used = found.cell.swap_if(found.word.0, rearmed(config, found.word).0);
        return false;
    }
    remove::<F, E, K>(env, config, found)
}

/// The word of a template whose time was over while it controlled connections: from then on it has 60 s.
#[inline(always)]
pub fn rearmed(config: &Config, word: Word) -> Word {
    let over = word.last_seen().count().wrapping_add(config.timeout(word.class()));
    word.with_class(class::REARMED).seen_at(Tick::new(over))
}

/// Removes a connection before its time, if its word still says what it said when that was decided. Its template goes too
/// when it controls nothing else and was never assured, as in the kernel.
#[inline(always)]
pub fn evict<F: Family<K>, E: Env, const K: usize>(
    env: &E,
    config: &Config,
    slot: SlotId,
    seen: Word,
) -> bool {
    let Some(found) = table::at(F::conns(env), slot) else { return false };
    // When it was last seen may be later by now.
    if found.word.seen_at(Tick::new(0)).0 != seen.seen_at(Tick::new(0)).0 {
        return false;
    }
    let template = if found.word.template() { None } else { Link(found.body.link.load()).template() };
    if !remove::<F, E, K>(env, config, &found) {
        return false;
    }
    if let Some(template) = template.and_then(|slot| table::at(F::conns(env), SlotId(slot)))
        && template.word.state() != state::template::ASSURED
        && Link(template.body.link.load()).controlled() == 0
    {
        let _used = remove::<F, E, K>(env, config, &template);
    }
    true
}

/// Removes the backlink of a NAT connection, unless a newer connection took it over.
#[inline(always)]
fn forget_reply<F: Family<K>, E: Env, const K: usize>(
    env: &E,
    config: &Config,
    found: &Found<'_, K>,
    key: [u64; K],
    entry: Entry,
) {
    let Some(server) = env.server(entry.server()) else { return };
    let memory = F::replies(env);
    let key = reply_key::<F, K>(key, F::server_addr(server), entry.port());
    let probe = Probe::new(key, config.seed.load(), memory.buckets());
    // Whoever is just making the backlink looks whether the connection is still there.
    barrier();
    if let Some(reply) = memory.look_up(&probe).and_then(|slot| table::at(memory, slot)) {
        let meant = Backlink::new(found.id.0, found.word.generation());
        if reply.body.entry.load() == meant.0 {
            let _taken_over = table::remove(&reply);
        }
    }
}

/// What the reply of a NAT connection with this key is looked up by: from the server, to the client.
#[inline(always)]
pub fn reply_key<F: Family<K>, const K: usize>(
    connection: [u64; K],
    server: F::Addr,
    port: [u8; 2],
) -> [u64; K] {
    let Ends { from, from_port, protocol, .. } = F::ends(connection);
    F::key(&Ends { from: server, from_port: port, to: from, to_port: from_port, protocol }, Kind::Conn)
}

/// Removes the entry in a slot if it has expired: what the sweeper asks for. Returns whether it was removed.
#[inline(always)]
pub fn sweep_slot<F: Family<K>, E: Env, const K: usize>(
    env: &E,
    config: &Config,
    slot: SlotId,
    now: Tick,
) -> bool {
    let Some(found) = table::at(F::conns(env), slot) else { return false };
    if !table::is_expired(found.word, now, config.timeout(found.word.class())) {
        return false;
    }
    end::<F, E, K>(env, config, &found)
}

/// [`sweep_slot`] of either family, by a slot's number ([`family::slot_of`]).
#[inline(always)]
pub fn sweep_numbered<E: Env>(env: &E, config: &Config, number: u32, now: Tick) -> bool {
    match family::slot_of(number) {
        (false, slot) => sweep_slot::<family::V4, E, { key::V4 }>(env, config, slot, now),
        (true, slot) => sweep_slot::<family::V6, E, { key::V6 }>(env, config, slot, now),
    }
}

/// [`evict`] of either family, likewise.
#[inline(always)]
pub fn evict_numbered<E: Env>(env: &E, config: &Config, number: u32, seen: Word) -> bool {
    match family::slot_of(number) {
        (false, slot) => evict::<family::V4, E, { key::V4 }>(env, config, slot, seen),
        (true, slot) => evict::<family::V6, E, { key::V6 }>(env, config, slot, seen),
    }
}

/// Removes what has expired from the buckets that a new entry may go into: so the table goes on taking connections while
/// no daemon sweeps it. `false`: all that is there lives.
#[inline(always)]
pub fn reclaim<F: Family<K>, E: Env, const K: usize>(
    env: &E,
    config: &Config,
    probe: &Probe<K>,
    now: Tick,
) -> bool {
    let buckets = probe.candidates();
    let mut reclaim =
        Reclaim::<F, E, K> { family: PhantomData, env, config, now, buckets, reclaimed: Carried::new(false) };
    env.repeat(2 * table::LANES as u32, &mut reclaim);
    reclaim.reclaimed.get()
}

struct Reclaim<'a, F, E, const K: usize> {
    family: PhantomData<F>,
    env: &'a E,
    config: &'a Config,
    now: Tick,
    buckets: [u32; 2],
    reclaimed: Carried<bool>,
}

impl<F: Family<K>, E: Env, const K: usize> Step for Reclaim<'_, F, E, K> {
    #[inline(always)]
    fn turn(&mut self, i: u32) -> bool {
        let [first, second] = self.buckets;
        let bucket = if i < table::LANES as u32 { first } else { second };
        let slot = SlotId::new(bucket, (i & 7) as usize);
        let swept = sweep_slot::<F, E, K>(self.env, self.config, slot, self.now);
        self.reclaimed.set(self.reclaimed.get() | swept);
        true
    }
}
