//! Entry points of the data plane. All policy is in `xlvs-core`; here a verdict becomes an XDP action.
#![no_std]
#![no_main]
// The packet end is read by the hand (`packet.rs`).
#![feature(asm_experimental_arch)]

mod env;
mod errands;
mod maps;
mod packet;
mod scheduling;
#[cfg(feature = "traced")]
mod trace;
#[cfg(not(feature = "traced"))]
#[path = "untraced.rs"]
mod trace;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::helpers::generated::bpf_redirect;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use xlvs_core::conn::key;
use xlvs_core::conn::word::Word;
use xlvs_core::env::{Env, Step};
use xlvs_core::errand::Kind;
use xlvs_core::packet::Packet;
use xlvs_core::trace::Note;
use xlvs_core::verdict::{DropReason, Verdict};
use xlvs_core::vlan;
use xlvs_core::wire::Header;
use xlvs_core::director::{self, Sent, Stage};
use xlvs_core::expire;
use xlvs_core::family;

use crate::env::KernelEnv;
use crate::packet::{AnyPacket, AskedPacket, ShortPacket, XdpPacket};

/// The director: attached to the interfaces that carry balanced traffic. IPv4 connections that go on as before are dealt with
/// here; the rest is that of the other stages.
#[xdp(frags)]
pub fn xlvs_director(ctx: XdpContext) -> u32 {
    trace::begin(ctx.ctx);
    let env = KernelEnv::new(ctx.ctx);
    let mut packet = ShortPacket::new(ctx.ctx);
    let outcome = director::first(&mut packet, &env);
    staged_at_once(&packet, outcome)
}

macro_rules! stages {
    ($family:ident, $words:expr, $reply:ident, $request:ident) => {
        /// Packets of this family from real servers and VIPs.
        #[xdp(frags)]
        pub fn $reply(ctx: XdpContext) -> u32 {
            let env = KernelEnv::new(ctx.ctx);
            let mut packet = AskedPacket::new(ctx.ctx);
            let outcome = director::reply::<family::$family, _, _, { $words }>(&mut packet, &env);
            staged(&packet, outcome)
        }

        /// Packets of this family to VIPs: new connections, ends of connections, answers.
        #[xdp(frags)]
        pub fn $request(ctx: XdpContext) -> u32 {
            let env = KernelEnv::new(ctx.ctx);
            let mut packet = AskedPacket::new(ctx.ctx);
            let verdict = director::request::<family::$family, _, _, { $words }>(&mut packet, &env);
            action(&packet, verdict)
        }
    };
}

stages!(V4, key::V4, xlvs_reply_v4, xlvs_request_v4);
stages!(V6, key::V6, xlvs_reply_v6, xlvs_request_v6);

/// IPv6 connections that go on as before.
#[xdp(frags)]
pub fn xlvs_known_v6(ctx: XdpContext) -> u32 {
    let env = KernelEnv::new(ctx.ctx);
    let mut packet = ShortPacket::new(ctx.ctx);
    let outcome = director::known::<family::V6, _, _, { key::V6 }>(&mut packet, &env);
    staged_at_once(&packet, outcome)
}

/// IPv4 ICMP.
#[xdp(frags)]
pub fn xlvs_related_v4(ctx: XdpContext) -> u32 {
    let env = KernelEnv::new(ctx.ctx);
    let mut packet = XdpPacket::new(ctx.ctx);
    let outcome = director::related_v4(&mut packet, &env);
    staged_without_errands(&packet, outcome)
}

/// IPv6 ICMP.
#[xdp(frags)]
pub fn xlvs_related_v6(ctx: XdpContext) -> u32 {
    let env = KernelEnv::new(ctx.ctx);
    let mut packet = XdpPacket::new(ctx.ctx);
    let outcome = director::related_v6(&mut packet, &env);
    staged_without_errands(&packet, outcome)
}

macro_rules! hearsay {
    ($name:ident, $family:ident, $words:expr) => {
        /// ICMP errors about connections of this family that another director has made.
        #[xdp(frags)]
        pub fn $name(ctx: XdpContext) -> u32 {
            let env = KernelEnv::new(ctx.ctx);
            let mut packet = AskedPacket::new(ctx.ctx);
            let outcome = director::hearsay::<family::$family, _, _, { $words }>(&mut packet, &env);
            staged_without_errands(&packet, outcome)
        }
    };
}

