//! Which settings a wish takes of a host, in the order in which they must be made; or why it cannot be had.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;
use xlvs_core::tunnel_end::{MAX_DIRECTORS, MAX_VIPS};

use crate::setting::{Setting, TunnelSetup};
use crate::wish::{Mode, TunnelEnd, Wish};

/// A device of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// Does it have Ethernet headers and speak ARP? `lo`, tunnels and most dummies do not.
    pub is_ethernet: bool,
    /// Is it up?
    pub is_up: bool,
    /// The largest packet that it takes, in bytes.
    pub mtu: u32,
    /// The number of the XDP program on it, if there is one.
    pub program: Option<u32>,
}

/// An address that the host has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// On which device.
    pub device: String,
    /// With the length of its network's prefix.
    pub address: IpNet,
}

/// What can be seen of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// Its devices.
    pub devices: Vec<Device>,
    /// Its addresses.
    pub addresses: Vec<Held>,
    /// Kernel parameters, by their path below `/proc/sys`.
    pub sysctls: BTreeMap<String, String>,
}

/// Why a wish cannot be had. Each says what to do.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing to do.
    #[error("say how packets reach this server: --mode nat, dr or tun")]
    NoMode,
    /// DR and TUN need VIPs.
    #[error("--mode {0} needs the VIPs that this server answers for: --vip ADDRESS")]
    NoVip(Mode),
    /// Somebody would answer ARP for it.
    #[error(
        "{vip} is already on {device}, where it answers ARP; take it away there (`ip addr del {address} dev {device}`), \
         then run this again"
    )]
    VipElsewhere {
        /// The VIP.
        vip: IpAddr,
        /// The device that has it.
        device: String,
        /// As it is there.
        address: IpNet,
    },
    /// The whole network would be local.
    #[error(
        "{address} on lo makes its whole network this host's own; take it away (`ip addr del {address} dev lo`), \
         then run this again"
    )]
    VipSwallows {
        /// As it is there.
        address: IpNet,
    },
    /// Not an address that a service can have.
    #[error("{0} cannot be a VIP: it is no unicast address")]
    NotUnicast(IpAddr),
    /// No such device.
    #[error("there is no interface {0}; `ip link` lists them")]
    NoInterface(String),
    /// Nowhere to receive.
    #[error(
        "no Ethernet interface is up and has an address; name the one where packets come in: --interface NAME"
    )]
    NowhereToReceive,
    /// NAT without the director.
    #[error(
        "--mode nat needs the director's address on this network, which becomes the gateway: --gateway DIP"
    )]
    NoGateway,
    /// Two gateways of one family.
    #[error("two gateways of one family were named, {0} and {1}: NAT's answers can take only one")]
    TwoGateways(IpAddr, IpAddr),
    /// Clients whose family has no gateway.
    #[error("clients {0} need a gateway of their family: --gateway DIP")]
    NoGatewayFor(IpNet),
    /// A gateway that is out of reach.
    #[error(
        "{0} is on no network of this host, so it cannot be the gateway; the director and its NAT servers share a network"
    )]
    GatewayFar(IpAddr),
    /// An option that has no use in these modes.
    #[error("{option} has no use without --mode {mode}")]
    Useless {
        /// The option.
        option: &'static str,
        /// Where it has one.
        mode: Mode,
    },
    /// More than there is room for.
    #[error("{option} takes {most} at the most, and there are {given}")]
    TooMany {
        /// The option.
        option: &'static str,
        /// As many as there is room for.
        most: usize,
        /// As many as were named.
        given: usize,
    },
    /// The kernel has no such device.
    #[error(
        "no tunnel device of the kernel's here takes packets for {0}; `modprobe ipip` (ip_gre, ip6_tunnel) makes one, or leave --tunnel-end away"
    )]
    NoKernelTunnel(IpAddr),
    /// What the kernel's device does not do.
    #[error(
        "the kernel's tunnel devices take packets from everybody; leave --tunnel-end away to have only the directors' taken"
    )]
    KernelTakesAll,
}

/// Which VIPs' packets come out of a device.
type Takes = fn(&IpAddr) -> bool;

