//! SCTP's checksum: CRC32c over the whole packet with the checksum's own field zero (RFC 9260, appendix A). It covers no
//! addresses, so a packet needs a new one only when a port changes. Unlike the Internet checksum it is not updated but
//! made anew, so NAT of ports makes a wrong one right.

use crate::carried::Carried;
use crate::env::{Env, Step};
use crate::packet::{Packet, by_reference};
use crate::parse::{FARTHEST_L4, Word};
use crate::verdict::DropReason;
use crate::verifier::{in_turn, low_bits};
use crate::wire::{Byte, Sctp};

/// The polynomial, reflected.
const POLYNOMIAL: u32 = 0x82f6_3b78;

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
}

static TABLE: [u32; 256] = table();

#[inline(always)]
fn add(crc: u32, byte: u8) -> u32 {
    match TABLE.get(low_bits::<0xff>((crc ^ byte as u32).into())) {
        Some(entry) => crc >> 8 ^ entry,
        None => crc,
    }
}

#[inline(always)]
fn add_word(crc: u32, [a, b, c, d]: [u8; 4]) -> u32 {
    add(add(add(add(crc, a), b), c), d)
}

/// Which word of the packet is the checksum.
const CHECKSUM: u32 = 2;
/// Words that are summed at the most: see [`crate::checksum`].
const MOST_WORDS: u32 = if cfg!(target_arch = "bpf") { 2304 } else { 1 << 14 };

/// Gives a packet of so many bytes from its SCTP header on its checksum.
#[inline(always)]
pub fn fit<P: Packet, E: Env>(packet: &mut P, env: &E, l4: usize, length: usize) -> Result<(), DropReason> {
    if packet.beyond().bytes != 0 {
        // Unlike the Internet's, this sum is not one of sums.
        return Err(DropReason::Unsupported);
    }
    match summed(packet, env, l4, length) {
        u64::MAX => Err(DropReason::Malformed),
        crc => {
            if l4 > FARTHEST_L4 {
                return Err(DropReason::Malformed);
            }
            let Some(sctp) = packet.header_mut::<Sctp>(l4) else { return Err(DropReason::Malformed) };
            sctp.checksum = (crc as u32).to_le_bytes();
            Ok(())
        }
    }
}

/// In a function with a stack frame of its own, which gives scalars only; see [`crate::checksum::sum_packed`].
#[inline(never)]
fn summed<P: Packet, E: Env>(packet: &mut P, env: &E, l4: usize, length: usize) -> u64 {
    sum_of(by_reference(packet), env, l4, length).map_or(u64::MAX, u64::from)
}

#[inline(always)]
fn sum_of<P: Packet, E: Env>(packet: &P, env: &E, at: usize, length: usize) -> Option<u32> {
    let words = (length / 4) as u32;
    let turns = words + (length % 4) as u32;
    let (crc, is_cut) = (Carried::new(u32::MAX), Carried::new(false));
    let mut adding = Adding { packet, at, words, crc, is_cut };
    env.repeat(turns, &mut adding);
    (!adding.is_cut.get()).then_some(!adding.crc.get())
}

/// Word by word, and then byte by byte.
struct Adding<'p, P> {
    packet: &'p P,
    at: usize,
    words: u32,
    crc: Carried<u32>,
    /// Not all of it is there.
    is_cut: Carried<bool>,
}

impl<P: Packet> Adding<'_, P> {
    /// The sum with what is next.
    #[inline(always)]
    fn next(&self, i: u32) -> Option<u32> {
        if i >= MOST_WORDS || self.words > MOST_WORDS || self.at > FARTHEST_L4 {
            return None;
        }
        let crc = self.crc.get();
        if i < self.words {
            let word = self.packet.header::<Word>(self.at + i as usize * 4)?;
            return Some(add_word(crc, if i == CHECKSUM { [0; 4] } else { word.0 }));
        }
        // See [`crate::checksum`].
        let beyond = in_turn((i - self.words) as u64 & 3) as usize;
        let Byte(byte) = *self.packet.header::<Byte>(self.at + self.words as usize * 4 + beyond)?;
        Some(add(crc, byte))
    }
}

impl<P: Packet> Step for Adding<'_, P> {
    #[inline(always)]
    fn turn(&mut self, i: u32) -> bool {
        let Some(crc) = self.next(i) else {
            self.is_cut.set(true);
            return false;
        };
        self.crc.set(crc);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_the_polynomial() {
        // As catalogued for CRC-32/ISCSI: of the nine digits.
        let crc = b"123456789".iter().fold(u32::MAX, |crc, byte| add(crc, *byte));
        assert_eq!(!crc, 0xe306_9283);
    }

    #[test]
    fn words_are_bytes_in_order() {
        let bytes = add(add(add(add(7, 1), 2), 3), 4);
        assert_eq!(add_word(7, [1, 2, 3, 4]), bytes);
    }
}
