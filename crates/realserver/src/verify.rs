//! What is wrong with a real server: what can be seen of the host, against what it is wanted to be.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;

use crate::frames::Mac;
use crate::listeners::{Listener, Port, listeners};
use crate::neighbours::who_has;
use crate::netlink::Way;
use crate::plan::{
    KERNEL_ENDS, Refusal, Sight, check, everybody, ignores_lo, interfaces, number, speaks_arp,
};
use crate::wish::{Mode, Wish};
use crate::{Kernel, tunnel};

/// Bytes of the smallest tunnel's outer headers: IPv4.
const SMALLEST_TUNNEL: u32 = 20;
/// Bytes of IPv4's and TCP's headers.
const HEADERS: u32 = 40;
/// What a client's network usually takes.
const USUAL_MTU: u32 = 1500;

/// Something that is not as it should be, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Finding {
    /// Nobody here takes packets for it.
    #[error("the VIP {vip} is not on this host: `xlvs rs up` puts it on lo")]
    VipMissing {
        /// The VIP.
        vip: IpAddr,
    },
    /// It answers for it.
    #[error(
        "the VIP {vip} is on {device}, where this host answers for it: `ip addr del {address} dev {device}`, then `xlvs rs up`"
    )]
    VipElsewhere {
        /// The VIP.
        vip: IpAddr,
        /// The device.
        device: String,
        /// As it is there.
        address: IpNet,
    },
    /// The whole network is taken for this host.
    #[error(
        "{address} on lo makes its whole network this host's own: `ip addr del {address} dev lo`, then `xlvs rs up`"
    )]
    VipSwallows {
        /// As it is there.
        address: IpNet,
    },
    /// `arp_ignore`.
    #[error(
        "this host answers ARP for VIPs on {device} (arp_ignore={value}): `sysctl -w net.ipv4.conf.{device}.arp_ignore=1`"
    )]
    AnswersArp {
        /// The device.
        device: String,
        /// The larger one of the device's and `all`'s.
        value: u32,
    },
    /// `arp_announce`.
    #[error(
        "this host's own ARP questions on {device} tell of VIPs (arp_announce={value}): `sysctl -w net.ipv4.conf.{device}.arp_announce=2`"
    )]
    TellsByArp {
        /// The device.
        device: String,
        /// The larger one of the device's and `all`'s.
        value: u32,
    },
    /// A conflict between others.
    #[error("{} hosts answer for the VIP {vip} on {device} ({}): only the director may; run `xlvs rs up` on the others", macs.len(), listed(macs))]
    ManyAnswer {
        /// The VIP.
        vip: IpAddr,
        /// Where they were asked.
        device: String,
        /// Who they are.
        macs: BTreeSet<Mac>,
    },
    /// No service.
    #[error("nothing listens on {port} at {address}: start the service, or have it listen on all addresses")]
    NobodyListens {
        /// The VIP, or NAT's own address.
        address: IpAddr,
        /// The port.
        port: Port,
    },
    /// `rp_filter`.
    #[error(
        "rp_filter is strict (1) on {device}, so clients' packets are dropped whose way back is another: `sysctl -w net.ipv4.conf.{device}.rp_filter=2`"
    )]
    StrictFilter {
        /// The device.
        device: String,
    },
    /// Tunnels' packets are not unwrapped.
    #[error("nothing unwraps tunnels' packets on {device}: `xlvs rs up --mode tun`")]
    NoTunnelEnd {
        /// The device.
        device: String,
    },
    /// NAT's answers.
    #[error("answers to {clients} {}, not through the director {director}: `xlvs rs up --mode nat --gateway {director}`", gone(*way))]
    PastDirector {
        /// The clients.
        clients: IpNet,
        /// The way's gateway; `None`: straight to a neighbour, or nowhere.
        way: Option<Option<IpAddr>>,
        /// Where they should go.
        director: IpAddr,
    },
    /// DR's and TUN's answers.
    #[error(
        "answers from the VIP {vip} go to {gateway}, which is the director; its stack drops them as they come from an address of its own: give this server another gateway"
    )]
    ThroughDirector {
        /// The VIP.
        vip: IpAddr,
        /// The gateway.
        gateway: IpAddr,
    },
    /// DR's and TUN's answers.
    #[error("there is no way for answers from the VIP {vip}: give this server a default route")]
    NoWayBack {
        /// The VIP.
        vip: IpAddr,
    },
    /// The tunnel costs bytes.
    #[error("{device} takes {mtu} bytes, so a client's full packet does not fit into the tunnel: raise the MTU of the way to {}, or `ip route change` the default route with `advmss {}`", USUAL_MTU + SMALLEST_TUNNEL, mtu - SMALLEST_TUNNEL - HEADERS)]
    Narrow {
        /// The device.
        device: String,
        /// Its MTU.
        mtu: u32,
    },
}

