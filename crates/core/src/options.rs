//! IPv4 options (RFC 791, 3.1), as the kernel's own input deals with them before IPVS sees a packet: routes are recorded and
//! times stamped on packets that go on; what it drops or answers is left to it.
//!
//! They are read twice. [`check`] comes before anything is decided about a packet, and changes nothing, since what goes to the
//! stack goes there as it came. [`fill_in`] comes when it is sent on.

use crate::cell::Cell32;
use crate::checksum::ipv4_header_sum;
use crate::env::{Env, Step};
use crate::packet::{Packet, by_reference};
use crate::parse::{L3, Word, options_sum};
use crate::unaligned::{load32, store32};
use crate::verdict::{DropReason, PassReason};
use crate::wire::{Byte, Ipv4};

/// Option numbers.
mod kind {
    pub const END: u8 = 0;
    pub const NOTHING: u8 = 1;
    pub const RECORD_ROUTE: u8 = 7;
    pub const TIMESTAMP: u8 = 68;
    pub const LOOSE_SOURCE_ROUTE: u8 = 131;
    /// Commercial IP security option: a label that the kernel's policy judges.
    pub const CIPSO: u8 = 134;
    pub const ROUTER_ALERT: u8 = 148;
    pub const STRICT_SOURCE_ROUTE: u8 = 137;
}

/// What a timestamp option asks for, in the lower half of its fourth byte.
mod stamp {
    pub const TIME_ONLY: u8 = 0;
    pub const TIME_AND_ADDRESS: u8 = 1;
    pub const OF_THESE: u8 = 3;
}

/// Where options begin in a frame.
const FIRST: usize = L3 + Ipv4::LEN;
/// Bytes of options at the most.
const MOST: usize = 40;

/// May a packet with these options be sent on? `Err`: why the stack gets it, which answers what is malformed and knows whether
/// source routes are wanted.
#[inline(always)]
pub fn check<P: Packet, E: Env>(packet: &mut P, env: &E) -> Result<(), PassReason> {
    if end_of_header(packet) <= FIRST {
        return Ok(());
    }
    match walk(packet, env, ONLY_LOOK, 0) {
        DONE => Ok(()),
        SOURCE_ROUTE => Err(PassReason::Options),
        _ => Err(PassReason::Malformed),
    }
}

/// Does what the options ask for, with the address that the director has for the packet's receiver and the milliseconds since
/// midnight, universal time; fits the header's checksum.
#[inline(always)]
pub fn fill_in<P: Packet, E: Env>(
    packet: &mut P,
    env: &E,
    own: [u8; 4],
    time: u32,
) -> Result<(), DropReason> {
    let end = end_of_header(packet);
    if end <= FIRST {
        return Ok(());
    }
    if walk(packet, env, u32::from_ne_bytes(own), time) != DONE {
        return Err(DropReason::Malformed);
    }
    let Some(options) = options_sum(packet, FIRST, end) else { return Err(DropReason::Malformed) };
    let Some(ip) = packet.header_mut::<Ipv4>(L3) else { return Err(DropReason::Malformed) };
    ip.checksum = [0, 0];
    ip.checksum = ipv4_header_sum(ip).add(options).checksum();
    Ok(())
}

/// Where the header ends in the frame. Read from the packet each time: of a number that is kept, the verifier would go through all that
/// follows twice, with options and without.
#[inline(always)]
fn end_of_header<P: Packet>(packet: &P) -> usize {
    packet.header::<Ipv4>(L3).map_or(0, |ip| L3 + ip.header_len())
}

/// In the place of an address: nothing is to be changed. No host has it.
const ONLY_LOOK: u32 = 0;

const DONE: u32 = 0;
const MALFORMED: u32 = 1;
const SOURCE_ROUTE: u32 = 2;

/// Goes through the options, in a function with a stack frame of its own; see [`crate::checksum::sum_packed`].
#[inline(never)]
fn walk<P: Packet, E: Env>(packet: &mut P, env: &E, own: u32, time: u32) -> u32 {
    let packet = by_reference(packet);
    let Some(progress) = env.options_progress() else { return MALFORMED };
    progress.before.store(FIRST as u32 - 1);
    progress.seen.store(0);
    progress.outcome.store(DONE);
    let last = end_of_header(packet).wrapping_sub(1);
    // None is shorter than a byte.
    env.repeat(MOST as u32, &mut Walk { packet, progress, last, own, time });
    progress.outcome.load()
}

/// How far the walk through a packet's options has come. It lies in memory of the processor's, since the verifier, which does not know
/// what is there, looks at one turn of the loop and is content. Of what lies on the stack it would go through all values.
#[cfg_attr(not(target_arch = "bpf"), derive(Default))]
#[repr(C)]
pub struct Progress {
    /// The offset before the next option's first byte. Pointers inside options count from there, and nothing need be subtracted, which
    /// the verifier does not like.
    pub(crate) before: Cell32,
    /// Bits of what may be there once only.
    seen: Cell32,
    pub(crate) outcome: Cell32,
    reserved: Cell32,
}

struct Walk<'p, P> {
    packet: &'p mut P,
    progress: &'p Progress,
    /// The offset of the last byte of options.
    last: usize,
    own: u32,
    time: u32,
}

/// An option's first four bytes.
type Head = Word;

