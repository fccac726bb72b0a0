//! Where a director keeps what it needs.

use std::path::PathBuf;

use clap::Args;

/// The director's places. One set is one director.
#[derive(Args, Clone, Debug)]
pub struct Paths {
    /// Directory of the control socket and the state file.
    #[arg(long, env = "XLVS_RUN_DIR", default_value = "/run/xlvs")]
    pub run_dir: PathBuf,
    /// BPF file system for the pinned programs, maps and links; mounted when it is not there.
    #[arg(long, env = "XLVS_BPFFS", default_value = "/sys/fs/bpf")]
    pub bpffs: PathBuf,
}

impl Paths {
    /// The places that the environment names, for commands that take no options of ours.
    pub fn from_environment() -> Self {
        let of = |name: &str, usual: &str| std::env::var_os(name).map_or_else(|| usual.into(), PathBuf::from);
        Self { run_dir: of("XLVS_RUN_DIR", "/run/xlvs"), bpffs: of("XLVS_BPFFS", "/sys/fs/bpf") }
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("control.sock")
    }

    /// The lock that the daemon holds.
    pub fn lock(&self) -> PathBuf {
        self.run_dir.join("lock")
    }

    /// The journal of the pinned state.
    pub fn journal(&self) -> PathBuf {
        self.run_dir.join("state.jsonl")
    }
}
