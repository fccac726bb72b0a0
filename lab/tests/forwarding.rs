//! Each method on each topology carries real traffic, and spreads it as the scheduler says.

mod common;

use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use common::{
    Method, all, counts, directed, ensure_spread, serve, spread, with_director, with_director_at_each_hook,
};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::TcpMaxSeg;
use xlvs_lab::client::ask_again;
use xlvs_lab::{HttpServer, Lab, Layout, NameServer};

const ASK: u16 = 7000;
const HTTP: u16 = 80;
const METHODS: [Method; 3] = [Method::Nat, Method::Dr, Method::Tun];

#[test]
fn nat_on_one_network() -> Result<()> {
    carries_and_spreads(Layout::OneNetwork, Method::Nat)
}

#[test]
fn nat_on_two_networks() -> Result<()> {
    carries_and_spreads(Layout::TwoNetwork, Method::Nat)
}

#[test]
fn dr_on_one_network() -> Result<()> {
    carries_and_spreads(Layout::OneNetwork, Method::Dr)
}

#[test]
fn dr_on_two_networks() -> Result<()> {
    carries_and_spreads(Layout::TwoNetwork, Method::Dr)
}

#[test]
fn tun_on_one_network() -> Result<()> {
    carries_and_spreads(Layout::OneNetwork, Method::Tun)
}

#[test]
fn tun_on_two_networks() -> Result<()> {
    carries_and_spreads(Layout::TwoNetwork, Method::Tun)
}

#[test]
fn nat_translates_the_port() -> Result<()> {
    with_director(Layout::TwoNetwork, 1, |lab, director| {
        let _server = HttpServer::on_all(lab, 8080)?;
        let vip = lab.vip(0);
        director.must(&format!("-A -t {vip}:80 -s rr"))?;
        director.must(&format!("-a -t {vip}:80 -r {}:8080 -m", lab.servers[0].address))?;
        ensure!(lab.client().get(&format!("http://{vip}/"))? == "rs1");
        lab.client().download(vip.into(), 80, 5_000_000, None)?.finish()
    })
}

#[test]
fn servers_of_one_service_may_have_different_methods() -> Result<()> {
    with_director(Layout::TwoNetwork, 3, |lab, director| {
        let (_names, _files) = (NameServer::on_all(lab, ASK)?, HttpServer::on_all(lab, HTTP)?);
        let servers = [(0, Method::Nat, 1), (1, Method::Dr, 1), (2, Method::Tun, 1)];
        let (ask, http) = (SocketAddr::new(lab.vip(0).into(), ASK), SocketAddr::new(lab.vip(0).into(), HTTP));
        for service in [("-t", ask), ("-u", ask), ("-t", http)] {
            serve(lab, director, service, "rr", &servers)?;
        }
        let names = lab.client().ask_times(ask, 300)?;
        ensure_spread(&spread(&names), &[("rs1", 100), ("rs2", 100), ("rs3", 100)], 0)?;
        let names = (0..30).map(|_| lab.client().ask_by_datagram(ask)).collect::<Result<Vec<_>>>()?;
        // A port that the client's kernel happens to give twice is a connection that goes on.
        ensure_spread(&spread(&names), &[("rs1", 10), ("rs2", 10), ("rs3", 10)], 2)?;
        let start = |_| lab.client().download(http.ip(), HTTP, 10_000_000, None);
        let downloads = (0..3).map(start).collect::<Result<Vec<_>>>()?;
        downloads.into_iter().try_for_each(xlvs_lab::Download::finish)
    })
}

