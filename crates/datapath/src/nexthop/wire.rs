//! Between rtnetlink's bytes and the resolver's words.

use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader,
    NetlinkMessage, NlasIterator, ParseableParametrized,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::LinkMessage,
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
        NeighbourState,
    },
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteProtocol, RouteType, RouteVia},
};
use nix::libc;

use super::{
    Above, Arrival, Dump, Event, Link, Mac, Neighbour, NeighbourKey, Nud, Prefix, Question, Reason, Request,
    Route, Upkeep, unspecified_like,
};

/// Our mark on neighbour entries (`NDA_PROTOCOL`), out of the numbers that iproute2's `rt_protos` leaves
/// free. `ip neigh` shows it as `proto 76`.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(76);

const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;

/// The notification groups to join, as the bit mask that `bind` takes.
pub(super) const GROUPS: u32 = {
    let groups = [
        libc::RTNLGRP_LINK,
        libc::RTNLGRP_NEIGH,
        libc::RTNLGRP_IPV4_IFADDR,
        libc::RTNLGRP_IPV4_ROUTE,
        libc::RTNLGRP_IPV4_RULE,
        libc::RTNLGRP_IPV6_IFADDR,
        libc::RTNLGRP_IPV6_ROUTE,
        libc::RTNLGRP_IPV6_RULE,
        libc::RTNLGRP_NEXTHOP,
    ];
    let (mut mask, mut i) = (0, 0);
    while i < groups.len() {
        mask |= 1 << (groups[i] - 1);
        i += 1;
    }
    mask
};

/// One message of a datagram, undecoded.
///
/// Decoding waits until it is known what the message is for: a row that cannot be read must not take the end
/// of its dump with it.
pub(super) struct Frame<'a> {
    kind: u16,
    flags: u16,
    /// The request this replies to, if `port` is ours.
    pub(super) sequence: u32,
    /// The socket whose request caused the message; 0 for the kernel itself.
    pub(super) port: u32,
    payload: &'a [u8],
}

/// The messages of a datagram.
pub(super) fn frames(mut datagram: &[u8]) -> Vec<Frame<'_>> {
    let mut frames = Vec::new();
    while let Ok(buffer) = NetlinkBuffer::new_checked(datagram) {
        let length = buffer.length() as usize;
        frames.push(Frame {
            kind: buffer.message_type(),
            flags: buffer.flags(),
            sequence: buffer.sequence_number(),
            port: buffer.port_number(),
            payload: buffer.payload(),
        });
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    frames
}

/// How a reply ends a request, or does not.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// More is to come.
    NotYet,
    /// Success, or the end of a dump.
    Done,
    /// The kernel's error number.
    Failed(i32),
}

impl Frame<'_> {
    /// Whether the table changed while it was dumped (`NLM_F_DUMP_INTR`), so that rows may be missing.
    pub(super) fn is_interrupted(&self) -> bool {
        self.flags & libc::NLM_F_DUMP_INTR as u16 != 0
    }

    pub(super) fn ending(&self) -> Ending {
        let code = || {
            let code = self.payload.first_chunk().copied().map_or(0, i32::from_ne_bytes);
            if code == 0 { Ending::Done } else { Ending::Failed(code.saturating_neg()) }
        };
        match i32::from(self.kind) {
            libc::NLMSG_ERROR | libc::NLMSG_DONE => code(),
            _ => Ending::NotYet,
        }
    }

    /// What a notification, or a row of a dump, tells.
    pub(super) fn news(&self) -> Option<Event> {
        match self.kind {
            // By hand: the general decoder fails as a whole on one attribute it reads differently from the
            // kernel at hand, and links have over sixty. We need six.
            libc::RTM_NEWLINK => link(self.payload).map(Event::Link),
            libc::RTM_DELLINK => link(self.payload).map(|link| Event::LinkGone(link.ifindex)),
            // Next hop objects, which the decoder does not know.
            RTM_NEWNEXTHOP | RTM_DELNEXTHOP => Some(Event::RoutingChanged),
            _ => news_of(self.decode()?),
        }
    }

    /// The route that answers the question about `addr`.
    pub(super) fn route_answer(&self, addr: IpAddr) -> Event {
        Event::RouteAnswer { addr, answer: self.route() }
    }

    /// The route that answers a question.
    pub(super) fn route(&self) -> Result<Route, Reason> {
        match (self.ending(), self.decode()) {
            (Ending::Failed(errno), _) => Err(reason_for(errno)),
            (_, Some(RouteNetlinkMessage::NewRoute(message))) => route(&message),
            _ => Err(Reason::LookUpFailed { errno: libc::EBADMSG }),
        }
    }

    /// The neighbour that answers a question.
    pub(super) fn neighbour(&self) -> Option<Neighbour> {
        match self.decode()? {
            RouteNetlinkMessage::NewNeighbour(message) => neighbour(&message),
            _ => None,
        }
    }

    fn decode(&self) -> Option<RouteNetlinkMessage> {
        RouteNetlinkMessage::parse_with_param(self.payload, self.kind).ok()
    }
}

