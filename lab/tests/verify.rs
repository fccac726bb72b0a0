//! `xlvs rs verify` and `xlvs verify`: every wrong set-up that they name is made and found, and the right one gives no finding.

mod common;

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use common::directed;
use xlvs_lab::{Director, Lab, Layout, NameServer, Reply, Server};

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

    // A device without ARP is as good as lo.
    server.netns.ip(&[
        "link add n0 type veth peer name n1",
        "link set n0 arp off up",
        "link set n1 arp off up",
    ])?;
    server.netns.ip(&[format!("addr del {vip}/32 dev lo"), format!("addr add {vip}/32 dev n0")])?;
    finds_nothing(server, &verify)?;
    server.netns.ip(&["link del n0".to_owned()])?;
    set_up()?;

    other.netns.ip(&[format!("addr add {vip}/32 dev lo")])?;
    finds(server, &verify, &["2 hosts answer for the VIP", "02:00:00:00:00:fe, 02:00:00:00:02:02"])?;
    other.netns.ip(&[format!("addr del {vip}/32 dev lo")])?;

    other.netns.ip(&[format!("addr add {vip6}/128 dev e0 nodad")])?;
    finds(server, &verify, &["2 hosts answer for the VIP", "02:00:00:00:00:fe, 02:00:00:00:02:02"])?;
    other.netns.ip(&[format!("addr del {vip6}/128 dev e0")])?;

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

// ---------------------------------------------------------------------------------------------------- on the director

#[test]
fn a_director_of_direct_routing_is_verified() -> Result<()> {
    let lab = with_bare_servers(Layout::OneNetwork, 2)?;
    let [server, other] = &lab.servers[..] else { unreachable!("two servers") };
    let (vip, vip6) =
        (SocketAddr::new(lab.vip(0).into(), ASK), SocketAddr::new(lab.layout().vip6(0).into(), ASK));
    let up = format!("up --mode dr --vip {},{}", vip.ip(), vip6.ip());
    directed(&lab, |lab, director| {
        let names = NameServer::start(&server.netns, "rs1", ASK)?;
        director.must(&format!("-A -t {vip}"))?;
        director.must(&format!("-a -t {vip} -r {} -g", server.address))?;
        director.must(&format!("-A -u {vip}"))?;
        director.must(&format!("-a -u {vip} -r {} -g", server.address))?;
        director.must(&format!("-A -t {vip6}"))?;
        director.must(&format!("-a -t {vip6} -r [{}]:{ASK} -g", server.address6))?;
        server.must(&up)?;
        told(director, "", 0, &[RIGHT.trim()])?;

        let silent = "what it is sent for the VIP";
        server.must("down")?;
        told(
            director,
            "",
            1,
            &[
                &format!(
                    "{}:7000 of TCP {vip}: {silent} {} is not answered; `xlvs rs verify` there",
                    server.address,
                    vip.ip()
                ),
                &format!("{}:7000 of UDP {vip}: {silent} {} is not answered", server.address, vip.ip()),
                &format!("[{}]:7000 of TCP {vip6}: {silent} {} is not answered", server.address6, vip6.ip()),
            ],
        )?;
        told(director, &format!("tcp/{vip} {}", server.address), 1, &["of TCP"])?;
        server.must(&up)?;
        drop(names);
        told(director, &format!("tcp/{vip}"), 1, &[&format!("nothing listens there for {}", vip.ip())])?;
        told(director, &format!("udp/{vip}"), 1, &[&format!("nothing listens there for {}", vip.ip())])?;
        let _names = NameServer::start(&server.netns, "rs1", ASK)?;

        // Somebody who has the VIP and says so, a server or not.
        other.netns.ip(&[format!("addr add {}/32 dev lo", vip.ip())])?;
        let speaks = format!("answers ARP for the VIP {} on l0: run `xlvs rs up` there", vip.ip());
        told(director, "", 1, &[&format!("the host with MAC 02:00:00:00:02:02 {speaks}")])?;
        other.netns.ip(&[format!("addr del {}/32 dev lo", vip.ip())])?;
        other.netns.ip(&[format!("addr add {}/128 dev e0 nodad", vip6.ip())])?;
        let speaks6 = format!("answers neighbour discovery for the VIP {} on l0: run", vip6.ip());
        told(director, "", 1, &[&format!("the host with MAC 02:00:00:00:02:02 {speaks6}")])?;
        other.netns.ip(&[format!("addr del {}/128 dev e0", vip6.ip())])?;
        for place in ["all", "e0"] {
            server.netns.sysctl(&format!("net.ipv4.conf.{place}.arp_ignore"), "0")?;
        }
        told(director, "", 1, &[&format!("the server {} (02:00:00:00:02:01) {speaks}", server.address)])?;
        server.must(&up)?;

        // Who is not there, who is behind a router, who is nowhere, and a VIP that nobody has.
        director.must(&format!("-a -t {vip} -r 10.2.0.250 -g"))?;
        told(director, &format!("tcp/{vip} 10.2.0.250"), 1, &["it does not answer on l0: is it up"])?;
        lab.director.ip(&[format!("route add 10.9.0.0/24 via {}", server.address)])?;
        director.must(&format!("-a -t {vip} -r 10.9.0.5 -g"))?;
        let behind =
            format!("it is behind {}, and direct routing needs it on a network of this host", server.address);
        told(director, &format!("tcp/{vip} 10.9.0.5"), 1, &[&behind])?;
        director.must(&format!("-a -t {vip} -r 203.0.113.5 -g"))?;
        told(director, &format!("tcp/{vip} 203.0.113.5"), 1, &["there is no route to it"])?;
        director.must("-A -t 10.2.0.100:80")?;
        let nobody = "nobody answers for the VIP 10.2.0.100 on l0, whose network it is of: `ip addr add 10.2.0.100 dev l0`";
        told(director, "10.2.0.100:80", 1, &[nobody])?;

        let reply = director.command("verify", &["10.2.0.99:80"])?;
        ensure!(
            reply.code == Some(1) && reply.err.contains("there is no service 10.2.0.99:80"),
            "{}",
            reply.err
        );
        Ok(())
    })
}

