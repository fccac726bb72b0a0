//! Nothing, in the place of `trace.rs`: the edition of the programs that runs while nobody watches tells nothing, and has no
//! instruction for it.

use xlvs_core::trace::Note;
use xlvs_core::verdict::Verdict;

use crate::hook::Context;

/// A packet comes in.
#[inline(always)]
pub fn begin(_ctx: *mut Context) {}

/// A step on the packet's way.
#[inline(always)]
pub fn note(_note: impl FnOnce() -> Note) {}

/// The packet's fate.
#[inline(always)]
pub fn end(_ctx: *mut Context, _verdict: Verdict) {}
