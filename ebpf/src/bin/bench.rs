//! The benchmark's harness: programs that put a packet in front of the program under test, and programs that do one thing.
//!
//! A repeated test run feeds a program its own output. So the one in front gives the packet back its length, copies the next
//! of the prepared frames over it, and calls the program under test. What that costs is measured around a program that does
//! nothing, and subtracted.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::helpers::generated::{bpf_ktime_get_coarse_ns, bpf_redirect, bpf_xdp_adjust_head};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, HashMap, LruHashMap, ProgramArray};
use aya_ebpf::programs::XdpContext;

/// `BPF_F_MMAPABLE`: the benchmark fills it without system calls.
const MMAPABLE: u32 = 1 << 10;

/// The frames, or their beginnings: what the program under test may have changed.
#[map]
static FRAMES_64: Array<[u64; 8]> = Array::with_max_entries(1, MMAPABLE);
#[map]
static FRAMES_128: Array<[u64; 16]> = Array::with_max_entries(1, MMAPABLE);

/// The number of the next frame, how many there are, a frame's whole length, and what else a program wants.
#[map]
static COURSE: Array<[u32; 4]> = Array::with_max_entries(1, MMAPABLE);

/// What is measured.
#[map]
static UNDER_TEST: ProgramArray = ProgramArray::with_max_entries(1, 0);
/// The same, of programs that do not take frames of several buffers: the kernel lets only such call each other.
#[map]
static UNDER_TEST_PLAIN: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// For [`hash_hit`]: as many entries as a small site has connections.
#[map]
static HASH: HashMap<[u64; 2], u64> = HashMap::with_max_entries(16_384, 0);

macro_rules! places {
    ($($name:ident: $frames:ident, $words:expr;)*) => {$(
        /// Gives the packet its length back, and the next frame of this map. Returns what is written beside the course.
        #[inline(always)]
        fn $name(ctx: &XdpContext) -> Option<u32> {
            let (next, length, beside) = turn()?;
            let longer = packet_length(ctx) as i32 - length as i32;
            // SAFETY: the context is valid; the helper checks the length.
            if longer != 0 && unsafe { bpf_xdp_adjust_head(ctx.ctx, longer) } != 0 {
                return None;
            }
            let frame = $frames.get_ptr(next)?;
            let packet = ctx.data() as *mut u64;
            // The test keeps the pointer's range known to the verifier: `data + constant <= data_end`.
            if ctx.data() + $words * 8 > ctx.data_end() {
                return None;
            }
            for word in 0..$words {
                // SAFETY: both have that many words: the map's value by its type, the packet by the test above.
                unsafe { packet.add(word).write_unaligned((*frame)[word]) };
            }
            Some(beside)
        }
    )*};
}

places! {
    place_64: FRAMES_64, 8;
    place_128: FRAMES_128, 16;
}

/// Puts a short frame in front of the program under test.
#[xdp(frags)]
pub fn front_64(ctx: XdpContext) -> u32 {
    test(&ctx, &UNDER_TEST, place_64(&ctx))
}

/// [`front_64`] for programs of one buffer.
#[xdp]
pub fn front_64_plain(ctx: XdpContext) -> u32 {
    test(&ctx, &UNDER_TEST_PLAIN, place_64(&ctx))
}

/// Puts a long frame in front of the program under test.
#[xdp(frags)]
pub fn front_128(ctx: XdpContext) -> u32 {
    test(&ctx, &UNDER_TEST, place_128(&ctx))
}

/// [`front_128`] for programs of one buffer.
#[xdp]
pub fn front_128_plain(ctx: XdpContext) -> u32 {
    test(&ctx, &UNDER_TEST_PLAIN, place_128(&ctx))
}

#[inline(always)]
fn test(ctx: &XdpContext, under_test: &ProgramArray, placed: Option<u32>) -> u32 {
    if placed.is_some() {
        // SAFETY: the array holds XDP programs only; nothing of this frame is used after the call.
        let _missing = unsafe { under_test.tail_call(ctx, 0) };
    }
    XDP_ABORTED
}

/// A generator of packets: sends each short frame out of the interface whose number is written beside the course.
#[xdp(frags)]
pub fn generate(ctx: XdpContext) -> u32 {
    let Some(ifindex) = place_64(&ctx) else { return XDP_ABORTED };
    // SAFETY: the helper only reads its arguments.
    unsafe { bpf_redirect(ifindex, 0) as u32 }
}

/// What [`swallow`] has seen: how many frames, and the beginning of one in 4096.
#[map]
static SWALLOWED: Array<[u64; 9]> = Array::with_max_entries(1, MMAPABLE);

