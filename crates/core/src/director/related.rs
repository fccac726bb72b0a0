//! ICMP errors: they go the way of the connection that they are about, whoever sends them.
//!
//! An error about an answer (a router at the client's end found it too big, say) belongs to the server that gave it; one about a
//! request, from behind the director, to the client. Errors about the director's own tunnel packets are [`super::own_tunnel`]'s.
//! None of them moves its connection on.

use super::Stage;
use super::answer::Sent;
use super::flow::Flow;
use super::life::{count_in, count_out};
use super::local;
use super::own_tunnel;
use super::reply::{Connection, behind};
use super::request::{Decision, attempt};
use crate::checksum::sum_packed;
use crate::config::switch;
use crate::conn::entry::Entry;
use crate::conn::key::{self, Kind};
use crate::conn::table::{self, Memory};
use crate::env::{Env, Route};
use crate::family::{Ends, Family, V4, V6};
use crate::forward::{self, About, Hindrance};
use crate::icmp::quote::Quote;
use crate::method::Method;
use crate::packet::{Packet, by_reference};
use crate::parse::{FARTHEST_L4, L3, Transport};
use crate::server;
use crate::trace::Note;
use crate::verdict::{DropReason, PassReason, Verdict};
use crate::vlan;
use crate::wire::Icmp;

/// An IPv4 ICMP message.
#[inline(always)]
pub fn v4<P: Packet, E: Env>(
    packet: &mut P,
    env: &E,
    flow: &mut Flow<'_, V4, { key::V4 }>,
) -> Result<Verdict, Stage> {
    let mut quote = Quote::blank(V4::NOWHERE);
    if let Err(reason) = read(packet, env, flow, &mut quote) {
        return Ok(Verdict::Pass(reason));
    }
    let verdict = follow(packet, env, flow, &mut quote)?;
    Ok(verdict.unwrap_or_else(|| own_tunnel::v4(packet, env, flow, &mut quote)))
}

/// An IPv6 ICMP message.
#[inline(always)]
pub fn v6<P: Packet, E: Env>(
    packet: &mut P,
    env: &E,
    flow: &mut Flow<'_, V6, { key::V6 }>,
) -> Result<Verdict, Stage> {
    let mut quote = Quote::blank(V6::NOWHERE);
    if let Err(reason) = read(packet, env, flow, &mut quote) {
        return Ok(Verdict::Pass(reason));
    }
    let verdict = follow(packet, env, flow, &mut quote)?;
    Ok(verdict.unwrap_or_else(|| own_tunnel::v6(packet, env, flow, &quote)))
}

/// Reads the error and what it is about. `Err`: it is none, and the stack gets it.
#[inline(always)]
fn read<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    flow: &mut Flow<'_, F, K>,
    quote: &mut Quote<F::Addr>,
) -> Result<(), PassReason> {
    match flow.read(packet, env) {
        Err(PassReason::Icmp) => F::check_options(packet, env)?,
        Err(reason) => return Err(reason),
        Ok(()) => return Err(PassReason::Protocol),
    }
    if is_quote_read::<F, P, K>(packet, flow.net.l4, quote) { Ok(()) } else { Err(PassReason::Icmp) }
}

/// In a function with a stack frame of its own; see [`Flow::read`].
#[inline(never)]
pub fn is_quote_read<F: Family<K>, P: Packet, const K: usize>(
    packet: &mut P,
    l4: usize,
    quote: &mut Quote<F::Addr>,
) -> bool {
    let packet = &*by_reference(packet);
    // For the verifier, which cannot know it.
    if l4 > FARTHEST_L4 {
        return false;
    }
    let Some(icmp) = packet.header::<Icmp>(l4) else { return false };
    if !F::is_error(icmp.kind) {
        return false;
    }
    let Some(read) = F::read_quote(packet, l4 + Icmp::LEN) else { return false };
    *quote = read;
    true
}

