//! Control groups of a lab's own (version 2), by which the kernel says what processes in them use.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::leftovers::{Leftover, Owned, PREFIX};
use crate::topology::Lab;

/// In a lab's directory, where the hierarchy is mounted. All mounts show the same one, whoever else uses it.
const MOUNT: &str = "cgroup";

/// See the module. Who runs in a group must have ended before it is dropped.
pub struct ControlGroups {
    directory: PathBuf,
    prefix: String,
    // Groups before the mount by which they are removed.
    made: Vec<Owned>,
    _mount: Owned,
}

impl ControlGroups {
    /// Mounts the hierarchy for a lab.
    pub fn of(lab: &Lab) -> Result<ControlGroups> {
        let directory = lab.directory().join(MOUNT);
        let id = lab.directory().file_name().context("a lab's directory has a name")?.to_string_lossy();
        let mount = Owned::mount("cgroup2", &directory)?;
        Ok(ControlGroups { directory, prefix: format!("{PREFIX}{id}-"), made: Vec::new(), _mount: mount })
    }

    /// Makes a group, and gives its directory. A process enters by writing its id to `cgroup.procs` there.
    pub fn make(&mut self, name: &str) -> Result<PathBuf> {
        let path = self.directory.join(format!("{}{name}", self.prefix));
        self.made.push(Owned::new(Leftover::ControlGroup(path.clone())));
        std::fs::create_dir(&path).with_context(|| format!("make the control group {}", path.display()))?;
        Ok(path)
    }

    /// Removes those of a dead lab, by its own mount.
    pub(crate) fn sweep(lab: &Path, id: &str) {
        let directory = lab.join(MOUNT);
        let prefix = format!("{PREFIX}{id}-");
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                Leftover::ControlGroup(entry.path()).remove();
            }
        }
        Leftover::Mount(directory).remove();
    }
}
