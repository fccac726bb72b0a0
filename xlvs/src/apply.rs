//! A director's state as a file: `xlvs check-config`, `apply`, `reload`, `diff` and `save`.
//!
//! Two languages are read: `xlvs.toml`, and the rules that `ipvsadm-save` writes. Which one a file is in, its first line
//! shows.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use xlvs_ipvsadm::{Rule, System, read_script, script, unsaid};
use xlvs_model::Config;
use xlvs_model::watch::Pool;

use crate::client::Client;
use crate::paths::Paths;
use crate::protocol::{Answer, Request};

/// What to apply, and how.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// What there is to be: an xlvs.toml, or rules as `ipvsadm-save` and `xlvs save --rules` write them; `-`: standard input.
    /// Services that it does not name are deleted.
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

/// What to look at.
#[derive(Args, Clone, Debug)]
pub struct CheckOptions {
    /// An xlvs.toml, or rules; `-`: standard input.
    file: PathBuf,
}

/// What to compare.
#[derive(Args, Clone, Debug)]
pub struct DiffOptions {
    /// An xlvs.toml; unless named, the file that the daemon was started with.
    file: Option<PathBuf>,
    /// The director's places.
    #[command(flatten)]
    paths: Paths,
}

/// What to print.
#[derive(Args, Clone, Debug)]
pub struct SaveOptions {
    /// As rules that `ipvsadm -R` reads too, without checks, agents and interfaces, for which it has no words.
    #[arg(long)]
    rules: bool,
    /// The director's places.
    #[command(flatten)]
    paths: Paths,
}

/// A file, read and found right.
enum Wanted {
    /// An `xlvs.toml`, with its text.
    Config(Box<Config>, String),
    /// Rules.
    Rules(Vec<Rule>),
}

impl Wanted {
    fn read(file: &Path) -> anyhow::Result<Self> {
        let bytes = read(file)?;
        if is_rules(&bytes) {
            return Ok(Self::Rules(read_script(&bytes, &System::default())?));
        }
        let text = String::from_utf8(bytes).context("the file is not in UTF-8")?;
        match Config::read(&text) {
            Ok(config) => Ok(Self::Config(Box::new(config), text)),
            Err(mistakes) => bail!("\n{}", mistakes.in_file(&name(file))),
        }
    }
}

/// The first line of rules is a command; that of an `xlvs.toml` never looks like one.
fn is_rules(bytes: &[u8]) -> bool {
    let mut lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with(b"#")).unwrap_or_default();
    let word = first.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    let is_key = first[word.len()..].trim_ascii_start().starts_with(b"=");
    first.starts_with(b"-") || [&b"ipvsadm"[..], b"tune", b"mark"].contains(&word) && !is_key
}

/// Says what is wrong with a file, or how much it speaks of.
pub fn check(options: &CheckOptions) -> anyhow::Result<ExitCode> {
    let name = name(&options.file);
    match Wanted::read(&options.file) {
        Ok(Wanted::Config(config, _)) => println!("{name} is in order: {}", summary(&config)),
        Ok(Wanted::Rules(rules)) => println!("{name} is in order: {} rules", rules.len()),
        Err(why) => {
            eprintln!("{}", format!("{why:#}").trim_start());
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn summary(config: &Config) -> String {
    let services = config.model.services();
    let servers: usize = services.iter().map(|service| service.servers.len()).sum();
    let watched = |count: fn(&Pool) -> usize| config.pools.values().map(count).sum::<usize>();
    let checks = watched(|pool| pool.servers.values().map(|watch| watch.checks.len()).sum());
    let agents = watched(|pool| pool.servers.values().filter(|watch| watch.agent.is_some()).count());
    [(services.len(), "service"), (servers, "server"), (checks, "check"), (agents, "agent")]
        .map(|(n, what)| format!("{n} {what}{}", plural(n)))
        .join(", ")
}

/// Makes the director what the file says, or changes nothing.
pub fn apply(options: &Options) -> anyhow::Result<ExitCode> {
    let Options { file, plan: only_plan, in_order, paths } = options;
    let (in_order, only_plan, name) = (*in_order, *only_plan, name(file));
    let wanted = Wanted::read(file).with_context(|| format!("{name}: nothing was changed"))?;
    let by = format!("apply {name}");
    let (request, rules) = match wanted {
        Wanted::Config(_, text) => (Request::Configure { text, in_order, only_plan, by }, Vec::new()),
        Wanted::Rules(rules) => {
            let changes = rules.iter().map(|rule| rule.change.clone()).collect();
            (Request::Become { changes, in_order, only_plan, by }, rules)
        }
    };
    match Client::connected(paths)?.ask(&request)? {
        Answer::Plan(sentences) => tell(&sentences, only_plan),
        Answer::Refused(at, why) => {
            let mistake = rules.get(at).map(|rule: &Rule| rule.refused(&why).to_string());
            bail!("{name}: nothing was changed: {}", mistake.unwrap_or_else(|| why.to_string()))
        }
        other => Err(other.unexpected().into()),
    }
}

/// Has the daemon read its file again.
pub fn reload(paths: &Paths) -> anyhow::Result<ExitCode> {
    match Client::connected(paths)?.ask(&Request::Reload)? {
        Answer::Plan(sentences) => tell(&sentences, false),
        other => Err(other.unexpected().into()),
    }
}

/// Shows in what the running director differs from a file. Exit code 1: it does.
pub fn diff(options: &DiffOptions) -> anyhow::Result<ExitCode> {
    let text = match options.file.as_deref().map(Wanted::read).transpose()? {
        None => None,
        Some(Wanted::Config(_, text)) => Some(text),
        Some(Wanted::Rules(_)) => {
            bail!("these are rules; `xlvs apply --plan` compares them with the running director")
        }
    };
    let sentences = match Client::connected(&options.paths)?.ask(&Request::Difference(text))? {
        Answer::Plan(sentences) => sentences,
        other => return Err(other.unexpected().into()),
    };
    if sentences.is_empty() {
        println!("The director is what the file says.");
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    writeln!(out, "From the file to the running director:")?;
    sentences.iter().try_for_each(|sentence| writeln!(out, "  {sentence}"))?;
    out.flush()?;
    Ok(ExitCode::FAILURE)
}

/// Shows what was or would be changed.
pub fn tell(sentences: &[String], only_plan: bool) -> anyhow::Result<ExitCode> {
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

fn name(file: &Path) -> String {
    if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() }
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
pub fn save(options: &SaveOptions) -> anyhow::Result<ExitCode> {
    let request = if options.rules { Request::Model } else { Request::Saved };
    let text = match Client::connected(&options.paths)?.ask(&request)? {
        Answer::Model(model) => {
            let unsaid = model.services().iter().filter_map(|service| unsaid(&service.spec));
            unsaid.for_each(|unsaid| eprintln!("{unsaid}"));
            script(&model)
        }
        Answer::Text(text) => text,
        other => return Err(other.unexpected().into()),
    };
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_and_configurations_are_told_apart_by_their_first_line() {
        for rules in [
            "-A -t 10.0.0.1:80",
            "# saved\n\n  --set 1 2 3",
            "ipvsadm -A -f 1",
            "tune drop_entry=3",
            "mark 7",
        ] {
            assert!(is_rules(rules.as_bytes()), "{rules}");
        }
        for config in [
            "",
            "# nothing",
            "[[service]]",
            "interfaces = [\"eth0\"]",
            "\n[tunables]\n",
            "mark = 7",
            "mark=7",
        ] {
            assert!(!is_rules(config.as_bytes()), "{config}");
        }
    }
}
