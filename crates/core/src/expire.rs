//! The end of a connection: whoever removes its entry settles its accounts.

use crate::cell::barrier;
use crate::config::{Config, class};
use crate::conn::Memory;
use crate::conn::entry::{Backlink, Entry, Link};
use crate::conn::key::{self, Kind, V4};
use crate::conn::table::{self, Found, Probe, SlotId};
use crate::conn::word::{Tick, Word};
use crate::env::{Env, Step};
use crate::method::Method;
use crate::service::{block_of, lane_of};
use crate::state;

/// Removes an IPv4 entry as it was seen, and takes from the counters what it had counted. `false`: it changed
/// meanwhile, and nothing happened.
#[inline(always)]
pub fn remove_v4<E: Env>(env: &E, config: &Config, found: &Found<'_, V4>) -> bool {
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
    release_template_v4(env, link);
    if entry.method() == Method::Masquerade as u8 {
        forget_reply_v4(env, config, found, key, entry);
    }
    true
}

/// A connection's template controls one less. It is still there: none ends while it controls any.
#[inline(always)]
pub fn release_template_v4<E: Env>(env: &E, link: Link) {
    if let Some(slot) = link.template()
        && let Some(template) = table::at(env.conns_v4(), SlotId(slot))
    {
        let _before = template.body.link.add(Link::CONTROLLED.wrapping_neg());
    }
}

/// Ends an entry whose time is over. A template that still controls connections lives on, for 60 s at a time, as in the
/// kernel. Returns whether the entry was removed.
#[inline(always)]
pub fn end_v4<E: Env>(env: &E, config: &Config, found: &Found<'_, V4>) -> bool {
    if found.word.template() && Link(found.body.link.load()).controlled() != 0 {
        let over = found.word.last_seen().count().wrapping_add(config.timeout(found.word.class()));
        let rearmed = found.word.with_class(class::REARMED).seen_at(Tick::new(over));
        // If it fails, the template was used meanwhile: nothing is over.
        let _used = found.cell.swap_if(found.word.0, rearmed.0);
        return false;
    }
    remove_v4(env, config, found)
}

/// Removes a connection before its time, if its word still says what it said when that was decided. Its template goes too
/// when it controls nothing else and was never assured, as in the kernel.
#[inline(always)]
pub fn evict_v4<E: Env>(env: &E, config: &Config, slot: SlotId, seen: Word) -> bool {
    let Some(found) = table::at(env.conns_v4(), slot) else { return false };
    // When it was last seen may be later by now.
    if found.word.seen_at(Tick::new(0)).0 != seen.seen_at(Tick::new(0)).0 {
        return false;
    }
    let template = if found.word.template() { None } else { Link(found.body.link.load()).template() };
    if !remove_v4(env, config, &found) {
        return false;
    }
    if let Some(template) = template.and_then(|slot| table::at(env.conns_v4(), SlotId(slot)))
        && template.word.state() != state::template::ASSURED
        && Link(template.body.link.load()).controlled() == 0
    {
        let _used = remove_v4(env, config, &template);
    }
    true
}

/// Removes the backlink of a NAT connection, unless a newer connection took it over.
#[inline(always)]
fn forget_reply_v4<E: Env>(env: &E, config: &Config, found: &Found<'_, V4>, key: [u64; V4], entry: Entry) {
    let Some(server) = env.server(entry.server()) else { return };
    let probe = reply_probe_v4(env, config, key, server.addr_v4(), entry.port());
    let memory = env.replies_v4();
    // Whoever is just making the backlink looks whether the connection is still there.
    barrier();
    if let Some(reply) = memory.look_up(&probe).and_then(|slot| table::at(memory, slot)) {
        let meant = Backlink::new(found.id.0, found.word.generation());
        if reply.body.entry.load() == meant.0 {
            let _taken_over = table::remove(&reply);
        }
    }
}

/// Where the reply of a NAT connection with this key is looked up: from the server, to the client.
#[inline(always)]
pub fn reply_probe_v4<E: Env>(
    env: &E,
    config: &Config,
    key: [u64; V4],
    server: [u8; 4],
    port: [u8; 2],
) -> Probe<V4> {
    let (client, client_port, _, _, protocol, _) = key::parts_v4(key);
    let reply = key::v4(server, port, client, client_port, protocol, Kind::Conn);
    Probe::new(reply, config.seed.load(), env.replies_v4().buckets())
}

/// Removes the entry in a slot if it has expired: what the sweeper asks for. Returns whether it was removed.
#[inline(always)]
pub fn sweep_slot_v4<E: Env>(env: &E, config: &Config, slot: SlotId, now: Tick) -> bool {
    let Some(found) = table::at(env.conns_v4(), slot) else { return false };
    if !table::is_expired(found.word, now, config.timeout(found.word.class())) {
        return false;
    }
    end_v4(env, config, &found)
}

/// Removes what has expired from the buckets that a new entry may go into: so the table goes on taking connections while
/// no daemon sweeps it. `false`: all that is there lives.
#[inline(always)]
pub fn reclaim_v4<E: Env>(env: &E, config: &Config, probe: &Probe<V4>, now: Tick) -> bool {
    let mut reclaim = Reclaim { env, config, now, buckets: probe.candidates(), reclaimed: false };
    env.repeat(2 * table::LANES as u32, &mut reclaim);
    reclaim.reclaimed
}

struct Reclaim<'a, E> {
    env: &'a E,
    config: &'a Config,
    now: Tick,
    buckets: [u32; 2],
    reclaimed: bool,
}

impl<E: Env> Step for Reclaim<'_, E> {
    #[inline(always)]
    fn turn(&mut self, i: u32) -> bool {
        let [first, second] = self.buckets;
        let bucket = if i < table::LANES as u32 { first } else { second };
        let slot = SlotId::new(bucket, (i & 7) as usize);
        self.reclaimed |= sweep_slot_v4(self.env, self.config, slot, self.now);
        true
    }
}
