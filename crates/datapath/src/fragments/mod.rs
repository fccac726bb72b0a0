//! Fragments: packets that came in pieces are put together, and packets that are too long are cut.
//!
//! Kernel IPVS decides about whole packets only, and lets them leave in fragments of the size they came in. An XDP program
//! makes one frame of one, so this is work for the host. No program hands it packets yet: fragments go to the stack.
//!
//! - [`Reassembler`] holds fragments until their packet is whole; it has neither socket nor clock ([`Event`] in,
//!   [`Effects`] out).
//! - [`cut()`] makes fragments of a packet.

mod cut;
mod incomplete;
mod piece;
mod reassembler;

#[cfg(test)]
mod tests;

pub use self::{
    cut::{CutError, cut},
    piece::Refusal,
    reassembler::{Effects, Event, Expired, HIGH_THRESH, Reassembler, TIMEOUT_V4, TIMEOUT_V6, Whole},
};
