//! SCTP (RFC 9260), as far as a director looks at it: ports, the first chunk, the checksum.

pub mod crc;
pub mod state;

use crate::packet::Packet;
use crate::parse::{FARTHEST_L4, Transport};
use crate::verdict::PassReason;
use crate::verifier::in_turn;
use crate::wire::{Chunk, Sctp};
use state::Event;

/// How long a cookie may be, in bytes, for the chunk behind it still to be looked at.
const LONGEST_COOKIE: usize = 2048;

/// Reads ports and what the packet means to the state table, which stands where TCP has its flags.
#[inline(always)]
pub fn transport<P: Packet>(packet: &P, l4: usize) -> Result<Transport, PassReason> {
    // For the verifier, which cannot know it.
    if l4 > FARTHEST_L4 {
        return Err(PassReason::Extensions);
    }
    let Some(sctp) = packet.header::<Sctp>(l4) else { return Err(PassReason::Malformed) };
    let (src, dst) = (sctp.src, sctp.dst);
    let Some(first) = packet.header::<Chunk>(l4 + Sctp::LEN) else { return Err(PassReason::Malformed) };
    let mut event = Event::of(first.kind);
    if matches!(event, Event::CookieEcho | Event::CookieAck) && is_abort_behind(packet, l4, first) {
        event = Event::Abort;
    }
    Ok(Transport { src, dst, flags: event as u8 })
}

/// A cookie may come with an ABORT behind it, which counts.
#[inline(always)]
fn is_abort_behind<P: Packet>(packet: &P, l4: usize, cookie: &Chunk) -> bool {
    // A chunk is filled up to four bytes (RFC 9260, 3.2).
    let length = (u16::from_be_bytes(cookie.len) as usize + 3) & !3;
    if !(Chunk::LEN..=LONGEST_COOKIE).contains(&length) {
        return false;
    }
    // The same number, for the verifier: up to Linux 6.12 it does not learn from the comparison, which is done with another.
    const _: () = assert!(LONGEST_COOKIE < 0xffc);
    let length = in_turn(length as u64) as usize & 0xffc;
    packet
        .header::<Chunk>(l4 + Sctp::LEN + length)
        .is_some_and(|next| matches!(Event::of(next.kind), Event::Abort))
}
