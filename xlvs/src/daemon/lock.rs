//! One daemon a director.

use std::fs::{File, create_dir_all};
use std::path::Path;

use anyhow::Context;
use nix::fcntl::{Flock, FlockArg};

/// Held while a daemon runs; the kernel lets go of it when the process ends, however it ends.
pub struct Lock(#[expect(dead_code, reason = "holding it is its use")] Flock<File>);

impl Lock {
    /// Takes the lock. `None`: another process has it.
    pub fn take(path: &Path) -> anyhow::Result<Option<Self>> {
        if let Some(dir) = path.parent() {
            create_dir_all(dir).with_context(|| format!("make the directory {}", dir.display()))?;
        }
        let file = File::create(path).with_context(|| format!("open the lock {}", path.display()))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Self(lock))),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, e)) => Err(e).with_context(|| format!("lock {}", path.display())),
        }
    }
}
