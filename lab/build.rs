//! Puts the lab's edge object into the library when it has been built: `cargo xtask ebpf`.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=XLVS_EDGE_OBJECT");
    println!("cargo::rustc-check-cfg=cfg(edge_object)");
    let object = object();
    println!("cargo::rerun-if-changed={}", object.display());
    if object.exists() {
        println!("cargo::rustc-cfg=edge_object");
        println!("cargo::rustc-env=XLVS_EDGE_OBJECT={}", object.display());
    }
}

fn object() -> PathBuf {
    let told = std::env::var_os("XLVS_EDGE_OBJECT").filter(|path| !path.is_empty());
    told.map_or_else(|| target().join("ebpf/xlvs-edge"), PathBuf::from)
}

fn target() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir))
}
