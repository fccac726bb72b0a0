//! The director at the XDP hook, and what the daemon runs besides.
#![no_std]
#![no_main]
// The packet end is read by the hand (`packet.rs`).
#![feature(asm_experimental_arch)]

mod env;
mod errands;
#[path = "hook/xdp.rs"]
mod hook;
mod maps;
mod packet;
mod scheduling;
mod stages;
#[cfg(feature = "traced")]
mod trace;
#[cfg(not(feature = "traced"))]
#[path = "untraced.rs"]
mod trace;
mod upkeep;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // No path leads here: the build fails when the object names a panic.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
