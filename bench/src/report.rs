//! What came out: for people, for comparison, and against an earlier one.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::bars::{self, Bar};
use crate::live::{self, Live};
use crate::machine::Machine;

/// The row in whose terms everything is expressed.
pub const UNIT: &str = "hash hit, 16-byte key";

/// How the names of rows end that measure a path and not the machine's caches.
const ONE_FLOW: &str = ", established, one flow";

/// A row may be that much worse than before.
const TOLERANCE: f64 = 1.15;

/// Nanoseconds, of several measurements.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The middle one.
    pub ns: f64,
    /// The least.
    pub min: f64,
    /// Between the first and the third quartile.
    pub spread: f64,
}

impl Figure {
    /// Of these, less what the harness took beside them: the middle less the middle, the least less the least.
    pub fn of(samples: &[f64], harness: &[f64]) -> Self {
        let (samples, harness) = (Quartiles::of(samples), Quartiles::of(harness));
        Self {
            ns: samples.at(2) - harness.at(2),
            min: samples.at(0) - harness.at(0),
            spread: samples.at(3) - samples.at(1),
        }
    }
}

/// Measurements in their order.
struct Quartiles(Vec<f64>);

impl Quartiles {
    fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        Self(sorted)
    }

    fn at(&self, quarter: usize) -> f64 {
        self.0[(self.0.len() - 1) * quarter / 4]
    }
}

/// A row's result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// What was measured.
    pub name: String,
    /// The result.
    #[serde(flatten)]
    pub figure: Figure,
    /// The least in least hash hits of the same run: whatever else goes on on a machine only ever adds.
    pub hash_hits: f64,
    /// Somebody else's program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rival: Option<Figure>,
    /// Nothing but what a balancer over the kernel's own maps must call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<Figure>,
}

impl Line {
    /// One without a rival.
    pub fn new(name: &str, figure: Figure) -> Self {
        Self { name: name.to_owned(), figure, hash_hits: 0.0, rival: None, floor: None }
    }
}

/// A fact that is no time of a packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// What was looked at.
    pub name: String,
    /// How much it is.
    pub value: f64,
    /// Of what.
    pub unit: String,
}

/// Everything.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Where and on what.
    #[serde(flatten)]
    pub machine: Machine,
    /// Nanoseconds a packet.
    pub rows: Vec<Line>,
    /// Sizes and durations.
    pub facts: Vec<Fact>,
    /// Real packets and connections, side by side with others.
    #[serde(default)]
    pub live: Vec<Live>,
    /// What was to be reached.
    #[serde(default)]
    pub bars: Vec<Bar>,
}

impl Report {
    /// What a packet of an established connection costs on each path, one flow: for `ebpf/budget-paths.txt`, whose diff shows it.
    pub fn paths(&self) -> String {
        let mut text = String::from(
            "# What a packet of one established connection costs by its path: the least of many runs in nanoseconds, and in hash hits\n\
             # of the same run, which say more on another machine. Made by `cargo xtask budget`.\n\
             #  ns  hash hits  path\n",
        );
        for line in self.rows.iter().filter(|line| line.name.ends_with(ONE_FLOW)) {
            let path = line.name.trim_end_matches(ONE_FLOW);
            text += &format!("{:>5.0} {:>10.1}  {path}\n", line.figure.min, line.hash_hits);
        }
        text
    }

    /// Puts it together: expresses every row in hash hits.
    pub fn new(machine: Machine, mut rows: Vec<Line>, facts: Vec<Fact>, live: Vec<Live>) -> Self {
        let unit =
            rows.iter().find(|line| line.name == UNIT).map_or(f64::NAN, |line| line.figure.min.max(1.0));
        rows.iter_mut().for_each(|line| line.hash_hits = (line.figure.min / unit * 100.0).round() / 100.0);
        let mut report = Self { machine, rows, facts, live, bars: Vec::new() };
        report.bars = bars::of(&report);
        report
    }

    /// For people.
    pub fn print(&self) {
        println!("{}\n", self.machine);
        let has_rival = self.rows.iter().any(|line| line.rival.is_some());
        let rival = if has_rival { "   rival  ratio" } else { "" };
        println!(
            "{:66} {:>7} {:>7} {:>7} {:>9} {:>7}{rival}",
            "ns a packet, the harness subtracted", "median", "spread", "least", "hash hits", "floor"
        );
        for Line { name, figure, hash_hits, rival, floor } in &self.rows {
            let floor = floor.map_or(String::new(), |floor| format!("{:.0}", floor.min));
            let rival = rival
                .map_or(String::new(), |rival| format!(" {:7.0} {:6.2}", rival.min, figure.min / rival.min));
            println!(
                "{name:66} {:7.0} {:7.0} {:7.0} {hash_hits:9.2} {floor:>7}{rival}",
                figure.ns, figure.spread, figure.min
            );
        }
        println!();
        for Fact { name, value, unit } in &self.facts {
            println!("{name:66} {value:10.2} {unit}");
        }
        live::print(&self.live);
        println!("\n{:66} {:>9} {:>9}", "to be reached", "at most", "is");
        self.bars.iter().for_each(|bar| println!("{bar}"));
    }

    /// Writes it as JSON.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }

    /// Reads one that was saved.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} is no result of this benchmark", path.display()))
    }

    /// Prints how every row's hash hits compare with those of an earlier run; an error when one is much worse.
    pub fn compare(&self, earlier: &Report) -> Result<()> {
        let before: HashMap<_, _> =
            earlier.rows.iter().map(|line| (line.name.as_str(), line.hash_hits)).collect();
        let mut worse = Vec::new();
        println!("\n{:66} {:>9} {:>9} {:>6}", "in hash hits", "before", "now", "ratio");
        for line in &self.rows {
            let Some(before) = before.get(line.name.as_str()).copied() else { continue };
            let ratio = line.hash_hits / before;
            println!("{:66} {before:9.2} {:9.2} {ratio:6.2}", line.name, line.hash_hits);
            // Rows of a few nanoseconds jump by their resolution.
            if ratio > TOLERANCE && line.hash_hits - before > 0.1 {
                worse.push(line.name.clone());
            }
        }
        if !worse.is_empty() {
            bail!("more than {:.0} % worse than before: {}", (TOLERANCE - 1.0) * 100.0, worse.join("; "));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(hit: f64, row: f64) -> Report {
        let line = |name: &str, ns| Line::new(name, Figure { ns, min: ns, spread: 0.0 });
        Report::new(Machine::default(), vec![line(UNIT, hit), line("row", row)], Vec::new(), Vec::new())
    }

    #[test]
    fn the_middle_is_the_median_and_the_spread_is_between_the_quartiles() {
        let figure = Figure::of(&[19.0, 11.0, 15.0, 13.0, 17.0], &[12.0, 10.0, 10.0]);
        assert_eq!(figure, Figure { ns: 5.0, min: 1.0, spread: 4.0 });
    }

    #[test]
    fn a_slower_machine_is_no_regression_and_a_slower_program_is() {
        let before = report(20.0, 60.0);
        assert!(report(40.0, 120.0).compare(&before).is_ok());
        let complaint = report(20.0, 80.0).compare(&before).expect_err("a third slower");
        assert!(complaint.to_string().contains("row"));
    }
}
