//! What outlives us unless it is removed: namespaces, processes, mounts, directories.
//!
//! Each is written down before it is made, so that whatever happens in between, somebody knows:
//! its owner's `Drop`, the signal handler after Ctrl-C, or, for those that were killed outright,
//! the next lab, which reads the dead owner's process id from the names.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::control_groups::ControlGroups;

/// Namespaces are named `xlvs-<process id>-<number>-<role>`.
pub(crate) const PREFIX: &str = "xlvs-";

/// Below it each lab has a directory `<process id>-<number>`.
pub(crate) const DIRECTORY: &str = "/run/xlvs-lab";

/// In that directory, the mount of a director's own bpffs: when it is gone, so is everything pinned there.
pub(crate) const BPFFS: &str = "bpf";

const NAMESPACES: &str = "/run/netns";

static LEFTOVERS: Mutex<Vec<Leftover>> = Mutex::new(Vec::new());

/// One thing to remove.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Leftover {
    Namespace(String),
    Process(Pid),
    Mount(PathBuf),
    ControlGroup(PathBuf),
    Directory(PathBuf),
}

/// Owns a leftover: removes it when dropped.
#[derive(Debug)]
pub(crate) struct Owned(Leftover);

impl Owned {
    /// Writes it down. To be called before it is made.
    pub(crate) fn new(leftover: Leftover) -> Owned {
        watch_signals();
        leftovers().push(leftover.clone());
        Owned(leftover)
    }

    /// Starts a process and writes it down; no signal comes in between.
    pub(crate) fn process(command: &mut Command) -> std::io::Result<(Child, Owned)> {
        watch_signals();
        let mut all = leftovers();
        let child = command.spawn()?;
        let leftover = Leftover::Process(Pid::from_raw(child.id().cast_signed()));
        all.push(leftover.clone());
        Ok((child, Owned(leftover)))
    }

    /// Mounts a file system of the kernel's, at a directory that is made.
    pub(crate) fn mount(kind: &str, path: &Path) -> Result<Owned> {
        std::fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))?;
        let owned = Owned::new(Leftover::Mount(path.to_owned()));
        mount(Some(kind), path, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mount a {kind} at {}", path.display()))?;
        Ok(owned)
    }

    /// Crosses it off without removing it: a process that has been waited for.
    pub(crate) fn forget(self) {
        cross_off(&self.0);
        std::mem::forget(self);
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        cross_off(&self.0);
        self.0.remove();
    }
}

impl Leftover {
    /// Removes it. It may be gone already, so nothing is reported.
    pub(crate) fn remove(&self) {
        match self {
            Leftover::Namespace(name) => run_quietly(&["netns", "del", name]),
            Leftover::Process(pid) => drop(kill(*pid, Signal::SIGKILL)),
            Leftover::Mount(path) => drop(umount2(path, MntFlags::MNT_DETACH)),
            // The kernel's files in it go by themselves.
            Leftover::ControlGroup(path) => drop(std::fs::remove_dir(path)),
            Leftover::Directory(path) => drop(std::fs::remove_dir_all(path)),
        }
    }
}

fn cross_off(leftover: &Leftover) {
    leftovers().retain(|other| other != leftover);
}

/// Removes what labs of dead processes left behind. A killed lab could not do it itself.
pub fn sweep_stale() {
    for name in stale_entries(NAMESPACES, PREFIX) {
        processes_in(&name).into_iter().for_each(|pid| Leftover::Process(pid).remove());
        Leftover::Namespace(name).remove();
    }
    for name in stale_entries(DIRECTORY, "") {
        let directory = Path::new(DIRECTORY).join(&name);
        Leftover::Mount(directory.join(BPFFS)).remove();
        ControlGroups::sweep(&directory, &name);
        Leftover::Directory(directory).remove();
    }
}

fn stale_entries(directory: &str, prefix: &str) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| owner_of(name, prefix).is_some_and(is_dead)).collect()
}

fn owner_of(name: &str, prefix: &str) -> Option<u32> {
    name.strip_prefix(prefix)?.split('-').next()?.parse().ok()
}

fn is_dead(pid: u32) -> bool {
    !Path::new("/proc").join(pid.to_string()).exists()
}

/// Who runs in a namespace of ours: only what its lab started.
fn processes_in(namespace: &str) -> Vec<Pid> {
    let output = Command::new("ip").args(["netns", "pids", namespace]).stderr(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().filter_map(|line| line.trim().parse().ok().map(Pid::from_raw)).collect()
}

fn run_quietly(ip: &[&str]) {
    drop(
        Command::new("ip").args(ip).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status(),
    );
}

/// Ctrl-C and its like remove everything before they end us.
fn watch_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return };
        std::thread::spawn(move || signals.forever().next().map(end_on));
    });
}

fn end_on(signal: i32) {
    // The lock is kept: nobody can make anything new until we are gone.
    let all = leftovers();
    // Newest first: processes before the namespaces they live in, mounts before their directories.
    all.iter().rev().for_each(Leftover::remove);
    std::process::exit(128 + signal);
}

fn leftovers() -> MutexGuard<'static, Vec<Leftover>> {
    LEFTOVERS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_a_name_is_its_process() {
        assert_eq!(owner_of("xlvs-4242-0-rs1", PREFIX), Some(4242));
        assert_eq!(owner_of("4242-0", ""), Some(4242));
        assert_eq!(owner_of("somebody-elses", PREFIX), None);
        assert_eq!(owner_of("xlvs-notapid-0-x", PREFIX), None);
    }
}
