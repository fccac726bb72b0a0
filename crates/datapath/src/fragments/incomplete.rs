//! A packet of which not all fragments are there.

use std::{collections::BTreeMap, time::Duration};

use xlvs_core::wire::{Ipv4, Ipv6};

use super::{
    cut::seal_v4,
    piece::{Key, Piece, Refusal},
};

/// A fragment and the frame that it came in.
pub(super) struct Held {
    pub piece: Piece,
    pub frame: Vec<u8>,
}

/// What is there of a packet.
pub(super) struct Incomplete {
    /// When it is given up.
    pub deadline: Duration,
    /// The interface that the latest fragment came in by.
    pub ifindex: u32,
    /// By offset; no two share a byte.
    pieces: BTreeMap<usize, Held>,
    /// Where the data ends: the last fragment says so.
    end: Option<usize>,
    /// Where the data ends that is there.
    reach: usize,
    /// How many bytes of data are there.
    data: usize,
    /// How much memory the fragments take, in bytes.
    pub memory: usize,
    /// One bit for each ECN field that was seen.
    ecn: u8,
}

impl Incomplete {
    pub fn new(deadline: Duration) -> Self {
        let pieces = BTreeMap::new();
        Self { deadline, ifindex: 0, pieces, end: None, reach: 0, data: 0, memory: 0, ecn: 0 }
    }

    /// Takes a fragment in. After an error other than [`Refusal::Duplicate`] the packet cannot become whole any more.
    pub fn add(&mut self, held: Held, memory: usize) -> Result<(), Refusal> {
        let piece = &held.piece;
        self.check_end(piece)?;
        self.check_overlap(piece)?;
        self.ecn |= 1 << piece.ecn;
        self.reach = self.reach.max(piece.end());
        self.data += piece.data.len();
        self.memory += memory;
        if !piece.more {
            self.end = Some(piece.end());
        }
        self.pieces.insert(piece.offset, held);
        Ok(())
    }

    /// Lengths that contradict each other are an attempt at something.
    fn check_end(&self, piece: &Piece) -> Result<(), Refusal> {
        if piece.is_beyond(piece.end()) {
            return Err(Refusal::TooLong);
        }
        if piece.more && !piece.data.len().is_multiple_of(8) {
            return Err(Refusal::Length);
        }
        let end = piece.end();
        let contradicts = match self.end {
            Some(known) => end > known || (!piece.more && end != known),
            None => !piece.more && end < self.reach,
        };
        if contradicts { Err(Refusal::Ends) } else { Ok(()) }
    }

    fn check_overlap(&self, piece: &Piece) -> Result<(), Refusal> {
        let before = self.pieces.range(..piece.end()).next_back();
        if before.is_none_or(|(_, other)| other.piece.end() <= piece.offset) {
            return Ok(());
        }
        if self.has(piece.offset, piece.end()) { Err(Refusal::Duplicate) } else { Err(Refusal::Overlap) }
    }

    /// Is every byte between the two there?
    fn has(&self, from: usize, to: usize) -> bool {
        let mut covered = to;
        for (&offset, other) in self.pieces.range(..to).rev() {
            if other.piece.end() < covered {
                return false;
            }
            covered = offset;
            if covered <= from {
                return true;
            }
        }
        false
    }

    /// Is all of it there?
    pub fn is_whole(&self) -> bool {
        // No two fragments share a byte, so the number of bytes tells.
        self.end == Some(self.data)
    }

    /// The frame of the first fragment.
    pub fn first(&self) -> Option<&[u8]> {
        self.pieces.get(&0).map(|held| &held.frame[..])
    }

    /// The largest fragment as an IP packet, in bytes.
    pub fn largest(&self) -> u16 {
        self.pieces.values().map(|held| held.piece.len).max().unwrap_or(0)
    }

    /// Did the largest of the fragments forbid to cut it further? Then the packet forbids it too.
    fn dont_fragment(&self) -> bool {
        let largest = self.largest();
        self.pieces.values().any(|held| held.piece.dont_fragment && held.piece.len == largest)
    }

    /// The frame of the whole packet, with the first fragment's headers. Call it when [`Self::is_whole`].
    pub fn join(&self) -> Result<Vec<u8>, Refusal> {
        let first = self.pieces.get(&0).ok_or(Refusal::Malformed)?;
        // The first fragment's headers may be longer than those that the others were measured with.
        if first.piece.is_beyond(self.data) {
            return Err(Refusal::TooLong);
        }
        let ecn = joint_ecn(self.ecn, first.piece.ecn)?;
        let mut frame = Vec::with_capacity(first.piece.headers_end + self.data);
        frame.extend_from_slice(&first.frame[..first.piece.headers_end]);
        for held in self.pieces.values() {
            frame.extend_from_slice(&held.frame[held.piece.data.clone()]);
        }
        self.mend_headers(&mut frame, &first.piece, ecn);
        Ok(frame)
    }

    /// How many bytes of data each fragment has, in the order of their offsets.
    pub fn parts(&self) -> Vec<usize> {
        self.pieces.values().map(|held| held.piece.data.len()).collect()
    }

    /// The fragments' frames, in the order of their offsets.
    pub fn into_frames(self) -> Vec<Vec<u8>> {
        self.pieces.into_values().map(|held| held.frame).collect()
    }

    fn mend_headers(&self, frame: &mut [u8], first: &Piece, ecn: u8) {
        let len = frame.len() - first.network;
        let header = &mut frame[first.network..];
        match first.key {
            Key::V4 { .. } => {
                header[1] = header[1] & !3 | ecn;
                header[2..4].copy_from_slice(&(len as u16).to_be_bytes());
                let field = if self.dont_fragment() { Ipv4::DF } else { 0 };
                header[6..8].copy_from_slice(&field.to_be_bytes());
                seal_v4(&mut header[..first.headers_end - first.network]);
            }
            Key::V6 { .. } => {
                header[1] = header[1] & !0x30 | ecn << 4;
                header[4..6].copy_from_slice(&((len - Ipv6::LEN) as u16).to_be_bytes());
                frame[first.next.0] = first.next.1;
            }
        }
    }
}

/// The whole packet's ECN field (RFC 3168, 5.3): `seen` has one bit for each field that a fragment had. Congestion that one
/// fragment met the packet met, but not if another's sender does not know of ECN.
fn joint_ecn(seen: u8, first: u8) -> Result<u8, Refusal> {
    const NOT_ECT: u8 = 1;
    const CE: u8 = 1 << 3;
    if seen & NOT_ECT != 0 && seen != NOT_ECT {
        return Err(Refusal::Ecn);
    }
    Ok(if seen & CE != 0 { 3 } else { first })
}
