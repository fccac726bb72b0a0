//! Packets from real servers and VIPs.

use super::Stage;
use super::answer::{Answer, Sent, hindered};
use super::clamp;
use super::flow::{Flow, Recognised};
use super::life::{advance, count_out, count_out_at_once, sent_at_once, try_advance};
use super::stray;
use crate::config::switch;
use crate::conn::entry::{Backlink, Entry};
use crate::conn::table::{self, Found, Glance, Memory, SlotId};
use crate::env::{Env, Route};
use crate::family::{Ends, Family};
use crate::forward::nat::{self, Unfinished};
use crate::forward::{self, Hindrance};
use crate::method::Method;
use crate::packet::{Packet, by_reference};
use crate::state::Direction;
use crate::trace::Note;
use crate::verdict::{DropReason, PassReason, Verdict};
use crate::vlan;

/// The short way of a reply.
#[inline(always)]
pub fn known<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, F, K>,
) -> Option<Verdict> {
    if !flow.is_from_source() {
        return None;
    }
    let probe = flow.probe(F::replies(env), flow.request_key());
    let Glance::Found(reply) = table::glance(F::replies(env), &probe) else { return None };
    let Connection { found, entry, virt } = behind(env, flow, reply)?;
    if flow.config.vlan_devices.load() != 0 {
        // The way may leave by one.
        return None;
    }
    let route = F::route_at_once(packet, env, &flow.net, virt.to, flow.now).ok()?;
    let Route::Via { .. } = route else { return None };
    if flow.is_unsummed() {
        return None;
    }
    let server = env.server(entry.server())?;
    if !try_advance(env, flow, &found, entry.server(), Direction::Output) {
        return None;
    }
    env.note(|| Note::connection::<K>(found.id));
    count_out_at_once(env, server, flow.net.len);
    let sent = forward::to_client::<F, P, E, K>(packet, env, &flow.net, &virt, &route);
    Some(sent_at_once(env, sent))
}

/// The kernel's order: its hooks for replies come before that for requests. `Err`: not a packet from inside.
#[inline(always)]
pub fn from_inside<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, F, K>,
) -> Result<Result<Verdict, Answer<F::Addr>>, Stage> {
    let who = Recognised::in_packet::<F, K>(flow.config, &flow.net);
    if flow.is_syn() && flow.config.has(switch::CLAMPS_MSS) {
        clamp::answer(packet, env, flow);
    }
    if who.from_server
        && let Some(outcome) = reply(packet, env, flow).or_else(|| stray::refuse(packet, env, flow))
    {
        return Ok(outcome);
    }
    if who.to_vip {
        return Err(Stage::request::<K>());
    }
    let seen = observe(env, flow);
    Ok(Ok(Verdict::Pass(if seen { PassReason::Reply } else { PassReason::NotOurs })))
}

/// The connection to which an entry of the reply table leads.
#[inline(always)]
pub fn behind<'e, F: Family<K>, E: Env, const K: usize>(
    env: &'e E,
    flow: &Flow<'_, F, K>,
    reply: Found<'e, K>,
) -> Option<Connection<'e, F::Addr, K>>
where
    F::Conns<E>: 'e,
{
    let link = Backlink(reply.body.entry.load());
    if !reply.is_there() {
        return None;
    }
    let found = table::at(F::conns(env), SlotId(link.slot()))?;
    if found.word.generation() != link.generation() || flow.has_outlived(found.word) {
        return None;
    }
    let virt = F::ends(found.body.key());
    Some(Connection { found, entry: Entry(found.body.entry.load()), virt })
}

/// What a reply needs to know of its connection. Sure when the entry turns out to be still there.
pub struct Connection<'e, A, const K: usize> {
    /// Its entry's place.
    pub found: Found<'e, K>,
    /// Its server.
    pub entry: Entry,
    /// Client and VIP.
    pub virt: Ends<A>,
}

/// A packet from a real server. `None`: it is no reply of a NAT connection.
#[inline(always)]
fn reply<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, F, K>,
) -> Option<Result<Verdict, Answer<F::Addr>>> {
    let mut way = Way { virt: flow.ends(), inside: F::NOWHERE };
    if !is_known(env, flow, &mut way) {
        return None;
    }
    let sent = Sent::unpack(send_to_client(packet, env, flow, &mut way.virt));
    Some(sent.or_else(|hindrance| hindered(hindrance, way.inside)))
}

