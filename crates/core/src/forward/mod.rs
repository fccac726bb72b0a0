//! Sending a packet on: by NAT, by direct routing, or through a tunnel.
//!
//! Every method first asks the same things of the packet ([`prepare_v4`]: time to live, next hop, size), and then rewrites
//! it in one go ([`send_v4`]).

pub mod direct;
pub mod nat;
pub mod tunnel;

use crate::checksum::Update;
use crate::conn::Entry;
use crate::env::Env;
use crate::method::Method;
use crate::packet::Packet;
use crate::parse::{L3, NetV4};
use crate::server::{Hop, Server, flag};
use crate::verdict::{DropReason, Verdict};
use crate::wire::{Ethernet, Ipv4, ethertype};

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
    /// It is dropped for this reason.
    Drop(DropReason),
}

impl Hindrance {
    /// A packet is larger than the way takes. One that may be fragmented is dropped: XDP makes one packet of one.
    #[inline(always)]
    fn too_big(ip: &Ipv4, mtu: u16) -> Self {
        if ip.dont_fragment() { Self::TooBig { mtu } } else { Self::Drop(DropReason::TooBig) }
    }
}

impl From<DropReason> for Hindrance {
    #[inline(always)]
    fn from(reason: DropReason) -> Self {
        Self::Drop(reason)
    }
}

/// What a packet must satisfy to be sent to this server by this method, and where it goes then.
#[inline(always)]
pub fn prepare_v4<P: Packet>(packet: &P, server: &Server, method: u8) -> Result<Hop, Hindrance> {
    let (flags, hop) = server.hop();
    let Some(ip) = packet.header::<Ipv4>(L3) else { return Err(DropReason::Malformed.into()) };
    if ip.ttl <= 1 {
        return Err(Hindrance::TtlExceeded);
    }
    if flags & flag::RESOLVED == 0 {
        return Err(DropReason::Unresolved.into());
    }
    let overhead = if method == Method::Tunnel as u8 { Ipv4::LEN as u16 } else { 0 };
    let room = hop.mtu.saturating_sub(overhead);
    if ip.packet_len() > room {
        return Err(Hindrance::too_big(ip, room));
    }
    Ok(hop)
}

/// Sends a prepared packet to its server as its connection says.
#[inline(always)]
pub fn send_v4<P: Packet, E: Env>(
    packet: &mut P,
    env: &E,
    net: &NetV4,
    server: &Server,
    entry: Entry,
    hop: &Hop,
) -> Result<Verdict, DropReason> {
    match Method::from_u8(entry.method()) {
        Some(Method::Direct) => direct::to_server(packet)?,
        Some(Method::Masquerade) => {
            nat::rewrite_v4(packet, net, nat::End::Destination, server.addr_v4(), entry.port())?;
        }
        Some(Method::Tunnel) => tunnel::wrap_ipip(packet, env, server)?,
        _ => return Err(DropReason::Unsupported),
    }
    address_frame(packet, hop.to, hop.from)?;
    Ok(leave_by(env, hop.ifindex))
}

/// Lowers the time to live by one and fits the header's checksum (RFC 1624).
#[inline(always)]
fn lower_ttl(ip: &mut Ipv4, changed: Update) {
    let old = [ip.ttl, ip.protocol];
    ip.ttl = ip.ttl.wrapping_sub(1);
    ip.checksum = changed.replace16(old, [ip.ttl, ip.protocol]).apply(ip.checksum);
}

/// Gives the frame its Ethernet header.
#[inline(always)]
fn address_frame<P: Packet>(packet: &mut P, to: [u8; 6], from: [u8; 6]) -> Result<(), DropReason> {
    let Some(eth) = packet.header_mut::<Ethernet>(0) else { return Err(DropReason::Malformed) };
    *eth = Ethernet { dst: to, src: from, kind: ethertype::IPV4.to_be_bytes() };
    Ok(())
}

/// Out of the interface it came in by, or of another one.
#[inline(always)]
fn leave_by<E: Env>(env: &E, ifindex: u32) -> Verdict {
    if ifindex == env.ingress() { Verdict::Transmit { ifindex } } else { Verdict::Redirect { ifindex } }
}
