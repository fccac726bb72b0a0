//! Persistence: the connections of clients that are equal under the service's mask go to one server, as long as the
//! template lives that remembers it.
//!
//! A template lies in the connection table under a key of its own kind, without the client's port. It lives for the
//! service's timeout after the last connection that was opened through it, and 60 s at a time after that while any of
//! these connections lives. It holds its server at weight 0 and over its threshold; only a server that is gone loses its
//! clients, and with `expire_quiescent_template` one of weight 0 does (`ip_vs_sched_persist`, Linux 6.12).

use crate::config::{Config, switch};
use crate::conn::Memory;
use crate::conn::entry::{Entry, Link};
use crate::conn::key::Kind;
use crate::conn::table::{self, Change, Found, New, Probe, Refused, SlotId};
use crate::conn::word::{Tick, Word};
use crate::env::Env;
use crate::expire;
use crate::family::{Ends, Family};
use crate::server;
use crate::service::{Service, block_of, flag, lane_of};
use crate::state;

/// FTP's control port: templates of its service are for every port, so that the data connections find them.
pub const FTP: [u8; 2] = 21u16.to_be_bytes();

/// A packet that would open a connection of a persistent service. Addresses and port as on the wire.
#[derive(Clone, Copy, Debug)]
pub struct Asked<A> {
    /// The service's id.
    pub service: u32,
    /// The client.
    pub client: A,
    /// The packet's destination.
    pub vip: A,
    /// The packet's destination port.
    pub port: [u8; 2],
    /// IP protocol.
    pub protocol: u8,
}

/// Why there is no template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Without {
    /// The client has none: choose a server and [`make`] one.
    Template = 1,
    /// Another processor was faster: begin again.
    Luck = 2,
}

/// A template's slot or why there is none, in a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome(pub u64);

impl Outcome {
    const WHY: u32 = 32;

    #[inline(always)]
    fn of(result: Result<SlotId, Without>) -> Self {
        match result {
            Ok(slot) => Self(slot.0 as u64),
            Err(why) => Self((why as u64) << Self::WHY),
        }
    }

    /// The template's slot, or why there is none.
    #[inline(always)]
    pub fn slot(self) -> Result<SlotId, Without> {
        match (self.0 >> Self::WHY) as u8 {
            0 => Ok(SlotId(self.0 as u32)),
            1 => Err(Without::Template),
            _ => Err(Without::Luck),
        }
    }
}

/// Finds the template for a new connection. Its time begins anew.
#[inline(always)]
pub fn find<F: Family<K>, E: Env, const K: usize>(env: &E, asked: &Asked<F::Addr>) -> Outcome {
    Outcome::of(found::<F, E, K>(env, asked))
}

#[inline(always)]
fn found<F: Family<K>, E: Env, const K: usize>(env: &E, asked: &Asked<F::Addr>) -> Result<SlotId, Without> {
    let (Some(config), Some(service)) = (env.config(), env.service(asked.service)) else {
        return Err(Without::Luck);
    };
    let (memory, now) = (F::conns(env), env.now());
    let key = template_key::<F, K>(service, asked);
    let probe = Probe::new(key, config.seed.load(), memory.buckets());
    let slot = memory.look_up(&probe).ok_or(Without::Template)?;
    let found = table::hold(memory, slot, &probe).ok_or(Without::Luck)?;
    if table::is_expired(found.word, now, config.timeout(found.word.class())) {
        // Gone, or at another time: either way it is to be looked at again.
        let _ended = expire::end::<F, E, K>(env, config, &found);
        return Err(Without::Luck);
    }
    if holds(env, config, &found) {
        return renew(&found, now);
    }
    // The connections that it controls keep it, but no new one finds it.
    match found.cell.swap_if(found.word.0, found.word.as_void().0) {
        Ok(()) => Err(Without::Template),
        Err(_changed) => Err(Without::Luck),
    }
}

/// Makes the template of a client that this server was chosen for.
#[inline(always)]
pub fn make<F: Family<K>, E: Env, const K: usize>(
    env: &E,
    service: &Service,
    asked: &Asked<F::Addr>,
    probe: &Probe<K>,
    id: u32,
) -> Result<SlotId, Refused> {
    let (Some(server), Some(block)) = (env.server(id), env.block(block_of(id))) else {
        return Err(Refused::Contended);
    };
    let lane = lane_of(id);
    let port = if is_for_one_port(service, asked) { block.port_of(lane) } else { [0, 0] };
    let entry = Entry::new(id, port, (server.flags() & server::flag::METHOD) as u8);
    let class = service.persist_class.load() as u8;
    let word = Word(0).as_template().in_state(state::template::NONE, class, false).seen_at(env.now());
    let slot = F::conns(env).put(probe, &New { word, entry: entry.0, link: Link::TEMPLATE.0 })?;
    block.count_persistent(lane, true);
    Ok(slot)
}

/// May its server still be given to clients that had it before?
#[inline(always)]
fn holds<E: Env, const K: usize>(env: &E, config: &Config, found: &Found<'_, K>) -> bool {
    let Some(server) = env.server(Entry(found.body.entry.load()).server()) else { return false };
    let flags = server.flags();
    let quiesced = flags & server::flag::QUIESCED != 0 && config.has(switch::EXPIRE_QUIESCENT_TEMPLATE);
    flags & server::flag::AVAILABLE != 0 && !quiesced
}

#[inline(always)]
fn renew<const K: usize>(found: &Found<'_, K>, now: Tick) -> Result<SlotId, Without> {
    match table::change(found, 4, |word| word.seen_at(now), |_, _| {}) {
        Change::Done => Ok(found.id),
        Change::Gone | Change::Contended => Err(Without::Luck),
    }
}

/// Does the template stand for the service's own port, rather than for every port that leads to it?
#[inline(always)]
fn is_for_one_port<A>(service: &Service, asked: &Asked<A>) -> bool {
    service.has_port(asked.port) && asked.port != FTP
}

/// What a template lies under: `<protocol, masked client, 0, VIP, port>`; of a mark service `<IP, masked client, 0, mark, 0>`.
#[inline(always)]
pub fn template_key<F: Family<K>, const K: usize>(service: &Service, asked: &Asked<F::Addr>) -> [u64; K] {
    let from = F::masked(asked.client, service.persist_mask.load());
    let (to, to_port, protocol) = if is_for_one_port(service, asked) {
        (asked.vip, asked.port, asked.protocol)
    } else if service.has(flag::MARK) && !service.has_port(asked.port) {
        (F::mark(service.mark.load()), [0, 0], 0)
    } else {
        (asked.vip, [0, 0], asked.protocol)
    };
    F::key(&Ends { from, from_port: [0, 0], to, to_port, protocol }, Kind::Template)
}

/// A connection through it was established: the template outlives what `drop_entry` takes away.
#[inline(always)]
pub fn assure<F: Family<K>, E: Env, const K: usize>(env: &E, slot: u32) {
    let Some(template) = table::at(F::conns(env), SlotId(slot)) else { return };
    if !template.word.template() || template.word.state() == state::template::ASSURED {
        return;
    }
    let assured = |word: Word| word.in_state(state::template::ASSURED, word.class(), false);
    let _stays_unassured_if_contended = table::change(&template, 4, assured, |_, _| {});
}
