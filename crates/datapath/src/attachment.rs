//! Where the kernel runs an interface's XDP program: a link that is taken over does not tell.

use std::io;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// Does the driver run it (native mode), or what comes after the driver (generic)?
pub(crate) fn is_native(ifindex: u32) -> io::Result<bool> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&question(ifindex), 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer);
    match answer.map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Ok(runs_in_driver(&link)),
        NetlinkPayload::Error(why) => Err(why.to_io()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn question(ifindex: u32) -> Vec<u8> {
    let mut link = LinkMessage::default();
    link.header.index = ifindex;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let mut message = NetlinkMessage::new(header, RouteNetlinkMessage::GetLink(link).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn runs_in_driver(link: &LinkMessage) -> bool {
    let xdp = link.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::Xdp(xdp) => Some(xdp),
        _ => None,
    });
    let attached = xdp.flatten().find_map(|xdp| match xdp {
        LinkXdp::Attached(attached) => Some(attached),
        _ => None,
    });
    matches!(attached, Some(XdpAttached::Driver | XdpAttached::Hardware))
}
