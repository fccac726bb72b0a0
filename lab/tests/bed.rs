//! The lab itself, without a director: hosts reach each other by plain routing, actors answer,
//! tunnels end, and nothing is left behind.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xlvs_lab::{HttpServer, Lab, Layout, NameServer};

const PORT: u16 = 7000;

#[test]
fn every_server_is_reached_by_plain_routing_in_both_layouts_and_families() -> Result<()> {
    for layout in [Layout::OneNetwork, Layout::TwoNetwork] {
        let lab = Lab::lay_out(layout, 2)?;
        let _servers = NameServer::on_all(&lab, PORT)?;
        lab.client_netns().ip6(&["route add fd01::/64 via fd00::fe"]).or_else(|_| anyhow::Ok(()))?;
        for server in &lab.servers {
            for address in
                [SocketAddr::new(server.address.into(), PORT), SocketAddr::new(server.address6.into(), PORT)]
            {
                let name = lab.client().ask(address).with_context(|| format!("{layout:?} {address}"))?;
                ensure!(name == server.name, "{address} says it is {name}");
                let name =
                    lab.client().ask_by_datagram(address).with_context(|| format!("{layout:?} {address}"))?;
                ensure!(name == server.name, "{address} says it is {name} by UDP");
            }
        }
        lab.client().ping(layout.director().into())?;
        lab.client().ping(layout.director6().into())?;
        lab.client().ping(lab.vip(0).into())?;
    }
    Ok(())
}

#[test]
fn download_by_curl_is_compared_byte_by_byte() -> Result<()> {
    let lab = Lab::two_network(1)?;
    let servers = HttpServer::on_all(&lab, 80)?;
    let address = lab.servers[0].address;
    assert_eq!(lab.client().get(&format!("http://{address}/"))?, "rs1");
    lab.client().download(address.into(), 80, 50_000_000, None)?.finish()?;
    assert_eq!(servers[0].served(), 2);
    Ok(())
}

#[test]
fn servers_do_not_answer_arp_for_a_vip() -> Result<()> {
    let lab = Lab::one_network(2)?;
    lab.client().ping(lab.vip(5).into())?;
    let output =
        lab.client_netns().output(Command::new("ip").args(["neigh", "show", &lab.vip(5).to_string()]))?;
    let neighbour = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(neighbour.contains("02:00:00:00:00:fe"), "the VIP's MAC is not the director's: {neighbour}");
    Ok(())
}

#[test]
fn a_far_server_is_reached_through_its_router() -> Result<()> {
    let mut lab = Lab::two_network(1)?;
    let far = lab.add_far_server()?;
    let _servers = NameServer::on_all(&lab, PORT)?;
    let address = lab.servers[far].address;
    // The client's host is a router of the servers' network too; here it must not shorten the way.
    lab.client_netns().ip(&["route add 10.3.0.0/24 via 10.0.0.254"])?;
    assert_eq!(lab.client().ask(SocketAddr::new(address.into(), PORT))?, "rs2");
    Ok(())
}

#[test]
fn servers_unpack_tunnels_and_answer_past_the_director() -> Result<()> {
    let lab = Lab::two_network(1)?;
    let _servers = NameServer::on_all(&lab, PORT)?;
    // One ipip packet around a UDP question for a VIP, made by hand; the answer comes by c1.
    let (client, vip, server) = (lab.layout().client(1), lab.vip(0), lab.servers[0].address);
    let asker = lab.client_netns().run(|| std::net::UdpSocket::bind((client, 4000)))?;
    asker.set_read_timeout(Some(Duration::from_secs(2)))?;
    let packet = ip_header(4, 30, client.octets(), vip.octets(), 17)
        .into_iter()
        .chain(udp_hi(4000, PORT))
        .collect::<Vec<_>>();
    let raw = lab.client_netns().run(|| {
        let ipip = Some(socket2::Protocol::from(4));
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::from(nix::libc::SOCK_RAW), ipip)
    })?;
    raw.send_to(&packet, &SocketAddr::new(server.into(), 0).into())?;
    let mut name = [0; 16];
    let (length, from) = asker.recv_from(&mut name)?;
    assert_eq!(&name[..length], b"rs1");
    assert_eq!(from, SocketAddr::new(vip.into(), PORT));
    Ok(())
}

