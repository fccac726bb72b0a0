//! A program that says how a server is.

use std::net::SocketAddr;
use std::process::Stdio;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::{Trouble, in_words};

/// Runs it, and tells how it ended. Given up, it is ended with all that it started.
pub(super) async fn run(command: &[String], target: SocketAddr) -> Result<(), Trouble> {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.env("XLVS_ADDRESS", target.ip().to_string()).env("XLVS_PORT", target.port().to_string());
    let not_run = |why| Trouble::Ours(format!("{program} cannot be run: {}", in_words(&why)));
    let mut child = command.spawn().map_err(not_run)?;
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()));
    let status = child.wait().await.map_err(not_run)?;
    // From here on its number may be another's.
    group.0 = None;
    if status.success() { Ok(()) } else { Err(Trouble::Server(status.to_string())) }
}

/// The processes of a script that is under way; they go with it.
struct Group(Option<i32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // It fails when none is left.
            let _gone = killpg(Pid::from_raw(leader), Signal::SIGKILL);
        }
    }
}
