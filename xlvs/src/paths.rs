//! Where a director keeps what it needs.

use std::path::{Path, PathBuf};

use clap::Args;

/// The director's places. One set is one director.
#[derive(Args, Clone, Debug)]
pub struct Paths {
    /// Directory of the control socket and the state file.
    #[arg(long, env = "XLVS_RUN_DIR", default_value = RUN_DIR)]
    pub run_dir: PathBuf,
    /// BPF file system for the pinned programs, maps and links; mounted when it is not there.
    #[arg(long, env = "XLVS_BPFFS", default_value = "/sys/fs/bpf")]
    pub bpffs: PathBuf,
    /// Directory of the revisions of what was applied; unless told /var/lib/xlvs, or for a director with a run directory of
    /// its own one below that.
    #[arg(long, env = "XLVS_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
}

/// The usual run directory.
const RUN_DIR: &str = "/run/xlvs";

impl Paths {
    /// The places that the environment names, for commands that take no options of ours.
    pub fn from_environment() -> Self {
        let of = |name: &str, usual: &str| std::env::var_os(name).map_or_else(|| usual.into(), PathBuf::from);
        Self {
            run_dir: of("XLVS_RUN_DIR", RUN_DIR),
            bpffs: of("XLVS_BPFFS", "/sys/fs/bpf"),
            state_dir: std::env::var_os("XLVS_STATE_DIR").map(PathBuf::from),
        }
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("control.sock")
    }

    /// The socket that HTTP is spoken on.
    pub fn api_socket(&self) -> PathBuf {
        self.run_dir.join("api.sock")
    }

    /// The lock that the daemon holds.
    pub fn lock(&self) -> PathBuf {
        self.run_dir.join("lock")
    }

    /// The journal of the pinned state.
    pub fn journal(&self) -> PathBuf {
        self.run_dir.join("state.jsonl")
    }

    /// What rules beside services and servers: how they are looked after, and where. It lives as long as the pins.
    pub fn policy(&self) -> PathBuf {
        self.run_dir.join("policy.toml")
    }

    /// What is known of servers, and what of them is not in force as stated. It lives as long as the pins.
    pub fn health(&self) -> PathBuf {
        self.run_dir.join("health.json")
    }

    /// The revisions of what was applied, which survive a restart of the machine.
    pub fn revisions(&self) -> PathBuf {
        let usual = || match self.run_dir == Path::new(RUN_DIR) {
            true => "/var/lib/xlvs".into(),
            false => self.run_dir.join("lib"),
        };
        self.state_dir.clone().unwrap_or_else(usual).join("revisions")
    }
}
