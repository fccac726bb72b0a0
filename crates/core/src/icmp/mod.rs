//! ICMP errors: those that the director itself sends, and what others say of the packets that they are about.

pub mod quote;
pub mod v4;
pub mod v6;

/// What a client or server is told. A record and no enumeration: the compiler would leave the MTU of the others undefined, and
/// the verifier refuses to carry what was never written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// What is wrong.
    pub what: What,
    /// What the way takes, if that is what is wrong.
    pub mtu: u16,
}

/// See [`Complaint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum What {
    /// Nobody serves this port.
    PortUnreachable,
    /// Time to live exceeded in transit.
    TtlExceeded,
    /// Fragments of the packet did not come in time.
    Incomplete,
    /// The packet is too big for the way to its server and must not be fragmented.
    TooBig,
}

impl Complaint {
    /// Nobody serves this port.
    pub const PORT_UNREACHABLE: Self = Self { what: What::PortUnreachable, mtu: 0 };
    /// Time to live exceeded in transit.
    pub const TTL_EXCEEDED: Self = Self { what: What::TtlExceeded, mtu: 0 };

    /// Fragments of the packet did not come in time.
    pub const INCOMPLETE: Self = Self { what: What::Incomplete, mtu: 0 };

    /// The packet is bigger than this.
    #[inline(always)]
    pub const fn too_big(mtu: u16) -> Self {
        Self { what: What::TooBig, mtu }
    }
}
