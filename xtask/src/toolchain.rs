//! The compiler and linker of the eBPF objects: found, or installed once.
//!
//! Two kinds work. Debian has a compiler with `core` ready-made for BPF, so it needs neither
//! nightly nor `-Zbuild-std`. Elsewhere it is aya's usual way: rustup's nightly with `rust-src`.
//! Both want a `bpf-linker` built against the LLVM of the very compiler that makes the bitcode.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::process::{capture, command, run, succeeds};
use crate::{apt, place};

const LINKER_VERSION: &str = "0.13.0";
const TARGET: &str = "bpfel-unknown-none";
const DEBIAN_COMPILER: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];

/// What builds the eBPF crate.
pub struct Toolchain {
    compiler: Compiler,
    linker: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Compiler {
    /// `/usr/bin/rustc` with Debian's prebuilt `core` for BPF.
    Debian,
    /// rustup's nightly, which builds `core` itself.
    Nightly,
}

impl Toolchain {
    /// What is there already, else what can be installed. Touches no network when all is there.
    pub fn find_or_install() -> Result<Toolchain> {
        let compiler = Compiler::find().map_or_else(Compiler::install, Ok)?;
        let linker = find_linker(compiler)?.map_or_else(|| install_linker(compiler), Ok)?;
        Ok(Toolchain { compiler, linker })
    }

    /// A cargo that builds for the eBPF target, in release mode.
    pub fn cargo_build(&self) -> Command {
        let mut cargo = self.compiler.cargo();
        cargo.args(["build", "--release", "--target", TARGET]).env("RUSTFLAGS", self.rustflags());
        if self.compiler == Compiler::Nightly {
            cargo.arg("-Zbuild-std=core");
        }
        cargo
    }

    /// The name of the eBPF target, which is also a directory below cargo's target directory.
    pub fn target(&self) -> &'static str {
        TARGET
    }

    // v3 instructions: without them there is no compare-and-swap, and no 32-bit atomics. The linker would otherwise forbid the compiler
    // to write out small fills of memory, and each would be a call of a loop that stores byte after byte.
    fn rustflags(&self) -> String {
        let linker = self.linker.display();
        let written_out = "-C link-arg=--disable-expand-memcpy-in-order";
        format!("-C linker={linker} -C link-arg=--btf {written_out} -C target-cpu=v3 -C debuginfo=2")
    }
}

impl Compiler {
    fn find() -> Option<Compiler> {
        [Compiler::Debian, Compiler::Nightly].into_iter().find(|compiler| compiler.is_complete())
    }

    fn install() -> Result<Compiler> {
        if apt::exists() && apt::offers(&DEBIAN_COMPILER) {
            apt::ensure_installed(&DEBIAN_COMPILER, "building the eBPF objects")?;
            ensure!(
                Compiler::Debian.is_complete(),
                "{DEBIAN_COMPILER:?} are installed but have no core for {TARGET}"
            );
            return Ok(Compiler::Debian);
        }
        if succeeds(command("rustup").arg("--version")) {
            println!("==> building the eBPF objects needs a nightly compiler; installing it with rustup");
            run(command("rustup").args("toolchain install nightly --profile minimal -c rust-src".split(' ')))?;
            return Ok(Compiler::Nightly);
        }
        bail!(
            "the eBPF objects need a compiler for {TARGET}: install rustup (https://rustup.rs) and run this again"
        )
    }

    fn is_complete(self) -> bool {
        match self {
            Compiler::Debian => Path::new("/usr/bin/cargo").exists() && has_core(&self.sysroot()),
            Compiler::Nightly => {
                self.sysroot().is_some_and(|root| root.join("lib/rustlib/src/rust/library").exists())
            }
        }
    }

    fn sysroot(self) -> Option<PathBuf> {
        let root = capture(self.rustc().args(["--print", "sysroot"])).ok()?;
        Some(PathBuf::from(root.trim()))
    }

