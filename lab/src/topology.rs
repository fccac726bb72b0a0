//! Lays out the networks of README.md and sets up everybody as the LVS documents say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::client::Client;
use crate::director::{Reply, binary};
use crate::edge::Edge;
use crate::layout::{Layout, VIPS, in_subnet};
use crate::netns::Netns;
use crate::plot::Plot;

const CLIENTS_MAC: &str = "02:00:00:00:00:01";

/// A real server's host.
pub struct Server {
    /// `rs1`, `rs2`, ..: what it answers when asked who it is.
    pub name: String,
    /// Its own address: the RIP.
    pub address: Ipv4Addr,
    /// Its own IPv6 address.
    pub address6: Ipv6Addr,
    /// Where it lives; its device is `e0`.
    pub netns: Netns,
    /// What stands for its `/run/xlvs`.
    pub run_dir: PathBuf,
    binary: PathBuf,
}

impl Server {
    /// Runs `xlvs rs` here with these words, of which the first is the command.
    pub fn rs(&self, words: &[&str]) -> Result<Reply> {
        let mut xlvs = Command::new(&self.binary);
        xlvs.arg("rs").args(words).env("XLVS_RUN_DIR", &self.run_dir);
        self.netns.output(&mut xlvs).map(Reply::from)
    }

    /// The same with a line that must succeed; returns what it printed.
    pub fn must(&self, line: &str) -> Result<String> {
        let reply = self.rs(&line.split_whitespace().collect::<Vec<_>>())?;
        ensure!(reply.code == Some(0), "xlvs rs {line}: {:?} {}{}", reply.code, reply.out, reply.err.trim());
        Ok(reply.out)
    }
}

/// A laid-out lab. Dropping it removes everything.
// Fields are dropped in this order: whatever is attached to a device before its namespace.
pub struct Lab {
    edge: Edge,
    /// The clients' host: many addresses, one device `c0` (and `c1` on the servers' network).
    client: Netns,
    /// The director's host.
    pub director: Netns,
    /// The real servers.
    pub servers: Vec<Server>,
    router: Option<Netns>,
    far_client: Option<Netns>,
    switch: Netns,
    plot: Plot,
    layout: Layout,
    binary: PathBuf,
}

impl Lab {
    /// Everybody on one network, the director with one arm.
    pub fn one_network(servers: u8) -> Result<Lab> {
        Lab::lay_out(Layout::OneNetwork, servers)
    }

    /// Clients and servers on two networks with the director between them.
    pub fn two_network(servers: u8) -> Result<Lab> {
        Lab::lay_out(Layout::TwoNetwork, servers)
    }

    /// Lays out the given layout. Its servers are set up by [`binary`].
    pub fn lay_out(layout: Layout, servers: u8) -> Result<Lab> {
        Lab::lay_out_by(&binary()?, layout, servers)
    }

    /// The same with servers that this `xlvs` sets up.
    pub fn lay_out_by(binary: &Path, layout: Layout, servers: u8) -> Result<Lab> {
        let mut lab = Lab::with_hosts(binary, layout)?;
        lab.connect_client()?;
        lab.connect_director()?;
        for _ in 0..servers {
            lab.add_server()?;
        }
        Ok(lab)
    }

