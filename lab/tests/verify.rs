//! `xlvs rs verify`: every wrong set-up that it names is made and found, and the right one gives no finding.

mod common;

use anyhow::{Context, Result, ensure};
use xlvs_lab::{Lab, NameServer, Reply, Server};

const ASK: u16 = 7000;
const RIGHT: &str = "nothing is wrong\n";

// ------------------------------------------------------------------------------------------------- on the real server

#[test]
fn a_server_of_direct_routing_is_verified() -> Result<()> {
    let mut lab = Lab::one_network(0)?;
    lab.add_bare_server()?;
    lab.add_bare_server()?;
    let [server, other] = &lab.servers[..] else { unreachable!("two servers") };
    let (vip, vip6) = (lab.vip(0), lab.layout().vip6(0));
    let _names = NameServer::start(&server.netns, "rs1", ASK)?;
    let up = format!("up --mode dr --vip {vip},{vip6}");
    let set_up = || server.must(&up).map(drop);
    let verify = format!("verify --port {ASK},udp/{ASK}");
    server.netns.ip(&["route add default via 10.2.0.1"])?;
    server.netns.ip6(&["route add default via fd02::1"])?;

    refuses(server, &verify, &["nothing was set up", "--mode"])?;
    set_up()?;
    finds_nothing(server, &verify)?;
    // A host that was set up by hand is looked at likewise.
    finds_nothing(server, &format!("verify --mode dr --vip {vip},{vip6} --run-dir /nonexistent/xlvs"))?;
    refuses(server, &format!("verify --mode dr --vip {vip} -i e9"), &["e9"])?;

    server.netns.sysctl("net.ipv4.conf.all.arp_ignore", "0")?;
    server.netns.sysctl("net.ipv4.conf.e0.arp_ignore", "3")?;
    finds(server, &verify, &["answers ARP for VIPs on e0 (arp_ignore=3)", "sysctl -w"])?;
    set_up()?;
    server.netns.sysctl("net.ipv4.conf.all.arp_announce", "0")?;
    server.netns.sysctl("net.ipv4.conf.e0.arp_announce", "1")?;
    finds(server, &verify, &["tell of VIPs (arp_announce=1)", "arp_announce=2"])?;
    set_up()?;

    for (vip, prefix) in [(vip.to_string(), 32), (vip6.to_string(), 128)] {
        server.netns.ip(&[format!("addr del {vip}/{prefix} dev lo")])?;
        finds(server, &verify, &[&format!("the VIP {vip} is not on this host"), "xlvs rs up"])?;
        set_up()?;
    }
    server.netns.ip(&[format!("addr del {vip}/32 dev lo"), format!("addr add {vip}/24 dev e0")])?;
    finds(server, &verify, &[&format!("the VIP {vip} is on e0"), &format!("ip addr del {vip}/24 dev e0")])?;
    server.netns.ip(&[format!("addr del {vip}/24 dev e0"), format!("addr add {vip}/24 dev lo")])?;
    finds(
        server,
        &verify,
        &["makes its whole network this host's own", &format!("ip addr del {vip}/24 dev lo")],
    )?;
    server.netns.ip(&[format!("addr del {vip}/24 dev lo")])?;
    set_up()?;

    other.netns.ip(&[format!("addr add {vip}/32 dev lo")])?;
    finds(server, &verify, &["2 hosts answer ARP", "02:00:00:00:00:fe, 02:00:00:00:02:02"])?;
    other.netns.ip(&[format!("addr del {vip}/32 dev lo")])?;

    let one_vip = format!("--mode dr --vip {vip}");
    finds(
        server,
        &format!("verify --port 7001 {one_vip}"),
        &[&format!("nothing listens on tcp/7001 at {vip}")],
    )?;
    finds(
        server,
        &format!("verify --port udp/53 {one_vip}"),
        &[&format!("nothing listens on udp/53 at {vip}")],
    )?;

    server.netns.ip(&["route replace default via 10.2.0.254"])?;
    finds(
        server,
        &verify,
        &[&format!("answers from the VIP {vip} go to 10.2.0.254, which is the director")],
    )?;
    server.netns.ip(&["route del default"])?;
    finds(server, &verify, &[&format!("no way for answers from the VIP {vip}"), "default route"])?;
    // The way back leads by another device than the way here: only then a strict filter does harm.
    server.netns.ip(&[
        "link add t0 type veth peer name t1",
        "link set t0 up",
        "addr add 10.99.0.1/24 dev t0",
    ])?;
    server.netns.ip(&["link set t1 up", "route add default via 10.99.0.2"])?;
    finds_nothing(server, &format!("{verify} --mode dr --vip {vip},{vip6} -i e0"))?;
    server.netns.sysctl("net.ipv4.conf.all.rp_filter", "1")?;
    finds(
        server,
        &format!("{verify} --mode dr --vip {vip},{vip6} -i e0"),
        &["rp_filter is strict (1) on e0", "rp_filter=2"],
    )
}

