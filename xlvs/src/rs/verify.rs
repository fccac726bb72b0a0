//! `xlvs rs verify`.

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use xlvs_realserver::listeners::Port;
use xlvs_realserver::verify::{ask, findings};
use xlvs_realserver::{Finding, Wish};

use super::wanted::Wanted;
use super::{Place, kernel, require_root};
use crate::findings::tell;

/// What the host should be: what `xlvs rs up` has made it, unless told, so that one can be looked at that was set up by hand.
#[derive(Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    wanted: Wanted,
    /// Ports that services should have here: 80, tcp/80 or udp/53.
    #[arg(long, short, value_delimiter = ',', value_name = "PORT")]
    port: Vec<Port>,
    #[command(flatten)]
    place: Place,
}

/// Prints what is wrong. Exit code 1: something does not work.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    require_root("verify")?;
    let state = options.place.store().read()?;
    let mut kernel = kernel(state.as_ref())?;
    let wish: Wish = match state {
        _ if !options.wanted.is_empty() => options.wanted.wish(),
        Some(state) => state.wish,
        None => bail!(
            "nothing was set up here by `xlvs rs up`; say what this host should be: --mode dr --vip VIP"
        ),
    };
    let ports: BTreeSet<_> = options.port.iter().copied().collect();
    let sight = kernel.sight().context("look at this host's devices and addresses")?;
    let asked = ask(&mut kernel, &wish, &sight).context("ask this host's neighbours")?;
    let findings = findings(&wish, &ports, &sight, &asked)?;
    Ok(tell(&findings, Finding::is_fault))
}
