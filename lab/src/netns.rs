//! A network namespace, and how to act in it.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};

use crate::leftovers::{Leftover, Owned, PREFIX};
use crate::process::Process;

/// A network namespace of our own, removed when dropped.
pub struct Netns {
    name: String,
    file: File,
    _owned: Owned,
}

impl Netns {
    /// Makes one that belongs to no lab.
    pub fn of_our_own(role: &str) -> Result<Netns> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Labs count from 0.
        let number = 1_000_000 + NEXT.fetch_add(1, Ordering::Relaxed);
        Netns::create(format!("{PREFIX}{}-{number}-{role}", std::process::id()))
    }

    /// Makes it, with `lo` up.
    pub(crate) fn create(name: String) -> Result<Netns> {
        let owned = Owned::new(Leftover::Namespace(name.clone()));
        said(Command::new("ip").args(["netns", "add", &name]), None)?;
        let file = File::open(Path::new("/run/netns").join(&name)).with_context(|| format!("open {name}"))?;
        let netns = Netns { name, file, _owned: owned };
        netns.ip(&["link set lo up"])?;
        Ok(netns)
    }

    /// The name under which `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Does something in this namespace: sockets that it opens, and only those, belong here.
    pub fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        // A namespace belongs to a thread; one that ends afterwards cannot forget to come back.
        std::thread::scope(|scope| {
            let actor = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET).expect("enter a namespace of our own");
                act()
            });
            actor.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a process here.
    pub fn spawn(&self, command: &mut Command) -> Result<Process> {
        self.run(|| Process::spawn(command))
    }

    /// Runs a process here to its end.
    pub fn output(&self, command: &mut Command) -> Result<Output> {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.spawn(command)?.output()
    }

    /// Runs lines of the `ip` tool here, such as `link set e0 up`.
    pub fn ip<L: AsRef<str>>(&self, lines: &[L]) -> Result<()> {
        self.ip_batch(&[], lines)
    }

    /// The same for lines that do not say by an address that they mean IPv6.
    pub fn ip6<L: AsRef<str>>(&self, lines: &[L]) -> Result<()> {
        self.ip_batch(&["-6"], lines)
    }

    /// Runs a line that removes something, for this family (`-4`, `-6`). It may be gone already.
    pub(crate) fn ip_if_there(&self, family: &str, line: &str) -> Result<()> {
        let mut ip = Command::new("ip");
        self.output(ip.args([family, "-n", &self.name]).args(line.split(' '))).map(drop)
    }

    fn ip_batch<L: AsRef<str>>(&self, family: &[&str], lines: &[L]) -> Result<()> {
        let script = lines.iter().fold(String::new(), |script, line| script + line.as_ref() + "\n");
        said(Command::new("ip").args(family).args(["-n", &self.name, "-batch", "-"]), Some(&script))
    }

    /// Sets a kernel parameter of this namespace, such as `net.ipv4.ip_forward`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(key.replace('.', "/"));
        self.run(|| std::fs::write(&path, value))
            .with_context(|| format!("set {key}={value} in {}", self.name))
    }

    /// Turns features of a device on or off, such as `tx off`.
    pub fn ethtool(&self, device: &str, features: &str) -> Result<()> {
        let output = self.output(Command::new("ethtool").args(["-K", device]).args(features.split(' ')))?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ethtool -K {device} {features}: {}", complaint.trim());
        Ok(())
    }
}

/// Runs a tool with the given input; its own complaint is the error.
fn said(command: &mut Command, input: Option<&str>) -> Result<()> {
    let tool = command.get_program().to_string_lossy().into_owned();
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = piped.spawn().with_context(|| format!("start {tool}; is it installed?"))?;
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        stdin.write_all(input.as_bytes()).with_context(|| format!("write to {tool}"))?;
    }
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
