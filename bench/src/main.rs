//! What a packet costs. `cargo xtask bench` builds and runs it; as root.

mod bars;
mod chart;
mod checks;
mod fragments;
mod frames;
mod harness;
mod large;
mod live;
mod machine;
mod measure;
mod outcome;
mod report;
mod rows;
mod scale;
mod site;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use xlvs_model::spec::Scheduler;

use frames::SHORT;
use harness::Harness;
use machine::Machine;
use measure::{Bench, Primitives};
use report::{Line, Report};
use rows::Row;
use site::Site;

/// Measures what packets cost in the director's programs, by running them in the kernel on prepared frames.
#[derive(Parser)]
#[command(name = "cargo xtask bench")]
struct Options {
    /// Fewer flows, rounds and kinds: two minutes instead of ten
    #[arg(long)]
    quick: bool,
    /// Write the result to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Show this earlier result instead of measuring
    #[arg(long, value_name = "FILE")]
    show: Option<PathBuf>,
    /// Draw the main rows into this SVG file
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    /// Write what an established packet costs by its path into this file, beside the programs' budget
    #[arg(long, value_name = "FILE")]
    paths: Option<PathBuf>,
    /// Compare with an earlier result; fail when a row is more than 15 % worse in hash hits
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// A pinned XDP program to be measured beside ours, with maps filled for VIP 10.200.1.1:80 tcp+udp and [fc00:1::1]:80
    #[arg(long, value_name = "PINNED_PATH")]
    rival: Option<PathBuf>,
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["rows", "tables", "site", "checks", "live"])]
    parts: Vec<Part>,
    /// Only rows with this in their name
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// One kind of packet after the other, in the kernel's test run
    Rows,
    /// Filling and sweeping tables
    Tables,
    /// A large configuration, and the idle daemon
    Site,
    /// Thousands of health checks
    Checks,
    /// Packets and connections through veth, beside others
    Live,
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }

    fn wanted(&self, rows: Vec<Row>) -> Vec<Row> {
        rows.into_iter().filter(|row| self.wants(&row.name)).collect()
    }

    fn rounds(&self) -> usize {
        if self.quick { 4 } else { 10 }
    }

    /// Connections of the largest rows.
    fn most_flows(&self) -> u32 {
        if self.quick { 100_000 } else { 1_000_000 }
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    let earlier = options.against.as_deref().map(Report::read).transpose()?;
    let report = match &options.show {
        Some(path) => Report::read(path)?,
        None => measured(&options)?,
    };
    report.print();
    if let Some(path) = &options.json {
        report.save(path)?;
    }
    if let Some(path) = &options.chart {
        std::fs::write(path, chart::draw(&report)).with_context(|| format!("write {}", path.display()))?;
    }
    if let Some(path) = &options.paths {
        std::fs::write(path, report.paths()).with_context(|| format!("write {}", path.display()))?;
    }
    earlier.map_or(Ok(()), |earlier| report.compare(&earlier))
}

fn measured(options: &Options) -> Result<Report> {
    let machine = Machine::this();
    site::enter_namespace()?;
    pin_to_last_cpu()?;
    let mut harness = Harness::load(1_000_000, options.most_flows())?;
    let mut primitives = Primitives::default();
    let has = |part| options.parts.contains(&part);
    let (mut rows, mut facts, mut live) = (Vec::new(), Vec::new(), Vec::new());
    if has(Part::Rows) {
        rows = established(options, &mut harness, &mut primitives)?;
        rows.extend(openings(options, &mut harness, &mut primitives)?);
        if options.wants(fragments::HANDED_OVER) {
            eprintln!("==> fragments");
            let (line, datagrams) = fragments::measure(&mut harness, &mut primitives, options.rounds())?;
            rows.push(line);
            facts = datagrams;
        }
        ensure!(!rows.is_empty(), "no row has that in its name; without --only all are measured");
        facts.splice(0..0, scale::choosing(&rows));
        rows.splice(0..0, primitives.lines());
    }
    if has(Part::Tables) {
        facts.extend(tables(options, &mut harness)?);
    }
    if has(Part::Site) {
        eprintln!("==> a large site");
        facts.extend(large::facts(&mut harness)?);
    }
    if has(Part::Checks) {
        eprintln!("==> five thousand checks a second");
        // Whom thousands of checks ask takes as much as the daemon does.
        stay_on(|_| true)?;
        facts.extend(checks::facts()?);
        pin_to_last_cpu()?;
    }
    if has(Part::Live) {
        live = live::measure(&mut harness, options.quick)?;
    }
    Ok(Report::new(machine, rows, facts, live))
}

