//! `xlvs history` and `xlvs rollback`: what was applied, and back to it.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Args;

use crate::apply::tell;
use crate::client::Client;
use crate::listings;
use crate::paths::Paths;
use crate::protocol::{Answer, Request, Revision};

/// Where to go back to.
#[derive(Args, Clone, Debug)]
pub struct RollbackOptions {
    /// The revision, as `xlvs history` numbers it.
    revision: u64,
    /// Only say what would change.
    #[arg(long)]
    plan: bool,
    /// The director's places.
    #[command(flatten)]
    paths: Paths,
}

/// Lists the revisions, the newest last.
pub fn run(options: &listings::Options) -> anyhow::Result<ExitCode> {
    let revisions = match Client::connected(&options.paths)?.ask(&Request::History)? {
        Answer::History(revisions) => revisions,
        other => return Err(other.unexpected().into()),
    };
    listings::print(|out| {
        if options.json {
            return listings::json(out, &revisions);
        }
        if revisions.is_empty() {
            writeln!(out, "Nothing was applied yet.")?;
        }
        revisions.iter().try_for_each(|revision| writeln!(out, "{}", line(revision)))
    })
}

fn line(revision: &Revision) -> String {
    let Revision { number, time, changes, by } = revision;
    let time = humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(*time));
    let changes = format!("{changes} change{}", if *changes == 1 { "" } else { "s" });
    format!("{number:>6}  {time}  {changes:<12}  {by}")
}

/// Makes the director what a revision was, or changes nothing.
pub fn rollback(options: &RollbackOptions) -> anyhow::Result<ExitCode> {
    let request = Request::Rollback { number: options.revision, only_plan: options.plan };
    match Client::connected(&options.paths)?.ask(&request)? {
        Answer::Plan(sentences) => tell(&sentences, options.plan),
        other => Err(other.unexpected().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_a_line() {
        let revision =
            Revision { number: 12, time: 1_764_170_000, changes: 1, by: "apply xlvs.toml".to_owned() };
        assert_eq!(line(&revision), "    12  2025-11-26T15:13:20Z  1 change      apply xlvs.toml");
    }
}
