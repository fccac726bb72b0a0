//! `xlvs mark`: which packets carry which mark. Netfilter's marks are set after XDP, so the director has rules of its own.

use std::io::{self, Write};
use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use xlvs_model::spec::Protocol;
use xlvs_model::{Change, Family, MarkRule};

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
        writeln!(out, "{}", words(rule))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Rule {
    fn read(&self) -> anyhow::Result<MarkRule> {
        let to = self.to.as_deref().map(prefix).transpose()?;
        let family = match to {
            Some((addr, _)) => Family::of(addr),
            None if self.ipv6 => Family::Inet6,
            None => Family::Inet,
        };
        let ports = self.port.as_deref().map_or(Ok((0, u16::MAX)), ports)?;
        let protocol = self.protocol.as_deref().map(protocol).transpose()?;
        Ok(MarkRule { mark: self.mark, family, to, ports, protocol })
    }
}

fn prefix(text: &str) -> anyhow::Result<(IpAddr, u8)> {
    let wrong = || format!("{text} is no address or prefix; write 192.0.2.10 or 192.0.2.0/24");
    let (addr, length) = text.split_once('/').map_or((text, None), |(addr, length)| (addr, Some(length)));
    let addr: IpAddr = addr.parse().with_context(wrong)?;
    let whole = if addr.is_ipv4() { 32 } else { 128 };
    let length = length.map_or(Ok(whole), str::parse).with_context(wrong)?;
    if length > whole {
        bail!(wrong());
    }
    Ok((addr, length))
}

fn ports(text: &str) -> anyhow::Result<(u16, u16)> {
    let wrong = || format!("{text} is no port or range of ports; write 80 or 5000-5999");
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().with_context(wrong)?, last.parse().with_context(wrong)?);
    if first > last {
        bail!(wrong());
    }
    Ok((first, last))
}

fn protocol(text: &str) -> anyhow::Result<u8> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocol::Tcp as u8),
        "udp" => Ok(Protocol::Udp as u8),
        _ => bail!("{text} is no protocol that is marked; write tcp or udp"),
    }
}

/// A rule as it is added.
pub fn words(rule: &MarkRule) -> String {
    let mut text = rule.mark.to_string();
    match rule.to {
        Some((addr, prefix)) => text += &format!(" --to {addr}/{prefix}"),
        None if rule.family == Family::Inet6 => text += " --ipv6",
        None => {}
    }
    match rule.ports {
        (0, u16::MAX) => {}
        (first, last) if first == last => text += &format!(" --port {first}"),
        (first, last) => text += &format!(" --port {first}-{last}"),
    }
    match rule.protocol.and_then(Protocol::from_u8) {
        Some(protocol) => text + " --protocol " + &protocol.listed().to_lowercase(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_shown_as_it_is_added() {
        let rule = |to: Option<&str>, port: Option<&str>, protocol: Option<&str>| Rule {
            mark: 7,
            to: to.map(str::to_owned),
            port: port.map(str::to_owned),
            protocol: protocol.map(str::to_owned),
            ipv6: false,
        };
        let shown = |rule: Rule| words(&rule.read().expect("it is right"));
        assert_eq!(shown(rule(None, None, None)), "7");
        assert_eq!(
            shown(rule(Some("192.0.2.1"), Some("80"), Some("tcp"))),
            "7 --to 192.0.2.1/32 --port 80 --protocol tcp"
        );
        assert_eq!(
            shown(rule(Some("2001:db8::/32"), Some("1-9"), Some("UDP"))),
            "7 --to 2001:db8::/32 --port 1-9 --protocol udp"
        );
        for wrong in [
            rule(Some("192.0.2.0/33"), None, None),
            rule(None, Some("9-1"), None),
            rule(None, Some("http"), None),
            rule(None, None, Some("icmp")),
        ] {
            let said = format!("{:#}", wrong.read().expect_err("it is wrong"));
            assert!(said.contains("; write "), "{said}");
        }
    }
}
