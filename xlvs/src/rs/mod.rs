//! `xlvs rs`: the real server's side. Needs no director on this host.

mod agent;
mod down;
mod status;
mod up;
mod verify;
mod wanted;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use xlvs_realserver::{Kernel, Left, Permanent, Setting, State, Store};

/// What to do with this host.
#[derive(Subcommand)]
pub enum Command {
    /// Make it a real server; again with something else to change that. All or nothing.
    Up(up::Options),
    /// Put everything back as it was before.
    Down(down::Options),
    /// Show what was set, whether it still holds, and what the tunnel end has seen.
    Status(status::Options),
    /// Say what is wrong with it, a line a finding, with what to do; exit code 1: something does not work.
    Verify(verify::Options),
    /// Tell directors what share of its weight this server wants, by its load: HAProxy's agent-check protocol.
    Agent(agent::Options),
}

/// Does it.
pub fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(options) => up::run(options),
        Command::Down(options) => down::run(options),
        Command::Status(options) => status::run(options),
        Command::Verify(options) => verify::run(options),
        Command::Agent(options) => agent::run(options),
    }
}

/// The director's, too, whose files have other names.
const RUN_DIR: &str = "/run/xlvs";

/// Where things are kept.
#[derive(Args, Clone, Debug)]
struct Place {
    /// Directory of the state file, which says what there was before.
    #[arg(long, env = "XLVS_RUN_DIR", default_value = RUN_DIR, value_name = "DIR")]
    run_dir: PathBuf,
    /// In place of /etc, for what is permanent.
    #[arg(long, default_value = "/etc", value_name = "DIR", hide = true)]
    etc: PathBuf,
}

impl Place {
    fn store(&self) -> Store {
        Store::in_directory(&self.run_dir)
    }

    /// The words that name another place than the usual one.
    fn words(&self) -> Vec<String> {
        if self.run_dir == Path::new(RUN_DIR) {
            return Vec::new();
        }
        vec!["--run-dir".to_owned(), self.run_dir.to_string_lossy().into_owned()]
    }

    fn permanent(&self) -> Permanent {
        Permanent::below(&self.etc)
    }
}

fn require_root(command: &str) -> anyhow::Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "`xlvs rs {command}` works on addresses, kernel parameters and programs: run it as root"
    );
    Ok(())
}

/// This host, with the tunnel ends that were put on it.
fn kernel(state: Option<&State>) -> anyhow::Result<Kernel> {
    let made = state.map(|state| state.made.as_slice()).unwrap_or_default();
    let setups = made.iter().filter_map(|(setting, _)| match setting {
        Setting::TunnelEnd(setup) => Some(setup.clone()),
        _ => None,
    });
    Kernel::open(setups.collect()).context("open a netlink socket")
}

/// Says what was left as it is. Returns whether all went well.
fn tell_left(left: &[Left]) -> bool {
    for left in left {
        match left {
            Left::Changed(setting) => {
                eprintln!(
                    "xlvs: left as it is, since somebody has changed it after `{}`",
                    setting.in_words()
                );
            }
            Left::Failed(setting, why) => {
                eprintln!("xlvs: `{}` could not be taken back: {why}", setting.in_words())
            }
        }
    }
    !left.iter().any(|left| matches!(left, Left::Failed(..)))
}
