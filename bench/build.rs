//! Finds the harness's object to embed. Without it the crate builds all the same, and says so when it should load it.

use std::env;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=XLVS_BENCH_OBJECT");
    let object =
        env::var_os("XLVS_BENCH_OBJECT").map_or_else(|| target().join("ebpf/xlvs-bench"), PathBuf::from);
    println!("cargo::rerun-if-changed={}", object.display());
    let embedded = if object.is_file() {
        object.canonicalize().expect("it is there")
    } else {
        let empty = Path::new(&env::var_os("OUT_DIR").expect("cargo sets it")).join("xlvs-bench");
        std::fs::write(&empty, []).expect("the build directory is writable");
        empty
    };
    println!("cargo::rustc-env=XLVS_BENCH_OBJECT_FOUND={}", embedded.display());
}

fn target() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir))
}
