//! Headers as they lie on the wire: byte arrays with accessors, so that neither alignment nor byte order can slip.
//!
//! A [`Header`] view is only handed out after its length was checked; no accessor can fail.

use core::mem::offset_of;

use crate::checksum::Sum;
use crate::unaligned::{load16_at, load32_at, load64, store16_at, store32_at, store64, store64_at};

/// Marks a type that any bytes may be read as.
///
/// # Safety
/// The type is `repr(C)`, has alignment 1 and no padding, and every bit pattern is a value of it.
pub unsafe trait Header: Copy {}

macro_rules! header {
    ($name:ident, $len:expr) => {
        // SAFETY: `repr(C)` of byte arrays and bytes only; the size is asserted below.
        unsafe impl Header for $name {}
        const _: () = assert!(size_of::<$name>() == $len && align_of::<$name>() == 1);
        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;
        }
    };
}

/// Ethernet II.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Ethernet {
    /// Destination MAC.
    pub dst: [u8; 6],
    /// Source MAC.
    pub src: [u8; 6],
    /// EtherType, network order.
    pub kind: [u8; 2],
}
header!(Ethernet, 14);

/// EtherTypes, host order.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// 802.1Q tag.
    pub const VLAN: u16 = 0x8100;
    /// 802.1ad tag.
    pub const QINQ: u16 = 0x88a8;
}

impl Ethernet {
    /// Is it for a group of hosts, or all of them?
    #[inline(always)]
    pub const fn is_to_group(&self) -> bool {
        self.dst[0] & 1 != 0
    }

    /// EtherType in host order.
    #[inline(always)]
    pub fn ethertype(&self) -> u16 {
        u16::from_be(load16_at::<{ offset_of!(Self, kind) }, _>(self))
    }

    /// Writes all of it in three instructions. The addresses are the first six bytes of each word, as it lies in memory, and what follows
    /// them is written over by the next; the EtherType is in host order.
    #[inline(always)]
    pub fn fill(&mut self, dst: u64, src: u64, ethertype: u16) {
        store64_at::<{ offset_of!(Self, dst) }, _>(self, dst);
        store64_at::<{ offset_of!(Self, src) }, _>(self, src);
        store16_at::<{ offset_of!(Self, kind) }, _>(self, ethertype.to_be());
    }
}

/// 802.1Q or 802.1ad tag, after the EtherType that announced it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Vlan {
    /// Priority and identifier, network order.
    pub tci: [u8; 2],
    /// EtherType of what follows, network order.
    pub kind: [u8; 2],
}
header!(Vlan, 4);

/// IPv4 without options (RFC 791).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Ipv4 {
    /// Version (4) and header length in 32-bit words.
    pub version_ihl: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// Length of the packet, network order.
    pub total_len: [u8; 2],
    /// Identification.
    pub id: [u8; 2],
    /// Flags and fragment offset, network order.
    pub frag: [u8; 2],
    /// Time to live.
    pub ttl: u8,
    /// Transport protocol.
    pub protocol: u8,
    /// Header checksum.
    pub checksum: [u8; 2],
    /// Source address.
    pub src: [u8; 4],
    /// Destination address.
    pub dst: [u8; 4],
}
header!(Ipv4, 20);

impl Ipv4 {
    /// "Don't fragment" in [`Ipv4::frag`], host order.
    pub const DF: u16 = 0x4000;
    /// "More fragments" and the offset in [`Ipv4::frag`], host order: non-zero in every fragment.
    pub const FRAGMENT: u16 = 0x3fff;

    /// The offset in [`Ipv4::frag`], host order: non-zero in every fragment but the first.
    pub const OFFSET: u16 = 0x1fff;

    /// Header length in bytes, 0 to 60.
    #[inline(always)]
    pub fn header_len(&self) -> usize {
        ((self.version_ihl & 0x0f) as usize) << 2
    }

    /// Packet length in bytes.
    #[inline(always)]
    pub fn packet_len(&self) -> u16 {
        u16::from_be(load16_at::<{ offset_of!(Self, total_len) }, _>(self))
    }

    /// Is "don't fragment" set?
    #[inline(always)]
    pub fn dont_fragment(&self) -> bool {
        load16_at::<{ offset_of!(Self, frag) }, _>(self) & Self::DF.to_be() != 0
    }

