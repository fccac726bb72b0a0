//! One command that shows the director at work.

use anyhow::{Result, ensure};

use crate::process::{host_cargo, is_root, run};
use crate::{apt, build};

/// Builds everything, then plays the lab's demonstration.
pub fn demo() -> Result<()> {
    ensure!(is_root(), "the demo makes network namespaces and attaches XDP programs: run it as root");
    apt::ensure_installed(&["iproute2", "ethtool", "curl"], "the demo")?;
    let (binary, objects) = build::build()?;
    println!("==> laying out the lab");
    let mut demo = host_cargo();
    let demo = build::with_objects(&mut demo, &objects);
    run(demo
        .args(["run", "--quiet", "--release", "--package", "xlvs-lab", "--bin", "xlvs-demo", "--"])
        .arg(binary))
}
