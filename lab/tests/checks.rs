//! Checks that are no connections: by echo requests, by datagrams, and by files, of servers of both families.

mod common;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::{ruled_by, within};
use xlvs_lab::{Director, Lab, Layout, NameServer, Server};

const ASK: u16 = 7000;
/// Some turns of a check, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// One service of each family, both servers of which are checked like this.
fn checked(lab: &Lab, check: &str) -> String {
    let service = |vip: IpAddr, of: fn(&Server) -> IpAddr| {
        let servers = lab.servers.iter().map(|server| format!("\"{}\"", SocketAddr::new(of(server), ASK)));
        format!(
            "[[service]]\nudp = \"{}\"\nmethod = \"nat\"\nservers = [{}]\n\
             check = {{ {check}, interval = \"200ms\", timeout = \"200ms\", rise = 1, fall = 2 }}\n",
            SocketAddr::new(vip, ASK),
            servers.collect::<Vec<_>>().join(", "),
        )
    };
    let v4 = service(lab.vip(0).into(), |server| server.address.into());
    let v6 = service(lab.layout().vip6(0).into(), |server| server.address6.into());
    format!("interfaces = [\"l0\", \"l1\"]\n{v4}{v6}")
}

/// Servers that `ipvsadm` lists, of both services.
fn listed(director: &Director) -> Result<usize> {
    Ok(director.must("-Ln")?.lines().filter(|line| line.trim_start().starts_with("-> ")).count() - 1)
}

/// Tries it from when all servers, which answer by datagram, are known to be up.
fn tried(
    check: impl FnOnce(&Lab) -> String,
    test: impl FnOnce(&Lab, &mut Director, &mut Vec<NameServer>) -> Result<()>,
) -> Result<()> {
    let lab = Lab::lay_out(Layout::TwoNetwork, 2)?;
    let file = lab.directory().join("xlvs.toml");
    std::fs::write(&file, checked(&lab, &check(&lab))).context("write the file")?;
    let mut names = NameServer::on_all(&lab, ASK)?;
    ruled_by(&lab, &file, |lab, director| {
        let up = |count: usize| {
            let shown = director.shell("xlvs servers")?;
            Ok(shown.out.matches(", up").count() == count)
        };
        within(PATIENCE, "all servers are known to be up", || up(4))?;
        test(lab, director, &mut names)
    })
}

#[test]
fn a_server_that_answers_no_echo_is_out_until_it_does() -> Result<()> {
    let ping = |_: &Lab| "type = \"ping\"".to_owned();
    tried(ping, |lab, director, _| {
        let second = &lab.servers[1].netns;
        for parameter in ["net.ipv4.icmp_echo_ignore_all", "net.ipv6.icmp.echo_ignore_all"] {
            let before = listed(director)?;
            second.sysctl(parameter, "1")?;
            within(PATIENCE, parameter, || Ok(listed(director)? == before - 1))?;
        }
        for parameter in ["net.ipv4.icmp_echo_ignore_all", "net.ipv6.icmp.echo_ignore_all"] {
            second.sysctl(parameter, "0")?;
        }
        within(PATIENCE, "it is back", || Ok(listed(director)? == 4))
    })
}

#[test]
fn a_server_that_refuses_datagrams_is_out_until_it_takes_them() -> Result<()> {
    let udp = |_: &Lab| "type = \"udp\", send = \"hi\", answer = \"^rs[12]$\"".to_owned();
    tried(udp, |lab, director, names| {
        drop(names.pop());
        within(PATIENCE, "the second is out", || Ok(listed(director)? == 2))?;
        let shown = director.shell("xlvs servers")?.out;
        ensure!(shown.contains("connection refused"), "{shown}");
        names.push(NameServer::start(&lab.servers[1].netns, "rs2", ASK)?);
        within(PATIENCE, "it is back", || Ok(listed(director)? == 4))
    })
}

#[test]
fn a_file_takes_servers_out_and_brings_them_back() -> Result<()> {
    let flag = |lab: &Lab| lab.directory().join("down");
    tried(
        |lab| format!("type = \"file\", file = \"{}\"", flag(lab).display()),
        |lab, director, _| {
            std::fs::write(flag(lab), "1\n")?;
            within(PATIENCE, "all are out", || Ok(listed(director)? == 0))?;
            std::fs::remove_file(flag(lab))?;
            within(PATIENCE, "all are back", || Ok(listed(director)? == 4))
        },
    )
}
