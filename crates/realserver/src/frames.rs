//! Whole frames, sent and heard on a device.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use xlvs_core::checksum::{Sum, sum_of_bytes};

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A socket that sees whole frames, of one device or of all. It does not wait.
pub(crate) fn frames_of(link: Option<&LinkAddr>) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, Some(SockProtocol::EthAll))?;
    if let Some(link) = link {
        bind(socket.as_raw_fd(), link)?;
    }
    Ok(socket)
}

/// What has come since the last time.
pub(crate) fn received(socket: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut frames = Vec::new();
    let mut buffer = [0; 2048];
    loop {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => frames.push(buffer.get(..length).unwrap_or_default().to_vec()),
            Err(Errno::EAGAIN) => return Ok(frames),
            Err(why) => return Err(why.into()),
        }
    }
}

/// A device's address as sockets name it, and its MAC.
pub(crate) fn link(device: &str) -> io::Result<(LinkAddr, Mac)> {
    let own = getifaddrs()?.filter(|own| own.interface_name == device);
    let link = own.filter_map(|own| own.address?.as_link_addr().copied()).next();
    let found = link.and_then(|link| Some((link, Mac(link.addr()?))));
    found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{device} has no MAC")))
}

/// A device's own address of its link alone, from which IPv6 asks neighbours (RFC 4861 4.3). `None`: it does not speak IPv6.
pub(crate) fn link_local(device: &str) -> io::Result<Option<Ipv6Addr>> {
    let own = getifaddrs()?.filter(|own| own.interface_name == device);
    let mut addresses = own.filter_map(|own| own.address?.as_sockaddr_in6().map(|address| address.ip()));
    Ok(addresses.find(Ipv6Addr::is_unicast_link_local))
}

/// An address's bytes.
pub(crate) fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The Internet checksum (RFC 1071).
pub(crate) fn checksum(bytes: &[u8]) -> [u8; 2] {
    Sum::of(sum_of_bytes(bytes)).checksum()
}

/// A fixed IPv6 header before so many bytes (RFC 8200 3).
pub(crate) fn v6_header(from: IpAddr, to: IpAddr, protocol: u8, hops: u8, payload: u16) -> Vec<u8> {
    let [high, low] = payload.to_be_bytes();
    [&[0x60, 0, 0, 0, high, low, protocol, hops][..], &bytes(from), &bytes(to)].concat()
}

/// What TCP, UDP and ICMPv6 sum besides themselves.
pub(crate) fn pseudo_header(from: IpAddr, to: IpAddr, protocol: u8, payload: u16) -> Vec<u8> {
    [&bytes(from)[..], &bytes(to), &[0, protocol], &payload.to_be_bytes()].concat()
}
