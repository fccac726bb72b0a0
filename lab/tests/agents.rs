//! Weights follow the servers' load: our agent and strangers', our director and HAProxy.

mod common;

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::{eventually, ruled_by, spread, with_director, within};
use xlvs_lab::{ControlGroups, Director, Lab, Layout, NameServer, Netns, Process};

const ASK: u16 = 7000;
const AGENT: u16 = 8282;
/// For measures that a busy machine delays.
const PATIENCE: Duration = Duration::from_secs(40);
/// Of every server.
const WEIGHT: u32 = 20;

/// A lab whose director asks the servers' agents, once a quarter of a second.
fn asked(
    servers: u8,
    words: &str,
    test: impl FnOnce(&Lab, &mut Director, SocketAddr) -> Result<()>,
) -> Result<()> {
    let lab = Lab::lay_out(Layout::TwoNetwork, servers)?;
    let vip = SocketAddr::new(lab.vip(0).into(), ASK);
    let file = lab.directory().join("xlvs.toml");
    let mut text = format!(
        "interfaces = [\"l0\", \"l1\"]\n[[service]]\ntcp = \"{vip}\"\nscheduler = \"wrr\"\nmethod = \"nat\"\n\
         agent = {{ port = {AGENT}, interval = \"250ms\", timeout = \"200ms\", {words} }}\n"
    );
    for server in &lab.servers {
        text += &format!("[[service.servers]]\naddress = \"{}\"\nweight = {WEIGHT}\n", server.address);
    }
    std::fs::write(&file, text).context("write the file")?;
    ruled_by(&lab, &file, |lab, director| test(lab, director, vip))
}

/// `xlvs rs agent` on a server, measuring a control group and perhaps something else besides.
fn agent_on(lab: &Lab, index: usize, group: &Path, besides: &[&str]) -> Result<Process> {
    let mut command = on_one_processor(&xlvs_lab::director::binary()?)?;
    command.args(["rs", "agent", "--listen", &AGENT.to_string(), "--words", "/nonexistent", "--cgroup"]);
    command.arg(group).args(besides);
    lab.servers[index].netns.spawn(command.stdin(Stdio::null()).stdout(Stdio::null()))
}

/// A command that sees a host of one processor, which one busy process fills.
fn on_one_processor(program: &Path) -> Result<Command> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let first = allowed.and_then(|list| list.trim().split([',', '-']).next()).context("no processor")?;
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", first]).arg(program);
    Ok(command)
}

/// An agent whose application's load is the number in a file.
struct Agent {
    _process: Process,
    load: PathBuf,
}

impl Agent {
    fn start(lab: &Lab, index: usize) -> Result<Agent> {
        let name = &lab.servers[index].name;
        let load = lab.directory().join(format!("load-{name}"));
        std::fs::write(&load, "0").context("write a load")?;
        // A control group that does nothing, so that it is the application's load alone that counts here.
        let idle = lab.directory().join(format!("idle-{name}"));
        std::fs::create_dir_all(&idle)?;
        std::fs::write(idle.join("cpu.stat"), "usage_usec 0\n")?;
        let process = agent_on(lab, index, &idle, &["--command", &format!("cat {}", load.display())])?;
        Ok(Agent { _process: process, load })
    }

    fn is_loaded(&self, percent: u32) -> Result<()> {
        std::fs::write(&self.load, percent.to_string()).context("write a load")
    }
}

/// Computes in a control group until it is dropped, or has used up two minutes of a processor.
fn burner(server: &Netns, group: &Path) -> Result<Process> {
    let script =
        format!("echo $$ > {}/cgroup.procs && ulimit -t 120 && while :; do :; done", group.display());
    server.spawn(Command::new("sh").args(["-c", &script]).stdin(Stdio::null()))
}

/// The weights in `ipvsadm -Ln`, by the servers' order in the lab; `None`: it is out.
fn weights(lab: &Lab, director: &Director) -> Result<Vec<Option<u32>>> {
    let listing = director.must("-Ln")?;
    let of = |server: &xlvs_lab::Server| {
        let at = format!("{}:{ASK}", server.address);
        let line = listing.lines().find(|line| line.split_whitespace().nth(1) == Some(&at))?;
        line.split_whitespace().nth(3)?.parse().ok()
    };
    Ok(lab.servers.iter().map(of).collect())
}

