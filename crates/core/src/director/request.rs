//! Packets to VIPs.

use super::answer::{Answer, Sent, hindered};
use super::clamp;
use super::connect::{Opening, make_room, open};
use super::flow::Flow;
use super::life::{
    advance, count_in, count_in_at_once, count_in_packet, request_direction, sent_at_once, try_advance,
};
use super::local;
use super::schedule::{is_foreign, schedule};
use crate::config::switch;
use crate::conn::entry::{Entry, Link};
use crate::conn::key;
use crate::conn::table::{self, Found, Glance, Memory};
use crate::env::{Env, Route, Step};
use crate::expire;
use crate::family::Family;
use crate::forward::nat::{self, Unfinished};
use crate::forward::{self, Hindrance};
use crate::icmp::Complaint;
use crate::method::{BYPASS, Method};
use crate::packet::{Packet, by_reference};
use crate::sctp::state::SctpState;
use crate::server;
use crate::service::{block_of, lane_of};
use crate::state::TcpState;
use crate::trace::Note;
use crate::verdict::{DropReason, PassReason, Verdict};
use crate::vlan;

/// How often a packet starts over because the entry that it found was taken away, or another processor was faster.
const ATTEMPTS: u32 = 8;

/// The short way of a request.
#[inline(always)]
pub fn known<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    flow: &mut Flow<'_, F, K>,
) -> Option<Verdict> {
    let memory = F::conns(env);
    let probe = flow.probe(memory, flow.request_key());
    if flow.is_syn() {
        table::ask_for(memory, &probe);
        return None;
    }
    let Glance::Found(found) = table::glance(memory, &probe) else { return None };
    let entry = Entry(found.body.entry.load());
    let server = env.server(entry.server())?;
    let hop = server.onward();
    if !server::is_usual(hop.flags(), entry.method()) {
        return None;
    }
    if flow.is_unsummed() && entry.method() == Method::Masquerade as u8 {
        return None;
    }
    if !F::fits(packet, &flow.net, hop.room()) {
        return None;
    }
    // As late as can be: what is known before the clock is asked has to be kept on the stack meanwhile.
    flow.now = env.now();
    if !try_advance(env, flow, &found, entry.server(), request_direction(found.word)) {
        return None;
    }
    count_in_packet(&found, Link(found.body.link.load()));
    count_in_at_once(env, server, flow.net.len);
    env.note(|| Note::connection::<K>(found.id));
    let sent = forward::to_server_at_once::<F, P, E, K>(packet, env, &flow.net, server, entry, &hop);
    Some(sent_at_once(env, sent))
}

/// What was decided for a request before it is forwarded.
pub enum Decision {
    /// Forward it as this entry says.
    Forward(Entry),
    /// No usable server: the client is told.
    NoServer,
    /// It is dropped.
    Drop(DropReason),
    /// It goes to the stack.
    Pass(PassReason),
    /// The entry that was found is gone, or another processor made it first: look again.
    Again,
}

/// A packet to a VIP: on its connection's way, or on that of a new connection.
#[inline(always)]
pub fn request<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, F, K>,
) -> Result<Verdict, Answer<F::Addr>> {
    let mut attempts = Attempts { env, flow, decision: Packed::from(Decision::Again) };
    env.repeat(ATTEMPTS, &mut attempts);
    match attempts.decision.unpack() {
        Decision::Forward(entry) => forward(packet, env, flow, entry),
        // IPv4 does not speak for an address that no interface has, even where the packet's mark has it called local.
        Decision::NoServer if K == key::V4 && is_foreign(env, flow) => {
            Ok(Verdict::Drop(DropReason::NoServer))
        }
        Decision::NoServer => Err(Answer {
            complaint: Complaint::PORT_UNREACHABLE,
            source: flow.net.dst,
            otherwise: DropReason::NoServer,
        }),
        Decision::Drop(reason) => Ok(Verdict::Drop(reason)),
        Decision::Pass(reason) => Ok(Verdict::Pass(reason)),
        Decision::Again => Ok(Verdict::Drop(DropReason::Contended)),
    }
}

