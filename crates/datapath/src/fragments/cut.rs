//! Makes fragments of a packet that is longer than its way takes.

use thiserror::Error;
use xlvs_core::{
    checksum::Sum,
    wire::{Extension, Ipv4, Ipv6, ethertype, ip_protocol},
};

use super::piece::{array, length_v6, lengths_v4, network};

/// The end of the list of IPv4 options (RFC 791).
const END: u8 = 0;

/// The option that does nothing.
const NOP: u8 = 1;

/// The bit in the kind of options that each fragment has.
const COPIED: u8 = 0x80;

/// Why a packet cannot be cut.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum CutError {
    /// A header is cut, or a length does not fit the frame.
    #[error("the frame holds no whole IP packet")]
    Malformed,
    /// There would be no room for data behind the headers.
    #[error("fragments of {0} bytes hold the packet's headers only; the way must take longer ones")]
    TooSmall(u16),
}

/// Cuts the packet in an Ethernet frame to fragments of at most `size` bytes, IP header included; one that is not longer
/// stays as it is, without padding. IPv4 keeps identification and "don't fragment", which the caller has judged; IPv6
/// takes `id`.
///
/// `came_in` says how many bytes of data the fragments had that the packet was put together from; none: it came whole. As in
/// the kernel it leaves in the same parts where they still do: what was put in front of it goes with the first.
pub fn cut(frame: &[u8], size: u16, id: u32, came_in: &[usize]) -> Result<Vec<Vec<u8>>, CutError> {
    let (kind, at) = network(frame).ok_or(CutError::Malformed)?;
    match kind {
        ethertype::IPV4 => cut_v4(frame, at, size, came_in),
        ethertype::IPV6 => cut_v6(frame, at, size, id, came_in),
        _ => Err(CutError::Malformed),
    }
}

/// RFC 8200, 5.
const LEAST_MTU_V6: u16 = 1280;

/// How much of the data goes into each fragment, of which each has room for so much.
fn parts(data: usize, room: usize, came_in: &[usize]) -> Vec<usize> {
    if let Some(parts) = as_they_came(data, room, came_in) {
        return parts;
    }
    let last = data % room;
    let mut parts = vec![room; data / room];
    parts.extend((last != 0).then_some(last));
    parts
}

/// The parts that came in, if there is room for them and all but the last still fill units of 8 bytes.
fn as_they_came(data: usize, room: usize, came_in: &[usize]) -> Option<Vec<usize>> {
    let mut parts = came_in.to_vec();
    *parts.first_mut()? += data.checked_sub(came_in.iter().sum())?;
    let (_, all_but_last) = parts.split_last()?;
    let fit = parts.iter().all(|part| *part <= room) && all_but_last.iter().all(|part| part % 8 == 0);
    fit.then_some(parts)
}

fn cut_v4(frame: &[u8], at: usize, size: u16, came_in: &[usize]) -> Result<Vec<Vec<u8>>, CutError> {
    let (header_len, len) = lengths_v4(frame, at).ok_or(CutError::Malformed)?;
    if came_in.is_empty() && len <= usize::from(size) {
        return Ok(vec![frame[..at + len].to_vec()]);
    }
    let room = room(size, header_len)?;
    let (head, data) = frame[..at + len].split_at(at + header_len);
    let field = u16::from_be_bytes([frame[at + 6], frame[at + 7]]);
    // What is cut may be a fragment already; one that reaches beyond the longest packet has no offsets for its parts.
    if usize::from(field & Ipv4::OFFSET) * 8 + data.len() > usize::from(u16::MAX) {
        return Err(CutError::Malformed);
    }
    let (mut fragments, mut offset) = (Vec::new(), 0);
    for part in parts(data.len(), room, came_in) {
        let part = &data[offset..offset + part];
        let last = offset + part.len() == data.len();
        let mut fragment = [head, part].concat();
        let header = &mut fragment[at..at + header_len];
        header[2..4].copy_from_slice(&((header_len + part.len()) as u16).to_be_bytes());
        let more = if last { 0 } else { Ipv4::FRAGMENT & !Ipv4::OFFSET };
        let field = field.wrapping_add((offset / 8) as u16) | more;
        header[6..8].copy_from_slice(&field.to_be_bytes());
        if offset > 0 {
            blank_options(&mut header[Ipv4::LEN..]);
        }
        seal_v4(header);
        offset += part.len();
        fragments.push(fragment);
    }
    Ok(fragments)
}

