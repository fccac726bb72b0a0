//! One thing of a host that is set, what was there, and the command that an operator would have typed.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A setting: a place, and what shall be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Setting {
    /// A kernel parameter.
    Sysctl {
        /// As a path below `/proc/sys`: names of interfaces may have dots.
        key: String,
        /// Its value.
        value: String,
    },
    /// An address alone (/32, /128) on a device.
    Address {
        /// The device.
        device: String,
        /// The address.
        address: IpAddr,
    },
    /// A device that is up.
    LinkUp {
        /// The device.
        device: String,
    },
    /// A route that comes before others to the same place.
    Route {
        /// Where to.
        to: IpNet,
        /// By whom.
        gateway: IpAddr,
    },
    /// Our tunnel end on a device.
    TunnelEnd(TunnelSetup),
}

/// How a tunnel end is set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelSetup {
    /// The device.
    pub device: String,
    /// Whom packets inside may be for.
    pub vips: Vec<IpAddr>,
    /// Who may send; none is everybody.
    pub directors: Vec<IpNet>,
    /// UDP port of GUE; 0 is none.
    pub gue_port: u16,
}

/// What there is in a setting's place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Found {
    /// Nothing. (A parameter: the device it belongs to is not there.)
    Nothing,
    /// Just what the setting says.
    Same,
    /// A parameter's value.
    Value(String),
    /// Another route, as the kernel tells it (the payload of `RTM_NEWROUTE`).
    OtherRoute(Vec<u8>),
    /// A tunnel end of ours that is set up otherwise.
    OtherSetup,
    /// Somebody else's XDP program, where a tunnel end is to be.
    Foreign,
}

impl Setting {
    /// Do both speak of the same place?
    pub fn is_place_of(&self, other: &Setting) -> bool {
        match (self, other) {
            (Self::Sysctl { key: a, .. }, Self::Sysctl { key: b, .. }) => a == b,
            (Self::Route { to: a, .. }, Self::Route { to: b, .. }) => a == b,
            (Self::TunnelEnd(a), Self::TunnelEnd(b)) => a.device == b.device,
            (a, b) => a == b,
        }
    }

    /// The command, or, where there is none, what the comment in its place says.
    pub fn in_words(&self) -> String {
        self.to_string().trim_start_matches("# ").to_owned()
    }

    /// Does it hold, given what was found in its place?
    pub fn holds(&self, found: &Found) -> bool {
        match (self, found) {
            (Self::Sysctl { value, .. }, Found::Value(now)) => value == now,
            (_, found) => *found == Found::Same,
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sysctl { key, value } => write!(f, "sysctl -w {}={value}", sysctl_name(key)),
            Self::Address { device, address: IpAddr::V4(v4) } => {
                write!(f, "ip addr add {v4}/32 dev {device}")
            }
            Self::Address { device, address: IpAddr::V6(v6) } => {
                write!(f, "ip addr add {v6}/128 dev {device} nodad")
            }
            Self::LinkUp { device } => write!(f, "ip link set {device} up"),
            Self::Route { to, gateway: IpAddr::V4(v4) } => write!(f, "ip route replace {to} via {v4}"),
            Self::Route { to, gateway: IpAddr::V6(v6) } => {
                write!(f, "ip -6 route replace {to} via {v6} metric 1")
            }
            Self::TunnelEnd(setup) => write!(f, "{setup}"),
        }
    }
}

/// What is in a program has no command; this says it in a shell's comment.
impl fmt::Display for TunnelSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, vips, directors, gue_port } = self;
        write!(f, "# xlvs's tunnel end on {device}: IP in IP, GRE")?;
        if *gue_port != 0 {
            write!(f, ", GUE on UDP port {gue_port}")?;
        }
        write!(f, ", for {}", listed(vips))?;
        match directors[..] {
            [] => write!(f, ", from everybody"),
            _ => write!(f, ", from {} only", listed(&directors.iter().map(shown).collect::<Vec<_>>())),
        }
    }
}

/// A prefix of an address's whole length is that address.
pub(crate) fn shown(prefix: &IpNet) -> String {
    let whole = prefix.prefix_len() == prefix.max_prefix_len();
    if whole { prefix.addr().to_string() } else { prefix.to_string() }
}

fn listed<T: ToString>(items: &[T]) -> String {
    const SHOWN: usize = 8;
    let mut words: Vec<_> = items.iter().take(SHOWN).map(T::to_string).collect();
    if items.len() > SHOWN {
        words.push(format!("{} more", items.len() - SHOWN));
    }
    words.join(", ")
}

/// As `sysctl` takes it: with dots, unless there is a dot in it already.
pub(crate) fn sysctl_name(key: &str) -> String {
    if key.contains('.') { key.to_owned() } else { key.replace('/', ".") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_shown_as_commands() {
        let shown = |setting: Setting| setting.to_string();
        let sysctl = |key: &str| Setting::Sysctl { key: key.into(), value: "1".into() };
        assert_eq!(
            shown(sysctl("net/ipv4/conf/eth0/arp_ignore")),
            "sysctl -w net.ipv4.conf.eth0.arp_ignore=1"
        );
        let dotted = "net/ipv4/conf/eth0.100/arp_ignore";
        assert_eq!(shown(sysctl(dotted)), "sysctl -w net/ipv4/conf/eth0.100/arp_ignore=1");
        let address =
            |address: &str| Setting::Address { device: "lo".into(), address: address.parse().unwrap() };
        assert_eq!(shown(address("192.0.2.10")), "ip addr add 192.0.2.10/32 dev lo");
        assert_eq!(shown(address("2001:db8::10")), "ip addr add 2001:db8::10/128 dev lo nodad");
        let route =
            Setting::Route { to: "0.0.0.0/0".parse().unwrap(), gateway: "10.0.0.254".parse().unwrap() };
        assert_eq!(shown(route), "ip route replace 0.0.0.0/0 via 10.0.0.254");
    }

    #[test]
    fn a_place_is_the_same_whatever_is_to_be_there() {
        let sysctl = |value: &str| Setting::Sysctl { key: "a".into(), value: value.into() };
        assert!(sysctl("1").is_place_of(&sysctl("2")));
        assert!(!sysctl("1").is_place_of(&Setting::LinkUp { device: "a".into() }));
        assert!(
            sysctl("1").holds(&Found::Value("1".into())) && !sysctl("1").holds(&Found::Value("2".into()))
        );
    }
}
