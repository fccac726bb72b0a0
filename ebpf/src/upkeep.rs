//! What the daemon and tests run with `BPF_PROG_TEST_RUN`; never attached. But for frames, the "packet" is a list of numbers.

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_PASS};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use xlvs_core::carried::Carried;
use xlvs_core::conn::word::Word;
use xlvs_core::env::{Env, Step};
use xlvs_core::expire;
use xlvs_core::packet::Packet;
use xlvs_core::sched::affinity::{self, Round};
use xlvs_core::sched::{self, Question};
use xlvs_core::wire::Header;

use crate::env::KernelEnv;
use crate::packet::XdpPacket;

/// Gives a frame to the stack: for fragments of packets that are none of ours. Run by the daemon with `BPF_PROG_TEST_RUN`, on live
/// frames; never attached.
#[xdp]
pub fn xlvs_give_back(_ctx: XdpContext) -> u32 {
    XDP_PASS
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
    let mut sweep = Sweep { env: &env, removed: Carried::new(0) };
    env.repeat(count, &mut sweep);
    sweep.removed.get()
}

/// Slots in one run of [`xlvs_sweep`] at the most.
const SWEEP_MOST: u32 = 1000;

struct Sweep<'e> {
    env: &'e KernelEnv,
    removed: Carried<u32>,
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
        let removed = expire::sweep_numbered(self.env, config, slot, now);
        self.removed.set(self.removed.get().wrapping_add(removed as u32));
        true
    }
}

/// The same for entries that must go before their time: each slot is followed by the entry's word as the daemon saw it, low
/// half first, and an entry that is another by now stays.
#[xdp]
pub fn xlvs_evict(ctx: XdpContext) -> u32 {
    let env = KernelEnv::new(ctx.ctx);
    let Some(count) = XdpPacket::new(ctx.ctx).header::<Le32>(0).map(Le32::get) else { return XDP_ABORTED };
    let mut evict = Evict { env: &env, removed: Carried::new(0) };
    env.repeat(count, &mut evict);
    evict.removed.get()
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
    removed: Carried<u32>,
}

impl Step for Evict<'_> {
    #[inline(always)]
    fn turn(&mut self, i: u32) -> bool {
        if i >= EVICT_MOST {
            return false;
        }
        let packet = XdpPacket::new(self.env.ctx());
        let Some(doomed) = packet.header::<Doomed>(4 + size_of::<Doomed>() * i as usize) else {
            return false;
        };
        let (slot, seen) = (doomed.slot.get(), doomed.low.get() as u64 | (doomed.high.get() as u64) << 32);
        let Some(config) = self.env.config() else { return false };
        let removed = expire::evict_numbered(self.env, config, slot, Word(seen));
        self.removed.set(self.removed.get().wrapping_add(removed as u32));
        true
    }
}

/// What [`xlvs_pick`] returns when no server is usable.
const NOBODY: u32 = u32::MAX;

/// Asks a service's scheduler for a server, as a packet would: with the same effect on its turns and caches.
///
/// The numbers: the service's id; client and destination address, the first byte on the wire highest; client port. Returns the
/// server's id.
#[xdp]
pub fn xlvs_pick(ctx: XdpContext) -> u32 {
    let env = KernelEnv::new(ctx.ctx);
    pick(&env, &XdpPacket::new(ctx.ctx)).unwrap_or(NOBODY)
}

#[inline(always)]
fn pick(env: &KernelEnv, numbers: &XdpPacket) -> Option<u32> {
    let [service, client, dest, port] =
        [0, 4, 8, 12].map(|at| numbers.header::<Le32>(at).map_or(0, Le32::get));
    let question =
        Question::v4(service, client.to_be_bytes(), (port as u16).to_be_bytes(), dest.to_be_bytes());
    sched::pick(env, &question)
}

/// A part of a round of housekeeping in the destination caches of lblc and lblcr.
///
/// The numbers: the first slot, how many, and 1 for a full round. Returns how many entries were removed.
#[xdp]
pub fn xlvs_collect(ctx: XdpContext) -> u32 {
    let env = KernelEnv::new(ctx.ctx);
    let numbers = XdpPacket::new(ctx.ctx);
    let (Some(first), Some(slots), Some(full)) =
        (numbers.header::<Le32>(0), numbers.header::<Le32>(4), numbers.header::<Le32>(8))
    else {
        return XDP_ABORTED;
    };
    let round = if full.get() != 0 { Round::Full } else { Round::Partial };
    affinity::collect(&env, first.get(), slots.get(), round)
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
