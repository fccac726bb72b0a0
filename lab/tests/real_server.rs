//! `xlvs rs`: what it sets, that ARP keeps quiet about VIPs then, and that all of it is taken back.

mod common;

use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::arp::Ear;
use nix::sys::signal::Signal;
use xlvs_lab::{Lab, Netns, Reply, Server};

const DIRECTOR_MAC: &str = "02:00:00:00:00:fe";
const SERVER_MAC: &str = "02:00:00:00:02:01";
const NOBODY: u32 = 65_534;

// ------------------------------------------------------------------------------------------------------------- ARP

#[test]
fn a_server_that_has_the_vip_answers_arp_for_it_until_it_is_set_up() -> Result<()> {
    let (lab, vip) = bare()?;
    let server = &lab.servers[0];
    let ear = Ear::on(lab.client_netns(), "c0")?;
    let asker = lab.layout().client(9);

    server.netns.ip(&[format!("addr add {vip}/32 dev lo")])?;
    let answers = ear.who_has(vip, asker, 100)?;
    ensure!(answers.contains_key(SERVER_MAC), "no conflict to be solved: {answers:?}");
    server.netns.ip(&[format!("addr del {vip}/32 dev lo")])?;

    server.must(&format!("up --mode dr --vip {vip}"))?;
    let answers = ear.who_has(vip, asker, 1000)?;
    ensure!(answers == [(DIRECTOR_MAC.to_owned(), 1000)].into(), "{answers:?}");

    // A VIP that somebody has put there before is one like any other.
    server.must("down")?;
    server.netns.ip(&[format!("addr add {vip}/32 dev lo")])?;
    server.must(&format!("up --mode dr --vip {vip}"))?;
    let answers = ear.who_has(vip, asker, 100)?;
    ensure!(answers == [(DIRECTOR_MAC.to_owned(), 100)].into(), "{answers:?}");
    server.must("down")?;
    ensure!(dump(&server.netns)?.contains(&format!("{vip}/32")), "it was there before");
    Ok(())
}

#[test]
fn what_the_server_sends_from_the_vip_does_not_tell_neighbours_of_it() -> Result<()> {
    let (lab, vip) = bare()?;
    let server = &lab.servers[0];
    let ear = Ear::on(lab.client_netns(), "c0")?;

    server.netns.ip(&[format!("addr add {vip}/32 dev lo")])?;
    let senders = |client: u8| senders_of_questions(&ear, server, vip, lab.layout().client(client));
    ensure!(senders(20)? == [vip], "no conflict to be solved");
    server.netns.ip(&[format!("addr del {vip}/32 dev lo")])?;

    server.must(&format!("up --mode dr --vip {vip}"))?;
    shown(lab.client_netns(), &["neigh", "flush", "dev", "c0"])?;
    ensure!(senders(21)? == [server.address], "ARP tells of the VIP");
    ensure!(ear.who_has(vip, lab.layout().client(9), 100)? == [(DIRECTOR_MAC.to_owned(), 100)].into());
    lab.client().ping(vip.into())?;
    let neighbour = shown(lab.client_netns(), &["neigh", "show", &vip.to_string()])?;
    ensure!(neighbour.contains(DIRECTOR_MAC), "the client has {neighbour}");
    Ok(())
}

#[test]
fn nobody_is_told_of_an_ipv6_vip() -> Result<()> {
    let (lab, _) = bare()?;
    let vip = lab.layout().vip6(0);
    lab.servers[0].must(&format!("up --mode dr --vip {vip}"))?;
    for _ in 0..20 {
        shown(lab.client_netns(), &["neigh", "flush", "dev", "c0"])?;
        lab.client().ping(vip.into())?;
        let neighbour = shown(lab.client_netns(), &["neigh", "show", &vip.to_string()])?;
        ensure!(neighbour.contains(DIRECTOR_MAC), "the client has {neighbour}");
    }
    Ok(())
}

/// Whom a server names as sender of its question for a neighbour when it sends from the VIP.
fn senders_of_questions(ear: &Ear, server: &Server, vip: Ipv4Addr, to: Ipv4Addr) -> Result<Vec<Ipv4Addr>> {
    drop(ear.heard()?);
    let socket = server.netns.run(|| UdpSocket::bind((vip, 0)))?;
    socket.send_to(b"hello", (to, 9))?;
    let mut senders = Vec::new();
    common::eventually("the server asks for its neighbour", || {
        let asked = ear.heard()?.into_iter().filter(|arp| !arp.is_reply && arp.target == to);
        senders.extend(asked.map(|arp| arp.sender));
        Ok(!senders.is_empty())
    })?;
    senders.truncate(1);
    Ok(senders)
}

