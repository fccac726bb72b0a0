//! The resolver's answers to operators.

use std::net::IpAddr;

use super::{Mac, Nud, Reason, Resolver, State, routes::Route};

impl Resolver {
    /// Says in a sentence how `addr` is reached, or why it is not.
    ///
    /// `10.1.0.11 via 10.1.0.1 dev l1 lladdr 02:00:00:00:00:01 src 10.1.0.2 mtu 1500 (reachable, managed)`
    pub fn describe(&self, addr: IpAddr) -> String {
        if !self.targets.wants(addr) {
            return format!("{addr} is not the address of any server");
        }
        match self.routes.get(addr) {
            None => format!("{addr}: the kernel has not been asked for a route yet"),
            Some(Err(reason)) => format!("{addr}: {reason}"),
            Some(Ok(route)) => self.describe_route(addr, &route),
        }
    }

    fn describe_route(&self, addr: IpAddr, route: &Route) -> String {
        let name = self.links.get(&route.ifindex).map_or("gone", |link| link.name.as_str());
        let path = route.words(addr, name);
        match self.send_by(addr, route) {
            Ok(State::Resolved { dest_mac, mtu, source, .. }) => format!(
                "{path} lladdr {} src {source} mtu {mtu} ({})",
                colons(dest_mac),
                self.describe_neighbour(addr, route)
            ),
            Ok(State::Unresolved { reason }) | Err(reason) => {
                format!("{path}: {reason}{}", self.describe_refusal(addr, route, reason))
            }
        }
    }

    fn describe_neighbour(&self, addr: IpAddr, route: &Route) -> String {
        let (entry, refused) = self.neighbours.look_at(&route.neighbour_towards(addr));
        let Some(entry) = entry else { return "last known, being looked for again".into() };
        let care = match refused {
            _ if entry.nud.is_fixed() => "",
            _ if entry.managed => ", managed",
            Some(_) => ", probed",
            None => "",
        };
        format!("{}{care}", word_for(entry.nud))
    }

    fn describe_refusal(&self, addr: IpAddr, route: &Route, reason: Reason) -> String {
        if !matches!(reason, Reason::NeighbourPending | Reason::NeighbourFailed) {
            return String::new();
        }
        let (_, refused) = self.neighbours.look_at(&route.neighbour_towards(addr));
        let Some(errno) = refused else { return String::new() };
        let error = std::io::Error::from_raw_os_error(errno);
        format!(" (the kernel refused to look after it: {error}; it is probed instead)")
    }
}

impl Route {
    /// The way to `addr`, by the interface of this name: `10.1.0.11 via 10.1.0.1 dev l1`.
    pub fn words(&self, addr: IpAddr, device: &str) -> String {
        let gateway = self.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
        format!("{addr}{gateway} dev {device}")
    }
}

/// An Ethernet address as people write it.
pub fn colons(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn word_for(nud: Nud) -> &'static str {
    match nud {
        Nud::None | Nud::Incomplete => "last known, being looked for again",
        Nud::Reachable => "reachable",
        Nud::Stale => "stale",
        Nud::Delay => "about to be probed",
        Nud::Probe => "being probed",
        Nud::Failed => "failed",
        Nud::NoArp => "no ARP needed",
        Nud::Permanent => "permanent",
    }
}
