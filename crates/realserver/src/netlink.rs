//! The host's devices, addresses and routes over rtnetlink: questions and changes, one after the other.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkBuffer,
    NetlinkHeader, NetlinkMessage, NlasIterator, ParseableParametrized,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage, LinkXdp};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::libc;

use crate::frames::Mac;
use crate::plan::{Device, Held};

/// A socket for one question at a time, in the network namespace of the thread that opened it.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Where to.
    pub to: IpNet,
    /// By whom; `None`: to neighbours.
    pub gateway: Option<IpAddr>,
    /// Its metric: of several to the same place, the smallest counts.
    pub metric: u32,
    /// As the kernel told it, to be made again.
    pub raw: Vec<u8>,
}

/// How the kernel would reach somebody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// By whom; `None`: a neighbour.
    pub gateway: Option<IpAddr>,
    /// The device's number.
    pub device: u32,
    /// The address that it would send from.
    pub source: Option<IpAddr>,
    /// What the way takes, in bytes, if that is less than the device does.
    pub mtu: Option<u32>,
    /// The largest segment that TCP asks for on it, in bytes, if that was set.
    pub advertised_mss: Option<u32>,
}

/// A message of an answer.
struct Part {
    kind: u16,
    payload: Vec<u8>,
}

impl Part {
    fn decode(&self) -> Option<RouteNetlinkMessage> {
        RouteNetlinkMessage::parse_with_param(self.payload.as_slice(), self.kind).ok()
    }
}

impl Netlink {
    /// Opens the socket.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// All devices.
    pub fn devices(&mut self) -> io::Result<Vec<Device>> {
        let parts = self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        Ok(parts.iter().filter_map(|part| device(&part.payload)).collect())
    }

    /// All addresses.
    pub fn addresses(&mut self) -> io::Result<Vec<Held>> {
        let devices = self.devices()?;
        let parts = self.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
        let held = |part: &Part| {
            let RouteNetlinkMessage::NewAddress(message) = part.decode()? else { return None };
            let device = devices.iter().find(|device| device.index == message.header.index)?;
            let address = IpNet::new(own_address(&message)?, message.header.prefix_len).ok()?;
            Some(Held { device: device.name.clone(), address })
        };
        Ok(parts.iter().filter_map(held).collect())
    }

