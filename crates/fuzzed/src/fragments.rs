//! Fragments: what is put together is what was taken apart, whatever comes in whatever order; and what is cut can be put together.

use std::time::Duration;

use xlvs_datapath::fragments::{Event, HIGH_THRESH, Reassembler, TIMEOUT_V4, TIMEOUT_V6, Whole, cut};

use crate::input::Input;
use crate::look;
use crate::packets::{self, Ends};

/// See the module.
pub fn fragments(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() & 3 {
        0 => anything(&mut input),
        1 => cut_and_join(&mut input),
        _ => pieces(&mut input),
    }
}

fn reassembler() -> Reassembler {
    Reassembler::new((TIMEOUT_V4, TIMEOUT_V6), HIGH_THRESH)
}

/// Frames of any bytes.
fn anything(input: &mut Input<'_>) {
    let mut held = reassembler();
    let mut now = Duration::ZERO;
    while !input.is_empty() {
        let length = usize::from(input.byte()) + 14;
        let mut frame = input.take(length).to_vec();
        if let Some(kind) = frame.get_mut(12..14) {
            kind.copy_from_slice(if input.one_in(2) { &[8, 0] } else { &[0x86, 0xdd] });
        }
        let _any = cut(&frame, input.word(), 7, &[]);
        now += Duration::from_secs(u64::from(input.below(40)));
        let _any = held.step(Event::Fragment { ifindex: 1, frame: &frame }, now);
    }
    nothing_stays(&mut held, now);
}

/// After the longest time that anything is held.
fn nothing_stays(held: &mut Reassembler, now: Duration) {
    let _told = held.step(Event::Tick, now + TIMEOUT_V6);
    assert_eq!((held.memory(), held.deadline()), (0, None), "nothing is held for ever");
}

/// What a packet with this identification has at this place.
fn byte_at(id: u8, place: usize) -> u8 {
    (place as u8).wrapping_mul(31) ^ (place >> 8) as u8 ^ id
}

/// Pieces of packets, in any order, of any length, now and then with holes between or one over the other.
fn pieces(input: &mut Input<'_>) {
    let (mut held, v6) = (reassembler(), input.one_in(2));
    let mut now = Duration::ZERO;
    while !input.is_empty() {
        let (id, units, odd) = (input.below(3), usize::from(input.below(12)), input.byte());
        let more = odd & 1 != 0;
        let length = if more { 8 * (1 + usize::from(odd >> 1) % 5) } else { usize::from(odd >> 1) % 40 };
        let data: Vec<u8> = (units * 8..units * 8 + length).map(|place| byte_at(id, place)).collect();
        let frame = piece(v6, id, units, more, &data);
        if input.one_in(16) {
            now += Duration::from_secs(u64::from(input.byte()));
        }
        let effects = held.step(Event::Fragment { ifindex: 1, frame: &frame }, now);
        if let Some(whole) = effects.whole {
            is_right(&whole, v6, id);
        }
    }
    nothing_stays(&mut held, now);
}

fn piece(v6: bool, id: u8, units: usize, more: bool, data: &[u8]) -> Vec<u8> {
    let (from, to) = ([10, 0, 0, 1], [10, 0, 0, 100]);
    let field = (units as u16) << 3 | u16::from(more);
    let packet = if v6 {
        let mut ip = vec![0x60, 0, 0, 0];
        ip.extend((8 + data.len() as u16).to_be_bytes());
        ip.extend([44, 64]);
        ip.extend(packets::beside(from));
        ip.extend(packets::beside(to));
        ip.extend([17, 0]);
        ip.extend(field.to_be_bytes());
        ip.extend([0, 0, 0, id]);
        [ip, data.to_vec()].concat()
    } else {
        let mut ip = vec![0x45, 0];
        ip.extend((20 + data.len() as u16).to_be_bytes());
        ip.extend([0, id]);
        ip.extend((field >> 3 | u16::from(more) << 13).to_be_bytes());
        ip.extend([64, 17, 0, 0]);
        ip.extend(from);
        ip.extend(to);
        [ip, data.to_vec()].concat()
    };
    packets::frame(v6, &packet)
}

/// Every byte is the one that its place has, and nothing is missing.
fn is_right(whole: &Whole, v6: bool, id: u8) {
    look::assert_sound(&whole.frame);
    let data = &whole.frame[if v6 { 54 } else { 34 }..];
    for (place, byte) in data.iter().enumerate() {
        assert_eq!(*byte, byte_at(id, place), "byte {place} of {}", data.len());
    }
    assert_eq!(whole.parts.iter().sum::<usize>(), data.len(), "the parts are the whole");
    assert_eq!(whole.parts.len(), whole.fragments.len());
}

/// A packet is cut, and its pieces are put together again.
fn cut_and_join(input: &mut Input<'_>) {
    let ends = Ends { v6: input.one_in(2), from: [10, 0, 0, 1], to: [10, 0, 0, 100], ports: (1, 2) };
    let size = input.word();
    let data: Vec<u8> = (0..usize::from(input.word()) % 9000).map(|place| byte_at(1, place)).collect();
    let packet = packets::ip(input, &ends, 89, data, None);
    let frame = packets::frame(ends.v6, &packet);
    let Ok(pieces) = cut(&frame, size, 7, &[]) else { return };
    let mut held = reassembler();
    for (i, piece) in pieces.iter().enumerate() {
        look::assert_sound(piece);
        assert!(piece.len() <= 14 + usize::from(size), "no piece is longer than the way takes");
        if pieces.len() == 1 {
            assert_eq!(*piece, frame, "what fits stays as it is");
            return;
        }
        let effects = held.step(Event::Fragment { ifindex: 1, frame: piece }, Duration::ZERO);
        // A fragment's header among those of the packet itself is the inner one's, and cannot be taken for this one's.
        let is_plain = ends.v6 || packet[6] & 0x40 == 0;
        if i + 1 == pieces.len() && is_plain && !has_fragment_header(&packet, ends.v6) {
            let whole = effects.whole.expect("all pieces are there");
            assert_eq!(whole.frame, frame, "what was cut is put together");
        }
    }
}

fn has_fragment_header(packet: &[u8], v6: bool) -> bool {
    let mut next = packet[6];
    let mut at = 40;
    while v6 && matches!(next, 0 | 43 | 60 | 44) && at + 1 < packet.len() {
        if next == 44 {
            return true;
        }
        (next, at) = (packet[at], at + 8 * (usize::from(packet[at + 1]) + 1));
    }
    false
}