/// The tunnel devices that the kernel makes by itself, which take what no other takes.
pub(crate) const KERNEL_ENDS: [(&str, Takes); 3] = [
    // IPv4 in IPv4.
    ("tunl0", IpAddr::is_ipv4),
    // IPv6 in IPv6.
    ("ip6tnl0", IpAddr::is_ipv6),
    // Either in GRE over IPv4, without key and checksum.
    ("gre0", |_| true),
];

/// Makes the plan. ARP is silenced first, and the VIPs come last but for routes: at no time does anybody answer for them.
pub fn plan(wish: &Wish, sight: &Sight) -> Result<Vec<Setting>, Refusal> {
    check(wish)?;
    let mut plan = Vec::new();
    if wish.has_vips() {
        let interfaces = interfaces(wish, sight)?;
        wish.vips.iter().try_for_each(|vip| is_free(*vip, sight))?;
        silence_arp(wish, &interfaces, sight, &mut plan);
        if wish.modes.contains(&Mode::Tun) {
            end_tunnels(wish, &interfaces, sight, &mut plan)?;
        }
        plan.extend(wish.vips.iter().map(|vip| Setting::Address { device: "lo".to_owned(), address: *vip }));
    }
    if wish.modes.contains(&Mode::Nat) {
        answer_through_director(wish, sight, &mut plan)?;
    }
    Ok(plan)
}

/// What is wrong with a wish on any host.
pub(crate) fn check(wish: &Wish) -> Result<(), Refusal> {
    let Some(first) = wish.modes.first() else { return Err(Refusal::NoMode) };
    if wish.has_vips() && wish.vips.is_empty() {
        return Err(Refusal::NoVip(*wish.modes.iter().find(|mode| **mode != Mode::Nat).unwrap_or(first)));
    }
    if let Some(vip) = wish.vips.iter().find(|vip| !is_unicast(**vip)) {
        return Err(Refusal::NotUnicast(*vip));
    }
    for (option, given, most) in
        [("--vip", wish.vips.len(), MAX_VIPS), ("--director", wish.directors.len(), MAX_DIRECTORS)]
    {
        if given > most {
            return Err(Refusal::TooMany { option, most, given });
        }
    }
    let useless = |option, mode| Err(Refusal::Useless { option, mode });
    if !wish.vips.is_empty() && !wish.has_vips() {
        return useless("--vip", Mode::Dr);
    }
    if !wish.directors.is_empty() && !wish.modes.contains(&Mode::Tun) {
        return useless("--director", Mode::Tun);
    }
    if !wish.gateways.is_empty() && !wish.modes.contains(&Mode::Nat) {
        return useless("--gateway", Mode::Nat);
    }
    if !wish.clients.is_empty() && !wish.modes.contains(&Mode::Nat) {
        return useless("--clients", Mode::Nat);
    }
    Ok(())
}

fn is_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !v4.is_unspecified() && !v4.is_broadcast() && !v4.is_multicast() && !v4.is_loopback()
        }
        IpAddr::V6(v6) => {
            !v6.is_unspecified() && !v6.is_multicast() && !v6.is_loopback() && !v6.is_unicast_link_local()
        }
    }
}

