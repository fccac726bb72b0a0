//! `xlvs simulate`: the director on the host, without root and without waiting.
//!
//! Plays recorded cases, or shows a person what a scheduler would do. The packets, the core and `ipvsadm` are the real ones;
//! only the clock is ours.

mod client;
mod director;
mod frames;
mod player;
#[cfg(test)]
mod rates;
mod stack;
#[cfg(test)]
mod states;
pub mod wire;

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use regex_lite::Regex;
use serde_json::json;

use client::Connection;
use director::Director;

/// What to simulate.
#[derive(Args)]
pub struct Options {
    /// A recorded case, or a file with a list of them.
    #[arg(required_unless_present = "servers", conflicts_with = "servers")]
    file: Option<PathBuf>,
    /// The file holds recorded frames instead.
    #[arg(long, requires = "file")]
    packets: bool,
    /// Only cases whose name matches this.
    #[arg(long, value_name = "REGEX")]
    only: Option<Regex>,
    /// Servers and their weights instead of a file, in the order in which they are added: 'A=3,B=2,C=1'.
    #[arg(long, value_name = "NAME=WEIGHT,...")]
    servers: Option<String>,
    /// The scheduler for these servers.
    #[arg(long, default_value = "wlc")]
    scheduler: String,
    /// How many connections come.
    #[arg(long, default_value_t = 24)]
    connections: usize,
    /// Each connection ends before the next one comes; otherwise all stay.
    #[arg(long)]
    short: bool,
}

/// Simulates.
pub fn run(options: Options) -> Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match (&options.file, &options.servers) {
        (Some(file), _) => {
            return Ok(exit_code(play_file(file, options.packets, options.only.as_ref(), &mut out)?));
        }
        (None, Some(servers)) => out.write_all(show(&options, &parse_servers(servers)?)?.as_bytes())?,
        (None, None) => bail!("name a file of recorded cases, or --servers"),
    }
    Ok(ExitCode::SUCCESS)
}