#[test]
fn servers_on_different_next_hops_both_answer() -> Result<()> {
    let mut lab = Lab::two_network(1)?;
    lab.add_far_server()?;
    directed(&lab, |lab, director| {
        let (_names, _files) = (NameServer::on_all(lab, ASK)?, HttpServer::on_all(lab, HTTP)?);
        for (number, method) in [(0, Method::Nat), (1, Method::Tun)] {
            let (ask, http) =
                (SocketAddr::new(lab.vip(number).into(), ASK), SocketAddr::new(lab.vip(number).into(), HTTP));
            serve(lab, director, ("-t", ask), "rr", &all(lab, method))?;
            serve(lab, director, ("-t", http), "rr", &all(lab, method))?;
            let names = lab.client().ask_times(ask, 100).with_context(|| format!("{method:?}"))?;
            ensure_spread(&spread(&names), &[("rs1", 50), ("rs2", 50)], 0)?;
            for _ in 0..2 {
                lab.client().download(http.ip(), HTTP, 10_000_000, None)?.finish()?;
            }
        }
        Ok(())
    })
}

#[test]
fn the_director_itself_is_a_server_beside_another_by_every_method() -> Result<()> {
    with_director(Layout::TwoNetwork, 1, |lab, director| {
        let (_server, _own) = (NameServer::on_all(lab, ASK)?, NameServer::start(&lab.director, "lb", ASK)?);
        let (layout, server) = (lab.layout(), &lab.servers[0]);
        let v4 = (IpAddr::from(lab.vip(0)), IpAddr::from(server.address), IpAddr::from(layout.gateway()));
        let v6 = (layout.vip6(0).into(), layout.server6(1).into(), layout.gateway6().into());
        for (vip, other, own) in [v4, v6] {
            let vip = SocketAddr::new(vip, ASK);
            for (protocol, method) in
                ["-t", "-u"].into_iter().flat_map(|protocol| METHODS.map(|m| (protocol, m)))
            {
                director.must(&format!("-A {protocol} {vip} -s rr"))?;
                for address in [other, own].map(|address| SocketAddr::new(address, ASK)) {
                    director.must(&format!("-a {protocol} {vip} -r {address} {}", method.flag()))?;
                }
                let ask = |_| {
                    if protocol == "-t" { lab.client().ask(vip) } else { lab.client().ask_by_datagram(vip) }
                };
                let names = (0..20).map(ask).collect::<Result<Vec<_>>>();
                let names = names.with_context(|| format!("{protocol} {vip} by {method:?}"))?;
                ensure_spread(&spread(&names), &[("lb", 10), ("rs1", 10)], 2)?;
                director.must(&format!("-D {protocol} {vip}"))?;
            }
        }
        Ok(())
    })
}

#[test]
fn segments_are_as_long_as_the_service_says_at_each_hook() -> Result<()> {
    const MOST: u32 = 1000;
    with_director_at_each_hook(Layout::TwoNetwork, 1, |lab, director| {
        let _server = NameServer::on_all(lab, ASK)?;
        let file = lab.directory().join("segments.toml");
        let v4 = (IpAddr::from(lab.vip(0)), IpAddr::from(lab.servers[0].address));
        let v6 = (lab.layout().vip6(0).into(), lab.servers[0].address6.into());
        let words = METHODS.into_iter().zip(["nat", "dr", "tun"]);
        for ((vip, server), (method, word)) in
            [v4, v6].into_iter().flat_map(|ends| words.clone().map(move |method| (ends, method)))
        {
            let [vip, server] = [vip, server].map(|address| SocketAddr::new(address, ASK));
            let says = format!("method = \"{word}\"\nmss = {MOST}\nservers = [\"{server}\"]");
            std::fs::write(&file, format!("[[service]]\ntcp = \"{vip}\"\n{says}\n"))?;
            let applied = director.command("apply", &[&file.to_string_lossy()])?;
            ensure!(applied.code == Some(0), "{}", applied.err);
            // ipvsadm has no word for it, and leaves it.
            director.must(&format!("-E -t {vip} -s rr"))?;
            let mut stream = lab.client().connect_to(vip)?;
            ensure!(ask_again(&mut stream)? == "rs1");
            // What its SYN said when it came there is the most that the server sends.
            let client = getsockopt(&stream, TcpMaxSeg)?;
            let server = segments_of_server(lab)?;
            ensure!(server <= MOST, "{method:?}: the server's segments have {server} bytes");
            // An answer that does not pass the director says what the server takes.
            ensure!((client <= MOST) == (method == Method::Nat), "{method:?}: the client's have {client}");
        }
        Ok(())
    })
}

