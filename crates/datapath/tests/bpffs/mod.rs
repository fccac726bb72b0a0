//! A BPF file system of the test's own.

use std::path::PathBuf;

/// Where one is mounted, until the test ends.
pub struct BpfFs(pub PathBuf);

impl BpfFs {
    /// A place of this name. [`xlvs_datapath::xdp::Pins::on`] mounts it.
    pub fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("xlvs-t{}-{name}", std::process::id())))
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        let _unmounted = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
        let _removed = std::fs::remove_dir(&self.0);
    }
}
