//! Servers that are the director itself.
//!
//! A packet for one goes to the director's own stack: by NAT with the server's address and port, else as it came. Answers are seen as they
//! leave ([`outgoing`]): NAT's get the VIP back, and all move their connections on. Where nothing sees them ([`switch::SEES_OWN`]), NAT
//! leaves packets as they come, too.

use super::answer::Sent;
use super::flow::Flow;
use super::related::{is_quote_read, is_request_known, is_sound};
use super::reply::{Way, is_known, observe};
use crate::config::{Config, switch};
use crate::conn::entry::Entry;
use crate::conn::key;
use crate::env::Env;
use crate::family::{Ends, Family, V4, V6};
use crate::forward::Hindrance;
use crate::forward::nat::{self, End, Unfinished};
use crate::icmp::quote::Quote;
use crate::method::Method;
use crate::packet::{Packet, by_reference};
use crate::parse::L3;
use crate::verdict::{DropReason, PassReason, Verdict};
use crate::wire::{Ethernet, Ipv4, Ipv6, ethertype};

/// Is a packet of this connection, whose server is the director, rewritten before the stack gets it?
#[inline(always)]
pub fn is_translated(config: &Config, entry: Entry) -> bool {
    entry.method() == Method::Masquerade as u8 && config.has(switch::SEES_OWN)
}

/// Gives a request its server's address and port. A function with a stack frame of its own, like all that follow. Returns a packed
/// [`Sent`].
#[inline(never)]
pub fn deliver<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, F, K>,
    entry: Entry,
) -> u64 {
    Sent::pack(delivered(packet, env, flow, entry).map_err(Hindrance::Drop))
}

#[inline(always)]
fn delivered<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, F, K>,
    entry: Entry,
) -> Result<Verdict, DropReason> {
    let addr = reachable::<F, E, K>(env, entry)?;
    F::translate_here(packet, &flow.net, End::Destination, addr, entry.port())?;
    let is_ported = entry.port() != flow.transport.dst;
    let sum = Unfinished { is_unsummed: flow.is_unsummed(), is_ported };
    nat::finish::<F, P, E, K>(packet, env, &flow.net, sum)?;
    Ok(Verdict::Local { ifindex: env.ingress() })
}

/// The same for an ICMP error about an answer of the server's.
#[inline(never)]
pub fn deliver_error<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, F, K>,
    quote: &mut Quote<F::Addr>,
    entry: Entry,
) -> u64 {
    let quote = &*by_reference(quote);
    Sent::pack(delivered_error(packet, env, flow, quote, entry).map_err(Hindrance::Drop))
}

#[inline(always)]
fn delivered_error<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, F, K>,
    quote: &Quote<F::Addr>,
    entry: Entry,
) -> Result<Verdict, DropReason> {
    let addr = reachable::<F, E, K>(env, entry)?;
    if !is_sound(packet, env, flow) {
        return Err(DropReason::IcmpChecksum);
    }
    F::translate_error_here(packet, &flow.net, quote, End::Destination, addr, entry.port())?;
    Ok(Verdict::Local { ifindex: env.ingress() })
}

/// The server's address. The stack would drop what comes for a loopback one by an interface, and so does IPVS before.
#[inline(always)]
fn reachable<F: Family<K>, E: Env, const K: usize>(env: &E, entry: Entry) -> Result<F::Addr, DropReason> {
    let addr = F::server_addr(env.server(entry.server()).ok_or(DropReason::Broken)?);
    if F::is_loopback(addr) { Err(DropReason::Loopback) } else { Ok(addr) }
}

/// May a frame of the director's own stack be a server's answer? Looks at nothing but its first headers.
#[inline(always)]
pub fn may_answer<P: Packet, E: Env>(packet: &P, env: &E) -> bool {
    let Some(config) = env.config() else { return false };
    let Some(eth) = packet.header::<Ethernet>(0) else { return false };
    let is_served_from = |is_server, is_vip| is_server | is_vip | (config.mark_rules.load() != 0);
    config.has(switch::SEES_OWN)
        && match eth.ethertype() {
            ethertype::IPV4 => packet.header::<Ipv4>(L3).is_some_and(|ip| {
                is_served_from(V4::is_in(&config.rips, ip.src), V4::is_in(&config.vips, ip.src))
            }),
            ethertype::IPV6 => packet.header::<Ipv6>(L3).is_some_and(|ip| {
                let src = ip.src.get();
                is_served_from(V6::is_in(&config.rips, src), V6::is_in(&config.vips, src))
            }),
            _ => false,
        }
}

