//! What an operator says: services, servers and policies, in LVS's words, and the changes to them.
//!
//! This crate knows what is legal and what a command leaves behind ([`Model::apply`]); it does not know
//! packets, memory or sockets. Everything in it can be sent as JSON.

pub mod change;
pub mod check;
pub mod config;
pub mod diff;
pub mod iptables;
pub mod marks;
mod nearest;
pub mod refusal;
mod services;
pub mod spec;
pub mod state;
pub mod supported;
pub mod tally;
pub mod tunables;
pub mod view;
pub mod wanted;
pub mod watch;

pub use change::Change;
pub use config::{Config, Mistakes};
pub use diff::{Plan, diff};
pub use marks::{MarkError, MarkRule};
pub use refusal::Refusal;
pub use spec::{
    Family, Persistence, SchedFlags, ServerKey, ServerSpec, ServiceKey, ServiceSpec, Timeouts, Tunnel,
};
pub use state::Model;
pub use supported::supported;
pub use tally::Tally;
pub use tunables::{Tunable, TunableError, Tunables};
