//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! One's-complement sums do not depend on byte order as long as all summands are read and the result is
//! written in the same order (RFC 1071, 2(B)), so everything here works on words as they lie in memory.

use crate::carried::Carried;
use crate::env::{Env, Step};
use crate::packet::{Packet, by_reference};
use crate::parse::Word;
use crate::unaligned::{load16, store16};
use crate::verifier::in_turn;
use crate::wire::AddrV6;

/// A one's-complement sum that is not folded yet. Summands of up to 2^32 may be added some four billion times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Nothing summed yet.
    pub const ZERO: Self = Self(0);

    /// A sum that already holds the folded `value`.
    #[inline(always)]
    pub const fn of(value: u16) -> Self {
        Self(value as u64)
    }

    /// Adds four bytes.
    #[inline(always)]
    pub const fn add32(self, bytes: [u8; 4]) -> Self {
        Self(self.0 + u32::from_ne_bytes(bytes) as u64)
    }

    /// Adds an IPv6 address.
    #[inline(always)]
    pub const fn add_v6(self, addr: AddrV6) -> Self {
        let [a, b, c, d] = addr.words();
        Self(self.0 + a as u64 + b as u64 + c as u64 + d as u64)
    }

    /// Adds two bytes.
    #[inline(always)]
    pub const fn add16(self, bytes: [u8; 2]) -> Self {
        Self(self.0 + u16::from_ne_bytes(bytes) as u64)
    }

    /// Adds another sum.
    #[inline(always)]
    pub const fn add(self, other: Sum) -> Self {
        Self(self.0 + other.0)
    }

    /// Takes four bytes away: adds their complement (RFC 1624, equation 3).
    #[inline(always)]
    pub const fn sub32(self, bytes: [u8; 4]) -> Self {
        Self(self.0 + !u32::from_ne_bytes(bytes) as u64)
    }

    /// Takes two bytes away.
    #[inline(always)]
    pub const fn sub16(self, bytes: [u8; 2]) -> Self {
        Self(self.0 + !u16::from_ne_bytes(bytes) as u64)
    }

    /// The sum in 16 bits, end-around carries done.
    #[inline(always)]
    pub const fn fold(self) -> u16 {
        let s = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        let s = (s & 0xffff) + (s >> 16);
        let s = (s & 0xffff) + (s >> 16);
        // 0x10001 at the most: what is above 16 bits once more, and nothing is then.
        (s + (s >> 16)) as u16
    }

    /// [`Sum::fold`] of less than 2^37.
    #[inline(always)]
    const fn fold_small(self) -> u16 {
        let s = (self.0 & 0xffff) + (self.0 >> 16);
        let s = (s & 0xffff) + (s >> 16);
        // 0x1001f at the most.
        (s + (s >> 16)) as u16
    }

    /// Is everything summed right, the checksum field included? So it is when [`Sum::fold`] gives ffff: when the sum is a multiple of
    /// that, and not 0. Whether an odd number divides another without a rest is told by a multiplication with its inverse.
    #[inline(always)]
    pub const fn holds(self) -> bool {
        const DIVISOR: u64 = 0xffff;
        const INVERSE: u64 = 0xfffe_fffe_fffe_ffff;
        const { assert!(DIVISOR.wrapping_mul(INVERSE) == 1) };
        self.0 != 0 && self.0.wrapping_mul(INVERSE) <= u64::MAX / DIVISOR
    }

    /// [`Sum::checksum`] of a few words only: of less than 2^37.
    #[inline(always)]
    pub const fn checksum_of_few(self) -> [u8; 2] {
        (!self.fold_small()).to_ne_bytes()
    }

    /// The checksum field that makes everything summed right.
    #[inline(always)]
    pub const fn checksum(self) -> [u8; 2] {
        (!self.fold()).to_ne_bytes()
    }
}

/// What a rewrite changed: old bytes out, new bytes in; applied to each checksum that covers them. Two addresses and a few ports, or
/// less: below 2^37 in sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Update(Sum);

impl Update {
    /// Nothing changed yet.
    pub const NONE: Self = Self(Sum::ZERO);

    /// Four bytes became other four.
    #[inline(always)]
    pub const fn replace32(self, old: [u8; 4], new: [u8; 4]) -> Self {
        Self(self.0.sub32(old).add32(new))
    }

