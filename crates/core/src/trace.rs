//! What programs tell of the packets of some clients, step by step.
//!
//! The programs that the director runs tell nothing: [`crate::env::Env::note`] is empty there. The daemon has a second edition of them that
//! does, over the same tables, and puts it in their place while somebody watches. It asks a [`Filter`] which packets to tell of,
//! and writes [`Record`]s into a ring: one for each [`Note`].

use crate::cell::{Cell32, Cell64};
use crate::conn::word::Word;
use crate::conn::{SlotId, key};
use crate::director::{Sent, Stage};
use crate::family::slot_in;
use crate::forward::Hindrance;
use crate::packet::Packet;
use crate::verdict::Verdict;
use crate::wire::{AddrV6, Ethernet, Ipv4, Ipv6, Vlan, ethertype};

/// Whose packets are told of. The daemon writes it before the first packet comes by.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(Default))]
pub struct Filter {
    /// The clients' address, as two words of [`AddrV6`]; IPv4 is mapped to IPv6 (RFC 4291, 2.5.5.2).
    pub client: [Cell64; 2],
    /// The bits of it that count.
    pub mask: [Cell64; 2],
    /// Of each processor's packets of these clients, every so many is told of.
    pub every: Cell32,
    /// Not used.
    pub spare: Cell32,
    /// Records that found no room in the ring.
    pub lost: Cell64,
}

impl Filter {
    /// Is a frame from or to such a client? Behind its VLAN tags, by the outermost IP header.
    #[inline(always)]
    pub fn takes<P: Packet>(&self, packet: &P) -> bool {
        ends(packet).is_some_and(|(from, to)| self.is_client(from) | self.is_client(to))
    }

    #[inline(always)]
    fn is_client(&self, addr: AddrV6) -> bool {
        let differs = |i: usize| (addr.0[i] ^ self.client[i].load()) & self.mask[i].load();
        differs(0) | differs(1) == 0
    }
}

/// Source and destination of a frame with up to two VLAN tags.
#[inline(always)]
fn ends<P: Packet>(packet: &P) -> Option<(AddrV6, AddrV6)> {
    let mut kind = packet.header::<Ethernet>(0)?.ethertype();
    let mut at = Ethernet::LEN;
    for _ in 0..2 {
        if matches!(kind, ethertype::VLAN | ethertype::QINQ) {
            kind = u16::from_be_bytes(packet.header::<Vlan>(at)?.kind);
            at += Vlan::LEN;
        }
    }
    match kind {
        ethertype::IPV4 => {
            let net = packet.header::<Ipv4>(at)?;
            Some((AddrV6::mapped(net.src), AddrV6::mapped(net.dst)))
        }
        ethertype::IPV6 => {
            let net = packet.header::<Ipv6>(at)?;
            Some((net.src.get(), net.dst.get()))
        }
        _ => None,
    }
}

/// A step on a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// It came in; the record has the frame.
    Arrived,
    /// The stage before has left it to this one.
    Stage(Stage),
    /// It belongs to the connection in this slot ([`crate::family::slot_of`]), which it has moved on if it is no ICMP error.
    Connection(u32),
    /// There is no entry for it.
    NoConnection,
    /// The entry that was found has had its time: it goes, and the packet is looked at as if there had been none.
    Ended,
    /// It is for the service with this id.
    Service(u32),
    /// The client's template names the server.
    Template,
    /// The scheduler has chosen the server with this id.
    Scheduled(u32),
    /// The scheduler has found no usable server.
    NobodyScheduled,
    /// Its connection is there now, in this slot.
    Opened(u32),
    /// It was looked at, and is looked at again: another processor was faster, or something had to be made first.
    Again,
    /// Its fate; the record has the frame as it leaves.
    Fate(Verdict),
}

impl Note {
    /// [`Self::Connection`] in this slot of its family's table.
    #[inline(always)]
    pub const fn connection<const K: usize>(slot: SlotId) -> Self {
        Self::Connection(slot_in(K != key::V4, slot))
    }

    /// [`Self::Opened`] likewise.
    #[inline(always)]
    pub const fn opened<const K: usize>(slot: SlotId) -> Self {
        Self::Opened(slot_in(K != key::V4, slot))
    }

    /// Of the note with these numbers, the slot of the connection, whose word belongs into the record.
    #[inline(always)]
    pub const fn slot(kind: u32, about: u64) -> Option<u32> {
        if kind == CONNECTION || kind == OPENED { Some(about as u32) } else { None }
    }

