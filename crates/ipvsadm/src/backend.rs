//! The director, as the command sees it.

use std::io;

use thiserror::Error;
use xlvs_model::view::{ConnView, Info, ServiceView};
use xlvs_model::{Change, Refusal, ServiceKey, Timeouts};

/// Why there is no director to talk to.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unreachable {
    /// The caller may not.
    #[error("Permission denied (you must be root)")]
    NotPermitted,
    /// Nobody answers. The first text says what is wrong, the second what to do about it.
    #[error("{reason}")]
    Absent {
        /// What is wrong.
        reason: String,
        /// What to do.
        advice: String,
    },
}

/// Why a list of changes was not carried out to its end. What stood before it stays done.
#[derive(Debug, Error)]
pub enum Stopped {
    /// A change was refused.
    #[error("change {at}: {why}")]
    Refused {
        /// Its place in the list.
        at: usize,
        /// Why.
        why: Refusal,
    },
    /// The director stopped answering.
    #[error(transparent)]
    Broken(#[from] io::Error),
}

/// A director that takes commands: the daemon behind its socket, or a model in a test.
pub trait Backend {
    /// Called once, before anything else: is it there, and may we?
    fn open(&mut self) -> Result<(), Unreachable>;

    /// Applies changes in order; the first that is refused ends it, and those before it stay applied.
    fn apply(&mut self, changes: &[Change]) -> Result<(), Stopped>;

    /// All services, or the one of this identity; none if it is not there. Servers are newest first.
    fn services(&mut self, only: Option<&ServiceKey>) -> io::Result<Vec<ServiceView>>;

    /// Calls `each` for every connection, in any order, until it fails.
    fn connections(&mut self, each: &mut dyn FnMut(&ConnView) -> io::Result<()>) -> io::Result<()>;

    /// The timeouts that `--set` changes.
    fn timeouts(&mut self) -> io::Result<Timeouts>;

    /// What a listing's head says.
    fn info(&mut self) -> io::Result<Info>;
}
