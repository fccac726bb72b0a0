//! The daemon in the director's namespace, and its command line.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::leftovers::{BPFFS, Owned};
use crate::netns::Netns;
use crate::process::Process;
use crate::topology::Lab;

/// The daemon must answer within this time, also where two CPUs are shared by many.
/// The kernel looks through two million instructions when programs are loaded: seconds, and many on a busy machine.
const START_PATIENCE: Duration = Duration::from_secs(90);
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// What a command did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// A director that runs `xlvs`. Its pins live in a bpffs of their own, so nothing remains of it.
pub struct Director<'a> {
    netns: &'a Netns,
    interfaces: Vec<String>,
    directory: PathBuf,
    binary: PathBuf,
    options: Vec<String>,
    /// Words before the binary's name.
    launcher: Vec<String>,
    daemon: Option<Process>,
    start_took: Duration,
    _bpffs: Owned,
}

/// The binary to test: `XLVS_BIN`, else the release build of this workspace.
pub fn binary() -> Result<PathBuf> {
    let told = std::env::var_os("XLVS_BIN").map(PathBuf::from);
    let path = told.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/xlvs"));
    ensure!(path.exists(), "{} is not there: `cargo xtask build` makes it", path.display());
    Ok(path)
}

impl<'a> Director<'a> {
    /// Starts the daemon on all of the director's interfaces and waits until it answers.
    pub fn start(lab: &'a Lab, binary: &Path) -> Result<Director<'a>> {
        let mut director = Director::prepare(lab, binary)?;
        director.restart()?;
        Ok(director)
    }

    /// A director whose daemon does not run yet.
    pub fn prepare(lab: &'a Lab, binary: &Path) -> Result<Director<'a>> {
        Director::prepare_on(&lab.director, lab.layout().director_interfaces(), lab.directory(), binary)
    }

    /// A director that a file rules, its interfaces too.
    pub fn ruled_by(lab: &'a Lab, binary: &Path, file: &Path) -> Result<Director<'a>> {
        let director = Director::prepare_on(&lab.director, &[], lab.directory(), binary)?;
        let mut director = director.with_options(&["--config", &file.to_string_lossy()]);
        director.restart()?;
        Ok(director)
    }

    /// The same on any host, with these interfaces and in this directory.
    pub fn prepare_on(
        netns: &'a Netns,
        interfaces: &[&str],
        directory: &Path,
        binary: &Path,
    ) -> Result<Director<'a>> {
        let bpffs = Owned::mount("bpf", &directory.join(BPFFS))?;
        Ok(Director {
            netns,
            interfaces: interfaces.iter().map(|&name| name.to_owned()).collect(),
            directory: directory.to_owned(),
            binary: binary.to_owned(),
            options: Vec::new(),
            launcher: Vec::new(),
            daemon: None,
            start_took: Duration::ZERO,
            _bpffs: bpffs,
        })
    }

    /// Has the daemon started with these options too, such as `--max-conns 4000`.
    #[must_use]
    pub fn with_options(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(|&option| option.to_owned()));
        self
    }

    /// Has the daemon started by another program that becomes it, such as `env NAME=value`.
    #[must_use]
    pub fn launched_by(mut self, words: &[&str]) -> Self {
        self.launcher = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Starts the daemon, also again, after [`Director::kill9`] or [`Director::stop`].
    pub fn restart(&mut self) -> Result<()> {
        ensure!(self.daemon.is_none(), "the daemon runs already");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .context("open the daemon's log")?;
        let interfaces: Vec<&str> = self.interfaces.iter().map(String::as_str).collect();
        let mut run = self.run_on(&interfaces);
        run.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let begun = Instant::now();
        self.daemon = Some(self.netns().spawn(&mut run)?);
        self.wait_until_it_answers()?;
        self.start_took = begun.elapsed();
        Ok(())
    }

    /// How long the daemon took when it was started last.
    pub fn start_took(&self) -> Duration {
        self.start_took
    }

    /// A daemon that must not come up on these interfaces: what it said when it gave up.
    pub fn refused(&self, interfaces: &[&str]) -> Result<Reply> {
        self.refused_to(&mut self.run_on(interfaces))
    }

    /// The same for a user who is not root. The binary is copied to where he can read it.
    pub fn refused_to_nobody(&self) -> Result<Reply> {
        let (copy, nobody) = (self.directory.join("xlvs"), 65_534);
        std::fs::copy(&self.binary, &copy).context("copy the binary")?;
        let interfaces: Vec<&str> = self.interfaces.iter().map(String::as_str).collect();
        let mut run = self.run_with(&copy, &interfaces);
        self.refused_to(run.uid(nobody).gid(nobody))
    }

    fn refused_to(&self, run: &mut Command) -> Result<Reply> {
        run.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = self.netns().spawn(run)?;
        let ended = process.wait_up_to(START_PATIENCE);
        ensure!(ended.is_some(), "the daemon came up, and should not have");
        process.output().map(Reply::from)
    }

    fn run_on(&self, interfaces: &[&str]) -> Command {
        self.run_with(&self.binary, interfaces)
    }

    fn run_with(&self, binary: &Path, interfaces: &[&str]) -> Command {
        let mut words = self.launcher.iter().map(OsStr::new).chain([binary.as_os_str()]);
        let mut run = Command::new(words.next().unwrap_or_default());
        run.args(words)
            .arg("run")
            .args(&self.options)
            .args(interfaces.iter().flat_map(|name| ["--interface", name]));
        run.args([
            "--run-dir".as_ref(),
            self.run_dir().as_os_str(),
            "--bpffs".as_ref(),
            self.bpffs().as_os_str(),
        ]);
        run
    }

    /// Runs `ipvsadm` with these words.
    pub fn ipvsadm(&self, words: &[&str]) -> Result<Reply> {
        self.command("ipvsadm", words)
    }

    /// Runs an `ipvsadm` line that must succeed, and returns what it printed.
    pub fn must(&self, line: &str) -> Result<String> {
        let reply = self.ipvsadm(&line.split_whitespace().collect::<Vec<_>>())?;
        ensure!(reply.code == Some(0), "ipvsadm {line}: {:?} {}", reply.code, reply.err.trim());
        Ok(reply.out)
    }

    /// Runs any other word of `xlvs`, such as `check`.
    pub fn command(&self, word: &str, arguments: &[&str]) -> Result<Reply> {
        reply(self.netns(), self.xlvs(word).args(arguments))
    }

    /// Runs a shell script as on the director's console, in the lab's directory; `ipvsadm` and its two scripts are on the
    /// path.
    pub fn shell(&self, script: &str) -> Result<Reply> {
        let commands = self.directory.join("bin");
        std::fs::create_dir_all(&commands).with_context(|| format!("make {}", commands.display()))?;
        let binary = self.binary.canonicalize().context("find the binary")?;
        for name in ["xlvs", "ipvsadm", "ipvsadm-save", "ipvsadm-restore"] {
            match std::os::unix::fs::symlink(&binary, commands.join(name)) {
                Err(why) if why.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(why).with_context(|| format!("link {name}"));
                }
                _ => {}
            }
        }
        let others = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("sh");
        shell
            .args(["-c", script])
            .current_dir(&self.directory)
            .env("PATH", format!("{}:{others}", commands.display()));
        shell.env("XLVS_RUN_DIR", self.run_dir()).env("XLVS_BPFFS", self.bpffs());
        reply(self.netns(), &mut shell)
    }

    /// Compares the connection table with the counters, which must agree to the last connection.
    pub fn check(&self) -> Result<()> {
        let reply = self.command("check", &[])?;
        ensure!(reply.code == Some(0), "xlvs check: {:?}\n{}{}", reply.code, reply.out, reply.err);
        Ok(())
    }

    /// The process id of the daemon.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Process::id)
    }

