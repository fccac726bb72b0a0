//! What can be wrong as seen from the director.

use std::net::IpAddr;

use thiserror::Error;
use xlvs_realserver::frames::Mac;

/// Something that is not as it should be, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Finding {
    /// Somebody else answers for a VIP.
    #[error("{} answers {} for the VIP {vip} on {device}: run `xlvs rs up` there", host(*mac, *server), question(*vip))]
    Foreign {
        /// The VIP.
        vip: IpAddr,
        /// Where it was asked for.
        device: String,
        /// Who answered.
        mac: Mac,
        /// The real server that has this MAC, if one does.
        server: Option<IpAddr>,
    },
    /// Nobody does.
    #[error(
        "nobody answers for the VIP {vip} on {device}, whose network it is of: `ip addr add {vip} dev {device}`"
    )]
    Unanswered {
        /// The VIP.
        vip: IpAddr,
        /// The device.
        device: String,
    },
    /// No route.
    #[error("{server}: there is no route to it; `ip route get {}` says the same: give this host one", server.ip())]
    NoWay {
        /// The server.
        server: At,
    },
    /// Direct routing through a router.
    #[error(
        "{server}: it is behind {gateway}, and direct routing needs it on a network of this host: use a tunnel (`-i`) or NAT (`-m`)"
    )]
    NotAdjacent {
        /// The server.
        server: At,
        /// The router.
        gateway: IpAddr,
    },
    /// No neighbour.
    #[error("{server}: it does not answer on {device}: is it up, and on this network?")]
    Unresolved {
        /// The server.
        server: At,
        /// The device.
        device: String,
    },
    /// NAT needs a router.
    #[error(
        "{server}: its answers by {device} are not routed on, as forwarding is off: `sysctl -w {parameter}=1`"
    )]
    NotForwarding {
        /// The server.
        server: At,
        /// The device.
        device: String,
        /// What turns it on.
        parameter: &'static str,
    },
    /// No service behind the server's port.
    #[error(
        "{server}: nothing listens there for {address}: start the service, or have it listen on all addresses"
    )]
    Refused {
        /// The server.
        server: At,
        /// The VIP, or NAT's own address.
        address: IpAddr,
    },
    /// No answer.
    #[error("{server}: {}; `xlvs rs verify` there says why", silence(*vip))]
    Silent {
        /// The server.
        server: At,
        /// The VIP; `None` for NAT.
        vip: Option<IpAddr>,
    },
    /// The tunnel costs bytes.
    #[error("{server}: the way takes {mtu} bytes and the tunnel costs {overhead}, so a client's packet of {full} that must not be fragmented is refused: give the way {} bytes, or the server a route with a smaller `advmss`", full + overhead)]
    Narrow {
        /// The server.
        server: At,
        /// What the way takes.
        mtu: u32,
        /// The tunnel's headers.
        overhead: u32,
        /// What clients send.
        full: u32,
    },
}

/// A server of a service, as it is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// The service.
    pub service: String,
    /// The server.
    pub server: std::net::SocketAddr,
}

impl At {
    fn ip(&self) -> IpAddr {
        self.server.ip()
    }
}

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.server, self.service)
    }
}

impl Finding {
    /// Does something not work? Else it works, with a cost.
    pub fn is_fault(&self) -> bool {
        !matches!(self, Self::Narrow { .. })
    }
}

fn host(mac: Mac, server: Option<IpAddr>) -> String {
    server.map_or_else(|| format!("the host with MAC {mac}"), |server| format!("the server {server} ({mac})"))
}

/// By what neighbours are asked for an address.
fn question(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ARP" } else { "neighbour discovery" }
}

fn silence(vip: Option<IpAddr>) -> String {
    match vip {
        Some(vip) => format!("what it is sent for the VIP {vip} is not answered"),
        None => "it does not answer".to_owned(),
    }
}
