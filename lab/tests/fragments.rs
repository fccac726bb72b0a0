//! Datagrams that are longer than any frame go through the director in fragments, there and back, and arrive whole.

mod common;

use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::{Context, Result, ensure};
use common::{Method, directed, directed_by, spread, with_director};
use nix::libc::{EMSGSIZE, IPPROTO_RAW, SOCK_RAW};
use socket2::{Domain, Protocol, Socket, Type};
use xlvs_lab::{Director, Lab, Layout, NameServer, TunnelEnd, client::ephemeral};

const ASK: u16 = 7000;
/// What the director itself answers.
const OWN: u16 = 7001;
const LENGTH: usize = 8000;

#[test]
fn large_datagrams_come_back_whole_by_nat() -> Result<()> {
    come_back_whole(Method::Nat)
}

#[test]
fn large_datagrams_come_back_whole_by_dr() -> Result<()> {
    come_back_whole(Method::Dr)
}

#[test]
fn large_datagrams_come_back_whole_by_tun() -> Result<()> {
    come_back_whole(Method::Tun)
}

/// Frames of several buffers.
#[test]
fn large_datagrams_go_whole_where_frames_are_long() -> Result<()> {
    let lab = Lab::lay_out(Layout::TwoNetwork, 1)?;
    lab.widen(9000)?;
    directed(&lab, |lab, director| {
        let _names = NameServer::on_all(lab, ASK)?;
        let v4 = (IpAddr::from(lab.vip(0)), IpAddr::from(lab.servers[0].address));
        let v6 = (lab.layout().vip6(0).into(), lab.servers[0].address6.into());
        for ((vip, server), method) in
            [v4, v6].into_iter().flat_map(|ends| [Method::Nat, Method::Dr, Method::Tun].map(|m| (ends, m)))
        {
            let (service, server) = (SocketAddr::new(vip, ASK), SocketAddr::new(server, ASK));
            director.must(&format!("-A -u {service} -s rr"))?;
            director.must(&format!("-a -u {service} -r {server} {}", method.flag()))?;
            for round in 0..3 {
                whole_answer(lab, service, round).with_context(|| format!("{method:?} by {service}"))?;
            }
            director.must(&format!("-D -u {service}"))?;
        }
        let status = director.command("status", &[])?.out;
        ensure!(!status.contains("Fragments"), "none came in fragments, and none was cut: {status}");
        Ok(())
    })
}

/// What runs after the driver sees what is given back to the stack once more.
#[test]
fn fragments_of_no_service_reach_the_stack_in_generic_mode_too() -> Result<()> {
    reach_the_stack_with(&["--xdp-mode", "generic"])
}

#[test]
fn fragments_of_no_service_reach_the_stack_at_the_tc_hook_too() -> Result<()> {
    reach_the_stack_with(&["--hook", "tc"])
}

fn reach_the_stack_with(options: &[&str]) -> Result<()> {
    let lab = Lab::lay_out(Layout::TwoNetwork, 1)?;
    let director = Director::prepare(&lab, &xlvs_lab::director::binary()?)?;
    directed_by(director.with_options(options), &lab, |lab, director| {
        let (_server, _own) = (NameServer::on_all(lab, ASK)?, NameServer::start(&lab.director, "lb1", OWN)?);
        let v4 = (IpAddr::from(lab.vip(0)), IpAddr::from(lab.servers[0].address));
        let v6 = (lab.layout().vip6(0).into(), lab.servers[0].address6.into());
        for (vip, server) in [v4, v6] {
            let (service, own) = (SocketAddr::new(vip, ASK), SocketAddr::new(vip, OWN));
            director.must(&format!("-A -u {service} -s rr"))?;
            director.must(&format!("-a -u {service} -r {} -m", SocketAddr::new(server, ASK)))?;
            for round in 0..3 {
                let name = whole_answer(lab, own, round).with_context(|| format!("to {own}"))?;
                ensure!(name == "lb1", "{name} answers");
                let name = whole_answer(lab, service, round).with_context(|| format!("to {service}"))?;
                ensure!(name == "rs1", "{name} answers");
            }
        }
        Ok(())
    })
}

