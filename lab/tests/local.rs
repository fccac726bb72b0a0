//! The director itself as a server, with its own stack: NAT leads to another address and port of it, and its answers come from the VIP.

mod common;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use common::{
    counts, ensure_spread, eventually, hold, pins, ruled_by, spread, still_there, with_director_at_each_hook,
    within,
};
use xlvs_lab::client::ephemeral;
use xlvs_lab::{Director, HttpServer, Lab, Layout, NameServer};

/// Where servers answer, and where the director does.
const ASK: u16 = 7000;
const ASK_HERE: u16 = 7001;
const HTTP: u16 = 80;
const HTTP_HERE: u16 = 8080;
const NOBODY: u16 = 9;
/// The daemon looks every ten seconds whether the director is still one of its servers.
const PATIENCE: Duration = Duration::from_secs(30);

/// VIPs with the director's address on the servers' side, of both families.
fn vips(lab: &Lab, number: u8) -> [(IpAddr, IpAddr); 2] {
    let layout = lab.layout();
    [
        (layout.vip(number).into(), layout.gateway().into()),
        (layout.vip6(number).into(), layout.gateway6().into()),
    ]
}

#[test]
fn the_director_takes_its_turn_among_nat_servers() -> Result<()> {
    with_director_at_each_hook(Layout::TwoNetwork, 2, |lab, director| {
        let _names = NameServer::on_all(lab, ASK)?;
        let _here = NameServer::start(&lab.director, "lb", ASK_HERE)?;
        for (vip, own) in vips(lab, 0) {
            for kind in ["-t", "-u"] {
                let at = SocketAddr::new(vip, ASK);
                director.must(&format!("-A {kind} {at} -s rr"))?;
                for server in &lab.servers {
                    let addr = if vip.is_ipv6() { server.address6.into() } else { server.address.into() };
                    director.must(&format!("-a {kind} {at} -r {} -m", SocketAddr::new(addr, ASK)))?;
                }
                director.must(&format!("-a {kind} {at} -r {} -m", SocketAddr::new(own, ASK_HERE)))?;
            }
            takes_its_turn(lab, director, SocketAddr::new(vip, ASK), SocketAddr::new(own, ASK_HERE))
                .with_context(|| format!("by {vip}"))?;
        }
        Ok(())
    })
}

fn takes_its_turn(lab: &Lab, director: &mut Director, vip: SocketAddr, own: SocketAddr) -> Result<()> {
    let each = [("lb", 10), ("rs1", 10), ("rs2", 10)];
    ensure_spread(&spread(&lab.client().ask_times(vip, 30)?), &each, 0).context("by TCP")?;
    let datagrams = (0..30).map(|_| lab.client().ask_by_datagram(vip)).collect::<Result<Vec<_>>>()?;
    ensure_spread(&spread(&datagrams), &each, 0).context("by UDP")?;
    let mut held = hold(lab, vip, 3)?;
    ensure!(held.iter().any(|(_, name)| name == "lb"), "none of three in turn is with the director");
    ensure!(active(director, own)? == 1, "one connection is active: {}", director.must("-Ln")?);
    director.kill9()?;
    ensure_spread(&spread(&lab.client().ask_times(vip, 30)?), &each, 0).context("without a daemon")?;
    director.restart()?;
    ensure_spread(&spread(&lab.client().ask_times(vip, 30)?), &each, 0).context("by the next daemon")?;
    still_there(&mut held)?;
    drop(held);
    eventually("no connection is active when all are closed", || Ok(active(director, own)? == 0))
}

/// Active connections of a server, in all services.
fn active(director: &Director, server: SocketAddr) -> Result<u32> {
    let all = counts(&director.must("-Ln")?);
    Ok(all.iter().filter(|(name, ..)| *name == server.to_string()).map(|(_, active, _)| active).sum())
}

