//! What the director shows: services, servers and connections with their counters.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::change::SyncDaemon;
use crate::spec::{ServerSpec, ServiceSpec};
use crate::state::Service;

/// Counters, in packets and in bytes of layer 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Connections scheduled.
    pub conns: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients that passed the director.
    pub out_packets: u64,
    /// Bytes from clients.
    pub in_bytes: u64,
    /// Bytes to clients that passed the director.
    pub out_bytes: u64,
}

/// What the estimator makes of [`Stats`], per second, read out as the kernel does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rates {
    /// Connections a second.
    pub cps: u64,
    /// Packets a second from clients.
    pub in_pps: u64,
    /// Packets a second to clients.
    pub out_pps: u64,
    /// Bytes a second from clients.
    pub in_bps: u64,
    /// Bytes a second to clients.
    pub out_bps: u64,
}

/// A server with what it carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerView {
    /// As specified.
    pub spec: ServerSpec,
    /// Active connections.
    pub active: u32,
    /// Inactive connections.
    pub inactive: u32,
    /// Persistence templates.
    pub persistent: u32,
    /// Its counters.
    pub stats: Stats,
    /// Its rates.
    pub rates: Rates,
}

/// A service with its servers, newest first as the kernel lists them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceView {
    /// As specified.
    pub spec: ServiceSpec,
    /// Its counters.
    pub stats: Stats,
    /// Its rates.
    pub rates: Rates,
    /// Newest first.
    pub servers: Vec<ServerView>,
}

impl From<&ServerSpec> for ServerView {
    /// A server that has carried nothing yet.
    fn from(spec: &ServerSpec) -> Self {
        Self {
            spec: *spec,
            active: 0,
            inactive: 0,
            persistent: 0,
            stats: Stats::default(),
            rates: Rates::default(),
        }
    }
}

impl From<&Service> for ServiceView {
    /// A service that has carried nothing yet.
    fn from(service: &Service) -> Self {
        Self {
            spec: service.spec.clone(),
            stats: Stats::default(),
            rates: Rates::default(),
            servers: service.servers.iter().rev().map(ServerView::from).collect(),
        }
    }
}

/// A connection entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnView {
    /// IP protocol number; 0 for a mark service's template.
    pub protocol: u8,
    /// Milliseconds until it expires.
    pub expires_ms: u64,
    /// LVS's word: `ESTABLISHED`, `UDP`, `ASSURED` …
    pub state: String,
    /// CIP and client port (templates: masked address, port 0).
    pub client: SocketAddr,
    /// VIP and port (a mark's template: the mark as an address).
    pub virt: SocketAddr,
    /// Destination.
    pub dest: SocketAddr,
    /// Persistence engine's name, if any.
    pub engine: Option<String>,
    /// Its data, printable.
    pub engine_data: Option<String>,
}

/// What the listing's head says of the director.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// `size=` of the listing's first line.
    pub table_size: u32,
    /// Running synchronisation daemons.
    pub daemons: Vec<SyncDaemon>,
}
