//! What the director's own stack sends: the egress of the interfaces that the director is attached to, at tc's hook whatever its own.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use xlvs_core::director;
use xlvs_core::env::Env;
use xlvs_core::verdict::Verdict;

use crate::env::KernelEnv;
use crate::hook::{self, Action, WholePacket};
use crate::skb::pull_headers;

/// Sees answers of servers that are the director itself.
#[classifier]
pub fn xlvs_outgoing(ctx: TcContext) -> Action {
    let ctx = ctx.skb.skb;
    let env = KernelEnv::new(ctx);
    let mut packet = WholePacket::new(ctx);
    if is_forwarded(ctx) || !director::may_answer(&packet, &env) || is_seen_by_its_device(ctx, &env) {
        return hook::PASS;
    }
    pull_headers(ctx);
    match director::outgoing(&mut packet, &env) {
        Verdict::Drop(_) => hook::DROP,
        _ => hook::PASS,
    }
}

/// Did it come in by an interface? Then the director has seen it there.
#[inline(always)]
fn is_forwarded(ctx: *mut __sk_buff) -> bool {
    // SAFETY: the kernel hands a valid context to the entry point.
    unsafe { (*ctx).ingress_ifindex != 0 }
}

/// Is it a VLAN device's, and the director attached to that itself? At the XDP hook it knows the devices above an interface, at tc's it
/// is attached to them.
#[inline(always)]
fn is_seen_by_its_device(ctx: *mut __sk_buff, env: &KernelEnv) -> bool {
    // SAFETY: the kernel hands a valid context to the entry point.
    let has_tag = unsafe { (*ctx).vlan_present != 0 };
    has_tag && env.config().is_none_or(|config| config.vlan_devices.load() == 0)
}
