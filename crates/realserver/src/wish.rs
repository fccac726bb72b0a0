//! What an operator wants a host to be.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::setting::shown;

/// How packets reach this server, and how its answers leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// They are for its own address, and the answers go back through the director.
    Nat,
    /// They are for the VIP, on the server's own network.
    Dr,
    /// They are for the VIP, inside others that are for the server.
    Tun,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nat => "nat",
            Self::Dr => "dr",
            Self::Tun => "tun",
        })
    }
}

/// Who takes tunnels' packets apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TunnelEnd {
    /// Our XDP program: IP in IP, GRE and GUE, for the VIPs only, and from named directors only if there are any.
    #[default]
    Xdp,
    /// The kernel's devices, those that are there of `tunl0`, `ip6tnl0` and `gre0`: from everybody, for every address of the host.
    Kernel,
}

/// UDP port of GUE unless told: the one that IANA has for it.
pub const GUE_PORT: u16 = 6080;

/// See the module. A wish is kept in the state file, so it says everything that [`crate::plan()`] needs besides the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// At least one; a server may have several directors that reach it in different ways.
    pub modes: BTreeSet<Mode>,
    /// VIPs of DR and TUN.
    pub vips: BTreeSet<IpAddr>,
    /// Where packets come in; none is every Ethernet interface with an address.
    pub interfaces: Vec<String>,
    /// Who may send tunnels' packets; none is everybody.
    pub directors: Vec<IpNet>,
    /// UDP port of GUE; 0 is none.
    pub gue_port: u16,
    /// Who takes tunnels' packets apart.
    pub tunnel_end: TunnelEnd,
    /// The director's address on this network, one a family: where NAT's answers go.
    pub gateways: Vec<IpAddr>,
    /// Clients that NAT's answers go to; none is everybody (the default route).
    pub clients: Vec<IpNet>,
}

impl Wish {
    /// A wish with every default.
    pub fn new(modes: impl IntoIterator<Item = Mode>, vips: impl IntoIterator<Item = IpAddr>) -> Self {
        Self {
            modes: modes.into_iter().collect(),
            vips: vips.into_iter().collect(),
            interfaces: Vec::new(),
            directors: Vec::new(),
            gue_port: GUE_PORT,
            tunnel_end: TunnelEnd::Xdp,
            gateways: Vec::new(),
            clients: Vec::new(),
        }
    }

    /// The same as arguments of `xlvs rs up`.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--mode".to_owned(), joined(&self.modes)];
        let mut option = |name: &str, value: String| {
            if !value.is_empty() {
                arguments.extend([name.to_owned(), value]);
            }
        };
        option("--vip", joined(&self.vips));
        option("--interface", joined(&self.interfaces));
        option("--director", joined(self.directors.iter().map(shown)));
        option("--gateway", joined(&self.gateways));
        option("--clients", joined(self.clients.iter().map(shown)));
        if self.gue_port != GUE_PORT {
            option("--gue-port", self.gue_port.to_string());
        }
        if self.tunnel_end == TunnelEnd::Kernel {
            option("--tunnel-end", "kernel".to_owned());
        }
        arguments
    }

    /// Does the server have the VIPs itself?
    pub fn has_vips(&self) -> bool {
        self.modes.contains(&Mode::Dr) || self.modes.contains(&Mode::Tun)
    }
}

fn joined<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}
