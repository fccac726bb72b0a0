//! Rates as the kernel's estimator makes them (`ip_vs_est.c`): every 2 s, average += (rate − average) / 4.

use xlvs_model::view::{Rates, Stats};

/// Seconds between two estimations.
pub const PERIOD_S: u64 = 2;

/// The estimator of one object, and the snapshot that listings show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimator {
    last: Stats,
    cps: i64,
    in_pps: i64,
    out_pps: i64,
    in_bps: i64,
    out_bps: i64,
}

/// Fixed point: connections and packets by 2^10 (so twice the delta of 2 s is its 2^9-fold), bytes by 2^5.
fn smooth(average: &mut i64, delta: u64, shift: u32) {
    let rate = (delta << shift) as i64;
    *average += (rate - *average) >> 2;
}

impl Estimator {
    /// An object whose counters hold this much now.
    pub fn starting_at(stats: Stats) -> Self {
        Self { last: stats, ..Self::default() }
    }

    /// Two seconds went by.
    pub fn estimate(&mut self, now: Stats) {
        let d = crate::roster::since(now, self.last);
        smooth(&mut self.cps, d.conns, 9);
        smooth(&mut self.in_pps, d.in_packets, 9);
        smooth(&mut self.out_pps, d.out_packets, 9);
        smooth(&mut self.in_bps, d.in_bytes, 4);
        smooth(&mut self.out_bps, d.out_bytes, 4);
        self.last = now;
    }

    /// The counters at the last estimation.
    pub fn snapshot(&self) -> Stats {
        self.last
    }

    /// The rates as they are read out.
    pub fn rates(&self) -> Rates {
        let packets = |v: i64| ((v + 0x1ff) >> 10).max(0) as u64;
        let bytes = |v: i64| ((v + 0xf) >> 5).max(0) as u64;
        Rates {
            cps: packets(self.cps),
            in_pps: packets(self.in_pps),
            out_pps: packets(self.out_pps),
            in_bps: bytes(self.in_bps),
            out_bps: bytes(self.out_bps),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_connections_from_idle_decay_as_in_the_kernel() {
        let mut e = Estimator::default();
        let now = Stats { conns: 100, ..Stats::default() };
        e.estimate(now);
        let mut shown = vec![e.rates().cps];
        for _ in 0..3 {
            e.estimate(now);
            shown.push(e.rates().cps);
        }
        assert_eq!(shown, [12, 9, 7, 5]);
    }
}
