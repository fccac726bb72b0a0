//! What a host is to be, on the command line.

use std::net::IpAddr;

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use xlvs_realserver::wish::GUE_PORT;
use xlvs_realserver::{Mode, TunnelEnd, Wish};

/// How packets reach this server.
#[derive(Args, Clone, Debug)]
pub struct Wanted {
    /// How they reach it: several if it serves in several ways.
    #[arg(long, value_delimiter = ',', value_name = "MODE")]
    mode: Vec<Modes>,
    /// VIPs of dr and tun.
    #[arg(long, value_delimiter = ',', value_name = "VIP")]
    vip: Vec<IpAddr>,
    /// Where packets come in; every Ethernet interface with an address unless told.
    #[arg(long, short, value_delimiter = ',', value_name = "NAME")]
    interface: Vec<String>,
    /// tun: who may send tunnels' packets, as addresses or prefixes; everybody unless told.
    #[arg(long, value_delimiter = ',', value_name = "DIP", value_parser = prefix)]
    director: Vec<IpNet>,
    /// tun: UDP port of GUE; 0 is none.
    #[arg(long, value_name = "PORT", default_value_t = GUE_PORT)]
    gue_port: u16,
    /// tun: who takes the packets apart: xlvs's program, or the kernel's tunl0, ip6tnl0 and gre0 (from everybody, no GUE).
    #[arg(long, value_name = "WHO", default_value = "xdp")]
    tunnel_end: TunnelEnds,
    /// nat: the director's address on this network, one a family.
    #[arg(long, value_delimiter = ',', value_name = "DIP")]
    gateway: Vec<IpAddr>,
    /// nat: clients that the director is the way to; everybody unless told.
    #[arg(long, value_delimiter = ',', value_name = "PREFIX", value_parser = prefix)]
    clients: Vec<IpNet>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Modes {
    /// Answers go back through the director.
    Nat,
    /// Direct routing: the director is on the same network.
    Dr,
    /// Tunnel.
    Tun,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TunnelEnds {
    /// xlvs's own.
    Xdp,
    /// Those of its devices that are there.
    Kernel,
}

/// An address is a prefix of its whole length.
fn prefix(text: &str) -> Result<IpNet, String> {
    let address = || text.parse().map(|address: IpAddr| IpNet::from(address));
    text.parse()
        .or_else(|_| address())
        .map_err(|_| format!("{text} is neither an address nor a prefix such as 10.0.0.0/24"))
}

impl Wanted {
    /// Were no words said at all?
    pub fn is_empty(&self) -> bool {
        self.mode.is_empty() && self.vip.is_empty()
    }

    /// The same for the library.
    pub fn wish(&self) -> Wish {
        let modes = self.mode.iter().map(|mode| match mode {
            Modes::Nat => Mode::Nat,
            Modes::Dr => Mode::Dr,
            Modes::Tun => Mode::Tun,
        });
        Wish {
            interfaces: self.interface.clone(),
            directors: self.director.iter().map(IpNet::trunc).collect(),
            gue_port: self.gue_port,
            tunnel_end: match self.tunnel_end {
                TunnelEnds::Xdp => TunnelEnd::Xdp,
                TunnelEnds::Kernel => TunnelEnd::Kernel,
            },
            gateways: self.gateway.clone(),
            clients: self.clients.iter().map(IpNet::trunc).collect(),
            ..Wish::new(modes, self.vip.iter().copied())
        }
    }
}
