//! Fragments: packets that came in pieces are put together, and packets that are too long are cut.
//!
//! Kernel IPVS decides about whole packets only, and lets them leave in fragments of the size they came in. An XDP program
//! makes one frame of one, so this is the daemon's work: a program hands it what it recognises ([`xlvs_core::errand`]), and is
//! asked about the whole.
//!
//! - [`Reassembler`] holds fragments until their packet is whole; it has neither socket nor clock ([`Event`] in,
//!   [`Effects`] out).
//! - [`cut()`] makes fragments of a packet.
//! - [`Errands`] does what programs hand over with both, and asks a [`Director`] about what became whole.

mod cut;
mod errands;
mod incomplete;
mod piece;
mod reassembler;

#[cfg(test)]
mod tests;

pub use self::{
    cut::{CutError, cut},
    errands::{Director, Done, Errands, Fate, Outgoing, Tally},
    piece::Refusal,
    reassembler::{Effects, Event, Expired, HIGH_THRESH, Reassembler, TIMEOUT_V4, TIMEOUT_V6, Whole},
};
