//! Health checks by the thousand: what they take of the daemon, from its own stack and on a client's way.

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::socket::{Backlog, Shutdown, listen, shutdown};
use xlvs_lab::director::{Director, binary};
use xlvs_lab::{Lab, Netns};

use crate::large::{fact, processor_time};
use crate::report::Fact;

/// Whom all of them ask: three servers answer for everybody.
const PORT: u16 = 7000;
const SERVICES: u32 = 500;
const SERVERS: u16 = 10;
/// Until they are spread over their interval.
const SETTLED: Duration = Duration::from_secs(4);
const WATCHED: Duration = Duration::from_secs(10);

/// Five thousand TCP checks a second, one way and the other.
pub fn facts() -> Result<Vec<Fact>> {
    let lab = Lab::two_network(3)?;
    let _doors = lab.servers.iter().map(|server| Door::open(&server.netns)).collect::<Result<Vec<_>>>()?;
    let ways = [("server", "plain"), ("path", "on a client's way")];
    let facts = ways.map(|(way, name)| by(&lab, way, name).with_context(|| format!("checks, {name}")));
    Ok(facts.into_iter().collect::<Result<Vec<_>>>()?.concat())
}

fn by(lab: &Lab, way: &str, name: &str) -> Result<Vec<Fact>> {
    let file = lab.directory().join(format!("checks-{way}.toml"));
    std::fs::write(&file, configuration(lab, way)).context("write the file")?;
    let mut director = Director::ruled_by(lab, &binary()?, &file)?;
    std::thread::sleep(SETTLED);
    let pid = director.pid().context("the daemon runs")?;
    let (begun, used, made) = (Instant::now(), processor_time(pid)?, checks_made(&director)?);
    std::thread::sleep(WATCHED);
    let used = (processor_time(pid)? - used).as_secs_f64();
    let (made, passed) = (checks_made(&director)? - made, begun.elapsed().as_secs_f64());
    let up = director.shell("xlvs servers | grep -c ', up$'")?.out.trim().parse()?;
    director.stop()?;
    director.unload()?;
    let all = SERVICES * u32::from(SERVERS);
    Ok(vec![
        fact(&format!("a TCP check, {name}, of {all} a second"), used / made * 1e6, "us of the daemon"),
        fact(&format!("TCP checks, {name}, of {all} due"), made / passed, "made a second"),
        fact(&format!("servers checked so, {name}, of {all}"), up, "known to be up"),
    ])
}

fn configuration(lab: &Lab, way: &str) -> String {
    let mut text = format!(
        "interfaces = [\"l0\", \"l1\"]\n[defaults]\nmethod = \"nat\"\n\
         check = {{ type = \"tcp\", port = {PORT}, via = \"{way}\", interval = 1, timeout = 5 }}\n"
    );
    for service in 0..SERVICES {
        let server = |number: u16| {
            let address = lab.servers[usize::from(number) % lab.servers.len()].address;
            format!("\"{address}:{}\"", 8000 + number)
        };
        let servers: Vec<String> = (0..SERVERS).map(server).collect();
        let vip = Ipv4Addr::from(0x0b00_0000 + service);
        text += &format!("[[service]]\ntcp = \"{vip}:80\"\nservers = [{}]\n", servers.join(", "));
    }
    text
}

/// How many have ended since the daemon's start.
fn checks_made(director: &Director<'_>) -> Result<f64> {
    let socket = director.run_dir().join("api.sock");
    let metrics =
        director.shell(&format!("curl -s --unix-socket {} http://xlvs/metrics", socket.display()))?;
    let counts = metrics.out.lines().filter(|line| line.starts_with("xlvs_checks_total"));
    let counts = counts.map(|line| line.rsplit(' ').next().unwrap_or_default().parse::<f64>());
    let counts = counts.collect::<Result<Vec<_>, _>>().context("read the metrics")?;
    (!counts.is_empty()).then(|| counts.iter().sum()).with_context(|| format!("no checks: {}", metrics.err))
}

/// Takes connections and closes them, until dropped: no more is wanted of whom a check of TCP asks.
struct Door {
    listener: Arc<TcpListener>,
    thread: Option<JoinHandle<()>>,
}

impl Door {
    fn open(netns: &Netns) -> Result<Self> {
        let listener = netns.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))).context("listen")?;
        // All checks of an interval may come at once.
        listen(&listener, Backlog::new(4096)?).context("let more wait")?;
        let listener = Arc::new(listener);
        let door = Arc::clone(&listener);
        let thread = std::thread::spawn(move || while door.accept().is_ok() {});
        Ok(Self { listener, thread: Some(thread) })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        shutdown(self.listener.as_raw_fd(), Shutdown::Both).ok();
        self.thread.take().into_iter().for_each(|thread| drop(thread.join()));
    }
}
