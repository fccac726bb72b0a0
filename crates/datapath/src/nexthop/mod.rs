//! Next hops of real servers: how the director's kernel would reach each of them, kept fresh.
//!
//! XDP forwards to a server with a finished Ethernet header that lies in the server's record, so there
//! is no routing look-up a packet. This module makes those headers. It asks the kernel for the route to
//! each server, has the neighbour behind that route kept resolved, follows links, neighbours, routes,
//! rules and addresses over rtnetlink, and says whenever an answer changes.
//!
//! It is not a routing table: it never adds a route or an address. The only thing it changes in the
//! kernel are neighbour entries, and never one an operator has set (`neighbours.rs` says how).
//!
//! - [`Resolver`] decides; it is a state machine without sockets or clocks ([`Event`] in, [`Effects`] out).
//! - [`run`] is the thin driver: one netlink socket, one timer.
//! - [`lookup`] asks about one way, for who wants to know it now and not from now on.
//!
//! # What is promised
//! - A target has no event until the first answer about it is known; afterwards, one event a change.
//! - A neighbour whose confirmation is being renewed (stale, delay, probe) keeps its address, as in the
//!   kernel. One that is being looked for again (incomplete, or its entry was flushed) keeps the last known
//!   address until the kernel declares it *failed*; the kernel would queue a few packets in that time,
//!   which XDP cannot, and dropping would be worse than trying. An entry that vanished and does not come
//!   back counts as unknown after ten seconds.
//! - A path MTU that the director's packets show ([`Event::PathMtu`]) is believed for ten minutes, as in the kernel.
//! - Path MTUs that the kernel learns have no notification: they are seen at the next full look, at most
//!   half a minute later.
//!
//! ```no_run
//! # use xlvs_datapath::nexthop::{self, Change, Command, News, Target};
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let (commands, commands_rx) = tokio::sync::mpsc::channel(16);
//! let (events_tx, mut events) = tokio::sync::mpsc::unbounded_channel();
//! // The socket is opened here, in this thread's network namespace.
//! tokio::spawn(nexthop::run(commands_rx, events_tx)?);
//!
//! let server = Target { id: 7, addr: "10.1.0.11".parse()? };
//! commands.send(Command::Targets(Change::Add(vec![server]))).await?;
//! while let Some(news) = events.recv().await {
//!     if let News::NextHop(next_hop) = news {
//!         println!("servers {:?}: {:?}", next_hop.ids, next_hop.state);
//!     }
//! }
//! # Ok(()) }
//! ```

mod describe;
mod driver;
mod lookup;
mod mirror;
mod neighbours;
mod path_mtus;
mod resolver;
mod resync;
mod routes;
mod targets;
mod vlans;
mod wire;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use self::{
    describe::colons,
    driver::{Command, Error, run},
    lookup::{Arrival, Question, lookup, neighbour},
    neighbours::{Neighbour, NeighbourKey, Nud},
    resolver::{Effects, Event, Link, Request, Resolver, Upkeep},
    resync::Dump,
    routes::{Prefix, Route},
    vlans::{Above, VlanDevice},
};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// A real server whose next hop is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The caller's number of the server; events name it.
    pub id: u32,
    /// The server's address (RIP).
    pub addr: IpAddr,
}

/// A change of the set of targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// These, and no others. Targets that were there before are not asked about again.
    Set(Vec<Target>),
    /// These as well; a target whose id is known already is replaced.
    Add(Vec<Target>),
    /// Not these ids any more.
    Remove(Vec<u32>),
}

/// Something that the data plane must know from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// There are these VLAN devices, and no others.
    Devices(Vec<VlanDevice>),
    /// How some servers are reached.
    NextHop(NextHop),
}

/// How some servers are reached from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextHop {
    /// Address of the servers.
    pub addr: IpAddr,
    /// The servers this is news for.
    pub ids: Vec<u32>,
    /// What holds now.
    pub state: State,
}

/// Whether a server can be sent to, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Frames can be sent.
    Resolved {
        /// Interface to send on.
        ifindex: u32,
        /// That interface's own Ethernet address.
        source_mac: Mac,
        /// The neighbour's Ethernet address: the server's, or the gateway's.
        dest_mac: Mac,
        /// Largest IP packet: the smallest of the route's MTU, the interface's, and what a router said of the way.
        mtu: u32,
        /// Address the kernel would send from (a tunnel's outer source). Unspecified if it has none.
        source: IpAddr,
    },
    /// Frames cannot be sent.
    Unresolved {
        /// Why.
        reason: Reason,
    },
}

/// Why there is no next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The routing tables do not lead there.
    #[error("there is no route to it; add one with `ip route add`")]
    NoRoute,
    /// A route of type unreachable, prohibit or blackhole covers the address.
    #[error("a route forbids it (unreachable, prohibit or blackhole); see `ip route show table all`")]
    Blocked,
    /// Broadcast, multicast or anycast.
    #[error("it is a broadcast, multicast or anycast address; a server needs an address of its own")]
    NotAHost,
    /// The route wraps packets (MPLS, SRv6, ...), which a plain Ethernet header would not do.
    #[error("its route adds an encapsulation; give the server a plain route")]
    Encapsulated,
    /// The kernel could not answer.
    #[error("the kernel's route look-up failed with error {errno}; it is asked again within 30 s")]
    LookUpFailed {
        /// The error number.
        errno: i32,
    },
    /// The address is one of the director's own.
    #[error("it is the director's own address")]
    Local,
    /// The interface is set down or has gone.
    #[error("interface {ifindex} is down; set it up with `ip link set up`")]
    InterfaceDown {
        /// Number of the interface.
        ifindex: u32,
    },
    /// The interface is up, but nothing is plugged in.
    #[error("interface {ifindex} has no carrier; look at the cable or the peer")]
    NoCarrier {
        /// Number of the interface.
        ifindex: u32,
    },
    /// A tunnel or another interface without Ethernet headers.
    #[error("interface {ifindex} is not an Ethernet interface, so XDP cannot send there")]
    NotEthernet {
        /// Number of the interface.
        ifindex: u32,
    },
    /// The neighbour has not answered yet.
    #[error("the neighbour is being looked for")]
    NeighbourPending,
    /// The neighbour does not answer.
    #[error("the neighbour does not answer; is it up, and on this network?")]
    NeighbourFailed,
}

/// The address that stands for "none" in `addr`'s family.
fn unspecified_like(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