/// What a reply's sender needs to know of its connection.
pub struct Way<A> {
    /// Client and VIP.
    pub virt: Ends<A>,
    /// The director's address towards the server.
    pub inside: A,
}

/// Finds a reply's connection, and moves it on. This and the sending are functions with stack frames of their own: what the one
/// needs is not needed by the other, and 512 bytes must do for all that is.
#[inline(never)]
pub fn is_known<F: Family<K>, E: Env, const K: usize>(
    env: &E,
    flow: &Flow<'_, F, K>,
    way: &mut Way<F::Addr>,
) -> bool {
    find(env, flow, way).is_some()
}

#[inline(always)]
fn find<F: Family<K>, E: Env, const K: usize>(
    env: &E,
    flow: &Flow<'_, F, K>,
    way: &mut Way<F::Addr>,
) -> Option<()> {
    let memory = F::replies(env);
    let probe = flow.probe(memory, flow.request_key());
    let slot = memory.look_up(&probe)?;
    let reply = table::hold(memory, slot, &probe)?;
    let Connection { found, entry, virt } = behind(env, flow, reply)?;
    if !advance(env, flow, &found, entry.server(), Direction::Output) {
        return None;
    }
    env.note(|| Note::connection::<K>(found.id));
    let server = env.server(entry.server())?;
    *way = Way { virt, inside: F::server_source(server) };
    count_out(env, server, flow.net.len);
    Some(())
}

/// Sends a reply to its client; see [`is_known`]. Returns a packed [`Sent`].
#[inline(never)]
fn send_to_client<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, F, K>,
    virt: &mut Ends<F::Addr>,
) -> u64 {
    let virt = &*by_reference(virt);
    let mut pieces = packet.largest_fragment();
    let from = vlan::came_by(env);
    let mut route =
        F::route(packet, env, &flow.net, from, virt.to, F::judged(packet.judged(flow.net.len), pieces));
    if let Err(Hindrance::MayBeCut { mtu }) = route {
        pieces = forward::pieces(mtu, pieces);
        // Of no length, it is not too long: what is asked for is the way.
        route = F::route(packet, env, &flow.net, from, virt.to, 0);
    }
    let sent = match route {
        Ok(Route::NoNeighbour) => {
            F::want_neighbour(env, flow.net.dst);
            Err(DropReason::ClientUnresolved.into())
        }
        Ok(route) => {
            let sum =
                Unfinished { is_unsummed: flow.is_unsummed(), is_ported: virt.to_port != flow.transport.src };
            let sent = flow
                .fill_in_options(packet, env, virt.to)
                .and_then(|()| forward::to_client::<F, P, E, K>(packet, env, &flow.net, virt, &route));
            sent.and_then(|verdict| nat::finish::<F, P, E, K>(packet, env, &flow.net, sum).map(|()| verdict))
                .map(|verdict| forward::in_pieces(env, verdict, pieces))
                .map_err(Hindrance::Drop)
        }
        Err(hindrance) => Err(hindrance),
    };
    Sent::pack(sent)
}

/// A packet from a VIP that passes the director: the direct reply of a DR or TUN server whose way leads through here.
/// The connection sees it, the packet goes on untouched. `false`: no connection's.
#[inline(always)]
pub fn observe<F: Family<K>, E: Env, const K: usize>(env: &E, flow: &Flow<'_, F, K>) -> bool {
    let memory = F::conns(env);
    let probe = flow.probe(memory, flow.reverse_key());
    let found = memory.look_up(&probe).and_then(|slot| table::hold(memory, slot, &probe));
    let Some(found) = found.filter(|found| !flow.has_outlived(found.word)) else { return false };
    let entry = Entry(found.body.entry.load());
    // The replies of NAT come from the server's own address: from the VIP, they are somebody else's.
    let is_nat = entry.method() == Method::Masquerade as u8;
    if is_nat || !advance(env, flow, &found, entry.server(), Direction::Output) {
        return false;
    }
    env.note(|| Note::connection::<K>(found.id));
    if let Some(server) = env.server(entry.server()) {
        count_out(env, server, flow.net.len);
    }
    true
}