#[test]
fn dropping_a_lab_leaves_nothing() -> Result<()> {
    let prefix = {
        let lab = Lab::two_network(1)?;
        let _server = NameServer::on_all(&lab, PORT)?;
        let name = lab.director.name().to_owned();
        assert!(exists(&name));
        name.trim_end_matches("lb").to_owned()
    };
    assert_eq!(namespaces_with(&prefix), Vec::<String>::new());
    Ok(())
}

#[test]
fn a_panic_leaves_nothing() -> Result<()> {
    let (send, receive) = std::sync::mpsc::channel();
    let panicked = std::thread::spawn(move || {
        let lab = Lab::one_network(1).expect("lay out");
        send.send(lab.director.name().trim_end_matches("lb").to_owned()).expect("tell");
        panic!("on purpose");
    });
    let prefix = receive.recv()?;
    ensure!(panicked.join().is_err());
    assert_eq!(namespaces_with(&prefix), Vec::<String>::new());
    Ok(())
}

#[test]
fn ctrl_c_and_sigkill_leave_nothing() -> Result<()> {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let mut held = Command::new(env!("CARGO_BIN_EXE_xlvs-lab-hold")).stdout(Stdio::piped()).spawn()?;
        let prefix = format!("xlvs-{}-", held.id());
        wait_for(|| namespaces_with(&prefix).len() == 4 && sleepers_in(&prefix) > 0)?;
        kill(Pid::from_raw(held.id().cast_signed()), signal)?;
        held.wait()?;
        if signal == Signal::SIGKILL {
            // Nobody could clean up; the next lab's sweep does.
            ensure!(!namespaces_with(&prefix).is_empty());
            xlvs_lab::sweep_stale();
        }
        assert_eq!(namespaces_with(&prefix), Vec::<String>::new(), "after {signal}");
        ensure!(!std::path::Path::new("/run/xlvs-lab").join(format!("{}-0", held.id())).exists());
    }
    Ok(())
}

fn exists(name: &str) -> bool {
    namespaces_with(name).len() == 1
}

fn namespaces_with(prefix: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(prefix)).collect()
}

/// How many processes run in the namespaces of a lab.
fn sleepers_in(prefix: &str) -> usize {
    let pids = |name: &String| Command::new("ip").args(["netns", "pids", name]).output();
    let outputs = namespaces_with(prefix).iter().map(pids).collect::<Vec<_>>();
    outputs.into_iter().flatten().map(|output| String::from_utf8_lossy(&output.stdout).lines().count()).sum()
}

fn wait_for(mut condition: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        ensure!(Instant::now() < deadline, "waited in vain");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn ip_header(version: u8, length: u16, from: [u8; 4], to: [u8; 4], protocol: u8) -> [u8; 20] {
    let mut header = [0; 20];
    header[0] = version << 4 | 5;
    header[2..4].copy_from_slice(&length.to_be_bytes());
    header[8] = 64;
    header[9] = protocol;
    header[12..16].copy_from_slice(&from);
    header[16..20].copy_from_slice(&to);
    let checksum = !header.chunks_exact(2).fold(0_u16, |sum, pair| {
        let (sum, carry) = sum.overflowing_add(u16::from_be_bytes([pair[0], pair[1]]));
        sum + u16::from(carry)
    });
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header
}

/// A UDP datagram without checksum that says `hi`.
fn udp_hi(from: u16, to: u16) -> [u8; 10] {
    let ([f0, f1], [t0, t1]) = (from.to_be_bytes(), to.to_be_bytes());
    [f0, f1, t0, t1, 0, 10, 0, 0, b'h', b'i']
}