impl Finding {
    /// Does something not work? Else it works, with a cost.
    pub fn is_fault(&self) -> bool {
        !matches!(self, Self::Narrow { .. })
    }
}

fn listed(macs: &BTreeSet<Mac>) -> String {
    macs.iter().map(Mac::to_string).collect::<Vec<_>>().join(", ")
}

fn gone(way: Option<Option<IpAddr>>) -> String {
    match way {
        None => "go nowhere".to_owned(),
        Some(None) => "go straight to them".to_owned(),
        Some(Some(gateway)) => format!("go by {gateway}"),
    }
}

/// What was found out by asking, besides [`Sight`].
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Who answers for a VIP, by device.
    pub answers: BTreeMap<(String, IpAddr), BTreeSet<Mac>>,
    /// Who listens.
    pub listeners: Vec<Listener>,
    /// Devices with a tunnel end of ours.
    pub tunnel_ends: BTreeSet<String>,
    /// How these clients are reached; `None`: not at all.
    pub to_clients: Vec<(IpNet, Option<Way>)>,
    /// How clients are reached from this VIP.
    pub from_vips: Vec<(IpAddr, Option<Way>)>,
    /// Gateways that have a director's MAC: who answers for a VIP.
    pub directors: BTreeSet<IpAddr>,
}

/// Looks and asks.
pub fn ask(kernel: &mut Kernel, wish: &Wish, sight: &Sight) -> Result<Asked, io::Error> {
    let mut asked = Asked { listeners: listeners()?, ..Asked::default() };
    let here = sight.devices.iter().filter(|device| tunnel::is_ours(device));
    asked.tunnel_ends = here.map(|device| device.name.clone()).collect();
    if wish.modes.contains(&Mode::Nat) {
        for clients in clients(wish) {
            let way = kernel.netlink().way_to(sample(clients), None).ok();
            asked.to_clients.push((clients, way));
        }
    }
    if !wish.has_vips() {
        return Ok(asked);
    }
    let held: Vec<_> = wish.vips.iter().filter(|vip| has(sight, **vip)).copied().collect();
    for vip in &held {
        let way = kernel.netlink().way_to(sample(everybody(*vip)), Some(*vip)).ok();
        asked.from_vips.push((*vip, way));
    }
    ask_neighbours(wish, sight, &mut asked)?;
    Ok(asked)
}

/// Who answers for VIPs, and whether one of them is where answers go.
fn ask_neighbours(wish: &Wish, sight: &Sight, asked: &mut Asked) -> io::Result<()> {
    let ways = asked.from_vips.iter().filter_map(|(_, way)| way.as_ref()?.gateway);
    let gateways: BTreeSet<_> = ways.collect();
    let targets: Vec<_> = wish.vips.iter().chain(&gateways).copied().collect();
    // An interface that is not there is a finding of its own, or was refused.
    for device in interfaces(wish, sight).unwrap_or_default() {
        let answers = who_has(&device, &targets)?;
        let directors: BTreeSet<_> = wish.vips.iter().filter_map(|vip| answers.get(vip)).flatten().collect();
        let is_director = |gateway: &&IpAddr| {
            answers.get(*gateway).is_some_and(|macs| macs.iter().any(|mac| directors.contains(mac)))
        };
        asked.directors.extend(gateways.iter().filter(is_director).copied());
        asked.answers.extend(answers.into_iter().map(|(vip, macs)| ((device.clone(), vip), macs)));
    }
    Ok(())
}

/// All findings, in the order of a packet's way: to the host, into it, to the service, and back.
pub fn findings(
    wish: &Wish,
    ports: &BTreeSet<Port>,
    sight: &Sight,
    asked: &Asked,
) -> Result<Vec<Finding>, Refusal> {
    check(wish)?;
    let mut found = Vec::new();
    if wish.has_vips() {
        let interfaces = interfaces(wish, sight)?;
        arp(wish, &interfaces, sight, asked, &mut found);
        filters(wish, &interfaces, sight, asked, &mut found);
        tunnels(wish, &interfaces, sight, asked, &mut found);
        wish.vips.iter().for_each(|vip| found.extend(place(*vip, sight)));
        services(wish.vips.iter().copied(), ports, asked, &mut found);
        past_director(asked, &mut found);
    }
    if wish.modes.contains(&Mode::Nat) {
        if !wish.has_vips() {
            own_services(ports, sight, asked, &mut found);
        }
        through_director(wish, asked, &mut found);
    }
    Ok(found)
}