    /// Two bytes became other two.
    #[inline(always)]
    pub const fn replace16(self, old: [u8; 2], new: [u8; 2]) -> Self {
        Self(self.0.sub16(old).add16(new))
    }

    /// An IPv6 address became another.
    #[inline(always)]
    pub const fn replace_v6(self, old: AddrV6, new: AddrV6) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (old.words(), new.words());
        self.replace_word(a, e).replace_word(b, f).replace_word(c, g).replace_word(d, h)
    }

    #[inline(always)]
    const fn replace_word(self, old: u32, new: u32) -> Self {
        self.replace32(old.to_ne_bytes(), new.to_ne_bytes())
    }

    /// What two rewrites changed.
    #[inline(always)]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0.add(other.0))
    }

    /// What is to be added to a sum for the change, in 16 bits.
    #[inline(always)]
    pub const fn folded(self) -> u16 {
        self.0.fold()
    }

    /// The checksum field after the change: HC' = ~(~HC + ~m + m') (RFC 1624, equation 3).
    #[inline(always)]
    pub const fn apply(self, checksum: [u8; 2]) -> [u8; 2] {
        (!Sum::of(!u16::from_ne_bytes(checksum)).add(self.0).fold_small()).to_ne_bytes()
    }

    /// [`Update::apply`] to a field in its place.
    #[inline(always)]
    pub fn apply_to(self, field: &mut [u8; 2]) {
        store16(field, u16::from_ne_bytes(self.apply(load16(field).to_ne_bytes())));
    }

    /// The first of two bytes became less by one; it was not 0.
    #[inline(always)]
    pub const fn first_less_one(self) -> Self {
        Self(self.0.sub16([1, 0]))
    }
}

/// The sum over a 20-byte IPv4 header.
#[inline(always)]
pub fn ipv4_header_sum(ip: &crate::wire::Ipv4) -> Sum {
    ip.words().iter().fold(Sum::ZERO, |sum, word| sum.add32(*word))
}

/// The sum of bytes in host memory, in this machine's order of bytes.
#[cfg(not(target_arch = "bpf"))]
pub fn sum_of_bytes(bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    words.iter().fold(Sum::ZERO, |sum, word| sum.add32(*word)).add32(last).fold()
}

/// The sum of so many bytes of a packet from this offset (which is not 0) on, added to another. `None`: they are not there.
#[inline(always)]
pub fn sum_packed<P: Packet, E: Env>(
    packet: &mut P,
    env: &E,
    at: usize,
    length: usize,
    start: Sum,
) -> Option<Sum> {
    match summed(packet, env, at, length, start.0) {
        u64::MAX => None,
        sum => Some(Sum(sum)),
    }
}

/// In a function with a stack frame of its own, which gives scalars only.
#[inline(never)]
fn summed<P: Packet, E: Env>(packet: &mut P, env: &E, at: usize, length: usize, start: u64) -> u64 {
    sum_of(by_reference(packet), env, at, length, Sum(start)).map_or(u64::MAX, |sum| sum.0)
}

/// Words of a packet that are summed at the most: those of a jumbo frame where the verifier asks for a bound, those of any packet
/// on a host.
const MOST_WORDS: u32 = if cfg!(target_arch = "bpf") { 2304 } else { 1 << 14 };
/// Offsets at which a sum may begin.
const FARTHEST: usize = 1024;

#[inline(always)]
fn sum_of<P: Packet, E: Env>(packet: &P, env: &E, at: usize, length: usize, start: Sum) -> Option<Sum> {
    // Of a packet that is not all there, only sums to its end are asked for.
    let beyond = packet.beyond();
    let length = length.checked_sub(beyond.bytes as usize)?;
    let start = start.add16(beyond.sum.to_ne_bytes());
    let words = (length / 4) as u32;
    let turns = words + (length % 4) as u32;
    let mut adding = Adding { packet, at, words, sum: Carried::new(start.0), is_cut: Carried::new(false) };
    env.repeat(turns, &mut adding);
    (!adding.is_cut.get()).then_some(Sum(adding.sum.get()))
}

/// Two bytes of anything.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Pair([u8; 2]);
// SAFETY: an array of bytes.
unsafe impl crate::wire::Header for Pair {}

