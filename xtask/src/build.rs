//! The release binary, with the eBPF objects in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::ebpf::{self, Objects};
use crate::place;
use crate::process::{host_cargo, run};

/// Builds the objects and the binary, and makes `ipvsadm` a link to it.
pub fn build() -> Result<(PathBuf, Objects)> {
    let objects = ebpf::build()?;
    println!("==> building the binary");
    run(with_objects(&mut host_cargo(), &objects).args(["build", "--release", "--package", "xlvs"]))?;
    let binary = place::binary();
    link_ipvsadm(&binary).with_context(|| format!("link ipvsadm beside {}", binary.display()))?;
    println!("    {}", binary.display());
    Ok((binary, objects))
}

/// Tells the build scripts of the crates that embed an object where it lies.
pub fn with_objects<'a>(cargo: &'a mut Command, objects: &Objects) -> &'a mut Command {
    cargo.current_dir(place::root());
    cargo.env("XLVS_EBPF_OBJECT", &objects.director).env("XLVS_TRACED_OBJECT", &objects.traced);
    cargo.env("XLVS_TC_OBJECT", &objects.tc).env("XLVS_TC_TRACED_OBJECT", &objects.tc_traced);
    cargo.env("XLVS_EDGE_OBJECT", &objects.edge);
    cargo.env("XLVS_BENCH_OBJECT", &objects.bench).env("XLVS_REALSERVER_OBJECT", &objects.realserver)
}

fn link_ipvsadm(binary: &Path) -> std::io::Result<()> {
    let link = binary.with_file_name("ipvsadm");
    match std::fs::read_link(&link) {
        Ok(target) if target == Path::new("xlvs") => return Ok(()),
        Ok(_) => std::fs::remove_file(&link)?,
        Err(_) => {}
    }
    std::os::unix::fs::symlink("xlvs", &link)
}
