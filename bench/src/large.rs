//! A large site under a running daemon: how fast changes are, and what the daemon takes when nothing happens.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::programs::{ProgramFd, ProgramInfo};
use xlvs_lab::director::{Director, binary};
use xlvs_lab::{Lab, Netns};

use crate::frames::{Frame, Payload, SHORT};
use crate::harness::Harness;
use crate::report::Fact;
use crate::rows::client;
use crate::site::{VIPS, port};

/// A fact by name, with what it is of.
pub fn fact(name: &str, value: f64, unit: &str) -> Fact {
    Fact { name: name.to_owned(), value, unit: unit.to_owned() }
}

/// Everything of this kind.
pub fn facts(harness: &mut Harness) -> Result<Vec<Fact>> {
    let lab = Lab::two_network(1)?;
    let mut facts = configuration(&lab).context("a large configuration")?;
    facts.push(idle(&lab, harness).context("the idle daemon")?);
    facts.extend(listing(&lab, harness).context("a long listing")?);
    Ok(facts)
}

/// Services of a rule file: 10.200.0.0/16, one port each.
fn services(count: u32) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("10.200.{}.{}:80", number >> 8, number & 0xff))
}

/// So many services, each of so many servers, as `ipvsadm -R` reads them. All servers are one host's ports, so that the time is
/// not that of a thousand neighbours that nobody has.
fn rules(count: u32, servers: u32) -> String {
    let mut rules = String::new();
    for service in services(count) {
        rules += &format!("-A -t {service} -s wlc\n");
        for server in 0..servers {
            rules += &format!("-a -t {service} -r 10.1.0.11:{} -m -w 1\n", 8000 + server);
        }
    }
    rules
}

fn configuration(lab: &Lab) -> Result<Vec<Fact>> {
    let options = [
        "--max-conns",
        "10000",
        "--max-conns-v6",
        "1000",
        "--max-services",
        "16384",
        "--max-servers",
        "131072",
    ];
    let mut director = Director::prepare(lab, &binary()?)?.with_options(&options);
    director.restart()?;
    let restored = restore(lab, &director, &rules(10_000, 10))?;
    let changed = change_weights(&director)?;
    director.must("-C")?;
    let many = restore(lab, &director, &rules(16_384, 1))?;
    ensure!(director.must("-Ln")?.matches("TCP ").count() == 16_384, "not every service is listed");
    director.must("-C")?;
    let wide = restore(lab, &director, &rules(1, 1024))?;
    ensure!(director.must("-Ln")?.matches("-> 10.1.0.11:").count() == 1024, "not every server is listed");
    Ok(vec![
        fact("10,000 services of 10 servers restored", restored.as_secs_f64(), "s"),
        fact(
            "a server's weight changed, among 10,000 services of 10 servers",
            changed.as_secs_f64() * 1e3,
            "ms, the command included",
        ),
        fact("16,384 services of one server restored", many.as_secs_f64(), "s"),
        fact("a service of 1,024 servers restored", wide.as_secs_f64(), "s"),
    ])
}

fn restore(lab: &Lab, director: &Director, rules: &str) -> Result<Duration> {
    let path = lab.directory().join("rules");
    std::fs::write(&path, rules).context("write the rules")?;
    let begun = Instant::now();
    let reply = director.shell(&format!("ipvsadm -R < {}", path.display()))?;
    let took = begun.elapsed();
    ensure!(
        reply.code == Some(0) && reply.err.is_empty(),
        "ipvsadm -R: {:?} {}",
        reply.code,
        reply.err.trim()
    );
    Ok(took)
}

/// The middle of several changes, each by a command of its own and in force when that ends.
fn change_weights(director: &Director) -> Result<Duration> {
    let mut times = Vec::new();
    for (turn, service) in services(10_000).step_by(500).enumerate() {
        let weight = turn + 2;
        let begun = Instant::now();
        director.must(&format!("-e -t {service} -r 10.1.0.11:8003 -m -w {weight}"))?;
        times.push(begun.elapsed());
        let listed = director.must(&format!("-Ln -t {service}"))?;
        let server = listed.lines().find(|line| line.contains(":8003")).unwrap_or_default().to_owned();
        ensure!(
            server.split_whitespace().nth(3) == Some(&weight.to_string()),
            "the weight {weight} is not in force: {server}"
        );
    }
    times.sort();
    Ok(times[times.len() / 2])
}