/// The kernel's order: its hooks for replies come before that for requests. `Ok(None)`: no connection's. `Err`: it may be
/// another director's, and that stage is to make an entry of it.
#[inline(always)]
fn follow<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, F, K>,
    quote: &mut Quote<F::Addr>,
) -> Result<Option<Verdict>, Stage> {
    if F::is_in(&flow.config.rips, quote.net.dst)
        && let Some(verdict) = to_client(packet, env, flow, quote)
    {
        return Ok(Some(verdict));
    }
    let is_about_answer = F::is_in(&flow.config.vips, quote.net.src) || flow.config.mark_rules.load() != 0;
    if !is_about_answer {
        return Ok(None);
    }
    let entry = find_entry(env, flow, by_reference(quote));
    if entry == NO_ENTRY {
        let is_scheduled = flow.config.has(switch::SCHEDULE_ICMP);
        return if is_scheduled { Err(Stage::hearsay::<K>()) } else { Ok(None) };
    }
    let entry = Entry(entry);
    let mut sent = Sent::unpack(send_to_server(packet, env, flow, by_reference(quote), entry));
    if sent == Ok(Verdict::Pass(PassReason::Local)) && local::is_translated(flow.config, entry) {
        sent = Sent::unpack(local::deliver_error(packet, env, flow, by_reference(quote), entry));
    }
    Ok(Some(settled(sent)))
}

/// `schedule_icmp`: the error belongs to a connection that another director has made. One is opened here, as its client's packet
/// would, but in no state, and for three seconds; then the error follows it. A client that asked for nothing is told nothing.
#[inline(always)]
pub fn hear<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    heard_of: &mut Flow<'_, F, K>,
) -> Result<Verdict, Stage> {
    if !is_heard(packet, env, heard_of) {
        return Ok(Verdict::Pass(PassReason::Icmp));
    }
    match attempt(env, heard_of).unpack() {
        Decision::Forward(_) => Err(Stage::related::<K>()),
        Decision::NoServer => Ok(Verdict::Drop(DropReason::NoServer)),
        Decision::Again => Err(Stage::hearsay::<K>()),
        Decision::Drop(reason) => Ok(Verdict::Drop(reason)),
        Decision::Pass(reason) => Ok(Verdict::Pass(reason)),
    }
}

/// Makes of an error the packet of the client that its answer was for. A function with a stack frame of its own.
#[inline(never)]
fn is_heard<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    heard_of: &mut Flow<'_, F, K>,
) -> bool {
    let mut quote = Quote::blank(F::NOWHERE);
    if read(packet, env, heard_of, &mut quote).is_err() {
        return false;
    }
    heard_of.is_hearsay = true;
    (heard_of.net.src, heard_of.net.dst) = (quote.net.dst, quote.net.src);
    if !heard_of.is_from_source() {
        // Packets of known connections are not asked who sends them.
        return false;
    }
    (heard_of.net.protocol, heard_of.protocol) = (quote.net.protocol, quote.ends().protocol);
    let [src, dst] = quote.ports;
    heard_of.transport = Transport { src: dst, dst: src, flags: 0 };
    true
}

/// An error is never answered by another (RFC 1122, 3.2.2): what hinders it ends it.
#[inline(always)]
fn settled(sent: Result<Verdict, Hindrance>) -> Verdict {
    match sent {
        Ok(verdict) => verdict,
        Err(Hindrance::Drop(reason)) => Verdict::Drop(reason),
        Err(Hindrance::TtlExceeded) => Verdict::Drop(DropReason::TtlExceeded),
        Err(Hindrance::TooBig { .. } | Hindrance::MayBeCut { .. }) => Verdict::Drop(DropReason::TooBig),
    }
}

/// What [`find_entry`] says when there is none.
const NO_ENTRY: u64 = u64::MAX;

/// The entry of the connection whose answer is quoted. This and the sending are functions with stack frames of their own: what
/// the one needs is not needed by the other, and 512 bytes must do for all that is.
#[inline(never)]
fn find_entry<F: Family<K>, E: Env, const K: usize>(
    env: &E,
    flow: &Flow<'_, F, K>,
    quote: &mut Quote<F::Addr>,
) -> u64 {
    let memory = F::conns(env);
    let probe = flow.probe(memory, F::key(&quote.reversed(), Kind::Conn));
    let found = memory.look_up(&probe).and_then(|slot| table::hold(memory, slot, &probe));
    let Some(found) = found.filter(|found| !flow.has_outlived(found.word)) else { return NO_ENTRY };
    let entry = found.body.entry.load();
    env.note(|| Note::connection::<K>(found.id));
    if let Some(server) = env.server(Entry(entry).server()) {
        count_in(env, server, flow.net.len);
    }
    entry
}

