//! The lab: clients, a director and real servers in network namespaces, with real traffic.
//!
//! A [`Lab`] is laid out, servers are started in it, a [`Director`] runs the daemon, and a
//! [`Client`] asks for things. All of it carries our prefix, none of it touches the interfaces of
//! the namespace we were started in, and all of it goes when its owner is dropped, when we are
//! interrupted, or, after a SIGKILL, when the next lab is laid out.
//!
//! ```no_run
//! use xlvs_lab::{Director, HttpServer, Lab, client::ephemeral};
//!
//! let lab = Lab::two_network(2)?;
//! let servers = HttpServer::on_all(&lab, 80)?;
//! let director = Director::start(&lab, &xlvs_lab::director::binary()?)?;
//! director.must(&format!("-A -t {}:80 -s rr", lab.vip(0)))?;
//! director.must(&format!("-a -t {}:80 -r {}:80 -m", lab.vip(0), lab.servers[0].address))?;
//! assert_eq!(lab.client().get(&format!("http://{}/", lab.vip(0)))?, "rs1");
//! # anyhow::Ok(())
//! ```

mod asked;
pub mod client;
mod control_groups;
pub mod demo;
pub mod director;
mod edge;
pub mod frames;
mod http;
mod layout;
mod leftovers;
mod name_server;
mod netns;
pub mod play;
mod plot;
mod process;
pub mod reference;
mod stream;
mod topology;
mod tunnel_end;

pub use client::{Client, Download};
pub use control_groups::ControlGroups;
pub use director::{Director, Reply};
pub use http::HttpServer;
pub use layout::Layout;
pub use leftovers::sweep_stale;
pub use name_server::NameServer;
pub use netns::Netns;
pub use process::Process;
pub use topology::{Lab, Server};
pub use tunnel_end::TunnelEnd;