// ------------------------------------------------------------------------------------------------------ restoration

#[test]
fn down_puts_back_what_was_there() -> Result<()> {
    let (lab, vip) = bare()?;
    let server = &lab.servers[0];
    let (gateway, vip6, gateway6) = (lab.layout().gateway(), lab.layout().vip6(0), lab.layout().gateway6());
    // A host with a history: odd values, and default routes of its own.
    server.netns.sysctl("net.ipv4.conf.all.arp_ignore", "3")?;
    server.netns.sysctl("net.ipv4.conf.e0.arp_announce", "1")?;
    server.netns.sysctl("net.ipv4.conf.all.rp_filter", "1")?;
    let (other, other6) = (lab.layout().client(1), lab.layout().client6(1));
    server.netns.ip(&[format!("route add default via {other} mtu 1400 proto dhcp")])?;
    server.netns.ip6(&[format!("route add default via {other6} metric 1 hoplimit 7")])?;
    let before = dump(&server.netns)?;
    for line in [
        format!("up --mode dr --vip {vip},{vip6}"),
        format!("up --mode nat --gateway {gateway},{gateway6}"),
        format!("up --mode nat --gateway {gateway},{gateway6} --clients 10.77.0.0/16,fd77::/64"),
        format!("up --mode dr,nat --vip {vip} --gateway {gateway} -i e0"),
    ] {
        server.must(&line).with_context(|| line.clone())?;
        let set = dump(&server.netns)?;
        ensure!(set != before, "{line}: nothing was set");
        let again = server.must(&line)?;
        ensure!(again == "all of it is so already\n", "{line}, again: {again}");
        ensure!(dump(&server.netns)? == set, "{line}: again is not the same");
        let status = server.rs(&["status"])?;
        ensure!(status.code == Some(0) && status.out.contains("ok"), "{}", status.out);

        server.must("down")?;
        same(&before, &dump(&server.netns)?).context(line)?;
        ensure!(server.must("down")? == "nothing was set up here\n");
        ensure!(server.rs(&["status"])?.code == Some(1));
    }
    // One wish after the other, and back to the beginning at once.
    server.must(&format!("up --mode dr --vip {vip},{vip6}"))?;
    server.must(&format!("up --mode nat --gateway {gateway}"))?;
    ensure!(!dump(&server.netns)?.contains(&format!("{vip}/32")), "the first wish outlived the second");
    server.must("down")?;
    same(&before, &dump(&server.netns)?)
}

#[test]
fn what_was_changed_meanwhile_is_left_and_told() -> Result<()> {
    let (lab, vip) = bare()?;
    let server = &lab.servers[0];
    server.must(&format!("up --mode dr --vip {vip}"))?;
    server.netns.sysctl("net.ipv4.conf.all.arp_ignore", "8")?;
    server.netns.ip(&[format!("addr del {vip}/32 dev lo")])?;
    let status = server.rs(&["status"])?;
    ensure!(status.code == Some(1) && status.out.contains("missing"), "{}", status.out);
    let reply = server.rs(&["down"])?;
    ensure!(reply.code == Some(0) && reply.err.contains("left as it is"), "{}", reply.err);
    ensure!(dump(&server.netns)?.contains("ipv4/conf/all/arp_ignore=8"));
    Ok(())
}

#[test]
fn a_command_that_is_killed_leaves_enough_to_put_everything_back() -> Result<()> {
    let (lab, _) = bare()?;
    let server = &lab.servers[0];
    let before = dump(&server.netns)?;
    let vips = (0..60).map(|number| lab.vip(number).to_string()).collect::<Vec<_>>().join(",");
    let mut half = 0;
    // Too early, too late.
    let (mut early, mut late) = (Duration::ZERO, Duration::from_millis(200));
    for _ in 0..30 {
        let mut xlvs = Command::new(xlvs_lab::director::binary()?);
        xlvs.args(["rs", "up", "--mode", "tun", "--vip", &vips]).stdout(Stdio::null());
        let up = server.netns.spawn(xlvs.env("XLVS_RUN_DIR", &server.run_dir))?;
        let delay = (early + late) / 2;
        std::thread::sleep(delay);
        up.signal(Signal::SIGKILL)?;
        up.output()?;
        let there = dump(&server.netns)?;
        match there.matches("inet 10.2.0.").count() {
            // All VIPs and its own.
            61 => late = delay,
            _ if there == before => early = delay,
            _ => half += 1,
        }
        server.must("down")?;
        same(&before, &dump(&server.netns)?).with_context(|| format!("killed after {delay:?}"))?;
    }
    ensure!(half > 0, "it was never killed in the middle");
    Ok(())
}

