//! Network address translation: towards the server the destination becomes the server's, towards the client the source
//! becomes the virtual service's. Checksums are updated, not recomputed, so a wrong one stays wrong.

use super::{Hindrance, address_frame, leave_by, lower_ttl};
use crate::checksum::Update;
use crate::env::{Env, Route, RouteV4};
use crate::packet::Packet;
use crate::parse::{L3, NetV4};
use crate::verdict::{DropReason, Verdict};
use crate::wire::{Ipv4, Tcp, Udp, ip_protocol};

/// Which end of the packet is rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Towards the server.
    Destination,
    /// Towards the client.
    Source,
}

/// The way of a server's reply to the client.
///
/// The route is asked for with the virtual address as the source, as with `snat_reroute`=1, the default.
#[inline(always)]
pub fn route_to_client<P: Packet, E: Env>(
    packet: &P,
    env: &E,
    net: &NetV4,
    vip: [u8; 4],
) -> Result<ClientHop, Hindrance> {
    let Some(ip) = packet.header::<Ipv4>(L3) else { return Err(DropReason::Malformed.into()) };
    if ip.ttl <= 1 {
        return Err(Hindrance::TtlExceeded);
    }
    let query = RouteV4 { src: vip, dst: net.dst, protocol: net.protocol, tos: ip.tos, len: net.len };
    match env.route_v4(&query) {
        Route::Via { ifindex, from, to } => Ok(ClientHop { ifindex, from, to }),
        Route::TooBig { mtu } => Err(Hindrance::too_big(ip, mtu)),
        Route::NoNeighbour => Err(DropReason::ClientUnresolved.into()),
        Route::None => Err(DropReason::NoRoute.into()),
    }
}

/// Where a reply leaves to.
#[derive(Clone, Copy, Debug)]
pub struct ClientHop {
    ifindex: u32,
    from: [u8; 6],
    to: [u8; 6],
}

/// Sends a server's reply to the client, coming from the virtual address and port.
#[inline(always)]
pub fn send_to_client<P: Packet, E: Env>(
    packet: &mut P,
    env: &E,
    net: &NetV4,
    vip: [u8; 4],
    port: [u8; 2],
    hop: &ClientHop,
) -> Result<Verdict, DropReason> {
    rewrite_v4(packet, net, End::Source, vip, port)?;
    address_frame(packet, hop.to, hop.from)?;
    Ok(leave_by(env, hop.ifindex))
}

/// Rewrites one end of the packet, lowers its time to live, and fits the checksums of both layers.
#[inline(always)]
pub fn rewrite_v4<P: Packet>(
    packet: &mut P,
    net: &NetV4,
    end: End,
    addr: [u8; 4],
    port: [u8; 2],
) -> Result<(), DropReason> {
    let Some(ip) = packet.header_mut::<Ipv4>(L3) else { return Err(DropReason::Malformed) };
    let place = match end {
        End::Destination => &mut ip.dst,
        End::Source => &mut ip.src,
    };
    let changed = Update::NONE.replace32(*place, addr);
    *place = addr;
    lower_ttl(ip, changed);
    rewrite_port(packet, net.l4, net.protocol, end, port, changed)
}

#[inline(always)]
fn rewrite_port<P: Packet>(
    packet: &mut P,
    l4: usize,
    protocol: u8,
    end: End,
    port: [u8; 2],
    changed: Update,
) -> Result<(), DropReason> {
    // An IPv4 header has 20 to 60 bytes; said again for the verifier, which cannot know it.
    if l4 > L3 + 60 {
        return Err(DropReason::Malformed);
    }
    if protocol == ip_protocol::TCP {
        let Some(tcp) = packet.header_mut::<Tcp>(l4) else { return Err(DropReason::Malformed) };
        let place = match end {
            End::Destination => &mut tcp.dst,
            End::Source => &mut tcp.src,
        };
        let changed = changed.replace16(*place, port);
        *place = port;
        tcp.checksum = changed.apply(tcp.checksum);
    } else {
        let Some(udp) = packet.header_mut::<Udp>(l4) else { return Err(DropReason::Malformed) };
        let place = match end {
            End::Destination => &mut udp.dst,
            End::Source => &mut udp.src,
        };
        let changed = changed.replace16(*place, port);
        *place = port;
        // RFC 768: 0 means none was computed, and a computed 0 is sent as ffff.
        if udp.checksum != [0, 0] {
            udp.checksum = match changed.apply(udp.checksum) {
                [0, 0] => [0xff, 0xff],
                sum => sum,
            };
        }
    }
    Ok(())
}
