//! Finding the service of a packet, and making the entry of its connection.

use super::flow::Flow;
use super::life::{assures, beginning, count_connection, count_in_packet};
use super::request::Decision;
use super::schedule::FTP_DATA;
use crate::cell::barrier;
use crate::config::switch;
use crate::conn::entry::{Backlink, Entry, Link};
use crate::conn::key::{self, Kind};
use crate::conn::table::{self, Found, Memory, New, Probe, Refused, SlotId};
use crate::conn::word::Word;
use crate::env::Env;
use crate::expire;
use crate::family::{Ends, Family};
use crate::marks::{self, Seen};
use crate::method::{BYPASS, Method};
use crate::persist;
use crate::server::{self, Server};
use crate::service::{block_of, lane_of};
use crate::state::Direction;
use crate::trace::Note;
use crate::verdict::DropReason;

/// The kernel's order: its mark's service; the very port; FTP's service for what may be its data; the service for all ports.
#[inline(always)]
pub fn find_service<F: Family<K>, E: Env, const K: usize>(env: &E, flow: &Flow<'_, F, K>) -> Option<u32> {
    let port = flow.transport.dst;
    let rules = flow.config.mark_rules.load();
    let marked = if rules == 0 { NO_SERVICE } else { service_of_mark(env, flow, rules) };
    u32::try_from(marked)
        .ok()
        .or_else(|| service_at(env, flow, port))
        .or_else(|| if may_be_ftp_data(flow, port) { service_at(env, flow, persist::FTP) } else { None })
        .or_else(|| {
            let any = flow.config.has(switch::ANY_PORT_SERVICE);
            if any { service_at(env, flow, [0, 0]) } else { None }
        })
}

/// What is no service's id.
const NO_SERVICE: u64 = u64::MAX;

/// A function with a stack frame of its own, which its caller's is too full for. Its result is a single number, as the kernel wants it.
#[inline(never)]
fn service_of_mark<F: Family<K>, E: Env, const K: usize>(env: &E, flow: &Flow<'_, F, K>, rules: u32) -> u64 {
    let seen = Seen {
        dest: F::as_marked(flow.net.dst),
        port: u16::from_be_bytes(flow.transport.dst),
        protocol: flow.net.protocol as u16,
        is_v6: (K != key::V4) as u32,
    };
    let mark = marks::mark_of(env, rules, &seen);
    if mark == 0 {
        return NO_SERVICE;
    }
    match service_under(env, flow, mark_key::<F, K>(mark)) {
        // IPVS sees what routing calls local, and that may depend on the mark.
        Some(_) if F::leads_elsewhere(env, &flow.net, mark) => NO_SERVICE,
        service => service.map_or(NO_SERVICE, u64::from),
    }
}

/// `ip_unprivileged_port_start`, at its default.
const UNPRIVILEGED: u16 = 1024;

#[inline(always)]
fn may_be_ftp_data<F: Family<K>, const K: usize>(flow: &Flow<'_, F, K>, port: [u8; 2]) -> bool {
    flow.is_tcp()
        && flow.config.has(switch::FTP_SERVICE)
        && (port == FTP_DATA || u16::from_be_bytes(port) >= UNPRIVILEGED)
}

#[inline(always)]
fn service_at<F: Family<K>, E: Env, const K: usize>(
    env: &E,
    flow: &Flow<'_, F, K>,
    port: [u8; 2],
) -> Option<u32> {
    service_under(env, flow, service_key::<F, K>(flow.net.dst, port, flow.net.protocol))
}

/// What lies under a key of the service table: a service's id, or a NAT server's.
#[inline(always)]
pub fn service_under<F: Family<K>, E: Env, const K: usize>(
    env: &E,
    flow: &Flow<'_, F, K>,
    key: [u64; K],
) -> Option<u32> {
    let memory = F::services(env);
    let probe = flow.probe(memory, key);
    let slot = memory.look_up(&probe)?;
    let found = table::hold(memory, slot, &probe)?;
    let service = found.body.entry.load() as u32;
    found.is_there().then_some(service)
}

