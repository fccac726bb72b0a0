//! Sending a packet on: by NAT, by direct routing, or through a tunnel.
//!
//! Every method first asks the same things of the packet ([`Family::prepare`]: time to live, next hop, size), and then
//! rewrites it in one go.

pub mod nat;
pub mod tunnel;
pub mod v4;
pub mod v6;

use crate::conn::Entry;
use crate::env::{Env, Route};
use crate::family::{Ends, Family};
use crate::icmp::quote::Quote;
use crate::method::Method;
use crate::packet::Packet;
use crate::parse::{L3, Net};
use crate::server::{Onward, Server};
use crate::verdict::{DropReason, Verdict};
use crate::wire::Ethernet;

/// Why a packet cannot be sent on as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// Its time to live ends here.
    TtlExceeded,
    /// It is larger than the way takes, and must not be fragmented.
    TooBig {
        /// What the way takes, tunnel headers already subtracted.
        mtu: u16,
    },
    /// It is longer than the way takes, and may be cut.
    MayBeCut {
        /// What the way takes, tunnel headers included.
        mtu: u16,
    },
    /// It is dropped for this reason.
    Drop(DropReason),
}

impl From<DropReason> for Hindrance {
    #[inline(always)]
    fn from(reason: DropReason) -> Self {
        Self::Drop(reason)
    }
}

/// Sends a prepared packet to its server as its connection says.
#[inline(always)]
pub fn to_server<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    net: &Net<F::Addr>,
    server: &Server,
    entry: Entry,
    hop: &Onward<'_>,
) -> Result<Verdict, DropReason> {
    cut_padding(packet, net.len)?;
    rewrite_to_server::<F, P, E, K>(packet, env, net, server, entry, hop)
}

/// [`to_server`] for the short way: what lies behind the packet is taken off last. An end that moves has all that is known of the
/// frame asked again, and this one then has nobody who would ask.
#[inline(always)]
pub fn to_server_at_once<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    net: &Net<F::Addr>,
    server: &Server,
    entry: Entry,
    hop: &Onward<'_>,
) -> Result<Verdict, DropReason> {
    if P::KEEPS_NOTES {
        // The kernel moves no end of a packet in a tunnel.
        return to_server::<F, P, E, K>(packet, env, net, server, entry, hop);
    }
    let padding = padding(packet, net.len);
    let verdict = rewrite_to_server::<F, P, E, K>(packet, env, net, server, entry, hop)?;
    cut(packet, padding)?;
    Ok(verdict)
}

#[inline(always)]
fn rewrite_to_server<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    net: &Net<F::Addr>,
    server: &Server,
    entry: Entry,
    hop: &Onward<'_>,
) -> Result<Verdict, DropReason> {
    match Method::from_u8(entry.method()) {
        // Direct routing: the packet as it is, in a frame to the server.
        Some(Method::Direct) => F::lower_ttl(packet)?,
        Some(Method::Masquerade) => {
            F::translate(packet, net, nat::End::Destination, F::server_addr(server), entry.port())?;
        }
        Some(Method::Tunnel) => {
            F::wrap(packet, env, net, server, hop)?;
            return Ok(leave_by(env, hop.ifindex()));
        }
        _ => return Err(DropReason::Unsupported),
    }
    address_onward(packet, hop, F::ETHERTYPE)?;
    Ok(leave_by(env, hop.ifindex()))
}

/// Translates a reply back and sends it to its client.
#[inline(always)]
pub fn to_client<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    net: &Net<F::Addr>,
    virt: &Ends<F::Addr>,
    route: &Route,
) -> Result<Verdict, DropReason> {
    let Route::Via { ifindex, from, to } = *route else { return Err(DropReason::NoRoute) };
    cut_padding(packet, net.len)?;
    F::translate(packet, net, nat::End::Source, virt.to, virt.to_port)?;
    address_frame(packet, to, from, F::ETHERTYPE)?;
    Ok(leave_by(env, ifindex))
}

/// Sends a packet where it is addressed to.
#[inline(always)]
pub fn to_destination<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    net: &Net<F::Addr>,
    route: &Route,
) -> Result<Verdict, DropReason> {
    let Route::Via { ifindex, from, to } = *route else { return Err(DropReason::NoRoute) };
    cut_padding(packet, net.len)?;
    F::lower_ttl(packet)?;
    address_frame(packet, to, from, F::ETHERTYPE)?;
    Ok(leave_by(env, ifindex))
}