fn arp(wish: &Wish, interfaces: &[String], sight: &Sight, asked: &Asked, found: &mut Vec<Finding>) {
    if wish.vips.iter().any(IpAddr::is_ipv4) {
        for device in interfaces {
            let counting = |name| number(sight, device, name).max(number(sight, "all", name));
            let (ignore, announce) = (counting("arp_ignore"), counting("arp_announce"));
            if !ignores_lo(ignore) {
                found.push(Finding::AnswersArp { device: device.clone(), value: ignore });
            }
            if announce != 2 {
                found.push(Finding::TellsByArp { device: device.clone(), value: announce });
            }
        }
    }
    for ((device, vip), macs) in &asked.answers {
        if macs.len() > 1 && wish.vips.contains(vip) {
            found.push(Finding::ManyAnswer { vip: *vip, device: device.clone(), macs: macs.clone() });
        }
    }
}

/// A packet out of a tunnel may have come by another way than it goes back; one of DR only when the way back leads elsewhere.
fn filters(wish: &Wish, interfaces: &[String], sight: &Sight, asked: &Asked, found: &mut Vec<Finding>) {
    let tunnelled = wish.modes.contains(&Mode::Tun);
    let kernels = kernel_ends(sight);
    for device in sight
        .devices
        .iter()
        .filter(|one| interfaces.contains(&one.name) || kernels.contains(&one.name.as_str()))
    {
        let counting = number(sight, &device.name, "rp_filter").max(number(sight, "all", "rp_filter"));
        let mut ways = asked.from_vips.iter().filter_map(|(vip, way)| way.as_ref().filter(|_| vip.is_ipv4()));
        let unwrapped = kernels.contains(&device.name.as_str()) || asked.tunnel_ends.contains(&device.name);
        if counting == 1 && (tunnelled && unwrapped || ways.any(|way| way.device != device.index)) {
            found.push(Finding::StrictFilter { device: device.name.clone() });
        }
    }
}

/// The kernel's tunnel ends that are up.
fn kernel_ends(sight: &Sight) -> Vec<&'static str> {
    let is_up = |name: &&str| sight.devices.iter().any(|device| device.name == *name && device.is_up);
    KERNEL_ENDS.into_iter().map(|(name, _)| name).filter(is_up).collect()
}

fn tunnels(wish: &Wish, interfaces: &[String], sight: &Sight, asked: &Asked, found: &mut Vec<Finding>) {
    if !wish.modes.contains(&Mode::Tun) {
        return;
    }
    let by_kernel = !kernel_ends(sight).is_empty();
    for device in interfaces.iter().filter(|device| !by_kernel && !asked.tunnel_ends.contains(*device)) {
        found.push(Finding::NoTunnelEnd { device: device.clone() });
    }
    let asks_for_less = |mtu: u32| {
        let ways = asked.from_vips.iter().filter_map(|(_, way)| way.as_ref());
        let mut segments = ways.map(|way| way.advertised_mss.unwrap_or(u32::MAX));
        segments.all(|mss| mss <= mtu.saturating_sub(SMALLEST_TUNNEL + HEADERS))
    };
    for device in sight.devices.iter().filter(|device| interfaces.contains(&device.name)) {
        if device.mtu < USUAL_MTU + SMALLEST_TUNNEL && !asks_for_less(device.mtu) {
            found.push(Finding::Narrow { device: device.name.clone(), mtu: device.mtu });
        }
    }
}

fn has(sight: &Sight, address: IpAddr) -> bool {
    sight.addresses.iter().any(|held| held.address.addr() == address)
}

fn place(vip: IpAddr, sight: &Sight) -> Vec<Finding> {
    let places: Vec<_> = sight.addresses.iter().filter(|held| held.address.addr() == vip).collect();
    if places.is_empty() {
        return vec![Finding::VipMissing { vip }];
    }
    let wrong = places.into_iter().filter_map(|held| {
        let (device, address) = (held.device.clone(), held.address);
        if speaks_arp(&device, sight) {
            return Some(Finding::VipElsewhere { vip, device, address });
        }
        (device == "lo" && address.prefix_len() != address.max_prefix_len())
            .then_some(Finding::VipSwallows { address })
    });
    wrong.collect()
}

