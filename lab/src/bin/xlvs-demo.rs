//! `cargo xtask demo` calls this with the binary to show: `xlvs-demo target/release/xlvs`.

use std::path::PathBuf;

use anyhow::{Context, Result};

fn main() -> Result<()> {
    let binary = std::env::args_os().nth(1).map(PathBuf::from).context("usage: xlvs-demo PATH-OF-XLVS")?;
    xlvs_lab::demo::run(&binary, &mut std::io::stdout())
}
