//! Debian and Ubuntu packages.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::process::{capture, is_root, run, succeeds};

/// Whether this system has apt at all.
pub fn exists() -> bool {
    succeeds(Command::new("apt-get").arg("--version"))
        && succeeds(Command::new("dpkg-query").arg("--version"))
}

/// Those of the packages that are not installed.
pub fn missing<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    packages.iter().copied().filter(|package| !is_installed(package)).collect()
}

/// Whether apt could install all of them, after refreshing its lists when it could not before.
pub fn offers(packages: &[&str]) -> bool {
    let known = || packages.iter().all(|package| has_candidate(package));
    known() || (is_root() && refresh().is_ok() && known())
}

/// Installs those of the packages that are missing; says so first. Needs root and a network only
/// when there is something to install.
pub fn ensure_installed(packages: &[&str], what_for: &str) -> Result<()> {
    let missing = missing(packages);
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    ensure!(exists(), "{what_for} needs these programs, and there is no apt to install them: {list}");
    ensure!(
        is_root(),
        "{what_for} needs packages; as root, run: apt-get install --no-install-recommends {list}"
    );
    println!("==> {what_for} needs packages that are not here; installing: {list}");
    if !missing.iter().all(|package| has_candidate(package)) {
        refresh()?;
    }
    // Package lists grow old: a version they name may be gone from the mirror.
    install(&missing).or_else(|_| refresh().and_then(|()| install(&missing)))
}

fn install(packages: &[&str]) -> Result<()> {
    let mut apt = Command::new("apt-get");
    apt.args(["install", "-y", "-q", "--no-install-recommends"]).args(packages);
    run(apt.env("DEBIAN_FRONTEND", "noninteractive"))
}

fn refresh() -> Result<()> {
    run(Command::new("apt-get").args(["update", "-q"]))
}

fn is_installed(package: &str) -> bool {
    let status = capture(Command::new("dpkg-query").args(["-W", "-f", "${Status}", package]));
    status.is_ok_and(|status| status.ends_with(" installed"))
}

fn has_candidate(package: &str) -> bool {
    let policy = capture(Command::new("apt-cache").args(["policy", package]));
    policy.is_ok_and(|text| text.contains("Candidate:") && !text.contains("Candidate: (none)"))
}
