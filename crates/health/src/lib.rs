//! Decides from checks, agents and operators which servers a service uses, and with what weight.
//!
//! Everything here is pure: events and the time go in, what is to be done comes out. Sockets and timers are the
//! daemon's. What a file says of checks is `xlvs-model`'s, what a packet meets is the data plane's.
#![forbid(unsafe_code)]

pub mod agent;
pub mod check;
pub mod effective;
pub mod flaps;
pub mod keeper;
pub mod moment;
pub mod overlay;
pub mod pool;

pub use check::{Check, Judgement, Outcome};
pub use effective::{AgentMode, AgentWord, Effective, Health, Inputs, OperatorWord, Place, Policy, Reason};
pub use keeper::{Keeper, Memory, News, Notice, Standing, Task};
pub use moment::Moment;
