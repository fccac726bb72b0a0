//! What the fate of a packet depends on besides its bytes.
//!
//! In the kernel these are maps and helpers, on the host a struct of vectors. Every method is one look-up; there is no
//! policy behind this trait.

use crate::config::Config;
use crate::conn::key::V4;
use crate::conn::table::Memory;
use crate::conn::word::Tick;
use crate::persist;
use crate::sched::affinity::{self, Set};
use crate::sched::choices::Choices;
use crate::sched::{self, Choice, Question};
use crate::server::Server;
use crate::service::{Block, Service};
use crate::stats::{Counters, Stats};

/// The surroundings of a packet.
pub trait Env {
    /// Memory of an IPv4 table.
    type TableV4: Memory<V4>;

    /// IPv4 connections by client tuple.
    fn conns_v4(&self) -> &Self::TableV4;
    /// Backlinks of NAT connections, by the reply's tuple.
    fn replies_v4(&self) -> &Self::RepliesV4;
    /// Service ids by address, port and protocol.
    fn services_v4(&self) -> &Self::ServicesV4;
    /// Memory of the reply table.
    type RepliesV4: Memory<V4>;
    /// Memory of the service table.
    type ServicesV4: Memory<V4>;
    /// Memory of the destination caches.
    type Affinity: Memory<{ affinity::KEY }>;

    /// The destination caches of all lblc and lblcr services.
    fn affinity(&self) -> &Self::Affinity;
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
    /// Does [`persist::find_v4`]; likewise.
    #[inline(always)]
    fn find_template_v4(&self, asked: &persist::Asked) -> persist::Outcome
    where
        Self: Sized,
    {
        persist::find_v4(self, asked)
    }
    /// A line of a scheduler's table.
    fn choices(&self, line: u32) -> Option<&Choices>;

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
    fn route_v4(&self, query: &RouteV4) -> Route;
    /// Asks the daemon to resolve the next hop towards this address.
    fn want_neighbour_v4(&self, addr: [u8; 4]);
    /// Calls `step` for 0, 1, 2, … `n` − 1 while it returns `true`.
    fn repeat<S: Step>(&self, n: u32, step: &mut S);
}

/// A loop's body that the kernel can call back.
pub trait Step {
    /// One turn; `false` ends the loop.
    fn turn(&mut self, i: u32) -> bool;
}

/// What a route is asked for.
#[derive(Clone, Copy, Debug)]
pub struct RouteV4 {
    /// Source address.
    pub src: [u8; 4],
    /// Destination address.
    pub dst: [u8; 4],
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