fn services(
    addresses: impl Iterator<Item = IpAddr>,
    ports: &BTreeSet<Port>,
    asked: &Asked,
    found: &mut Vec<Finding>,
) {
    for address in addresses {
        let unheard =
            ports.iter().filter(|port| !asked.listeners.iter().any(|one| one.hears(address, **port)));
        found.extend(unheard.map(|port| Finding::NobodyListens { address, port: *port }));
    }
}

/// NAT's packets are for one of the host's own addresses, we do not know for which: one is enough.
fn own_services(ports: &BTreeSet<Port>, sight: &Sight, asked: &Asked, found: &mut Vec<Finding>) {
    let own: Vec<_> = sight.addresses.iter().filter(|held| held.device != "lo").collect();
    for port in ports {
        let hears = |address| asked.listeners.iter().any(|one| one.hears(address, *port));
        if let Some(first) = own.first().filter(|_| !own.iter().any(|held| hears(held.address.addr()))) {
            found.push(Finding::NobodyListens { address: first.address.addr(), port: *port });
        }
    }
}

fn past_director(asked: &Asked, found: &mut Vec<Finding>) {
    for (vip, way) in &asked.from_vips {
        match way.as_ref().map(|way| way.gateway) {
            None => found.push(Finding::NoWayBack { vip: *vip }),
            Some(Some(gateway)) if asked.directors.contains(&gateway) => {
                found.push(Finding::ThroughDirector { vip: *vip, gateway });
            }
            Some(_) => {}
        }
    }
}

fn through_director(wish: &Wish, asked: &Asked, found: &mut Vec<Finding>) {
    for (clients, way) in &asked.to_clients {
        let of_family = |gateway: &&IpAddr| gateway.is_ipv4() == clients.addr().is_ipv4();
        let Some(director) = wish.gateways.iter().find(of_family).copied() else { continue };
        let way = way.as_ref().map(|way| way.gateway);
        if way != Some(Some(director)) {
            found.push(Finding::PastDirector { clients: *clients, way, director });
        }
    }
}

/// Whom NAT's answers are for: those that were named, else everybody of the gateways' families.
fn clients(wish: &Wish) -> Vec<IpNet> {
    if wish.clients.is_empty() {
        return wish.gateways.iter().map(|gateway| everybody(*gateway)).collect();
    }
    wish.clients.clone()
}

/// One of them. For everybody an address that is nobody's (RFC 5737, RFC 3849).
fn sample(clients: IpNet) -> IpAddr {
    match (clients, clients.prefix_len()) {
        (IpNet::V4(_), 0) => IpAddr::from([203, 0, 113, 1]),
        (IpNet::V6(_), 0) => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]),
        _ => clients.hosts().next().unwrap_or_else(|| clients.addr()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Device, Held, conf};

    #[test]
    fn the_kernels_tunnel_end_is_one_too() {
        let device = |name: &str, index, is_ethernet| Device {
            name: name.into(),
            index,
            is_ethernet,
            is_up: true,
            mtu: 1600,
            program: None,
        };
        let held =
            |device: &str, address: &str| Held { device: device.into(), address: address.parse().unwrap() };
        let mut sight = Sight {
            devices: vec![device("e0", 2, true), device("tunl0", 3, false)],
            addresses: vec![held("e0", "10.1.0.11/24"), held("tunl0", "10.0.0.100/32")],
            sysctls: [("arp_ignore", "1"), ("arp_announce", "2")]
                .map(|(name, value)| (conf("all", name), value.to_owned()))
                .into(),
        };
        let vip = "10.0.0.100".parse().unwrap();
        let wish = Wish::new([Mode::Tun], [vip]);
        let asked =
            Asked { from_vips: vec![(vip, Some(Way { device: 2, ..Way::default() }))], ..Asked::default() };
        let found = |sight: &Sight| findings(&wish, &BTreeSet::new(), sight, &asked).unwrap();
        assert_eq!(found(&sight), []);

        sight.sysctls.insert(conf("all", "rp_filter"), "1".into());
        assert_eq!(found(&sight), [Finding::StrictFilter { device: "tunl0".into() }]);
        sight.sysctls.insert(conf("tunl0", "rp_filter"), "2".into());
        assert_eq!(found(&sight), []);

        sight.devices[1].is_up = false;
        assert_eq!(found(&sight), [Finding::NoTunnelEnd { device: "e0".into() }]);
    }
}