fn news_of(message: RouteNetlinkMessage) -> Option<Event> {
    use RouteNetlinkMessage as M;
    match message {
        M::NewNeighbour(message) => neighbour(&message).map(Event::Neighbour),
        M::DelNeighbour(message) => neighbour(&message).map(|entry| Event::NeighbourGone(entry.key)),
        M::NewRoute(message) | M::DelRoute(message) => prefix(&message).map(Event::RoutesChanged),
        M::NewRule(_) | M::DelRule(_) => Some(Event::RoutingChanged),
        M::NewAddress(message) | M::DelAddress(message) => {
            let addr = own_address(&message)?;
            Some(Event::AddressChanged { ifindex: message.header.index, addr })
        }
        _ => None,
    }
}

// Links.

/// `struct ifinfomsg`.
const IFINFOMSG: usize = 16;

fn link(payload: &[u8]) -> Option<Link> {
    let (header, attributes) = payload.split_at_checked(IFINFOMSG)?;
    let word = |at: usize| Some(u32::from_ne_bytes(header.get(at..at + 4)?.try_into().ok()?));
    // A bridge reports its ports in the family AF_BRIDGE; a port that leaves is "deleted" there, while the
    // interface lives on.
    if i32::from(*header.first()?) != libc::AF_UNSPEC {
        return None;
    }
    let is_ethernet = header.get(2..4)? == libc::ARPHRD_ETHER.to_ne_bytes();
    let (ifindex, flags) = (word(4)?, word(8)?);
    let (mut name, mut mac, mut mtu) = (None, None, None);
    let (mut lower, mut is_elsewhere, mut info) = (None, false, None);
    for attribute in NlasIterator::new(attributes).flatten() {
        let value = attribute.value();
        match attribute.kind() {
            libc::IFLA_IFNAME => name = Some(text(value)),
            libc::IFLA_ADDRESS => mac = Mac::try_from(value).ok(),
            libc::IFLA_MTU => mtu = value.try_into().ok().map(u32::from_ne_bytes),
            libc::IFLA_LINK => lower = value.try_into().ok().map(u32::from_ne_bytes),
            // The interface below is in another network namespace, and its number is one of that.
            libc::IFLA_LINK_NETNSID => is_elsewhere = true,
            libc::IFLA_LINKINFO => info = tag(value),
            _ => {}
        }
    }
    Some(Link {
        ifindex,
        // Messages without these are about something else (wireless events).
        name: name?,
        mtu: mtu?,
        mac: mac.filter(|_| is_ethernet),
        up: flags & libc::IFF_UP as u32 != 0,
        carrier: flags & libc::IFF_LOWER_UP as u32 != 0,
        vlan: lower.filter(|_| !is_elsewhere).zip(info).map(|(lower, (kind, id))| Above { lower, kind, id }),
    })
}

/// `IFLA_VLAN_ID` and `IFLA_VLAN_PROTOCOL`.
const VLAN_ID: u16 = 1;
const VLAN_PROTOCOL: u16 = 5;

