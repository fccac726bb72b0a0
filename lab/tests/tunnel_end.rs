//! A real server's tunnel end behind a director: every tunnel, strangers, and what fits.

mod common;

use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use common::{directed, eventually};
use serde_json::Value;
use xlvs_lab::client::ephemeral;
use xlvs_lab::{Director, Lab, NameServer, Server};

/// Options of `ipvsadm`, and the counter of the end.
const TUNNELS: [(&str, &str); 6] = [
    ("", "ipip"),
    ("--tun-type gre --tun-nocsum", "gre"),
    ("--tun-type gre --tun-csum", "gre"),
    ("--tun-type gue --tun-port 6080 --tun-nocsum", "gue"),
    ("--tun-type gue --tun-port 6080 --tun-csum", "gue"),
    ("--tun-type gue --tun-port 6080 --tun-remcsum", "gue"),
];
const ASK: u16 = 7000;

#[test]
fn every_tunnel_of_a_named_director_ends_at_the_server() -> Result<()> {
    let lab = with_end("--director 10.1.0.254,fd01::fe")?;
    let (server, layout) = (&lab.servers[0], lab.layout());
    directed(&lab, |lab, director| {
        let _names = NameServer::on_all(lab, ASK)?;
        let mut unwrapped = 0;
        let families: [(IpAddr, IpAddr); 4] = [
            (layout.vip(0).into(), server.address.into()),
            (layout.vip6(0).into(), server.address6.into()),
            (layout.vip(0).into(), server.address6.into()),
            (layout.vip6(0).into(), server.address.into()),
        ];
        for (vip, real) in families {
            for (options, label) in TUNNELS {
                let what = format!("{vip} to {real} {options}");
                let before = counted(server, label)?;
                let vip = SocketAddr::new(vip, ASK);
                serve(director, vip, real, options).with_context(|| what.clone())?;
                ensure!(lab.client().ask(vip).with_context(|| what.clone())? == "rs1");
                ensure!(lab.client().ask_by_datagram(vip).with_context(|| what.clone())? == "rs1");
                let after = counted(server, label)?;
                // SYN, ACK, question, FIN, and perhaps an ACK or two; and a datagram.
                ensure!((5..=9).contains(&(after - before)), "{what}: {before} then {after}");
                unwrapped += 1;
                director.must("-C")?;
            }
        }
        ensure!(unwrapped == 24 && counted(server, "stranger")? == 0);
        Ok(())
    })
}

#[test]
fn what_a_stranger_sends_is_dropped_and_counted() -> Result<()> {
    let lab = with_end("--director 10.1.0.77,10.9.0.0/16,fd01::77")?;
    let (server, layout) = (&lab.servers[0], lab.layout());
    directed(&lab, |lab, director| {
        let _names = NameServer::on_all(lab, ASK)?;
        let vips: [(IpAddr, IpAddr); 2] =
            [(layout.vip(0).into(), server.address.into()), (layout.vip6(0).into(), server.address6.into())];
        let mut strangers = 0;
        for (vip, real) in vips {
            for (options, label) in TUNNELS {
                let vip = SocketAddr::new(vip, ASK);
                serve(director, vip, real, options)?;
                let from: IpAddr =
                    if vip.is_ipv4() { layout.client(1).into() } else { layout.client6(1).into() };
                let question = lab.client().datagrams(ephemeral(from), vip)?;
                question.send(b"hi")?;
                strangers += 1;
                eventually("the stranger is counted", || Ok(counted(server, "stranger")? == strangers))?;
                ensure!(counted(server, label)? == 0, "{options}: it was unwrapped");
                director.must("-C")?;
            }
        }
        // Named, it is heard, without anything else being touched.
        server.must(&up("--director 10.1.0.0/24"))?;
        let vip = SocketAddr::new(layout.vip(0).into(), ASK);
        serve(director, vip, server.address.into(), "")?;
        ensure!(lab.client().ask(vip)? == "rs1");
        server.must("down")?;
        ensure!(!links(server)?.contains("xdp"), "the program is still there");
        Ok(())
    })
}

#[test]
fn what_fits_into_the_tunnel_arrives_and_for_the_rest_the_client_is_told() -> Result<()> {
    let lab = with_end("")?;
    let (server, layout) = (&lab.servers[0], lab.layout());
    directed(&lab, |lab, director| {
        let _names = NameServer::on_all(lab, ASK)?;
        for (number, (options, overhead)) in
            [("", 20), ("--tun-type gre", 24), ("--tun-type gue --tun-port 6080", 32)].into_iter().enumerate()
        {
            let vip = SocketAddr::new(layout.vip(number as u8).into(), ASK);
            serve(director, vip, server.address.into(), options)?;
            let socket = lab.client().datagrams(ephemeral(layout.client(1)), vip)?;
            // The kernel sets "don't fragment" as long as a packet is no larger than it knows the way to take.
            let packet = |length: usize| vec![b'x'; length - 28];
            let fits = 1500 - overhead;
            socket.send(&packet(fits))?;
            let mut name = [0; 16];
            // Its name comes first, then what was sent.
            socket.recv(&mut name).with_context(|| format!("{fits} bytes {options}"))?;
            ensure!(name.starts_with(b"rs1"), "another answers {options}");

            socket.send(&packet(fits + 1))?;
            eventually("the client is told what the way takes", || {
                let way = ["route", "get", &vip.ip().to_string()].map(str::to_owned);
                let way = lab.client_netns().output(Command::new("ip").args(way))?;
                Ok(String::from_utf8_lossy(&way.stdout).contains(&format!("mtu {fits}")))
            })?;
            ensure!(lab.client().ask_by_datagram(vip)? == "rs1", "what is smaller goes on");
        }
        Ok(())
    })
}

