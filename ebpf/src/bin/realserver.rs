//! The real server's end of a tunnel: the adaptor around `xlvs_core::tunnel_end`.
#![no_std]
#![no_main]
// The packet end is read by the hand (`packet.rs`).
#![feature(asm_experimental_arch)]

#[path = "../packet.rs"]
#[allow(dead_code, reason = "nobody asks about packets here")]
mod packet;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, PerCpuArray};
use aya_ebpf::programs::XdpContext;
use xlvs_core::tunnel_end::{self, Fate, MAX_DIRECTORS, MAX_VIPS, Outcome, TunnelEnd};
use xlvs_core::wire::AddrV6;

use crate::packet::XdpPacket;

/// The VIPs that packets inside may be for. IPv4 is mapped into IPv6, here and in the next.
#[map]
static VIPS: HashMap<[u8; 16], u8> = HashMap::with_max_entries(MAX_VIPS as u32, 0);
/// Who may send tunnels' packets. `BPF_F_NO_PREALLOC`, as the kernel asks for of this kind.
#[map]
static DIRECTORS: LpmTrie<[u8; 16], u8> = LpmTrie::with_max_entries(MAX_DIRECTORS as u32, 1);
/// UDP port of GUE, network order (0 is none); whether only [`DIRECTORS`] may send.
#[map]
static SETUP: Array<[u16; 2]> = Array::with_max_entries(1, 0);
/// What became of tunnels' packets, by [`Outcome`].
#[map]
static OUTCOMES: PerCpuArray<u64> = PerCpuArray::with_max_entries(Outcome::COUNT as u32, 0);

struct Maps;

impl TunnelEnd for Maps {
    #[inline(always)]
    fn is_vip(&self, addr: AddrV6) -> bool {
        VIPS.get_ptr(addr.bytes()).is_some()
    }

    #[inline(always)]
    fn is_director(&self, addr: AddrV6) -> bool {
        let named = SETUP.get(0).is_some_and(|setup| setup[1] != 0);
        !named || DIRECTORS.get(Key::new(128, addr.bytes())).is_some()
    }

    #[inline(always)]
    fn gue_port(&self) -> [u8; 2] {
        SETUP.get(0).map_or([0; 2], |setup| setup[0].to_ne_bytes())
    }

    #[inline(always)]
    fn count(&self, outcome: Outcome) {
        if let Some(counter) = OUTCOMES.get_ptr_mut(outcome as u32) {
            // SAFETY: the processor's own counter, and nothing else runs here meanwhile.
            unsafe { *counter += 1 };
        }
    }
}

/// Unwraps what a director sent for one of the VIPs.
#[xdp(frags)]
pub fn xlvs_tunnel_end(ctx: XdpContext) -> u32 {
    match tunnel_end::unwrap(&mut XdpPacket::new(ctx.ctx), &Maps) {
        Fate::Pass => XDP_PASS,
        Fate::Drop => XDP_DROP,
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
