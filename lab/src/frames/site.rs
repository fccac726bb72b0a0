//! Where the frames were recorded: a director between two ends that answer nothing by themselves.
//!
//! ```text
//! c0 (clients and a router) ── l0  director  l1 ── s0 (servers and a router)
//! ```

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