/// The EtherType and the identifier of a VLAN device's tag.
fn tag(info: &[u8]) -> Option<(u16, u16)> {
    let attribute = |of: &[u8], kind: u16| {
        let found = NlasIterator::new(of).flatten().find(|attribute| attribute.kind() == kind)?;
        Some(found.value().to_vec())
    };
    if text(&attribute(info, libc::IFLA_INFO_KIND)?) != "vlan" {
        return None;
    }
    let data = attribute(info, libc::IFLA_INFO_DATA)?;
    let id = u16::from_ne_bytes(attribute(&data, VLAN_ID)?.try_into().ok()?);
    let kind = u16::from_be_bytes(attribute(&data, VLAN_PROTOCOL)?.try_into().ok()?);
    Some((kind, id))
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

// Neighbours.

fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let header = &message.header;
    if header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let (mut addr, mut mac, mut managed, mut ours) = (None, None, false, false);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => addr = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => addr = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = Mac::try_from(bytes.as_slice()).ok(),
            NeighbourAttribute::ExtFlags(flags) => managed = flags.contains(NeighbourExtFlags::Managed),
            NeighbourAttribute::Protocol(protocol) => ours = *protocol == PROTOCOL,
            _ => {}
        }
    }
    let key = NeighbourKey { ifindex: header.ifindex, addr: addr? };
    Some(Neighbour { key, nud: nud(header.state), mac, managed, ours })
}

fn nud(state: NeighbourState) -> Nud {
    match state {
        NeighbourState::Incomplete => Nud::Incomplete,
        NeighbourState::Reachable => Nud::Reachable,
        NeighbourState::Stale => Nud::Stale,
        NeighbourState::Delay => Nud::Delay,
        NeighbourState::Probe => Nud::Probe,
        NeighbourState::Failed => Nud::Failed,
        NeighbourState::Noarp => Nud::NoArp,
        NeighbourState::Permanent => Nud::Permanent,
        _ => Nud::None,
    }
}

// Routes and addresses.

fn route(message: &RouteMessage) -> Result<Route, Reason> {
    match message.header.kind {
        RouteType::Unicast => unicast_route(message),
        RouteType::Local => Err(Reason::Local),
        RouteType::Broadcast | RouteType::Anycast | RouteType::Multicast => Err(Reason::NotAHost),
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit => Err(Reason::Blocked),
        _ => Err(Reason::NoRoute),
    }
}

fn unicast_route(message: &RouteMessage) -> Result<Route, Reason> {
    let (mut ifindex, mut gateway, mut mtu, mut source) = (None, None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => ifindex = Some(*index),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Via(RouteVia::Inet(v4)) => gateway = Some(IpAddr::V4(*v4)),
            RouteAttribute::Via(RouteVia::Inet6(v6)) => gateway = Some(IpAddr::V6(*v6)),
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Metrics(metrics) => mtu = metrics.iter().find_map(stated_mtu),
            RouteAttribute::EncapType(_) => return Err(Reason::Encapsulated),
            _ => {}
        }
    }
    let ifindex = ifindex.ok_or(Reason::NoRoute)?;
    Ok(Route { ifindex, gateway, mtu, source })
}

fn stated_mtu(metric: &RouteMetric) -> Option<u32> {
    match metric {
        RouteMetric::Mtu(mtu) if *mtu != 0 => Some(*mtu),
        _ => None,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

/// The errors by which `fib_table_lookup` speaks of routes of a forbidding type.
fn reason_for(errno: i32) -> Reason {
    match errno {
        libc::ENETUNREACH => Reason::NoRoute,
        libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL => Reason::Blocked,
        _ => Reason::LookUpFailed { errno },
    }
}

fn prefix(message: &RouteMessage) -> Option<Prefix> {
    let destination = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => ip(address),
        _ => None,
    });
    let default = match message.header.address_family {
        AddressFamily::Inet => unspecified_like(IpAddr::from([0; 4])),
        AddressFamily::Inet6 => unspecified_like(IpAddr::from([0; 16])),
        _ => return None,
    };
    let len = message.header.destination_prefix_length;
    Some(Prefix { addr: destination.unwrap_or(default), len })
}

/// On a point-to-point link `Address` is the peer's, and `Local` ours.
fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(addr) => Some(*addr),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(addr) => Some(*addr),
            _ => None,
        })
    })
}

// Requests.

/// The bytes of a request.
pub(super) fn encode(request: &Request, sequence: u32) -> Vec<u8> {
    let (message, flags) = match request {
        Request::Dump(Dump::Links) => (RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP),
        Request::Dump(Dump::Neighbours) => {
            (RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()), NLM_F_DUMP)
        }
        Request::Route(addr) => return route_request(&Question::to(*addr), sequence),
        Request::Neighbour { key, upkeep } => {
            let message = RouteNetlinkMessage::NewNeighbour(neighbour_request(key, *upkeep));
            (message, NLM_F_ACK | creation(*upkeep))
        }
    };
    serialized(message, flags, sequence)
}