#[test]
fn dry_run_prints_a_script_that_does_the_same() -> Result<()> {
    let (mut lab, vip) = bare()?;
    lab.add_bare_server()?;
    let [here, there] = &lab.servers[..] else { unreachable!("two servers") };
    let (gateway, gateway6, vip6) = (lab.layout().gateway(), lab.layout().gateway6(), lab.layout().vip6(0));
    let line = format!("up --mode dr,nat --vip {vip},{vip6} --gateway {gateway},{gateway6}");
    let before = dump(&there.netns)?;
    let script = there.must(&format!("{line} --dry-run"))?;
    same(&before, &dump(&there.netns)?).context("a dry run changes nothing")?;

    here.must(&line)?;
    let output = there.netns.output(Command::new("sh").args(["-ec", &script]))?;
    ensure!(output.status.success(), "{script}{}", String::from_utf8_lossy(&output.stderr));
    let own = |server: &Server, text: String| {
        let text =
            text.replace(&server.address.to_string(), "RIP").replace(&server.address6.to_string(), "RIP");
        // What the device has by its MAC.
        text.lines().filter(|line| !line.contains("fe80::")).collect::<Vec<_>>().join("\n")
    };
    let (here, there) = (own(here, settings(&here.netns)?), own(there, settings(&there.netns)?));
    // By hand a route is said to be of the boot; it is as good.
    same(&here.replace(" proto static", ""), &there.replace(" proto boot", ""))
}

#[test]
fn permanent_files_bring_it_back_after_a_reboot_and_remember_what_was_before() -> Result<()> {
    let (lab, vip) = bare()?;
    let server = &lab.servers[0];
    let etc = lab.directory().join("etc");
    let etc = etc.to_str().context("a path in UTF-8")?;
    let before = dump(&server.netns)?;
    server.must(&format!("up --mode dr --vip {vip} --permanent --etc {etc}"))?;
    let unit = std::fs::read_to_string(Path::new(etc).join("systemd/system/xlvs-rs.service"))?;
    let start =
        unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).context("it starts something")?;

    // A reboot: everything is gone, and `sysctl.d` comes first.
    server.must("down")?;
    same(&before, &dump(&server.netns)?)?;
    let file = Path::new(etc).join("sysctl.d/90-xlvs-rs.conf");
    let sysctl = server.netns.output(Command::new("sysctl").arg("-p").arg(&file))?;
    ensure!(sysctl.status.success(), "{}", String::from_utf8_lossy(&sysctl.stderr));
    let mut run = Command::new("sh");
    run.arg("-c").arg(format!("{start} --etc {etc}")).env("XLVS_RUN_DIR", &server.run_dir);
    ensure!(server.netns.output(&mut run)?.status.success());
    ensure!(dump(&server.netns)?.contains(&format!("{vip}/32")));

    let reply = server.must(&format!("down --permanent --etc {etc}"))?;
    same(&before, &dump(&server.netns)?).context(reply)?;
    ensure!(!file.exists() && !Path::new(etc).join("systemd/system/xlvs-rs.service").exists());
    Ok(())
}

// ------------------------------------------------------------------------------------------------------- bad input

#[test]
fn what_cannot_be_had_is_refused_and_changes_nothing() -> Result<()> {
    let (lab, vip) = bare()?;
    let server = &lab.servers[0];
    server.netns.ip(&[format!("addr add {}/24 dev e0", lab.vip(7))])?;
    let before = dump(&server.netns)?;
    let refused = |line: &str, code: i32, words: &[&str]| -> Result<()> {
        let reply = server.rs(&line.split(' ').collect::<Vec<_>>())?;
        says(&reply, code, words).context(line.to_owned())?;
        same(&before, &dump(&server.netns)?).context(line.to_owned())
    };
    refused(&format!("up --mode sideways --vip {vip}"), 2, &["sideways", "nat, dr, tun"])?;
    refused("up --mode dr", 1, &["--vip"])?;
    refused("up --mode dr --vip 10.0.0.300", 2, &["10.0.0.300"])?;
    refused("up --mode dr --vip 224.0.0.1", 1, &["224.0.0.1", "unicast"])?;
    refused(&format!("up --mode dr --vip {vip},{}", lab.vip(7)), 1, &["e0", "ip addr del"])?;
    refused(&format!("up --mode dr --vip {vip} -i e7"), 1, &["e7", "ip link"])?;
    refused(&format!("up --mode dr --vip {vip} --gateway 10.2.0.254"), 1, &["--gateway", "nat"])?;
    refused("up --mode nat", 1, &["--gateway"])?;
    refused("up --mode nat --gateway 192.0.2.1", 1, &["192.0.2.1", "network"])?;
    refused("up --mode nat --gateway 10.2.0.254 --clients 10.0.0.0/40", 2, &["10.0.0.0/40"])?;

    // A parameter that cannot be written stops the whole.
    let reply = as_nobody(&lab, server, &format!("up --mode dr --vip {vip}"))?;
    says(&reply, 1, &["root"])?;
    says(&as_nobody(&lab, server, "down")?, 1, &["root"])?;
    ensure!(as_nobody(&lab, server, &format!("up --mode dr --vip {vip} --dry-run"))?.code == Some(0));
    same(&before, &dump(&server.netns)?)
}

