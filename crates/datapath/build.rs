//! Finds the eBPF objects to embed. Without them the crate builds all the same, and says so when it should load them.

use std::env;
use std::path::{Path, PathBuf};

fn main() {
    embed("xlvs-ebpf", "XLVS_EBPF_OBJECT", "XLVS_DIRECTOR_OBJECT");
    embed("xlvs-traced", "XLVS_TRACED_OBJECT", "XLVS_TELLING_OBJECT");
    embed("xlvs-tc", "XLVS_TC_OBJECT", "XLVS_TC_DIRECTOR_OBJECT");
    embed("xlvs-tc-traced", "XLVS_TC_TRACED_OBJECT", "XLVS_TC_TELLING_OBJECT");
}

/// Embeds the object that `given` names, or else the one that the build tool left in the target directory.
fn embed(name: &str, given: &str, variable: &str) {
    println!("cargo:rerun-if-env-changed={given}");
    let object = env::var_os(given).map_or_else(|| default_dir().join(name), PathBuf::from);
    println!("cargo:rerun-if-changed={}", object.display());
    let embedded = if object.is_file() {
        object.canonicalize().expect("it is there")
    } else {
        let empty = Path::new(&env::var_os("OUT_DIR").expect("cargo sets it")).join(name);
        std::fs::write(&empty, []).expect("the build directory is writable");
        empty
    };
    println!("cargo:rustc-env={variable}={}", embedded.display());
}

fn default_dir() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => PathBuf::from(dir).join("ebpf"),
        None => {
            Path::new(&env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../../target/ebpf")
        }
    }
}
