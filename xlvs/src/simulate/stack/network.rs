//! The director's addresses, routes, rules and neighbours, as `ip` commands make them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use xlvs_lab::frames::site;

use super::super::director::{CLIENT_SIDE, Hop, SERVER_SIDE, Way, Ways};

/// The table that is asked when no rule names another.
const MAIN: u32 = 254;

/// An address and how many of its bits count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Prefix {
    addr: IpAddr,
    bits: u8,
}

/// A device of the director's.
#[derive(Clone, Copy, Debug)]
struct Link {
    mac: [u8; 6],
    mtu: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Nature {
    /// Whoever it matches is here.
    Local,
    /// Whoever it matches is behind this router.
    Via(IpAddr),
}

#[derive(Clone, Copy, Debug)]
struct Route {
    table: u32,
    to: Prefix,
    nature: Nature,
}

#[derive(Clone, Copy, Debug)]
struct Rule {
    is_v6: bool,
    mark: u32,
    table: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Network {
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    links: BTreeMap<u32, Link>,
    /// In the order in which they came: the first of an interface is the one that it sends from.
    addresses: Vec<(u32, Prefix)>,
    routes: Vec<Route>,
    rules: Vec<Rule>,
    neighbours: BTreeMap<IpAddr, [u8; 6]>,
}

impl Network {
    /// The networks of the recorded frames.
    pub fn of_the_recordings() -> Result<Self> {
        let link = |mac: &str| Ok::<_, anyhow::Error>(Link { mac: read_mac(mac)?, mtu: site::MTU });
        let links = BTreeMap::from([(CLIENT_SIDE, link(site::L0)?), (SERVER_SIDE, link(site::L1)?)]);
        let state = State {
            links,
            addresses: Vec::new(),
            routes: Vec::new(),
            rules: Vec::new(),
            neighbours: BTreeMap::new(),
        };
        let network = Self { state: RefCell::new(state) };
        for line in site::ADDRESSES.iter().chain(&site::NEIGHBOURS).chain(&site::ROUTES) {
            network.ip(&line.split_whitespace().collect::<Vec<_>>()).with_context(|| (*line).to_owned())?;
        }
        Ok(network)
    }

    /// Does what `ip` with these words does, as far as the recordings use it.
    pub fn ip(&self, words: &[&str]) -> Result<()> {
        self.state.borrow_mut().ip(words)
    }

    /// The way of a packet with this mark.
    pub fn way(&self, destination: IpAddr, mark: u32) -> Option<Way> {
        self.state.borrow().way(destination, mark)
    }

    /// Is this an address of the director's own?
    pub fn owns(&self, addr: IpAddr) -> bool {
        self.state.borrow().addresses.iter().any(|(_, own)| own.addr == addr)
    }

    /// The MAC of an interface of the director's.
    pub fn mac(&self, ifindex: u32) -> Option<[u8; 6]> {
        self.state.borrow().links.get(&ifindex).map(|link| link.mac)
    }
}

impl Ways for Network {
    fn towards(&self, destination: IpAddr) -> Option<Way> {
        self.way(destination, 0)
    }

    fn leads_elsewhere(&self, destination: IpAddr, mark: u32) -> bool {
        matches!(self.way(destination, mark), Some(Way::Via(_)))
    }
}

impl State {
    fn ip(&mut self, words: &[&str]) -> Result<()> {
        let (is_v6, words) = match words {
            ["-6", rest @ ..] => (true, rest),
            ["-4", rest @ ..] => (false, rest),
            _ => (false, words),
        };
        match *words {
            ["addr" | "address", "add", prefix, "dev", device, ..] => {
                self.addresses.push((ifindex(device)?, read_prefix(prefix)?));
            }
            ["neigh", "add" | "replace", addr, "lladdr", mac, "dev", _, ..] => {
                self.neighbours.insert(read_addr(addr)?, read_mac(mac)?);
            }
            ["link", "set", "dev", device, "mtu", mtu] | ["link", "set", device, "mtu", mtu] => {
                let link = self.links.get_mut(&ifindex(device)?).context("no such link")?;
                link.mtu = mtu.parse().context("an MTU is a number")?;
            }
            ["route", "add" | "replace", "local", to, "dev", "lo", "table", table] => {
                self.add_route(table.parse().context("a table is a number")?, to, Nature::Local)?;
            }
            ["route", "add" | "replace", to, "via", router, ..] => {
                self.add_route(MAIN, to, Nature::Via(read_addr(router)?))?;
            }
            ["rule", "add", "fwmark", mark, "lookup" | "table", table] => {
                let mark = mark.parse().context("a mark is a number")?;
                self.rules.push(Rule { is_v6, mark, table: table.parse().context("a table is a number")? });
            }
            _ => bail!("`ip {}` cannot be simulated", words.join(" ")),
        }
        Ok(())
    }

    fn add_route(&mut self, table: u32, to: &str, nature: Nature) -> Result<()> {
        let to = read_prefix(to)?;
        self.routes.retain(|route| (route.table, route.to) != (table, to));
        self.routes.push(Route { table, to, nature });
        Ok(())
    }

