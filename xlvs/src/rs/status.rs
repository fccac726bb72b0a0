//! `xlvs rs status`.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use xlvs_core::tunnel_end::Outcome;
use xlvs_realserver::{Host, Kernel, Setting, State, Wish, tunnel};

use super::{Place, kernel, require_root};
use crate::listings::{json, print};
use crate::paint::Paint;

/// How to show it.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// What there is to show.
#[derive(Serialize)]
struct Status {
    wish: Wish,
    settings: Vec<Shown>,
    tunnel_ends: Vec<Counted>,
}

#[derive(Serialize)]
struct Shown {
    /// As a command.
    setting: String,
    /// Does it still hold?
    holds: bool,
}

#[derive(Serialize)]
struct Counted {
    device: String,
    packets: Vec<Reason>,
}

#[derive(Serialize)]
struct Reason {
    label: &'static str,
    sentence: &'static str,
    packets: u64,
}

/// Shows it. Exit code 1: nothing is set up, or not all of it holds.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let Some(state) = options.place.store().read()? else {
        if options.json {
            println!("null");
        } else {
            println!("nothing is set up here; `xlvs rs up` does it");
        }
        return Ok(ExitCode::FAILURE);
    };
    if state.made.iter().any(|(setting, _)| matches!(setting, Setting::TunnelEnd(_))) {
        // Programs and their counters are root's alone.
        require_root("status")?;
    }
    let status = look(&mut kernel(Some(&state))?, state).context("look at this host's settings")?;
    let all_hold = status.settings.iter().all(|setting| setting.holds);
    print(|out| if options.json { json(out, &status) } else { write(out, &status, Paint::of_stdout()) })?;
    Ok(if all_hold { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn look(kernel: &mut Kernel, state: State) -> io::Result<Status> {
    let mut settings = Vec::new();
    let mut tunnel_ends = Vec::new();
    let devices = kernel.sight()?.devices;
    for (setting, _) in &state.made {
        let holds = setting.holds(&kernel.look(setting)?);
        settings.push(Shown { setting: setting.to_string(), holds });
        let Setting::TunnelEnd(setup) = setting else { continue };
        let Some(device) = devices.iter().find(|device| device.name == setup.device) else { continue };
        if let Some(counters) = tunnel::counters(device)? {
            tunnel_ends.push(Counted { device: device.name.clone(), packets: reasons(counters) });
        }
    }
    Ok(Status { wish: state.wish, settings, tunnel_ends })
}

fn reasons(counters: [u64; Outcome::COUNT]) -> Vec<Reason> {
    let reason = |(outcome, packets): (Outcome, u64)| Reason {
        label: outcome.label(),
        sentence: outcome.sentence(),
        packets,
    };
    Outcome::ALL.into_iter().zip(counters).map(reason).collect()
}

fn write(out: &mut dyn Write, status: &Status, paint: Paint) -> io::Result<()> {
    writeln!(out, "{}", paint.bold(&status.wish.arguments().join(" ")))?;
    for Shown { setting, holds } in &status.settings {
        let mark = if *holds { paint.green("  ok     ") } else { paint.red("  missing") };
        writeln!(out, "{mark}  {setting}")?;
    }
    if status.settings.iter().any(|setting| !setting.holds) {
        writeln!(out, "`xlvs rs up` with the same words makes what is missing again")?;
    }
    for Counted { device, packets } in &status.tunnel_ends {
        writeln!(out, "\n{}", paint.bold(&format!("Tunnels' packets on {device}")))?;
        if packets.iter().all(|reason| reason.packets == 0) {
            writeln!(out, "  none yet")?;
        }
        for Reason { label, sentence, packets } in packets.iter().filter(|reason| reason.packets != 0) {
            writeln!(out, "  {packets:>12}  {label}: {sentence}")?;
        }
    }
    Ok(())
}