/// Sends an ICMP error to the server of the connection that it is about, as that connection's packets.
#[inline(always)]
pub fn error_to_server<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    about: &About<'_, F::Addr>,
    server: &Server,
    entry: Entry,
    hop: &Onward<'_>,
) -> Result<Verdict, DropReason> {
    if entry.method() != Method::Masquerade as u8 {
        return to_server::<F, P, E, K>(packet, env, about.net, server, entry, hop);
    }
    cut_padding(packet, about.net.len)?;
    let addr = F::server_addr(server);
    F::translate_error(packet, about.net, about.quote, nat::End::Destination, addr, entry.port())?;
    address_onward(packet, hop, F::ETHERTYPE)?;
    Ok(leave_by(env, hop.ifindex()))
}

/// Sends an ICMP error from inside to the client of the NAT connection that it is about: as if the VIP had sent it.
#[inline(always)]
pub fn error_to_client<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    about: &About<'_, F::Addr>,
    virt: &Ends<F::Addr>,
    route: &Route,
) -> Result<Verdict, DropReason> {
    let Route::Via { ifindex, from, to } = *route else { return Err(DropReason::NoRoute) };
    cut_padding(packet, about.net.len)?;
    F::translate_error(packet, about.net, about.quote, nat::End::Source, virt.to, virt.to_port)?;
    address_frame(packet, to, from, F::ETHERTYPE)?;
    Ok(leave_by(env, ifindex))
}

/// An ICMP error, and what it is about.
pub struct About<'a, A> {
    /// The error.
    pub net: &'a Net<A>,
    /// What it quotes.
    pub quote: &'a Quote<A>,
}

/// Takes off what lies behind an IP packet of so many bytes: Ethernet fills short frames up.
#[inline(always)]
fn cut_padding<P: Packet>(packet: &mut P, len: u16) -> Result<(), DropReason> {
    cut(packet, padding(packet, len))
}

/// How many bytes lie behind an IP packet of so many.
#[inline(always)]
fn padding<P: Packet>(packet: &P, len: u16) -> usize {
    packet.behind(L3 + len as usize)
}

#[inline(always)]
fn cut<P: Packet>(packet: &mut P, padding: usize) -> Result<(), DropReason> {
    if padding != 0 && !packet.trim_tail(padding) {
        return Err(DropReason::Malformed);
    }
    Ok(())
}

/// Gives the frame the Ethernet header of the way to a server.
#[inline(always)]
pub fn address_onward<P: Packet>(packet: &mut P, hop: &Onward<'_>, ethertype: u16) -> Result<(), DropReason> {
    let Some(eth) = packet.header_mut::<Ethernet>(0) else { return Err(DropReason::Malformed) };
    hop.address(eth, ethertype);
    Ok(())
}

/// Gives the frame its Ethernet header.
#[inline(always)]
pub fn address_frame<P: Packet>(
    packet: &mut P,
    to: [u8; 6],
    from: [u8; 6],
    ethertype: u16,
) -> Result<(), DropReason> {
    let Some(eth) = packet.header_mut::<Ethernet>(0) else { return Err(DropReason::Malformed) };
    *eth = Ethernet { dst: to, src: from, kind: ethertype.to_be_bytes() };
    Ok(())
}

/// How long the pieces may be in which a packet leaves that is cut to this, if it came in fragments of which the largest was so
/// long. The kernel sends no longer ones than it got.
#[inline(always)]
pub const fn pieces(mtu: u16, largest_fragment: u16) -> u16 {
    if largest_fragment != 0 && largest_fragment < mtu { largest_fragment } else { mtu }
}

/// Has the packet leave in pieces of so many bytes; 0: as it is.
#[inline(always)]
pub fn in_pieces<E: Env>(env: &E, verdict: Verdict, bytes: u16) -> Verdict {
    match verdict {
        Verdict::Transmit { ifindex } | Verdict::Redirect { ifindex } if bytes != 0 => {
            env.cut_to(bytes);
            Verdict::Cut { ifindex }
        }
        verdict => verdict,
    }
}

/// Out of the interface it came in by, or of another one.
#[inline(always)]
pub fn leave_by<E: Env>(env: &E, ifindex: u32) -> Verdict {
    if ifindex == env.ingress() { Verdict::Transmit { ifindex } } else { Verdict::Redirect { ifindex } }
}
