//! The largest segment that an end of a TCP connection says it takes (RFC 9293, 3.7.1): an option of its SYN, which may be lowered on
//! the way, so that the other end sends no longer ones.

use core::mem::offset_of;

use crate::checksum::Update;
use crate::env::{Env, Step};
use crate::options::Progress;
use crate::packet::{Packet, by_reference};
use crate::parse::Word;
use crate::verifier::low_bits;
use crate::wire::{Byte, Tcp};

/// Option numbers.
mod kind {
    pub const END: u8 = 0;
    pub const NOTHING: u8 = 1;
    pub const SEGMENT: u8 = 2;
}

/// Bytes of the option: number, length, and the size.
const LEN: usize = 4;
/// Bytes of options at the most.
const MOST: u32 = 40;
/// No option lies further from a frame's beginning; for the verifier, which cannot know it.
const FURTHEST: u64 = 1023;

/// Lowers what the SYN at `l4` says to so many bytes. One that says less, or nothing, stays as it is, and so does one whose options lie
/// about their lengths.
#[inline(always)]
pub fn clamp<P: Packet, E: Env>(packet: &mut P, env: &E, l4: usize, most: u16) {
    if let Some(at) = find(packet, env, l4) {
        let _lowered = lower(packet, l4, at, most);
    }
}

/// Where the option is.
#[inline(always)]
fn find<P: Packet, E: Env>(packet: &mut P, env: &E, l4: usize) -> Option<usize> {
    let end = l4 + packet.header::<Tcp>(l4)?.header_len();
    let progress = env.options_progress()?;
    progress.before.store((l4 + Tcp::LEN) as u32);
    progress.outcome.store(0);
    env.repeat(MOST, &mut Walk { packet: by_reference(packet), progress, end });
    let at = low_bits::<FURTHEST>(progress.outcome.load().into());
    (at != 0).then_some(at)
}

/// Goes from option to option. Where it stands lies in memory of the processor's: see [`Progress`].
struct Walk<'p, P> {
    packet: &'p mut P,
    progress: &'p Progress,
    /// Where the header ends.
    end: usize,
}

impl<P: Packet> Step for Walk<'_, P> {
    #[inline(always)]
    fn turn(&mut self, _i: u32) -> bool {
        let at = self.progress.before.load() as usize;
        if at >= self.end || at as u64 > FURTHEST {
            return false;
        }
        let Some(Byte(kind)) = self.packet.header::<Byte>(at).copied() else { return false };
        if kind == kind::NOTHING {
            self.progress.before.store(at as u32 + 1);
            return true;
        }
        let Some(Byte(length)) = self.packet.header::<Byte>(at + 1).copied() else { return false };
        let length = length as usize;
        if kind == kind::END || length < 2 || at + length > self.end {
            return false;
        }
        if kind == kind::SEGMENT {
            if length == LEN {
                self.progress.outcome.store(at as u32);
            }
            return false;
        }
        self.progress.before.store((at + length) as u32);
        true
    }
}

#[inline(always)]
fn lower<P: Packet>(packet: &mut P, l4: usize, at: usize, most: u16) -> Option<()> {
    let option = packet.header_mut::<Word>(at)?;
    let said = [option.0[2], option.0[3]];
    if u16::from_be_bytes(said) <= most {
        return None;
    }
    let most = most.to_be_bytes();
    (option.0[2], option.0[3]) = (most[0], most[1]);
    // At an odd place both bytes count in words with their other neighbours: each as if they stood the other way round.
    let is_odd = (at ^ l4) & 1 != 0;
    let in_words = |[a, b]: [u8; 2]| if is_odd { [b, a] } else { [a, b] };
    let changed = Update::NONE.replace16(in_words(said), in_words(most));
    if P::KEEPS_NOTES {
        // One that is left to the device is no sum of options yet.
        return packet
            .fit_checksum(l4 + offset_of!(Tcp, checksum), Update::NONE, changed, false)
            .then_some(());
    }
    let tcp = packet.header_mut::<Tcp>(l4)?;
    changed.apply_to(&mut tcp.checksum);
    Some(())
}