fn come_back_whole(method: Method) -> Result<()> {
    with_director(Layout::TwoNetwork, 2, |lab, director| {
        let (_names, _ends) = (NameServer::on_all(lab, ASK)?, TunnelEnd::on_all(lab)?);
        for vip in [IpAddr::from(lab.vip(0)), lab.layout().vip6(0).into()] {
            let service = SocketAddr::new(vip, ASK);
            director.must(&format!("-A -u {service} -s rr"))?;
            for server in &lab.servers {
                let addr = if vip.is_ipv6() { IpAddr::from(server.address6) } else { server.address.into() };
                let server = SocketAddr::new(addr, ASK);
                director.must(&format!("-a -u {service} -r {server} {}", method.flag()))?;
            }
            let names = (0..10).map(|round| whole_answer(lab, service, round)).collect::<Result<Vec<_>>>();
            let names = names.with_context(|| format!("{LENGTH} bytes to {service}"))?;
            ensure!(spread(&names).values().copied().eq([5, 5]), "{:?}", spread(&names));
            backwards(lab, service).with_context(|| format!("fragments to {service}, the last one first"))?;
        }
        Ok(())
    })
}

/// Asks with a large datagram. Returns who answered; he says all that he was told.
fn whole_answer(lab: &Lab, service: SocketAddr, round: usize) -> Result<String> {
    let client = lab.client();
    let socket = client.datagrams(ephemeral(client.address_towards(service)), service)?;
    let said = question(round);
    socket.send(&said)?;
    match hear(&socket, &said) {
        // Of IPv6 a tunnel refuses fragments that are as long as the way to it takes: the next ones are shorter.
        Err(why) if is_too_long(&why) => {
            socket.send(&said)?;
            hear(&socket, &said)
        }
        heard => heard,
    }
}

fn is_too_long(why: &anyhow::Error) -> bool {
    let why = why.downcast_ref::<std::io::Error>();
    why.and_then(std::io::Error::raw_os_error) == Some(EMSGSIZE)
}

fn question(round: usize) -> Vec<u8> {
    (0..LENGTH).map(|at| (at * 31 / 7 + round) as u8).collect()
}

fn hear(socket: &UdpSocket, said: &[u8]) -> Result<String> {
    let mut answer = vec![0; LENGTH + 16];
    let length = socket.recv(&mut answer).context("hear an answer")?;
    let (name, heard) = answer[..length].split_at_checked("rs1".len()).context("a short answer")?;
    ensure!(heard == said, "{} bytes of {LENGTH} came back, or others", heard.len());
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// The same in fragments of our own, which arrive in the wrong order.
fn backwards(lab: &Lab, service: SocketAddr) -> Result<()> {
    let client = lab.client();
    let socket = client.datagrams(ephemeral(client.address_towards(service)), service)?;
    let (from, said) = (socket.local_addr()?, question(77));
    let mut fragments = fragments(from, service, &udp(from, service, &said));
    fragments.reverse();
    lab.client_netns().run(|| -> Result<()> {
        let protocol = Some(Protocol::from(IPPROTO_RAW));
        let raw = Socket::new(Domain::for_address(service), Type::from(SOCK_RAW), protocol)?;
        for fragment in &fragments {
            raw.send_to(fragment, &SocketAddr::new(service.ip(), 0).into())?;
        }
        Ok(())
    })?;
    hear(&socket, &said).map(drop)
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn udp(from: SocketAddr, to: SocketAddr, data: &[u8]) -> Vec<u8> {
    let length = (8 + data.len()) as u16;
    let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    let mut datagram = [&ports[..], &length.to_be_bytes(), &[0, 0], data].concat();
    let pseudo =
        [&octets(from.ip())[..], &octets(to.ip()), &[0, 17], &length.to_be_bytes(), &datagram].concat();
    let sum: u32 = pseudo
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    datagram[6..8].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    datagram
}

/// A datagram in packets of 1,000 bytes of it each.
fn fragments(from: SocketAddr, to: SocketAddr, datagram: &[u8]) -> Vec<Vec<u8>> {
    let addresses = [octets(from.ip()), octets(to.ip())].concat();
    let parts = datagram.chunks(1000).enumerate().map(|(number, part)| (number * 1000, part));
    parts
        .map(|(offset, part)| {
            let more = offset + part.len() < datagram.len();
            if from.is_ipv6() {
                let [high, low] = ((part.len() + 8) as u16).to_be_bytes();
                let place = (offset as u16 | u16::from(more)).to_be_bytes();
                let header = [0x60, 0, 0, 0, high, low, 44, 64];
                [&header, &addresses[..], &[17, 0], &place, &[1, 2, 3, 4], part].concat()
            } else {
                let [high, low] = ((part.len() + 20) as u16).to_be_bytes();
                let place = ((offset / 8) as u16 | if more { 0x2000 } else { 0 }).to_be_bytes();
                // The kernel makes the checksum.
                let header = [0x45, 0, high, low, 0x12, 0x34, place[0], place[1], 64, 17, 0, 0];
                [&header, &addresses[..], part].concat()
            }
        })
        .collect()
}