/// Looking for a request's entry, or making it, until that is decided.
struct Attempts<'a, F: Family<K>, E, const K: usize> {
    env: &'a E,
    flow: &'a Flow<'a, F, K>,
    /// Each turn's own: none looks at that of the one before it, and there is one turn at least, so nothing is carried.
    decision: Packed,
}

impl<F: Family<K>, E: Env, const K: usize> Step for Attempts<'_, F, E, K> {
    #[inline(always)]
    fn turn(&mut self, i: u32) -> bool {
        self.decision = attempt(self.env, self.flow);
        let again = matches!(self.decision.unpack(), Decision::Again) && i + 1 < ATTEMPTS;
        if again {
            self.env.note(|| Note::Again);
        }
        if !again && self.flow.looks_new() {
            forget_predecessor(self.env);
        }
        again
    }
}

/// One attempt to decide what becomes of a packet to a VIP: on its connection's way, or on that of a new connection.
#[inline(always)]
pub fn attempt<F: Family<K>, E: Env, const K: usize>(env: &E, flow: &Flow<'_, F, K>) -> Packed {
    let mut opening = Opening::NONE;
    let mut packed = decide_packed(env, flow, &mut opening);
    if packed == OPEN {
        packed = open_packed(env, flow, &mut opening);
    }
    if packed != FULL {
        return Packed(packed);
    }
    Packed::from(if has_made_room(env, flow, &mut opening) {
        Decision::Again
    } else {
        Decision::Drop(DropReason::TableFull)
    })
}

/// What [`decide_packed`] says of a connection that is to be opened.
const OPEN: u64 = 5 << Packed::KIND;

/// What [`open_packed`] says when there is no room.
const FULL: u64 = 6 << Packed::KIND;

/// The parts of an attempt have stack frames of their own: what the one needs is not needed by the others, and 512 bytes must
/// do for all that is. Returns a packed [`Decision`], or that the connection is to be opened.
#[inline(never)]
fn decide_packed<F: Family<K>, E: Env, const K: usize>(
    env: &E,
    flow: &Flow<'_, F, K>,
    opening: &mut Opening,
) -> u64 {
    let memory = F::conns(env);
    let probe = flow.probe(memory, flow.request_key());
    let decision = match memory.look_up(&probe) {
        Some(slot) => match table::hold(memory, slot, &probe) {
            Some(found) => go_on(env, flow, found),
            None => Decision::Again,
        },
        None => match schedule(env, flow) {
            Ok(chosen) => {
                *opening = chosen;
                return OPEN;
            }
            Err(decision) => decision,
        },
    };
    Packed::from(decision).0
}

/// See [`decide_packed`].
#[inline(never)]
fn open_packed<F: Family<K>, E: Env, const K: usize>(
    env: &E,
    flow: &Flow<'_, F, K>,
    opening: &mut Opening,
) -> u64 {
    open(env, flow, by_reference(opening)).map_or(FULL, |decision| Packed::from(decision).0)
}

/// See [`decide_packed`].
#[inline(never)]
fn has_made_room<F: Family<K>, E: Env, const K: usize>(
    env: &E,
    flow: &Flow<'_, F, K>,
    opening: &mut Opening,
) -> bool {
    make_room(env, flow, by_reference(opening))
}

/// A decision in one register, which the verifier can follow through memory. The entry's unused byte tells which.
#[derive(Clone, Copy)]
pub struct Packed(u64);

impl Packed {
    const KIND: u32 = 56;

    /// Unpacks it.
    #[inline(always)]
    pub fn unpack(self) -> Decision {
        match (self.0 >> Self::KIND) as u8 {
            0 => Decision::Forward(Entry(self.0)),
            1 => Decision::NoServer,
            2 => DropReason::from_u8(self.0 as u8).map_or(Decision::Again, Decision::Drop),
            3 => PassReason::from_u8(self.0 as u8).map_or(Decision::Again, Decision::Pass),
            _ => Decision::Again,
        }
    }
}

