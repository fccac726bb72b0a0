//! Commands: said before they run, checked after.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// A command that does not inherit what `cargo run` and rustup left in our environment: the eBPF
/// crate is built by another compiler, which `RUSTUP_TOOLCHAIN` or `RUSTFLAGS` would mislead.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    without(program, |name| leaks_package(name) || leaks_toolchain(name))
}

/// The cargo that runs us, with the toolchain that was asked for.
pub fn host_cargo() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    without(cargo, leaks_package)
}

/// Prints the command, runs it with our output, and fails when it fails.
pub fn run(command: &mut Command) -> Result<()> {
    println!("    $ {}", show(command));
    let status = command.status().with_context(|| format!("start {}", show(command)))?;
    ensure!(status.success(), "`{}` failed ({status})", show(command));
    Ok(())
}

/// What the command prints, or an error that carries what it complained of.
pub fn capture(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {}", show(command)))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{}` failed: {}", show(command), complaint.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether the command can be run and succeeds, whatever it prints.
pub fn succeeds(command: &mut Command) -> bool {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Whether we are root.
pub fn is_root() -> bool {
    // The owner of our own entry in /proc is our effective user.
    std::fs::metadata("/proc/self").is_ok_and(|entry| std::os::unix::fs::MetadataExt::uid(&entry) == 0)
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

fn without(program: impl AsRef<OsStr>, leaks: impl Fn(&str) -> bool) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(&leaks) {
            command.env_remove(name);
        }
    }
    command
}

/// Set by `cargo run` for the package it runs. `LD_LIBRARY_PATH` then names that compiler's own
/// libraries, which another compiler must not find first.
fn leaks_package(name: &str) -> bool {
    ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_", "CARGO_CRATE_"]
        .iter()
        .any(|start| name.starts_with(start))
        || ["CARGO_PRIMARY_PACKAGE", "OUT_DIR", "LD_LIBRARY_PATH", "RUST_RECURSION_COUNT"].contains(&name)
}

/// What chooses a compiler, its flags or its target directory.
fn leaks_toolchain(name: &str) -> bool {
    ["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_", "CARGO_ENCODED_", "RUSTC", "RUSTDOC"]
        .iter()
        .any(|start| name.starts_with(start))
        || ["CARGO", "CARGO_INCREMENTAL", "RUSTFLAGS", "RUSTUP_TOOLCHAIN", "RUSTUP_TOOLCHAIN_SOURCE"]
            .contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registry_and_proxy_settings_survive_while_the_compiler_choice_does_not() {
        for kept in ["CARGO_HOME", "CARGO_HTTP_CAINFO", "CARGO_REGISTRIES_X_INDEX", "RUSTUP_HOME", "PATH"] {
            assert!(!leaks_package(kept) && !leaks_toolchain(kept), "{kept}");
        }
        for gone in ["RUSTC", "RUSTC_WRAPPER", "RUSTFLAGS", "RUSTUP_TOOLCHAIN", "CARGO_TARGET_DIR"] {
            assert!(leaks_toolchain(gone), "{gone}");
        }
    }
}
