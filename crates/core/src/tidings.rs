//! What packets have the daemon know: a record of the ring `WANTED`.

use crate::wire::AddrV6;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Tidings {
    /// The address it is about; an IPv4 one mapped to IPv6 (RFC 4291, 2.5.5.2).
    pub addr: AddrV6,
    /// The MTU that was learned for the way to this server, in bytes. 0: the neighbour towards this client is wanted.
    pub mtu: u64,
}

impl Tidings {
    /// Its length in the ring, in bytes.
    pub const LEN: usize = size_of::<Self>();

    /// Reads a record of the ring.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (addr, mtu) = bytes.split_first_chunk::<16>()?;
        Some(Self { addr: AddrV6::from_bytes(*addr), mtu: u64::from_ne_bytes(*mtu.first_chunk()?) })
    }
}