    /// Is it a fragment (the first one included)?
    #[inline(always)]
    pub fn is_fragment(&self) -> bool {
        load16_at::<{ offset_of!(Self, frag) }, _>(self) & Self::FRAGMENT.to_be() != 0
    }

    /// The header in pieces of four bytes.
    #[inline(always)]
    pub fn words(&self) -> &[[u8; 4]; 5] {
        const _: () = assert!(Ipv4::LEN == size_of::<[[u8; 4]; 5]>());
        // SAFETY: both have the same size and an alignment of 1, and any bytes are a value of both.
        unsafe { &*(&raw const *self).cast() }
    }
}

/// The beginning of a frame that carries IPv4, read as one header: where something lies is then told from where the frame begins, and need
/// not be added up first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct FrameV4 {
    /// Ethernet.
    pub eth: Ethernet,
    /// IPv4.
    pub ip: Ipv4,
}
header!(FrameV4, 34);

impl FrameV4 {
    /// [`Ipv4::packet_len`].
    #[inline(always)]
    pub fn packet_len(&self) -> u16 {
        u16::from_be(load16_at::<{ offset_of!(Self, ip.total_len) }, _>(self))
    }

    /// [`Ipv4::is_fragment`].
    #[inline(always)]
    pub fn is_fragment(&self) -> bool {
        load16_at::<{ offset_of!(Self, ip.frag) }, _>(self) & Ipv4::FRAGMENT.to_be() != 0
    }

    /// [`Ipv4::dont_fragment`].
    #[inline(always)]
    pub fn dont_fragment(&self) -> bool {
        load16_at::<{ offset_of!(Self, ip.frag) }, _>(self) & Ipv4::DF.to_be() != 0
    }

    /// Source and destination address.
    #[inline(always)]
    pub fn addresses(&self) -> [[u8; 4]; 2] {
        let src = load32_at::<{ offset_of!(Self, ip.src) }, _>(self);
        let dst = load32_at::<{ offset_of!(Self, ip.dst) }, _>(self);
        [src.to_ne_bytes(), dst.to_ne_bytes()]
    }

    /// The sum over the IPv4 header, without its options.
    #[inline(always)]
    pub fn header_sum(&self) -> Sum {
        const AT: usize = offset_of!(FrameV4, ip);
        [
            load32_at::<{ AT }, _>(self),
            load32_at::<{ AT + 4 }, _>(self),
            load32_at::<{ AT + 8 }, _>(self),
            load32_at::<{ AT + 12 }, _>(self),
            load32_at::<{ AT + 16 }, _>(self),
        ]
        .into_iter()
        .fold(Sum::ZERO, |sum, word| sum.add32(word.to_ne_bytes()))
    }

    /// Writes the IPv4 header, in pieces of four bytes.
    #[inline(always)]
    pub fn fill_ip(&mut self, words: &[[u8; 4]; 5]) {
        const AT: usize = offset_of!(FrameV4, ip);
        let [a, b, c, d, e] = words.map(u32::from_ne_bytes);
        store32_at::<{ AT }, _>(self, a);
        store32_at::<{ AT + 4 }, _>(self, b);
        store32_at::<{ AT + 8 }, _>(self, c);
        store32_at::<{ AT + 12 }, _>(self, d);
        store32_at::<{ AT + 16 }, _>(self, e);
    }

    /// Lowers the time to live, which is not 0, by one, and fits the checksum (RFC 1624): as the time to live is the first of its two bytes, the
    /// checksum becomes more by one there, with the carry taken around, and 0 where it would be ffff. Both lie in one word.
    #[inline(always)]
    pub fn lower_ttl(&mut self) {
        const _: () = assert!(cfg!(target_endian = "little"), "the checksum is the higher half of its word");
        const AT: usize = offset_of!(FrameV4, ip.ttl);
        let word = load32_at::<{ AT }, _>(self) as u64 + 0xffff;
        let carry = (word + 0x1_0000) >> 32;
        store32_at::<{ AT }, _>(self, (word + (carry << 16)) as u32);
    }
}

/// An IPv6 address in a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct RawV6 {
    first: [u8; 8],
    second: [u8; 8],
}

impl RawV6 {
    /// The address.
    #[inline(always)]
    pub fn get(&self) -> AddrV6 {
        AddrV6([load64(&self.first), load64(&self.second)])
    }

    /// Puts an address there.
    #[inline(always)]
    pub fn set(&mut self, addr: AddrV6) {
        store64(&mut self.first, addr.0[0]);
        store64(&mut self.second, addr.0[1]);
    }
}