#[test]
fn the_director_sends_large_files_with_its_offloads_on() -> Result<()> {
    with_director_at_each_hook(Layout::TwoNetwork, 0, |lab, director| {
        // What clients send stays as XDP wants it.
        lab.director.ethtool("l0", "tx on sg on tso on gso on")?;
        let _files = HttpServer::start(&lab.director, "lb", HTTP_HERE)?;
        for (vip, own) in vips(lab, 0) {
            let at = SocketAddr::new(vip, HTTP);
            director.must(&format!("-A -t {at} -s rr"))?;
            director.must(&format!("-a -t {at} -r {} -m", SocketAddr::new(own, HTTP_HERE)))?;
            lab.client()
                .download(vip, HTTP, 50_000_000, None)?
                .finish()
                .with_context(|| format!("by {vip}"))?;
            let own = SocketAddr::new(own, HTTP_HERE).to_string();
            // What is listed is refreshed every two seconds.
            eventually("the bytes of its answers are counted", || {
                let stats = director.must("-Ln --stats --exact")?;
                let line = stats.lines().find(|line| line.contains(&own)).context("a server's line")?;
                let [.., packets, _, bytes] = line.split_whitespace().collect::<Vec<_>>()[..] else {
                    bail!("no statistics: {line}");
                };
                let (packets, bytes): (u64, u64) = (packets.parse()?, bytes.parse()?);
                ensure!(packets * 3000 < 50_000_000, "there were no aggregates: {packets} packets");
                Ok(bytes > 50_000_000)
            })?;
            director.must(&format!("-D -t {at}"))?;
        }
        Ok(())
    })
}

/// They are put together, and reach the director's stack in fragments again.
#[test]
fn datagrams_in_fragments_reach_the_director() -> Result<()> {
    with_director_at_each_hook(Layout::TwoNetwork, 0, |lab, director| {
        for (vip, own) in vips(lab, 0) {
            let (at, own) = (SocketAddr::new(vip, ASK), SocketAddr::new(own, ASK_HERE));
            director.must(&format!("-A -u {at} -s rr"))?;
            director.must(&format!("-a -u {at} -r {own} -m"))?;
            let server = lab.director.run(|| UdpSocket::bind(own))?;
            server.set_read_timeout(Some(PATIENCE))?;
            let client = lab.client().datagrams(ephemeral(lab.client().address_towards(at)), at)?;
            let (sent, mut got) = (vec![7; 5000], vec![0; 6000]);
            client.send(&sent)?;
            let (length, from) = server.recv_from(&mut got).with_context(|| format!("by {vip}"))?;
            ensure!(got[..length] == sent, "{length} bytes are others than were sent");
            server.send_to(b"thanks", from)?;
            let length = client.recv(&mut got).with_context(|| format!("an answer by {vip}"))?;
            ensure!(got[..length] == *b"thanks");
        }
        Ok(())
    })
}

#[test]
fn a_port_of_the_director_that_nobody_has_is_refused_as_the_vip() -> Result<()> {
    with_director_at_each_hook(Layout::TwoNetwork, 0, |lab, director| {
        for (vip, own) in vips(lab, 0) {
            let (at, own) = (SocketAddr::new(vip, NOBODY), SocketAddr::new(own, NOBODY + 1));
            for kind in ["-t", "-u"] {
                director.must(&format!("-A {kind} {at} -s rr"))?;
                director.must(&format!("-a {kind} {at} -r {own} -m"))?;
            }
            let is_refused = |why: &anyhow::Error| format!("{why:#}").contains("refused");
            let refused = lab.client().connect_to(at).expect_err("nobody listens");
            ensure!(is_refused(&refused), "by TCP: {refused:#}");
            let refused = lab.client().ask_by_datagram(at).expect_err("nobody listens");
            ensure!(is_refused(&refused), "by UDP: {refused:#}");
            let entries = director.must("-Lnc")?;
            ensure!(entries.contains("CLOSE"), "the refusal has closed the connection: {entries}");
        }
        Ok(())
    })
}

