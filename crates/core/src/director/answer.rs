//! An ICMP error instead of the packet, and what else sending can come to.

use super::flow::Flow;
use crate::env::Env;
use crate::family::Family;
use crate::forward::Hindrance;
use crate::icmp::Complaint;
use crate::packet::Packet;
use crate::verdict::{DropReason, PassReason, Verdict};

/// An ICMP error instead of the packet.
pub struct Answer<A> {
    /// What it says.
    pub complaint: Complaint,
    /// As whom the director speaks.
    pub source: A,
    /// What counts when the error may not be sent.
    pub otherwise: DropReason,
}

/// What a packet that cannot be sent on gets instead.
#[inline(always)]
pub fn hindered<A>(hindrance: Hindrance, source: A) -> Result<Verdict, Answer<A>> {
    let (complaint, otherwise) = match hindrance {
        Hindrance::Drop(reason) => return Ok(Verdict::Drop(reason)),
        Hindrance::MayBeCut { .. } => return Ok(Verdict::Drop(DropReason::TooBig)),
        Hindrance::TtlExceeded => (Complaint::TTL_EXCEEDED, DropReason::TtlExceeded),
        Hindrance::TooBig { mtu } => (Complaint::too_big(mtu), DropReason::TooBig),
    };
    Err(Answer { complaint, source, otherwise })
}

/// Answers with an ICMP error, or drops the packet where that is not allowed.
#[inline(always)]
pub fn answer<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, F, K>,
    with: &Answer<F::Addr>,
) -> Verdict {
    if is_answered(packet, env, flow, with) {
        Verdict::Answer { ifindex: env.ingress() }
    } else {
        Verdict::Drop(with.otherwise)
    }
}

/// Turns the packet into the answer, if that is allowed. A function with a stack frame of its own: what it needs is not
/// needed while connections are looked up, and 512 bytes must do for all that is.
#[inline(never)]
fn is_answered<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_, F, K>,
    with: &Answer<F::Addr>,
) -> bool {
    let Some(counters) = env.counters() else { return false };
    // Towards a server whose next hop never was known the director has no address.
    if with.source == F::NOWHERE {
        return false;
    }
    counters.may_send_icmp(flow.now)
        && F::answer(packet, env, with.complaint, with.source, flow.net.len).is_some()
}

/// What sending came to, in one register.
pub struct Sent;

impl Sent {
    const KIND: u32 = 32;

    /// Packs it.
    #[inline(always)]
    pub fn pack(sent: Result<Verdict, Hindrance>) -> u64 {
        let (kind, value) = match sent {
            Ok(Verdict::Pass(reason)) => (0, reason as u32),
            Ok(Verdict::Drop(reason)) | Err(Hindrance::Drop(reason)) => (1, reason as u32),
            Ok(Verdict::Transmit { ifindex }) => (2, ifindex),
            Ok(Verdict::Redirect { ifindex }) => (3, ifindex),
            Ok(Verdict::Answer { ifindex }) => (4, ifindex),
            Err(Hindrance::TtlExceeded) => (5, 0),
            Err(Hindrance::TooBig { mtu }) => (6, mtu as u32),
            Ok(Verdict::Cut { ifindex }) => (7, ifindex),
            Ok(Verdict::Local { ifindex }) => (8, ifindex),
            // Neither comes from sending: what may be cut is sent, and fragments are put together before.
            Err(Hindrance::MayBeCut { .. }) | Ok(Verdict::PutTogether { .. }) => {
                (1, DropReason::Broken as u32)
            }
        };
        (kind as u64) << Self::KIND | value as u64
    }

    /// Unpacks it.
    #[inline(always)]
    pub fn unpack(packed: u64) -> Result<Verdict, Hindrance> {
        let value = packed as u32;
        match (packed >> Self::KIND) as u8 {
            0 => PassReason::from_u8(value as u8).map(Verdict::Pass).ok_or(DropReason::Broken.into()),
            1 => Err(DropReason::from_u8(value as u8).unwrap_or(DropReason::Broken).into()),
            2 => Ok(Verdict::Transmit { ifindex: value }),
            3 => Ok(Verdict::Redirect { ifindex: value }),
            4 => Ok(Verdict::Answer { ifindex: value }),
            5 => Err(Hindrance::TtlExceeded),
            7 => Ok(Verdict::Cut { ifindex: value }),
            8 => Ok(Verdict::Local { ifindex: value }),
            _ => Err(Hindrance::TooBig { mtu: value as u16 }),
        }
    }
}
