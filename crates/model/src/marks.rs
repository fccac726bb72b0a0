//! Which packets carry which mark.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::refusal::Refusal;
use crate::spec::Family;

/// Rules at the most: what the data plane has room for.
pub const MOST: usize = xlvs_core::marks::MOST as usize;

/// A rule: packets to these addresses and ports carry this mark. Of several that fit a packet, the last counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkRule {
    /// Never 0.
    pub mark: u32,
    /// Whose packets.
    pub family: Family,
    /// Destination and prefix length; `None`: any.
    pub to: Option<(IpAddr, u8)>,
    /// First and last destination port.
    pub ports: (u16, u16),
    /// IP protocol; `None`: any that is balanced.
    pub protocol: Option<u8>,
}

impl MarkRule {
    /// Is it one?
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        let refuse = |why: &str| Err(Refusal::Unsupported(why.to_owned()));
        if self.mark == 0 {
            return refuse("a mark is a number from 1 on");
        }
        if self.ports.0 > self.ports.1 {
            return refuse("the first port of a range is not beyond its last");
        }
        if let Some((addr, prefix)) = self.to {
            if Family::of(addr) != self.family {
                return refuse("the address is of the other family");
            }
            if u32::from(prefix) > if addr.is_ipv4() { 32 } else { 128 } {
                return refuse("a prefix has 32 bits at the most, or 128 of IPv6");
            }
        }
        Ok(())
    }
}
