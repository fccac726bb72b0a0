//! `xlvs rs up`.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use xlvs_realserver::{Wish, plan};

use super::wanted::Wanted;
use super::{Place, kernel, require_root, tell_left};

/// What the host is to be, and how to go about it.
#[derive(Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    wanted: Wanted,
    /// Also write a systemd unit and a file for sysctl.d that do the same after a reboot.
    #[arg(long)]
    permanent: bool,
    /// Change nothing; print the commands that would do the same.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    place: Place,
}

/// Sets the host up, or says how. Exit code 1: something of an earlier set-up could not be taken back.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let wish = options.wanted.wish();
    if options.dry_run {
        return say_how(&wish);
    }
    require_root("up")?;
    let store = options.place.store();
    let _lock = store.lock()?;
    let files = options.place.permanent();
    let old = store.read()?.or_else(|| files.remembered());
    let mut kernel = kernel(old.as_ref())?;
    let sight = kernel.sight().context("look at this host's devices and addresses")?;
    let plan = plan(&wish, &sight)?;
    let done = xlvs_realserver::up(&mut kernel, &store, old, &wish, plan)?;
    done.made.iter().for_each(|setting| println!("{setting}"));
    if done.made.is_empty() {
        println!("all of it is so already");
    }
    if options.permanent {
        let binary = std::env::current_exe().context("find this program")?;
        files
            .write(&binary, &options.place.words(), &done.state)
            .context("write the systemd unit and the file for sysctl.d")?;
        println!("{} and {} do the same after a reboot", files.unit.display(), files.sysctls.display());
    }
    Ok(if tell_left(&done.left) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Changes nothing, and asks for no more rights than that takes.
fn say_how(wish: &Wish) -> anyhow::Result<ExitCode> {
    let sight = kernel(None)?.sight().context("look at this host's devices and addresses")?;
    plan(wish, &sight)?.iter().for_each(|setting| println!("{setting}"));
    Ok(ExitCode::SUCCESS)
}