#[test]
fn a_state_file_that_is_damaged_or_of_another_host_is_not_believed() -> Result<()> {
    let (mut lab, vip) = bare()?;
    lab.add_bare_server()?;
    let [here, there] = &lab.servers[..] else { unreachable!("two servers") };
    here.must(&format!("up --mode dr --vip {vip}"))?;
    std::fs::create_dir_all(&there.run_dir)?;
    std::fs::copy(here.run_dir.join("rs.json"), there.run_dir.join("rs.json"))?;
    says(&there.rs(&["down"])?, 1, &["another network namespace", "--run-dir"])?;
    std::fs::write(there.run_dir.join("rs.json"), "{")?;
    says(&there.rs(&["up", "--mode", "dr", "--vip", &vip.to_string()])?, 1, &["damaged", "remove"])
}

fn as_nobody(lab: &Lab, server: &Server, line: &str) -> Result<Reply> {
    let copy = lab.directory().join("xlvs");
    std::fs::copy(xlvs_lab::director::binary()?, &copy).context("copy the binary")?;
    let mut xlvs = Command::new(copy);
    xlvs.arg("rs").args(line.split(' ')).env("XLVS_RUN_DIR", &server.run_dir).uid(NOBODY).gid(NOBODY);
    server.netns.output(&mut xlvs).map(Reply::from)
}

fn says(reply: &Reply, code: i32, words: &[&str]) -> Result<()> {
    ensure!(reply.code == Some(code), "{:?} {}{}", reply.code, reply.out, reply.err);
    for word in words {
        ensure!(reply.err.contains(word), "it does not say {word}: {}", reply.err);
    }
    Ok(())
}

// ----------------------------------------------------------------------------------------------------------- hosts

/// One network with a director's host that has the VIPs, and a host that is to become a real server.
fn bare() -> Result<(Lab, Ipv4Addr)> {
    let mut lab = Lab::one_network(0)?;
    lab.add_bare_server()?;
    let vip = lab.vip(0);
    Ok((lab, vip))
}

/// All that `xlvs rs` may touch: links, addresses, routes, rules, parameters.
fn dump(netns: &Netns) -> Result<String> {
    Ok(shown(netns, &["link"])? + &settings(netns)?)
}

/// The same without the names of devices' other ends.
fn settings(netns: &Netns) -> Result<String> {
    let lines = ["-o addr", "-4 route show table all", "-6 route show table all", "rule", "-6 rule"];
    let mut text = String::new();
    for line in lines {
        text += &shown(netns, &line.split(' ').collect::<Vec<_>>())?;
    }
    netns.run(|| parameters(Path::new("/proc/sys/net/ipv4/conf"), &mut text))?;
    netns.run(|| parameters(Path::new("/proc/sys/net/ipv6/conf"), &mut text))?;
    Ok(text)
}

fn parameters(directory: &Path, text: &mut String) -> Result<()> {
    let mut entries = std::fs::read_dir(directory)?.collect::<std::io::Result<Vec<_>>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            parameters(&path, text)?;
        } else if let Ok(value) = std::fs::read_to_string(&path) {
            // Some cannot be read, as they only set off something.
            *text += &format!("{}={}\n", path.display(), value.trim());
        }
    }
    Ok(())
}

fn shown(netns: &Netns, words: &[&str]) -> Result<String> {
    let output = netns.output(Command::new("ip").args(words))?;
    ensure!(output.status.success(), "ip {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Two dumps say the same; else the lines that only one has.
fn same(one: &str, other: &str) -> Result<()> {
    let only = |a: &str, b: &str| -> Vec<String> {
        a.lines().filter(|line| !b.lines().any(|other| other == *line)).map(str::to_owned).collect()
    };
    ensure!(one == other, "only before: {:#?}\nonly after: {:#?}", only(one, other), only(other, one));
    Ok(())
}
