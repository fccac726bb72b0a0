//! Finds the tunnel end's eBPF object. Without it the crate builds all the same, and says so when it should load it.

use std::env;
use std::path::{Path, PathBuf};

const NAME: &str = "xlvs-realserver";
const GIVEN: &str = "XLVS_REALSERVER_OBJECT";

fn main() {
    println!("cargo:rerun-if-env-changed={GIVEN}");
    let object = env::var_os(GIVEN).map_or_else(|| default_dir().join(NAME), PathBuf::from);
    println!("cargo:rerun-if-changed={}", object.display());
    let embedded = if object.is_file() {
        object.canonicalize().expect("it is there")
    } else {
        let empty = Path::new(&env::var_os("OUT_DIR").expect("cargo sets it")).join(NAME);
        std::fs::write(&empty, []).expect("the build directory is writable");
        empty
    };
    println!("cargo:rustc-env=XLVS_TUNNEL_END_OBJECT={}", embedded.display());
}

fn default_dir() -> PathBuf {
    let root = || Path::new(&env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../../target");
    env::var_os("CARGO_TARGET_DIR").map_or_else(root, PathBuf::from).join("ebpf")
}