hearsay!(xlvs_hearsay_v4, V4, key::V4);
hearsay!(xlvs_hearsay_v6, V6, key::V6);

/// Fragments, and those of which the others did not come.
#[xdp(frags)]
pub fn xlvs_fragments(ctx: XdpContext) -> u32 {
    let env = KernelEnv::new(ctx.ctx);
    let mut packet = AskedPacket::new(ctx.ctx);
    let verdict = director::fragments(&mut packet, &env);
    action(&packet, verdict)
}

/// Frames with VLAN tags, and frames of several buffers.
#[xdp(frags)]
pub fn xlvs_unusual(ctx: XdpContext) -> u32 {
    let env = KernelEnv::new(ctx.ctx);
    let mut packet = XdpPacket::new(ctx.ctx);
    let outcome = director::unusual(&mut packet, &env);
    staged_without_errands(&packet, outcome)
}

/// Gives a frame to the stack: for fragments of packets that are none of ours. Run by the daemon with `BPF_PROG_TEST_RUN`, on live
/// frames; never attached.
#[xdp]
pub fn xlvs_give_back(_ctx: XdpContext) -> u32 {
    XDP_PASS
}

/// What the kernel is told of an outcome. The context is asked of the packet, which lies on the stack anyway.
#[inline(always)]
fn staged(packet: &AskedPacket, outcome: Result<Verdict, Stage>) -> u32 {
    match outcome {
        Ok(verdict) => action(packet, verdict),
        Err(stage) => next(packet, stage),
    }
}

/// [`staged`] where nothing is handed over to the daemon.
#[inline(always)]
fn staged_without_errands<const KIND: u8>(
    packet: &AnyPacket<KIND>,
    outcome: Result<Verdict, Stage>,
) -> u32 {
    match outcome {
        Ok(verdict) => dispatch(packet.ctx(), Sent::pack(Ok(verdict))),
        Err(stage) => next(packet, stage),
    }
}

/// [`staged`] on the short ways, which leave errands to the other stages, and frames that leave with VLAN tags, too.
#[inline(always)]
fn staged_at_once<const KIND: u8>(packet: &AnyPacket<KIND>, outcome: Result<Verdict, Stage>) -> u32 {
    match outcome {
        Ok(verdict) => action_at_once(packet.ctx(), verdict),
        Err(stage) => next(packet, stage),
    }
}

#[inline(always)]
fn next<const KIND: u8>(packet: &AnyPacket<KIND>, stage: Stage) -> u32 {
    // Only comes back when the daemon has not put the programs there, which it does before it attaches the director, or after
    // more stages than the kernel lets follow one another.
    trace::note(|| Note::Stage(stage));
    // SAFETY: the array holds XDP programs only; nothing of this frame is used after the call.
    let _missing = unsafe { maps::STAGES.tail_call(&XdpContext::new(packet.ctx()), stage as u32) };
    if let Some(arrival) = KernelEnv::new(packet.ctx()).arrival() {
        let _tags = arrival.take();
    }
    XDP_ABORTED
}

#[inline(always)]
fn action(packet: &AskedPacket, verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Cut { ifindex } => {
            trace::end(packet.ctx(), verdict);
            errands::hand_over(packet.ctx(), Kind::Cut as u32, ifindex)
        }
        Verdict::PutTogether { ifindex } => {
            trace::end(packet.ctx(), verdict);
            errands::hand_over(packet.ctx(), Kind::PutTogether as u32, ifindex)
        }
        verdict => dispatch(packet.ctx(), Sent::pack(Ok(verdict))),
    }
}

/// The frame gets the VLAN tags of its way, and leaves. In a function with a stack frame of its own.
#[inline(never)]
fn dispatch(ctx: *mut xdp_md, verdict: u64) -> u32 {
    let verdict = Sent::unpack(verdict).unwrap_or(Verdict::Drop(DropReason::Broken));
    action_at_once(ctx, vlan::dispatch(&mut XdpPacket::new(ctx), &KernelEnv::new(ctx), verdict))
}

