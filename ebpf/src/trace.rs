//! Telling what becomes of packets ([`xlvs_core::trace`]): only in the edition of the programs that the daemon puts in place
//! while somebody watches. The other has `untraced.rs` instead.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_ns};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray, RingBuf};
use xlvs_core::cell::Cell64;
use xlvs_core::conn::table;
use xlvs_core::env::Env;
use xlvs_core::family::slot_of;
use xlvs_core::packet::Packet;
use xlvs_core::trace::{Filter, Note, ROOM, Record};
use xlvs_core::verdict::Verdict;

use crate::env::{ConnsV4, ConnsV6, KernelEnv};
use crate::hook::{self, Context, WholePacket, unknown};

#[map]
static TRACE: RingBuf = RingBuf::with_byte_size(1 << 20, 0);
#[map]
static TRACE_FILTER: Array<Filter> = Array::with_max_entries(1, crate::maps::MMAPABLE);
#[map]
static AT_HAND: PerCpuArray<AtHand> = PerCpuArray::with_max_entries(1, 0);

/// What this processor has at hand.
#[repr(C)]
struct AtHand {
    /// The packet that is told of, counted from 1; 0: this one is not.
    packet: Cell64,
    /// The interface that it came in by.
    ifindex: Cell64,
    /// Packets of the clients' so far.
    seen: Cell64,
}

#[inline(always)]
fn at_hand() -> Option<&'static AtHand> {
    // SAFETY: the element is this processor's, lives as long as the map, and consists of cells.
    AT_HAND.get_ptr(0).map(|p| unsafe { &*p })
}

#[inline(always)]
fn filter() -> Option<&'static Filter> {
    // SAFETY: the element lives as long as the map; it consists of cells, which may be shared.
    TRACE_FILTER.get_ptr(0).map(|p| unsafe { &*p })
}

/// A packet comes in: is it told of?
#[inline(never)]
pub fn begin(ctx: *mut Context) {
    let (Some(at_hand), Some(filter)) = (at_hand(), filter()) else { return };
    at_hand.packet.store(0);
    if !filter.takes(&WholePacket::new(ctx)) {
        return;
    }
    let seen = at_hand.seen.load() + 1;
    at_hand.seen.store(seen);
    if !seen.is_multiple_of(filter.every.load().max(1) as u64) {
        return;
    }
    at_hand.packet.store(seen);
    at_hand.ifindex.store(KernelEnv::new(ctx).ingress() as u64);
    let (kind, about) = Note::Arrived.pack();
    tell_with_frame(ctx, kind, about);
}

/// A step on the packet's way.
#[inline(always)]
pub fn note(note: impl FnOnce() -> Note) {
    let (kind, about) = note().pack();
    let _nothing = xlvs_note(kind as u64, about);
}

/// The packet's fate, as it leaves.
#[inline(always)]
pub fn end(ctx: *mut Context, verdict: Verdict) {
    let (kind, about) = Note::pack_fate(verdict);
    finish(ctx, kind, about);
}

#[inline(never)]
fn finish(ctx: *mut Context, kind: u32, about: u64) {
    let Some(at_hand) = at_hand() else { return };
    if at_hand.packet.load() != 0 {
        tell_with_frame(ctx, kind, about);
        at_hand.packet.store(0);
    }
}

/// A note without its frame, verified by itself. The number that it returns means nothing: such functions must return one.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn xlvs_note(kind: u64, about: u64) -> u64 {
    let Some(at_hand) = at_hand() else { return 0 };
    if at_hand.packet.load() == 0 {
        return 0;
    }
    let Some(mut room) = TRACE.reserve::<Record>(0) else {
        lost();
        return 0;
    };
    // SAFETY: the room is a record's.
    unsafe {
        fill(room.as_mut_ptr(), at_hand, kind as u32, about);
        (&raw mut (*room.as_mut_ptr()).word).write(Note::slot(kind as u32, about).map_or(0, word_in));
        (&raw mut (*room.as_mut_ptr()).len).write(0);
    }
    room.submit(0);
    0
}

#[inline(always)]
fn tell_with_frame(ctx: *mut Context, kind: u32, about: u64) {
    let Some(at_hand) = at_hand() else { return };
    let len = unknown(WholePacket::new(ctx).len());
    // Without the first byte, so that the verifier sees both bounds: up to Linux 6.7 it learns nothing from a comparison with zero.
    let rest = unknown(if len > ROOM { ROOM } else { len }.wrapping_sub(1));
    if rest >= ROOM {
        return;
    }
    let Some(mut room) = TRACE.reserve::<Record>(0) else { return lost() };
    // SAFETY: the room is a record's; of the frame so many bytes are written as there are, which are not more than `ROOM`.
    let copied = unsafe {
        let record = room.as_mut_ptr();
        fill(record, at_hand, kind, about);
        (&raw mut (*record).word).write(0);
        (&raw mut (*record).len).write(len as u32);
        hook::copy(ctx, (&raw mut (*record).frame).cast::<c_void>(), rest as u32 + 1)
    };
    if copied == 0 { room.submit(0) } else { room.discard(0) }
}

/// The word in a slot of either family's connection table.
#[inline(always)]
fn word_in(number: u32) -> u64 {
    let (is_v6, slot) = slot_of(number);
    if is_v6 {
        table::at(&ConnsV6, slot).map_or(0, |found| found.word.0)
    } else {
        table::at(&ConnsV4, slot).map_or(0, |found| found.word.0)
    }
}

/// Writes all but the frame and a connection's word.
///
/// # Safety
/// The pointer must be to a record that may be written.
#[inline(always)]
unsafe fn fill(record: *mut Record, at_hand: &AtHand, kind: u32, about: u64) {
    // SAFETY: as the caller promises; the helpers take no arguments.
    unsafe {
        (&raw mut (*record).time).write(bpf_ktime_get_ns());
        (&raw mut (*record).packet).write(at_hand.packet.load());
        (&raw mut (*record).about).write(about);
        (&raw mut (*record).kind).write(kind);
        (&raw mut (*record).cpu).write(bpf_get_smp_processor_id());
        (&raw mut (*record).ifindex).write(at_hand.ifindex.load() as u32);
    }
}

#[inline(always)]
fn lost() {
    if let Some(filter) = filter() {
        let _before = filter.lost.add(1);
    }
}