/// The other end: counts frames of IPv4, keeps some, and drops all.
#[xdp(frags)]
pub fn swallow(ctx: XdpContext) -> u32 {
    let Some(seen) = SWALLOWED.get_ptr_mut(0) else { return XDP_ABORTED };
    let packet = ctx.data() as *const u64;
    if ctx.data() + 64 > ctx.data_end() {
        return XDP_DROP;
    }
    // SAFETY: the packet has 64 bytes by the test above; these hold the ethertype. Hosts also speak of themselves.
    if unsafe { packet.add(1).read_unaligned() } >> 32 & 0xffff != 0x0008 {
        return XDP_DROP;
    }
    // SAFETY: the map's only value; one processor at a time receives here.
    unsafe { (*seen)[0] += 1 };
    // SAFETY: as above.
    let is_kept = unsafe { (*seen)[0] } & 0xfff == 1;
    if is_kept {
        for word in 0..8 {
            // SAFETY: the packet has 64 bytes by the test above, the value nine words.
            unsafe { (*seen)[word + 1] = packet.add(word).read_unaligned() };
        }
    }
    XDP_DROP
}

/// The difference as one of 64 bits, which is the only one that the verifier allows with pointers: the compiler would
/// shorten it.
#[inline(always)]
fn packet_length(ctx: &XdpContext) -> u64 {
    let (mut end, start) = (ctx.data_end() as u64, ctx.data() as u64);
    // SAFETY: a subtraction.
    unsafe { core::arch::asm!("{0} -= {1}", inout(reg) end, in(reg) start, options(nostack, nomem)) };
    end
}

/// The number of the frame whose turn it is, the frames' length, and what is written beside.
#[inline(always)]
fn turn() -> Option<(u32, u32, u32)> {
    let course = COURSE.get_ptr_mut(0)?;
    // SAFETY: the map's only value; one program at a time runs here.
    let [next, count, length, beside] = unsafe { *course };
    let following = if next + 1 < count { next + 1 } else { 0 };
    // SAFETY: as above.
    unsafe { (*course)[0] = following };
    Some((next, length, beside))
}

/// Does nothing.
#[xdp(frags)]
pub fn nothing(_ctx: XdpContext) -> u32 {
    XDP_TX
}

/// Finds an entry of a hash map by a key of 16 bytes: the unit in which everything is expressed, so that figures of other
/// machines compare.
#[xdp(frags)]
pub fn hash_hit(ctx: XdpContext) -> u32 {
    let key = [packet_length(&ctx), 0];
    // SAFETY: the value is a number that nobody changes.
    if unsafe { HASH.get(&key) }.is_some() { XDP_TX } else { XDP_ABORTED }
}

/// Virtual addresses, for [`only_helpers`]: address, and port with protocol.
#[map]
static VIPS: HashMap<[u32; 5], [u32; 4]> = HashMap::with_max_entries(512, 0);

/// Flows, for [`only_helpers`].
#[map]
static FLOWS: LruHashMap<[u32; 4], u32> = LruHashMap::with_max_entries(1, 0);

/// A floor under a balancer that tunnels and keeps its connections in the kernel's own maps: nothing but what it must call. A VIP is
/// looked up, then a flow, which is remembered when it is new, and 20 bytes are put in front. What is written beside the course
/// makes flows others.
#[xdp(frags)]
pub fn only_helpers(ctx: XdpContext) -> u32 {
    let packet = ctx.data() as *const u8;
    if ctx.data() + 38 > ctx.data_end() {
        return XDP_ABORTED;
    }
    // SAFETY: the packet has 38 bytes by the test above.
    let word = |at: usize| unsafe { packet.add(at).cast::<u32>().read_unaligned() };
    let (protocol, source, vip, ports) = (word(23) & 0xff, word(26), word(30), word(34));
    // SAFETY: the value is never changed.
    if unsafe { VIPS.get(&[vip, 0, 0, 0, ports >> 16 | protocol << 16]) }.is_none() {
        return XDP_PASS;
    }
    // SAFETY: the map's only value; numbers that nobody changes while this runs.
    let beside = COURSE.get_ptr(0).map_or(0, |course| unsafe { (*course)[3] });
    let flow = [source, vip, ports, protocol | beside << 8];
    // SAFETY: the value is a number that nobody changes.
    if unsafe { FLOWS.get(&flow) }.is_none() && FLOWS.insert(&flow, &1, 0).is_err() {
        return XDP_ABORTED;
    }
    // SAFETY: the context is valid; the helper checks the room.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -20) } == 0 { XDP_TX } else { XDP_ABORTED }
}

/// Reads the coarse clock.
#[xdp(frags)]
pub fn coarse_clock(_ctx: XdpContext) -> u32 {
    // SAFETY: the helper takes nothing.
    if unsafe { bpf_ktime_get_coarse_ns() } != 0 { XDP_TX } else { XDP_ABORTED }
}

/// Takes the first 20 bytes off the packet and puts them back.
#[xdp(frags)]
pub fn adjust_head_twice(ctx: XdpContext) -> u32 {
    // SAFETY: the context is valid; the helper checks the length.
    let failed = unsafe { bpf_xdp_adjust_head(ctx.ctx, -20) | bpf_xdp_adjust_head(ctx.ctx, 20) };
    if failed == 0 { XDP_TX } else { XDP_ABORTED }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // No path leads here: the build fails when the object names a panic.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
