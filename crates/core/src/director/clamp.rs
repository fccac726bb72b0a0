//! Lowering what the ends of a connection say of the segments that they take (`mss`), where their service wants it.
//!
//! A SYN says how long segments may be that its sender gets. So a client's SYN decides how long the server's are, and the answer how long
//! the client's are; whoever answers past the director is not heard here.

use super::flow::Flow;
use super::reply;
use crate::conn::entry::Entry;
use crate::conn::key;
use crate::conn::table::{self, Memory};
use crate::env::Env;
use crate::family::Family;
use crate::forward::tunnel;
use crate::method::Method;
use crate::mss;
use crate::packet::Packet;
use crate::server::{Server, flag};
use crate::service::AUTO;
use crate::wire::{Ipv4, Ipv6, Tcp};

/// Whose SYN it is.
#[derive(Clone, Copy, PartialEq)]
enum Of {
    Client,
    Server,
}

/// A client's SYN, on its way to its connection's server. A function with a stack frame of its own, like [`answer`].
#[inline(never)]
pub fn request<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, F, K>,
    entry: Entry,
) {
    clamp(packet, env, flow, entry, Of::Client);
}

/// A server's answer to one, if it is that.
#[inline(never)]
pub fn answer<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, F, K>,
) {
    if let Some(entry) = answered(env, flow) {
        clamp(packet, env, flow, entry, Of::Server);
    }
}

/// The entry of the connection to which a packet from inside belongs: NAT's by the server's address, others by the VIP.
#[inline(always)]
fn answered<F: Family<K>, E: Env, const K: usize>(env: &E, flow: &Flow<'_, F, K>) -> Option<Entry> {
    let replies = F::replies(env);
    let probe = flow.probe(replies, flow.request_key());
    if let Some(slot) = replies.look_up(&probe) {
        let reply = table::hold(replies, slot, &probe)?;
        return reply::behind(env, flow, reply).map(|connection| connection.entry);
    }
    let conns = F::conns(env);
    let probe = flow.probe(conns, flow.reverse_key());
    let found = conns.look_up(&probe).and_then(|slot| table::hold(conns, slot, &probe))?;
    Some(Entry(found.body.entry.load()))
}

#[inline(always)]
fn clamp<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, F, K>,
    entry: Entry,
    of: Of,
) {
    let Some(server) = env.server(entry.server()) else { return };
    if server.flags() & flag::LOCAL != 0 {
        return;
    }
    let Some(service) = env.service(server.place().service) else { return };
    let most = match service.mss.load() {
        0 => return,
        AUTO => match fitting::<K>(server, entry.method(), of) {
            Some(most) => most,
            None => return,
        },
        most => most as u16,
    };
    mss::clamp(packet, env, flow.net.l4, most);
}

/// The longest segment for which the way between director and server has room. Of a client's SYN, which speaks of the server's segments,
/// only where these come this way.
#[inline(always)]
fn fitting<const K: usize>(server: &Server, method: u8, of: Of) -> Option<u16> {
    if of == Of::Client && method != Method::Masquerade as u8 {
        return None;
    }
    let hop = server.onward();
    if hop.flags() & flag::RESOLVED == 0 {
        return None;
    }
    let network = if K == key::V4 { Ipv4::LEN } else { Ipv6::LEN };
    tunnel::room_by(hop.flags(), hop.mtu(), method)?.checked_sub((network + Tcp::LEN) as u16)
}
