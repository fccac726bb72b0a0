//! Files that are replaced in one step.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Puts this into a file; whoever reads it meanwhile sees the old or the new.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    make_parent(path)?;
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)
}

/// Makes the directory that it is to lie in.
pub fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all)
}

/// Removes a file. `false`: there was none.
pub fn remove_if_there(path: &Path) -> io::Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}
