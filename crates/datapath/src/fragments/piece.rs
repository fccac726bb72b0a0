//! One fragment: where it belongs, and which of its bytes are what.

use std::ops::Range;

use thiserror::Error;
use xlvs_core::wire::{Ethernet, Extension, Ipv4, Ipv6, Vlan, ethertype, ip_protocol};

/// The longest IPv4 packet, and the longest payload of an IPv6 packet, in bytes.
const LONGEST: usize = 65_535;

/// Why a fragment is not held.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// A header is cut, or a length does not fit the frame.
    #[error("the frame holds no whole IP packet")]
    Malformed,
    /// It is a packet of its own.
    #[error("the packet is no fragment")]
    NotAFragment,
    /// It has no data, or ends where no other can go on. What was held of an IPv6 packet is dropped with it.
    #[error("the fragment's length is not a multiple of 8 bytes")]
    Length,
    /// The packet would be longer than a packet can be. All that was held of it is dropped.
    #[error("the fragments make a packet of more than 65535 bytes")]
    TooLong,
    /// It repeats some bytes and brings others. All that was held of the packet is dropped.
    #[error("the fragments overlap")]
    Overlap,
    /// Fragments disagree about where the packet ends. All that was held of it is dropped.
    #[error("the fragments disagree about the packet's length")]
    Ends,
    /// Some fragments are of a transport that knows ECN and some are not (RFC 3168, 5.3). The packet is dropped.
    #[error("the fragments disagree about ECN")]
    Ecn,
    /// Its bytes are held already. Nothing else changes.
    #[error("the fragment is a duplicate")]
    Duplicate,
    /// As much is held as may be held.
    #[error("the memory for fragments is full")]
    NoRoom,
}

/// What fragments of one packet have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    V4 { src: [u8; 4], dst: [u8; 4], id: [u8; 2], protocol: u8 },
    V6 { src: [u8; 16], dst: [u8; 16], id: [u8; 4] },
}

/// A fragment. Offsets without a further word are from the frame's beginning.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub key: Key,
    /// Where the IP header begins.
    pub network: usize,
    /// Where the headers end that the whole packet has too.
    pub headers_end: usize,
    /// The fragment's data.
    pub data: Range<usize>,
    /// Where its data lies in the packet's.
    pub offset: usize,
    /// Do others follow?
    pub more: bool,
    /// IPv4: must it not be fragmented further?
    pub dont_fragment: bool,
    /// The ECN field, 0 to 3.
    pub ecn: u8,
    /// IPv6: which byte says what follows, and what the fragment header says that it is.
    pub next: (usize, u8),
    /// Length of the fragment as an IP packet.
    pub len: u16,
}

impl Piece {
    /// Reads a fragment from an Ethernet frame with up to two VLAN tags.
    pub fn read(frame: &[u8]) -> Result<Self, Refusal> {
        let (kind, network) = network(frame).ok_or(Refusal::Malformed)?;
        let piece = match kind {
            ethertype::IPV4 => read_v4(frame, network)?,
            ethertype::IPV6 => read_v6(frame, network)?,
            _ => return Err(Refusal::NotAFragment),
        };
        if piece.data.is_empty() {
            return Err(Refusal::Length);
        }
        Ok(piece)
    }

    /// Where its data ends in the packet's.
    pub fn end(&self) -> usize {
        self.offset + self.data.len()
    }

    /// Is it an IPv6 packet that is whole, though it has a fragment header (RFC 6946)?
    pub fn is_atomic(&self) -> bool {
        self.offset == 0 && !self.more
    }

    /// Is a packet with this fragment's headers and so many bytes of data longer than a packet can be?
    pub fn is_beyond(&self, data: usize) -> bool {
        let counted_from = match self.key {
            Key::V4 { .. } => self.network,
            Key::V6 { .. } => self.network + Ipv6::LEN,
        };
        self.headers_end - counted_from + data > LONGEST
    }
}

/// The EtherType behind VLAN tags, in host order, and where what it announces begins.
pub(super) fn network(frame: &[u8]) -> Option<(u16, usize)> {
    let mut at = Ethernet::LEN;
    for _ in 0..=2 {
        let kind = u16::from_be_bytes(array(frame, at - 2)?);
        if !matches!(kind, ethertype::VLAN | ethertype::QINQ) {
            return Some((kind, at));
        }
        at += Vlan::LEN;
    }
    None
}