#[test]
fn answers_of_the_director_move_the_connection_by_direct_routing_too() -> Result<()> {
    with_director_at_each_hook(Layout::TwoNetwork, 0, |lab, director| {
        let _here = NameServer::start(&lab.director, "lb", ASK)?;
        for (vip, own) in vips(lab, 0) {
            let (at, own) = (SocketAddr::new(vip, ASK), SocketAddr::new(own, ASK));
            director.must(&format!("-A -t {at} -s rr"))?;
            director.must(&format!("-a -t {at} -r {own} -g"))?;
            let held = hold(lab, at, 2)?;
            ensure!(active(director, own)? == 2, "{}", director.must("-Ln")?);
            let in_state = |state: &str| -> Result<usize> {
                let entries = director.must("-Lnc")?;
                let of_this = entries.lines().filter(|line| line.contains(&at.to_string()));
                Ok(of_this.filter(|line| line.contains(state)).count())
            };
            ensure!(in_state("ESTABLISHED")? == 2, "{}", director.must("-Lnc")?);
            drop(held);
            // The client's FIN alone leads to FIN_WAIT.
            eventually("both ends have closed", || Ok(in_state("TIME_WAIT")? == 2))?;
            director.must(&format!("-D -t {at}"))?;
        }
        Ok(())
    })
}

#[test]
fn what_the_director_sends_is_seen_while_it_is_a_server_and_no_longer() -> Result<()> {
    let lab = Lab::lay_out(Layout::TwoNetwork, 1)?;
    let file = lab.directory().join("xlvs.toml");
    let _names = NameServer::on_all(&lab, ASK)?;
    let _here = NameServer::start(&lab.director, "lb", ASK_HERE)?;
    let (own, other) = (SocketAddr::new(lab.layout().gateway().into(), ASK_HERE), lab.servers[0].address);
    let other = SocketAddr::new(other.into(), ASK);
    let vip = SocketAddr::new(lab.vip(0).into(), ASK);
    let write = |interfaces: &str, server: SocketAddr| {
        let text = format!(
            "interfaces = [{interfaces}]\n[[service]]\ntcp = \"{vip}\"\nscheduler = \"rr\"\nmethod = \"nat\"\nservers = [\"{server}\"]\n"
        );
        std::fs::write(&file, text).context("write the file")
    };
    write(r#""l0", "l1""#, other)?;
    ruled_by(&lab, &file, |lab, director| {
        let is_seen = |director: &Director, interface: &str| -> Result<bool> {
            Ok(pins(&director.bpffs())?.iter().any(|pin| pin.ends_with(format!("egress/{interface}"))))
        };
        ensure!(!is_seen(director, "l0")?, "nobody asked for it");
        write(r#""l0", "l1""#, own)?;
        ensure!(director.shell("xlvs reload")?.code == Some(0), "the director becomes a server");
        ensure!(lab.client().ask_times(vip, 3)? == ["lb"; 3]);
        ensure!(is_seen(director, "l0")? && is_seen(director, "l1")?);
        write(r#""l0""#, own)?;
        ensure!(director.shell("xlvs reload")?.code == Some(0), "an interface is let go");
        ensure!(is_seen(director, "l0")? && !is_seen(director, "l1")?);
        ensure!(lab.client().ask_times(vip, 3)? == ["lb"; 3]);
        lab.director.ip(&["addr del 10.1.0.254/24 dev l1"])?;
        within(PATIENCE, "the program at egress is let go when the address is another's", || {
            Ok(!is_seen(director, "l0")?)
        })?;
        lab.director.ip(&["addr add 10.1.0.254/24 dev l1"])?;
        eventually("the director is a server again", || is_seen(director, "l0"))?;
        ensure!(lab.client().ask_times(vip, 3)? == ["lb"; 3]);
        director.check()?;
        director.stop()?;
        ensure!(director.unload()?.code == Some(0));
        ensure!(pins(&director.bpffs())?.is_empty(), "something is still pinned");
        director.restart()
    })
}
