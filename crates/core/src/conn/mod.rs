//! Connections: the table that holds them, what an entry is made of, and how it changes.
//!
//! A connection's whole mutable state is one 64-bit [`Word`]; every transition is the winner of a
//! compare-and-swap of it, and the winner moves the counters. See `docs/adr/0002-connection-table.md`.

pub mod entry;
pub mod key;
pub mod table;
pub mod word;

pub use entry::Entry;
pub use table::{Bucket, LANES, Memory, SlotId};
pub use word::Word;
