//! Clients' packets, and a site for them.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::net::{IpAddr, Ipv4Addr};

use xlvs_core::server::Hop;
use xlvs_datapath::engine::Engine;
use xlvs_model::spec::{Method, Protocol, Scheduler};
use xlvs_model::{Change, Persistence, ServerKey, ServerSpec, ServiceKey, ServiceSpec};

const VIP: [u8; 4] = [10, 0, 0, 100];
/// TCP's flags.
pub const SYN: u8 = 0x02;
/// See [`SYN`].
pub const ACK: u8 = 0x10;
/// See [`SYN`].
pub const FIN_ACK: u8 = 0x11;
/// See [`SYN`].
pub const RST: u8 = 0x04;

/// A packet of a client to a port of the VIP; TCP with these flags, or UDP.
pub fn frame(client: u32, port: u16, flags: Option<u8>) -> Vec<u8> {
    let mut segment = [40_000u16.to_be_bytes(), port.to_be_bytes()].concat();
    let protocol = match flags {
        Some(flags) => {
            segment.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
            6
        }
        None => {
            segment.extend([0, 8, 0, 0]);
            17
        }
    };
    let mut ip = vec![0x45, 0, 0, (20 + segment.len()) as u8, 0, 1, 0x40, 0, 64, protocol, 0, 0];
    ip.extend(client.to_be_bytes());
    ip.extend(VIP);
    let sum: u32 = ip.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    [&[2, 0, 0, 0, 0, 0xfe, 2, 0, 0, 0, 0, 1, 8, 0][..], &ip, &segment].concat()
}

/// NAT and direct routing on TCP 80, persistence on 81, and UDP on 53, with every next hop known.
pub fn furnish(engine: &mut Engine) {
    let key = |protocol, port| ServiceKey::Address { protocol, addr: IpAddr::from(VIP), port };
    let plain = |key| ServiceSpec::new(key, Scheduler::Wlc);
    let persistence = Some(Persistence { timeout: 5, netmask: 0xffff_ff00 });
    let services = [
        plain(key(Protocol::Tcp, 80)),
        ServiceSpec { persistence, ..plain(key(Protocol::Tcp, 81)) },
        plain(key(Protocol::Udp, 53)),
    ];
    let mut changes = Vec::new();
    for spec in services {
        let ServiceKey::Address { port, .. } = spec.key else { unreachable!("an address") };
        changes.push(Change::AddService(spec.clone()));
        for (i, method) in [Method::Masquerade, Method::Direct, Method::Masquerade].into_iter().enumerate() {
            let server = ServerKey { addr: Ipv4Addr::new(10, 1, 0, 11 + i as u8).into(), port };
            changes.push(Change::AddServer(spec.key, ServerSpec::new(server, method)));
        }
    }
    engine.apply(&changes).expect("changes that are right");
    for destination in engine.destinations() {
        let hop = Hop { to: [2, 0, 0, 0, 2, 1], from: [2, 0, 0, 0, 1, 0xfe], ifindex: 2, mtu: 1500 };
        engine.resolve(destination.id, &hop, IpAddr::from([10, 1, 0, 254]));
    }
}
