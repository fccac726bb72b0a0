//! Names of hosts and of services.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use xlvs_model::spec::Protocol;

/// Whoever knows names.
pub trait Resolver {
    /// The first IPv4 address of a host.
    fn host_address(&self, name: &str) -> Option<Ipv4Addr>;
    /// The host of an address.
    fn host_name(&self, addr: IpAddr) -> Option<String>;
    /// The port of a service, as in `/etc/services`.
    fn service_port(&self, name: &str, protocol: Protocol) -> Option<u16>;
    /// The service of a port.
    fn service_name(&self, port: u16, protocol: Protocol) -> Option<String>;
}

/// The system's names: its resolver for hosts, `/etc/services` for services.
#[derive(Debug, Default)]
pub struct System {
    services: std::cell::OnceCell<Services>,
}

impl System {
    fn services(&self) -> &Services {
        self.services
            .get_or_init(|| Services::read(&std::fs::read_to_string("/etc/services").unwrap_or_default()))
    }
}

impl Resolver for System {
    fn host_address(&self, name: &str) -> Option<Ipv4Addr> {
        let found = dns_lookup::lookup_host(name).ok()?;
        found.into_iter().find_map(|addr| match addr {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        })
    }

    fn host_name(&self, addr: IpAddr) -> Option<String> {
        // Without a name the look-up answers the address itself.
        dns_lookup::lookup_addr(&addr).ok().filter(|name| name.parse::<IpAddr>().is_err())
    }

    fn service_port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        self.services().port(name, protocol)
    }

    fn service_name(&self, port: u16, protocol: Protocol) -> Option<String> {
        self.services().name(port, protocol)
    }
}

/// A services file, as `services(5)` describes it.
#[derive(Debug, Default)]
pub struct Services {
    ports: HashMap<(String, &'static str), u16>,
    names: HashMap<(u16, &'static str), String>,
}

impl Services {
    /// Reads a services file; lines that make no sense are passed over.
    pub fn read(text: &str) -> Self {
        let mut services = Self::default();
        for line in text.lines() {
            services.read_line(line);
        }
        services
    }

    /// The port of a service.
    pub fn port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        self.ports.get(&(name.to_owned(), protocol_name(protocol))).copied()
    }

    /// The service of a port.
    pub fn name(&self, port: u16, protocol: Protocol) -> Option<String> {
        self.names.get(&(port, protocol_name(protocol))).cloned()
    }

    /// `name port/protocol alias ... # comment`; the first line that names something counts.
    fn read_line(&mut self, line: &str) -> Option<()> {
        let mut words = line.split('#').next()?.split_whitespace();
        let name = words.next()?;
        let (port, protocol) = words.next()?.split_once('/')?;
        let port: u16 = port.parse().ok()?;
        let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
            .map(protocol_name)
            .into_iter()
            .find(|known| *known == protocol)?;
        self.names.entry((port, protocol)).or_insert_with(|| name.to_owned());
        for alias in std::iter::once(name).chain(words) {
            self.ports.entry((alias.to_owned(), protocol)).or_insert(port);
        }
        Some(())
    }
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

/// Writes addresses with ports, in numbers or in names; every host is asked for once.
pub(crate) struct Printer<'a> {
    names: Option<&'a dyn Resolver>,
    hosts: HashMap<IpAddr, Option<String>>,
}

impl<'a> Printer<'a> {
    /// In numbers only.
    pub(crate) fn numeric() -> Self {
        Self { names: None, hosts: HashMap::new() }
    }

    /// In names where there are any.
    pub(crate) fn named(names: &'a dyn Resolver) -> Self {
        Self { names: Some(names), hosts: HashMap::new() }
    }

    /// `host:port`, with IPv6 in brackets.
    pub(crate) fn address(&mut self, addr: IpAddr, port: u16, protocol: Option<Protocol>) -> String {
        let host = self.host(addr);
        let port = self.port(port, protocol);
        if addr.is_ipv6() { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    fn host(&mut self, addr: IpAddr) -> String {
        let Some(names) = self.names else { return ipv4_last(addr) };
        let name = self.hosts.entry(addr).or_insert_with(|| names.host_name(addr));
        name.clone().unwrap_or_else(|| ipv4_last(addr))
    }

    fn port(&self, port: u16, protocol: Option<Protocol>) -> String {
        let named = match (self.names, protocol) {
            (Some(names), Some(protocol)) if port != 0 => names.service_name(port, protocol),
            _ => None,
        };
        named.unwrap_or_else(|| port.to_string())
    }
}

/// An address in numbers. C writes the IPv4-compatible `::a.b.c.d` with dots, Rust does not.
fn ipv4_last(addr: IpAddr) -> String {
    match addr {
        IpAddr::V6(v6) if is_ipv4_compatible(v6.segments()) => {
            let [.., a, b, c, d] = v6.octets();
            format!("::{}", Ipv4Addr::new(a, b, c, d))
        }
        addr => addr.to_string(),
    }
}

fn is_ipv4_compatible(segments: [u16; 8]) -> bool {
    segments[..6] == [0; 6] && segments[6] != 0
}