/// The key under which a service lies in the service table. Port as on the wire.
#[inline(always)]
pub fn service_key<F: Family<K>, const K: usize>(vip: F::Addr, port: [u8; 2], protocol: u8) -> [u64; K] {
    F::key(&Ends { from: F::NOWHERE, from_port: [0; 2], to: vip, to_port: port, protocol }, Kind::Conn)
}

/// The same for a mark service.
#[inline(always)]
pub fn mark_key<F: Family<K>, const K: usize>(mark: u32) -> [u64; K] {
    service_key::<F, K>(F::mark(mark), [0; 2], 0)
}

/// The key under which a NAT server lies there. Port as on the wire; protocol 0: a mark's server, whose packets are of any.
#[inline(always)]
pub fn server_key<F: Family<K>, const K: usize>(addr: F::Addr, port: [u8; 2], protocol: u8) -> [u64; K] {
    let ends = Ends { from: addr, from_port: port, to: F::NOWHERE, to_port: [0; 2], protocol };
    F::key(&ends, Kind::Server)
}

/// A connection to be opened.
#[derive(Clone, Copy)]
pub struct Opening {
    /// Its template, if it has one.
    pub link: Link,
    /// The service's id.
    pub service: u32,
    /// The server's id.
    pub server: u32,
    /// The server's port, as on the wire.
    pub port: [u8; 2],
    /// What must be made first.
    pub wants: Wants,
}

impl Opening {
    /// None.
    pub const NONE: Self =
        Self { link: Link::NONE, service: 0, server: 0, port: [0; 2], wants: Wants::Nothing };
}

/// What a connection to be opened still wants. As wide as what stands before it: the verifier refuses to read what was never
/// written, gaps included.
#[derive(Clone, Copy, PartialEq)]
#[repr(u16)]
pub enum Wants {
    /// It is kept nowhere (one-packet scheduling).
    Nothing,
    /// Its entry.
    Entry,
    /// A template for its client; it is looked at again then.
    Template,
}

/// Opens a connection: its template first where it wants one, then its entry. `None`: there is no room.
#[inline(always)]
pub fn open<F: Family<K>, E: Env, const K: usize>(
    env: &E,
    flow: &Flow<'_, F, K>,
    opening: &Opening,
) -> Option<Decision> {
    let made = match opening.wants {
        Wants::Nothing => return Some(send_once(env, flow, opening)),
        Wants::Entry => connect(env, flow, &probe(env, flow, opening)?, opening),
        Wants::Template => {
            let (service, probe) = (env.service(opening.service)?, probe(env, flow, opening)?);
            let made = persist::make::<F, E, K>(env, service, &flow.asked(0), &probe, opening.server);
            // The template is there now, or somebody else's: the next attempt finds it.
            made.map(|_| Decision::Again)
        }
    };
    match made {
        Ok(decision) => Some(decision),
        Err(Refused::Full) => None,
        Err(Refused::Exists | Refused::Contended) => Some(Decision::Again),
    }
}

/// Where what a connection wants will lie.
#[inline(always)]
fn probe<F: Family<K>, E: Env, const K: usize>(
    env: &E,
    flow: &Flow<'_, F, K>,
    opening: &Opening,
) -> Option<Probe<K>> {
    Some(match opening.wants {
        Wants::Template => flow.template_probe(env, env.service(opening.service)?),
        Wants::Nothing | Wants::Entry => flow.probe(F::conns(env), flow.request_key()),
    })
}

/// What a connection wants found no room: what has expired there goes. `false`: all that is there lives.
#[inline(always)]
pub fn make_room<F: Family<K>, E: Env, const K: usize>(
    env: &E,
    flow: &Flow<'_, F, K>,
    opening: &Opening,
) -> bool {
    let Some(probe) = probe(env, flow, opening) else { return false };
    expire::reclaim::<F, E, K>(env, flow.config, &probe, flow.now)
}

/// A datagram for which no connection is kept.
#[inline(always)]
fn send_once<F: Family<K>, E: Env, const K: usize>(
    env: &E,
    flow: &Flow<'_, F, K>,
    opening: &Opening,
) -> Decision {
    let Some(server) = env.server(opening.server) else { return Decision::Drop(DropReason::Broken) };
    count_connection(env, server, flow);
    if let Some(template) = opening.link.template().and_then(|slot| table::at(F::conns(env), SlotId(slot))) {
        // It stands for the connections that are not kept.
        count_in_packet(&template, Link(template.body.link.load()));
    }
    let method = (server.flags() & server::flag::METHOD) as u8;
    Decision::Forward(Entry::new(opening.server, opening.port, method))
}