/// Where packets come in.
pub fn interfaces(wish: &Wish, sight: &Sight) -> Result<Vec<String>, Refusal> {
    if !wish.interfaces.is_empty() {
        let exists = |name: &String| sight.devices.iter().any(|device| device.name == *name);
        return match wish.interfaces.iter().find(|name| !exists(name)) {
            Some(missing) => Err(Refusal::NoInterface(missing.clone())),
            None => Ok(wish.interfaces.clone()),
        };
    }
    // The port of a bridge has a link-local address, too, but packets come in by the bridge.
    let has_address = |name: &str| {
        sight.addresses.iter().any(|held| held.device == name && !is_link_local(held.address.addr()))
    };
    let usual = sight.devices.iter().filter(|d| d.is_ethernet && d.is_up && has_address(&d.name));
    let names: Vec<_> = usual.map(|device| device.name.clone()).collect();
    if names.is_empty() { Err(Refusal::NowhereToReceive) } else { Ok(names) }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// Does a device of this name speak ARP?
pub(crate) fn speaks_arp(device: &str, sight: &Sight) -> bool {
    sight.devices.iter().any(|one| one.name == device && one.is_ethernet)
}

/// A VIP may be nowhere, alone on `lo`, or on a device without ARP.
fn is_free(vip: IpAddr, sight: &Sight) -> Result<(), Refusal> {
    for held in sight.addresses.iter().filter(|held| held.address.addr() == vip) {
        let (device, address) = (held.device.clone(), held.address);
        if speaks_arp(&device, sight) {
            return Err(Refusal::VipElsewhere { vip, device, address });
        }
        if device == "lo" && address.prefix_len() != address.max_prefix_len() {
            return Err(Refusal::VipSwallows { address });
        }
    }
    Ok(())
}

/// The path of an IPv4 parameter of a device, or of `all`.
pub fn conf(device: &str, name: &str) -> String {
    format!("net/ipv4/conf/{device}/{name}")
}

/// A number that a parameter of a device has; 0 when there is no such device.
pub fn number(sight: &Sight, device: &str, name: &str) -> u32 {
    sight.sysctls.get(&conf(device, name)).and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

/// Does this `arp_ignore` keep quiet about addresses of `lo`? The larger of a device's and of all devices' counts.
pub fn ignores_lo(value: u32) -> bool {
    // 3 answers for all but addresses of scope host; 4 to 7 are reserved and do as 0 does.
    matches!(value, 1 | 2 | 8)
}

fn silence_arp(wish: &Wish, interfaces: &[String], sight: &Sight, plan: &mut Vec<Setting>) {
    if !wish.vips.iter().any(IpAddr::is_ipv4) {
        return;
    }
    let places = ["all"].into_iter().chain(interfaces.iter().map(String::as_str));
    for place in places {
        let ignore = number(sight, place, "arp_ignore");
        let quiet = if ignores_lo(ignore) { ignore } else { 1 };
        plan.push(sysctl(place, "arp_ignore", quiet));
        plan.push(sysctl(place, "arp_announce", 2));
    }
}

fn sysctl(device: &str, name: &str, value: u32) -> Setting {
    Setting::Sysctl { key: conf(device, name), value: value.to_string() }
}

fn end_tunnels(
    wish: &Wish,
    interfaces: &[String],
    sight: &Sight,
    plan: &mut Vec<Setting>,
) -> Result<(), Refusal> {
    match wish.tunnel_end {
        TunnelEnd::Xdp => {
            for device in interfaces {
                loosen_rp_filter(device, sight, plan);
                plan.push(Setting::TunnelEnd(TunnelSetup {
                    device: device.clone(),
                    vips: wish.vips.iter().copied().collect(),
                    directors: wish.directors.clone(),
                    gue_port: wish.gue_port,
                }));
            }
        }
        TunnelEnd::Kernel => {
            if !wish.directors.is_empty() {
                return Err(Refusal::KernelTakesAll);
            }
            let exists = |name: &str| sight.devices.iter().any(|device| device.name == name);
            let ends: Vec<_> = KERNEL_ENDS.into_iter().filter(|(name, _)| exists(name)).collect();
            if let Some(vip) = wish.vips.iter().find(|vip| !ends.iter().any(|(_, takes)| takes(vip))) {
                return Err(Refusal::NoKernelTunnel(*vip));
            }
            for (name, _) in ends.into_iter().filter(|(_, takes)| wish.vips.iter().any(takes)) {
                loosen_rp_filter(name, sight, plan);
                plan.push(Setting::LinkUp { device: name.to_owned() });
            }
        }
    }
    Ok(())
}

/// A client's packet comes out of a tunnel where the way to that client may not lead: a strict `rp_filter` (1) drops it. The larger of
/// a device's and of all devices' counts, so 2 (any way will do) on the device is enough. A host that is set up already gets the same plan.
fn loosen_rp_filter(device: &str, sight: &Sight, plan: &mut Vec<Setting>) {
    let counting = number(sight, device, "rp_filter").max(number(sight, "all", "rp_filter"));
    if counting != 0 {
        plan.push(sysctl(device, "rp_filter", 2));
    }
}

fn answer_through_director(wish: &Wish, sight: &Sight, plan: &mut Vec<Setting>) -> Result<(), Refusal> {
    let of_family = |v4: bool| wish.gateways.iter().filter(move |gateway| gateway.is_ipv4() == v4);
    for v4 in [true, false] {
        if let [one, another, ..] = of_family(v4).collect::<Vec<_>>()[..] {
            return Err(Refusal::TwoGateways(*one, *another));
        }
    }
    if wish.gateways.is_empty() {
        return Err(Refusal::NoGateway);
    }
    let is_near = |gateway: &IpAddr| sight.addresses.iter().any(|held| is_neighbour(held, gateway));
    if let Some(far) = wish.gateways.iter().find(|gateway| !is_near(gateway)) {
        return Err(Refusal::GatewayFar(*far));
    }
    if wish.clients.is_empty() {
        plan.extend(
            wish.gateways.iter().map(|gateway| Setting::Route { to: everybody(*gateway), gateway: *gateway }),
        );
        return Ok(());
    }
    for clients in &wish.clients {
        let mut gateways = of_family(clients.addr().is_ipv4());
        let gateway = *gateways.next().ok_or(Refusal::NoGatewayFor(*clients))?;
        plan.push(Setting::Route { to: clients.trunc(), gateway });
    }
    Ok(())
}

/// Is it on this address's network, and another address than this one?
fn is_neighbour(held: &Held, gateway: &IpAddr) -> bool {
    held.address.contains(gateway) && held.address.addr() != *gateway && held.device != "lo"
}

/// All addresses of a family.
pub(crate) fn everybody(like: IpAddr) -> IpNet {
    match like {
        IpAddr::V4(_) => IpNet::V4(Default::default()),
        IpAddr::V6(_) => IpNet::V6(Default::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Sight {
        let device = |name: &str, index, is_ethernet| Device {
            name: name.into(),
            index,
            is_ethernet,
            is_up: true,
            mtu: 1500,
            program: None,
        };
        let held =
            |device: &str, address: &str| Held { device: device.into(), address: address.parse().unwrap() };
        Sight {
            devices: vec![device("lo", 1, false), device("e0", 2, true), device("idle", 3, true)],
            addresses: vec![
                held("lo", "127.0.0.1/8"),
                held("idle", "fe80::3/64"),
                held("e0", "10.1.0.11/24"),
                held("e0", "fd01::11/64"),
            ],
            sysctls: BTreeMap::new(),
        }
    }

    fn with(mut host: Sight, device: &str, name: &str, value: &str) -> Sight {
        host.sysctls.insert(conf(device, name), value.into());
        host
    }

    fn ip(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    fn wish(modes: &[Mode], vips: &[&str]) -> Wish {
        Wish::new(modes.iter().copied(), vips.iter().map(|vip| ip(vip)))
    }

    fn commands(wish: &Wish, host: &Sight) -> Vec<String> {
        plan(wish, host).expect("a plan").iter().map(Setting::to_string).collect()
    }

    #[test]
    fn direct_routing_silences_arp_before_the_vip_comes() {
        let shown = commands(&wish(&[Mode::Dr], &["10.0.0.100", "fd00::100"]), &host());
        assert_eq!(
            shown,
            [
                "sysctl -w net.ipv4.conf.all.arp_ignore=1",
                "sysctl -w net.ipv4.conf.all.arp_announce=2",
                "sysctl -w net.ipv4.conf.e0.arp_ignore=1",
                "sysctl -w net.ipv4.conf.e0.arp_announce=2",
                "ip addr add 10.0.0.100/32 dev lo",
                "ip addr add fd00::100/128 dev lo nodad",
            ]
        );
    }

    #[test]
    fn ipv6_alone_leaves_arp_as_it_is() {
        assert_eq!(
            commands(&wish(&[Mode::Dr], &["fd00::100"]), &host()),
            ["ip addr add fd00::100/128 dev lo nodad"]
        );
    }

    #[test]
    fn a_stricter_arp_ignore_stays_and_one_that_answers_for_lo_goes() {
        for (now, then) in [("0", 1), ("1", 1), ("2", 2), ("3", 1), ("5", 1), ("8", 8)] {
            let host = with(host(), "e0", "arp_ignore", now);
            let plan = plan(&wish(&[Mode::Dr], &["10.0.0.100"]), &host).unwrap();
            assert!(plan.contains(&sysctl("e0", "arp_ignore", then)), "{now}");
        }
    }

    #[test]
    fn a_tunnel_loosens_an_rp_filter_that_is_on() {
        let wanted = wish(&[Mode::Tun], &["10.0.0.100"]);
        let loosened = sysctl("e0", "rp_filter", 2);
        let planned = |host: Sight| plan(&wanted, &host).unwrap().contains(&loosened);
        assert!(planned(with(host(), "all", "rp_filter", "1")));
        assert!(planned(with(host(), "e0", "rp_filter", "1")));
        assert!(!planned(host()));
    }

    #[test]
    fn a_host_that_is_set_up_gets_the_same_plan() {
        let wanted = wish(&[Mode::Dr, Mode::Tun], &["10.0.0.100", "fd00::100"]);
        for (filter, ignore) in [("0", "0"), ("1", "2"), ("2", "3")] {
            let mut host = with(with(host(), "e0", "rp_filter", filter), "all", "arp_ignore", ignore);
            let first = plan(&wanted, &host).unwrap();
            for setting in &first {
                match setting.clone() {
                    Setting::Sysctl { key, value } => drop(host.sysctls.insert(key, value)),
                    Setting::Address { device, address } => {
                        host.addresses.push(Held { device, address: address.into() });
                    }
                    _ => {}
                }
            }
            assert_eq!(plan(&wanted, &host).unwrap(), first, "{filter} {ignore}");
        }
    }

    #[test]
    fn a_tunnel_end_is_put_where_packets_come_in() {
        let mut wanted = wish(&[Mode::Tun], &["10.0.0.100"]);
        wanted.directors = vec!["10.1.0.254/32".parse().unwrap()];
        let shown = commands(&wanted, &host());
        let end = "# xlvs's tunnel end on e0: IP in IP, GRE, GUE on UDP port 6080, for 10.0.0.100, \
                   from 10.1.0.254 only";
        assert_eq!(shown[4..], [end, "ip addr add 10.0.0.100/32 dev lo"]);
    }

    #[test]
    fn nat_answers_through_the_director() {
        let mut wanted = wish(&[Mode::Nat], &[]);
        wanted.gateways = vec![ip("10.1.0.254"), ip("fd01::fe")];
        assert_eq!(
            commands(&wanted, &host()),
            ["ip route replace 0.0.0.0/0 via 10.1.0.254", "ip -6 route replace ::/0 via fd01::fe metric 1"]
        );
        wanted.clients = vec!["10.2.0.0/26".parse().unwrap()];
        assert_eq!(commands(&wanted, &host()), ["ip route replace 10.2.0.0/26 via 10.1.0.254"]);
    }

    #[test]
    fn what_cannot_be_had_is_refused() {
        let refused = |wish: &Wish, host: &Sight| plan(wish, host).expect_err("no plan");
        let vip = ip("10.0.0.100");
        let dr = wish(&[Mode::Dr], &["10.0.0.100"]);
        assert_eq!(refused(&wish(&[], &[]), &host()), Refusal::NoMode);
        assert_eq!(refused(&wish(&[Mode::Nat, Mode::Tun], &[]), &host()), Refusal::NoVip(Mode::Tun));
        assert_eq!(
            refused(&wish(&[Mode::Dr], &["127.0.0.2"]), &host()),
            Refusal::NotUnicast(ip("127.0.0.2"))
        );
        let useless = |option, mode| Refusal::Useless { option, mode };
        assert_eq!(refused(&wish(&[Mode::Nat], &["10.0.0.100"]), &host()), useless("--vip", Mode::Dr));
        let gateway = Wish { gateways: vec![ip("10.1.0.254")], ..dr.clone() };
        assert_eq!(refused(&gateway, &host()), useless("--gateway", Mode::Nat));

        let mut elsewhere = host();
        let address: IpNet = "10.0.0.100/24".parse().unwrap();
        elsewhere.addresses.push(Held { device: "e0".into(), address });
        assert_eq!(refused(&dr, &elsewhere), Refusal::VipElsewhere { vip, device: "e0".into(), address });
        elsewhere.addresses.last_mut().unwrap().device = "lo".into();
        assert_eq!(refused(&dr, &elsewhere), Refusal::VipSwallows { address });

        let many = (0..=MAX_VIPS as u32).map(|number| IpAddr::from((0x0a00_0000 + number).to_be_bytes()));
        let (option, most, given) = ("--vip", MAX_VIPS, MAX_VIPS + 1);
        let too_many = Refusal::TooMany { option, most, given };
        assert_eq!(refused(&Wish { vips: many.collect(), ..dr.clone() }, &host()), too_many);

        let unknown = Wish { interfaces: vec!["e9".into()], ..dr.clone() };
        assert_eq!(refused(&unknown, &host()), Refusal::NoInterface("e9".into()));
        let mut dark = host();
        dark.devices[1].is_up = false;
        assert_eq!(refused(&dr, &dark), Refusal::NowhereToReceive);

        let nat = wish(&[Mode::Nat], &[]);
        assert_eq!(refused(&nat, &host()), Refusal::NoGateway);
        let far = Wish { gateways: vec![ip("10.9.0.1")], ..nat.clone() };
        assert_eq!(refused(&far, &host()), Refusal::GatewayFar(ip("10.9.0.1")));
        let itself = Wish { gateways: vec![ip("10.1.0.11")], ..nat.clone() };
        assert_eq!(refused(&itself, &host()), Refusal::GatewayFar(ip("10.1.0.11")));
        let two = Wish { gateways: vec![ip("10.1.0.1"), ip("10.1.0.2")], ..nat.clone() };
        assert_eq!(refused(&two, &host()), Refusal::TwoGateways(ip("10.1.0.1"), ip("10.1.0.2")));
        let clients: IpNet = "fd00::/64".parse().unwrap();
        let other = Wish { gateways: vec![ip("10.1.0.1")], clients: vec![clients], ..nat };
        assert_eq!(refused(&other, &host()), Refusal::NoGatewayFor(clients));
    }

    #[test]
    fn the_kernels_tunnel_devices_are_taken_as_they_are() {
        let mut wanted = Wish { tunnel_end: TunnelEnd::Kernel, ..wish(&[Mode::Tun], &["10.0.0.100"]) };
        assert_eq!(plan(&wanted, &host()), Err(Refusal::NoKernelTunnel(ip("10.0.0.100"))));
        let mut has_them = with(host(), "all", "rp_filter", "1");
        for name in ["tunl0", "gre0"] {
            let device = Device { name: name.into(), is_ethernet: false, ..has_them.devices[0].clone() };
            has_them.devices.push(device);
        }
        let shown = commands(&wanted, &has_them);
        assert_eq!(
            shown[4..],
            [
                "sysctl -w net.ipv4.conf.tunl0.rp_filter=2",
                "ip link set tunl0 up",
                "sysctl -w net.ipv4.conf.gre0.rp_filter=2",
                "ip link set gre0 up",
                "ip addr add 10.0.0.100/32 dev lo",
            ]
        );
        wanted.vips = [ip("fd00::100")].into();
        assert!(commands(&wanted, &has_them).contains(&"ip link set gre0 up".to_owned()));
        has_them.devices.pop();
        assert_eq!(plan(&wanted, &has_them), Err(Refusal::NoKernelTunnel(ip("fd00::100"))));
        wanted.directors = vec!["10.1.0.254/32".parse().unwrap()];
        assert_eq!(plan(&wanted, &has_them), Err(Refusal::KernelTakesAll));
    }
}