    /// Gives a device an address alone. Of IPv6 it is not asked first whether somebody else has it: somebody does.
    pub fn add_address(&mut self, device: u32, address: IpAddr) -> io::Result<()> {
        let message = RouteNetlinkMessage::NewAddress(address_alone(device, address));
        self.change(message, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Takes an address alone from a device.
    pub fn delete_address(&mut self, device: u32, address: IpAddr) -> io::Result<()> {
        self.change(RouteNetlinkMessage::DelAddress(address_alone(device, address)), 0)
    }

    /// Sets a device up or down.
    pub fn set_up(&mut self, device: u32, up: bool) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = device;
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        self.change(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Puts a program on a device, in the place of what is there. `native`: in its driver, else behind it.
    ///
    /// It stays without anybody holding it, and goes with the device: a real server needs no BPF file system.
    pub fn attach_xdp(&mut self, device: u32, program: BorrowedFd<'_>, native: bool) -> io::Result<()> {
        self.set_xdp(device, program.as_raw_fd(), native)
    }

    /// Takes the program from a device.
    pub fn detach_xdp(&mut self, device: u32) -> io::Result<()> {
        // Whichever way it was attached; there is only one.
        self.set_xdp(device, -1, true)?;
        self.set_xdp(device, -1, false)
    }

    fn set_xdp(&mut self, device: u32, fd: i32, native: bool) -> io::Result<()> {
        const SKB_MODE: u32 = 1 << 1;
        const DRV_MODE: u32 = 1 << 2;
        let mut message = LinkMessage::default();
        message.header.index = device;
        let mode = if native { DRV_MODE } else { SKB_MODE };
        message.attributes.push(LinkAttribute::Xdp(vec![LinkXdp::Fd(fd), LinkXdp::Flags(mode)]));
        self.change(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// The main table's routes of the family of this prefix to just this prefix.
    pub fn routes_to(&mut self, to: IpNet) -> io::Result<Vec<Row>> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(to.addr());
        let parts = self.dump(RouteNetlinkMessage::GetRoute(message))?;
        Ok(parts.iter().filter_map(row).filter(|row| row.to == to).collect())
    }

    /// Makes a route of the main table, in the place of one to the same prefix with the same metric.
    pub fn replace_route(&mut self, to: IpNet, gateway: IpAddr, metric: u32) -> io::Result<()> {
        let message = RouteNetlinkMessage::NewRoute(route_by(to, gateway, metric));
        self.change(message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Makes a route again as it was told.
    pub fn restore_route(&mut self, raw: &[u8]) -> io::Result<()> {
        let mut payload = raw.to_vec();
        // Of the flags (`rtm_flags`) only "onlink" is the operator's; the others say how the route is faring.
        const RTNH_F_ONLINK: u8 = 4;
        if let Some(flags) = payload.get_mut(8..12) {
            flags.copy_from_slice(&[flags[0] & RTNH_F_ONLINK, 0, 0, 0]);
        }
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.sequence += 1;
        let mut bytes = Vec::new();
        bytes.extend((16 + payload.len() as u32).to_ne_bytes());
        bytes.extend(libc::RTM_NEWROUTE.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(self.sequence.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend(payload);
        self.socket.send(&bytes, 0)?;
        self.answer().map(drop)
    }

    /// Takes a route of the main table away.
    pub fn delete_route(&mut self, to: IpNet, gateway: IpAddr, metric: u32) -> io::Result<()> {
        self.change(RouteNetlinkMessage::DelRoute(route_by(to, gateway, metric)), 0)
    }

    /// How somebody is reached, from this address if it is told. The error is the kernel's: there may be no way.
    pub fn way_to(&mut self, to: IpAddr, from: Option<IpAddr>) -> io::Result<Way> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(to);
        message.header.destination_prefix_length = if to.is_ipv4() { 32 } else { 128 };
        message.attributes.push(RouteAttribute::Destination(to.into()));
        if let Some(from) = from {
            message.header.source_prefix_length = if from.is_ipv4() { 32 } else { 128 };
            message.attributes.push(RouteAttribute::Source(from.into()));
        }
        self.send(RouteNetlinkMessage::GetRoute(message), 0)?;
        let parts = self.answer()?;
        let Some(RouteNetlinkMessage::NewRoute(message)) = parts.first().and_then(Part::decode) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        Ok(way(&message))
    }

    /// The MACs of all neighbours that are known, by device and address.
    pub fn neighbours(&mut self) -> io::Result<BTreeMap<(u32, IpAddr), Mac>> {
        let parts = self.dump(RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()))?;
        Ok(parts.iter().filter_map(neighbour).collect())
    }

    fn dump(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<Part>> {
        self.send(message, NLM_F_DUMP)?;
        self.answer()
    }

    fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.send(message, NLM_F_ACK | flags)?;
        self.answer().map(drop)
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, message.into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(drop)
    }

    /// Takes all parts of the answer to the last question.
    fn answer(&mut self) -> io::Result<Vec<Part>> {
        let mut parts = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while let Ok(buffer) = NetlinkBuffer::new_checked(rest) {
                let length = (buffer.length() as usize).next_multiple_of(4);
                let is_ours = buffer.sequence_number() == self.sequence;
                let several = buffer.flags() & libc::NLM_F_MULTI as u16 != 0;
                let (kind, payload) = (buffer.message_type(), buffer.payload().to_vec());
                rest = rest.get(length..).unwrap_or_default();
                if !is_ours {
                    continue;
                }
                match i32::from(kind) {
                    libc::NLMSG_ERROR | libc::NLMSG_DONE => return ended(&payload).map(|()| parts),
                    _ => parts.push(Part { kind, payload }),
                }
                if !several {
                    return Ok(parts);
                }
            }
        }
    }
}

/// The kernel's word at the end of an answer: 0, or an error number below it.
fn ended(payload: &[u8]) -> io::Result<()> {
    match payload.first_chunk().copied().map_or(0, i32::from_ne_bytes) {
        code if code < 0 => Err(io::Error::from_raw_os_error(-code)),
        _ => Ok(()),
    }
}

/// `struct ifinfomsg`.
const IFINFOMSG: usize = 16;

/// By hand: the general decoder fails as a whole on one attribute that it reads differently from the kernel at hand, and links
/// have over sixty.
fn device(payload: &[u8]) -> Option<Device> {
    let (header, attributes) = payload.split_at_checked(IFINFOMSG)?;
    let word = |at: usize| Some(u32::from_ne_bytes(header.get(at..at + 4)?.try_into().ok()?));
    let flags = word(8)?;
    let is_silent = flags & libc::IFF_NOARP as u32 != 0;
    let is_ethernet = header.get(2..4)? == libc::ARPHRD_ETHER.to_ne_bytes() && !is_silent;
    let (mut name, mut mtu, mut program) = (None, None, None);
    for attribute in NlasIterator::new(attributes).flatten() {
        match attribute.kind() {
            libc::IFLA_IFNAME => name = Some(text(attribute.value())),
            libc::IFLA_MTU => mtu = attribute.value().try_into().ok().map(u32::from_ne_bytes),
            libc::IFLA_XDP => program = program_in(attribute.value()),
            _ => {}
        }
    }
    Some(Device {
        name: name?,
        index: word(4)?,
        is_ethernet,
        is_up: flags & libc::IFF_UP as u32 != 0,
        mtu: mtu?,
        program,
    })
}

fn program_in(nested: &[u8]) -> Option<u32> {
    const IFLA_XDP_PROG_ID: u16 = 4;
    let attribute = NlasIterator::new(nested).flatten().find(|a| a.kind() == IFLA_XDP_PROG_ID)?;
    attribute.value().try_into().ok().map(u32::from_ne_bytes)
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

/// On a point-to-point link `Address` is the peer's, and `Local` ours.
fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

fn address_alone(device: u32, address: IpAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.index = device;
    message.header.prefix_len = if address.is_ipv4() { 32 } else { 128 };
    if address.is_ipv4() {
        message.attributes.push(AddressAttribute::Local(address));
    } else {
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message.attributes.push(AddressAttribute::Address(address));
    message
}

fn route_by(to: IpNet, gateway: IpAddr, metric: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(gateway);
    message.header.destination_prefix_length = to.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    if to.prefix_len() != 0 {
        message.attributes.push(RouteAttribute::Destination(to.addr().into()));
    }
    message.attributes.push(RouteAttribute::Gateway(gateway.into()));
    if metric != 0 {
        message.attributes.push(RouteAttribute::Priority(metric));
    }
    message
}

fn row(part: &Part) -> Option<Row> {
    let RouteNetlinkMessage::NewRoute(message) = part.decode()? else { return None };
    let table = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    if table.unwrap_or(u32::from(message.header.table)) != u32::from(RouteHeader::RT_TABLE_MAIN) {
        return None;
    }
    let everything = match message.header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        AddressFamily::Inet6 => IpAddr::from([0; 16]),
        _ => return None,
    };
    let (mut to, mut gateway, mut metric) = (everything, None, 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => to = ip(address)?,
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Priority(priority) => metric = *priority,
            _ => {}
        }
    }
    let to = IpNet::new(to, message.header.destination_prefix_length).ok()?;
    Some(Row { to, gateway, metric, raw: part.payload.clone() })
}

fn neighbour(part: &Part) -> Option<((u32, IpAddr), Mac)> {
    let RouteNetlinkMessage::NewNeighbour(message) = part.decode()? else { return None };
    let is_known = !matches!(message.header.state, NeighbourState::Incomplete | NeighbourState::Failed);
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok().map(Mac),
            _ => {}
        }
    }
    is_known.then_some(((message.header.ifindex, address?), mac?))
}

fn way(message: &RouteMessage) -> Way {
    let mut way = Way::default();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Gateway(address) => way.gateway = ip(address),
            RouteAttribute::Oif(device) => way.device = *device,
            RouteAttribute::PrefSource(address) => way.source = ip(address),
            RouteAttribute::Metrics(metrics) => metrics.iter().for_each(|metric| match metric {
                RouteMetric::Mtu(mtu) if *mtu != 0 => way.mtu = Some(*mtu),
                RouteMetric::Advmss(mss) if *mss != 0 => way.advertised_mss = Some(*mss),
                _ => {}
            }),
            _ => {}
        }
    }
    way
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}
