//! How a packet reaches its real server (LVS: forwarding method).

/// Forwarding method of a server, with the kernel's numbers (`IP_VS_CONN_F_FWD_MASK`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Method {
    /// NAT, `-m`, listed as `Masq`.
    Masquerade = 0,
    /// The director itself is the real server.
    Local = 1,
    /// IP in IP, GUE or GRE, `-i`, listed as `Tunnel`.
    Tunnel = 2,
    /// Direct routing: only the MAC changes, `-g`, listed as `Route`.
    Direct = 3,
}

/// The number in the entry of a connection that has no server (`cache_bypass`): its packets go where they are addressed to.
pub const BYPASS: u8 = 4;

impl Method {
    /// The method with this number; `None` for numbers that no server has.
    #[inline(always)]
    pub const fn from_u8(n: u8) -> Option<Self> {
        match n {
            0 => Some(Self::Masquerade),
            1 => Some(Self::Local),
            2 => Some(Self::Tunnel),
            3 => Some(Self::Direct),
            _ => None,
        }
    }

    /// The word in `ipvsadm -L`'s Forward column.
    pub const fn listed(self) -> &'static str {
        match self {
            Self::Masquerade => "Masq",
            Self::Local => "Local",
            Self::Tunnel => "Tunnel",
            Self::Direct => "Route",
        }
    }
}

/// Encapsulation of a tunnelled server, with the kernel's numbers (`IP_VS_CONN_F_TUNNEL_TYPE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum TunnelType {
    /// IP in IP (RFC 2003).
    #[default]
    IpIp = 0,
    /// Generic UDP encapsulation.
    Gue = 1,
    /// Generic routing encapsulation (RFC 2784).
    Gre = 2,
}

/// Checksum option of a tunnel, with the kernel's numbers (`IP_VS_TUNNEL_ENCAP_FLAG_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum TunnelChecksum {
    /// None (`--tun-nocsum`).
    #[default]
    None = 0,
    /// Computed (`--tun-csum`).
    Full = 1,
    /// GUE's remote checksum offload (`--tun-remcsum`).
    Remote = 2,
}
