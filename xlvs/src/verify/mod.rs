//! `xlvs verify`: what is wrong with services and servers, as seen from the director. It looks at routes, neighbours and parameters, asks the networks
//! who answers for VIPs, and sends each server a question as the data plane would send it a client's packet.

mod finding;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use xlvs_ipvsadm::Backend;
use xlvs_model::spec::{Method, Protocol, TunnelChecksum, TunnelType};
use xlvs_model::view::ServiceView;
use xlvs_model::{ServerSpec, ServiceKey};
use xlvs_realserver::frames::Mac;
use xlvs_realserver::neighbours::who_has;
use xlvs_realserver::netlink::Way;
use xlvs_realserver::plan::Device;
use xlvs_realserver::probe::{Answer as Heard, Encapsulation, Question, Road, ask};
use xlvs_realserver::{Kernel, Sight};

use crate::client::Client;
use crate::findings::tell;
use crate::paths::Paths;
use crate::protocol::{Answer, Request};
use crate::{named, plan};
use finding::{At, Finding};

/// What clients' networks take at the most, as a rule.
const USUAL_MTU: u32 = 1500;
/// A NAT server's answer may take this long.
const PATIENCE: Duration = Duration::from_secs(1);

/// What to look at: all services, one, or one server of it.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The service: 192.0.2.10:80, tcp/192.0.2.10:80 or mark/1.
    service: Option<String>,
    /// The server: 10.0.0.11:8080 or 10.0.0.11.
    server: Option<String>,
    /// The director's places.
    #[command(flatten)]
    paths: Paths,
}

/// Prints what is wrong. Exit code 1: something does not work.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "`xlvs verify` sends frames of its own: run it as root, on the director"
    );
    let mut client = Client::connected(&options.paths)?;
    let interfaces = match client.ask(&Request::Overview)? {
        Answer::Overview(overview) => {
            overview.interfaces.into_iter().map(|interface| interface.name).collect()
        }
        other => return Err(other.unexpected().into()),
    };
    let services = meant(&mut client, options)?;
    let mut look = Look::open(interfaces).context("look at this host's devices, addresses and neighbours")?;
    let mut findings = look.at_vips(&services).context("ask the networks who has the VIPs")?;
    for service in &services {
        for server in &service.servers {
            let found = look.at_server(&service.spec.key, &server.spec);
            findings.extend(found.with_context(|| format!("ask {}", plan::server(&server.spec.key)))?);
        }
    }
    Ok(tell(&findings, Finding::is_fault))
}

fn meant(client: &mut Client, options: &Options) -> anyhow::Result<Vec<ServiceView>> {
    let mut services = client.services(None)?;
    let Some(name) = &options.service else { return Ok(services) };
    let mut service = named::service(name, &services)?.clone();
    if let Some(name) = &options.server {
        service.servers = vec![named::server(name, &service)?.clone()];
    }
    services = vec![service];
    Ok(services)
}

/// This host, looked at once.
struct Look {
    kernel: Kernel,
    sight: Sight,
    neighbours: BTreeMap<(u32, IpAddr), Mac>,
    /// The director's.
    interfaces: Vec<String>,
}

impl Look {
    fn open(interfaces: Vec<String>) -> io::Result<Self> {
        let mut kernel = Kernel::open(Vec::new())?;
        let sight = kernel.sight()?;
        let neighbours = kernel.netlink().neighbours()?;
        Ok(Self { kernel, sight, neighbours, interfaces })
    }

    /// Who answers for the VIPs?
    fn at_vips(&self, services: &[ServiceView]) -> io::Result<Vec<Finding>> {
        let vips: BTreeSet<_> = services.iter().filter_map(|service| vip(&service.spec.key)).collect();
        let targets: Vec<_> = vips.iter().copied().collect();
        let mut found = Vec::new();
        let mut answered = BTreeSet::new();
        for device in self.devices().filter(|device| device.is_up && device.is_ethernet && !vips.is_empty()) {
            for (vip, macs) in who_has(&device.name, &targets)? {
                answered.insert(vip);
                found.extend(macs.into_iter().map(|mac| Finding::Foreign {
                    vip,
                    device: device.name.clone(),
                    mac,
                    server: self.server_with(mac, services),
                }));
            }
        }
        let unheard = vips.into_iter().filter(|vip| !self.is_own(*vip) && !answered.contains(vip));
        found.extend(
            unheard.filter_map(|vip| Some(Finding::Unanswered { vip, device: self.network_of(vip)? })),
        );
        Ok(found)
    }

