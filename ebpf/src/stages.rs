//! The stages as programs: what the director consists of, at either hook. All policy is in `xlvs-core`; here a verdict becomes what
//! the [`hook`] does with a packet.

use xlvs_core::conn::key;
use xlvs_core::director::{self, Sent, Stage};
use xlvs_core::env::Env;
use xlvs_core::errand::Kind;
use xlvs_core::family;
use xlvs_core::trace::Note;
use xlvs_core::verdict::{DropReason, Verdict};
use xlvs_core::vlan;

use crate::env::KernelEnv;
use crate::hook::{self, Action, AnyPacket, AskedPacket, Context, ShortPacket, WholePacket, entry};
use crate::{errands, trace};

entry! {
    /// The director: attached to the interfaces that carry balanced traffic. IPv4 connections that go on as before are dealt with
    /// here; the rest is that of the other stages.
    fn xlvs_director(ctx) {
        if !hook::is_for_us(ctx) {
            return hook::PASS;
        }
        trace::begin(ctx);
        let env = KernelEnv::new(ctx);
        let mut packet = ShortPacket::new(ctx);
        let outcome = director::first(&mut packet, &env);
        staged_at_once(&packet, outcome)
    }
}

macro_rules! stages {
    ($family:ident, $words:expr, $reply:ident, $request:ident) => {
        entry! {
            /// Packets of this family from real servers and VIPs.
            fn $reply(ctx) {
                let env = KernelEnv::new(ctx);
                let mut packet = AskedPacket::new(ctx);
                let outcome = director::reply::<family::$family, _, _, { $words }>(&mut packet, &env);
                staged(&packet, outcome)
            }
        }

        entry! {
            /// Packets of this family to VIPs: new connections, ends of connections, answers.
            fn $request(ctx) {
                let env = KernelEnv::new(ctx);
                let mut packet = AskedPacket::new(ctx);
                let verdict = director::request::<family::$family, _, _, { $words }>(&mut packet, &env);
                action(&packet, verdict)
            }
        }
    };
}

stages!(V4, key::V4, xlvs_reply_v4, xlvs_request_v4);
stages!(V6, key::V6, xlvs_reply_v6, xlvs_request_v6);

entry! {
    /// IPv6 connections that go on as before.
    fn xlvs_known_v6(ctx) {
        let env = KernelEnv::new(ctx);
        let mut packet = ShortPacket::new(ctx);
        let outcome = director::known::<family::V6, _, _, { key::V6 }>(&mut packet, &env);
        staged_at_once(&packet, outcome)
    }
}

entry! {
    /// IPv4 ICMP.
    fn xlvs_related_v4(ctx) {
        let env = KernelEnv::new(ctx);
        let mut packet = WholePacket::new(ctx);
        let outcome = director::related_v4(&mut packet, &env);
        staged_without_errands(&packet, outcome)
    }
}

entry! {
    /// IPv6 ICMP.
    fn xlvs_related_v6(ctx) {
        let env = KernelEnv::new(ctx);
        let mut packet = WholePacket::new(ctx);
        let outcome = director::related_v6(&mut packet, &env);
        staged_without_errands(&packet, outcome)
    }
}

macro_rules! hearsay {
    ($name:ident, $family:ident, $words:expr) => {
        entry! {
            /// ICMP errors about connections of this family that another director has made.
            fn $name(ctx) {
                let env = KernelEnv::new(ctx);
                let mut packet = AskedPacket::new(ctx);
                let outcome = director::hearsay::<family::$family, _, _, { $words }>(&mut packet, &env);
                staged_without_errands(&packet, outcome)
            }
        }
    };
}

hearsay!(xlvs_hearsay_v4, V4, key::V4);
hearsay!(xlvs_hearsay_v6, V6, key::V6);

entry! {
    /// Fragments, and those of which the others did not come.
    fn xlvs_fragments(ctx) {
        let env = KernelEnv::new(ctx);
        let mut packet = AskedPacket::new(ctx);
        let verdict = director::fragments(&mut packet, &env);
        action(&packet, verdict)
    }
}

entry! {
    /// Frames with VLAN tags, and frames of several buffers.
    fn xlvs_unusual(ctx) {
        let env = KernelEnv::new(ctx);
        let mut packet = WholePacket::new(ctx);
        let outcome = director::unusual(&mut packet, &env);
        staged_without_errands(&packet, outcome)
    }
}

/// What the kernel is told of an outcome. The context is asked of the packet, which lies on the stack anyway.
#[inline(always)]
fn staged(packet: &AskedPacket, outcome: Result<Verdict, Stage>) -> Action {
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
) -> Action {
    match outcome {
        Ok(verdict) => dispatch(packet.ctx(), verdict),
        Err(stage) => next(packet, stage),
    }
}

/// [`staged`] on the short ways, which leave errands to the other stages, and frames that leave with VLAN tags, too.
#[inline(always)]
fn staged_at_once<const KIND: u8>(packet: &AnyPacket<KIND>, outcome: Result<Verdict, Stage>) -> Action {
    match outcome {
        Ok(verdict) => action_at_once(packet.ctx(), verdict),
        Err(stage) => next(packet, stage),
    }
}

#[inline(always)]
fn next<const KIND: u8>(packet: &AnyPacket<KIND>, stage: Stage) -> Action {
    // Only comes back when the daemon has not put the programs there, which it does before it attaches the director, or after
    // more stages than the kernel lets follow one another.
    trace::note(|| Note::Stage(stage));
    hook::go_on(packet.ctx(), stage);
    if let Some(arrival) = KernelEnv::new(packet.ctx()).arrival() {
        let _tags = arrival.take();
    }
    hook::BROKEN
}

#[inline(always)]
fn action(packet: &AskedPacket, verdict: Verdict) -> Action {
    match verdict {
        Verdict::Cut { ifindex } => {
            trace::end(packet.ctx(), verdict);
            errands::hand_over(packet.ctx(), Kind::Cut as u32, ifindex)
        }
        Verdict::PutTogether { ifindex } => {
            trace::end(packet.ctx(), verdict);
            errands::hand_over(packet.ctx(), Kind::PutTogether as u32, ifindex)
        }
        verdict => dispatch(packet.ctx(), verdict),
    }
}

/// The frame gets the VLAN tags of its way, and leaves.
#[inline(always)]
fn dispatch(ctx: *mut Context, verdict: Verdict) -> Action {
    if vlan::has_no_tags(&KernelEnv::new(ctx)) {
        return action_at_once(ctx, verdict);
    }
    dispatch_tagged(ctx, Sent::pack(Ok(verdict)))
}

/// [`dispatch`] where there may be tags. In a function with a stack frame of its own.
#[inline(never)]
fn dispatch_tagged(ctx: *mut Context, verdict: u64) -> Action {
    let verdict = Sent::unpack(verdict).unwrap_or(Verdict::Drop(DropReason::Broken));
    action_at_once(ctx, vlan::dispatch(&mut WholePacket::new(ctx), &KernelEnv::new(ctx), verdict))
}

#[inline(always)]
fn action_at_once(ctx: *mut Context, verdict: Verdict) -> Action {
    trace::end(ctx, verdict);
    match verdict {
        Verdict::Cut { .. } | Verdict::PutTogether { .. } => hook::BROKEN,
        Verdict::Pass(_) => hook::PASS,
        Verdict::Local { .. } => hook::deliver(ctx),
        Verdict::Drop(_) => hook::DROP,
        Verdict::Transmit { .. } | Verdict::Answer { .. } => hook::send_back(ctx),
        Verdict::Redirect { ifindex } => hook::send_by(ctx, ifindex),
    }
}