#[test]
fn a_director_of_tunnels_is_verified() -> Result<()> {
    let lab = with_bare_servers(Layout::TwoNetwork, 1)?;
    let server = &lab.servers[0];
    let (vip, vip6) =
        (SocketAddr::new(lab.vip(0).into(), ASK), SocketAddr::new(lab.layout().vip6(0).into(), ASK));
    let up = format!("up --mode tun --vip {},{}", vip.ip(), vip6.ip());
    let named = format!("{up} --director {},{}", lab.layout().gateway(), lab.layout().gateway6());
    for (host, device) in [(&lab.director, "l1"), (&server.netns, "e0")] {
        host.ip(&[format!("link set {device} mtu 1600")])?;
    }
    directed(&lab, |lab, director| {
        let _names = NameServer::start(&server.netns, "rs1", ASK)?;
        server.must(&named)?;
        let tunnels = [
            "",
            "--tun-type gre --tun-nocsum",
            "--tun-type gre --tun-csum",
            "--tun-type gue --tun-port 6080 --tun-nocsum",
        ];
        for (vip, real) in [
            (vip, server.address.to_string()),
            (vip6, format!("[{}]", server.address6)),
            (vip, format!("[{}]", server.address6)),
        ] {
            for tunnel in tunnels {
                director.must("-C")?;
                director.must(&format!("-A -t {vip}"))?;
                director.must(&format!("-a -t {vip} -r {real}:{ASK} -i {tunnel}"))?;
                told(director, "", 0, &[RIGHT.trim()]).with_context(|| format!("{vip} {real} {tunnel}"))?;
            }
        }
        director.must("-C")?;
        director.must(&format!("-A -t {vip}"))?;
        director.must(&format!("-a -t {vip} -r {} -i", server.address))?;
        let silent =
            format!("what it is sent for the VIP {} is not answered; `xlvs rs verify` there", vip.ip());
        server.must(&format!("{up} --director 10.1.0.77"))?;
        told(director, "", 1, &[&silent])?;
        server.must(&up)?;
        told(director, "", 0, &[RIGHT.trim()])?;
        server.netns.ip(&["link set e0 xdp off"])?;
        told(director, "", 1, &[&silent])?;
        server.must(&up)?;

        lab.director.ip(&[format!("route add {} dev l1 mtu 1500", server.address)])?;
        let narrow = "the way takes 1500 bytes and the tunnel costs 20, so a client's packet of 1500";
        let reply = director.command("verify", &[])?;
        ensure!(reply.code == Some(0) && reply.out.starts_with("note: "), "{}", reply.out);
        ensure!(reply.out.contains(narrow) && reply.out.contains("give the way 1520 bytes"), "{}", reply.out);
        Ok(())
    })
}

#[test]
fn a_director_of_nat_is_verified() -> Result<()> {
    let lab = with_bare_servers(Layout::TwoNetwork, 1)?;
    let server = &lab.servers[0];
    directed(&lab, |lab, director| {
        let names = NameServer::start(&server.netns, "rs1", 8080)?;
        server.must("up --mode nat --gateway 10.1.0.254")?;
        let vip = SocketAddr::new(lab.vip(0).into(), ASK);
        director.must(&format!("-A -t {vip}"))?;
        director.must(&format!("-a -t {vip} -r {}:8080 -m", server.address))?;
        told(director, "", 0, &[RIGHT.trim()])?;
        lab.director.sysctl("net.ipv4.ip_forward", "0")?;
        told(director, "", 1, &["its answers by l1 are not routed on", "net.ipv4.ip_forward=1"])?;
        lab.director.sysctl("net.ipv4.ip_forward", "1")?;
        director.must(&format!("-A -u {vip}"))?;
        director.must(&format!("-a -u {vip} -r {}:8080 -m", server.address))?;
        told(director, "", 0, &[RIGHT.trim()])?;
        drop(names);
        let nobody = format!("nothing listens there for {}", server.address);
        told(director, &format!("tcp/{vip}"), 1, &[&nobody])?;
        told(director, &format!("udp/{vip}"), 1, &[&nobody])?;
        director.must(&format!("-D -u {vip}"))?;
        server.netns.ip(&["link set e0 down"])?;
        told(director, "", 1, &["it does not answer; `xlvs rs verify` there"])
    })
}

fn with_bare_servers(layout: Layout, servers: usize) -> Result<Lab> {
    let mut lab = Lab::lay_out(layout, 0)?;
    for _ in 0..servers {
        lab.add_bare_server()?;
    }
    Ok(lab)
}

/// Exit code and lines of `xlvs verify`: each of these is in a line of its own, and there is no other.
fn told(director: &Director, line: &str, code: i32, lines: &[&str]) -> Result<()> {
    let reply = director.command("verify", &line.split_whitespace().collect::<Vec<_>>())?;
    let said: Vec<_> = reply.out.lines().collect();
    ensure!(reply.code == Some(code), "{:?} {}{}", reply.code, reply.out, reply.err);
    for words in lines {
        ensure!(said.iter().any(|line| line.contains(words)), "it does not say {words:?}: {}", reply.out);
    }
    let strange = said.iter().filter(|line| !lines.iter().any(|words| line.contains(words)));
    // One line may be told by two pieces of it.
    ensure!(strange.count() == 0, "more than was to be found: {}", reply.out);
    Ok(())
}