    fn at_server(&mut self, service: &ServiceKey, spec: &ServerSpec) -> io::Result<Vec<Finding>> {
        let real = spec.key.addr;
        if self.is_own(real) {
            return Ok(Vec::new());
        }
        let server = At { service: plan::service(service), server: SocketAddr::new(real, spec.key.port) };
        let Ok(way) = self.kernel.netlink().way_to(real, None) else {
            return Ok(vec![Finding::NoWay { server }]);
        };
        match spec.method {
            Method::Masquerade => self.at_nat_server(service, &way, server),
            Method::Direct => self.at_direct_server(service, spec, &way, server),
            Method::Tunnel => self.at_tunnel_server(service, spec, &way, server),
            Method::Local => Ok(Vec::new()),
        }
    }

    fn at_nat_server(&self, service: &ServiceKey, way: &Way, server: At) -> io::Result<Vec<Finding>> {
        let mut found = Vec::new();
        let device = self.device_name(way.device);
        let (key, parameter) = match server.server {
            SocketAddr::V4(_) => (format!("net/ipv4/conf/{device}/forwarding"), "net.ipv4.ip_forward"),
            SocketAddr::V6(_) => {
                (format!("net/ipv6/conf/{device}/forwarding"), "net.ipv6.conf.all.forwarding")
            }
        };
        if self.kernel.sysctl(&key)?.as_deref() == Some("0") {
            found.push(Finding::NotForwarding { server: server.clone(), device, parameter });
        }
        let heard = match protocol(service) {
            _ if server.server.port() == 0 => return Ok(found),
            Some(Protocol::Tcp) => TcpStream::connect_timeout(&server.server, PATIENCE).map(drop),
            Some(Protocol::Udp) => ask_by_datagram(server.server),
            _ => return Ok(found),
        };
        match heard {
            Ok(()) => {}
            Err(why) if why.kind() == io::ErrorKind::ConnectionRefused => {
                found.push(Finding::Refused { address: server.server.ip(), server });
            }
            Err(_) => found.push(Finding::Silent { server, vip: None }),
        }
        Ok(found)
    }

    fn at_direct_server(
        &self,
        service: &ServiceKey,
        spec: &ServerSpec,
        way: &Way,
        server: At,
    ) -> io::Result<Vec<Finding>> {
        if let Some(gateway) = way.gateway {
            return Ok(vec![Finding::NotAdjacent { server, gateway }]);
        }
        let device = self.device_name(way.device);
        match self.neighbours.get(&(way.device, spec.key.addr)) {
            None => Ok(vec![Finding::Unresolved { server, device }]),
            Some(mac) => self.question(service, &Road::Direct { device, mac: *mac }, way, server),
        }
    }

    fn at_tunnel_server(
        &self,
        service: &ServiceKey,
        spec: &ServerSpec,
        way: &Way,
        server: At,
    ) -> io::Result<Vec<Finding>> {
        let (kind, between) = match (spec.tunnel.kind, spec.tunnel.checksum) {
            (TunnelType::IpIp, _) => (Encapsulation::Ipip, 0),
            (TunnelType::Gre, TunnelChecksum::None) => (Encapsulation::Gre { summed: false }, 4),
            (TunnelType::Gre, _) => (Encapsulation::Gre { summed: true }, 8),
            (TunnelType::Gue, _) => (Encapsulation::Gue { port: spec.tunnel.port }, 12),
        };
        let overhead = between + if spec.key.addr.is_ipv4() { 20 } else { 40 };
        let takes = self.device(way.device).map_or(USUAL_MTU, |device| device.mtu);
        let mtu = way.mtu.map_or(takes, |mtu| mtu.min(takes));
        let full = self.devices().map(|device| device.mtu).max().unwrap_or(USUAL_MTU).min(USUAL_MTU);
        let mut found = Vec::new();
        if mtu < full + overhead {
            found.push(Finding::Narrow { server: server.clone(), mtu, overhead, full });
        }
        found.extend(self.question(service, &Road::Tunnel { to: spec.key.addr, kind }, way, server)?);
        Ok(found)
    }