/// An IPv6 address to reckon with: its bytes as on the wire, in two words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct AddrV6(pub [u64; 2]);

impl AddrV6 {
    /// The address of these bytes.
    #[inline(always)]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        let whole = u128::from_ne_bytes(bytes);
        Self([whole as u64, (whole >> 64) as u64])
    }

    /// An IPv4 address as one of IPv6 (RFC 4291, 2.5.5.2).
    #[inline(always)]
    pub const fn mapped(addr: [u8; 4]) -> Self {
        let [a, b, c, d] = addr;
        Self::from_bytes([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
    }

    /// Its bytes.
    #[inline(always)]
    pub const fn bytes(self) -> [u8; 16] {
        (self.0[0] as u128 | (self.0[1] as u128) << 64).to_ne_bytes()
    }

    /// As LVS hashes it: the XOR of its four words, in host order.
    #[inline(always)]
    pub const fn folded(self) -> u32 {
        let both = self.0[0] ^ self.0[1];
        u32::from_be(both as u32 ^ (both >> 32) as u32)
    }

    /// Its four words, as on the wire.
    #[inline(always)]
    pub const fn words(self) -> [u32; 4] {
        let [first, second] = self.0;
        [first as u32, (first >> 32) as u32, second as u32, (second >> 32) as u32]
    }
}

impl From<[u8; 16]> for AddrV6 {
    fn from(bytes: [u8; 16]) -> Self {
        Self::from_bytes(bytes)
    }
}

/// IPv6 (RFC 8200).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Ipv6 {
    /// Version, traffic class, flow label.
    pub version_class_flow: [u8; 4],
    /// Length after this header, network order.
    pub payload_len: [u8; 2],
    /// Next header.
    pub next: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub src: RawV6,
    /// Destination address.
    pub dst: RawV6,
}
header!(Ipv6, 40);

impl Ipv6 {
    /// Traffic class: DSCP and ECN.
    #[inline(always)]
    pub fn class(&self) -> u8 {
        self.version_class_flow[0] << 4 | self.version_class_flow[1] >> 4
    }

    /// Makes a header of it, without a flow label.
    #[inline(always)]
    pub fn fill(
        &mut self,
        class: u8,
        payload_len: [u8; 2],
        next: u8,
        hop_limit: u8,
        src: AddrV6,
        dst: AddrV6,
    ) {
        self.version_class_flow = [0x60 | class >> 4, class << 4, 0, 0];
        (self.payload_len, self.next, self.hop_limit) = (payload_len, next, hop_limit);
        self.src.set(src);
        self.dst.set(dst);
    }

    /// Length of the whole packet.
    #[inline(always)]
    pub fn packet_len(&self) -> u16 {
        (Self::LEN as u16).wrapping_add(u16::from_be_bytes(self.payload_len))
    }
}

/// The beginning of an IPv6 extension header (RFC 8200), which is all of a fragment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Extension {
    /// What follows it.
    pub next: u8,
    /// Its length in units of 8 bytes, not counting the first; nothing in a fragment header.
    pub len: u8,
    /// The rest of the first 8 bytes.
    pub rest: [u8; 6],
}
header!(Extension, 8);

/// TCP without options (RFC 9293).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Tcp {
    /// Source port.
    pub src: [u8; 2],
    /// Destination port.
    pub dst: [u8; 2],
    /// Sequence number.
    pub seq: [u8; 4],
    /// Acknowledgement number.
    pub ack: [u8; 4],
    /// Data offset in the upper four bits.
    pub offset: u8,
    /// CWR ECE URG ACK PSH RST SYN FIN.
    pub flags: u8,
    /// Window.
    pub window: [u8; 2],
    /// Checksum.
    pub checksum: [u8; 2],
    /// Urgent pointer.
    pub urgent: [u8; 2],
}
header!(Tcp, 20);

impl Tcp {
    /// The header's length in bytes, options included.
    #[inline(always)]
    pub fn header_len(&self) -> usize {
        (self.offset >> 4) as usize * 4
    }
}

/// Bits of [`Tcp::flags`].
pub mod tcp_flag {
    /// FIN
    pub const FIN: u8 = 0x01;
    /// SYN
    pub const SYN: u8 = 0x02;
    /// RST
    pub const RST: u8 = 0x04;
    /// ACK
    pub const ACK: u8 = 0x10;
}