#[test]
fn the_share_of_a_loaded_server_shrinks_and_returns_without_flutter() -> Result<()> {
    asked(3, "slow_start = \"0s\"", |lab, director, vip| {
        let _names = NameServer::on_all(lab, ASK)?;
        let agents = (0..3).map(|index| Agent::start(lab, index)).collect::<Result<Vec<_>>>()?;
        let whole = Some(WEIGHT);
        eventually("all have their weight", || Ok(weights(lab, director)? == [whole; 3]))?;

        agents[1].is_loaded(90)?;
        // A tenth of 20.
        eventually(
            "the weight follows",
            || Ok(weights(lab, director)?[1].is_some_and(|weight| weight <= 3)),
        )?;
        let answered = spread(&lab.client().ask_times(vip, 430)?);
        let second = answered.get("rs2").copied().unwrap_or(0);
        ensure!((5..=40).contains(&second), "{answered:?}");

        // It wavers by a few percent, and its weight does not.
        let before = weights(lab, director)?;
        for turn in 0..12 {
            agents[1].is_loaded(if turn % 2 == 0 { 88 } else { 92 })?;
            std::thread::sleep(Duration::from_millis(300));
            let now = weights(lab, director)?;
            ensure!(now == before, "the weights flutter: {before:?}, then {now:?}");
        }

        agents[1].is_loaded(0)?;
        eventually("the weight returns", || Ok(weights(lab, director)? == [whole; 3]))?;
        ensure!(
            director.shell("xlvs save")?.out.contains(&format!("weight = {WEIGHT}")),
            "the stated weight is another"
        );
        Ok(())
    })
}

#[test]
fn a_server_that_computes_gets_less_until_it_is_idle_again() -> Result<()> {
    asked(3, "slow_start = \"0s\"", |lab, director, vip| {
        let _names = NameServer::on_all(lab, ASK)?;
        let mut groups = ControlGroups::of(lab)?;
        let groups =
            lab.servers.iter().map(|server| groups.make(&server.name)).collect::<Result<Vec<_>>>()?;
        let agents = groups.iter().enumerate().map(|(index, group)| agent_on(lab, index, group, &[]));
        let _agents = agents.collect::<Result<Vec<_>>>()?;
        let whole = Some(WEIGHT);
        within(PATIENCE, "all have their weight", || Ok(weights(lab, director)? == [whole; 3]))?;

        // It shares the machine with whatever else runs here, so it need not get all of a processor.
        let burner = burner(&lab.servers[1].netns, &groups[1])?;
        let halved = |weights: &[Option<u32>]| weights[1].is_some_and(|weight| weight <= WEIGHT / 2);
        within(PATIENCE, "the busy server's weight follows", || Ok(halved(&weights(lab, director)?)))?;
        let answered = spread(&lab.client().ask_times(vip, 300)?);
        let share = |name: &str| answered.get(name).copied().unwrap_or(0);
        ensure!(
            share("rs2") * 3 < share("rs1") * 2 && share("rs1").abs_diff(share("rs3")) < 30,
            "{answered:?}"
        );

        drop(burner);
        within(PATIENCE, "the weight returns", || Ok(weights(lab, director)? == [whole; 3]))
    })
}

/// An agent of somebody else's: says this to whoever asks, and hangs up.
struct Stranger {
    ends: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Stranger {
    fn saying(netns: &Netns, text: impl Into<Vec<u8>>) -> Result<Stranger> {
        let text = text.into();
        let at = SocketAddr::from(([0, 0, 0, 0], AGENT));
        // A child that another test is just starting has a copy of the one before until it is another program.
        let mut listener = None;
        eventually("the agent's port is free", || {
            listener = netns.run(|| TcpListener::bind(at)).ok();
            Ok(listener.is_some())
        })?;
        let listener = listener.context("listen as an agent")?;
        listener.set_nonblocking(true)?;
        let ends = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ends);
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((mut stream, _)) => drop(stream.write_all(&text)),
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        Ok(Stranger { ends, thread: Some(thread) })
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(std::thread::JoinHandle::join));
    }
}

#[test]
fn strangers_are_understood_and_nonsense_leaves_the_weight() -> Result<()> {
    asked(2, "slow_start = \"0s\", smoothing = 100", |lab, director, _| {
        let server = &lab.servers[0].netns;
        let weight = |what: &str, is: Option<u32>| {
            within(Duration::from_secs(10), what, || Ok(weights(lab, director)?[0] == is))
        };
        let said = |words: &str| Stranger::saying(server, words);
        let half = said("50%\n")?;
        weight("half of it", Some(WEIGHT / 2))?;
        drop(half);

        for (nonsense, told) in [
            ("200%\n".as_bytes().to_vec(), "asked for 200 %"),
            (b"HTTP/1.1 400 Bad Request\r\n".to_vec(), "HTTP/1.1"),
            (vec![b'x'; 1 << 20], "longer than"),
            (Vec::new(), "hung up"),
            (b"\xff\xff\n".to_vec(), "no text"),
        ] {
            // A complaint is repeated once a minute; after a word that makes sense the next is a new one.
            let answers = || director.log().matches("answers again").count();
            let before = answers();
            let stranger = Stranger::saying(server, nonsense)?;
            eventually(told, || Ok(director.log().contains(told)))?;
            ensure!(weights(lab, director)?[0] == Some(WEIGHT / 2), "{told}: {:?}", weights(lab, director)?);
            drop(stranger);
            let _sense = said("50%\n")?;
            eventually("it answers again", || Ok(answers() > before))?;
        }

        let drains = said("drain\n")?;
        weight("no new connections", Some(0))?;
        drop(drains);
        let rests = said("maint 100%\n")?;
        weight("out", None)?;
        drop(rests);
        let _back = said("ready up 100%\n")?;
        weight("all of it", Some(WEIGHT))?;
        Ok(())
    })
}

