//! The director at the tc hook: the same stages over socket buffers.
#![no_std]
#![no_main]
// The packet end is read by the hand (`skb.rs`).
#![feature(asm_experimental_arch)]

#[path = "../env.rs"]
#[allow(dead_code, reason = "only what the daemon runs asks for the context")]
mod env;
#[path = "../errands.rs"]
mod errands;
#[path = "../hook/tc.rs"]
mod hook;
#[path = "../maps.rs"]
mod maps;
#[cfg(not(feature = "traced"))]
#[path = "../outgoing.rs"]
mod outgoing;
#[path = "../scheduling.rs"]
mod scheduling;
#[path = "../skb.rs"]
mod skb;
#[path = "../stages.rs"]
mod stages;
#[cfg(feature = "traced")]
#[path = "../trace.rs"]
mod trace;
#[cfg(not(feature = "traced"))]
#[path = "../untraced.rs"]
mod trace;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // No path leads here: the build fails when the object names a panic.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
