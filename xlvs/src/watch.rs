//! `xlvs watch`: what happens, as it happens.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::client::Client;
use crate::event::Happening;
use crate::listings;
use crate::paint::Paint;
use crate::paths::Paths;
use crate::protocol::{Answer, Request};

/// What to tell, and for how long.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// A line of JSON each.
    #[arg(long)]
    json: bool,
    /// Also tell the last so many of what has happened since the daemon's start, as far as they are kept.
    #[arg(long, value_name = "N")]
    last: Option<u64>,
    /// Tell only what has happened: all that is kept, or the last N.
    #[arg(long)]
    no_follow: bool,
    /// End after so many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// The director's places.
    #[command(flatten)]
    paths: Paths,
}

/// Tells what happens until the reader has enough; that the daemon ends is an error.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    let paint = Paint::of_stdout();
    let mut left = options.count;
    let follow = !options.no_follow;
    let last = options.last.unwrap_or(if follow { 0 } else { u64::MAX });
    let watched = Client::connected(&options.paths)?.stream(&Request::Watch { last, follow }, |answer| {
        if matches!(answer, Answer::Done) {
            return Ok(false);
        }
        let line = if options.json { as_json(&answer)? } else { for_people(&answer, paint)? };
        writeln!(out, "{line}")?;
        out.flush()?;
        if matches!(answer, Answer::Event(_)) {
            left = left.map(|left| left - 1);
        }
        Ok(left != Some(0))
    });
    listings::printed(watched)
}

fn as_json(answer: &Answer) -> io::Result<String> {
    match answer {
        Answer::Event(event) => Ok(serde_json::to_string(event)?),
        Answer::Missed(count) => Ok(json!({ "event": "missed", "count": count }).to_string()),
        other => Err(other.unexpected()),
    }
}

fn for_people(answer: &Answer, paint: Paint) -> io::Result<String> {
    Ok(match answer {
        Answer::Event(event) => {
            let line = event.to_string();
            match event.what {
                Happening::ServerDown { .. }
                | Happening::QuorumLost { .. }
                | Happening::TableFull { .. }
                | Happening::InterfaceDetached { .. } => paint.red(&line),
                Happening::ServerUp { .. } | Happening::QuorumGained { .. } => paint.green(&line),
                Happening::ServerHeld { .. }
                | Happening::ServerWarning { warning: Some(_), .. }
                | Happening::TablePressure { percent: 1.., .. } => paint.yellow(&line),
                _ => line,
            }
        }
        Answer::Missed(count) => paint.yellow(&format!("{count} events came too fast and are not shown")),
        other => return Err(other.unexpected()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_missed_is_told_in_both_forms() {
        let missed = Answer::Missed(17);
        assert_eq!(as_json(&missed).expect("JSON"), r#"{"count":17,"event":"missed"}"#);
        let line = for_people(&missed, Paint::of_nothing()).expect("a line");
        assert_eq!(line, "17 events came too fast and are not shown");
        assert!(as_json(&Answer::Done).is_err());
    }
}
