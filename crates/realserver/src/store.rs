//! What there was before, kept in a file until it is put back. It lies where a reboot empties: settings are gone then, too.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::files;
use crate::setting::{Found, Setting};
use crate::wish::Wish;

/// What was set, and what was in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// What was wanted.
    pub wish: Wish,
    /// In the order in which they were made.
    pub made: Vec<(Setting, Found)>,
}

/// The same with the network namespace that it is about.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    namespace: u64,
    state: State,
}

/// Why the file cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Reading or writing failed.
    #[error("the state file {0}: {1}")]
    Io(PathBuf, io::Error),
    /// Not what was written.
    #[error(
        "the state file {0} is damaged ({1}); what was there before is not known any more: look at `ip addr`, `ip route` and \
         `sysctl -a`, then remove the file"
    )]
    Damaged(PathBuf, serde_json::Error),
    /// Somebody else's.
    #[error(
        "the state file {0} is about another network namespace; give this one a directory of its own: --run-dir DIR"
    )]
    Elsewhere(PathBuf),
    /// Another command is at it.
    #[error("another `xlvs rs` is at work on {0}; wait until it has ended")]
    Busy(PathBuf),
}

/// The file's place.
#[derive(Clone, Debug)]
pub struct Store {
    path: PathBuf,
}

/// Held while a command changes things; the kernel lets go of it when the process ends, however it ends.
pub struct Lock(#[expect(dead_code, reason = "holding it is its use")] Flock<File>);

impl Store {
    /// The state file of this directory, which is made when something is written.
    pub fn in_directory(directory: &Path) -> Self {
        Self { path: directory.join("rs.json") }
    }

    /// Keeps other commands from changing things.
    pub fn lock(&self) -> Result<Lock, StoreError> {
        let path = self.path.with_extension("lock");
        let open = || {
            files::make_parent(&path)?;
            File::create(&path)
        };
        let file = open().map_err(|e| StoreError::Io(path.clone(), e))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Lock(lock)),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(StoreError::Busy(self.path.clone())),
            Err((_, e)) => Err(StoreError::Io(path, e.into())),
        }
    }

    /// Reads it. `None`: nothing was set.
    pub fn read(&self) -> Result<Option<State>, StoreError> {
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(StoreError::Io(self.path.clone(), e)),
        };
        let kept: Kept =
            serde_json::from_slice(&text).map_err(|e| StoreError::Damaged(self.path.clone(), e))?;
        let here = namespace().map_err(|e| StoreError::Io(self.path.clone(), e))?;
        if kept.namespace != here {
            return Err(StoreError::Elsewhere(self.path.clone()));
        }
        Ok(Some(kept.state))
    }

    /// Replaces it in one step; with nothing left to put back it goes.
    pub fn write(&self, state: Option<&State>) -> Result<(), StoreError> {
        let written = match state {
            Some(state) => self.replace(state),
            None => files::remove_if_there(&self.path).map(drop),
        };
        written.map_err(|e| StoreError::Io(self.path.clone(), e))
    }

    fn replace(&self, state: &State) -> io::Result<()> {
        let kept = Kept { namespace: namespace()?, state: state.clone() };
        files::replace(&self.path, &serde_json::to_vec_pretty(&kept)?)
    }
}

/// The number of this thread's network namespace.
fn namespace() -> io::Result<u64> {
    std::fs::metadata("/proc/thread-self/ns/net").map(|namespace| namespace.ino())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wish::Mode;

    #[test]
    fn a_file_of_another_namespace_or_one_that_somebody_works_on_is_left_alone() {
        let place = std::env::temp_dir().join(format!("xlvs-rs-store-{}", std::process::id()));
        let store = Store::in_directory(&place);
        let wish = Wish::new([Mode::Dr], ["192.0.2.10".parse().unwrap()]);
        let state = State { wish, made: Vec::new() };
        store.write(Some(&state)).unwrap();
        assert_eq!(store.read().unwrap(), Some(state.clone()));

        let lock = store.lock().unwrap();
        assert!(matches!(store.lock(), Err(StoreError::Busy(_))));
        drop(lock);
        assert!(store.lock().is_ok());

        let kept = Kept { namespace: 1, state };
        std::fs::write(&store.path, serde_json::to_vec(&kept).unwrap()).unwrap();
        assert!(matches!(store.read(), Err(StoreError::Elsewhere(_))));
        std::fs::remove_dir_all(&place).unwrap();
    }
}
