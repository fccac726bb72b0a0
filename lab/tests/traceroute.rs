//! What `traceroute` to a VIP would show: packets whose time to live ends are answered by who they have reached.

mod common;

use std::io::IoSliceMut;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, bail, ensure};
use common::{Method, directed, serve};
use nix::errno::Errno;
use nix::sys::socket::sockopt::{Ipv4RecvErr, Ipv4Ttl, Ipv6RecvErr, Ipv6Ttl};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt};
use xlvs_lab::client::{ask_by, ephemeral};
use xlvs_lab::{Lab, NameServer};

const ASK: u16 = 7000;
/// More than any way here has.
const MOST: u8 = 6;

/// The packet was for the VIP, which is the director's own, so the answer is from there.
#[test]
fn the_director_is_a_hop_and_a_server_the_last() -> Result<()> {
    let lab = Lab::two_network(1)?;
    let layout = lab.layout();
    directed(&lab, |lab, director| {
        let _names = NameServer::on_all(lab, ASK)?;
        for (number, method) in [(0, Method::Nat), (1, Method::Dr), (2, Method::Tun)] {
            let vip = SocketAddr::new(layout.vip(number).into(), ASK);
            serve(lab, director, ("-u", vip), "rr", &[(0, method, 1)])?;
            let way = traced(lab, vip).with_context(|| format!("{method:?}"))?;
            ensure!(way == (vec![vip.ip()], "rs1".to_owned()), "{method:?}: {way:?}");

            let vip = SocketAddr::new(layout.vip6(number).into(), ASK);
            director.must(&format!("-A -u {vip} -s rr"))?;
            director.must(&format!(
                "-a -u {vip} -r [{}]:{ASK} {}",
                lab.servers[0].address6,
                method.flag()
            ))?;
            let way = traced(lab, vip).with_context(|| format!("{method:?}"))?;
            ensure!(way == (vec![vip.ip()], "rs1".to_owned()), "{method:?}: {way:?}");
        }
        Ok(())
    })
}

#[test]
fn a_router_behind_the_director_speaks_as_the_vip() -> Result<()> {
    let mut lab = Lab::two_network(0)?;
    let far = lab.add_far_server()?;
    directed(&lab, |lab, director| {
        let _names = NameServer::on_all(lab, ASK)?;
        let vip = SocketAddr::new(lab.vip(0).into(), ASK);
        serve(lab, director, ("-u", vip), "rr", &[(far, Method::Nat, 1)])?;
        let way = traced(lab, vip)?;
        // Its address is as unknown to the client as the server's, so the kernel's NAT hides it too.
        ensure!(way == (vec![vip.ip(), vip.ip()], "rs1".to_owned()), "{way:?}");
        Ok(())
    })
}

/// Who is on the way to a VIP, in order, and who is at its end.
fn traced(lab: &Lab, vip: SocketAddr) -> Result<(Vec<IpAddr>, String)> {
    let client = lab.client();
    let socket = client.datagrams(ephemeral(client.address_towards(vip)), vip)?;
    let mut hops = Vec::new();
    for hop in 1..=MOST {
        live_for(&socket, hop)?;
        match ask_by(&socket) {
            Ok(name) => return Ok((hops, name)),
            Err(why) => hops.push(told(&socket)?.with_context(|| format!("hop {hop} is silent ({why:#})"))?),
        }
    }
    bail!("no end after {hops:?}")
}

fn live_for(socket: &UdpSocket, hops: u8) -> Result<()> {
    if socket.local_addr()?.is_ipv4() {
        setsockopt(socket, Ipv4RecvErr, &true)?;
        setsockopt(socket, Ipv4Ttl, &i32::from(hops))?;
    } else {
        setsockopt(socket, Ipv6RecvErr, &true)?;
        setsockopt(socket, Ipv6Ttl, &i32::from(hops))?;
    }
    Ok(())
}

/// Who has told this socket by ICMP that a packet's time ended.
fn told(socket: &UdpSocket) -> Result<Option<IpAddr>> {
    /// RFC 792, RFC 4443: time exceeded.
    const EXCEEDED: [u8; 2] = [11, 3];
    let mut room = nix::cmsg_space!([u8; 256]);
    let mut datagram = [0; 64];
    let mut parts = [IoSliceMut::new(&mut datagram)];
    let message = match recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut room),
        MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT,
    ) {
        Err(Errno::EAGAIN) => return Ok(None),
        message => message?,
    };
    let said = message.cmsgs()?.find_map(|word| match word {
        ControlMessageOwned::Ipv4RecvErr(error, Some(from)) => {
            Some((error.ee_type, Ipv4Addr::from(u32::from_be(from.sin_addr.s_addr)).into()))
        }
        ControlMessageOwned::Ipv6RecvErr(error, Some(from)) => {
            Some((error.ee_type, Ipv6Addr::from(from.sin6_addr.s6_addr).into()))
        }
        _ => None,
    });
    let Some((kind, from)) = said else { return Ok(None) };
    ensure!(EXCEEDED.contains(&kind), "ICMP type {kind} from {from}");
    Ok(Some(from))
}
