//! Marks: which packets belong to which mark service.
//!
//! Netfilter's marks are set after XDP, so a director of its own marks packets itself, by the rules of `xlvs mark`: address
//! and prefix, ports, protocol. As with iptables' MARK target, the last rule that fits a packet counts.

use crate::carried::Carried;
use crate::cell::{Cell32, Cell64};
use crate::env::{Env, Step};

/// Rules at the most.
pub const MOST: u32 = 256;

/// A rule: one line, changed as a whole by the daemon while packets look at the others.
#[repr(C, align(64))]
pub struct Rule {
    /// The address, as on the wire: of IPv4 in the first word's lower half.
    pub addr: [Cell64; 2],
    /// Which of its bits count, likewise.
    pub mask: [Cell64; 2],
    /// First port (low half) and last one (high half), host order.
    pub ports: Cell32,
    /// IP protocol; 0 = any.
    pub protocol: Cell32,
    /// The mark; 0: the rule is none.
    pub mark: Cell32,
    /// 1: of IPv6.
    pub is_v6: Cell32,
    /// Keeps the line full.
    pub reserved: [Cell64; 2],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Rule>() == 64);

/// What a rule looks at in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Seen {
    /// Destination, as on the wire: of IPv4 in the first word's lower half.
    pub dest: [u64; 2],
    /// Destination port, host order.
    pub port: u16,
    /// IP protocol.
    pub protocol: u16,
    /// 1: of IPv6.
    pub is_v6: u32,
}

impl Rule {
    #[inline(always)]
    fn fits(&self, seen: &Seen) -> bool {
        let ports = self.ports.load();
        let protocol = self.protocol.load();
        let differs = |i: usize| (self.addr[i].load() ^ seen.dest[i]) & self.mask[i].load();
        self.is_v6.load() == seen.is_v6
            && differs(0) | differs(1) == 0
            && seen.port >= ports as u16
            && seen.port <= (ports >> 16) as u16
            && (protocol == 0 || protocol == seen.protocol as u32)
    }
}

/// The mark of a packet; 0: it has none. `rules`: how many there are.
#[inline(always)]
pub fn mark_of<E: Env>(env: &E, rules: u32, seen: &Seen) -> u32 {
    let mut marking = Marking { env, seen, mark: Carried::new(0) };
    env.repeat(rules, &mut marking);
    marking.mark.get()
}

struct Marking<'a, E> {
    env: &'a E,
    seen: &'a Seen,
    mark: Carried<u32>,
}

impl<E: Env> Step for Marking<'_, E> {
    #[inline(always)]
    fn turn(&mut self, i: u32) -> bool {
        let Some(rule) = self.env.mark_rule(i) else { return false };
        let mark = rule.mark.load();
        if mark != 0 && rule.fits(self.seen) {
            self.mark.set(mark);
        }
        true
    }
}
