//! Programs of operators', run beside everything else.

use std::io;
use std::process::{Output, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::Command;

/// Runs it without input, and tells how it ended and what it printed where that is piped. Given up, it is ended with all that it
/// started.
pub async fn run(command: &mut Command) -> io::Result<Output> {
    let child = command.process_group(0).stdin(Stdio::null()).spawn()?;
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()));
    let output = child.wait_with_output().await;
    // From here on its number may be another's.
    group.0 = None;
    output
}

/// The processes of a program that is under way; they go with it.
struct Group(Option<i32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // It fails when none is left.
            let _gone = killpg(Pid::from_raw(leader), Signal::SIGKILL);
        }
    }
}