    /// In two numbers: which, and what about it.
    #[inline(always)]
    pub fn pack(self) -> (u32, u64) {
        match self {
            Self::Arrived => (0, 0),
            Self::Stage(stage) => (1, stage as u64),
            Self::Connection(slot) => (CONNECTION, slot as u64),
            Self::NoConnection => (3, 0),
            Self::Ended => (4, 0),
            Self::Service(id) => (5, id as u64),
            Self::Template => (6, 0),
            Self::Scheduled(id) => (7, id as u64),
            Self::NobodyScheduled => (8, 0),
            Self::Opened(slot) => (OPENED, slot as u64),
            Self::Again => (10, 0),
            Self::Fate(verdict) => Self::pack_fate(verdict),
        }
    }

    /// [`Self::Fate`] packed. Never made a note of on the way: a note's other kinds hide in a verdict's unused numbers, and the
    /// compiler would write code for those, too, which ends nowhere.
    #[inline(always)]
    pub fn pack_fate(verdict: Verdict) -> (u32, u64) {
        match verdict {
            // This one does not come from sending.
            Verdict::PutTogether { ifindex } => (PUT_TOGETHER, ifindex as u64),
            verdict => (FATE, Sent::pack(Ok(verdict))),
        }
    }

    /// From two numbers. `None`: no note.
    pub fn unpack(kind: u32, about: u64) -> Option<Self> {
        let number = about as u32;
        Some(match kind {
            0 => Self::Arrived,
            1 => Self::Stage(*Stage::ALL.get(number as usize)?),
            CONNECTION => Self::Connection(number),
            3 => Self::NoConnection,
            4 => Self::Ended,
            5 => Self::Service(number),
            6 => Self::Template,
            7 => Self::Scheduled(number),
            8 => Self::NobodyScheduled,
            OPENED => Self::Opened(number),
            10 => Self::Again,
            FATE => Self::Fate(match Sent::unpack(about) {
                Ok(verdict) => verdict,
                Err(Hindrance::Drop(reason)) => Verdict::Drop(reason),
                Err(_) => return None,
            }),
            PUT_TOGETHER => Self::Fate(Verdict::PutTogether { ifindex: number }),
            _ => return None,
        })
    }
}

const CONNECTION: u32 = 2;
const OPENED: u32 = 9;
const FATE: u32 = 11;
const PUT_TOGETHER: u32 = 12;

/// Bytes of a frame that a record has room for: a tunnel's headers over IPv6, and the longest of TCP, among them.
pub const ROOM: usize = 208;

/// A record of the ring.
#[repr(C)]
pub struct Record {
    /// Nanoseconds of the monotonic clock.
    pub time: u64,
    /// Which packet of this processor's it is about, counted from 1.
    pub packet: u64,
    /// [`Note::pack`]'s second number.
    pub about: u64,
    /// The word of the note's connection just after the step.
    pub word: u64,
    /// [`Note::pack`]'s first number.
    pub kind: u32,
    /// The processor.
    pub cpu: u32,
    /// The interface that the packet came in by.
    pub ifindex: u32,
    /// Bytes of the frame; 0: the record has none.
    pub len: u32,
    /// The frame's beginning, and behind it anything.
    pub frame: [u8; ROOM],
}

/// Bytes before a record's frame.
const HEAD: usize = 48;

/// A record as the daemon reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// Nanoseconds of the monotonic clock.
    pub time: u64,
    /// Which packet of this processor's it is about, counted from 1.
    pub packet: u64,
    /// The processor.
    pub cpu: u32,
    /// The interface that the packet came in by.
    pub ifindex: u32,
    /// The step.
    pub note: Note,
    /// The word of the note's connection just after the step.
    pub word: Word,
    /// Bytes of the frame.
    pub len: u32,
    /// Its beginning.
    pub frame: &'a [u8],
}

