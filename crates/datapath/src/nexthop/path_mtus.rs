//! What routers have said that the ways to servers take, until it is forgotten.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

/// How long it is believed: the kernel's `mtu_expires`.
pub(super) const BELIEVED: Duration = Duration::from_secs(600);
/// Nobody may make the director send less: the kernel's `min_pmtu`, and what every IPv6 link takes (RFC 8200, 5).
const LEAST_V4: u32 = 552;
const LEAST_V6: u32 = 1280;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct PathMtus {
    learned: BTreeMap<IpAddr, Learned>,
}

#[derive(Debug, Clone, Copy)]
struct Learned {
    mtu: u32,
    until: Instant,
}

impl PathMtus {
    /// A router has said so. Whether that is news: a way that is believed to take less stays as it is.
    pub(super) fn learn(&mut self, addr: IpAddr, mtu: u32, now: Instant) -> bool {
        let mtu = mtu.max(if addr.is_ipv4() { LEAST_V4 } else { LEAST_V6 });
        if self.get(addr).is_some_and(|known| known < mtu) {
            return false;
        }
        self.learned.insert(addr, Learned { mtu, until: now + BELIEVED }).is_none_or(|old| old.mtu != mtu)
    }

    /// What the way to this address takes, if anybody has said so.
    pub(super) fn get(&self, addr: IpAddr) -> Option<u32> {
        self.learned.get(&addr).map(|learned| learned.mtu)
    }

    /// Nobody wants to know any more.
    pub(super) fn forget(&mut self, addr: IpAddr) {
        self.learned.remove(&addr);
    }

    /// The addresses of which it is not believed any more.
    pub(super) fn forget_due(&mut self, now: Instant) -> Vec<IpAddr> {
        let due = |learned: &Learned| learned.until <= now;
        let addrs = self.learned.iter().filter(|(_, learned)| due(learned)).map(|(addr, _)| *addr).collect();
        self.learned.retain(|_, learned| !due(learned));
        addrs
    }

    /// When something is next forgotten.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.learned.values().map(|learned| learned.until).min()
    }
}
