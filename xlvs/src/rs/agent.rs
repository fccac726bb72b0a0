//! `xlvs rs agent`: tells directors what share of its weight this server wants, in HAProxy's agent-check protocol.

use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use nix::errno::Errno;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::LocalSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use xlvs_realserver::load::{self, Load, Spent};

use crate::program;

/// Where to listen, and what to measure.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Address and port to answer at, or a port alone: at all addresses.
    #[arg(long, default_value = "8282", value_name = "[ADDRESS:]PORT", value_parser = place)]
    listen: Place,
    /// A command that prints the application's own load: a number of percent. Run by `sh -c`, with five seconds' time.
    #[arg(long, value_name = "COMMAND", conflicts_with = "url")]
    command: Option<String>,
    /// A URL (http://) that answers with the application's own load: a number of percent.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// A file whose words are said besides (`drain`, `maint # new disks`), as long as it is there.
    #[arg(long, value_name = "FILE", default_value = "/run/xlvs/agent")]
    words: PathBuf,
    /// Measure this control group (version 2) instead of the whole host: for containers, /sys/fs/cgroup.
    #[arg(long, value_name = "DIRECTORY")]
    cgroup: Option<PathBuf>,
    /// Seconds between measurements.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
}

/// Who asks gets his answer within this, or none.
const PATIENCE: Duration = Duration::from_secs(2);
/// What an application may take to tell its load.
const APPLICATION_PATIENCE: Duration = Duration::from_secs(5);
/// Directors that are answered at once; others wait.
const AT_ONCE: usize = 64;

/// Where to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// At all addresses of both families, or of IPv4 where a host speaks nothing else.
    Port(u16),
    At(SocketAddr),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Port(port) => write!(f, "port {port}"),
            Self::At(at) => at.fmt(f),
        }
    }
}

fn place(text: &str) -> anyhow::Result<Place> {
    match text.parse::<u16>() {
        Ok(port) => Ok(Place::Port(port)),
        Err(_) => {
            let at = text.parse().with_context(|| format!("{text} is neither a port nor ADDRESS:PORT"))?;
            Ok(Place::At(at))
        }
    }
}

async fn listen(place: Place) -> io::Result<TcpListener> {
    match place {
        Place::At(at) => TcpListener::bind(at).await,
        Place::Port(port) => match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
            Err(why) if speaks_no_ipv6(&why) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
            outcome => outcome,
        },
    }
}

/// IPv6 is not in the kernel, or was switched off as a module's parameter or for all devices.
fn speaks_no_ipv6(why: &io::Error) -> bool {
    let code = why.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL))
}

/// Answers until it is told to end.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    if let Some(url) = &options.url {
        ensure!(url.starts_with("http://"), "{url} is no URL of plain HTTP; it begins with http://");
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the agent")?;
    runtime.block_on(LocalSet::new().run_until(serve(options.clone())))
}

async fn serve(options: Options) -> anyhow::Result<ExitCode> {
    let listener = listen(options.listen).await;
    let listener =
        listener.with_context(|| format!("listen at {}; is another agent running?", options.listen))?;
    let mut meter = Meter::new(&options);
    meter.look()?;
    let load = Rc::new(RefCell::new(Load::default()));
    println!("answering at {}: {}", listener.local_addr()?, line(&load.borrow(), &options.words).trim_end());
    tokio::task::spawn_local(measure(meter, Rc::clone(&load), Duration::from_secs(options.every)));
    tokio::task::spawn_local(ask_application(options.clone(), Rc::clone(&load)));
    let room = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            bail!("the agent cannot answer any more")
        };
        let (load, words) = (Rc::clone(&load), options.words.clone());
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::task::spawn_local(async move {
                let text = line(&load.borrow(), &words);
                // A director that has gone hears nothing, and asks again.
                let _said = timeout(PATIENCE, answer(stream, &text)).await;
                drop(place);
            })),
            // No descriptors are left, for a while.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Says the line and hangs up. What the director sent is read first to its end: to close on unread bytes would reset the
/// connection, and the line with it.
async fn answer(mut stream: TcpStream, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    let mut rest = [0; 256];
    while stream.read(&mut rest).await? != 0 {}
    Ok(())
}

/// The words of the protocol hold until others are said, so all are said each time.
fn line(load: &Load, words: &Path) -> String {
    let said = std::fs::read_to_string(words).unwrap_or_default();
    let said = said.lines().next().unwrap_or_default().trim();
    let (said, because) = said.split_once('#').unwrap_or((said, ""));
    let said = if said.trim().is_empty() { "ready" } else { said.trim() };
    let because = if because.trim().is_empty() { String::new() } else { format!(" #{because}") };
    format!("up {said} {}%{because}\n", load.share())
}

/// Keeps the measures of this host.
async fn measure(mut meter: Meter, load: Rc<RefCell<Load>>, every: Duration) {
    let mut turns = interval(every);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    turns.tick().await;
    loop {
        turns.tick().await;
        match meter.look() {
            Ok(seen) => {
                let application = load.borrow().application;
                *load.borrow_mut() = Load { application, ..seen };
            }
            Err(why) => eprintln!("xlvs: the load is as it was: {why:#}"),
        }
    }
}

