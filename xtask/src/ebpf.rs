//! Builds `ebpf/` and leaves its objects where the host crates look for them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::process::run;
use crate::toolchain::Toolchain;
use crate::{place, symbols};

/// The finished objects.
pub struct Objects {
    /// The director's programs and maps.
    pub director: PathBuf,
    /// The same, in the edition that tells what becomes of packets.
    pub traced: PathBuf,
    /// The director's programs at the tc hook.
    pub tc: PathBuf,
    /// The same, in the edition that tells what becomes of packets.
    pub tc_traced: PathBuf,
    /// The real server's tunnel end.
    pub realserver: PathBuf,
    /// The lab's own program, for the far ends of its links.
    pub edge: PathBuf,
    /// The benchmark's harness.
    pub bench: PathBuf,
}

/// Builds the objects, checks their symbols, and copies them to `target/ebpf/`.
pub fn build() -> Result<Objects> {
    let toolchain = Toolchain::find_or_install()?;
    println!("==> building the eBPF objects");
    let build_dir = place::objects().join("build");
    let built = build_dir.join(toolchain.target()).join("release");
    let build = |words: &[&str]| {
        let mut cargo = toolchain.cargo_build();
        run(cargo.current_dir(place::root().join("ebpf")).arg("--target-dir").arg(&build_dir).args(words))
    };
    build(&["--features", "traced", "--bin", "xlvs-ebpf", "--bin", "xlvs-tc"])?;
    let traced = publish(&built, "xlvs-ebpf", "xlvs-traced")?;
    let tc_traced = publish(&built, "xlvs-tc", "xlvs-tc-traced")?;
    build(&[])?;
    Ok(Objects {
        traced,
        tc_traced,
        director: publish(&built, "xlvs-ebpf", "xlvs-ebpf")?,
        tc: publish(&built, "xlvs-tc", "xlvs-tc")?,
        realserver: publish(&built, "xlvs-realserver", "xlvs-realserver")?,
        edge: publish(&built, "xlvs-edge", "xlvs-edge")?,
        bench: publish(&built, "xlvs-bench", "xlvs-bench")?,
    })
}

fn publish(built: &Path, name: &str, published: &str) -> Result<PathBuf> {
    let from = built.join(name);
    ensure!(from.exists(), "ebpf/ built no object named {name}");
    symbols::refuse_panics(&from)?;
    let to = place::objects().join(published);
    copy_if_changed(&from, &to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    println!("    {}", to.display());
    Ok(to)
}

/// An unchanged object keeps its time stamp, so that the crates which embed it are not built again.
fn copy_if_changed(from: &Path, to: &Path) -> std::io::Result<()> {
    let new = std::fs::read(from)?;
    if std::fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    std::fs::write(to, new)
}