/// Word by word, and then byte by byte.
struct Adding<'p, P> {
    packet: &'p P,
    at: usize,
    words: u32,
    sum: Carried<u64>,
    /// Not all of it is there.
    is_cut: Carried<bool>,
}

impl<P: Packet> Adding<'_, P> {
    /// The sum with what is next.
    #[inline(always)]
    fn next(&self, i: u32) -> Option<Sum> {
        if i >= MOST_WORDS || self.words > MOST_WORDS || self.at > FARTHEST {
            return None;
        }
        let sum = Sum(self.sum.get());
        if i < self.words {
            let word = self.packet.header::<Word>(self.at + i as usize * 4)?;
            return Some(sum.add32(word.0));
        }
        // Opaque, or the compiler makes an `or` of the sum below, of whose result older verifiers know nothing.
        let beyond = in_turn((i - self.words) as u64 & 3) as usize;
        // With the one before it: the verifier does not see that a single byte lies before the packet's end.
        let at = self.at + self.words as usize * 4 + beyond - 1;
        let Pair([_, byte]) = *self.packet.header::<Pair>(at)?;
        Some(sum.add16(if beyond & 1 == 0 { [byte, 0] } else { [0, byte] }))
    }
}

impl<P: Packet> Step for Adding<'_, P> {
    #[inline(always)]
    fn turn(&mut self, i: u32) -> bool {
        let Some(sum) = self.next(i) else {
            self.is_cut.set(true);
            return false;
        };
        self.sum.set(sum.0);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slow(bytes: &[u8]) -> u16 {
        let mut sum: u32 = 0;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    fn fast(bytes: &[u8]) -> [u8; 2] {
        let (words, rest) = bytes.as_chunks::<4>();
        let mut sum = words.iter().fold(Sum::ZERO, |s, w| s.add32(*w));
        let mut tail = [0; 4];
        tail[..rest.len()].copy_from_slice(rest);
        sum = sum.add32(tail);
        sum.checksum()
    }

    proptest! {
        #[test]
        fn what_holds_folds_to_all_ones(multiple in 0u64..1 << 47, off in 0u64..3) {
            for sum in [Sum(multiple * 0xffff + off), Sum(multiple), Sum(u64::MAX - multiple)] {
                prop_assert_eq!(sum.holds(), sum.fold() == 0xffff, "{:?}", sum);
            }
        }

        #[test]
        fn a_fold_is_the_rest_of_a_division(sum in any::<u64>()) {
            let rest = (sum % 0xffff) as u16;
            prop_assert_eq!(Sum(sum >> 27).fold_small(), Sum(sum >> 27).fold());
            prop_assert_eq!(Sum(sum).fold(), if rest == 0 && sum != 0 { 0xffff } else { rest });
        }
    }

    #[test]
    fn rfc1071_example() {
        // RFC 1071, section 3: the sum of 00 01 f2 03 f4 f5 f6 f7 is ddf2.
        assert_eq!(fast(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), (!0xddf2u16).to_be_bytes());
    }

    proptest! {
        #[test]
        fn sum_equals_the_definition(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            prop_assert_eq!(fast(&bytes), slow(&bytes).to_be_bytes());
        }

        #[test]
        fn update_equals_full_recomputation(
            mut bytes in proptest::collection::vec(any::<u8>(), 20..64),
            new32 in any::<[u8; 4]>(), new16 in any::<[u8; 2]>(),
        ) {
            bytes.truncate(bytes.len() & !3);
            let before = slow(&bytes).to_be_bytes();
            let old32: [u8; 4] = bytes[4..8].try_into().unwrap();
            let old16: [u8; 2] = bytes[10..12].try_into().unwrap();
            bytes[4..8].copy_from_slice(&new32);
            bytes[10..12].copy_from_slice(&new16);
            let after = Update::NONE.replace32(old32, new32).replace16(old16, new16).apply(before);
            let full = slow(&bytes).to_be_bytes();
            // 0000 and ffff are the same number; an update may give the other one when all data is zero.
            let canon = |c: [u8; 2]| if c == [0xff, 0xff] { [0, 0] } else { c };
            prop_assert_eq!(canon(after), canon(full));
        }
    }
}
