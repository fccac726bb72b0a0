//! ICMP errors that the director itself sends (RFC 792, RFC 1812 4.3.2.3).

use crate::checksum::{Sum, ipv4_header_sum};
use crate::env::{Env, Step};
use crate::packet::Packet;
use crate::parse::{L3, Word};
use crate::wire::{Ethernet, Icmp, Ipv4, ip_protocol};

/// What an ICMP error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complaint {
    /// No server: 3/3.
    PortUnreachable,
    /// Time to live exhausted: 11/0.
    TtlExceeded,
    /// Too big and not to be fragmented: 3/4.
    TooBig {
        /// What the way takes.
        mtu: u16,
    },
}

impl Complaint {
    #[inline(always)]
    const fn header(self) -> Icmp {
        let (kind, code, mtu) = match self {
            Self::PortUnreachable => (3, 3, 0),
            Self::TtlExceeded => (11, 0, 0),
            Self::TooBig { mtu } => (3, 4, mtu),
        };
        let mtu = mtu.to_be_bytes();
        Icmp { kind, code, checksum: [0, 0], rest: [0, 0, mtu[0], mtu[1]] }
    }
}

/// An error is at most this long (RFC 1812, 4.3.2.3: as much of the packet as fits into 576 bytes).
const LONGEST: usize = 576;
/// The headers that come before the quoted packet.
const HEADERS: usize = Ipv4::LEN + Icmp::LEN;
/// So much of the packet is quoted at the most.
const QUOTED: usize = LONGEST - HEADERS;

/// What an answer is made from.
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    /// What it says.
    pub complaint: Complaint,
    /// As whom the director speaks.
    pub source: [u8; 4],
    /// Layer-3 length of the packet that is complained about.
    pub length: u16,
    /// Identification of the answer.
    pub id: [u8; 2],
}

/// Turns an IPv4 packet into the ICMP error about it, back to the frame's sender.
///
/// `None`: the packet cannot be answered and is as undefined as its frame.
#[inline(always)]
pub fn answer_v4<P: Packet, E: Env>(packet: &mut P, env: &E, reply: &Reply) -> Option<()> {
    let length = reply.length;
    let quoted = if (length as usize) < QUOTED { length as usize } else { QUOTED };
    let surplus = packet.len().checked_sub(L3 + quoted)?;
    if surplus > 0 && !packet.trim_tail(surplus) {
        return None;
    }
    let eth = *packet.header::<Ethernet>(0)?;
    let asked = *packet.header::<Ipv4>(L3)?;
    if !packet.grow_head(HEADERS) {
        return None;
    }
    *packet.header_mut::<Ethernet>(0)? = Ethernet { dst: eth.src, src: eth.dst, kind: eth.kind };
    let total = (HEADERS + quoted) as u16;
    let mut ip = Ipv4 {
        version_ihl: 0x45,
        // The kernel answers with the packet's type of service and the precedence of network control (icmp.c).
        tos: (asked.tos & 0x1e) | 0xc0,
        total_len: total.to_be_bytes(),
        id: reply.id,
        frag: [0, 0],
        ttl: 64,
        protocol: ip_protocol::ICMP,
        checksum: [0, 0],
        src: reply.source,
        dst: asked.src,
    };
    ip.checksum = ipv4_header_sum(&ip).checksum();
    *packet.header_mut::<Ipv4>(L3)? = ip;
    let mut icmp = reply.complaint.header();
    let head = Sum::ZERO.add16([icmp.kind, icmp.code]).add32(icmp.rest);
    icmp.checksum = sum_of(packet, env, quoted, head)?.checksum();
    *packet.header_mut::<Icmp>(L3 + Ipv4::LEN)? = icmp;
    Some(())
}

/// One byte of anything.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Byte(u8);
// SAFETY: a byte.
unsafe impl crate::wire::Header for Byte {}

/// Adds the quoted packet, which begins behind the answer's headers.
#[inline(always)]
fn sum_of<P: Packet, E: Env>(packet: &P, env: &E, length: usize, start: Sum) -> Option<Sum> {
    let words = (length / 4) as u32;
    let mut adding = Adding { packet, sum: start };
    env.repeat(words, &mut adding);
    let sum = adding.sum;
    let mut tail = [0u8; 4];
    for i in 0..3 {
        if i < length % 4 && words <= MOST_WORDS {
            tail[i] = packet.header::<Byte>(L3 + HEADERS + words as usize * 4 + i)?.0;
        }
    }
    Some(sum.add32(tail))
}

/// Words in the longest quotation.
const MOST_WORDS: u32 = (QUOTED / 4) as u32;

struct Adding<'p, P> {
    packet: &'p P,
    sum: Sum,
}

impl<P: Packet> Step for Adding<'_, P> {
    #[inline(always)]
    fn turn(&mut self, i: u32) -> bool {
        if i >= MOST_WORDS {
            return false;
        }
        let Some(word) = self.packet.header::<Word>(L3 + HEADERS + i as usize * 4) else { return false };
        self.sum = self.sum.add32(word.0);
        true
    }
}
