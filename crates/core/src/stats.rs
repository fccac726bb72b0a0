//! Counters of one processor: plain additions, since nobody else writes them.

use crate::cell::Cell64;
use crate::verdict::{DropReason, PassReason};

/// Counters of a server on one processor, in packets and layer-3 bytes as IPVS counts them.
#[repr(C, align(64))]
pub struct Stats {
    /// Connections scheduled.
    pub conns: Cell64,
    /// Packets from clients.
    pub in_packets: Cell64,
    /// Bytes from clients.
    pub in_bytes: Cell64,
    /// Packets to clients.
    pub out_packets: Cell64,
    /// Bytes to clients.
    pub out_bytes: Cell64,
    /// Keeps the line full.
    pub reserved: [Cell64; 3],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Stats>() == 64);

impl Stats {
    /// A packet from a client.
    #[inline(always)]
    pub fn count_in(&self, bytes: u16) {
        self.in_packets.bump(1);
        self.in_bytes.bump(bytes as u64);
    }

    /// A packet to a client.
    #[inline(always)]
    pub fn count_out(&self, bytes: u16) {
        self.out_packets.bump(1);
        self.out_bytes.bump(bytes as u64);
    }
}

/// Counters of the director on one processor.
#[repr(C, align(64))]
pub struct Counters {
    /// Packets dropped, by [`DropReason`].
    pub drops: [Cell64; DropReason::SPACE],
    /// Packets passed to the stack, by [`PassReason`].
    pub passes: [Cell64; PassReason::SPACE],
    /// Packets sent on by other ways than the short one, which leaves that to its servers' statistics.
    pub forwarded: Cell64,
    /// Packets answered with an ICMP error.
    pub answered: Cell64,
    /// The quarter second in which ICMP errors are being counted.
    pub icmp_tick: Cell64,
    /// ICMP errors sent in it.
    pub icmp_sent: Cell64,
    /// Fresh identifications for packets that may be fragmented.
    pub ip_id: Cell64,
    /// Transitions that were given up because other processors kept changing the connection.
    pub contended: Cell64,
    /// Connections that a packet found expired and removed.
    pub expired: Cell64,
    /// While a new connection takes the place of another: the server that still counts that one, plus 1. Else 0.
    pub predecessor: Cell64,
    /// Fragments handed to the daemon.
    pub fragments: Cell64,
    /// Packets that servers' statistics have and that were not sent on by the short way. What those have besides was.
    pub told_apart: Cell64,
}

/// ICMP errors that a processor may send in a quarter second: the kernel's `icmp_msgs_per_sec`, 1000.
const ICMP_PER_TICK: u64 = 250;

impl Counters {
    /// May another ICMP error be sent in this quarter second?
    #[inline(always)]
    pub fn may_send_icmp(&self, now: crate::conn::word::Tick) -> bool {
        let now = now.count() as u64;
        if self.icmp_tick.load() != now {
            self.icmp_tick.store(now);
            self.icmp_sent.store(0);
        }
        if self.icmp_sent.load() >= ICMP_PER_TICK {
            return false;
        }
        self.icmp_sent.bump(1);
        true
    }
}
