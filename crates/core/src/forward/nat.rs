//! Network address translation: towards the server the destination becomes the server's, towards the client the source
//! becomes the virtual service's. Checksums are updated, not recomputed, so a wrong one stays wrong.

use crate::checksum::Update;
use crate::packet::Packet;
use crate::parse::FARTHEST_L4;
use crate::verdict::DropReason;
use crate::wire::{Icmp, Tcp, Udp, ip_protocol};

/// Which end of the packet is rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Requests.
    Destination,
    /// Replies.
    Source,
}

impl End {
    /// The other one.
    #[inline(always)]
    pub const fn other(self) -> Self {
        match self {
            Self::Destination => Self::Source,
            Self::Source => Self::Destination,
        }
    }
}

/// Fits the checksum of an ICMP message to what was changed in it.
#[inline(always)]
pub fn fit_checksum<P: Packet>(packet: &mut P, l4: usize, changed: Update) -> Result<(), DropReason> {
    // For the verifier, which cannot know it.
    if l4 > FARTHEST_L4 {
        return Err(DropReason::Malformed);
    }
    let Some(icmp) = packet.header_mut::<Icmp>(l4) else { return Err(DropReason::Malformed) };
    icmp.checksum = changed.apply(icmp.checksum);
    Ok(())
}

/// Rewrites the port, and fits the transport checksum to it and to what `changed` in the network header.
#[inline(always)]
pub fn translate_port<P: Packet>(
    packet: &mut P,
    l4: usize,
    protocol: u8,
    end: End,
    port: [u8; 2],
    changed: Update,
) -> Result<(), DropReason> {
    // For the verifier, which cannot know it.
    if l4 > FARTHEST_L4 {
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
