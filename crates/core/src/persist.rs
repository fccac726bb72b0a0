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
use crate::conn::key::{self, Kind, V4};
use crate::conn::table::{self, Change, Found, New, Probe, Refused, SlotId};
use crate::conn::word::{Tick, Word};
use crate::env::Env;
use crate::expire;
use crate::server;
use crate::service::{Service, block_of, flag, lane_of};
use crate::state;

/// FTP's control port: templates of its service are for every port, so that the data connections find them.
pub const FTP: [u8; 2] = 21u16.to_be_bytes();

/// A packet that would open a connection of a persistent service, in numbers.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The service's id.
    pub service: u32,
    /// The client, as on the wire.
    pub client: [u8; 4],
    /// The packet's destination, as on the wire.
    pub vip: [u8; 4],
    /// The packet's destination port, as on the wire.
    pub port: [u8; 2],
    /// IP protocol.
    pub protocol: u8,
}

/// Why there is no template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Without {
    /// The client has none: choose a server and [`make_v4`] one.
    Template = 1,
    /// The table is full.
    Room = 2,
    /// Another processor was faster: begin again.
    Luck = 3,
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
            2 => Err(Without::Room),
            _ => Err(Without::Luck),
        }
    }
}

/// Finds the template for a new connection. Its time begins anew.
#[inline(always)]
pub fn find_v4<E: Env>(env: &E, asked: &Asked) -> Outcome {
    Outcome::of(find(env, asked))
}

#[inline(always)]
fn find<E: Env>(env: &E, asked: &Asked) -> Result<SlotId, Without> {
    let (config, probe) = start(env, asked).ok_or(Without::Luck)?;
    let (memory, now) = (env.conns_v4(), env.now());
    let slot = memory.look_up(&probe).ok_or(Without::Template)?;
    let found = table::hold(memory, slot, &probe).ok_or(Without::Luck)?;
    if table::is_expired(found.word, now, config.timeout(found.word.class())) {
        // Gone, or at another time: either way it is to be looked at again.
        let _ended = expire::end_v4(env, config, &found);
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

/// Where the template of these is, or will be.
#[inline(always)]
fn start<'e, E: Env>(env: &'e E, asked: &Asked) -> Option<(&'e Config, Probe<V4>)> {
    let (config, service) = (env.config()?, env.service(asked.service)?);
    let key = template_key(service, asked);
    Some((config, Probe::new(key, config.seed.load(), env.conns_v4().buckets())))
}

/// Makes the template of a client that this server was chosen for.
#[inline(always)]
pub fn make_v4<E: Env>(
    env: &E,
    service: &Service,
    asked: &Asked,
    probe: &Probe<V4>,
    id: u32,
) -> Result<SlotId, Without> {
    let (Some(server), Some(block)) = (env.server(id), env.block(block_of(id))) else {
        return Err(Without::Luck);
    };
    let lane = lane_of(id);
    let port = if is_for_one_port(service, asked) { block.port_of(lane) } else { [0, 0] };
    let entry = Entry::new(id, port, (server.flags() & server::flag::METHOD) as u8);
    let class = service.persist_class.load() as u8;
    let word = Word(0).as_template().in_state(state::template::NONE, class, false).seen_at(env.now());
    match env.conns_v4().put(probe, &New { word, entry: entry.0, link: Link::TEMPLATE.0 }) {
        Ok(slot) => {
            block.count_persistent(lane, true);
            Ok(slot)
        }
        Err(Refused::Full) => Err(Without::Room),
        Err(Refused::Exists | Refused::Contended) => Err(Without::Luck),
    }
}

/// May its server still be given to clients that had it before?
#[inline(always)]
fn holds<E: Env>(env: &E, config: &Config, found: &Found<'_, V4>) -> bool {
    let Some(server) = env.server(Entry(found.body.entry.load()).server()) else { return false };
    let flags = server.flags();
    let quiesced = flags & server::flag::QUIESCED != 0 && config.has(switch::EXPIRE_QUIESCENT_TEMPLATE);
    flags & server::flag::AVAILABLE != 0 && !quiesced
}

#[inline(always)]
fn renew(found: &Found<'_, V4>, now: Tick) -> Result<SlotId, Without> {
    match table::change(found, 4, |word| word.seen_at(now), |_, _| {}) {
        Change::Done => Ok(found.id),
        Change::Gone | Change::Contended => Err(Without::Luck),
    }
}

/// Does the template stand for the service's own port, rather than for every port that leads to it?
#[inline(always)]
fn is_for_one_port(service: &Service, asked: &Asked) -> bool {
    service.has_port(asked.port) && asked.port != FTP
}

/// What a template lies under: `<protocol, masked client, 0, VIP, port>`; of a mark service `<IP, masked client, 0, mark, 0>`.
#[inline(always)]
pub fn template_key(service: &Service, asked: &Asked) -> [u64; V4] {
    let mask = service.persist_mask.load();
    let client = (u32::from_ne_bytes(asked.client) & mask).to_ne_bytes();
    let (vip, port, protocol) = if is_for_one_port(service, asked) {
        (asked.vip, asked.port, asked.protocol)
    } else if service.has(flag::MARK) && !service.has_port(asked.port) {
        (service.mark.load().to_be_bytes(), [0, 0], 0)
    } else {
        (asked.vip, [0, 0], asked.protocol)
    };
    key::v4(client, [0, 0], vip, port, protocol, Kind::Template)
}

/// A connection through it was established: the template outlives what `drop_entry` takes away.
#[inline(always)]
pub fn assure_v4<E: Env>(env: &E, slot: u32) {
    let Some(template) = table::at(env.conns_v4(), SlotId(slot)) else { return };
    if !template.word.template() || template.word.state() == state::template::ASSURED {
        return;
    }
    let assured = |word: Word| word.in_state(state::template::ASSURED, word.class(), false);
    let _stays_unassured_if_contended = table::change(&template, 4, assured, |_, _| {});
}
