//! Addresses with ports, as operators write them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use xlvs_model::spec::Protocol;

use crate::names::Resolver;
use crate::number;

/// An address, and a port if one was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) addr: IpAddr,
    pub(crate) port: Option<u16>,
}

/// Reads `host`, `host:port`, `[v6]:port` or a bare IPv6 address.
///
/// Brackets only count around an IPv6 address, which then must have a port; a bare number is no address.
pub(crate) fn parse(text: &[u8], protocol: Option<Protocol>, names: &dyn Resolver) -> Option<Address> {
    if text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let (host, bracketed_port) = match text {
        [b'[', inner @ ..] => split_brackets(inner)?,
        _ => (text, None),
    };
    if let Some(addr) = ipv6(host) {
        let port = bracketed_port.map(|port| parse_port(port, protocol, names));
        return with_port(IpAddr::V6(addr), port);
    }
    let (host, port) = match host.iter().rposition(|&byte| byte == b':') {
        Some(at) => (&host[..at], Some(&host[at + 1..])),
        None => (host, None),
    };
    let addr = inet_aton(host).or_else(|| names.host_address(std::str::from_utf8(host).ok()?))?;
    with_port(IpAddr::V4(addr), port.map(|port| parse_port(port, protocol, names)))
}

fn with_port(addr: IpAddr, port: Option<Option<u16>>) -> Option<Address> {
    match port {
        Some(None) => None,
        Some(port) => Some(Address { addr, port }),
        None => Some(Address { addr, port: None }),
    }
}

fn split_brackets(inner: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let end = inner.iter().position(|&byte| byte == b']')?;
    let [b':', port @ ..] = &inner[end + 1..] else { return None };
    Some((&inner[..end], Some(port)))
}

fn ipv6(text: &[u8]) -> Option<Ipv6Addr> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn parse_port(text: &[u8], protocol: Option<Protocol>, names: &dyn Resolver) -> Option<u16> {
    match number::whole(text, 0, i64::from(u16::MAX)) {
        Some(port) => u16::try_from(port).ok(),
        None => names.service_port(std::str::from_utf8(text).ok()?, protocol?),
    }
}

/// An IPv4 address of one to four numbers in decimal, octal or hexadecimal, the last of which fills what the others
/// leave; anything may follow it after a blank.
pub(crate) fn inet_aton(text: &[u8]) -> Option<Ipv4Addr> {
    let end = text.iter().position(|&byte| number::is_space(byte)).unwrap_or(text.len());
    let text = std::str::from_utf8(&text[..end]).ok()?;
    let parts: Vec<u32> = text.split('.').map(c_number).collect::<Option<_>>()?;
    let (&last, bytes) = parts.split_last()?;
    let last_bits = 32_u32.checked_sub(8 * u32::try_from(bytes.len()).ok()?).filter(|&bits| bits > 0)?;
    if u64::from(last) >= 1 << last_bits {
        return None;
    }
    let mut addr = last;
    for (at, &byte) in bytes.iter().enumerate() {
        addr |= u32::from(u8::try_from(byte).ok()?) << (24 - 8 * at);
    }
    Some(Ipv4Addr::from(addr))
}

fn c_number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', _, ..] => (&text[2..], 16),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    // `from_str_radix` would take a sign.
    if !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}
