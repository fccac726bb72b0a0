//! `ipvsadm`, byte for byte: grammar, checks, messages, listings and exit codes of version 1.31.
//!
//! A command line is read in two steps: `typed` turns it into words and values by the original's option parser's rules,
//! `meant` turns these into one thing to do or into one complaint. The words, and with them the help, the manual page and
//! the completions, come from one table ([`table`]). What is to be done is done by a [`Backend`].
//!
//! The crate prints to what it is given and asks nobody but the backend and the [`Resolver`]:
//!
//! ```no_run
//! use xlvs_ipvsadm::{Applet, Backend, Session, System};
//!
//! fn list(backend: &mut dyn Backend) -> i32 {
//!     let mut session = Session {
//!         program: "ipvsadm",
//!         backend,
//!         names: &System::default(),
//!         stdin: &mut std::io::stdin().lock(),
//!         out: &mut std::io::stdout().lock(),
//!         err: &mut std::io::stderr().lock(),
//!     };
//!     session.run(Applet::Ipvsadm, vec!["-L".into(), "-n".into()])
//! }
//! ```
#![forbid(unsafe_code)]

mod address;
mod backend;
mod completions;
mod count;
mod failure;
mod help;
mod layout;
mod legal;
mod listing;
mod manual;
mod meant;
mod names;
mod number;
mod order;
mod restore;
mod script;
mod session;
pub mod table;
mod typed;
mod unsaid;

pub use backend::{Backend, Stopped, Unreachable};
pub use completions::{Shell, completions};
pub use help::{VERSION, help};
pub use manual::man_page;
pub use names::{Resolver, Services, System};
pub use script::{Mistake, Rule, read_script, script};
pub use session::{Applet, Session};
pub use unsaid::unsaid;
