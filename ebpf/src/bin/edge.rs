//! Programs for the ends of the wire: a bare pass, and the tunnel end of a real server.
#![no_std]
#![no_main]
// The packet end is read by the hand (`packet.rs`).
#![feature(asm_experimental_arch)]

#[path = "../packet.rs"]
mod packet;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::helpers::generated::bpf_xdp_adjust_head;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use xlvs_core::packet::Packet;
use xlvs_core::wire::{Ethernet, Gre, GreSum, Ipv4, Ipv6, ethertype, ip_protocol};

use crate::packet::XdpPacket;

/// Passes everything: a veth accepts frames from XDP only when its own end runs an XDP program.
#[xdp]
pub fn xlvs_pass(_ctx: XdpContext) -> u32 {
    XDP_PASS
}

/// Takes the outer headers from tunnelled packets: IP in IP of either family in either, as `tunl0` and `ip6tnl0` do, and GRE.
#[xdp]
pub fn xlvs_decap(ctx: XdpContext) -> u32 {
    let packet = XdpPacket::new(ctx.ctx);
    let Some(eth) = packet.header::<Ethernet>(0).copied() else { return XDP_PASS };
    let Some((outer, inside)) = tunnelled(&packet, eth.ethertype()) else { return XDP_PASS };
    // SAFETY: the context is valid; the helper checks the length.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, outer as i32) } != 0 {
        return XDP_DROP;
    }
    let mut packet = XdpPacket::new(ctx.ctx);
    let Some(place) = packet.header_mut::<Ethernet>(0) else { return XDP_DROP };
    *place = Ethernet { kind: inside.to_be_bytes(), ..eth };
    XDP_PASS
}

/// Length of the outer headers, and the ethertype of what is inside. `None`: no tunnel's packet.
#[inline(always)]
fn tunnelled(packet: &XdpPacket, kind: u16) -> Option<(usize, u16)> {
    let (length, protocol) = match kind {
        ethertype::IPV4 => {
            let ip = packet.header::<Ipv4>(Ethernet::LEN)?;
            if ip.header_len() != Ipv4::LEN {
                return None;
            }
            (Ipv4::LEN, ip.protocol)
        }
        ethertype::IPV6 => (Ipv6::LEN, packet.header::<Ipv6>(Ethernet::LEN)?.next),
        _ => return None,
    };
    match protocol {
        ip_protocol::IPIP => Some((length, ethertype::IPV4)),
        ip_protocol::IPV6 => Some((length, ethertype::IPV6)),
        ip_protocol::GRE => {
            let gre = packet.header::<Gre>(Ethernet::LEN + length)?;
            let has_checksum = gre.flags[0] & 0x80 != 0;
            let header = if has_checksum { GreSum::LEN } else { Gre::LEN };
            Some((length + header, u16::from_be_bytes(gre.kind)))
        }
        _ => None,
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