impl<P: Packet> Step for Walk<'_, P> {
    #[inline(always)]
    fn turn(&mut self, _i: u32) -> bool {
        let before = self.progress.before.load() as usize;
        // The second is for the verifier, which cannot know it.
        if before >= self.last || before >= FIRST + MOST {
            return false;
        }
        let Some(Byte(kind)) = self.packet.header::<Byte>(before + 1).copied() else {
            return self.ends_as(MALFORMED);
        };
        if kind == kind::END || self.progress.seen.load() & ENDED != 0 {
            self.blank(before);
            self.go_on(before + 1)
        } else if kind == kind::NOTHING {
            self.go_on(before + 1)
        } else {
            self.option(before, kind)
        }
    }
}

impl<P: Packet> Walk<'_, P> {
    #[inline(always)]
    fn ends_as(&self, outcome: u32) -> bool {
        self.progress.outcome.store(outcome);
        false
    }

    #[inline(always)]
    fn go_on(&self, before: usize) -> bool {
        self.progress.before.store(before as u32);
        true
    }

    #[inline(always)]
    fn is_changing(&self) -> bool {
        self.own != ONLY_LOOK
    }

    /// What lies behind the end is made zero, byte by byte.
    #[inline(always)]
    fn blank(&mut self, before: usize) {
        self.progress.seen.store(ENDED);
        self.put_byte(before + 1, kind::END);
    }

    #[inline(always)]
    fn put_byte(&mut self, at: usize, byte: u8) {
        if self.is_changing()
            && let Some(place) = self.packet.header_mut::<Byte>(at)
        {
            place.0 = byte;
        }
    }

    #[inline(always)]
    fn option(&mut self, before: usize, kind: u8) -> bool {
        let Some(Byte(length)) = self.packet.header::<Byte>(before + 2).copied() else {
            return self.ends_as(MALFORMED);
        };
        let length = length as usize;
        if length < 2 || before + length > self.last {
            return self.ends_as(MALFORMED);
        }
        let sound = match kind {
            kind::LOOSE_SOURCE_ROUTE | kind::STRICT_SOURCE_ROUTE | kind::CIPSO => {
                return self.ends_as(SOURCE_ROUTE);
            }
            kind::RECORD_ROUTE => self.record_route(before, length),
            kind::TIMESTAMP => self.stamp(before, length),
            kind::ROUTER_ALERT => length >= 4,
            _ => true,
        };
        if sound { self.go_on(before + length) } else { self.ends_as(MALFORMED) }
    }

    /// The first four bytes of an option that has slots: the third is the pointer to the next one, which counts from 1.
    #[inline(always)]
    fn head(&self, before: usize, length: usize, shortest: usize) -> Option<[u8; 4]> {
        if length < shortest {
            return None;
        }
        self.packet.header::<Head>(before + 1).map(|head| head.0)
    }

    /// The slot at this offset.
    #[inline(always)]
    fn slot(&mut self, at: usize) -> Option<&mut [u8; 4]> {
        // For the verifier, which cannot know it.
        if at >= FIRST + MOST {
            return None;
        }
        self.packet.header_mut::<Word>(at).map(|slot| &mut slot.0)
    }

    #[inline(always)]
    fn is_first(&self, bit: u32) -> bool {
        let seen = self.progress.seen.load();
        self.progress.seen.store(seen | bit);
        seen & bit == 0
    }

    /// `false`: it is malformed.
    #[inline(always)]
    fn record_route(&mut self, before: usize, length: usize) -> bool {
        let Some([_, _, pointer, _]) = self.head(before, length, 3) else { return false };
        if pointer < 4 || !self.is_first(RECORDED) {
            return false;
        }
        let at = pointer as usize;
        if at > length {
            return true;
        }
        if at + 3 > length {
            return false;
        }
        if self.is_changing() {
            let own = self.own;
            let Some(slot) = self.slot(before + at) else { return false };
            store32(slot, own);
            self.put_byte(before + 3, pointer.wrapping_add(4));
        }
        true
    }

    /// The same of timestamps: milliseconds since midnight, universal time.
    #[inline(always)]
    fn stamp(&mut self, before: usize, length: usize) -> bool {
        let Some([_, _, pointer, what]) = self.head(before, length, 4) else { return false };
        if pointer < 5 || !self.is_first(STAMPED) {
            return false;
        }
        let at = pointer as usize;
        let wants = what & 0xf;
        if at > length {
            return wants == stamp::OF_THESE || self.count_one_more(before, what);
        }
        // An address comes before the time.
        let address = if wants == stamp::TIME_ONLY { 0 } else { 4 };
        if at + 3 > length || (is_stamped_with_address(wants) && at + 7 > length) {
            return false;
        }
        if !self.is_changing() || !(wants == stamp::TIME_ONLY || is_stamped_with_address(wants)) {
            return true;
        }
        let (own, time) = (self.own, self.time);
        if wants != stamp::TIME_ONLY {
            let Some(slot) = self.slot(before + at) else { return false };
            if wants == stamp::OF_THESE && load32(slot) != own {
                // Another's turn.
                return true;
            }
            store32(slot, own);
        }
        let Some(slot) = self.slot(before + at + address) else { return false };
        store32(slot, time.to_be());
        self.put_byte(before + 3, pointer.wrapping_add(4 + address as u8));
        true
    }

    /// Counts a host that found no slot. There is room for fifteen.
    #[inline(always)]
    fn count_one_more(&mut self, before: usize, what: u8) -> bool {
        if what >> 4 == 15 {
            return false;
        }
        self.put_byte(before + 4, what.wrapping_add(0x10));
        true
    }
}

#[inline(always)]
const fn is_stamped_with_address(wants: u8) -> bool {
    matches!(wants, stamp::TIME_AND_ADDRESS | stamp::OF_THESE)
}

const RECORDED: u32 = 1;
const STAMPED: u32 = 2;
const ENDED: u32 = 4;
