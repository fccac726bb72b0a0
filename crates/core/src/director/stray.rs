//! Packets of NAT servers, from the port of their service, that belong to no connection: with `nat_icmp_send` their sender is
//! told, so that it gives up what the director has forgotten.

use super::answer::Answer;
use super::connect::{server_key, service_under};
use super::flow::Flow;
use crate::config::switch;
use crate::env::Env;
use crate::family::Family;
use crate::icmp::Complaint;
use crate::packet::Packet;
use crate::sctp::state::Event;
use crate::verdict::{DropReason, Verdict};
use crate::wire::tcp_flag;

/// Refuses such a packet. `None`: it is none, and goes on as if this were not there.
#[inline(always)]
pub fn refuse<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, F, K>,
) -> Option<Result<Verdict, Answer<F::Addr>>> {
    if !flow.config.has(switch::NAT_ICMP_SEND) || is_an_end(flow) {
        return None;
    }
    let mut source = F::NOWHERE;
    if !is_from_service(env, flow, &mut source) {
        return None;
    }
    if F::is_in(&flow.config.vips, flow.net.dst) {
        source = flow.net.dst;
    } else if F::is_at_its_end(packet) {
        return None;
    } else if let Err(why) = F::lower_ttl(packet) {
        // What is not for the director has been through its routing when IPVS looks at it.
        return Some(Ok(Verdict::Drop(why)));
    }
    Some(Err(Answer { complaint: Complaint::PORT_UNREACHABLE, source, otherwise: DropReason::NoEntry }))
}

/// Who gives up by himself is not told to.
#[inline(always)]
fn is_an_end<F: Family<K>, const K: usize>(flow: &Flow<'_, F, K>) -> bool {
    let flags = flow.transport.flags;
    flow.is_ipsec()
        || (flow.is_tcp() && flags & tcp_flag::RST != 0)
        || (flow.is_sctp() && flags == Event::Abort as u8)
}

/// Is the packet from the address and port of a NAT server? Then `source` becomes the director's address towards it. A function
/// with a stack frame of its own: what it needs is not needed when the answer is made, and 512 bytes must do for all that is.
#[inline(never)]
fn is_from_service<F: Family<K>, E: Env, const K: usize>(
    env: &E,
    flow: &Flow<'_, F, K>,
    source: &mut F::Addr,
) -> bool {
    let id = server_at(env, flow, flow.net.protocol).or_else(|| server_at(env, flow, 0));
    let Some(server) = id.and_then(|id| env.server(id)) else { return false };
    *source = F::server_source(server);
    true
}

#[inline(always)]
fn server_at<F: Family<K>, E: Env, const K: usize>(
    env: &E,
    flow: &Flow<'_, F, K>,
    protocol: u8,
) -> Option<u32> {
    service_under(env, flow, server_key::<F, K>(flow.net.src, flow.transport.src, protocol))
}