/// What the daemon takes of a processor while a million connections lie there.
fn idle(lab: &Lab, harness: &mut Harness) -> Result<Fact> {
    const WATCHED: Duration = Duration::from_secs(10);
    let director = crowded(lab, harness, 1)?;
    let pid = director.pid().context("the daemon runs")?;
    let before = processor_time(pid)?;
    std::thread::sleep(WATCHED);
    let share = (processor_time(pid)? - before).as_secs_f64() / WATCHED.as_secs_f64() * 100.0;
    Ok(fact("the idle daemon, 1 M connections", share, "% of one core"))
}

/// `ipvsadm -Lnc` of five million connections, in a shell that may have 256 MB of addresses.
fn listing(lab: &Lab, harness: &mut Harness) -> Result<Vec<Fact>> {
    let director = crowded(lab, harness, 5)?;
    let status =
        Path::new("/proc").join(director.pid().context("the daemon runs")?.to_string()).join("status");
    let before = peak_memory(&status)?;
    let begun = Instant::now();
    let lines = director.shell("ulimit -v 262144; ipvsadm -Lnc | wc -l")?;
    let took = begun.elapsed();
    let listed: u32 = lines.out.trim().parse().with_context(|| format!("{}{}", lines.out, lines.err))?;
    ensure!(listed > 5 * MILLION / 100 * 99, "{listed} lines are listed: {}", lines.err);
    let grown = peak_memory(&status)?.saturating_sub(before);
    Ok(vec![
        fact("5 M connections listed by `ipvsadm -Lnc`", took.as_secs_f64(), "s, in less than 256 MB"),
        fact("the daemon's memory meanwhile", grown as f64 / 1024.0, "MiB more"),
    ])
}

const MILLION: u32 = 1_000_000;

/// A director with so many million connections.
fn crowded<'lab>(lab: &'lab Lab, harness: &mut Harness, millions: u32) -> Result<Director<'lab>> {
    let room = (millions * MILLION).to_string();
    let mut director = Director::prepare(lab, &binary()?)?.with_options(&["--max-conns", &room]);
    director.restart()?;
    let service = format!("{}:{}", VIPS[0], port::DIRECT);
    director.must(&format!("-A -u {service} -s rr"))?;
    director.must(&format!("-a -u {service} -r {} -g", lab.servers[0].address))?;
    let program = attached(&lab.director, "l0")?;
    for first in (0..millions).map(|million| million * MILLION) {
        let frames = harness.frames(SHORT).chunks_exact_mut(SHORT);
        for (number, frame) in (first..first + MILLION).zip(frames) {
            let to = (VIPS[0], port::DIRECT);
            Frame { from: client(false, number), to, payload: Payload::Udp }.write(frame);
        }
        harness.run(&program, SHORT, MILLION, MILLION)?;
    }
    let held = held(&director)?;
    ensure!(held > millions * MILLION / 100 * 99, "{held} connections are held");
    Ok(director)
}

/// The most memory that a process has had, in KiB, from its `status` in proc(5).
fn peak_memory(status: &Path) -> Result<u64> {
    let text = std::fs::read_to_string(status).with_context(|| format!("read {}", status.display()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next()).context("no VmHWM")?;
    number.parse().context("VmHWM is no number")
}

/// How many connections the listing counts.
fn held(director: &Director) -> Result<u32> {
    let listing = director.must("-Ln")?;
    let server = listing.lines().find(|line| line.contains("->") && line.contains("Route"));
    let counts = server.and_then(|line| line.split_whitespace().last()).context("no server is listed")?;
    counts.parse().with_context(|| format!("no count of connections: {counts}"))
}

/// The XDP program on a device.
fn attached(netns: &Netns, device: &str) -> Result<ProgramFd> {
    let output = netns.output(Command::new("ip").args(["-j", "link", "show", "dev", device]))?;
    let links: serde_json::Value = serde_json::from_slice(&output.stdout).context("ip's list of links")?;
    let id = links[0]["xdp"]["prog"]["id"].as_u64().with_context(|| format!("no program on {device}"))?;
    let info =
        aya::programs::loaded_programs().filter_map(|info| info.ok()).find(|info| u64::from(info.id()) == id);
    let info: ProgramInfo = info.with_context(|| format!("program {id} is gone"))?;
    Ok(info.fd()?)
}

/// What a process has taken of processors so far.
pub fn processor_time(pid: u32) -> Result<Duration> {
    let path = Path::new("/proc").join(pid.to_string()).join("stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    // After the name in brackets: state, then user time as the 12th and system time as the 13th field (proc(5)).
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
    let ticks: u64 = fields.take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.unwrap_or(100) as u64;
    Ok(Duration::from_millis(ticks * 1000 / per_second))
}