    /// The clients.
    pub fn client(&self) -> Client<'_> {
        Client::new(&self.client, self.layout)
    }

    /// The clients' namespace.
    pub fn client_netns(&self) -> &Netns {
        &self.client
    }

    /// Who has which address.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// A VIP; they count from 0.
    pub fn vip(&self, number: u8) -> Ipv4Addr {
        self.layout.vip(number)
    }

    /// A directory of this lab's own, which goes with it.
    pub fn directory(&self) -> &Path {
        self.plot.directory()
    }

    /// Adds a host where servers are, with an address of its own and nothing that makes it a real server.
    pub fn add_bare_server(&mut self) -> Result<&Server> {
        let number = u8::try_from(self.servers.len())? + 1;
        let layout = self.layout;
        let (name, address, address6) =
            (format!("rs{number}"), layout.server(number), layout.server6(number));
        let netns = self.host(&name)?;
        let bridge = if layout == Layout::OneNetwork { "brC" } else { "brS" };
        self.plug(&netns, "e0", bridge, &format!("02:00:00:00:02:{number:02x}"))?;
        netns.ip(&[
            format!("addr add {} dev e0", in_subnet(address)),
            format!("addr add {} dev e0", in_subnet(address6)),
        ])?;
        let (run_dir, binary) = (self.directory().join(&name), self.binary.clone());
        self.servers.push(Server { name, address, address6, netns, run_dir, binary });
        self.servers.last().context("it was just added")
    }

    /// Adds a server behind a router on the servers' network, so that not all next hops are the
    /// servers themselves. DR cannot reach it, as in any LVS: the router sends the packet on to the VIP. Only for the two-network layout.
    pub fn add_far_server(&mut self) -> Result<usize> {
        ensure!(self.layout == Layout::TwoNetwork, "a far server needs the two-network layout");
        let router = self.host("rt")?;
        self.plug(&router, "r0", "brS", "02:00:00:00:03:01")?;
        self.connect_by_bridge("brF")?;
        self.plug(&router, "r1", "brF", "02:00:00:00:03:02")?;
        forward_packets(&router)?;
        router.ip(&[
            "addr add 10.1.0.2/24 dev r0",
            "addr add 10.3.0.254/24 dev r1",
            "route add default via 10.1.0.254",
        ])?;
        // Answers that carry a VIP go past the director here too; questions from clients are on their way in.
        router.ip(&[
            "route add default via 10.1.0.1 table 100",
            "rule add from 10.0.0.0/24 iif r1 lookup 100",
        ])?;
        self.director.ip(&["route add 10.3.0.0/24 via 10.1.0.2"])?;
        self.router = Some(router);

        let number = u8::try_from(self.servers.len())? + 1;
        let netns = self.host(&format!("rs{number}"))?;
        self.plug(&netns, "e0", "brF", "02:00:00:00:03:0b")?;
        let address = Ipv4Addr::new(10, 3, 0, 11);
        netns.ip(&[format!("addr add {}  dev e0", in_subnet(address))])?;
        let name = format!("rs{number}");
        let (run_dir, binary) = (self.directory().join(&name), self.binary.clone());
        let server = Server { name, address, address6: Ipv6Addr::UNSPECIFIED, netns, run_dir, binary };
        // The router knows the way to the director.
        server.must(&format!("up --mode tun,nat {} --gateway 10.3.0.254", vips(self.layout)))?;
        self.servers.push(server);
        Ok(self.servers.len() - 1)
    }

    /// Adds a client behind a router, the clients' host, whose link to it takes only packets of so many bytes. The client does not
    /// know: its own MTU is the usual one. Only for the two-network layout.
    pub fn add_far_client(&mut self, mtu: u32) -> Result<()> {
        ensure!(self.layout == Layout::TwoNetwork, "a far client needs the two-network layout");
        let far = self.host("fc")?;
        self.connect_by_bridge("brG")?;
        self.plug(&self.client, "f1", "brG", "02:00:00:00:04:01")?;
        self.plug(&far, "f0", "brG", "02:00:00:00:04:02")?;
        forward_packets(&self.client)?;
        self.client.ip(&[
            format!("link set f1 mtu {mtu}"),
            "addr add 10.4.0.254/24 dev f1".to_owned(),
            "addr add fd04::fe/64 dev f1 nodad".to_owned(),
        ])?;
        far.ip(&[
            "addr add 10.4.0.1/24 dev f0",
            "addr add fd04::1/64 dev f0 nodad",
            "route add default via 10.4.0.254",
        ])?;
        far.ip6(&["route add default via fd04::fe"])?;
        let (here, here6) = (self.layout.client(1), self.layout.client6(1));
        self.director.ip(&[format!("route add 10.4.0.0/24 via {here}")])?;
        self.director.ip6(&[format!("route add fd04::/64 via {here6}")])?;
        self.far_client = Some(far);
        Ok(())
    }

    /// The client that [`Lab::add_far_client`] has added.
    pub fn far_client(&self) -> Result<Client<'_>> {
        let far = self.far_client.as_ref().context("no far client was added")?;
        Ok(Client::new(far, self.layout))
    }

    /// Tells the director where all clients are. Otherwise the first answer to each that is on its network is lost while
    /// its neighbour is looked for, and comes again a second later.
    pub fn introduce_clients(&self) -> Result<()> {
        let layout = self.layout;
        let clients = (1..=layout.clients())
            .flat_map(|c| [IpAddr::from(layout.client(c)), IpAddr::from(layout.client6(c))])
            .map(|client| format!("neigh replace {client} lladdr {CLIENTS_MAC} dev l0 nud permanent"));
        self.director.ip(&clients.collect::<Vec<_>>())
    }

    /// Attaches an XDP program that is not the director's to one of its devices.
    pub fn occupy(&mut self, device: &str) -> Result<()> {
        self.edge.let_frames_in(&self.director, device)
    }

    /// The same with a server's device.
    pub fn occupy_server(&mut self, index: usize) -> Result<()> {
        let server = self.servers.get(index).context("there is no such server")?;
        self.edge.let_frames_in(&server.netns, "e0")
    }

    fn with_hosts(binary: &Path, layout: Layout) -> Result<Lab> {
        let plot = Plot::claim()?;
        let edge = Edge::load()?;
        let (switch, client, director) = (plot.netns("sw")?, plot.netns("cl")?, plot.netns("lb")?);
        for netns in [&client, &director] {
            ordinary_host(netns)?;
        }
        // The switch is wire, not a host: no addresses, nothing of its own to say.
        switch.sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
        switch.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        let (servers, router) = (Vec::new(), None);
        let (far_client, binary) = (None, binary.to_owned());
        Ok(Lab { edge, client, director, servers, router, far_client, switch, plot, layout, binary })
    }

    fn host(&self, role: &str) -> Result<Netns> {
        let netns = self.plot.netns(role)?;
        ordinary_host(&netns)?;
        Ok(netns)
    }

    fn connect_client(&mut self) -> Result<()> {
        self.connect_by_bridge("brC")?;
        self.plug(&self.client, "c0", "brC", CLIENTS_MAC)?;
        let layout = self.layout;
        let addresses =
            (1..=layout.clients()).flat_map(|c| [in_subnet(layout.client(c)), in_subnet(layout.client6(c))]);
        self.client.ip(&addresses.map(|address| format!("addr add {address} dev c0")).collect::<Vec<_>>())?;
        if layout == Layout::OneNetwork {
            return Ok(());
        }
        self.connect_by_bridge("brS")?;
        self.plug(&self.client, "c1", "brS", "02:00:00:00:01:01")?;
        self.client.ip(&["addr add 10.1.0.1/24 dev c1", "addr add fd01::1/64 dev c1 nodad"])
    }

    fn connect_director(&mut self) -> Result<()> {
        let layout = self.layout;
        self.plug(&self.director, "l0", "brC", "02:00:00:00:00:fe")?;
        if layout == Layout::TwoNetwork {
            self.plug(&self.director, "l1", "brS", "02:00:00:00:01:fe")?;
            self.director.ip(&["addr add 10.1.0.254/24 dev l1", "addr add fd01::fe/64 dev l1 nodad"])?;
        }
        let own = [in_subnet(layout.director()), in_subnet(layout.director6())];
        let vips = (0..VIPS).flat_map(|v| [in_subnet(layout.vip(v)), in_subnet(layout.vip6(v))]);
        let addresses = own.into_iter().chain(vips).map(|address| format!("addr add {address} dev l0"));
        self.director.ip(&addresses.collect::<Vec<_>>())?;
        forward_packets(&self.director)?;
        for device in layout.director_interfaces() {
            self.edge.let_frames_in(&self.switch, &port_of(&self.director, device))?;
        }
        Ok(())
    }

    fn add_server(&mut self) -> Result<()> {
        let layout = self.layout;
        let server = self.add_bare_server()?;
        let (gateway, gateway6) = (layout.gateway(), layout.gateway6());
        let clients = layout.clients_behind_director();
        server.must(&format!(
            "up --mode nat,dr,tun {} --gateway {gateway},{gateway6}{clients}",
            vips(layout)
        ))?;
        answer_past_director(&server.netns, layout)
    }

    /// Gives all hosts of two networks back what their devices do for them: checksums, segments, and joining these again.
    pub fn switch_offloads_on(&self) -> Result<()> {
        for (host, device) in self.ends_of_two_networks() {
            host.ethtool(device, "tx on tso on gro on")?;
            self.switch.ethtool(&port_of(host, device), "tx on tso on gro on")?;
        }
        Ok(())
    }

    /// Lets both networks of two take packets of so many bytes.
    pub fn widen(&self, mtu: u32) -> Result<()> {
        for (host, device) in self.ends_of_two_networks() {
            self.switch.ip(&[format!("link set {} mtu {mtu}", port_of(host, device))])?;
            host.ip(&[format!("link set {device} mtu {mtu}")])?;
        }
        Ok(())
    }

    fn ends_of_two_networks(&self) -> impl Iterator<Item = (&Netns, &'static str)> {
        let [client, director] = [&self.client, &self.director];
        let servers = self.servers.iter().map(|server| (&server.netns, "e0"));
        [(client, "c0"), (client, "c1"), (director, "l0"), (director, "l1")].into_iter().chain(servers)
    }

    fn connect_by_bridge(&self, bridge: &str) -> Result<()> {
        self.switch
            .ip(&[format!("link add {bridge} type bridge mcast_snooping 0"), format!("link set {bridge} up")])
    }

    /// Plugs a host's new device into a bridge of the switch.
    fn plug(&self, host: &Netns, device: &str, bridge: &str, mac: &str) -> Result<()> {
        let port = port_of(host, device);
        self.switch.ip(&[
            format!("link add {port} type veth peer name {device} netns {} address {mac}", host.name()),
            format!("link set {port} master {bridge} up"),
        ])?;
        host.ip(&[format!("link set {device} up")])?;
        // A veth's frames otherwise carry half-made checksums and joined segments, which XDP cannot see.
        host.ethtool(device, "tx off gro off")?;
        self.switch.ethtool(&port, "gro off")
    }
}