    fn rustc(self) -> Command {
        match self {
            Compiler::Debian => command("/usr/bin/rustc"),
            Compiler::Nightly => on_nightly("rustc"),
        }
    }

    fn cargo(self) -> Command {
        match self {
            Compiler::Debian => {
                let mut cargo = command("/usr/bin/cargo");
                // A stable compiler opens its atomics intrinsics only when told that it is built for that.
                cargo.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
            Compiler::Nightly => on_nightly("cargo"),
        }
    }

    fn llvm(self) -> Result<u32> {
        let version = capture(self.rustc().arg("-vV"))?;
        llvm_of(&version)
            .with_context(|| format!("no LLVM version in what the compiler says of itself:\n{version}"))
    }
}

fn on_nightly(program: &str) -> Command {
    let mut rustup = command("rustup");
    rustup.args(["run", "nightly", program]);
    rustup
}

fn has_core(sysroot: &Option<PathBuf>) -> bool {
    let Some(root) = sysroot else { return false };
    let Ok(files) = std::fs::read_dir(root.join("lib/rustlib").join(TARGET).join("lib")) else {
        return false;
    };
    files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libcore-"))
}

fn llvm_of(version: &str) -> Option<u32> {
    let line = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    line.split('.').next()?.parse().ok()
}

/// The linker of our cache; one from elsewhere might be built against another LLVM.
fn find_linker(compiler: Compiler) -> Result<Option<PathBuf>> {
    let linker = linker_home(compiler)?.join("bin/bpf-linker");
    Ok(succeeds(command(&linker).arg("--version")).then_some(linker))
}

fn linker_home(compiler: Compiler) -> Result<PathBuf> {
    Ok(place::cache()?.join(format!("bpf-linker-{LINKER_VERSION}-llvm{}", compiler.llvm()?)))
}

fn install_linker(compiler: Compiler) -> Result<PathBuf> {
    let (llvm, home) = (compiler.llvm()?, linker_home(compiler)?);
    let prefix = llvm_prefix(llvm)?;
    println!(
        "==> building bpf-linker {LINKER_VERSION} for LLVM {llvm} into {} (a minute or two, once)",
        home.display()
    );
    let mut cargo = compiler.cargo();
    cargo.args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--force"]);
    cargo.args(["--no-default-features", "--features", &format!("llvm-{llvm}")]);
    cargo.arg("--root").arg(&home);
    // LLVM_PREFIX is where its build looks for libLLVM; without it the link fails.
    run(cargo.env("LLVM_PREFIX", prefix)).context("bpf-linker could not be built")?;
    find_linker(compiler)?.with_context(|| format!("{} holds no working bpf-linker", home.display()))
}

fn llvm_prefix(llvm: u32) -> Result<PathBuf> {
    let (dev, compression) = (format!("llvm-{llvm}-dev"), "libzstd-dev");
    if let Some(told) = std::env::var_os("LLVM_PREFIX") {
        return Ok(PathBuf::from(told));
    }
    if apt::exists() && apt::offers(&[&dev, compression]) {
        apt::ensure_installed(&[&dev, compression], "building bpf-linker")?;
    }
    let usual = [format!("/usr/lib/llvm-{llvm}"), format!("/usr/lib64/llvm{llvm}"), "/usr".to_owned()];
    let found = usual.iter().map(PathBuf::from).find(|prefix| is_llvm(prefix, llvm));
    found.with_context(|| {
        format!("bpf-linker needs LLVM {llvm}'s development files: install them, or set LLVM_PREFIX")
    })
}

fn is_llvm(prefix: &Path, llvm: u32) -> bool {
    let version = capture(command(prefix.join("bin/llvm-config")).arg("--version"));
    version.is_ok_and(|version| version.starts_with(&format!("{llvm}.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llvm_version_is_read_from_rustc() {
        assert_eq!(llvm_of("rustc 1.96.0\nrelease: 1.96.0\nLLVM version: 22.1.8\n"), Some(22));
        assert_eq!(llvm_of("rustc 1.96.0\n"), None);
    }
}
