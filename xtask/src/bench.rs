//! What packets cost, in one command.

use anyhow::{Result, ensure};

use crate::ebpf::Objects;
use crate::process::{host_cargo, is_root, run};
use crate::{apt, build, place};

/// What lays out networks, and whom we are measured beside.
const PACKAGES: [&str; 7] =
    ["iproute2", "ethtool", "curl", "nftables", "haproxy", "nginx-light", "libnginx-mod-stream"];

/// Builds everything, then measures; `words` are the benchmark's own. Returns the objects that were measured.
pub fn bench(words: &[String]) -> Result<Objects> {
    ensure!(is_root(), "the benchmark loads eBPF programs: run it as root");
    apt::ensure_installed(&PACKAGES, "the benchmark")?;
    let (_binary, objects) = build::build()?;
    println!("==> measuring");
    let mut bench = host_cargo();
    let bench = build::with_objects(&mut bench, &objects);
    run(bench
        .current_dir(place::root())
        .args(["run", "--quiet", "--release", "--package", "xlvs-bench", "--"])
        .args(words))?;
    Ok(objects)
}