/// The switch's end of a host's device.
fn port_of(host: &Netns, device: &str) -> String {
    let role = host.name().rsplit('-').next().unwrap_or_default();
    format!("p-{role}-{device}")
}

fn ordinary_host(netns: &Netns) -> Result<()> {
    for scope in ["all", "default"] {
        // What is received on one device may well be answered by another here.
        netns.sysctl(&format!("net.ipv4.conf.{scope}.rp_filter"), "0")?;
        netns.sysctl(&format!("net.ipv6.conf.{scope}.accept_dad"), "0")?;
        netns.sysctl(&format!("net.ipv6.conf.{scope}.accept_ra"), "0")?;
    }
    Ok(())
}

fn forward_packets(netns: &Netns) -> Result<()> {
    netns.sysctl("net.ipv4.ip_forward", "1")?;
    netns.sysctl("net.ipv6.conf.all.forwarding", "1")?;
    // A one-armed director must not tell servers that they could reach the client without it.
    // The kernel takes the device's own setting OR the common one, so both.
    let devices = netns
        .run(|| std::fs::read_dir("/proc/sys/net/ipv4/conf").map(|all| all.flatten().collect::<Vec<_>>()))?;
    for device in devices {
        let name = device.file_name().to_string_lossy().into_owned();
        netns.sysctl(&format!("net.ipv4.conf.{name}.send_redirects"), "0")?;
    }
    Ok(())
}

/// All VIPs, for `xlvs rs up`.
fn vips(layout: Layout) -> String {
    let vips = (0..VIPS).flat_map(|v| [layout.vip(v).to_string(), layout.vip6(v).to_string()]);
    format!("--vip {}", vips.collect::<Vec<_>>().join(","))
}

/// Answers that carry a VIP (DR, TUN) go past the director, though the server's own way to the clients leads through it, for NAT.
fn answer_past_director(netns: &Netns, layout: Layout) -> Result<()> {
    let (vips, vips6) = layout.all_vips();
    let (past, past6) = layout.way_past_director();
    netns.ip(&[format!("route add {past} table 100"), format!("rule add from {vips} lookup 100")])?;
    netns.ip6(&[format!("route add {past6} table 100"), format!("rule add from {vips6} lookup 100")])
}