/// So many bytes from there on.
pub(super) fn array<const N: usize>(frame: &[u8], at: usize) -> Option<[u8; N]> {
    frame.get(at..at + N)?.try_into().ok()
}

/// The length of the IPv4 header at `at` and of the packet, both in bytes, if the frame holds all of it.
pub(super) fn lengths_v4(frame: &[u8], at: usize) -> Option<(usize, usize)> {
    let header = frame.get(at..at + Ipv4::LEN)?;
    let (header_len, len) =
        (usize::from(header[0] & 0x0f) * 4, usize::from(u16::from_be_bytes([header[2], header[3]])));
    let sound =
        header[0] >> 4 == 4 && header_len >= Ipv4::LEN && len >= header_len && frame.len() >= at + len;
    sound.then_some((header_len, len))
}

/// The length of the IPv6 packet at `at` in bytes, if the frame holds all of it.
pub(super) fn length_v6(frame: &[u8], at: usize) -> Option<usize> {
    let header = frame.get(at..at + Ipv6::LEN)?;
    let len = Ipv6::LEN + usize::from(u16::from_be_bytes([header[4], header[5]]));
    (header[0] >> 4 == 6 && frame.len() >= at + len).then_some(len)
}

fn read_v4(frame: &[u8], network: usize) -> Result<Piece, Refusal> {
    let (header_len, len) = lengths_v4(frame, network).ok_or(Refusal::Malformed)?;
    let header = &frame[network..network + header_len];
    let field = u16::from_be_bytes([header[6], header[7]]);
    if field & Ipv4::FRAGMENT == 0 {
        return Err(Refusal::NotAFragment);
    }
    let more = field & Ipv4::FRAGMENT & !Ipv4::OFFSET != 0;
    let bytes = len - header_len;
    // What does not fill a unit of 8 bytes cannot be followed by anything: it is left off.
    let used = if more { bytes & !7 } else { bytes };
    let headers_end = network + header_len;
    Ok(Piece {
        key: Key::V4 {
            src: [header[12], header[13], header[14], header[15]],
            dst: [header[16], header[17], header[18], header[19]],
            id: [header[4], header[5]],
            protocol: header[9],
        },
        network,
        headers_end,
        data: headers_end..headers_end + used,
        offset: usize::from(field & Ipv4::OFFSET) * 8,
        more,
        dont_fragment: field & Ipv4::DF != 0,
        ecn: header[1] & 3,
        next: (network + 9, header[9]),
        len: len as u16,
    })
}

fn read_v6(frame: &[u8], network: usize) -> Result<Piece, Refusal> {
    let len = length_v6(frame, network).ok_or(Refusal::Malformed)?;
    let packet = &frame[..network + len];
    let (next_at, at) = fragment_header(packet, network)?;
    let header: [u8; Extension::LEN] = array(packet, at).ok_or(Refusal::Malformed)?;
    let field = u16::from_be_bytes([header[2], header[3]]);
    let address = |from: usize| array(packet, network + from).ok_or(Refusal::Malformed);
    Ok(Piece {
        key: Key::V6 {
            src: address(8)?,
            dst: address(24)?,
            id: [header[4], header[5], header[6], header[7]],
        },
        network,
        headers_end: at,
        data: at + Extension::LEN..packet.len(),
        offset: usize::from(field & 0xfff8),
        more: field & 1 != 0,
        dont_fragment: false,
        ecn: packet[network + 1] >> 4 & 3,
        next: (next_at, header[0]),
        len: u16::try_from(len).map_err(|_| Refusal::TooLong)?,
    })
}

/// Which byte announces the fragment header of an IPv6 packet, and where that header begins.
fn fragment_header(packet: &[u8], network: usize) -> Result<(usize, usize), Refusal> {
    let (mut next_at, mut at) = (network + 6, network + Ipv6::LEN);
    loop {
        match packet[next_at] {
            ip_protocol::FRAGMENT => return Ok((next_at, at)),
            ip_protocol::HOP_BY_HOP | ip_protocol::ROUTING | ip_protocol::DESTINATION => {
                let [_, units]: [u8; 2] = array(packet, at).ok_or(Refusal::Malformed)?;
                next_at = at;
                at += (usize::from(units) + 1) * 8;
            }
            _ => return Err(Refusal::NotAFragment),
        }
    }
}