#[test]
fn a_device_without_native_xdp_gets_the_generic_mode() -> Result<()> {
    let mut lab = Lab::two_network(0)?;
    let server = lab.add_bare_server()?;
    server.netns.ip(&[
        "link add br0 type bridge",
        "link set e0 master br0",
        "link set br0 up",
        "addr flush dev e0",
        "addr add 10.1.0.11/24 dev br0",
        "addr add fd01::b/64 dev br0 nodad",
        "route add default via 10.1.0.1",
    ])?;
    server.netns.ip6(&["route add default via fd01::1"])?;
    server.must(&up("--director 10.1.0.254,fd01::fe"))?;
    ensure!(links(&lab.servers[0])?.contains("xdpgeneric"), "it is not generic");
    let layout = lab.layout();
    directed(&lab, |lab, director| {
        let _names = NameServer::on_all(lab, ASK)?;
        let vips: [(IpAddr, &str); 2] =
            [(layout.vip(0).into(), "10.1.0.11"), (layout.vip6(0).into(), "fd01::b")];
        for (vip, real) in vips {
            for (options, _) in TUNNELS {
                let vip = SocketAddr::new(vip, ASK);
                serve(director, vip, real.parse()?, options)?;
                ensure!(lab.client().ask(vip).with_context(|| format!("{real} {options}"))? == "rs1");
                director.must("-C")?;
            }
        }
        let server = &lab.servers[0];
        ensure!(server.must(&up("--director 10.1.0.254"))?.contains("tunnel end on br0"));
        server.must("down")?;
        ensure!(!links(server)?.contains("xdp"), "the program is still there");
        Ok(())
    })
}

#[test]
fn another_program_on_the_interface_is_left_alone() -> Result<()> {
    let mut lab = Lab::two_network(0)?;
    lab.add_bare_server()?;
    lab.add_bare_server()?;
    lab.occupy_server(0)?;
    let server = &lab.servers[0];
    let before = links(server)?;
    let reply = server.rs(&up("").split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>())?;
    ensure!(
        reply.code == Some(1) && reply.err.contains("e0 already runs another XDP program"),
        "{}",
        reply.err
    );
    ensure!(links(server)? == before);
    ensure!(server.must("down")? == "nothing was set up here\n");

    // One that has taken the end's place is not ours to remove.
    let server = &lab.servers[1];
    server.must(&up(""))?;
    server.netns.ip(&["link set e0 xdp off"])?;
    lab.occupy_server(1)?;
    let server = &lab.servers[1];
    ensure!(server.rs(&["status"])?.code == Some(1));
    let reply = server.rs(&["down"])?;
    ensure!(reply.code == Some(0) && reply.err.contains("left as it is"), "{:?} {}", reply.code, reply.err);
    ensure!(links(server)?.contains("xdp"), "the other program is gone");
    ensure!(server.must("down")? == "nothing was set up here\n");
    Ok(())
}

/// A server whose end is set up so, and whose own way to the clients leads past the director.
fn with_end(options: &str) -> Result<Lab> {
    let mut lab = Lab::two_network(0)?;
    let server = lab.add_bare_server()?;
    server.netns.ip(&["route add default via 10.1.0.1"])?;
    server.netns.ip6(&["route add default via fd01::1"])?;
    // Strict, and the way to clients is another than where they come from.
    server.netns.sysctl("net.ipv4.conf.all.rp_filter", "1")?;
    server.must(&up(options))?;
    Ok(lab)
}

fn up(options: &str) -> String {
    format!("up --mode tun --vip 10.0.0.100,10.0.0.101,10.0.0.102,fd00::100 {options}")
}

fn serve(director: &Director, vip: SocketAddr, real: IpAddr, options: &str) -> Result<()> {
    let real = SocketAddr::new(real, vip.port());
    for kind in ["-t", "-u"] {
        director.must(&format!("-A {kind} {vip} -s rr"))?;
        director.must(&format!("-a {kind} {vip} -r {real} -i {options}"))?;
    }
    Ok(())
}

/// What the server's end says of itself.
fn counted(server: &Server, label: &str) -> Result<u64> {
    let status: Value = serde_json::from_str(&server.must("status --json")?)?;
    let packets = status["tunnel_ends"][0]["packets"].as_array().context("counters")?;
    let one = packets.iter().find(|reason| reason["label"] == label).context("it counts that")?;
    one["packets"].as_u64().context("a number")
}

fn links(server: &Server) -> Result<String> {
    let output = server.netns.output(Command::new("ip").arg("link"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
