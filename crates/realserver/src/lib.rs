//! A real server's side of LVS.
//!
//! A server of DR or TUN has the VIP and must not tell anybody; one of TUN takes tunnels' packets apart; one of NAT answers through the
//! director. [`plan()`] says which settings that takes of a host ([`Sight`]), [`up`] and [`down`] make them and take them back, with what
//! was there before kept in a [`Store`]. Neither knows how a setting is made: that is a [`Host`]'s, of which [`Kernel`] is the real one.
//!
//! [`verify`] finds what is wrong with such a server, however it was set up.
//! [`load`] says what share of its weight a server should ask directors for.
//!
//! Nothing here knows of directors' services or of connections.

mod arp;
mod files;
pub mod frames;
mod kernel;
pub mod lifecycle;
pub mod listeners;
pub mod load;
mod nd;
pub mod neighbours;
pub mod netlink;
pub mod permanent;
pub mod plan;
pub mod probe;
pub mod setting;
pub mod store;
pub mod tunnel;
pub mod verify;
pub mod wish;

pub use kernel::Kernel;
pub use lifecycle::{Host, Left, Trouble, down, up};
pub use permanent::Permanent;
pub use plan::{Refusal, Sight, plan};
pub use setting::{Found, Setting};
pub use store::{State, Store};
pub use verify::Finding;
pub use wish::{Mode, TunnelEnd, Wish};
