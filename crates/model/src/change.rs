//! One change that an operator asks for.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::marks::MarkRule;
use crate::spec::{ServerKey, ServerSpec, ServiceKey, ServiceSpec, Timeouts};
use crate::tunables::Tunable;

/// A change, as the original's kernel interface has them. Edits replace everything but the identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// `-A`
    AddService(ServiceSpec),
    /// `-E`
    EditService(ServiceSpec),
    /// `-D`
    DeleteService(ServiceKey),
    /// `-C`
    Flush,
    /// `-a`
    AddServer(ServiceKey, ServerSpec),
    /// `-e`
    EditServer(ServiceKey, ServerSpec),
    /// `-d`
    DeleteServer(ServiceKey, ServerKey),
    /// `--set`
    SetTimeouts(Timeouts),
    /// `-Z`, of one service or of everything
    Zero(Option<ServiceKey>),
    /// `xlvs tune`
    Tune(Tunable, u32),
    /// `xlvs mark add`
    AddMark(MarkRule),
    /// `xlvs mark delete`
    DeleteMark(MarkRule),
    /// `--start-daemon`
    StartSync(SyncDaemon),
    /// `--stop-daemon`
    StopSync(SyncRole),
}

/// The two roles of the connection synchronisation daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncRole {
    /// Sends.
    Master,
    /// Receives.
    Backup,
}

/// `--start-daemon` with its options.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncDaemon {
    /// Which one.
    pub role: SyncRole,
    /// Multicast interface.
    pub interface: String,
    /// 0 to 255.
    pub syncid: u8,
    /// Bytes, 0 = default.
    pub maxlen: u16,
    /// Multicast group, `None` = 224.0.0.81.
    pub group: Option<IpAddr>,
    /// UDP port, 0 = 8848.
    pub port: u16,
    /// TTL, 0 = 1.
    pub ttl: u8,
}

impl SyncDaemon {
    /// With the kernel's defaults in place of what was left out: an Ethernet's worth of UDP, 224.0.0.81, port 8848, TTL 1.
    pub fn with_defaults(&self) -> Self {
        let group = self.group.unwrap_or(IpAddr::V4(Ipv4Addr::new(224, 0, 0, 81)));
        let headers = if group.is_ipv4() { 28 } else { 48 };
        let default_to = |value, default| if value == 0 { default } else { value };
        // A backup has to take whatever a master may send it.
        let shortest = if self.role == SyncRole::Backup { 1024 } else { 1 };
        Self {
            maxlen: default_to(self.maxlen, 1500 - headers).clamp(shortest, u16::MAX - headers),
            group: Some(group),
            port: default_to(self.port, 8848),
            ttl: if self.ttl == 0 { 1 } else { self.ttl },
            ..self.clone()
        }
    }
}
