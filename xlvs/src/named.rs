//! Services and servers as a person names them on a command line of xlvs's own.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, bail};
use xlvs_model::spec::Protocol;
use xlvs_model::view::{ServerView, ServiceView};
use xlvs_model::{Family, ServiceKey};

use crate::plan;

/// The service that is meant by `ADDRESS:PORT`, with `tcp/`, `udp/` or `sctp/` before it where that is not enough, or by
/// `mark/N`, `mark6/N`.
pub fn service<'s>(text: &str, services: &'s [ServiceView]) -> anyhow::Result<&'s ServiceView> {
    let wanted = Wanted::read(text)
        .with_context(|| format!("{text} names no service; write tcp/192.0.2.10:80 or mark/1"))?;
    let mut found = services.iter().filter(|service| wanted.is(&service.spec.key));
    match (found.next(), found.next()) {
        (Some(service), None) => Ok(service),
        (Some(_), Some(_)) => bail!("{text} is more than one service; put tcp/, udp/ or sctp/ before it"),
        (None, _) => {
            bail!("there is no service {text}{}", list(services.iter().map(|s| plan::service(&s.spec.key))))
        }
    }
}

/// The name of a service that [`service`] reads.
pub fn of(key: &ServiceKey) -> String {
    match key {
        ServiceKey::Address { protocol, addr, port } => {
            format!("{}/{}", protocol.listed().to_lowercase(), SocketAddr::new(*addr, *port))
        }
        ServiceKey::Mark { mark, family: Family::Inet } => format!("mark/{mark}"),
        ServiceKey::Mark { mark, family: Family::Inet6 } => format!("mark6/{mark}"),
    }
}

/// The server of a service that is meant by `ADDRESS[:PORT]`.
pub fn server<'s>(text: &str, service: &'s ServiceView) -> anyhow::Result<&'s ServerView> {
    let (addr, port) =
        address(text).with_context(|| format!("{text} names no server; write 10.0.0.11:80"))?;
    let is_meant = |server: &&ServerView| {
        server.spec.key.addr == addr && port.is_none_or(|port| port == server.spec.key.port)
    };
    let mut found = service.servers.iter().filter(is_meant);
    let name = plan::service(&service.spec.key);
    match (found.next(), found.next()) {
        (Some(server), None) => Ok(server),
        (Some(_), Some(_)) => bail!("{name} has more than one server {text}; name its port too"),
        (None, _) => {
            let servers = list(service.servers.iter().map(|s| plan::server(&s.spec.key)));
            bail!("{name} has no server {text}{servers}")
        }
    }
}

fn list(names: impl Iterator<Item = String>) -> String {
    let names: Vec<_> = names.take(9).collect();
    if names.is_empty() { String::new() } else { format!("; there is {}", names.join(", ")) }
}

fn address(text: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Some((addr.ip(), Some(addr.port())));
    }
    text.trim_matches(['[', ']']).parse().ok().map(|addr| (addr, None))
}

/// What a name of a service says.
enum Wanted {
    Mark(u32, Family),
    Address(Option<Protocol>, IpAddr, Option<u16>),
}

impl Wanted {
    fn read(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once('/').map_or((None, text), |(kind, rest)| (Some(kind), rest));
        let protocol = match kind.map(str::to_ascii_lowercase).as_deref() {
            None => None,
            Some("tcp") => Some(Protocol::Tcp),
            Some("udp") => Some(Protocol::Udp),
            Some("sctp") => Some(Protocol::Sctp),
            Some("mark") => return Some(Self::Mark(rest.parse().ok()?, Family::Inet)),
            Some("mark6") => return Some(Self::Mark(rest.parse().ok()?, Family::Inet6)),
            Some(_) => return None,
        };
        let (addr, port) = address(rest)?;
        Some(Self::Address(protocol, addr, port))
    }

    fn is(&self, key: &ServiceKey) -> bool {
        match (self, key) {
            (Self::Mark(mark, family), ServiceKey::Mark { mark: own, family: owns }) => {
                (mark, family) == (own, owns)
            }
            (
                Self::Address(protocol, addr, port),
                ServiceKey::Address { protocol: own, addr: at, port: on },
            ) => {
                protocol.is_none_or(|protocol| protocol == *own)
                    && addr == at
                    && port.is_none_or(|port| port == *on)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xlvs_model::ServiceSpec;
    use xlvs_model::spec::Scheduler;

    fn services() -> Vec<ServiceView> {
        let address = |protocol, port| ServiceKey::Address { protocol, addr: [192, 0, 2, 1].into(), port };
        let keys = [
            address(Protocol::Tcp, 80),
            address(Protocol::Tcp, 53),
            address(Protocol::Udp, 53),
            ServiceKey::Mark { mark: 7, family: Family::Inet6 },
        ];
        keys.map(|key| ServiceView {
            spec: ServiceSpec::new(key, Scheduler::Rr),
            stats: Default::default(),
            rates: Default::default(),
            servers: Vec::new(),
        })
        .to_vec()
    }

    #[test]
    fn a_service_is_named_as_far_as_it_must_be() {
        let services = services();
        let is = |text: &str, at: usize| {
            assert_eq!(service(text, &services).expect("there is one").spec, services[at].spec);
        };
        is("192.0.2.1:80", 0);
        is("TCP/192.0.2.1:53", 1);
        is("udp/192.0.2.1", 2);
        is("mark6/7", 3);
        (0..services.len()).for_each(|at| is(&of(&services[at].spec.key), at));
        let said = |text: &str| service(text, &services).expect_err("there is none").to_string();
        assert_eq!(
            said("192.0.2.1:53"),
            "192.0.2.1:53 is more than one service; put tcp/, udp/ or sctp/ before it"
        );
        assert!(
            said("192.0.2.1:81").starts_with("there is no service 192.0.2.1:81; there is TCP 192.0.2.1:80, ")
        );
        assert!(said("web").starts_with("web names no service; write "));
    }
}