/// Bytes of the segments that the first server sends on its only connection.
fn segments_of_server(lab: &Lab) -> Result<u32> {
    let mut ss = Command::new("ss");
    ss.args(["-Htin", "state", "established", "sport", "=", &ASK.to_string()]);
    let listed = String::from_utf8(lab.servers[0].netns.output(&mut ss)?.stdout)?;
    let bytes = listed.split_whitespace().find_map(|word| word.strip_prefix("mss:"));
    Ok(bytes.with_context(|| format!("ss does not tell: {listed}"))?.parse()?)
}

#[test]
fn what_is_not_balanced_passes_to_the_stack() -> Result<()> {
    with_director(Layout::TwoNetwork, 1, |lab, director| {
        let _servers = NameServer::on_all(lab, ASK)?;
        let _ssh = NameServer::start(&lab.director, "lb", 22)?;
        let vip = SocketAddr::new(lab.vip(0).into(), ASK);
        serve(lab, director, ("-t", vip), "rr", &all(lab, Method::Nat))?;
        let client = lab.client();
        ensure!(client.ask(vip)? == "rs1");
        client.ping(vip.ip()).context("ping to the VIP")?;
        client.ping(lab.layout().director().into()).context("ping to the DIP")?;
        for address in [lab.layout().director(), lab.vip(0)] {
            let ssh = SocketAddr::new(address.into(), 22);
            ensure!(client.ask(ssh).with_context(|| format!("TCP to {ssh}"))? == "lb");
        }
        // The servers' own addresses stay reachable by the director's plain forwarding.
        let plain = SocketAddr::new(lab.servers[0].address.into(), ASK);
        ensure!(client.ask(plain).context("TCP to a server's own address")? == "rs1");
        Ok(())
    })
}

fn carries_and_spreads(layout: Layout, method: Method) -> Result<()> {
    with_director(layout, 3, |lab, director| {
        let (_names, _files) = (NameServer::on_all(lab, ASK)?, HttpServer::on_all(lab, HTTP)?);
        let vip = |number, port| SocketAddr::new(lab.vip(number).into(), port);
        let (files, plain, weighted) = (vip(0, HTTP), vip(0, ASK), vip(1, ASK));
        serve(lab, director, ("-t", files), "wlc", &all(lab, method))?;
        serve(lab, director, ("-t", plain), "rr", &all(lab, method))?;
        serve(lab, director, ("-u", plain), "rr", &all(lab, method))?;
        serve(lab, director, ("-t", weighted), "wlc", &[(0, method, 1), (1, method, 2), (2, method, 3)])?;

        lab.client().download(files.ip(), HTTP, 50_000_000, None)?.finish().context("50 MB by HTTP")?;

        let names = lab.client().ask_times(plain, 2000).context("short connections, rr")?;
        ensure_spread(&spread(&names), &[("rs1", 666), ("rs2", 667), ("rs3", 667)], 1)?;
        let names = lab.client().ask_times(weighted, 2000).context("short connections, wlc")?;
        ensure_spread(&spread(&names), &[("rs1", 333), ("rs2", 667), ("rs3", 1000)], 20)?;
        let names = (0..30).map(|_| lab.client().ask_by_datagram(plain)).collect::<Result<Vec<_>>>();
        // A port that the client's kernel happens to give twice is a connection that goes on.
        ensure_spread(&spread(&names.context("datagrams")?), &[("rs1", 10), ("rs2", 10), ("rs3", 10)], 2)?;

        // Every one of them is still remembered, and as ended.
        let listed = counts(&director.must(&format!("-Ln -t {plain}"))?);
        let (active, inactive) = listed.iter().fold((0, 0), |sum, (_, a, i)| (sum.0 + a, sum.1 + i));
        ensure!((active, inactive) == (0, 2000), "the listing counts {active} active, {inactive} inactive");
        Ok(())
    })
}