/// Fragments after the first have only the options that say so. The others become "no operation", so that all headers are
/// of one length.
fn blank_options(options: &mut [u8]) {
    let mut at = 0;
    while let Some(&kind) = options.get(at).filter(|&&kind| kind != END) {
        let len = if kind == NOP { 1 } else { usize::from(*options.get(at + 1).unwrap_or(&0)) };
        let end = at + len;
        if len == 0 || (kind != NOP && len < 2) || end > options.len() {
            return;
        }
        if kind & COPIED == 0 {
            options[at..end].fill(NOP);
        }
        at = end;
    }
}

fn cut_v6(frame: &[u8], at: usize, size: u16, id: u32, came_in: &[usize]) -> Result<Vec<Vec<u8>>, CutError> {
    let len = length_v6(frame, at).ok_or(CutError::Malformed)?;
    let packet = &frame[..at + len];
    if len <= usize::from(size) {
        return Ok(vec![packet.to_vec()]);
    }
    // Every way takes as much, and the kernel makes no shorter ones of those that came.
    let size = if came_in.is_empty() { size } else { size.max(LEAST_MTU_V6) };
    let (next_at, split) = unfragmentable(packet, at).ok_or(CutError::Malformed)?;
    let room = room(size, split - at + Extension::LEN)?;
    let (head, data) = packet.split_at(split);
    let (mut fragments, mut offset) = (Vec::new(), 0);
    for part in parts(data.len(), room, came_in) {
        let part = &data[offset..offset + part];
        let more = u16::from(offset + part.len() < data.len());
        let [high, low] = (offset as u16 | more).to_be_bytes();
        let extension = [&[packet[next_at], 0, high, low], &id.to_be_bytes()[..]].concat();
        let mut fragment = [head, &extension, part].concat();
        fragment[next_at] = ip_protocol::FRAGMENT;
        let payload_len = (fragment.len() - at - Ipv6::LEN) as u16;
        fragment[at + 4..at + 6].copy_from_slice(&payload_len.to_be_bytes());
        offset += part.len();
        fragments.push(fragment);
    }
    Ok(fragments)
}

/// Where the headers end that each fragment has (RFC 8200, 4.5: up to a routing header, or hop-by-hop options), and which
/// byte says what follows them.
fn unfragmentable(packet: &[u8], at: usize) -> Option<(usize, usize)> {
    let (mut next_at, mut end) = (at + 6, at + Ipv6::LEN);
    let mut found = (next_at, end);
    loop {
        let kind = packet[next_at];
        if !matches!(kind, ip_protocol::HOP_BY_HOP | ip_protocol::ROUTING | ip_protocol::DESTINATION) {
            return Some(found);
        }
        let [_, units]: [u8; 2] = array(packet, end)?;
        next_at = end;
        end += (usize::from(units) + 1) * 8;
        if end > packet.len() {
            return None;
        }
        // Destination options are the routers' only in front of a routing header.
        if kind != ip_protocol::DESTINATION {
            found = (next_at, end);
        }
    }
}

/// How much data a fragment of this size has behind its headers: a multiple of 8 bytes.
fn room(size: u16, headers: usize) -> Result<usize, CutError> {
    match usize::from(size).saturating_sub(headers) & !7 {
        0 => Err(CutError::TooSmall(size)),
        room => Ok(room),
    }
}

/// Puts the right checksum into an IPv4 header with its options.
pub(super) fn seal_v4(header: &mut [u8]) {
    header[10..12].fill(0);
    let words = header.chunks_exact(4).map(|word| [word[0], word[1], word[2], word[3]]);
    let sum = words.fold(Sum::ZERO, Sum::add32);
    header[10..12].copy_from_slice(&sum.checksum());
}
