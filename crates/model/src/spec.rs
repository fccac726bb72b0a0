//! Services and servers as an operator specifies them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    Inet,
    /// IPv6.
    Inet6,
}

impl Family {
    /// The family of an address.
    pub fn of(addr: IpAddr) -> Self {
        if addr.is_ipv4() { Self::Inet } else { Self::Inet6 }
    }

    /// The netmask that tells every client from every other, in the unit of [`Persistence::netmask`].
    pub fn whole_netmask(self) -> u32 {
        match self {
            Self::Inet => u32::MAX,
            Self::Inet6 => 128,
        }
    }
}

/// Protocols, methods and schedulers are the core's; these mirrors give them a JSON form.
mod mirror {
    use serde::{Deserialize, Serialize};
    use xlvs_core::{method, protocol, sched};

    #[derive(Serialize, Deserialize)]
    #[serde(remote = "protocol::Protocol", rename_all = "lowercase")]
    pub enum Protocol {
        Tcp,
        Udp,
        Sctp,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(remote = "method::Method", rename_all = "lowercase")]
    pub enum Method {
        Masquerade,
        Local,
        Tunnel,
        Direct,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(remote = "method::TunnelType", rename_all = "lowercase")]
    pub enum TunnelType {
        IpIp,
        Gue,
        Gre,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(remote = "method::TunnelChecksum", rename_all = "lowercase")]
    pub enum TunnelChecksum {
        None,
        Full,
        Remote,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(remote = "sched::Scheduler", rename_all = "lowercase")]
    pub enum Scheduler {
        Wlc,
        Rr,
        Wrr,
        Lc,
        Lblc,
        Lblcr,
        Dh,
        Sh,
        Sed,
        Nq,
        Fo,
        Ovf,
        Mh,
        Twos,
        None,
    }
}

pub use xlvs_core::method::{Method, TunnelChecksum, TunnelType};
pub use xlvs_core::protocol::Protocol;
pub use xlvs_core::sched::Scheduler;

/// What identifies a virtual service: protocol, address and port, or a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceKey {
    /// `-t`, `-u` or `--sctp-service`.
    Address {
        /// Transport protocol.
        #[serde(with = "mirror::Protocol")]
        protocol: Protocol,
        /// VIP.
        addr: IpAddr,
        /// Host order; 0 = every port.
        port: u16,
    },
    /// `-f MARK`, with `-6` for IPv6.
    Mark {
        /// Never 0.
        mark: u32,
        /// Which family's packets it serves.
        family: Family,
    },
}

impl ServiceKey {
    /// The family of the service.
    pub fn family(&self) -> Family {
        match *self {
            Self::Address { addr, .. } => Family::of(addr),
            Self::Mark { family, .. } => family,
        }
    }
}

/// Persistence of a service (`-p`, `-M`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Persistence {
    /// Seconds, 1 to 2,678,400.
    pub timeout: u32,
    /// IPv4: the mask in host order; IPv6: the prefix length, 1 to 128. Clients equal under it share a server.
    pub netmask: u32,
}

/// The three scheduler flags (`-b`): `flag-1` is also `sh-fallback` and `mh-fallback`, `flag-2` `sh-port` and `mh-port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SchedFlags {
    /// `flag-1`.
    pub fallback: bool,
    /// `flag-2`.
    pub port: bool,
    /// `flag-3`.
    pub third: bool,
}

/// The largest TCP segment that the ends of a service's connections may say they take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mss {
    /// What fits into the way between the director and a server.
    Auto,
    /// So many bytes, [`Mss::RANGE`].
    Most(u16),
}

impl Mss {
    /// From what every host takes (RFC 9293, 3.7.1) to what fits into the longest IP packet.
    pub const RANGE: std::ops::RangeInclusive<u16> = 536..=65_495;
}

/// A virtual service as specified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Its identity.
    pub key: ServiceKey,
    /// Its scheduler.
    #[serde(with = "mirror::Scheduler")]
    pub scheduler: Scheduler,
    /// Its scheduler's flags.
    pub flags: SchedFlags,
    /// `None`: not persistent.
    pub persistence: Option<Persistence>,
    /// The mask given with `-M`, kept and listed also without `-p`, as the kernel keeps it. Same unit as
    /// [`Persistence::netmask`].
    pub netmask: u32,
    /// Persistence engine; only `sip` exists.
    pub engine: Option<String>,
    /// One-packet scheduling (`-o`).
    pub one_packet: bool,
    /// `None`: SYNs go on with what they say. ipvsadm has no word for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mss: Option<Mss>,
}

impl ServiceSpec {
    /// A service with this scheduler and every default: not persistent, one client address a client, no flags.
    pub fn new(key: ServiceKey, scheduler: Scheduler) -> Self {
        Self {
            key,
            scheduler,
            flags: SchedFlags::default(),
            persistence: None,
            netmask: key.family().whole_netmask(),
            engine: None,
            one_packet: false,
            mss: None,
        }
    }
}

/// How a tunnelled server's packets are wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tunnel {
    /// Encapsulation.
    #[serde(with = "mirror::TunnelType")]
    pub kind: TunnelType,
    /// UDP destination port of GUE, host order; else 0.
    pub port: u16,
    /// Checksum option.
    #[serde(with = "mirror::TunnelChecksum")]
    pub checksum: TunnelChecksum,
}

/// What identifies a real server inside its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServerKey {
    /// RIP.
    pub addr: IpAddr,
    /// Host order; 0 = the packet's port.
    pub port: u16,
}

impl ServerKey {
    /// The family of the server's address.
    pub fn family(&self) -> Family {
        Family::of(self.addr)
    }
}

/// A real server as specified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerSpec {
    /// Its identity.
    pub key: ServerKey,
    /// Forwarding method.
    #[serde(with = "mirror::Method")]
    pub method: Method,
    /// How it is tunnelled; ignored by other methods, but kept and listed.
    pub tunnel: Tunnel,
    /// 0 to 2^31-1; 0 = quiesced.
    pub weight: u32,
    /// Upper connection threshold (`-x`), 0 = off.
    pub upper: u32,
    /// Lower connection threshold (`-y`), 0 = automatic.
    pub lower: u32,
}

impl ServerSpec {
    /// A server with weight 1 and every default.
    pub fn new(key: ServerKey, method: Method) -> Self {
        Self { key, method, tunnel: Tunnel::default(), weight: 1, upper: 0, lower: 0 }
    }
}

/// The three timeouts that `--set` changes, in seconds; 0 in a change leaves one as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// TCP, established.
    pub tcp: u32,
    /// TCP after the first FIN.
    pub tcp_fin: u32,
    /// UDP.
    pub udp: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { tcp: 900, tcp_fin: 120, udp: 300 }
    }
}