    /// The kernel's order: its own addresses, then the tables that rules name, then the main one.
    fn way(&self, destination: IpAddr, mark: u32) -> Option<Way> {
        if destination.is_loopback() || self.addresses.iter().any(|(_, own)| own.addr == destination) {
            return Some(Way::Local);
        }
        let rules = self.rules.iter().filter(|rule| rule.is_v6 == destination.is_ipv6() && rule.mark == mark);
        let by_rule = rules.filter_map(|rule| self.look_up(rule.table, destination)).next();
        match by_rule.or_else(|| self.look_up(MAIN, destination))? {
            Nature::Local => Some(Way::Local),
            Nature::Via(neighbour) => self.hop(neighbour).map(Way::Via),
        }
    }

    /// The longest prefix wins; who is on a network of ours is his own next hop.
    fn look_up(&self, table: u32, destination: IpAddr) -> Option<Nature> {
        let stated = self.routes.iter().filter(|route| route.table == table);
        let stated = stated.map(|route| (route.to, route.nature));
        let connected = self.addresses.iter().filter(|_| table == MAIN);
        let connected = connected.map(|(_, own)| (*own, Nature::Via(destination)));
        let fitting = stated.chain(connected).filter(|(prefix, _)| prefix.holds(destination));
        fitting.max_by_key(|(prefix, _)| prefix.bits).map(|(_, nature)| nature)
    }

    fn hop(&self, neighbour: IpAddr) -> Option<Hop> {
        let to = *self.neighbours.get(&neighbour)?;
        let (ifindex, own) = self.addresses.iter().find(|(_, own)| own.holds(neighbour))?;
        let link = self.links.get(ifindex)?;
        Some(Hop { ifindex: *ifindex, from: link.mac, to, mtu: link.mtu, source: own.addr })
    }
}

impl Prefix {
    fn holds(self, addr: IpAddr) -> bool {
        let differing = match (self.addr, addr) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            _ => return false,
        };
        differing >= u32::from(self.bits)
    }
}

fn ifindex(device: &str) -> Result<u32> {
    match device {
        "l0" => Ok(CLIENT_SIDE),
        "l1" => Ok(SERVER_SIDE),
        _ => bail!("the director has l0 and l1, no {device}"),
    }
}

fn read_addr(text: &str) -> Result<IpAddr> {
    text.parse().with_context(|| format!("{text} is no address"))
}

fn read_prefix(text: &str) -> Result<Prefix> {
    let (addr, bits) = match text.split_once('/') {
        Some((addr, bits)) => (read_addr(addr)?, bits.parse().context("a prefix has a length")?),
        None => (read_addr(text)?, u8::MAX),
    };
    let whole = if addr.is_ipv4() { 32 } else { 128 };
    Ok(Prefix { addr, bits: bits.min(whole) })
}

fn read_mac(text: &str) -> Result<[u8; 6]> {
    let bytes: Vec<u8> = text.split(':').filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes.try_into().ok().with_context(|| format!("{text} is no MAC"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        Network::of_the_recordings().unwrap()
    }

    fn way(network: &Network, to: &str, mark: u32) -> Option<Way> {
        network.way(to.parse().unwrap(), mark)
    }

    fn next_mac(network: &Network, to: &str) -> Option<[u8; 2]> {
        match way(network, to, 0)? {
            Way::Via(hop) => Some([hop.to[4], hop.to[5]]),
            Way::Local => None,
        }
    }

    #[test]
    fn everybody_is_reached_as_in_the_recordings() {
        let network = network();
        assert_eq!(way(&network, "10.0.0.100", 0), Some(Way::Local));
        assert_eq!(way(&network, "127.0.0.1", 0), Some(Way::Local));
        assert_eq!(way(&network, "fd01::fe", 0), Some(Way::Local));
        for (to, mac) in [
            ("10.0.0.1", [0, 1]),
            ("10.1.0.12", [2, 2]),
            ("192.0.2.9", [1, 1]),
            ("198.51.100.7", [0, 2]),
            ("fd01::13", [2, 3]),
            ("2001:db8:1::7", [0, 2]),
        ] {
            assert_eq!(next_mac(&network, to), Some(mac), "{to}");
        }
        assert_eq!(way(&network, "203.0.113.1", 0), None);
        assert_eq!(way(&network, "10.0.0.77", 0), None, "no such neighbour");
    }

    #[test]
    fn a_mark_may_make_anything_local() {
        let network = network();
        network.ip(&["-6", "rule", "add", "fwmark", "7", "lookup", "100"]).unwrap();
        network.ip(&["-6", "route", "replace", "local", "::/0", "dev", "lo", "table", "100"]).unwrap();
        assert_eq!(way(&network, "2001:db8:2::9", 7), Some(Way::Local));
        assert_eq!(next_mac(&network, "2001:db8:2::9"), Some([1, 1]));
        assert!(matches!(way(&network, "10.1.0.11", 7), Some(Way::Via(_))));
    }

    #[test]
    fn what_cannot_be_simulated_is_said() {
        let why = network().ip(&["tunnel", "add", "x"]).unwrap_err().to_string();
        assert!(why.contains("ip tunnel add x"), "{why}");
    }
}
