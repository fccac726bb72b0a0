//! The director's memory and its keeper.
//!
//! [`tables::Tables`] is the memory: the kernel's maps or plain memory. [`engine::Engine`] carries out an operator's
//! changes in it. [`xdp`] loads and attaches the programs, [`nexthop`] finds the way to the servers, [`host`] runs the
//! same core without a kernel, [`rehearsal`] runs it on a packet without changing anything, and [`straight`] sends a packet to one
//! server. [`fragments`] puts packets together and cuts them.

mod attachment;
pub mod conns;
mod egress;
pub mod engine;
pub mod estimator;
pub mod evict;
pub mod fragments;
pub mod host;
pub mod journal;
pub mod kernel;
mod lines;
pub mod mapping;
pub mod nexthop;
pub mod objects;
pub mod offload;
mod overlay;
mod programs;
pub mod rehearsal;
pub mod roster;
pub mod straight;
pub mod sweep;
pub mod tables;
pub mod tc;
pub mod trace;
pub mod xdp;