#[test]
fn a_server_of_tunnels_is_verified() -> Result<()> {
    let mut lab = Lab::two_network(0)?;
    let server = lab.add_bare_server()?;
    server.netns.ip(&["route add default via 10.1.0.1", "link set e0 mtu 1520"])?;
    let set_up = || server.must("up --mode tun --vip 10.0.0.100").map(drop);
    set_up()?;
    finds_nothing(server, "verify")?;

    server.netns.sysctl("net.ipv4.conf.all.rp_filter", "1")?;
    finds(server, "verify", &["rp_filter is strict (1) on e0", "rp_filter=2"])?;
    set_up()?;
    finds_nothing(server, "verify")?;

    server.netns.ip(&["link set e0 xdp off"])?;
    finds(server, "verify", &["nothing unwraps tunnels' packets on e0", "xlvs rs up --mode tun"])?;
    set_up()?;

    // It works, at a cost, and there are two ways to spare it.
    server.netns.ip(&["link set e0 mtu 1500"])?;
    let reply = server.rs(&["verify"])?;
    ensure!(reply.code == Some(0) && reply.out.starts_with("note: e0 takes 1500 bytes"), "{}", reply.out);
    ensure!(reply.out.contains("1520") && reply.out.contains("advmss 1440"), "{}", reply.out);
    server.netns.ip(&["route change default via 10.1.0.1 advmss 1440"])?;
    finds_nothing(server, "verify")
}

#[test]
fn a_server_of_nat_is_verified() -> Result<()> {
    let mut lab = Lab::one_network(0)?;
    let server = lab.add_bare_server()?;
    let _names = NameServer::start(&server.netns, "rs1", ASK)?;
    let set_up =
        || server.must("up --mode nat --gateway 10.2.0.254,fd02::fe --clients 10.2.0.0/26,fd02::/122");
    set_up()?;
    let verify = format!("verify --port {ASK}");
    finds_nothing(server, &verify)?;

    server.netns.ip(&["route del 10.2.0.0/26"])?;
    finds(
        server,
        &verify,
        &["answers to 10.2.0.0/26 go straight to them, not through the director 10.2.0.254"],
    )?;
    server.netns.ip(&["route add 10.2.0.0/26 via 10.2.0.7"])?;
    finds(server, &verify, &["answers to 10.2.0.0/26 go by 10.2.0.7", "--gateway 10.2.0.254"])?;
    set_up()?;
    server.netns.ip6(&["route del fd02::/122"])?;
    finds(server, &verify, &["answers to fd02::/122 go straight to them"])?;
    set_up()?;
    finds(server, "verify --mode nat --gateway 10.2.0.254", &["answers to 0.0.0.0/0 go nowhere"])?;
    finds(server, "verify --port 7001", &["nothing listens on tcp/7001 at 10.2.0.201"])
}

fn finds_nothing(server: &Server, line: &str) -> Result<()> {
    let reply = run(server, line)?;
    ensure!(
        reply.code == Some(0) && reply.out == RIGHT,
        "{line}: {:?} {}{}",
        reply.code,
        reply.out,
        reply.err
    );
    Ok(())
}

/// One finding, and a line for it.
fn finds(server: &Server, line: &str, words: &[&str]) -> Result<()> {
    let reply = run(server, line)?;
    found(&reply, words).context(line.to_owned())
}

fn found(reply: &Reply, words: &[&str]) -> Result<()> {
    ensure!(reply.code == Some(1), "{:?} {}{}", reply.code, reply.out, reply.err);
    let wrong: Vec<_> = reply.out.lines().filter(|line| line.starts_with("wrong: ")).collect();
    ensure!(wrong.len() == 1, "not one finding: {}{}", reply.out, reply.err);
    for word in words {
        ensure!(wrong[0].contains(word), "it does not say {word:?}: {}", wrong[0]);
    }
    Ok(())
}

fn refuses(server: &Server, line: &str, words: &[&str]) -> Result<()> {
    let reply = run(server, line)?;
    ensure!(reply.code == Some(1) && reply.out.is_empty(), "{:?} {}", reply.code, reply.out);
    ensure!(words.iter().all(|word| reply.err.contains(word)), "{}", reply.err);
    Ok(())
}

fn run(server: &Server, line: &str) -> Result<Reply> {
    server.rs(&line.split(' ').collect::<Vec<_>>())
}
