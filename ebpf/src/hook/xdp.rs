//! What the stages need of the XDP hook.

use core::ffi::c_void;

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX};
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_xdp_load_bytes};
use aya_ebpf::macros::map;
use aya_ebpf::maps::ProgramArray;
use aya_ebpf::programs::XdpContext;
use xlvs_core::director::Stage;

pub use crate::packet::{AnyPacket, AskedPacket, ShortPacket, XdpPacket as WholePacket, unknown};

/// What a program is called with.
pub type Context = xdp_md;
/// What it returns.
pub type Action = u32;

/// To the stack.
pub const PASS: Action = XDP_PASS;
/// Nowhere.
pub const DROP: Action = XDP_DROP;
/// Nowhere, for a reason that cannot be.
pub const BROKEN: Action = XDP_ABORTED;
/// What tells the daemon that asked about a packet that it has an answer.
pub const ANSWERED: Action = XDP_REDIRECT;

/// The programs of the stages after the first. Pinned because the kernel empties a program array when
/// nobody holds it but programs. Those that trace have an array of their own.
#[cfg_attr(not(feature = "traced"), map)]
#[cfg_attr(feature = "traced", map(name = "TRACED_STAGES"))]
static STAGES: ProgramArray = ProgramArray::pinned(Stage::COUNT, 0);

/// A program of a stage.
macro_rules! entry {
    ($(#[$doc:meta])* fn $name:ident($ctx:ident) $body:block) => {
        $(#[$doc])*
        #[aya_ebpf::macros::xdp(frags)]
        pub fn $name(ctx: aya_ebpf::programs::XdpContext) -> u32 {
            let $ctx = ctx.ctx;
            $body
        }
    };
}
pub(crate) use entry;

/// Is the director to look at it? At XDP, at everything.
#[inline(always)]
pub fn is_for_us(_ctx: *mut Context) -> bool {
    true
}

/// The interface that the frame came in by.
#[inline(always)]
pub fn ingress(ctx: *mut Context) -> u32 {
    // SAFETY: the kernel hands a valid context to the entry point.
    unsafe { (*ctx).ingress_ifindex }
}

/// The length by which the kernel is asked for a way; 0: any.
#[inline(always)]
pub fn asked_length(len: u16) -> u16 {
    len
}

/// Has this stage's program look at the frame, and ends this one. Comes back when there is none.
#[inline(always)]
pub fn go_on(ctx: *mut Context, stage: Stage) {
    // SAFETY: the array holds XDP programs only; nothing of this frame is used after the call.
    let _missing = unsafe { STAGES.tail_call(&XdpContext::new(ctx), stage as u32) };
}

/// To the stack, rewritten.
#[inline(always)]
pub fn deliver(_ctx: *mut Context) -> Action {
    XDP_PASS
}

/// Out of the interface that it came in by.
#[inline(always)]
pub fn send_back(_ctx: *mut Context) -> Action {
    XDP_TX
}

/// Out of this interface.
#[inline(always)]
pub fn send_by(_ctx: *mut Context, ifindex: u32) -> Action {
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
    unsafe { bpf_xdp_load_bytes(ctx, 0, to, len) }
}
