//! Who has which address. The two-network layout is that of the recorded cases.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How many VIPs the director has, per family.
pub const VIPS: u8 = 64;

/// How the hosts are connected. README.md draws both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// Everybody on one network; the director has one arm.
    OneNetwork,
    /// Clients on one network, servers on the other, the director between.
    TwoNetwork,
}

impl Layout {
    /// How many clients there are.
    pub fn clients(self) -> u8 {
        match self {
            // As many as a /26 has room for.
            Layout::OneNetwork => 62,
            Layout::TwoNetwork => 64,
        }
    }

    /// A client's address; clients count from 1.
    pub fn client(self, number: u8) -> Ipv4Addr {
        match self {
            Layout::OneNetwork => Ipv4Addr::new(10, 2, 0, number),
            Layout::TwoNetwork => Ipv4Addr::new(10, 0, 0, number),
        }
    }

    /// A client's IPv6 address; clients count from 1.
    pub fn client6(self, number: u8) -> Ipv6Addr {
        on(self.front6(), number.into())
    }

    /// A VIP; they count from 0.
    pub fn vip(self, number: u8) -> Ipv4Addr {
        match self {
            // A whole /26, so that one rule speaks of all of them.
            Layout::OneNetwork => Ipv4Addr::new(10, 2, 0, 128 + number),
            Layout::TwoNetwork => Ipv4Addr::new(10, 0, 0, 100 + number),
        }
    }

    /// An IPv6 VIP; they count from 0.
    pub fn vip6(self, number: u8) -> Ipv6Addr {
        on(self.front6(), 0x100 + u16::from(number))
    }

    /// A real server's address; servers count from 1.
    pub fn server(self, number: u8) -> Ipv4Addr {
        match self {
            Layout::OneNetwork => Ipv4Addr::new(10, 2, 0, 200 + number),
            Layout::TwoNetwork => Ipv4Addr::new(10, 1, 0, 10 + number),
        }
    }

    /// A real server's IPv6 address; servers count from 1.
    pub fn server6(self, number: u8) -> Ipv6Addr {
        match self {
            Layout::OneNetwork => on(self.front6(), 0x200 + u16::from(number)),
            Layout::TwoNetwork => on(0xfd01, 0x10 + u16::from(number)),
        }
    }

    /// The director's own address on the clients' side: its DIP.
    pub fn director(self) -> Ipv4Addr {
        match self {
            Layout::OneNetwork => Ipv4Addr::new(10, 2, 0, 254),
            Layout::TwoNetwork => Ipv4Addr::new(10, 0, 0, 254),
        }
    }

    /// The director's own IPv6 address on the clients' side.
    pub fn director6(self) -> Ipv6Addr {
        on(self.front6(), 0xfe)
    }

    /// The director's address on the servers' side: their gateway.
    pub fn gateway(self) -> Ipv4Addr {
        match self {
            Layout::OneNetwork => self.director(),
            Layout::TwoNetwork => Ipv4Addr::new(10, 1, 0, 254),
        }
    }

    /// The same for IPv6.
    pub fn gateway6(self) -> Ipv6Addr {
        match self {
            Layout::OneNetwork => self.director6(),
            Layout::TwoNetwork => on(0xfd01, 0xfe),
        }
    }

    /// The director's interfaces.
    pub fn director_interfaces(self) -> &'static [&'static str] {
        match self {
            Layout::OneNetwork => &["l0"],
            Layout::TwoNetwork => &["l0", "l1"],
        }
    }

    /// Which clients a server must be told of to answer them through the director, for `xlvs rs up`.
    pub(crate) fn clients_behind_director(self) -> &'static str {
        match self {
            // They are neighbours here: NAT's answers would go to them directly.
            Layout::OneNetwork => " --clients 10.2.0.0/26,fd02::/122",
            Layout::TwoNetwork => "",
        }
    }

    /// All VIPs: what answers of DR and TUN carry as their source.
    pub(crate) fn all_vips(self) -> (&'static str, &'static str) {
        match self {
            Layout::OneNetwork => ("10.2.0.128/26", "fd02::100/122"),
            Layout::TwoNetwork => ("10.0.0.0/24", "fd00::/64"),
        }
    }

    /// The way of answers that carry a VIP: past the director, straight to the clients.
    pub(crate) fn way_past_director(self) -> (&'static str, &'static str) {
        match self {
            Layout::OneNetwork => ("10.2.0.0/24 dev e0", "fd02::/64 dev e0"),
            Layout::TwoNetwork => ("default via 10.1.0.1", "default via fd01::1"),
        }
    }

    fn front6(self) -> u16 {
        match self {
            Layout::OneNetwork => 0xfd02,
            Layout::TwoNetwork => 0xfd00,
        }
    }
}

/// An address with the prefix length of its network here.
pub(crate) fn in_subnet(address: impl Into<IpAddr>) -> String {
    match address.into() {
        IpAddr::V4(address) => format!("{address}/24"),
        IpAddr::V6(address) => format!("{address}/64 nodad"),
    }
}

fn on(network: u16, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(network, 0, 0, 0, 0, 0, 0, host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_network_has_the_addresses_of_the_recorded_cases() {
        let layout = Layout::TwoNetwork;
        assert_eq!(layout.client(64).to_string(), "10.0.0.64");
        assert_eq!(layout.client6(64).to_string(), "fd00::40");
        assert_eq!(layout.vip(63).to_string(), "10.0.0.163");
        assert_eq!(layout.vip6(63).to_string(), "fd00::13f");
        assert_eq!(layout.server(1).to_string(), "10.1.0.11");
        assert_eq!(layout.server6(2).to_string(), "fd01::12");
        assert_eq!(layout.gateway6().to_string(), "fd01::fe");
    }
}
