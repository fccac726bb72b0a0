//! A program that says how a server is.

use std::net::SocketAddr;
use std::process::Stdio;

use super::{Trouble, in_words};
use crate::program;

/// Runs it, and tells how it ended. Given up, it is ended with all that it started.
pub(super) async fn run(command: &[String], target: SocketAddr) -> Result<(), Trouble> {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    command.env("XLVS_ADDRESS", target.ip().to_string()).env("XLVS_PORT", target.port().to_string());
    let not_run = |why| Trouble::Ours(format!("{program} cannot be run: {}", in_words(&why)));
    let status = program::run(&mut command).await.map_err(not_run)?.status;
    if status.success() { Ok(()) } else { Err(Trouble::Server(status.to_string())) }
}