/// The bytes of a question for a way.
pub(super) fn route_request(question: &Question, sequence: u32) -> Vec<u8> {
    serialized(RouteNetlinkMessage::GetRoute(route_question(question)), 0, sequence)
}

/// The bytes of a question about one neighbour's entry.
pub(super) fn neighbour_question(key: NeighbourKey, sequence: u32) -> Vec<u8> {
    let mut message = NeighbourMessage::default();
    message.header.family = family(key.addr);
    message.header.ifindex = key.ifindex;
    message.attributes.push(neighbour_address(key.addr));
    serialized(RouteNetlinkMessage::GetNeighbour(message), 0, sequence)
}

fn serialized(message: RouteNetlinkMessage, flags: u16, sequence: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, message.into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn route_question(question: &Question) -> RouteMessage {
    let Question { to, from, mark } = *question;
    let bits = if to.is_ipv4() { 32 } else { 128 };
    let mut message = RouteMessage::default();
    message.header.address_family = family(to);
    message.header.destination_prefix_length = bits;
    message.attributes.push(RouteAttribute::Destination(to.into()));
    if let Some(Arrival { addr, ifindex }) = from {
        message.header.source_prefix_length = bits;
        message.attributes.extend([RouteAttribute::Source(addr.into()), RouteAttribute::Iif(ifindex)]);
    }
    if mark != 0 {
        message.attributes.push(RouteAttribute::Mark(mark));
    }
    message
}

fn creation(upkeep: Upkeep) -> u16 {
    match upkeep {
        Upkeep::CreateManaged => NLM_F_CREATE | NLM_F_EXCL,
        Upkeep::Probe => NLM_F_CREATE,
        Upkeep::Manage | Upkeep::Release => 0,
    }
}

/// `NTF_USE` is in all of them: with it the kernel leaves the entry's state as it is and starts resolving;
/// without it, a kernel before 5.16 (which ignores the managed flag) would reset the entry. Flags that are
/// not given are cleared, which is how an entry is released.
fn neighbour_request(key: &NeighbourKey, upkeep: Upkeep) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(key.addr);
    message.header.ifindex = key.ifindex;
    message.header.flags = NeighbourFlags::Use;
    message.attributes.push(neighbour_address(key.addr));
    if matches!(upkeep, Upkeep::CreateManaged | Upkeep::Manage) {
        message.header.flags |= NeighbourFlags::ExtLearned;
        message.attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
        message.attributes.push(NeighbourAttribute::Protocol(PROTOCOL));
    }
    message
}

fn neighbour_address(addr: IpAddr) -> NeighbourAttribute {
    NeighbourAttribute::Destination(match addr {
        IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
        IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
    })
}