    /// Asks a server for the VIP on this road.
    fn question(&self, service: &ServiceKey, road: &Road, way: &Way, server: At) -> io::Result<Vec<Finding>> {
        // A mark has no VIP to ask for.
        let Some(vip) = vip(service) else { return Ok(Vec::new()) };
        let Some(from) = self.own_address(vip, way) else { return Ok(Vec::new()) };
        let question = match (protocol(service), port(service)) {
            (Some(Protocol::Tcp), port) if port != 0 => Question::Connection(port),
            (Some(Protocol::Udp), port) if port != 0 => Question::Datagram(port),
            _ => Question::Presence,
        };
        let heard = match (question, ask(road, from, vip, question)?) {
            // Who takes datagrams need not answer an empty one.
            (Question::Datagram(_), Heard::Silence) => ask(road, from, vip, Question::Presence)?,
            (_, heard) => heard,
        };
        Ok(match heard {
            Heard::Yes => Vec::new(),
            Heard::Refused => vec![Finding::Refused { server, address: vip }],
            Heard::Silence => vec![Finding::Silent { server, vip: Some(vip) }],
        })
    }

    /// An address of ours to which an answer from the VIP can come: that of the way, if it is of the VIP's family, else one of its device.
    fn own_address(&self, vip: IpAddr, way: &Way) -> Option<IpAddr> {
        let fits = |address: &IpAddr| address.is_ipv4() == vip.is_ipv4() && *address != vip;
        let is_local = |address: &IpAddr| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let device = self.device(way.device)?;
        let here = self.sight.addresses.iter().filter(|held| held.device == device.name);
        let others = here.map(|held| held.address.addr()).filter(|address| !is_local(address));
        way.source.into_iter().chain(others).find(|address| fits(address))
    }

    /// The director's devices.
    fn devices(&self) -> impl Iterator<Item = &Device> {
        self.sight.devices.iter().filter(|device| self.interfaces.contains(&device.name))
    }

    fn device(&self, index: u32) -> Option<&Device> {
        self.sight.devices.iter().find(|device| device.index == index)
    }

    fn device_name(&self, index: u32) -> String {
        self.device(index).map(|device| device.name.clone()).unwrap_or_default()
    }

    fn is_own(&self, address: IpAddr) -> bool {
        self.sight.addresses.iter().any(|held| held.address.addr() == address)
    }

    /// The device whose network an address is of.
    fn network_of(&self, address: IpAddr) -> Option<String> {
        let mut held = self.sight.addresses.iter().filter(|held| held.device != "lo");
        held.find(|held| held.address.contains(&address)).map(|held| held.device.clone())
    }

    fn server_with(&self, mac: Mac, services: &[ServiceView]) -> Option<IpAddr> {
        let servers: BTreeSet<_> =
            services.iter().flat_map(|service| &service.servers).map(|server| server.spec.key.addr).collect();
        let mut known = self.neighbours.iter().filter(|((_, address), _)| servers.contains(address));
        known.find(|(_, known)| **known == mac).map(|((_, address), _)| *address)
    }
}

/// Sends an empty datagram and waits for a refusal. Who does not refuse may well be silent, or not be there.
fn ask_by_datagram(server: SocketAddr) -> io::Result<()> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(server)?;
    socket.send(&[])?;
    match socket.recv(&mut [0; 1]) {
        Err(why) if why.kind() != io::ErrorKind::WouldBlock => Err(why),
        _ => Ok(()),
    }
}

fn vip(service: &ServiceKey) -> Option<IpAddr> {
    match service {
        ServiceKey::Address { addr, .. } => Some(*addr),
        ServiceKey::Mark { .. } => None,
    }
}

fn protocol(service: &ServiceKey) -> Option<Protocol> {
    match service {
        ServiceKey::Address { protocol, .. } => Some(*protocol),
        ServiceKey::Mark { .. } => None,
    }
}

fn port(service: &ServiceKey) -> u16 {
    match service {
        ServiceKey::Address { port, .. } => *port,
        ServiceKey::Mark { .. } => 0,
    }
}