#[test]
fn a_server_that_returns_begins_slowly() -> Result<()> {
    asked(2, "slow_start = \"4s\", smoothing = 100", |lab, director, _| {
        let server = &lab.servers[0].netns;
        let up = Stranger::saying(server, "up ready 100%\n")?;
        eventually("it has its weight", || Ok(weights(lab, director)?[0] == Some(WEIGHT)))?;
        drop(up);
        let down = Stranger::saying(server, "down # a disk\n")?;
        eventually("it is out", || Ok(weights(lab, director)?[0].is_none()))?;
        ensure!(director.log().contains("a disk"), "the reason is not told");
        drop(down);
        let _up = Stranger::saying(server, "up\n")?;
        let mut seen = Vec::new();
        eventually("it has its weight again", || {
            seen.extend(weights(lab, director)?[0]);
            Ok(seen.last() == Some(&WEIGHT))
        })?;
        ensure!(seen[0] <= WEIGHT / 2 && seen.is_sorted(), "{seen:?}");
        ensure!(seen.iter().any(|weight| (WEIGHT / 4..WEIGHT).contains(weight)), "at once: {seen:?}");
        Ok(())
    })
}

#[test]
fn an_agent_may_be_set_by_a_command() -> Result<()> {
    with_director(Layout::TwoNetwork, 1, |lab, director| {
        let vip = SocketAddr::new(lab.vip(0).into(), ASK);
        let server = format!("{}:{ASK}", lab.servers[0].address);
        director.must(&format!("-A -t {vip} -s rr"))?;
        director.must(&format!("-a -t {vip} -r {server} -m -w {WEIGHT}"))?;
        let _half = Stranger::saying(&lab.servers[0].netns, "50%\n")?;
        for (words, why) in [
            (format!("set {vip} --most 5000"), "nothing was changed"),
            ("set 192.0.2.99:80".to_owned(), "192.0.2.99:80"),
            (format!("set {vip} 192.0.2.99"), "192.0.2.99"),
        ] {
            let reply = agent(director, &words)?;
            ensure!(reply.code != Some(0) && reply.err.contains(why), "{words}: {reply:?}");
        }
        let history = director.shell("xlvs history")?.out;
        ensure!(!history.contains("agent"), "a refusal left a revision: {history}");

        let reply =
            agent(director, &format!("set {vip} {server} --interval 250ms --timeout 200ms --slow-start 0s"))?;
        ensure!(reply.code == Some(0) && reply.out.contains("agent"), "{reply:?}");
        eventually("half of its weight", || Ok(weights(lab, director)? == [Some(WEIGHT / 2)]))?;
        ensure!(director.shell("xlvs servers")?.out.contains("its agent says 50 %"), "it is not shown");
        director.kill9()?;
        director.restart()?;
        ensure!(weights(lab, director)? == [Some(WEIGHT / 2)], "the next daemon knows nothing of it");

        let reply = agent(director, &format!("remove {vip}"))?;
        ensure!(reply.code == Some(0), "{reply:?}");
        eventually("all of its weight", || Ok(weights(lab, director)? == [Some(WEIGHT)]))
    })
}

fn agent(director: &Director, words: &str) -> Result<xlvs_lab::Reply> {
    director.shell(&format!("xlvs agent {words}"))
}

#[test]
fn haproxy_as_a_director_understands_our_agent() -> Result<()> {
    let lab = Lab::lay_out(Layout::TwoNetwork, 1)?;
    let agent = Agent::start(&lab, 0)?;
    let _names = NameServer::on_all(&lab, ASK)?;
    let (file, socket) = (lab.directory().join("haproxy.cfg"), lab.directory().join("haproxy.sock"));
    let address = lab.servers[0].address;
    let text = format!(
        "global\n stats socket {} mode 600 level admin\ndefaults\n mode tcp\n timeout connect 2s\n timeout client 5s\n timeout server 5s\n\
         listen names\n bind :{ASK}\n server rs1 {address}:{ASK} weight 100 check agent-check agent-port {AGENT} agent-inter 250ms\n",
        socket.display(),
    );
    std::fs::write(&file, text).context("write HAProxy's file")?;
    // Without a master, so that all of it ends with the test.
    let mut haproxy = Command::new("haproxy");
    haproxy.arg("-db").arg("-f").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _haproxy = lab.director.spawn(&mut haproxy)?;
    let weight = || -> Result<String> {
        use std::io::Read;
        let mut stream = match std::os::unix::net::UnixStream::connect(&socket) {
            Ok(stream) => stream,
            Err(_) => return Ok(String::new()),
        };
        stream.write_all(b"get weight names/rs1\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    eventually("HAProxy gives it all of its weight", || Ok(weight()?.starts_with("100 (initial 100)")))?;
    agent.is_loaded(75)?;
    eventually("HAProxy gives it a quarter", || Ok(weight()?.starts_with("25 (initial 100)")))?;
    agent.is_loaded(0)?;
    eventually("HAProxy gives it all again", || Ok(weight()?.starts_with("100 (initial 100)")))
}
