//! A process of ours: ended when dropped, and never by its name.

use std::process::{Child, Command, ExitStatus, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::leftovers::Owned;

/// How often we look whether a process has ended.
const TICK: Duration = Duration::from_millis(10);

/// A running process.
pub struct Process {
    // None once its output has been collected.
    child: Option<Child>,
    owned: Option<Owned>,
}

impl Process {
    /// Starts it in the namespace of this thread.
    pub(crate) fn spawn(command: &mut Command) -> Result<Process> {
        let name = command.get_program().to_string_lossy().into_owned();
        let (child, owned) =
            Owned::process(command).with_context(|| format!("start {name}; is it installed?"))?;
        Ok(Process { child: Some(child), owned: Some(owned) })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.id().cast_signed()), signal).with_context(|| format!("send {signal}"))
    }

    /// How it ended, if it has. Its output can still be collected.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.disown();
        Some(status)
    }

    /// Waits for its end, but not longer than that.
    pub fn wait_up_to(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            match self.ended() {
                None if Instant::now() < deadline => std::thread::sleep(TICK),
                outcome => return outcome,
            }
        }
    }

    /// Waits for its end and collects what it said.
    pub fn output(mut self) -> Result<Output> {
        let child = self.child.take().context("its output has been collected before")?;
        let output = child.wait_with_output().context("collect output");
        self.disown();
        output
    }

    /// Takes what it writes to a piped standard output.
    pub fn stdout(&mut self) -> Result<std::process::ChildStdout> {
        self.child.as_mut().and_then(|child| child.stdout.take()).context("its output is not piped")
    }

    /// It has been waited for, so its number may soon be somebody else's.
    fn disown(&mut self) {
        if let Some(owned) = self.owned.take() {
            owned.forget();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(child) = self.child.as_mut() else { return };
        if self.owned.is_some() {
            drop(child.kill());
            drop(child.wait());
        }
        self.disown();
    }
}
