//! Where the frames were recorded: a director between two ends that answer nothing by themselves.
//!
//! ```text
//! c0 (clients and a router) ── l0  director  l1 ── s0 (servers and a router)
//! ```

use std::path::Path;

use anyhow::Result;

use crate::edge::Edge;
use crate::netns::Netns;
use crate::plot::Plot;

/// MAC of c0, which frames of the client come from.
pub const C0: &str = "02:00:00:00:00:01";
/// MAC of l0.
pub const L0: &str = "02:00:00:00:00:fe";
/// MAC of l1.
pub const L1: &str = "02:00:00:00:01:fe";
/// MAC of s0, which frames of the first server come from.
pub const S0: &str = "02:00:00:00:02:01";

/// MTU of both links, unless a fixture says otherwise.
pub const MTU: u16 = 1500;

/// The director's addresses, as lines of the `ip` tool. The VIPs are 10.0.0.100 and fd00::100.
pub const ADDRESSES: [&str; 6] = [
    "addr add 10.0.0.254/24 dev l0",
    "addr add 10.0.0.100/32 dev l0",
    "addr add 10.1.0.254/24 dev l1",
    "addr add fd00::fe/64 dev l0 nodad",
    "addr add fd00::100/128 dev l0 nodad",
    "addr add fd01::fe/64 dev l1 nodad",
];

/// Everybody's MAC: a client and a router on the one side, a router and three servers on the other.
pub const NEIGHBOURS: [&str; 12] = [
    "neigh replace 10.0.0.1 lladdr 02:00:00:00:00:01 dev l0 nud permanent",
    "neigh replace 10.0.0.2 lladdr 02:00:00:00:00:02 dev l0 nud permanent",
    "neigh replace 10.1.0.1 lladdr 02:00:00:00:01:01 dev l1 nud permanent",
    "neigh replace 10.1.0.11 lladdr 02:00:00:00:02:01 dev l1 nud permanent",
    "neigh replace 10.1.0.12 lladdr 02:00:00:00:02:02 dev l1 nud permanent",
    "neigh replace 10.1.0.13 lladdr 02:00:00:00:02:03 dev l1 nud permanent",
    "neigh replace fd00::1 lladdr 02:00:00:00:00:01 dev l0 nud permanent",
    "neigh replace fd00::2 lladdr 02:00:00:00:00:02 dev l0 nud permanent",
    "neigh replace fd01::1 lladdr 02:00:00:00:01:01 dev l1 nud permanent",
    "neigh replace fd01::11 lladdr 02:00:00:00:02:01 dev l1 nud permanent",
    "neigh replace fd01::12 lladdr 02:00:00:00:02:02 dev l1 nud permanent",
    "neigh replace fd01::13 lladdr 02:00:00:00:02:03 dev l1 nud permanent",
];

/// The ways to what lies behind the routers.
pub const ROUTES: [&str; 4] = [
    "route replace 198.51.100.0/24 via 10.0.0.2",
    "route replace 2001:db8:1::/48 via fd00::2",
    "route replace 192.0.2.0/24 via 10.1.0.1",
    "route replace 2001:db8:2::/48 via fd01::1",
];

/// Seconds that fragments wait for the rest of their packet. It was shortened so for the recordings of fragments.
pub const REASSEMBLY_S: u64 = 1;

/// The director's interfaces.
pub(super) const INTERFACES: [&str; 2] = ["l0", "l1"];

/// Two ends, and the director between them, in namespaces of their own. Dropping it removes everything.
// Fields are dropped in this order: whatever is attached to a device before its namespace.
pub(super) struct Site {
    edge: Edge,
    /// Where c0 is.
    pub client: Netns,
    /// Where s0 is.
    pub server: Netns,
    /// Where the director is.
    pub director: Netns,
    plot: Plot,
}

impl Site {
    /// Lays it out.
    pub fn lay_out() -> Result<Self> {
        let plot = Plot::claim()?;
        let edge = Edge::load()?;
        let (client, server, director) = (plot.netns("cl")?, plot.netns("sv")?, plot.netns("lb")?);
        let mut site = Self { edge, client, server, director, plot };
        // Nothing at the ends answers by itself.
        for end in [&site.client, &site.server] {
            end.sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
            end.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        }
        for (name, value) in OF_THE_DIRECTOR {
            site.director.sysctl(name, value)?;
        }
        site.connect("l0", L0, "c0", C0)?;
        site.connect("l1", L1, "s0", S0)?;
        site.edge.let_frames_in(&site.client, "c0")?;
        site.edge.let_frames_in(&site.server, "s0")?;
        site.restore()?;
        Ok(site)
    }

    /// A directory of its own.
    pub fn directory(&self) -> &Path {
        self.plot.directory()
    }

    /// Addresses, routes and links are as they were laid out, and no path MTU is remembered: those that the kernel has
    /// learned go with the addresses.
    pub fn restore(&self) -> Result<()> {
        for device in INTERFACES {
            self.director.ip(&[
                format!("link set {device} mtu {MTU}"),
                format!("addr flush dev {device} scope global"),
            ])?;
        }
        for family in ["-4", "-6"] {
            self.director.ip_if_there(family, &format!("rule del lookup {OWN_TABLE}"))?;
            self.director.ip_if_there(family, &format!("route flush table {OWN_TABLE}"))?;
        }
        self.director.ip(&[&ADDRESSES[..], &NEIGHBOURS, &ROUTES].concat())
    }

    fn connect(&self, device: &str, mac: &str, far: &str, far_mac: &str) -> Result<()> {
        let end = if far == "c0" { &self.client } else { &self.server };
        self.director.ip(&[format!(
            "link add {device} address {mac} type veth peer name {far} netns {} address {far_mac}",
            end.name()
        )])?;
        for (host, device) in [(&self.director, device), (end, far)] {
            // XDP cannot see checksums and segments that are left to the device.
            host.ethtool(device, "tx off rx off gso off gro off tso off sg off")?;
            host.ip(&[format!("link set {device} up")])?;
        }
        Ok(())
    }
}

/// The routing table that fixtures make.
const OWN_TABLE: u32 = 100;

/// Forwarding on, redirects and limits of ICMP's rate off, fragments' time short.
const OF_THE_DIRECTOR: [(&str, &str); 15] = [
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv6.conf.all.forwarding", "1"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv4.conf.all.send_redirects", "0"),
    ("net.ipv4.conf.default.send_redirects", "0"),
    ("net.ipv4.icmp_ratelimit", "0"),
    ("net.ipv6.icmp.ratelimit", "0"),
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.default.router_solicitations", "0"),
    ("net.ipv6.conf.all.accept_ra", "0"),
    ("net.ipv6.conf.default.accept_ra", "0"),
    ("net.ipv4.ipfrag_time", "1"),
    ("net.ipv6.ip6frag_time", "1"),
];
