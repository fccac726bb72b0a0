//! Programs for the ends of the wire: a bare pass, and the tunnel end of a real server.
#![no_std]
#![no_main]

#[path = "../packet.rs"]
mod packet;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::helpers::generated::bpf_xdp_adjust_head;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use xlvs_core::packet::Packet;
use xlvs_core::wire::{Ethernet, Ipv4, ethertype, ip_protocol};

use crate::packet::XdpPacket;

/// Passes everything: a veth accepts frames from XDP only when its own end runs an XDP program.
#[xdp]
pub fn xlvs_pass(_ctx: XdpContext) -> u32 {
    XDP_PASS
}

/// Takes the outer header from IP-in-IP packets, as `tunl0` does.
#[xdp]
pub fn xlvs_decap(ctx: XdpContext) -> u32 {
    let packet = XdpPacket::new(ctx.ctx);
    let Some(eth) = packet.header::<Ethernet>(0).copied() else { return XDP_PASS };
    if eth.ethertype() != ethertype::IPV4 {
        return XDP_PASS;
    }
    let Some(ip) = packet.header::<Ipv4>(Ethernet::LEN) else { return XDP_PASS };
    if ip.protocol != ip_protocol::IPIP || ip.header_len() != Ipv4::LEN {
        return XDP_PASS;
    }
    // SAFETY: the context is valid; the helper checks the length.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, Ipv4::LEN as i32) } != 0 {
        return XDP_DROP;
    }
    let mut packet = XdpPacket::new(ctx.ctx);
    let Some(place) = packet.header_mut::<Ethernet>(0) else { return XDP_DROP };
    *place = eth;
    XDP_PASS
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // No path leads here: the build fails when the object names a panic.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
