//! `xlvs unload`: the director leaves.

use std::process::ExitCode;

use anyhow::{Context, bail};
use xlvs_datapath::xdp::Pins;

use crate::daemon::lock::Lock;
use crate::paths::Paths;

/// Removes pins and state. Refuses while a daemon runs.
pub fn run(paths: &Paths) -> anyhow::Result<ExitCode> {
    let Some(_lock) = Lock::take(&paths.lock())? else {
        bail!("a daemon is running on {}; stop it first", paths.run_dir.display());
    };
    let removed = Pins::on(&paths.bpffs)?.remove()?;
    for left in [paths.journal(), paths.policy(), paths.health()] {
        match std::fs::remove_file(&left) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(e).with_context(|| format!("remove {}", left.display()));
            }
            _ => {}
        }
    }
    println!("{}", if removed { "The director is unloaded." } else { "No director was loaded." });
    Ok(ExitCode::SUCCESS)
}