/// How a player ends: well, if every case could be played.
pub fn exit_code(failed: usize) -> ExitCode {
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints a line of JSON for each case: `name`, `sequence`, `snaps`, `after`; of recorded frames `name`, `steps`, `after`; or
/// `name` and `error`. Returns how many could
/// not be played.
fn play_file(file: &Path, packets: bool, only: Option<&Regex>, out: &mut impl Write) -> Result<usize> {
    let value = xlvs_lab::play::read(file)?;
    let cases = if packets { xlvs_lab::frames::fixtures(value) } else { xlvs_lab::play::cases(value) };
    let play = if packets { frames::play } else { player::play };
    let cases = cases.with_context(|| format!("{}", file.display()))?;
    let wanted = |name: &str| only.is_none_or(|only| only.is_match(name));
    let mut failed = 0;
    for case in cases.iter().filter(|case| wanted(case["name"].as_str().unwrap_or_default())) {
        let line = play(case).unwrap_or_else(|why| {
            failed += 1;
            json!({ "name": case["name"], "error": format!("{why:#}") })
        });
        writeln!(out, "{line}")?;
    }
    Ok(failed)
}

// -------------------------------------------------------------------------------------------------------- for a person

/// Servers that a person names at the most: as many as there are addresses for.
const MOST_SERVERS: usize = 240;

/// A server as a person names it.
struct Named {
    name: String,
    weight: u32,
}

fn parse_servers(text: &str) -> Result<Vec<Named>> {
    let servers: Vec<Named> = text.split(',').map(parse_server).collect::<Result<_>>()?;
    ensure!(servers.len() <= MOST_SERVERS, "{} servers are more than {MOST_SERVERS}", servers.len());
    Ok(servers)
}

fn parse_server(text: &str) -> Result<Named> {
    let (name, weight) = text.trim().split_once('=').unwrap_or((text.trim(), "1"));
    ensure!(!name.is_empty(), "a server has no name in {text:?}; write NAME=WEIGHT");
    let weight = weight.parse().ok().filter(|w| *w <= i32::MAX as u32);
    let weight = weight.with_context(|| format!("{text:?} has no weight from 0 to {}", i32::MAX))?;
    Ok(Named { name: name.to_owned(), weight })
}

/// What the scheduler does with these servers, in words and figures.
fn show(options: &Options, servers: &[Named]) -> Result<String> {
    let chosen = simulate(options, servers)?;
    let name = |server: &Option<usize>| server.map_or("-", |at| servers[at].name.as_str());
    let sequence: Vec<&str> = chosen.iter().map(name).collect();
    let mut text = format!("{}\n\n", sequence.join(" "));
    text += &format!("{:<16} {:>10} {:>12} {:>8} {:>8}\n", "Server", "Weight", "Connections", "Share", "Due");
    let served = chosen.iter().flatten().count();
    let weights: f64 = servers.iter().map(|s| f64::from(s.weight)).sum();
    let mut largest = (0.0, "-");
    for (at, server) in servers.iter().enumerate() {
        let got = chosen.iter().filter(|c| **c == Some(at)).count();
        let share = percent(got as f64, served as f64);
        let due = percent(f64::from(server.weight), weights);
        if (share - due).abs() > largest.0 {
            largest = ((share - due).abs(), &server.name);
        }
        text += &format!("{:<16} {:>10} {got:>12} {share:>7.1}% {due:>7.1}%\n", server.name, server.weight);
    }
    if served < chosen.len() {
        text += &format!("Refused: {}\n", chosen.len() - served);
    }
    text += &format!("Largest deviation from the weights: {:.1} points ({})\n", largest.0, largest.1);
    Ok(text)
}

fn percent(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { part * 100.0 / whole }
}

/// The server of each connection: consecutive clients, one connection each.
fn simulate(options: &Options, servers: &[Named]) -> Result<Vec<Option<usize>>> {
    let tables = director::tables();
    let mut director = Director::new(&tables);
    let random = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos() as u64;
    director.seed(random);
    let service = "10.0.0.100:80";
    must(&mut director, &["-A", "-t", service, "-s", &options.scheduler])?;
    for (at, server) in servers.iter().enumerate() {
        let (real, weight) = (format!("10.1.0.{}", at + 11), server.weight.to_string());
        must(&mut director, &["-a", "-t", service, "-r", &real, "-m", "-w", &weight])?;
    }
    let mut chosen = Vec::with_capacity(options.connections);
    for n in 0..options.connections {
        let [_, a, b, c] = (n as u32 + 1).to_be_bytes();
        let client = SocketAddr::new(IpAddr::from([100, a, b, c]), 40000);
        let mut connection =
            Connection::open(&mut director, false, client, SocketAddr::new([10, 0, 0, 100].into(), 80));
        chosen.push(connection.server().map(|number| usize::from(number) - 1));
        if options.short {
            connection.close(&mut director);
        }
    }
    Ok(chosen)
}

fn must(director: &mut Director, words: &[&str]) -> Result<()> {
    let printed = director.ipvsadm(words);
    ensure!(printed.rc == 0, "{}", printed.err.trim_end());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(servers: &str, scheduler: &str, connections: usize) -> String {
        let options = Options {
            packets: false,
            file: None,
            only: None,
            servers: None,
            scheduler: scheduler.to_owned(),
            connections,
            short: false,
        };
        show(&options, &parse_servers(servers).unwrap()).unwrap()
    }

    #[test]
    fn a_person_sees_sequence_shares_and_deviation() {
        let text = shown("A=3,B=2,C=1", "wlc", 6);
        assert!(text.starts_with("C B A A B A\n"), "{text}");
        assert!(text.contains("A                         3            3    50.0%    50.0%\n"), "{text}");
        assert!(text.contains("Largest deviation from the weights: 0.0 points"), "{text}");
    }

    #[test]
    fn refused_connections_are_counted() {
        assert!(shown("A=1", "ovf", 5).contains("Refused: 3\n"));
    }

    #[test]
    fn servers_must_make_sense() {
        assert!(parse_servers("A=3,=2").is_err());
        assert!(parse_servers("A=many").is_err());
        assert_eq!(parse_servers("A").unwrap()[0].weight, 1);
    }
}
