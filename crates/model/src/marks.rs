//! Which packets carry which mark.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use xlvs_core::protocol::Protocol;

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

/// Why a rule could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct MarkError(String);

impl MarkError {
    fn of<T>(text: &str, is: &str, write: &str) -> Result<T, Self> {
        Err(Self(format!("{text} is {is}; write {write}")))
    }
}

impl FromStr for MarkRule {
    type Err = MarkError;

    /// Reads a rule as it is shown: `7 --to 192.0.2.0/24 --port 80-89 --protocol tcp`, or `7 --ipv6`.
    fn from_str(text: &str) -> Result<Self, MarkError> {
        let mut words = text.split_whitespace();
        let number = words.next().unwrap_or_default();
        let mark = number.parse().or_else(|_| MarkError::of(number, "no mark", "a number from 1 on"))?;
        let mut parts = Parts::default();
        while let Some(option) = words.next() {
            let mut value = || Some(words.next().unwrap_or_default());
            match option {
                "--ipv6" => parts.ipv6 = true,
                "--to" => parts.to = value(),
                "--port" => parts.ports = value(),
                "--protocol" => parts.protocol = value(),
                other => {
                    return MarkError::of(other, "no part of a rule", "--to, --port, --protocol or --ipv6");
                }
            }
        }
        parts.rule(mark)
    }
}

/// A rule but for its mark, as its parts are written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parts<'t> {
    /// Destination: `192.0.2.10` or `192.0.2.0/24`; `None`: any.
    pub to: Option<&'t str>,
    /// Destination port or ports: `80` or `5000-5999`; `None`: any.
    pub ports: Option<&'t str>,
    /// `tcp`, `udp` or `sctp`; `None`: all.
    pub protocol: Option<&'t str>,
    /// The family, where no address says it.
    pub ipv6: bool,
}

impl Parts<'_> {
    /// The rule with this mark, or which part is none.
    pub fn rule(self, mark: u32) -> Result<MarkRule, MarkError> {
        if mark == 0 {
            return MarkError::of("0", "no mark", "a number from 1 on");
        }
        let to = self.to.map(prefix).transpose()?;
        let family = match to {
            Some((addr, _)) => Family::of(addr),
            None if self.ipv6 => Family::Inet6,
            None => Family::Inet,
        };
        let ports = self.ports.map_or(Ok((0, u16::MAX)), ports)?;
        let protocol = self.protocol.map(protocol).transpose()?;
        Ok(MarkRule { mark, family, to, ports, protocol })
    }
}

fn prefix(text: &str) -> Result<(IpAddr, u8), MarkError> {
    let (addr, length) = text.split_once('/').map_or((text, None), |(addr, length)| (addr, Some(length)));
    let read = || {
        let addr: IpAddr = addr.parse().ok()?;
        let whole = if addr.is_ipv4() { 32 } else { 128 };
        let length = length.map_or(Some(whole), |length| length.parse().ok())?;
        (length <= whole).then_some((addr, length))
    };
    read().map_or_else(|| MarkError::of(text, "no address or prefix", "192.0.2.10 or 192.0.2.0/24"), Ok)
}

fn ports(text: &str) -> Result<(u16, u16), MarkError> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok((first, last)),
        _ => MarkError::of(text, "no port or range of ports", "80 or 5000-5999"),
    }
}

fn protocol(text: &str) -> Result<u8, MarkError> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocol::Tcp as u8),
        "udp" => Ok(Protocol::Udp as u8),
        "sctp" => Ok(Protocol::Sctp as u8),
        _ => MarkError::of(text, "no protocol that is marked", "tcp, udp or sctp"),
    }
}

impl fmt::Display for MarkRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.mark)?;
        match self.to {
            Some((addr, prefix)) => write!(f, " --to {addr}/{prefix}")?,
            None if self.family == Family::Inet6 => write!(f, " --ipv6")?,
            None => {}
        }
        match self.ports {
            (0, u16::MAX) => {}
            (first, last) if first == last => write!(f, " --port {first}")?,
            (first, last) => write!(f, " --port {first}-{last}")?,
        }
        match self.protocol.and_then(Protocol::from_u8) {
            Some(protocol) => write!(f, " --protocol {}", protocol.listed().to_lowercase()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_read_as_it_is_shown() {
        for text in [
            "7",
            "7 --ipv6",
            "7 --to 192.0.2.1/32 --port 80 --protocol tcp",
            "7 --protocol sctp",
            "4000000000 --to 2001:db8::/32 --port 1-9 --protocol udp",
        ] {
            assert_eq!(text.parse::<MarkRule>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for wrong in [
            "0",
            "x",
            "7 --to 192.0.2.0/33",
            "7 --port 9-1",
            "7 --port http",
            "7 --protocol icmp",
            "7 --from",
        ] {
            let said = wrong.parse::<MarkRule>().expect_err(wrong).to_string();
            assert!(said.contains("; write "), "{said}");
        }
    }
}
