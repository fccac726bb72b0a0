//! Fragments of packets for the director itself wait for the others.

use std::collections::BTreeMap;
use std::net::IpAddr;

use xlvs_lab::frames::site::REASSEMBLY_S;

use super::packet::{Fragment, Packet};

/// See the module.
#[derive(Debug, Default)]
pub struct Reassembly {
    waiting: BTreeMap<Key, Parts>,
}

type Key = (IpAddr, IpAddr, u32, u8);

#[derive(Debug)]
struct Parts {
    until_ms: u64,
    first: Option<Packet>,
    /// Payload by its place.
    pieces: BTreeMap<usize, Vec<u8>>,
    whole: Option<usize>,
}

impl Reassembly {
    /// A fragment came: the packet, if it was the last one missing.
    pub fn add(&mut self, packet: Packet, part: Fragment, now_ms: u64) -> Option<Packet> {
        // The kernel takes the protocol into account in IPv4 only, where each fragment names it.
        let protocol = if packet.is_v6() { 0 } else { packet.protocol };
        let key = (packet.src, packet.dst, part.id, protocol);
        let parts = self.waiting.entry(key).or_insert_with(|| Parts {
            until_ms: now_ms + REASSEMBLY_S * 1000,
            first: None,
            pieces: BTreeMap::new(),
            whole: None,
        });
        match parts.take(packet, part) {
            Taken::More => None,
            // Overlapping fragments are an attack (RFC 5722): nothing of the packet is used.
            Taken::Overlap => {
                self.waiting.remove(&key);
                None
            }
            Taken::All(packet) => {
                self.waiting.remove(&key);
                packet
            }
        }
    }

    /// Time is up for these: their first fragments, if they came.
    pub fn give_up(&mut self, now_ms: u64) -> Vec<Packet> {
        let is_due = |parts: &Parts| parts.until_ms <= now_ms;
        let first = |parts: &mut Parts| if is_due(parts) { parts.first.take() } else { None };
        let given_up = self.waiting.values_mut().filter_map(first).collect();
        self.waiting.retain(|_, parts| !is_due(parts));
        given_up
    }
}

enum Taken {
    More,
    Overlap,
    All(Option<Packet>),
}

impl Parts {
    fn take(&mut self, packet: Packet, part: Fragment) -> Taken {
        let piece = packet.payload().to_vec();
        let end = part.offset + piece.len();
        if self.pieces.get(&part.offset).is_some_and(|known| known.len() == piece.len()) {
            return Taken::More;
        }
        let meets = |(at, known): (&usize, &Vec<u8>)| *at < end && part.offset < at + known.len();
        if self.pieces.iter().any(meets) {
            return Taken::Overlap;
        }
        self.pieces.insert(part.offset, piece);
        if !part.more {
            self.whole = Some(end);
        }
        if part.offset == 0 {
            self.first = Some(packet);
        }
        let there: usize = self.pieces.values().map(Vec::len).sum();
        match (&self.first, self.whole) {
            (Some(first), Some(whole)) if whole == there => {
                let payload: Vec<u8> = self.pieces.values().flatten().copied().collect();
                Taken::All(first.completed(&payload))
            }
            _ => Taken::More,
        }
    }
}
