//! Measuring rows: interleaved rounds, in each of which the harness alone is measured beside what stands behind it.

use anyhow::{Context, Result, ensure};
use aya::programs::ProgramFd;

use crate::frames::{LONG, SHORT};
use crate::harness::{FLOOR, Harness, PRIMITIVES, Run};
use crate::report::{Figure, Line};
use crate::rows::{Maker, Row};
use crate::site::Site;

/// Packets that are measured of a row in one round, in pieces.
const A_ROUND: u32 = 200_000;

/// What is measured how.
pub struct Bench<'b> {
    /// The harness.
    pub harness: &'b mut Harness,
    /// The units, measured in every round of everything.
    pub primitives: &'b mut Primitives,
    /// The director.
    pub site: &'b Site,
    /// Somebody else's program, with the same services.
    pub rival: Option<&'b ProgramFd>,
    /// Rounds.
    pub rounds: usize,
    /// Are all connections forgotten before each measurement?
    pub afresh: bool,
}

/// Nanoseconds a packet of many measurements, with what stands in front.
#[derive(Default)]
struct Samples {
    ours: Vec<f64>,
    rival: Vec<f64>,
    /// The action of a rival that did not do what the row is about.
    rival_did: Option<u32>,
    floor: Vec<f64>,
    harness: Vec<f64>,
}

impl Bench<'_> {
    /// Measures all of them.
    pub fn measure(&mut self, rows: &[Row]) -> Result<Vec<Line>> {
        for row in rows {
            self.open(row).with_context(|| format!("{}: opening", row.name))?;
        }
        let mut samples: Vec<Samples> = rows.iter().map(|_| Samples::default()).collect();
        for round in 0..self.rounds {
            eprintln!("    round {} of {}", round + 1, self.rounds);
            self.primitives.sample(self.harness)?;
            // Who comes after whom should not matter; where it does, the order changes from round to round.
            for step in 0..rows.len() {
                let at = (step + round * 7) % rows.len();
                self.sample(round, &rows[at], &mut samples[at]).with_context(|| rows[at].name.clone())?;
            }
        }
        for (row, samples) in rows.iter().zip(&samples) {
            if let Some(action) = samples.rival_did {
                eprintln!(
                    "    {}: the rival's action is {action}, so that it is not told in this row; its maps must be filled for \
                     10.200.1.1:80 (TCP and UDP) and [fc00:1::1]:80",
                    row.name
                );
            }
        }
        Ok(rows.iter().zip(samples).map(|(row, samples)| line(row, &samples)).collect())
    }

    fn open(&mut self, row: &Row) -> Result<()> {
        for packet in &row.opening {
            fill(self.harness, row, packet);
            self.harness.run(self.site.xdp.director()?, row.length, row.frames, row.frames)?;
            if row.has_floor {
                self.harness.run(&self.harness.own(FLOOR)?, row.length, row.frames, row.frames)?;
            }
        }
        Ok(())
    }

    fn sample(&mut self, round: usize, row: &Row, samples: &mut Samples) -> Result<()> {
        if self.afresh {
            self.site.forget_connections();
        }
        fill(self.harness, row, &row.packet);
        // Many short pieces: where others use the machine as well, some of them are undisturbed.
        let pieces = if self.afresh { 1 } else { (A_ROUND / row.repeat).max(1) };
        for _ in 0..pieces {
            self.piece(round, row, samples)?;
        }
        Ok(())
    }

    fn piece(&mut self, round: usize, row: &Row, samples: &mut Samples) -> Result<()> {
        let nothing = self.harness.own("nothing")?;
        samples.harness.push(self.harness.run(&nothing, row.length, row.frames, row.repeat)?.ns as f64);
        let (packets, conns) = (self.site.packets(), self.site.scheduled());
        let ours = self.harness.run(self.site.xdp.director()?, row.length, row.frames, row.repeat)?;
        check(row, &ours, self.site.packets() - packets, self.site.scheduled() - conns)?;
        samples.ours.push(ours.ns as f64);
        if row.has_floor {
            let floor = self.harness.own(FLOOR)?;
            let beside = if self.afresh { round as u32 + 1 } else { 0 };
            let run = self.harness.run_beside(beside, &floor, row.length, row.frames, row.repeat)?;
            samples.floor.push(run.ns as f64);
        }
        if let Some(rival) = self.rival.filter(|_| row.for_rivals) {
            let run = self.harness.run(rival, row.length, row.frames, row.repeat)?;
            // A program that is not made for such packets, or whose maps say nothing of them, is fast.
            if row.outcome.is_as_final(run.action) {
                samples.rival.push(run.ns as f64);
            } else {
                samples.rival_did = Some(run.action);
            }
        }
        Ok(())
    }
}

/// Every packet did what it should.
fn check(row: &Row, run: &Run, packets: u64, conns: u64) -> Result<()> {
    let (outcome, repeat) = (row.outcome, u64::from(row.repeat));
    ensure!(
        run.action == outcome.action(),
        "the last packet's action was {}, not {}",
        run.action,
        outcome.action()
    );
    outcome.verify(&run.before, &run.after).context("the last packet")?;
    let all = if outcome.is_counted() { repeat } else { 0 };
    ensure!(packets == all, "{packets} packets were counted, not {all}");
    ensure!(!row.opens || conns == repeat, "{conns} connections were opened, not {repeat}");
    Ok(())
}

/// What the harness does by itself: the units of everything else.
#[derive(Default)]
pub struct Primitives {
    samples: [Samples; PRIMITIVES.len()],
}

impl Primitives {
    /// Measures them once more.
    pub fn sample(&mut self, harness: &mut Harness) -> Result<()> {
        const REPEAT: u32 = 20_000;
        let nothing = harness.own("nothing")?;
        for _ in 0..A_ROUND / REPEAT {
            for ((_, program), samples) in PRIMITIVES.iter().zip(&mut self.samples) {
                let program = harness.own(program)?;
                samples.harness.push(harness.run(&nothing, SHORT, 1, REPEAT)?.ns as f64);
                samples.ours.push(harness.run(&program, SHORT, 1, REPEAT)?.ns as f64);
            }
        }
        Ok(())
    }

    /// What came out.
    pub fn lines(&self) -> Vec<Line> {
        let named = PRIMITIVES.iter().zip(&self.samples);
        let mut lines: Vec<Line> =
            named.map(|((name, _), s)| Line::new(name, Figure::of(&s.ours, &s.harness))).collect();
        let alone: Vec<f64> = self.samples.iter().flat_map(|s| s.harness.clone()).collect();
        lines.push(Line::new("the harness alone (subtracted everywhere)", Figure::of(&alone, &[0.0])));
        lines
    }
}

fn fill(harness: &mut Harness, row: &Row, packet: &Maker) {
    debug_assert!(row.length == SHORT || row.length == LONG, "frames of one of two lengths");
    let room = harness.frames(row.length);
    for (number, frame) in (0..row.frames).zip(room.chunks_exact_mut(row.length)) {
        packet(number, frame);
    }
}

fn line(row: &Row, samples: &Samples) -> Line {
    let some = |those: &[f64]| (!those.is_empty()).then(|| Figure::of(those, &samples.harness));
    let (rival, floor) = (some(&samples.rival), some(&samples.floor));
    Line { rival, floor, ..Line::new(&row.name, Figure::of(&samples.ours, &samples.harness)) }
}