impl<'a> RecordView<'a> {
    /// Reads a record of the ring. `None`: it is none.
    pub fn from_bytes(record: &'a [u8]) -> Option<Self> {
        let (head, frame) = record.split_first_chunk::<HEAD>()?;
        let long = |at: usize| Some(u64::from_ne_bytes(*head.get(at..)?.first_chunk()?));
        let word = |at: usize| Some(u32::from_ne_bytes(*head.get(at..)?.first_chunk()?));
        let len = word(44)?;
        Some(Self {
            time: long(0)?,
            packet: long(8)?,
            cpu: word(36)?,
            ifindex: word(40)?,
            note: Note::unpack(word(32)?, long(16)?)?,
            word: Word(long(24)?),
            len,
            frame: frame.get(..(len as usize).min(ROOM))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Frame;
    use crate::verdict::{DropReason, PassReason};

    fn filter(client: [u8; 4], bits: u32) -> Filter {
        let filter = Filter::default();
        let mask = AddrV6::from_bytes((u128::MAX << (32 - bits)).to_be_bytes());
        for i in 0..2 {
            filter.client[i].store(AddrV6::mapped(client).0[i]);
            filter.mask[i].store(mask.0[i]);
        }
        filter
    }

    /// A frame with these tags between two addresses.
    fn frame(tags: usize, from: [u8; 4], to: [u8; 4]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        (0..tags).for_each(|_| frame.extend([0x81, 0, 0, 5]));
        frame.extend([8, 0, 0x45, 0, 0, 20, 0, 0, 0, 0, 64, 6, 0, 0]);
        frame.extend(from);
        frame.extend(to);
        frame
    }

    fn takes(filter: &Filter, frame: &mut [u8]) -> bool {
        filter.takes(&Frame::new(frame, 0))
    }

    #[test]
    fn packets_from_and_to_a_client_are_told_of_with_and_without_tags() {
        let (client, vip) = ([10, 0, 0, 1], [10, 0, 0, 100]);
        let one = filter(client, 32);
        for tags in 0..3 {
            assert!(takes(&one, &mut frame(tags, client, vip)), "{tags} tags");
            assert!(takes(&one, &mut frame(tags, vip, client)), "{tags} tags");
            assert!(!takes(&one, &mut frame(tags, [10, 0, 0, 2], vip)), "{tags} tags");
        }
        assert!(!takes(&one, &mut frame(3, client, vip)), "three tags are nobody's");
        assert!(!takes(&one, &mut frame(0, client, vip)[..30]), "cut");
        assert!(takes(&filter([10, 0, 0, 0], 24), &mut frame(0, [10, 0, 0, 2], [10, 1, 0, 1])));
        assert!(!takes(&filter([10, 0, 0, 0], 24), &mut frame(0, [10, 1, 0, 2], [10, 1, 0, 1])));
    }

    #[test]
    fn notes_come_out_of_their_numbers_as_they_went_in() {
        let notes = [
            Note::Arrived,
            Note::Stage(Stage::Unusual),
            Note::Connection(u32::MAX),
            Note::NoConnection,
            Note::Ended,
            Note::Service(3),
            Note::Template,
            Note::Scheduled(17),
            Note::NobodyScheduled,
            Note::Opened(0),
            Note::Again,
            Note::Fate(Verdict::Pass(PassReason::NotOurs)),
            Note::Fate(Verdict::Drop(DropReason::TableFull)),
            Note::Fate(Verdict::Transmit { ifindex: 2 }),
            Note::Fate(Verdict::Redirect { ifindex: 3 }),
            Note::Fate(Verdict::Cut { ifindex: 4 }),
            Note::Fate(Verdict::PutTogether { ifindex: 5 }),
            Note::Fate(Verdict::Answer { ifindex: 6 }),
        ];
        for note in notes {
            let (kind, about) = note.pack();
            assert_eq!(Note::unpack(kind, about), Some(note));
            let is_connections = matches!(note, Note::Connection(_) | Note::Opened(_));
            assert_eq!(Note::slot(kind, about).is_some(), is_connections, "{note:?}");
        }
        assert_eq!(Note::unpack(1, 99), None, "no such stage");
        assert_eq!(Note::unpack(99, 0), None);
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        assert_eq!(core::mem::offset_of!(Record, frame), HEAD);
        let mut record = vec![0; size_of::<Record>()];
        let (kind, about) = Note::Opened(9).pack();
        for (at, word) in [(0, 5), (8, 6), (16, about), (24, 7)] {
            record[at..at + 8].copy_from_slice(&word.to_ne_bytes());
        }
        for (at, word) in [(32, kind), (36, 1), (40, 2), (44, 3)] {
            record[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        }
        record[HEAD..HEAD + 3].copy_from_slice(b"abc");
        let expected = RecordView {
            time: 5,
            packet: 6,
            cpu: 1,
            ifindex: 2,
            note: Note::Opened(9),
            word: Word(7),
            len: 3,
            frame: b"abc",
        };
        assert_eq!(RecordView::from_bytes(&record), Some(expected));
        record[44..48].copy_from_slice(&9000u32.to_ne_bytes());
        assert_eq!(RecordView::from_bytes(&record).map(|view| view.frame.len()), Some(ROOM));
        assert_eq!(RecordView::from_bytes(&record[..100]), None, "cut");
    }
}
