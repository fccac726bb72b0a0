//! What the fate of a packet depends on besides its bytes.
//!
//! In the kernel these are maps and helpers, on the host a struct of vectors. Every method is one look-up; there is no
//! policy behind this trait.

use crate::config::Config;
use crate::conn::key::{V4, V6};
use crate::conn::table::Memory;
use crate::conn::word::Tick;
use crate::family;
use crate::marks::Rule;
use crate::options::Progress;
use crate::persist;
use crate::sched::affinity::{self, Set};
use crate::sched::choices::Choices;
use crate::sched::{self, Choice, Question};
use crate::server::Server;
use crate::service::{Block, Service};
use crate::stats::{Counters, Stats};
use crate::trace::Note;
use crate::vlan::{Arrival, Device};
use crate::ways::Way;
use crate::wire::AddrV6;

/// The surroundings of a packet.
pub trait Env {
    /// The IPv4 connection table.
    type ConnsV4: Memory<V4>;
    /// The IPv4 reply table.
    type RepliesV4: Memory<V4>;
    /// The IPv4 service table.
    type ServicesV4: Memory<V4>;
    /// The IPv6 connection table.
    type ConnsV6: Memory<V6>;
    /// The IPv6 reply table.
    type RepliesV6: Memory<V6>;
    /// The IPv6 service table.
    type ServicesV6: Memory<V6>;

    /// IPv4 connections by client tuple.
    fn conns_v4(&self) -> &Self::ConnsV4;
    /// Backlinks of IPv4 NAT connections, by the reply's tuple.
    fn replies_v4(&self) -> &Self::RepliesV4;
    /// Ids of IPv4 services by address, port and protocol.
    fn services_v4(&self) -> &Self::ServicesV4;
    /// IPv6 connections by client tuple.
    fn conns_v6(&self) -> &Self::ConnsV6;
    /// Backlinks of IPv6 NAT connections, by the reply's tuple.
    fn replies_v6(&self) -> &Self::RepliesV6;
    /// Ids of IPv6 services by address, port and protocol.
    fn services_v6(&self) -> &Self::ServicesV6;

    /// Memory of the destination caches.
    type Affinity: Memory<{ affinity::KEY }>;

    /// The destination caches of all lblc and lblcr services.
    fn affinity(&self) -> &Self::Affinity;
    /// This processor's memory for the walk through a packet's options.
    fn options_progress(&self) -> Option<&Progress>;
    /// The further servers of the destination that lies in this slot of the caches.
    fn set(&self, slot: u32) -> Option<&Set>;
    /// Does [`sched::choose`]; in the kernel in a function that the verifier looks at by itself, once.
    #[inline(always)]
    fn choose(&self, question: &Question) -> Choice
    where
        Self: Sized,
    {
        sched::choose(self, question)
    }
    /// Does [`sched::remember`]; likewise.
    #[inline(always)]
    fn remember(&self, question: &Question, server: u32)
    where
        Self: Sized,
    {
        sched::remember(self, question, server);
    }
    /// Does [`persist::find`] for IPv4; likewise.
    #[inline(always)]
    fn find_template_v4(&self, asked: &persist::Asked<[u8; 4]>) -> persist::Outcome
    where
        Self: Sized,
    {
        persist::find::<family::V4, Self, V4>(self, asked)
    }
    /// Does [`persist::find`] for IPv6; likewise.
    #[inline(always)]
    fn find_template_v6(&self, asked: &persist::Asked<AddrV6>) -> persist::Outcome
    where
        Self: Sized,
    {
        persist::find::<family::V6, Self, V6>(self, asked)
    }
    /// A line of a scheduler's table.
    fn choices(&self, line: u32) -> Option<&Choices>;

    /// A rule of marks.
    fn mark_rule(&self, number: u32) -> Option<&Rule>;

    /// A VLAN device.
    fn vlan_device(&self, number: u32) -> Option<&Device>;
    /// This processor's memory of how the frame at hand came.
    fn arrival(&self) -> Option<&Arrival>;

    /// The configuration record.
    fn config(&self) -> Option<&Config>;
    /// A service's record.
    fn service(&self, id: u32) -> Option<&Service>;
    /// A block of servers.
    fn block(&self, id: u32) -> Option<&Block>;
    /// A server's record.
    fn server(&self, id: u32) -> Option<&Server>;
    /// This processor's counters of a statistics record.
    fn stats(&self, id: u32) -> Option<&Stats>;
    /// This processor's counters of the director.
    fn counters(&self) -> Option<&Counters>;

    /// The clock of connections.
    fn now(&self) -> Tick;
    /// The interface that the packet came in by.
    fn ingress(&self) -> u32;
    /// A random number.
    fn random(&self) -> u32;
    /// The way of an IPv4 packet between these addresses that the director forwards.
    fn route_v4(&self, query: &RouteQuery<[u8; 4]>) -> Route;
    /// This processor's memory of a way that was asked for; `None`: it remembers none.
    #[inline(always)]
    fn way(&self, _place: u32) -> Option<&Way> {
        None
    }
    /// [`Self::route_v4`] for IPv6.
    fn route_v6(&self, query: &RouteQuery<AddrV6>) -> Route;
    /// Would the director's own routes send an IPv4 packet that came by interface `ifindex` with this mark on, rather than call it
    /// the director's? `false` also where that cannot be told.
    fn leads_elsewhere_v4(&self, ifindex: u32, src: &[u8; 4], dst: &[u8; 4], mark: u32) -> bool;
    /// The same for IPv6.
    fn leads_elsewhere_v6(&self, ifindex: u32, src: &AddrV6, dst: &AddrV6, mark: u32) -> bool;
    /// Asks the daemon to resolve the next hop towards this address.
    fn want_neighbour_v4(&self, addr: [u8; 4]);
    /// The same for IPv6.
    fn want_neighbour_v6(&self, addr: AddrV6);
    /// Tells the daemon that a router on the way to this server's address takes packets of so many bytes at the most. An
    /// IPv4 address is mapped to IPv6.
    fn learned_path_mtu(&self, server: AddrV6, mtu: u16);
    /// The packet that is being decided about leaves in pieces of so many bytes at the most ([`crate::verdict::Verdict::Cut`]).
    fn cut_to(&self, bytes: u16);
    /// Tells whoever traces this packet of a step on its way. Only one edition of the programs does.
    #[inline(always)]
    fn note(&self, _note: impl FnOnce() -> Note) {}
    /// Calls `step` for 0, 1, 2, … `n` − 1 while it returns `true`.
    fn repeat<S: Step>(&self, n: u32, step: &mut S);
}

/// A loop's body that the kernel can call back. What a turn leaves to the next, or to who comes behind the loop, is
/// [`crate::carried::Carried`], or lies in a map.
pub trait Step {
    /// One turn; `false` ends the loop.
    fn turn(&mut self, i: u32) -> bool;
}

/// What a route is asked for.
#[derive(Clone, Copy, Debug)]
pub struct RouteQuery<A> {
    /// The interface by which the packet came in.
    pub ifindex: u32,
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// IP protocol.
    pub protocol: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// Packet length.
    pub len: u16,
}

/// A route's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Send it there.
    Via {
        /// Interface.
        ifindex: u32,
        /// Source MAC.
        from: [u8; 6],
        /// Destination MAC.
        to: [u8; 6],
    },
    /// The neighbour's MAC is not known.
    NoNeighbour,
    /// The packet is larger than the way takes.
    TooBig {
        /// What it takes.
        mtu: u16,
    },
    /// No way.
    None,
}