/// Makes the entry of a new connection, in the state that its first packet leads to.
#[inline(always)]
fn connect<F: Family<K>, E: Env, const K: usize>(
    env: &E,
    flow: &Flow<'_, F, K>,
    probe: &Probe<K>,
    opening: &Opening,
) -> Result<Decision, Refused> {
    let Opening { server: id, port, link, .. } = *opening;
    let (Some(server), Some(block)) = (env.server(id), env.block(block_of(id))) else {
        return Ok(Decision::Drop(DropReason::Broken));
    };
    let method = (server.flags() & server::flag::METHOD) as u8;
    let entry = Entry::new(id, port, method);
    let nat = method == Method::Masquerade as u8;
    let direction = if nat | (method == BYPASS) { Direction::Input } else { Direction::InputOnly };
    let word = beginning(flow, direction);
    hold_template::<F, E, K>(env, link);
    let new = New { word, entry: entry.0, link: link.0 | FIRST_PACKET };
    let put = F::conns(env).put(probe, &new);
    let slot = put.inspect_err(|_| expire::release_template::<F, E, K>(env, link))?;
    block.bind(lane_of(id));
    if word.active() {
        block.count_active(lane_of(id), true);
    }
    if assures(flow, Word(0), word)
        && let Some(template) = link.template()
    {
        persist::assure::<F, E, K>(env, template);
    }
    // The entry is counted from here on; should it be gone already, its remover has settled with the counters.
    let Some(found) = table::hold(F::conns(env), slot, probe) else { return Ok(Decision::Again) };
    if nat && let Err(why) = link_reply(env, flow, &found, server, port) {
        let _ended_by_another = expire::remove::<F, E, K>(env, flow.config, &found);
        return match why {
            Refused::Full => Ok(Decision::Drop(DropReason::TableFull)),
            Refused::Exists | Refused::Contended => Ok(Decision::Again),
        };
    }
    env.note(|| Note::opened::<K>(found.id));
    count_connection(env, server, flow);
    Ok(Decision::Forward(entry))
}

/// What a new connection's link counts: the packet that opened it.
const FIRST_PACKET: u64 = 1;

/// A connection's template controls one more. Before the connection is there: whoever removes it takes that back.
#[inline(always)]
fn hold_template<F: Family<K>, E: Env, const K: usize>(env: &E, link: Link) {
    if let Some(slot) = link.template()
        && let Some(template) = table::at(F::conns(env), SlotId(slot))
    {
        let _before = template.body.link.add(Link::CONTROLLED);
    }
}

/// Lets the replies of a NAT connection find it.
#[inline(always)]
fn link_reply<F: Family<K>, E: Env, const K: usize>(
    env: &E,
    flow: &Flow<'_, F, K>,
    found: &Found<'_, K>,
    server: &Server,
    port: [u8; 2],
) -> Result<(), Refused> {
    let memory = F::replies(env);
    let key = expire::reply_key::<F, K>(flow.request_key(), F::server_addr(server), port);
    let probe = flow.probe(memory, key);
    let link = Backlink::new(found.id.0, found.word.generation());
    if let Some(old) = memory.look_up(&probe).and_then(|slot| table::hold(memory, slot, &probe)) {
        // The same client port to the same server by another VIP: like the kernel's, the newer one gets the replies. Not
        // written over: the older connection's end would not see the difference and remove what is no longer its own.
        let _by_us_or_another = table::remove(&old);
    }
    let new = New { word: Word(0).seen_at(flow.now), entry: link.0, link: 0 };
    let slot = memory.put(&probe, &new)?;
    // Who ended the connection meanwhile either saw the backlink and removed it, or it is ours to remove.
    barrier();
    if !found.is_there()
        && let Some(mine) = table::hold(memory, slot, &probe)
        && mine.body.entry.load() == link.0
    {
        let _by_us_or_another = table::remove(&mine);
    }
    Ok(())
}