#[inline(always)]
fn action_at_once(ctx: *mut xdp_md, verdict: Verdict) -> u32 {
    trace::end(ctx, verdict);
    match verdict {
        Verdict::Cut { .. } | Verdict::PutTogether { .. } => XDP_ABORTED,
        Verdict::Pass(_) => XDP_PASS,
        Verdict::Drop(_) => XDP_DROP,
        Verdict::Transmit { .. } | Verdict::Answer { .. } => XDP_TX,
        // SAFETY: the helper only reads its arguments.
        Verdict::Redirect { ifindex } => unsafe { bpf_redirect(ifindex, 0) as u32 },
    }
}

/// The clock, for the daemon: run with `BPF_PROG_TEST_RUN`, never attached. Returns the tick.
#[xdp]
pub fn xlvs_clock(ctx: XdpContext) -> u32 {
    KernelEnv::new(ctx.ctx).now().count()
}

/// The sweeper's hand: run by the daemon with `BPF_PROG_TEST_RUN`, never attached.
///
/// The "packet" is a list of 32-bit slot numbers ([`xlvs_core::family::slot_of`]), their count first, that the daemon saw expired. Here they are judged
/// again and removed, in the kernel, so that a daemon killed at any moment leaves no count half moved. Returns how
/// many were removed.
#[xdp]
pub fn xlvs_sweep(ctx: XdpContext) -> u32 {
    let env = KernelEnv::new(ctx.ctx);
    let Some(count) = XdpPacket::new(ctx.ctx).header::<Le32>(0).map(Le32::get) else { return XDP_ABORTED };
    let mut sweep = Sweep { env: &env, removed: 0 };
    env.repeat(count, &mut sweep);
    sweep.removed
}

/// Slots in one run of [`xlvs_sweep`] at the most.
const SWEEP_MOST: u32 = 1000;

struct Sweep<'e> {
    env: &'e KernelEnv,
    removed: u32,
}

impl Step for Sweep<'_> {
    #[inline(always)]
    fn turn(&mut self, i: u32) -> bool {
        if i >= SWEEP_MOST {
            return false;
        }
        let packet = XdpPacket::new(self.env.ctx());
        let Some(slot) = packet.header::<Le32>(4 + 4 * i as usize).map(Le32::get) else { return false };
        let Some(config) = self.env.config() else { return false };
        let now = self.env.now();
        self.removed += expire::sweep_numbered(self.env, config, slot, now) as u32;
        true
    }
}

/// The same for entries that must go before their time: each slot is followed by the entry's word as the daemon saw it, low
/// half first, and an entry that is another by now stays.
#[xdp]
pub fn xlvs_evict(ctx: XdpContext) -> u32 {
    let env = KernelEnv::new(ctx.ctx);
    let Some(count) = XdpPacket::new(ctx.ctx).header::<Le32>(0).map(Le32::get) else { return XDP_ABORTED };
    let mut evict = Evict { env: &env, removed: 0 };
    env.repeat(count, &mut evict);
    evict.removed
}

/// Entries in one run of [`xlvs_evict`] at the most.
const EVICT_MOST: u32 = 300;

/// An entry that must go, as it was seen.
#[derive(Clone, Copy)]
#[repr(C)]
struct Doomed {
    slot: Le32,
    low: Le32,
    high: Le32,
}
// SAFETY: twelve bytes, without gaps.
unsafe impl Header for Doomed {}

struct Evict<'e> {
    env: &'e KernelEnv,
    removed: u32,
}

impl Step for Evict<'_> {
    #[inline(always)]
    fn turn(&mut self, i: u32) -> bool {
        if i >= EVICT_MOST {
            return false;
        }
        let packet = XdpPacket::new(self.env.ctx());
        let Some(doomed) = packet.header::<Doomed>(4 + size_of::<Doomed>() * i as usize) else { return false };
        let (slot, seen) = (doomed.slot.get(), doomed.low.get() as u64 | (doomed.high.get() as u64) << 32);
        let Some(config) = self.env.config() else { return false };
        self.removed += expire::evict_numbered(self.env, config, slot, Word(seen)) as u32;
        true
    }
}

/// A number as the daemon writes it into a list.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Le32([u8; 4]);
// SAFETY: an array of bytes.
unsafe impl Header for Le32 {}

impl Le32 {
    /// The number.
    #[inline(always)]
    pub fn get(&self) -> u32 {
        u32::from_le_bytes(self.0)
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // No path leads here: the build fails when the object names a panic.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