impl From<Decision> for Packed {
    #[inline(always)]
    fn from(decision: Decision) -> Self {
        let (kind, value) = match decision {
            Decision::Forward(entry) => (0, entry.0),
            Decision::NoServer => (1, 0),
            Decision::Drop(reason) => (2, reason as u64),
            Decision::Pass(reason) => (3, reason as u64),
            Decision::Again => (4, 0),
        };
        Self(kind << Self::KIND | value)
    }
}

/// A packet of a connection that has an entry.
#[inline(always)]
fn go_on<F: Family<K>, E: Env, const K: usize>(
    env: &E,
    flow: &Flow<'_, F, K>,
    found: Found<'_, K>,
) -> Decision {
    let entry = Entry(found.body.entry.load());
    let Some(server) = env.server(entry.server()) else { return Decision::Drop(DropReason::Broken) };
    let flags = server.flags();
    let gone = flags & server::flag::AVAILABLE == 0;
    let outlived = flow.has_outlived(found.word);
    let rescheduled = !outlived && flow.looks_new() && is_to_be_rescheduled(flow, &found, flags);
    if rescheduled && !flow.is_hearsay {
        keep_counted(env, entry.server());
    }
    if outlived || rescheduled || (gone && flow.config.has(switch::EXPIRE_NODEST_CONN)) {
        retire(env, flow, &found);
        return Decision::Again;
    }
    if gone {
        return Decision::Drop(DropReason::ServerGone);
    }
    if !advance(env, flow, &found, entry.server(), request_direction(found.word)) {
        return Decision::Again;
    }
    env.note(|| Note::connection::<K>(found.id));
    count_in_packet(&found, Link(found.body.link.load()));
    count_in(env, server, flow.net.len);
    Decision::Forward(entry)
}

/// Removes an entry that has had its time; the packet then goes on as if there had been none.
#[inline(always)]
fn retire<F: Family<K>, E: Env, const K: usize>(env: &E, flow: &Flow<'_, F, K>, found: &Found<'_, K>) {
    env.note(|| Note::Ended);
    if expire::remove::<F, E, K>(env, flow.config, found)
        && let Some(counters) = env.counters()
    {
        counters.expired.bump(1);
    }
}

/// A new connection is to take the place of one of this server's, which goes on counting that until the new one is there: so it
/// is in the kernel, where the old entry's timer ends it only then.
#[inline(always)]
fn keep_counted<E: Env>(env: &E, server: u32) {
    forget_predecessor(env);
    if let Some(counters) = env.counters()
        && let Some(block) = env.block(block_of(server))
        && counters.predecessor.swap_if(0, server as u64 + 1).is_ok()
    {
        // Not bound: that could overload it.
        let _before = block.total[lane_of(server)].add(1);
    }
}

/// The new connection is there, or will not be.
#[inline(always)]
fn forget_predecessor<E: Env>(env: &E) {
    if let Some(counters) = env.counters()
        && let server_plus_1 @ 1.. = counters.predecessor.load()
        && counters.predecessor.swap_if(server_plus_1, 0).is_ok()
        && let Some(block) = env.block(block_of((server_plus_1 - 1) as u32))
    {
        block.unbind(lane_of((server_plus_1 - 1) as u32));
    }
}

