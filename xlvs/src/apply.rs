//! `xlvs apply` and `xlvs save`: a director's state as a file.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use xlvs_ipvsadm::{Rule, System, read_script, script};

use crate::client::Client;
use crate::paths::Paths;
use crate::protocol::{Answer, Request};

/// What to apply, and how.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// What there is to be, as `xlvs save` or `ipvsadm-save` write it; `-`: standard input. Services that it does not
    /// name are deleted.
    file: PathBuf,
    /// Only say what would change.
    #[arg(long)]
    plan: bool,
    /// Also put servers that are there already into the file's order, in which some schedulers walk them.
    #[arg(long)]
    in_order: bool,
    /// The director's places.
    #[command(flatten)]
    paths: Paths,
}

/// Makes the director what the file says, or changes nothing.
pub fn apply(options: &Options) -> anyhow::Result<ExitCode> {
    let name = options.file.display();
    let rules = read_script(&read(&options.file)?, &System::default())
        .with_context(|| format!("{name}: nothing was changed"))?;
    let request = Request::Become {
        changes: rules.iter().map(|rule| rule.change.clone()).collect(),
        in_order: options.in_order,
        only_plan: options.plan,
    };
    match Client::connected(&options.paths)?.ask(&request)? {
        Answer::Plan(sentences) => tell(&sentences, options.plan),
        Answer::Refused(at, why) => {
            let mistake = rules.get(at).map(|rule: &Rule| rule.refused(&why).to_string());
            bail!("{name}: nothing was changed: {}", mistake.unwrap_or_else(|| why.to_string()))
        }
        other => bail!("the director answered {other:?}; is it another version?"),
    }
}

fn tell(sentences: &[String], only_plan: bool) -> anyhow::Result<ExitCode> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for sentence in sentences {
        writeln!(out, "{sentence}")?;
    }
    match (sentences.len(), only_plan) {
        (0, _) => writeln!(out, "There is nothing to change.")?,
        (n, true) => writeln!(out, "{n} change{} planned, none made.", plural(n))?,
        (n, false) => writeln!(out, "{n} change{} made.", plural(n))?,
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn plural(n: usize) -> &'static str {
    if n == 1 { "" } else { "s" }
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    if file != Path::new("-") {
        return std::fs::read(file).with_context(|| format!("read {}", file.display()));
    }
    let mut text = Vec::new();
    io::stdin().lock().read_to_end(&mut text).context("read standard input")?;
    Ok(text)
}

/// Prints all that an operator has said and not taken back.
pub fn save(paths: &Paths) -> anyhow::Result<ExitCode> {
    match Client::connected(paths)?.ask(&Request::Model)? {
        Answer::Model(model) => {
            io::stdout().lock().write_all(script(&model).as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        other => bail!("the director answered {other:?}; is it another version?"),
    }
}