/// Returns a packed [`Sent`].
#[inline(never)]
fn send_to_server<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, F, K>,
    quote: &mut Quote<F::Addr>,
    entry: Entry,
) -> u64 {
    let quote = &*by_reference(quote);
    Sent::pack(hand_on(packet, env, flow, quote, entry))
}

#[inline(always)]
fn hand_on<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, F, K>,
    quote: &Quote<F::Addr>,
    entry: Entry,
) -> Result<Verdict, Hindrance> {
    let Some(server) = env.server(entry.server()) else { return Err(DropReason::Broken.into()) };
    if server.flags() & server::flag::LOCAL != 0 {
        return Ok(Verdict::Pass(PassReason::Local));
    }
    // Only what is rewritten is looked at: the checksum is then the director's word.
    if entry.method() == Method::Masquerade as u8 && !is_sound(packet, env, flow) {
        return Err(DropReason::IcmpChecksum.into());
    }
    flow.fill_in_options(packet, env, flow.net.dst)?;
    let hop = F::prepare(packet, server, entry.method())?;
    let about = About { net: &flow.net, quote };
    Ok(forward::error_to_server::<F, P, E, K>(packet, env, &about, server, entry, &hop)?)
}

/// Does the message pass its checksum?
#[inline(always)]
pub fn is_sound<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, F, K>,
) -> bool {
    let head = flow.net.l4.wrapping_sub(L3);
    let Some(length) = (flow.net.len as usize).checked_sub(head) else { return false };
    let start = F::pseudo_header(&flow.net);
    sum_packed(packet, env, flow.net.l4, length, start).is_some_and(|sum| sum.fold() == 0xffff)
}

/// An error about a request, from the server or a router on the way to it. `None`: about no NAT connection's.
#[inline(always)]
fn to_client<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, F, K>,
    quote: &mut Quote<F::Addr>,
) -> Option<Verdict> {
    let mut virt = quote.ends();
    if !is_request_known(env, flow, by_reference(quote), &mut virt) {
        return None;
    }
    if !is_sound(packet, env, flow) {
        return Some(Verdict::Drop(DropReason::IcmpChecksum));
    }
    Some(settled(Sent::unpack(send_to_client(packet, env, flow, by_reference(quote), &mut virt))))
}

/// Finds the NAT connection whose request is quoted; see [`find_entry`].
#[inline(never)]
pub fn is_request_known<F: Family<K>, E: Env, const K: usize>(
    env: &E,
    flow: &Flow<'_, F, K>,
    quote: &mut Quote<F::Addr>,
    known_as: &mut Ends<F::Addr>,
) -> bool {
    let memory = F::replies(env);
    let probe = flow.probe(memory, F::key(&quote.reversed(), Kind::Conn));
    let reply = memory.look_up(&probe).and_then(|slot| table::hold(memory, slot, &probe));
    let Some(Connection { found, entry, virt }) = reply.and_then(|reply| behind(env, flow, reply)) else {
        return false;
    };
    env.note(|| Note::connection::<K>(found.id));
    if let Some(server) = env.server(entry.server()) {
        count_out(env, server, flow.net.len);
    }
    *known_as = virt;
    true
}

/// Returns a packed [`Sent`]; see [`find_entry`].
#[inline(never)]
fn send_to_client<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, F, K>,
    quote: &mut Quote<F::Addr>,
    virt: &mut Ends<F::Addr>,
) -> u64 {
    let (quote, virt) = (&*by_reference(quote), &*by_reference(virt));
    let sent = match F::route(packet, env, &flow.net, vlan::came_by(env), virt.to, flow.net.len) {
        Ok(Route::NoNeighbour) => {
            F::want_neighbour(env, flow.net.dst);
            Err(DropReason::ClientUnresolved.into())
        }
        Ok(route) => {
            let about = About { net: &flow.net, quote };
            flow.fill_in_options(packet, env, virt.to)
                .and_then(|()| forward::error_to_client::<F, P, E, K>(packet, env, &about, virt, &route))
                .map_err(Hindrance::Drop)
        }
        Err(hindrance) => Err(hindrance),
    };
    Sent::pack(sent)
}