/// Does a SYN on this entry open a new connection rather than continue the old one (`conn_reuse_mode`)?
#[inline(always)]
fn is_to_be_rescheduled<F: Family<K>, const K: usize>(
    flow: &Flow<'_, F, K>,
    found: &Found<'_, K>,
    server_flags: u16,
) -> bool {
    if flow.config.has(switch::EXPIRE_NODEST_CONN) && server_flags & server::flag::QUIESCED != 0 {
        return true;
    }
    let mode = flow.config.reuse_mode.load();
    if mode == 0 || Link(found.body.link.load()).template().is_some() {
        return false;
    }
    let state = found.word.state();
    if flow.is_sctp() {
        return state == SctpState::Closed as u8;
    }
    state == TcpState::TimeWait as u8
        || state == TcpState::Close as u8
        || (mode & 2 != 0 && state == TcpState::FinWait as u8 && found.word.no_output())
}

/// Sends a request to its server by the connection's method.
#[inline(always)]
fn forward<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, F, K>,
    entry: Entry,
) -> Result<Verdict, Answer<F::Addr>> {
    if flow.is_syn() && flow.config.has(switch::CLAMPS_MSS) {
        clamp::request(packet, env, flow, entry);
    }
    let packed = if entry.method() == BYPASS {
        bypass_packed(packet, env, flow)
    } else {
        send_packed(packet, env, flow, entry)
    };
    let mut sent = Sent::unpack(packed);
    if sent == Ok(Verdict::Pass(PassReason::Local)) && local::is_translated(flow.config, entry) {
        sent = Sent::unpack(local::deliver(packet, env, flow, entry));
    }
    sent.or_else(|hindrance| hindered(hindrance, flow.net.dst))
}

/// The sending itself, in a function with a stack frame of its own: what it needs is not needed while a server is chosen,
/// and 512 bytes (rounded up call by call) must do for all that is. Returns a packed [`Sent`].
#[inline(never)]
fn send_packed<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, F, K>,
    entry: Entry,
) -> u64 {
    Sent::pack(send(packet, env, flow, entry))
}

/// The same for a connection that has no server.
#[inline(never)]
fn bypass_packed<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, F, K>,
) -> u64 {
    Sent::pack(bypass(packet, env, flow).map_err(Hindrance::Drop))
}

/// Sends a packet where it is addressed to, by the director's routes. One that they do not take as it is, or not yet, is the stack's,
/// which sends by the same.
#[inline(always)]
fn bypass<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, F, K>,
) -> Result<Verdict, DropReason> {
    let net = &flow.net;
    match F::route(packet, env, net, vlan::came_by(env), net.src, packet.judged(net.len)) {
        Ok(route @ Route::Via { .. }) if packet.largest_fragment() == 0 => {
            forward::to_destination::<F, P, E, K>(packet, env, net, &route)
        }
        _ => Ok(Verdict::Pass(PassReason::Bypass)),
    }
}

#[inline(always)]
fn send<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, F, K>,
    entry: Entry,
) -> Result<Verdict, Hindrance> {
    let Some(server) = env.server(entry.server()) else { return Err(DropReason::Broken.into()) };
    if server.flags() & server::flag::LOCAL != 0 {
        return Ok(Verdict::Pass(PassReason::Local));
    }
    flow.fill_in_options(packet, env, flow.net.dst)?;
    let largest = packet.largest_fragment();
    let (hop, pieces) = match F::prepare(packet, server, entry.method()) {
        Ok(hop) => (hop, largest),
        Err(Hindrance::MayBeCut { mtu }) => (server.onward(), forward::pieces(mtu, largest)),
        Err(hindrance) => {
            // The kernel quotes a packet that is too big as it would have gone on.
            if matches!(hindrance, Hindrance::TooBig { .. }) {
                F::lower_ttl(packet)?;
            }
            return Err(hindrance);
        }
    };
    let verdict = forward::to_server::<F, P, E, K>(packet, env, &flow.net, server, entry, &hop)?;
    if entry.method() == Method::Masquerade as u8 {
        let sum =
            Unfinished { is_unsummed: flow.is_unsummed(), is_ported: entry.port() != flow.transport.dst };
        nat::finish::<F, P, E, K>(packet, env, &flow.net, sum)?;
    }
    Ok(forward::in_pieces(env, verdict, pieces))
}
