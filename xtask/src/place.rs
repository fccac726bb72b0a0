//! Where things lie.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The root of the workspace.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// The workspace's target directory, as cargo itself would choose it.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// Where the finished eBPF objects are left.
pub fn objects() -> PathBuf {
    target().join("ebpf")
}

/// The release binary.
pub fn binary() -> PathBuf {
    target().join("release").join("xlvs")
}

/// What is kept for this user from one checkout to the next.
pub fn cache() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => std::env::home_dir().context("set HOME, so that there is a cache directory")?.join(".cache"),
    };
    Ok(base.join("xlvs"))
}
