//! What the stages need of the tc hook: classifiers of an interface's ingress, which see socket buffers.

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{__sk_buff, BPF_F_INGRESS, TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::helpers::generated::{bpf_clone_redirect, bpf_redirect, bpf_skb_load_bytes, bpf_skb_vlan_pop};
use aya_ebpf::macros::{classifier, map};
use aya_ebpf::maps::ProgramArray;
use aya_ebpf::programs::TcContext;
use xlvs_core::director::Stage;

pub use crate::skb::{AnyPacket, AskedPacket, ShortPacket, WholePacket, unknown};

/// What a program is called with.
pub type Context = __sk_buff;
/// What it returns.
pub type Action = i32;

/// To the interface's other programs, and then to the stack: the director is one of several there.
pub const PASS: Action = TC_ACT_UNSPEC;
/// Nowhere.
pub const DROP: Action = TC_ACT_SHOT as Action;
/// Nowhere, for a reason that cannot be.
pub const BROKEN: Action = TC_ACT_SHOT as Action;
/// What tells the daemon that asked about a packet that it has an answer: it does not ask here.
pub const ANSWERED: Action = TC_ACT_REDIRECT as Action;

/// The programs of the stages after the first; see the XDP hook's.
#[cfg_attr(not(feature = "traced"), map)]
#[cfg_attr(feature = "traced", map(name = "TRACED_AT_TC"))]
static TC_STAGES: ProgramArray = ProgramArray::pinned(Stage::COUNT, 0);

/// A program of a stage.
macro_rules! entry {
    ($(#[$doc:meta])* fn $name:ident($ctx:ident) $body:block) => {
        $(#[$doc])*
        #[aya_ebpf::macros::classifier]
        pub fn $name(ctx: aya_ebpf::programs::TcContext) -> i32 {
            let $ctx = ctx.skb.skb;
            crate::skb::pull_headers($ctx);
            $body
        }
    };
}
pub(crate) use entry;

/// Is the director to look at it? A frame with a VLAN tag comes again by its VLAN device, without the tag.
#[inline(always)]
pub fn is_for_us(ctx: *mut Context) -> bool {
    // SAFETY: the kernel hands a valid context to the entry point. Read anew each time, since the helper changes it.
    let has_tag = || unsafe { (*ctx).vlan_present } != 0;
    if !has_tag() {
        return true;
    }
    // A tag with the identifier 0 only has a priority.
    // SAFETY: the context is valid.
    unsafe { (*ctx).vlan_tci & 0xfff == 0 && bpf_skb_vlan_pop(ctx) == 0 && !has_tag() }
}

/// The interface that the frame came in by.
#[inline(always)]
pub fn ingress(ctx: *mut Context) -> u32 {
    // SAFETY: the kernel hands a valid context to the entry point.
    unsafe { (*ctx).ifindex }
}

/// The length by which the kernel is asked for a way. Of length 0 it would judge the socket buffer's.
#[inline(always)]
pub fn asked_length(len: u16) -> u16 {
    if len == 0 { 1 } else { len }
}

/// Has this stage's program look at the frame, and ends this one. Comes back when there is none.
#[inline(always)]
pub fn go_on(ctx: *mut Context, stage: Stage) {
    // SAFETY: the array holds classifiers only; nothing of this frame is used after the call.
    let _missing = unsafe { TC_STAGES.tail_call(&TcContext::new(ctx), stage as u32) };
}

/// To the stack, rewritten: what the card has summed is another packet.
#[inline(always)]
pub fn deliver(ctx: *mut Context) -> Action {
    crate::skb::forget_sum(ctx);
    PASS
}

/// Out of the interface that it came in by.
#[inline(always)]
pub fn send_back(ctx: *mut Context) -> Action {
    send_by(ctx, ingress(ctx))
}

/// Out of this interface.
#[inline(always)]
pub fn send_by(ctx: *mut Context, ifindex: u32) -> Action {
    crate::skb::forget_sum(ctx);
    // SAFETY: the helper only reads its arguments.
    unsafe { bpf_redirect(ifindex, 0) as Action }
}

/// Copies so many bytes of a frame from its beginning on; 0: done.
///
/// # Safety
/// There is room for them.
#[inline(always)]
pub unsafe fn copy(ctx: *mut Context, to: *mut c_void, len: u32) -> i64 {
    // SAFETY: the context is valid; the caller has the room, and the helper checks the length.
    unsafe { bpf_skb_load_bytes(ctx.cast::<c_void>(), 0, to, len) }
}

/// Gives a frame to the stack, as if it had just come in: for fragments of packets that are none of ours. Run by the daemon with
/// `BPF_PROG_TEST_RUN`; never attached.
#[classifier]
pub fn xlvs_give_back(ctx: TcContext) -> i32 {
    let skb = ctx.as_ptr().cast::<Context>();
    // SAFETY: the context is valid.
    let failed = unsafe { bpf_clone_redirect(skb, ingress(skb), BPF_F_INGRESS as u64) };
    if failed == 0 { DROP } else { PASS }
}
