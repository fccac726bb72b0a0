//! The end of a connection: whoever removes its entry settles its accounts.

use crate::cell::barrier;
use crate::config::Config;
use crate::conn::Memory;
use crate::conn::entry::{Backlink, Entry};
use crate::conn::key::{self, Kind, V4};
use crate::conn::table::{self, Found, Probe, SlotId};
use crate::conn::word::Tick;
use crate::env::Env;
use crate::method::Method;
use crate::service::{block_of, lane_of};

/// Removes an IPv4 entry as it was seen, and takes from the counters what it had counted. `false`: it changed
/// meanwhile, and nothing happened.
#[inline(always)]
pub fn remove_v4<E: Env>(env: &E, config: &Config, found: &Found<'_, V4>) -> bool {
    // Read before the slot is free: afterwards another connection may lie there.
    let key = found.body.key();
    let entry = Entry(found.body.entry.load());
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
    if entry.method() == Method::Masquerade as u8 && !found.word.template() {
        forget_reply_v4(env, config, found, key, entry);
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
    remove_v4(env, config, &found)
}