/// Connections that exist, in a table in which others have come and gone.
fn established(options: &Options, harness: &mut Harness, primitives: &mut Primitives) -> Result<Vec<Line>> {
    let flows: &[u32] = if options.quick { &[1000, 100_000] } else { &[1000, 10_000, 100_000, 1_000_000] };
    let rows = options
        .wanted(rows::established(flows).into_iter().chain(rows::not_ours()).chain([rows::icmp()]).collect());
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    eprintln!("==> established connections");
    let mut site = Site::load(options.most_flows() * 6, "established")?;
    site.add_services()?;
    grow_old(options, harness, &site)?;
    let rival = options.rival.as_deref().map(harness::pinned).transpose()?;
    Bench { harness, primitives, site: &site, rival: rival.as_ref(), rounds: options.rounds(), afresh: false }
        .measure(&rows)
}

/// Strangers fill a third of the table, and most of them go.
fn grow_old(options: &Options, harness: &mut Harness, site: &Site) -> Result<()> {
    let strangers = options.most_flows();
    for (number, frame) in (0..strangers).zip(harness.frames(SHORT).chunks_exact_mut(SHORT)) {
        rows::stranger(number, frame);
    }
    harness.run(site.xdp.director()?, SHORT, strangers, strangers)?;
    let now = site.age(|number| number % 3 != 0)?;
    site.sweep(now);
    Ok(())
}

/// Every packet a new connection, and whole connections.
fn openings(options: &Options, harness: &mut Harness, primitives: &mut Primitives) -> Result<Vec<Line>> {
    let flows = options.most_flows() / 5;
    let kinds = kinds(options);
    let mut rows = rows::openings(flows);
    rows.extend(rows::lives(flows / 10));
    rows.extend(rows::choices(options.most_flows() / 20, &kinds));
    let rows = options.wanted(rows);
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    eprintln!("==> new connections");
    let mut site = Site::load(options.most_flows(), "openings")?;
    site.add_services()?;
    site.add_choices(&kinds)?;
    let rival = options.rival.as_deref().map(harness::pinned).transpose()?;
    let rounds = if options.quick { 3 } else { 7 };
    Bench { harness, primitives, site: &site, rival: rival.as_ref(), rounds, afresh: true }.measure(&rows)
}

fn kinds(options: &Options) -> Vec<(Scheduler, u16)> {
    let servers: &[u16] = if options.quick { &[16, 1024] } else { &[1, 16, 64, 256, 1024] };
    Scheduler::ALL.iter().flat_map(|scheduler| servers.iter().map(|n| (*scheduler, *n))).collect()
}

/// Whole tables: how they are filled and swept, and what they take.
fn tables(options: &Options, harness: &mut Harness) -> Result<Vec<report::Fact>> {
    eprintln!("==> tables");
    let mut facts = scale::sweep(harness, 1_000_000)?;
    if !options.quick {
        facts.extend(scale::sweep(harness, 10_000_000)?);
    }
    facts.extend(scale::memory());
    Ok(facts)
}

/// The processor on which the system itself does least.
fn pin_to_last_cpu() -> Result<()> {
    let here = nix::unistd::Pid::from_raw(0);
    let allowed = nix::sched::sched_getaffinity(here)?;
    let last = (0..nix::sched::CpuSet::count()).rev().find(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    let last = last.context("a processor to run on")?;
    stay_on(|cpu| cpu == last)
}

/// These processors, as far as the system has them.
fn stay_on(which: impl Fn(usize) -> bool) -> Result<()> {
    let mut set = nix::sched::CpuSet::new();
    (0..nix::sched::CpuSet::count()).filter(|cpu| which(*cpu)).try_for_each(|cpu| set.set(cpu))?;
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).context("choose processors")
}
