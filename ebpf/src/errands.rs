//! Packets that are the daemon's to put together or to cut.

use core::ffi::c_void;

use xlvs_core::env::Env;
use xlvs_core::errand::{Errand, Kind, ROOM};
use xlvs_core::packet::Packet;
use xlvs_core::verdict::DropReason;
use xlvs_core::wire::Ethernet;

use crate::env::{KernelEnv, handed};
use crate::hook::{self, Action, AskedPacket, Context, WholePacket, unknown};
use crate::maps;

/// Hands the packet to the daemon, with what is to be done ([`xlvs_core::errand::Kind`]) and the interface that belongs to it. If
/// it was the daemon that asked, it is told here. In a function with a stack frame of its own.
#[inline(never)]
pub fn hand_over(ctx: *mut Context, kind: u32, ifindex: u32) -> Action {
    let cut_to = match handed() {
        Some(handed) => {
            // The daemon is told of the device that the frame came by, and sends by the one that it leaves by.
            let _tags = handed.arrival.take();
            handed.cut_to.load() as u32
        }
        None => 0,
    };
    if let Some(question) = AskedPacket::new(ctx).question_mut() {
        question.cut_to = (cut_to as u16).to_ne_bytes();
        question.ifindex = ifindex.to_ne_bytes();
        return hook::ANSWERED;
    }
    if WholePacket::KEEPS_NOTES && kind == Kind::Cut as u32 && WholePacket::new(ctx).is_left_to_device() {
        // It would leave by way of the daemon, where nobody completes its checksum.
        return lost(ctx, DropReason::Unsupported);
    }
    let len = unknown(WholePacket::new(ctx).len());
    if len > ROOM {
        return lost(ctx, DropReason::TooLong);
    }
    let len = unknown(len);
    if len < Ethernet::LEN {
        return lost(ctx, DropReason::Malformed);
    }
    let Some(mut record) = maps::ERRANDS.reserve::<Errand>(0) else { return lost(ctx, DropReason::RingFull) };
    let errand = record.as_mut_ptr();
    // SAFETY: the record is an `Errand`'s bytes, and so long as it; of the frame so many bytes are written as there are, which
    // are not more than `ROOM`.
    let copied = unsafe {
        (&raw mut (*errand).kind).write(kind);
        (&raw mut (*errand).ifindex).write(ifindex);
        (&raw mut (*errand).cut_to).write(cut_to);
        (&raw mut (*errand).len).write(len as u32);
        hook::copy(ctx, (&raw mut (*errand).frame).cast::<c_void>(), len as u32)
    };
    if copied == 0 {
        record.submit(0);
        hook::DROP
    } else {
        record.discard(0);
        lost(ctx, DropReason::TooLong)
    }
}

#[inline(always)]
fn lost(ctx: *mut Context, reason: DropReason) -> Action {
    if let Some(counters) = KernelEnv::new(ctx).counters()
        && let Some(counter) = counters.drops.get(reason as usize)
    {
        counter.bump(1);
    }
    hook::DROP
}
