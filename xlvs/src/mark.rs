//! `xlvs mark`: which packets carry which mark. Netfilter's marks are set after XDP, so the director has rules of its own.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use xlvs_model::iptables::{self, Imported, Reading};
use xlvs_model::marks::Parts;
use xlvs_model::{Change, Family, MarkRule};

use crate::client::Client;
use crate::listings::{json, print};
use crate::paths::Paths;
use crate::protocol::{Answer, Request};

/// What to do.
#[derive(Args, Clone, Debug)]
pub struct Options {
    #[command(subcommand)]
    action: Action,
    /// The director's places.
    #[command(flatten)]
    paths: Paths,
}

#[derive(Subcommand, Clone, Debug)]
enum Action {
    /// Add a rule; of several that fit a packet, the last counts.
    Add(Rule),
    /// Delete a rule, said as it was added.
    Delete(Rule),
    /// Show the rules, as they are added.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Add the rules that mark packets in a file of `iptables-save`: all of them, or none if one cannot be taken.
    Import(Import),
}

#[derive(Args, Clone, Debug)]
struct Import {
    /// The file; `-`: standard input.
    file: PathBuf,
    /// It is of `ip6tables-save`.
    #[arg(long, short = '6')]
    ipv6: bool,
    /// Take rules of one interface (`-i`) for all interfaces of the director.
    #[arg(long)]
    any_interface: bool,
    /// Show the rules, and add none.
    #[arg(long)]
    plan: bool,
}

#[derive(Args, Clone, Debug)]
struct Rule {
    /// The mark, from 1 on.
    mark: u32,
    /// Destination: an address or a prefix (192.0.2.0/24).
    #[arg(long, value_name = "ADDRESS[/PREFIX]")]
    to: Option<String>,
    /// Destination port or ports (5000-5999); any unless told.
    #[arg(long, value_name = "PORT[-PORT]")]
    port: Option<String>,
    /// tcp, udp or sctp; all unless told.
    #[arg(long)]
    protocol: Option<String>,
    /// IPv6; needed only without an address.
    #[arg(long, short = '6')]
    ipv6: bool,
}

/// Does it.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    match &options.action {
        Action::Add(rule) => apply(&options.paths, vec![Change::AddMark(rule.read()?)]),
        Action::Delete(rule) => apply(&options.paths, vec![Change::DeleteMark(rule.read()?)]),
        Action::List { json } => list(&options.paths, *json),
        Action::Import(import) => {
            let rules = import.read()?;
            if import.plan {
                return show(&rules, false);
            }
            apply(&options.paths, rules.into_iter().map(Change::AddMark).collect())
        }
    }
}

fn apply(paths: &Paths, changes: Vec<Change>) -> anyhow::Result<ExitCode> {
    match Client::connected(paths)?.ask(&Request::Apply(changes))? {
        Answer::Done => Ok(ExitCode::SUCCESS),
        Answer::Refused(_, why) => bail!("{why}"),
        other => Err(other.unexpected().into()),
    }
}

fn list(paths: &Paths, as_json: bool) -> anyhow::Result<ExitCode> {
    match Client::connected(paths)?.ask(&Request::Model)? {
        Answer::Model(model) => show(model.marks(), as_json),
        other => Err(other.unexpected().into()),
    }
}

fn show(rules: &[MarkRule], as_json: bool) -> anyhow::Result<ExitCode> {
    print(|out| {
        if as_json {
            return json(out, &rules);
        }
        rules.iter().try_for_each(|rule| writeln!(out, "{rule}"))
    })
}

impl Import {
    fn read(&self) -> anyhow::Result<Vec<MarkRule>> {
        let text = if self.file.as_os_str() == "-" {
            io::read_to_string(io::stdin()).context("read standard input")?
        } else {
            std::fs::read_to_string(&self.file).with_context(|| format!("read {}", self.file.display()))?
        };
        let family = if self.ipv6 { Family::Inet6 } else { Family::Inet };
        let Imported { rules, untaken } =
            iptables::read(&text, Reading { family, any_interface: self.any_interface });
        if !untaken.is_empty() {
            let lines: Vec<String> = untaken.iter().map(|line| format!("\n  {line}")).collect();
            bail!("no rule was added, since these cannot be taken:{}", lines.concat());
        }
        if rules.is_empty() {
            bail!(
                "{} has no rule that marks packets; it should be the output of iptables-save",
                self.file.display()
            );
        }
        Ok(rules)
    }
}

impl Rule {
    fn read(&self) -> anyhow::Result<MarkRule> {
        let parts = Parts {
            to: self.to.as_deref(),
            ports: self.port.as_deref(),
            protocol: self.protocol.as_deref(),
            ipv6: self.ipv6,
        };
        Ok(parts.rule(self.mark)?)
    }
}
