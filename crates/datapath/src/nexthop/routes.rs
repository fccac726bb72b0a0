//! The kernel's answers to "how do you get to this address", and which of them are in doubt.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    time::Instant,
};

use super::{NeighbourKey, Reason};

/// A way out that the kernel chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Interface it leaves by.
    pub ifindex: u32,
    /// Router to send to; `None` means the address itself is on that network. An IPv4 route may have an
    /// IPv6 gateway.
    pub gateway: Option<IpAddr>,
    /// MTU the route states or the kernel has learned for the path.
    pub mtu: Option<u32>,
    /// Address the kernel would send from.
    pub source: Option<IpAddr>,
}

impl Route {
    /// Who a packet for `addr` is handed to.
    pub fn neighbour_towards(&self, addr: IpAddr) -> NeighbourKey {
        NeighbourKey { ifindex: self.ifindex, addr: self.gateway.unwrap_or(addr) }
    }
}

/// What the kernel says about an address.
pub(super) type Answer = Result<Route, Reason>;

/// A block of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// Any address in the block.
    pub addr: IpAddr,
    /// How many leading bits are common to all.
    pub len: u8,
}

impl Prefix {
    /// First and last address.
    pub fn range(self) -> RangeInclusive<IpAddr> {
        match self.addr {
            IpAddr::V4(addr) => {
                let host = u32::MAX.checked_shr(self.len.into()).unwrap_or(0);
                let bits = addr.to_bits();
                Ipv4Addr::from_bits(bits & !host).into()..=Ipv4Addr::from_bits(bits | host).into()
            }
            IpAddr::V6(addr) => {
                let host = u128::MAX.checked_shr(self.len.into()).unwrap_or(0);
                let bits = addr.to_bits();
                Ipv6Addr::from_bits(bits & !host).into()..=Ipv6Addr::from_bits(bits | host).into()
            }
        }
    }
}

/// Answers by address, with the questions that are open.
///
/// An address in doubt is asked about once the doubt has been left to settle, so that a routing daemon
/// replacing a thousand routes causes one question an address. A doubt raised while a question is under way
/// causes another: the answer may be older than the doubt.
#[derive(Debug, Default)]
pub(super) struct Routes {
    answers: BTreeMap<IpAddr, Answer>,
    /// Still to be asked about.
    doubted: BTreeSet<IpAddr>,
    /// Asked about, and whether that is to be done again.
    asked: BTreeMap<IpAddr, bool>,
    ask_at: Option<Instant>,
}

impl Routes {
    /// The answer about `addr` is to be asked for (again), not later than `at`.
    pub(super) fn doubt(&mut self, addr: IpAddr, at: Instant) {
        match self.asked.get_mut(&addr) {
            Some(again) => *again = true,
            None => {
                self.doubted.insert(addr);
                self.ask_at = Some(self.ask_at.map_or(at, |already| already.min(at)));
            }
        }
    }

    /// Nobody wants to know any more.
    pub(super) fn forget(&mut self, addr: IpAddr) {
        self.answers.remove(&addr);
        self.doubted.remove(&addr);
        self.asked.remove(&addr);
    }

    /// The addresses to ask about now.
    pub(super) fn questions_due(&mut self, now: Instant) -> BTreeSet<IpAddr> {
        if self.ask_at.is_none_or(|at| now < at) {
            return BTreeSet::new();
        }
        self.ask_at = None;
        let due = std::mem::take(&mut self.doubted);
        self.asked.extend(due.iter().map(|addr| (*addr, false)));
        due
    }

    /// Notes an answer; whether it differs from the one before.
    pub(super) fn answer(&mut self, addr: IpAddr, answer: Answer, now: Instant) -> bool {
        if self.asked.remove(&addr) == Some(true) {
            self.doubt(addr, now);
        }
        self.answers.insert(addr, answer) != Some(answer)
    }

    pub(super) fn get(&self, addr: IpAddr) -> Option<Answer> {
        self.answers.get(&addr).copied()
    }

    /// Whether every question has its answer.
    pub(super) fn are_settled(&self) -> bool {
        self.doubted.is_empty() && self.asked.is_empty()
    }

    /// Addresses whose answer satisfies `test`.
    pub(super) fn addresses_where(&self, test: impl Fn(&Answer) -> bool) -> Vec<IpAddr> {
        self.answers.iter().filter(|(_, answer)| test(answer)).map(|(addr, _)| *addr).collect()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.ask_at
    }
}