/// Reads the kernel's figures.
struct Meter {
    cgroup: Option<PathBuf>,
    processors: f64,
    began: Instant,
    before: Option<Spent>,
}

impl Meter {
    fn new(options: &Options) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        Self { cgroup: options.cgroup.clone(), processors, began: Instant::now(), before: None }
    }

    /// What there is to see now; the busy part is that since the last look.
    fn look(&mut self) -> anyhow::Result<Load> {
        let (spent, queue, pressure) = match &self.cgroup {
            Some(directory) => (self.spent_in(directory)?, None, directory.join("memory.pressure")),
            None => {
                let stat = read(Path::new("/proc/stat"))?;
                let spent = Spent::of_host(&stat).context("/proc/stat has no line of all processors")?;
                let running = load::running(&read(Path::new("/proc/loadavg"))?);
                (spent, running.map(|tasks| tasks / self.processors), PathBuf::from("/proc/pressure/memory"))
            }
        };
        let busy = self.before.replace(spent).and_then(|before| spent.busy_since(&before));
        // Kernels without PSI have no such file.
        let memory = std::fs::read_to_string(pressure).ok().and_then(|text| load::pressure(&text));
        Ok(Load { busy, queue, memory, application: None })
    }

    fn spent_in(&self, directory: &Path) -> anyhow::Result<Spent> {
        let stat = read(&directory.join("cpu.stat"))?;
        // The root group has no limit.
        let max = std::fs::read_to_string(directory.join("cpu.max")).unwrap_or_default();
        let now = self.began.elapsed().as_micros() as f64;
        Spent::of_cgroup(&stat, &max, self.processors, now).with_context(|| {
            format!("{} has no usage in its cpu.stat; is it a cgroup of version 2?", directory.display())
        })
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

/// Keeps the application's own measure. While it cannot be asked, it does not count, and the log says so.
async fn ask_application(options: Options, load: Rc<RefCell<Load>>) {
    if options.command.is_none() && options.url.is_none() {
        return;
    }
    let mut turns = interval(Duration::from_secs(options.every));
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut complained = false;
    loop {
        turns.tick().await;
        let text = match (&options.command, &options.url) {
            (Some(command), _) => ask_command(command).await,
            (None, Some(url)) => ask_url(url.clone()).await,
            (None, None) => return,
        };
        let said = text.and_then(|text| {
            load::application(&text).with_context(|| format!("{:.40?} is no number of percent", text.trim()))
        });
        load.borrow_mut().application = said.as_ref().ok().copied();
        match said {
            Ok(_) => complained = false,
            Err(why) if !complained => {
                eprintln!("xlvs: the application's load does not count: {why:#}");
                complained = true;
            }
            Err(_) => {}
        }
    }
}

async fn ask_command(command: &str) -> anyhow::Result<String> {
    let mut shell = tokio::process::Command::new("sh");
    shell.args(["-c", command]).stdout(Stdio::piped()).stderr(Stdio::null());
    let output = timeout(APPLICATION_PATIENCE, program::run(&mut shell)).await;
    let output = output.with_context(|| format!("`{command}` does not end"))?.context("run sh")?;
    ensure!(output.status.success(), "`{command}` ended with {}", output.status);
    String::from_utf8(output.stdout).with_context(|| format!("`{command}` printed no text"))
}

async fn ask_url(url: String) -> anyhow::Result<String> {
    let ask = move || {
        let agent = ureq::Agent::new_with_config(
            ureq::Agent::config_builder().timeout_global(Some(APPLICATION_PATIENCE)).build(),
        );
        let mut response = agent.get(&url).call().with_context(|| format!("ask {url}"))?;
        let body = response.body_mut().with_config().limit(1024).read_to_string();
        body.with_context(|| format!("read what {url} answers"))
    };
    tokio::task::spawn_blocking(ask).await.context("ask in the background")?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operators_words_go_along_and_words_hold_until_others_are_said() {
        let directory = std::env::temp_dir().join(format!("xlvs-agent-{}", std::process::id()));
        let load = Load { busy: Some(0.4), ..Load::default() };
        assert_eq!(line(&load, &directory), "up ready 60%\n");
        for (words, said) in [
            ("drain", "up drain 60%\n"),
            ("maint # new disks\nmore", "up maint 60% # new disks\n"),
            ("# only why", "up ready 60% # only why\n"),
            ("", "up ready 60%\n"),
        ] {
            std::fs::write(&directory, words).expect("a file for the test");
            assert_eq!(line(&load, &directory), said);
        }
        std::fs::remove_file(&directory).expect("it is there");
    }

    #[test]
    fn it_listens_at_a_port_or_an_address() {
        assert_eq!(place("8282").expect("a port"), Place::Port(8282));
        let at = "10.0.0.1:80".parse().map(Place::At).expect("an address");
        assert_eq!(place("10.0.0.1:80").expect("an address"), at);
        assert!(place("http").is_err() && place("70000").is_err());
    }
}
