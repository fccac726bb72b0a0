//! Holds fragments until their packet is whole, or its time is over.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    incomplete::{Held, Incomplete},
    piece::{Key, Piece, Refusal},
};

/// How long fragments of an IPv4 packet are held, from the first that came: `ipfrag_time`.
pub const TIMEOUT_V4: Duration = Duration::from_secs(30);

/// The same of an IPv6 packet: `ip6frag_time`.
pub const TIMEOUT_V6: Duration = Duration::from_secs(60);

/// How many bytes may be held, of both families together: `ipfrag_high_thresh`.
pub const HIGH_THRESH: usize = 4 << 20;

/// What a fragment takes beside its frame, in bytes, counted upwards: many tiny ones must not take much more than they say.
const OVERHEAD: usize = 256;

/// What happens.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A fragment came in.
    Fragment {
        /// The interface that it came in by.
        ifindex: u32,
        /// Its Ethernet frame.
        frame: &'a [u8],
    },
    /// Time went by. [`Reassembler::deadline`] says when this is due.
    Tick,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// This packet became whole.
    pub whole: Option<Whole>,
    /// These packets did not in time.
    pub expired: Vec<Expired>,
    /// Why the fragment was dropped.
    pub refused: Option<Refusal>,
}

/// A packet that became whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Whole {
    /// The interface that the latest of its fragments came in by.
    pub ifindex: u32,
    /// Its Ethernet frame, without padding.
    pub frame: Vec<u8>,
    /// The largest of its fragments as an IP packet, in bytes.
    pub largest: u16,
    /// The frames of its fragments, in the order of their offsets.
    pub fragments: Vec<Vec<u8>>,
    /// How many bytes of data each of them had.
    pub parts: Vec<usize>,
}

/// A packet that did not become whole in time. If the first fragment was there, its sender is told (ICMP 11/1, ICMPv6 3/1).
#[derive(Debug, PartialEq, Eq)]
pub struct Expired {
    /// The interface that the latest of its fragments came in by.
    pub ifindex: u32,
    /// The Ethernet frame of the first fragment.
    pub first: Option<Vec<u8>>,
}

/// The fragments that are held.
pub struct Reassembler {
    packets: BTreeMap<Key, Incomplete>,
    /// When each of the packets is given up.
    deadlines: BTreeSet<(Duration, Key)>,
    /// How many bytes are held.
    memory: usize,
    high_thresh: usize,
    /// IPv4's and IPv6's.
    timeouts: (Duration, Duration),
}

impl Default for Reassembler {
    fn default() -> Self {
        Self::new((TIMEOUT_V4, TIMEOUT_V6), HIGH_THRESH)
    }
}

impl Reassembler {
    /// Holds fragments for so long (IPv4's, IPv6's), and so many bytes of them.
    pub fn new(timeouts: (Duration, Duration), high_thresh: usize) -> Self {
        Self { packets: BTreeMap::new(), deadlines: BTreeSet::new(), memory: 0, high_thresh, timeouts }
    }

    /// Takes an event at the time `now`, which is counted from any moment and does not go back.
    pub fn step(&mut self, event: Event<'_>, now: Duration) -> Effects {
        let mut effects = Effects { expired: self.expire(now), ..Effects::default() };
        if let Event::Fragment { ifindex, frame } = event {
            match self.take(ifindex, frame, now) {
                Ok(whole) => effects.whole = whole,
                Err(refusal) => effects.refused = Some(refusal),
            }
        }
        effects
    }

    /// When the next packet is given up.
    pub fn deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// How many bytes are held.
    pub fn memory(&self) -> usize {
        self.memory
    }

    fn expire(&mut self, now: Duration) -> Vec<Expired> {
        let mut expired = Vec::new();
        while let Some(&(deadline, key)) = self.deadlines.first()
            && deadline <= now
        {
            if let Some(packet) = self.forget(key) {
                expired.push(Expired { ifindex: packet.ifindex, first: packet.first().map(<[u8]>::to_vec) });
            }
        }
        expired
    }

    fn take(&mut self, ifindex: u32, frame: &[u8], now: Duration) -> Result<Option<Whole>, Refusal> {
        let piece = Piece::read(frame)?;
        if piece.is_atomic() {
            // Whatever else has its identification.
            let mut alone = Incomplete::new(now);
            alone.add(Held { piece, frame: frame.to_vec() }, 0)?;
            alone.ifindex = ifindex;
            return whole(alone).map(Some);
        }
        let (key, memory) = (piece.key, frame.len() + OVERHEAD);
        if self.memory + memory > self.high_thresh {
            return Err(Refusal::NoRoom);
        }
        let packet = self.packet(key, now);
        match packet.add(Held { piece, frame: frame.to_vec() }, memory) {
            Ok(()) => {}
            Err(Refusal::Duplicate) => return Err(Refusal::Duplicate),
            Err(refusal) => {
                self.forget(key);
                return Err(refusal);
            }
        }
        packet.ifindex = ifindex;
        let is_whole = packet.is_whole();
        self.memory += memory;
        if !is_whole {
            return Ok(None);
        }
        self.forget(key).map(whole).transpose()
    }

    /// What is held of a packet; nothing, from now on, if it is new.
    fn packet(&mut self, key: Key, now: Duration) -> &mut Incomplete {
        let timeout = match key {
            Key::V4 { .. } => self.timeouts.0,
            Key::V6 { .. } => self.timeouts.1,
        };
        self.packets.entry(key).or_insert_with(|| {
            self.deadlines.insert((now + timeout, key));
            Incomplete::new(now + timeout)
        })
    }

    fn forget(&mut self, key: Key) -> Option<Incomplete> {
        let packet = self.packets.remove(&key)?;
        self.deadlines.remove(&(packet.deadline, key));
        self.memory -= packet.memory;
        Some(packet)
    }
}

fn whole(packet: Incomplete) -> Result<Whole, Refusal> {
    let (ifindex, largest, frame) = (packet.ifindex, packet.largest(), packet.join()?);
    let parts = packet.parts();
    Ok(Whole { ifindex, frame, largest, fragments: packet.into_frames(), parts })
}
