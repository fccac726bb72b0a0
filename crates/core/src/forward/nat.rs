//! Network address translation: towards the server the destination becomes the server's, towards the client the source
//! becomes the virtual service's. Checksums are updated, not recomputed, so a wrong one stays wrong.

use crate::checksum::{Sum, Update, sum_packed};
use crate::env::Env;
use crate::family::Family;
use crate::packet::Packet;
use crate::parse::{FARTHEST_L4, L3, Net};
use crate::sctp::crc;
use crate::unaligned::{load16, store16};
use crate::verdict::DropReason;
use crate::wire::{Icmp, Sctp, Tcp, Udp, ip_protocol};
use core::mem::offset_of;

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
        let old = load16(place).to_ne_bytes();
        store16(place, u16::from_ne_bytes(port));
        if P::KEEPS_NOTES {
            return fit_by_note(packet, l4 + offset_of!(Tcp, checksum), changed, [old, port], false);
        }
        changed.replace16(old, port).apply_to(&mut tcp.checksum);
    } else if protocol == ip_protocol::UDP {
        let Some(udp) = packet.header_mut::<Udp>(l4) else { return Err(DropReason::Malformed) };
        let place = match end {
            End::Destination => &mut udp.dst,
            End::Source => &mut udp.src,
        };
        let old = load16(place).to_ne_bytes();
        store16(place, u16::from_ne_bytes(port));
        if P::KEEPS_NOTES {
            return fit_by_note(packet, l4 + offset_of!(Udp, checksum), changed, [old, port], true);
        }
        let checksum = load16(&udp.checksum).to_ne_bytes();
        if checksum != [0, 0] {
            let checksum = summed(changed.replace16(old, port).apply(checksum));
            store16(&mut udp.checksum, u16::from_ne_bytes(checksum));
        }
    } else if protocol == ip_protocol::SCTP {
        let Some(sctp) = packet.header_mut::<Sctp>(l4) else { return Err(DropReason::Malformed) };
        let place = match end {
            End::Destination => &mut sctp.dst,
            End::Source => &mut sctp.src,
        };
        *place = port;
    }
    // IPsec has no ports.
    Ok(())
}

/// Fits a transport checksum that may be left to the device: of such a one ports are no part.
#[inline(always)]
fn fit_by_note<P: Packet>(
    packet: &mut P,
    at: usize,
    changed: Update,
    [old, port]: [[u8; 2]; 2],
    is_optional: bool,
) -> Result<(), DropReason> {
    let ported = Update::NONE.replace16(old, port);
    if packet.fit_checksum(at, changed, ported, is_optional) { Ok(()) } else { Err(DropReason::Malformed) }
}

/// What a packet that was translated still lacks, as far as it is not updated but made anew.
#[derive(Clone, Copy)]
pub struct Unfinished {
    /// A datagram without a checksum: it leaves with one, as from the kernel.
    pub is_unsummed: bool,
    /// Its port changed: of SCTP that means another checksum.
    pub is_ported: bool,
}

/// Makes the checksum of a translated packet, where that is to be made anew.
#[inline(always)]
pub fn finish<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    net: &Net<F::Addr>,
    unfinished: Unfinished,
) -> Result<(), DropReason> {
    let Some(length) = (net.len as usize).checked_sub(net.l4.wrapping_sub(L3)) else {
        return Err(DropReason::Malformed);
    };
    if net.protocol == ip_protocol::SCTP && unfinished.is_ported {
        if P::KEEPS_NOTES && packet.is_left_to_device() {
            return Ok(());
        }
        crc::fit(packet, env, net.l4, length)
    } else if unfinished.is_unsummed {
        let Some(pseudo) = F::pseudo_header_in(packet, length as u16, net.protocol) else {
            return Err(DropReason::Malformed);
        };
        sum_datagram(packet, env, net.l4, length, pseudo)
    } else {
        Ok(())
    }
}

#[inline(always)]
fn sum_datagram<P: Packet, E: Env>(
    packet: &mut P,
    env: &E,
    l4: usize,
    length: usize,
    pseudo: Sum,
) -> Result<(), DropReason> {
    let Some(sum) = sum_packed(packet, env, l4, length, pseudo) else { return Err(DropReason::Malformed) };
    if l4 > FARTHEST_L4 {
        return Err(DropReason::Malformed);
    }
    let Some(udp) = packet.header_mut::<Udp>(l4) else { return Err(DropReason::Malformed) };
    udp.checksum = summed(sum.checksum());
    Ok(())
}

/// RFC 768: 0 means that none was computed, and a computed 0 is sent as ffff.
#[inline(always)]
const fn summed(checksum: [u8; 2]) -> [u8; 2] {
    match checksum {
        [0, 0] => [0xff, 0xff],
        sum => sum,
    }
}
