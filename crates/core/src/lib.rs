//! The fate of every packet.
//!
//! One crate decides what happens to a packet and keeps the connections, and it runs in two places:
//! compiled to eBPF inside the kernel's XDP hook, and on the host under tests, the simulator and the
//! daemon, which works on the very same memory. Start reading at [`director::balance`].
#![cfg_attr(not(test), no_std)]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics, asm_experimental_arch))]
#![cfg_attr(target_arch = "bpf", allow(internal_features))]
#![allow(
    clippy::needless_range_loop,
    reason = "constant bounds over arrays: what the verifier and the unroller want"
)]

pub mod carried;
pub mod cell;
pub mod checksum;
pub mod config;
pub mod conn;
pub mod director;
pub mod env;
pub mod errand;
pub mod expire;
pub mod family;
pub mod forward;
pub mod icmp;
pub mod marks;
pub mod method;
pub mod mss;
pub mod options;
pub mod packet;
pub mod parse;
pub mod persist;
#[cfg(not(target_arch = "bpf"))]
pub mod pressure;
pub mod protocol;
pub mod sched;
pub mod sctp;
pub mod segments;
pub mod server;
pub mod service;
pub mod state;
pub mod stats;
pub mod tidings;
pub mod trace;
pub mod tunnel_end;
pub mod unaligned;
pub mod verdict;
mod verifier;
pub mod vlan;
pub mod ways;
pub mod wire;
