//! Why a change was refused.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A refusal, with the errno that the kernel would have given. The text is for people; `ipvsadm` prints the
/// original's texts by errno and command.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// EEXIST
    #[error("exists already")]
    Exists,
    /// ESRCH
    #[error("no such service")]
    NoService,
    /// ENOENT: server, scheduler or engine
    #[error("no such server, scheduler or persistence engine")]
    NotFound,
    /// EINVAL
    #[error("invalid operation")]
    Invalid,
    /// ERANGE
    #[error("number out of range")]
    OutOfRange,
    /// EPERM
    #[error("permission denied (you must be root)")]
    NotPermitted,
    /// ENODEV
    #[error("no such network interface")]
    NoDevice,
    /// ENOMEM
    #[error("no room: {0}")]
    NoRoom(String),
    /// Something that this data plane does not do (yet): one sentence.
    #[error("{0}")]
    Unsupported(String),
}