/// UDP (RFC 768).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Udp {
    /// Source port.
    pub src: [u8; 2],
    /// Destination port.
    pub dst: [u8; 2],
    /// Length of header and data.
    pub len: [u8; 2],
    /// Checksum; 0 = none.
    pub checksum: [u8; 2],
}
header!(Udp, 8);

/// SCTP's common header (RFC 9260).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Sctp {
    /// Source port.
    pub src: [u8; 2],
    /// Destination port.
    pub dst: [u8; 2],
    /// Verification tag.
    pub tag: [u8; 4],
    /// CRC32c, little end first.
    pub checksum: [u8; 4],
}
header!(Sctp, 12);

/// The head of an SCTP chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Chunk {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its length with this head, without what fills it up; network order.
    pub len: [u8; 2],
}
header!(Chunk, 4);

/// A byte of anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Byte(pub u8);
header!(Byte, 1);

/// GRE without options (RFC 2784).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Gre {
    /// C bit, reserved bits and version.
    pub flags: [u8; 2],
    /// The payload's ethertype.
    pub kind: [u8; 2],
}
header!(Gre, 4);

/// GRE with a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct GreSum {
    /// C bit, reserved bits and version.
    pub flags: [u8; 2],
    /// The payload's ethertype.
    pub kind: [u8; 2],
    /// Over header and payload.
    pub checksum: [u8; 2],
    /// Nothing.
    pub reserved: [u8; 2],
}
header!(GreSum, 8);

/// GUE, version 0 without options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Gue {
    /// Version, control bit and length of options.
    pub control: u8,
    /// The payload's IP protocol.
    pub protocol: u8,
    /// Which options there are.
    pub flags: [u8; 2],
}
header!(Gue, 4);

/// ICMP's first eight bytes (RFC 792).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Checksum.
    pub checksum: [u8; 2],
    /// What the type says; for "too big" the last two bytes are the MTU.
    pub rest: [u8; 4],
}
header!(Icmp, 8);

/// IP protocol numbers.
pub mod ip_protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP
    pub const ICMP: u8 = 1;
    /// IPv4 in something.
    pub const IPIP: u8 = 4;
    /// TCP
    pub const TCP: u8 = 6;
    /// UDP
    pub const UDP: u8 = 17;
    /// IPv6 in something.
    pub const IPV6: u8 = 41;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// GRE
    pub const GRE: u8 = 47;
    /// IPsec's encrypted payload.
    pub const ESP: u8 = 50;
    /// IPsec's authentication header.
    pub const AH: u8 = 51;
    /// ICMPv6
    pub const ICMPV6: u8 = 58;
    /// SCTP
    pub const SCTP: u8 = 132;
    /// IPv6 destination options.
    pub const DESTINATION: u8 = 60;

    /// Is it IPsec?
    #[inline(always)]
    pub const fn is_ipsec(protocol: u8) -> bool {
        matches!(protocol, ESP | AH)
    }

    /// Do its headers begin with two ports?
    #[inline(always)]
    pub const fn has_ports(protocol: u8) -> bool {
        matches!(protocol, TCP | UDP | SCTP)
    }

    /// Is it an IPv6 extension header that is walked?
    #[inline(always)]
    pub const fn is_extension(protocol: u8) -> bool {
        matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION)
    }
}

/// Four bytes as one word in memory order: for sums and comparisons, where byte order does not matter.
#[inline(always)]
pub const fn word(bytes: [u8; 4]) -> u32 {
    u32::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::Update;

    #[test]
    fn a_time_to_live_less_by_one_is_what_the_rfc_says() {
        let (dst, src) = ([1; 6], [2; 6]);
        for (field, ttl) in (0..=u16::MAX).zip((1..=u8::MAX).cycle()) {
            let checksum = field.to_ne_bytes();
            let ip = Ipv4 {
                version_ihl: 0x45,
                tos: 0xff,
                total_len: [0xff; 2],
                id: [0xff; 2],
                frag: [0xff; 2],
                ttl,
                protocol: ttl ^ 0x55,
                checksum,
                src: [0xff; 4],
                dst: [0xff; 4],
            };
            let mut frame = FrameV4 { eth: Ethernet { dst, src, kind: [8, 0] }, ip };
            frame.lower_ttl();
            let lowered =
                Ipv4 { ttl: ttl - 1, checksum: Update::NONE.first_less_one().apply(checksum), ..ip };
            assert_eq!(frame.ip, lowered);
        }
    }
}
