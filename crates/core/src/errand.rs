//! What programs and daemon ask of each other about packets: a program makes one frame of one, and sees no more of a packet than
//! a frame holds, so fragments and packets that are to be cut go by way of the daemon.
//!
//! An [`Errand`] is a program's to the daemon, by the ring `ERRANDS`. A [`Question`] is the daemon's to a program that it runs on
//! a packet: it lies in front of the packet as XDP metadata, which no packet from the wire has, and has room for the answer.

use crate::wire::Header;

/// Bytes of a frame that an errand has room for: a page, less the headroom that a frame has left and what the kernel
/// puts behind it.
pub const ROOM: usize = 3760;

/// The source MAC of a fragment that the daemon gives back to the stack. In generic mode and at the tc hook the director sees it once more,
/// and would take it for a new one; the stack does not care. Nobody else knows it, being made of the tables' seed.
#[inline(always)]
pub const fn given_back(seed: u64) -> [u8; 6] {
    let [_, a, b, c, d, e, _, _] = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_ne_bytes();
    // Of no maker's, and of no group.
    [2, a, b, c, d, e]
}

/// What is to be done with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// It is a fragment: put the packet together, and ask about it.
    PutTogether = 0,
    /// It is ready to leave but for its length: cut it, and send the pieces.
    Cut = 1,
}

/// A record of the ring.
#[repr(C)]
pub struct Errand {
    /// A [`Kind`].
    pub kind: u32,
    /// The interface that it came in by, or is to leave by.
    pub ifindex: u32,
    /// In pieces of how many bytes, if it is to be cut.
    pub cut_to: u32,
    /// Bytes of the frame.
    pub len: u32,
    /// The frame, and behind it anything.
    pub frame: [u8; ROOM],
}

/// Bytes before an errand's frame.
const HEAD: usize = 16;

/// An errand as the daemon reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrandView<'a> {
    /// What is to be done.
    pub kind: Kind,
    /// The interface that it came in by, or is to leave by.
    pub ifindex: u32,
    /// In pieces of how many bytes, if it is to be cut.
    pub cut_to: u16,
    /// The frame.
    pub frame: &'a [u8],
}

impl<'a> ErrandView<'a> {
    /// Reads a record of the ring.
    pub fn from_bytes(record: &'a [u8]) -> Option<Self> {
        let (head, frame) = record.split_first_chunk::<HEAD>()?;
        let word = |at: usize| Some(u32::from_ne_bytes(*head.get(at..)?.first_chunk()?));
        let kind = match word(0)? {
            0 => Kind::PutTogether,
            1 => Kind::Cut,
            _ => return None,
        };
        let cut_to = u16::try_from(word(8)?).ok()?;
        Some(Self { kind, ifindex: word(4)?, cut_to, frame: frame.get(..word(12)? as usize)? })
    }
}

/// What lies in front of a packet that the daemon asks about. Numbers are in this machine's order of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Question {
    token: [u8; 4],
    largest_fragment: [u8; 2],
    beyond: [u8; 2],
    sum_beyond: [u8; 2],
    /// The answer: in pieces of how many bytes the packet is to leave.
    pub cut_to: [u8; 2],
    /// The answer: by which interface.
    pub ifindex: [u8; 4],
}
// SAFETY: sixteen bytes in arrays, without gaps.
unsafe impl Header for Question {}

impl Question {
    /// Its length in bytes.
    pub const LEN: usize = size_of::<Self>();
    /// Should an XDP program before ours leave something else there, this tells it from a question.
    const TOKEN: [u8; 4] = *b"xlvs";

    /// About a packet whose largest fragment was so long, and of whose end so many bytes, of this sum, are left out.
    pub const fn new(largest_fragment: u16, beyond: u16, sum_beyond: u16) -> Self {
        Self {
            token: Self::TOKEN,
            largest_fragment: largest_fragment.to_ne_bytes(),
            beyond: beyond.to_ne_bytes(),
            sum_beyond: sum_beyond.to_ne_bytes(),
            cut_to: [0; 2],
            ifindex: [0; 4],
        }
    }

    /// As it lies in front of the packet.
    pub fn bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let parts: [&[u8]; 6] = [
            &self.token,
            &self.largest_fragment,
            &self.beyond,
            &self.sum_beyond,
            &self.cut_to,
            &self.ifindex,
        ];
        let mut at = 0;
        for part in parts {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        bytes
    }

    /// The answer, from in front of the packet: the interface to leave by, and in pieces of how many bytes; 0: as it is.
    pub fn answer(bytes: &[u8]) -> Option<(u32, u16)> {
        let (_, answer) = bytes.split_at_checked(Self::LEN - 6)?;
        let (cut_to, rest) = answer.split_first_chunk::<2>()?;
        Some((u32::from_ne_bytes(*rest.first_chunk()?), u16::from_ne_bytes(*cut_to)))
    }

    /// Is it one?
    #[inline(always)]
    pub fn is_one(&self) -> bool {
        u32::from_ne_bytes(self.token) == u32::from_ne_bytes(Self::TOKEN)
    }

    /// The packet's largest fragment, in bytes.
    #[inline(always)]
    pub const fn largest_fragment(&self) -> u16 {
        u16::from_ne_bytes(self.largest_fragment)
    }

    /// How many bytes of its end are left out.
    #[inline(always)]
    pub const fn beyond(&self) -> u16 {
        u16::from_ne_bytes(self.beyond)
    }

    /// Fewer are, since the packet was made shorter.
    #[inline(always)]
    pub fn set_beyond(&mut self, bytes: u16) {
        self.beyond = bytes.to_ne_bytes();
    }

    /// None are any more.
    #[inline(always)]
    pub fn set_nothing_beyond(&mut self) {
        self.beyond = [0; 2];
        self.sum_beyond = [0; 2];
    }

    /// Their sum.
    #[inline(always)]
    pub const fn sum_beyond(&self) -> u16 {
        u16::from_ne_bytes(self.sum_beyond)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        assert_eq!(core::mem::offset_of!(Errand, frame), HEAD);
        let mut record = vec![0; size_of::<Errand>()];
        for (at, word) in [1u32, 7, 1400, 3].into_iter().enumerate() {
            record[at * 4..at * 4 + 4].copy_from_slice(&word.to_ne_bytes());
        }
        record[HEAD..HEAD + 3].copy_from_slice(b"abc");
        let errand = ErrandView { kind: Kind::Cut, ifindex: 7, cut_to: 1400, frame: b"abc" };
        assert_eq!(ErrandView::from_bytes(&record), Some(errand));
        record[12..16].copy_from_slice(&5000u32.to_ne_bytes());
        assert_eq!(ErrandView::from_bytes(&record), None, "longer than the record");
        assert_eq!(ErrandView::from_bytes(&record[..10]), None);
    }

    #[test]
    fn the_answer_lies_where_the_question_left_room_for_it() {
        let mut question = Question::new(1500, 6000, 0x1234);
        question.cut_to = 1400u16.to_ne_bytes();
        question.ifindex = 7u32.to_ne_bytes();
        assert_eq!(Question::answer(&question.bytes()), Some((7, 1400)));
        assert!(question.is_one() && !Question { token: [0; 4], ..question }.is_one());
        assert_eq!(
            (question.largest_fragment(), question.beyond(), question.sum_beyond()),
            (1500, 6000, 0x1234)
        );
    }
}