    /// Ends the daemon with SIGKILL: what a crash would leave.
    pub fn kill9(&mut self) -> Result<()> {
        self.end(Signal::SIGKILL).map(drop)
    }

    /// Ends the daemon with SIGTERM; it must end by itself and in good order.
    pub fn stop(&mut self) -> Result<()> {
        let status = self.end(Signal::SIGTERM)?;
        ensure!(status.success(), "the daemon ended with {status} on SIGTERM; its log:\n{}", self.log());
        Ok(())
    }

    /// Ends the daemon, has it forget everything, and starts it again.
    pub(crate) fn renew(&mut self) -> Result<()> {
        self.stop()?;
        let unloaded = self.unload()?;
        ensure!(unloaded.code == Some(0), "xlvs unload: {}", unloaded.err.trim());
        self.restart()
    }

    /// Has the daemon read its file again, with SIGHUP.
    pub fn hang_up(&self) -> Result<()> {
        self.daemon.as_ref().context("the daemon does not run")?.signal(Signal::SIGHUP)
    }

    /// Removes all pins of a daemon that does not run.
    pub fn unload(&self) -> Result<Reply> {
        let (run_dir, bpffs) = (self.run_dir(), self.bpffs());
        let flags = ["--run-dir".as_ref(), run_dir.as_os_str(), "--bpffs".as_ref(), bpffs.as_os_str()];
        reply(self.netns(), self.xlvs("unload").args(flags))
    }

    /// What the daemon has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Where it keeps its control socket.
    pub fn run_dir(&self) -> PathBuf {
        self.directory.join("run")
    }

    /// Where it pins.
    pub fn bpffs(&self) -> PathBuf {
        self.directory.join(BPFFS)
    }

    fn netns(&self) -> &'a Netns {
        self.netns
    }

    fn xlvs(&self, word: &str) -> Command {
        let mut xlvs = Command::new(&self.binary);
        xlvs.arg(word).env("XLVS_RUN_DIR", self.run_dir()).env("XLVS_BPFFS", self.bpffs());
        xlvs
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join("xlvs.log")
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            if let Some(status) = self.daemon.as_mut().and_then(Process::ended) {
                self.daemon = None;
                bail!("the daemon ended at once ({status}); its log:\n{}", self.log());
            }
            if self.run_dir().join("control.sock").exists() && self.ipvsadm(&["-Ln"])?.code == Some(0) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the daemon does not answer; its log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        let mut daemon = self.daemon.take().context("the daemon does not run")?;
        daemon.signal(signal)?;
        daemon
            .wait_up_to(STOP_PATIENCE)
            .with_context(|| format!("the daemon ignores {signal}; its log:\n{}", self.log()))
    }
}

impl Drop for Director<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- the daemon's log ----\n{}---- end of the daemon's log ----", self.log());
        }
        if self.daemon.is_some() {
            drop(self.end(Signal::SIGTERM));
        }
        drop(self.unload());
    }
}

fn reply(netns: &Netns, command: &mut Command) -> Result<Reply> {
    netns.output(command).map(Reply::from)
}

impl From<Output> for Reply {
    fn from(output: Output) -> Reply {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Reply { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}