/// Decides the fate of a packet that the director's own stack sends by an interface: a NAT server's answer, or ICMP error about a
/// request, becomes the VIP's ([`Verdict::Local`]), and its connection sees the answer of any. It is on its way already: where the
/// next router is, and its time to live, stay.
#[inline(always)]
pub fn outgoing<P: Packet, E: Env>(packet: &mut P, env: &E) -> Verdict {
    let packed = match packet.header::<Ethernet>(0).map(Ethernet::ethertype) {
        Some(ethertype::IPV4) => outgoing_packed::<V4, P, E, { key::V4 }>(packet, env),
        Some(ethertype::IPV6) => outgoing_packed::<V6, P, E, { key::V6 }>(packet, env),
        _ => return Verdict::Pass(PassReason::NotIp),
    };
    Sent::unpack(packed).unwrap_or_else(|hindrance| match hindrance {
        Hindrance::Drop(reason) => Verdict::Drop(reason),
        _ => Verdict::Drop(DropReason::Broken),
    })
}

/// Returns a packed [`Sent`].
#[inline(never)]
fn outgoing_packed<F: Family<K>, P: Packet, E: Env, const K: usize>(packet: &mut P, env: &E) -> u64 {
    let Some(config) = env.config() else { return Sent::pack(Ok(Verdict::Pass(PassReason::Unconfigured))) };
    let mut flow = Flow::<F, K>::blank(config, env.now());
    match flow.read(packet, env) {
        Ok(()) => answer(packet, env, &flow),
        Err(PassReason::Icmp) if F::is_in(&config.rips, flow.net.src) => error(packet, env, &flow),
        Err(reason) => Sent::pack(Ok(Verdict::Pass(reason))),
    }
}

/// Returns a packed [`Sent`].
#[inline(never)]
fn answer<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, F, K>,
) -> u64 {
    if F::is_in(&flow.config.rips, flow.net.src) {
        let mut way = Way { virt: flow.ends(), inside: F::NOWHERE };
        if is_known(env, flow, &mut way) {
            return send(packet, env, flow, &mut way.virt);
        }
    }
    let seen = observe(env, flow);
    Sent::pack(Ok(Verdict::Pass(if seen { PassReason::Reply } else { PassReason::NotOurs })))
}

/// Makes an answer the VIP's. Returns a packed [`Sent`].
#[inline(never)]
fn send<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, F, K>,
    virt: &mut Ends<F::Addr>,
) -> u64 {
    let virt = &*by_reference(virt);
    let is_ported = virt.to_port != flow.transport.src;
    let sum = Unfinished { is_unsummed: flow.is_unsummed(), is_ported };
    let sent = F::translate_here(packet, &flow.net, End::Source, virt.to, virt.to_port)
        .and_then(|()| nat::finish::<F, P, E, K>(packet, env, &flow.net, sum));
    Sent::pack(sent.map(|()| Verdict::Local { ifindex: env.ingress() }).map_err(Hindrance::Drop))
}

/// Makes an ICMP error about a request the VIP's; others pass. Its checksum needs no look: it was made here. Returns a packed [`Sent`].
#[inline(never)]
fn error<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, F, K>,
) -> u64 {
    let mut quote = Quote::blank(F::NOWHERE);
    let mut virt = quote.ends();
    let is_ours = is_quote_read::<F, P, K>(packet, flow.net.l4, &mut quote)
        && is_request_known(env, flow, by_reference(&mut quote), &mut virt);
    if !is_ours {
        return Sent::pack(Ok(Verdict::Pass(PassReason::Icmp)));
    }
    let sent = F::translate_error_here(packet, &flow.net, &quote, End::Source, virt.to, virt.to_port);
    Sent::pack(sent.map(|()| Verdict::Local { ifindex: env.ingress() }).map_err(Hindrance::Drop))
}
