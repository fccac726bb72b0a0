//! `xlvs mark`: which packets carry which mark. Netfilter's marks are set after XDP, so the director has rules of its own.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};
use xlvs_model::{Change, MarkRule};

use crate::client::Client;
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
    List,
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
    /// tcp or udp; both unless told.
    #[arg(long)]
    protocol: Option<String>,
    /// IPv6; needed only without an address.
    #[arg(long, short = '6')]
    ipv6: bool,
}

/// Does it.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let change = match &options.action {
        Action::Add(rule) => Some(Change::AddMark(rule.read()?)),
        Action::Delete(rule) => Some(Change::DeleteMark(rule.read()?)),
        Action::List => None,
    };
    let mut client = Client::connected(&options.paths)?;
    if let Some(change) = change {
        return match client.ask(&Request::Apply(vec![change]))? {
            Answer::Done => Ok(ExitCode::SUCCESS),
            Answer::Refused(_, why) => bail!("{why}"),
            other => bail!("the director answered {other:?}; is it another version?"),
        };
    }
    let Answer::Model(model) = client.ask(&Request::Model)? else {
        bail!("the director gave an answer to another question; is it another version?");
    };
    let mut out = io::stdout().lock();
    for rule in model.marks() {
        writeln!(out, "{rule}")?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Rule {
    fn read(&self) -> anyhow::Result<MarkRule> {
        let Self { mark, to, port, protocol, ipv6 } = self;
        let mut text = mark.to_string();
        for (option, value) in [("--to", to), ("--port", port), ("--protocol", protocol)] {
            if let Some(value) = value {
                text += &format!(" {option} {value}");
            }
        }
        if *ipv6 {
            text += " --ipv6";
        }
        Ok(text.parse()?)
    }
}
