//! `xlvs rs down`.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use xlvs_realserver::permanent::UNIT;

use super::{Place, kernel, require_root, tell_left};

/// Where it was set up.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Also remove the files that `up --permanent` wrote.
    #[arg(long)]
    permanent: bool,
    #[command(flatten)]
    place: Place,
}

/// Puts everything back. Exit code 1: something could not be.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    require_root("down")?;
    let store = options.place.store();
    let _lock = store.lock()?;
    let state = store.read()?;
    let well = match xlvs_realserver::down(&mut kernel(state.as_ref())?, &store)? {
        Some(left) => tell_left(&left),
        None => {
            println!("nothing was set up here");
            true
        }
    };
    let files = options.place.permanent();
    if options.permanent {
        files.remove().context("remove the systemd unit and the file for sysctl.d")?;
    } else if files.exists() {
        eprintln!("xlvs: {UNIT} sets it up again after a reboot; `xlvs rs down --permanent` removes it");
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
