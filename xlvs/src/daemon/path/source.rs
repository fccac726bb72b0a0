//! The address that probes are sent from: one of the director's own, as a client's as it can be.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use xlvs_model::ServerSpec;
use xlvs_model::spec::Method;

use crate::daemon::Daemon;

/// So long an address that was taken away may still be used.
const FRESH: Duration = Duration::from_secs(5);

/// What the interfaces that carry balanced traffic have.
#[derive(Default)]
pub struct Addresses(RefCell<Option<(Instant, Rc<[IpNet]>)>>);

impl Addresses {
    /// The address from which to ask this server for what is at `virt`; `towards` is the director's for packets to the server.
    pub fn source(
        &self,
        daemon: &Daemon,
        server: &ServerSpec,
        virt: IpAddr,
        towards: IpAddr,
    ) -> anyhow::Result<Option<IpAddr>> {
        let own = self.own(daemon)?;
        let engine = daemon.engine.borrow();
        Ok(choose(&own, server, virt, towards, |addr| engine.model().tally().is_vip(&addr)))
    }

    fn own(&self, daemon: &Daemon) -> anyhow::Result<Rc<[IpNet]>> {
        if let Some((read, own)) = &*self.0.borrow()
            && read.elapsed() < FRESH
        {
            return Ok(Rc::clone(own));
        }
        let own: Rc<[IpNet]> = addresses_of(daemon.site.borrow().interfaces())?.into();
        *self.0.borrow_mut() = Some((Instant::now(), Rc::clone(&own)));
        Ok(own)
    }
}

fn addresses_of(interfaces: &[String]) -> anyhow::Result<Vec<IpNet>> {
    let all = getifaddrs().context("list the director's addresses")?;
    let of_ours = all.filter(|one| interfaces.contains(&one.interface_name)).filter_map(|one| {
        let (addr, mask) = (one.address?, one.netmask?);
        let ip = |storage: &SockaddrStorage| -> Option<IpAddr> {
            let v4 = storage.as_sockaddr_in().map(|addr| addr.ip().into());
            v4.or_else(|| storage.as_sockaddr_in6().map(|addr| addr.ip().into()))
        };
        IpNet::with_netmask(ip(&addr)?, ip(&mask)?).ok()
    });
    Ok(in_order(of_ours.collect()))
}

/// An interface's own address comes before those that were given to it later, which may be VIPs: the kernel lists IPv4's oldest first and
/// IPv6's last. So do addresses of a network come before those that stand alone.
fn in_order(listed: Vec<IpNet>) -> Vec<IpNet> {
    let (mut own, newest_first): (Vec<IpNet>, Vec<IpNet>) =
        listed.into_iter().partition(|net| net.addr().is_ipv4());
    own.extend(newest_first.into_iter().rev());
    own.sort_by_key(|net| net.prefix_len() == net.max_prefix_len());
    own
}

/// Answers of a NAT server must come back through the director: that is found only from an address outside the server's own network,
/// to which it needs its gateway. Other servers answer clients by themselves, and reach the director best where it reaches them.
/// A VIP is asked from only where there is nothing else: answers to it may be taken for clients' packets.
fn choose(
    own: &[IpNet],
    server: &ServerSpec,
    virt: IpAddr,
    towards: IpAddr,
    is_virtual: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let is_usable = |addr: IpAddr| {
        let is_link_local = matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local());
        addr.is_ipv4() == virt.is_ipv4() && !addr.is_unspecified() && !addr.is_loopback() && !is_link_local
    };
    let usable: Vec<&IpNet> = own.iter().filter(|net| is_usable(net.addr())).collect();
    let plain = || usable.iter().filter(|net| !is_virtual(net.addr()));
    // Each only when it is wanted: whether an address is a VIP, all services are asked.
    let beyond = || plain().find(|net| !net.contains(&server.key.addr)).map(|net| net.addr());
    let near = || Some(towards).filter(|addr| is_usable(*addr) && !is_virtual(*addr));
    let any = || plain().next().or(usable.first()).map(|net| net.addr());
    let first = if server.method == Method::Masquerade { beyond() } else { None };
    first.or_else(near).or_else(any).or_else(|| Some(towards).filter(|addr| is_usable(*addr)))
}

#[cfg(test)]
mod tests {
    use xlvs_model::ServerKey;

    use super::*;

    fn chosen(own: &[&str], method: Method, server: &str, virt: &str, towards: &str) -> Option<String> {
        let own: Vec<IpNet> = own.iter().map(|net| net.parse().expect("a network")).collect();
        let addr = |text: &str| text.parse().expect("an address");
        let server = ServerSpec::new(ServerKey { addr: addr(server), port: 80 }, method);
        let vip = addr(virt);
        choose(&own, &server, vip, addr(towards), |addr| addr == vip).map(|addr| addr.to_string())
    }

    #[test]
    fn the_oldest_address_of_a_network_comes_first() {
        let listed =
            ["10.0.0.9/32", "10.0.0.254/24", "10.0.0.100/24", "fd00::100/64", "fd00::fe/64", "fd00::1/128"];
        let ordered = in_order(listed.map(|net| net.parse().expect("a network")).into());
        let wanted =
            ["10.0.0.254/24", "10.0.0.100/24", "fd00::fe/64", "fd00::100/64", "10.0.0.9/32", "fd00::1/128"];
        assert_eq!(ordered, wanted.map(|net| net.parse().expect("a network")));
    }

    const TWO: &[&str] =
        &["10.0.0.100/24", "10.0.0.254/24", "10.1.0.254/24", "fe80::1/64", "fd00::fe/64", "fd01::fe/64"];

    #[test]
    fn nat_is_asked_from_beyond_the_servers_network_and_others_from_near() {
        let nat = chosen(TWO, Method::Masquerade, "10.1.0.11", "10.0.0.100", "10.1.0.254");
        assert_eq!(nat.as_deref(), Some("10.0.0.254"));
        let nat = chosen(TWO, Method::Masquerade, "fd01::11", "fd00::100", "fd01::fe");
        assert_eq!(nat.as_deref(), Some("fd00::fe"));
        let direct = chosen(TWO, Method::Direct, "10.1.0.11", "10.0.0.100", "10.1.0.254");
        assert_eq!(direct.as_deref(), Some("10.1.0.254"));
    }

    #[test]
    fn a_tunnel_of_the_other_family_is_asked_in_the_clients() {
        let mixed = chosen(TWO, Method::Tunnel, "10.1.0.11", "fd00::100", "10.1.0.254");
        assert_eq!(mixed.as_deref(), Some("fd00::fe"));
        let none = chosen(&TWO[..3], Method::Tunnel, "10.1.0.11", "fd00::100", "10.1.0.254");
        assert_eq!(none, None);
    }

    #[test]
    fn a_director_on_one_network_asks_from_there_and_from_a_vip_at_last() {
        let one = chosen(&["10.1.0.254/24"], Method::Masquerade, "10.1.0.11", "10.0.0.100", "10.1.0.254");
        assert_eq!(one.as_deref(), Some("10.1.0.254"));
        let only = chosen(&["10.1.0.254/24"], Method::Direct, "10.1.0.11", "10.1.0.254", "10.1.0.254");
        assert_eq!(only.as_deref(), Some("10.1.0.254"));
    }
}
