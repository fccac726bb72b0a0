//! The director's memory and its keeper.
//!
//! [`tables::Tables`] is the memory: the kernel's maps or plain memory. [`engine::Engine`] carries out an operator's
//! changes in it. [`xdp`] loads and attaches the programs, [`nexthop`] finds the way to the servers, and [`host`] runs
//! the same core without a kernel.

pub mod conns;
pub mod engine;
pub mod estimator;
pub mod evict;
pub mod host;
pub mod journal;
mod lines;
mod mapping;
pub mod nexthop;
pub mod objects;
pub mod roster;
pub mod sweep;
pub mod tables;
pub mod xdp;
