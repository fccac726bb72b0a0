//! `xlvs check`: do the counters agree with the table?

use std::process::ExitCode;

use anyhow::bail;

use crate::client::Client;
use crate::paths::Paths;
use crate::protocol::{Answer, Request};

/// Asks the daemon, prints what does not agree. Exit code 0: everything does.
pub fn run(paths: &Paths) -> anyhow::Result<ExitCode> {
    let mut client = Client::new(paths.clone());
    if let Err(why) = client.connect() {
        bail!("{why}; is `xlvs run` running?");
    }
    match client.ask(&Request::Check)? {
        Answer::Check(lines) if lines.is_empty() => {
            println!("The counters of all servers agree with the connection table.");
            Ok(ExitCode::SUCCESS)
        }
        Answer::Check(lines) => {
            lines.iter().for_each(|line| println!("{line}"));
            Ok(ExitCode::FAILURE)
        }
        other => Err(other.unexpected().into()),
    }
}
