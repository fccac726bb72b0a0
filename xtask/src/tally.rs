//! Counts what the test harness says, line by line, and what steps of our own did.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// How many passed and how many failed.
#[derive(Default, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tally {
    /// Tests and steps that held.
    pub passed: u64,
    /// Tests and steps that did not.
    pub failed: u64,
}

impl Tally {
    /// A step that is one test by itself.
    pub fn step(&mut self, what: &str, outcome: Result<()>) {
        match outcome {
            Ok(()) => self.passed += 1,
            Err(error) => {
                println!("    FAILED: {what}: {error:#}");
                self.failed += 1;
            }
        }
    }

    /// Runs the tests, shows their output as it comes and counts their `test result:` lines.
    /// Tests that could not be built or that crashed the harness count as one failure.
    pub fn tests(&mut self, what: &str, command: &mut Command) -> Result<()> {
        println!("==> {what}");
        let before = *self;
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("start cargo")?;
        for line in BufReader::new(child.stdout.take().context("no output of cargo")?).lines() {
            let line = line.context("read what cargo prints")?;
            println!("{line}");
            self.count(&line);
        }
        let status = child.wait().context("wait for cargo")?;
        if !status.success() && self.failed == before.failed {
            self.step(what, Err(anyhow::anyhow!("ended with {status} before all results were in")));
        }
        Ok(())
    }

    // test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
    fn count(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        self.passed += number_before(result, " passed");
        self.failed += number_before(result, " failed");
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

fn number_before(text: &str, word: &str) -> u64 {
    let Some((before, _)) = text.split_once(word) else { return 0 };
    before.rsplit(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_added_up_and_others_ignored() {
        let mut tally = Tally::default();
        tally.count(
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.1s",
        );
        tally.count("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out");
        tally.count("test a_test ... ok");
        assert_eq!(tally, Tally { passed: 15, failed: 2 });
        assert_eq!(tally.to_string(), "15 passed, 2 failed");
    }

    #[test]
    fn tests_that_do_not_build_count_as_one_failure() {
        let mut tally = Tally::default();
        tally.tests("nothing", &mut Command::new("false")).unwrap();
        assert_eq!(tally, Tally { passed: 0, failed: 1 });
    }
}
