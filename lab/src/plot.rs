//! What is a lab's alone: the names of its namespaces, and a directory. Both go with it.

use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};

use crate::leftovers::{DIRECTORY, Leftover, Owned, PREFIX, sweep_stale};
use crate::netns::Netns;

/// See the module.
pub(crate) struct Plot {
    prefix: String,
    directory: PathBuf,
    _directory: Owned,
}

impl Plot {
    /// Claims one, and removes what labs of dead processes left behind. Needs root.
    pub(crate) fn claim() -> Result<Plot> {
        require_root()?;
        static SWEEP: Once = Once::new();
        SWEEP.call_once(sweep_stale);
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let (prefix, directory) = (format!("{PREFIX}{id}-"), Path::new(DIRECTORY).join(id));
        let owned = Owned::new(Leftover::Directory(directory.clone()));
        std::fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        Ok(Plot { prefix, directory, _directory: owned })
    }

    /// Makes the namespace of somebody in it.
    pub(crate) fn netns(&self, role: &str) -> Result<Netns> {
        Netns::create(format!("{}{role}", self.prefix))
    }

    /// The directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}

/// The lab needs what only root may do.
fn require_root() -> Result<()> {
    let root = nix::unistd::geteuid().is_root();
    ensure!(root, "the lab makes network namespaces and attaches XDP programs: run it as root");
    Ok(())
}