fn family(addr: IpAddr) -> AddressFamily {
    match addr {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: NeighbourKey =
        NeighbourKey { ifindex: 7, addr: IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 0, 11)) };

    /// A link message: header, then name, MTU and Ethernet address.
    fn link_message(family: i32, hardware: u16, flags: i32) -> Vec<u8> {
        let mut bytes = vec![family as u8, 0];
        bytes.extend(hardware.to_ne_bytes());
        bytes.extend(7u32.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(u32::MAX.to_ne_bytes());
        for (kind, value) in [
            (libc::IFLA_IFNAME, b"l1\0".as_slice()),
            (libc::IFLA_MTU, &1400u32.to_ne_bytes()),
            (libc::IFLA_ADDRESS, &[2, 0, 0, 0, 0, 1]),
        ] {
            bytes.extend((4 + value.len() as u16).to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    fn frame(kind: u16, payload: &[u8]) -> Frame<'_> {
        Frame { kind, flags: 0, sequence: 0, port: 0, payload }
    }

    #[test]
    fn a_link_is_read() {
        let up = libc::IFF_UP | libc::IFF_LOWER_UP;
        let bytes = link_message(libc::AF_UNSPEC, libc::ARPHRD_ETHER, up);
        let mac = Some([2, 0, 0, 0, 0, 1]);
        let expected =
            Link { ifindex: 7, name: "l1".into(), mac, mtu: 1400, up: true, carrier: true, vlan: None };
        assert_eq!(frame(libc::RTM_NEWLINK, &bytes).news(), Some(Event::Link(expected)));
        assert_eq!(frame(libc::RTM_DELLINK, &bytes).news(), Some(Event::LinkGone(7)));
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = [(4 + value.len() as u16).to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_vlan_device_says_what_it_is_above() {
        let data =
            [attribute(VLAN_ID, &100u16.to_ne_bytes()), attribute(VLAN_PROTOCOL, &[0x88, 0xa8])].concat();
        let info =
            |kind| [attribute(libc::IFLA_INFO_KIND, kind), attribute(libc::IFLA_INFO_DATA, &data)].concat();
        let link_of = |attributes: &[Vec<u8>]| {
            let mut bytes = link_message(libc::AF_UNSPEC, libc::ARPHRD_ETHER, libc::IFF_UP);
            bytes.extend(attributes.concat());
            link(&bytes).and_then(|link| link.vlan)
        };
        let lower = attribute(libc::IFLA_LINK, &3u32.to_ne_bytes());
        let vlan = attribute(libc::IFLA_LINKINFO, &info(b"vlan\0"));
        let expected = Some(Above { lower: 3, kind: 0x88a8, id: 100 });
        assert_eq!(link_of(&[lower.clone(), vlan.clone()]), expected);
        let elsewhere = attribute(libc::IFLA_LINK_NETNSID, &0u32.to_ne_bytes());
        assert_eq!(link_of(&[lower.clone(), elsewhere, vlan]), None);
        let macvlan = attribute(libc::IFLA_LINKINFO, &info(b"macvlan\0"));
        assert_eq!(link_of(&[lower, macvlan]), None);
    }

    #[test]
    fn a_bridge_that_loses_a_port_does_not_lose_the_interface() {
        let bytes = link_message(libc::AF_BRIDGE, libc::ARPHRD_ETHER, libc::IFF_UP);
        assert_eq!(frame(libc::RTM_DELLINK, &bytes).news(), None);
    }

    #[test]
    fn a_tunnels_address_is_no_ethernet_address_even_if_it_is_six_bytes_long() {
        let bytes = link_message(libc::AF_UNSPEC, libc::ARPHRD_TUNNEL6, libc::IFF_UP);
        let news = frame(libc::RTM_NEWLINK, &bytes).news();
        assert!(matches!(news, Some(Event::Link(Link { mac: None, up: true, carrier: false, .. }))));
    }

    #[test]
    fn truncated_messages_are_ignored() {
        let bytes = link_message(libc::AF_UNSPEC, libc::ARPHRD_ETHER, libc::IFF_UP);
        for length in 0..IFINFOMSG {
            assert_eq!(frame(libc::RTM_NEWLINK, &bytes[..length]).news(), None);
            assert_eq!(frame(libc::RTM_NEWNEIGH, &bytes[..length]).news(), None);
        }
        let request = encode(&Request::Route(SERVER.addr), 5);
        for length in 0..request.len() {
            assert!(frames(&request[..length]).is_empty());
        }
    }

    #[test]
    fn a_datagram_may_hold_several_messages() {
        let mut datagram = encode(&Request::Dump(Dump::Links), 5);
        datagram.extend(encode(&Request::Dump(Dump::Neighbours), 6));
        let sequences: Vec<_> = frames(&datagram).iter().map(|frame| frame.sequence).collect();
        assert_eq!(sequences, [5, 6]);
    }

    #[test]
    fn errors_end_a_request_and_name_the_reason() {
        let refused = (-libc::EHOSTUNREACH).to_ne_bytes();
        let frame = frame(libc::NLMSG_ERROR as u16, &refused);
        assert_eq!(frame.ending(), Ending::Failed(libc::EHOSTUNREACH));
        let expected = Event::RouteAnswer { addr: SERVER.addr, answer: Err(Reason::Blocked) };
        assert_eq!(frame.route_answer(SERVER.addr), expected);
    }

    #[test]
    fn every_neighbour_request_keeps_the_entrys_state() {
        for upkeep in [Upkeep::CreateManaged, Upkeep::Manage, Upkeep::Probe, Upkeep::Release] {
            let message = neighbour_request(&SERVER, upkeep);
            assert!(message.header.flags.contains(NeighbourFlags::Use), "{upkeep:?}");
            let managed = neighbour(&message).is_some_and(|entry| entry.managed && entry.ours);
            assert_eq!(managed, matches!(upkeep, Upkeep::CreateManaged | Upkeep::Manage), "{upkeep:?}");
        }
        assert_eq!(
            creation(Upkeep::CreateManaged),
            NLM_F_CREATE | NLM_F_EXCL,
            "never over an operator's entry"
        );
    }
}
