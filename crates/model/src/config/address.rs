//! Addresses and ports, with what is wrong about them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::entry::Entry;

/// Reads `192.0.2.10:80`, `[2001:db8::10]:80`, or an address alone.
pub(super) fn parse(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let Some((addr, rest)) = rest.split_once(']') else {
            return Err(format!("\"{text}\" lacks its ]; write [2001:db8::10]:80"));
        };
        let addr = addr.parse::<Ipv6Addr>().map_err(|_| format!("\"{addr}\" is no IPv6 address"))?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((addr.into(), Some(parse_port(port)?))),
            None if rest.is_empty() => Ok((addr.into(), None)),
            None => Err(format!("\"{text}\" is no address; write [2001:db8::10]:80")),
        };
    }
    if let Ok(addr) = text.parse::<IpAddr>() {
        return Ok((addr, None));
    }
    let (addr, port) = text.rsplit_once(':').map_or((text, None), |(addr, port)| (addr, Some(port)));
    if addr.contains(':') {
        return Err(format!("\"{text}\" is no IPv6 address; with a port it is written [2001:db8::10]:80"));
    }
    let addr = addr.parse::<Ipv4Addr>().map_err(|_| not_ipv4(addr))?;
    Ok((addr.into(), port.map(parse_port).transpose()?))
}

fn not_ipv4(text: &str) -> String {
    if text.is_empty() {
        return "an address is missing; write 192.0.2.10:80".to_owned();
    }
    if text.contains(|c: char| c.is_ascii_alphabetic()) {
        return format!("\"{text}\" is a name; write its address, such as 192.0.2.10");
    }
    format!("\"{text}\" is no IPv4 address: it is four numbers from 0 to 255")
}

fn parse_port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("\"{text}\" is no port: it is a number up to 65535"))
}

/// The same of a value.
pub(super) fn with_port(entry: &Entry<'_>) -> Option<(IpAddr, Option<u16>)> {
    let text = entry.string("an address such as \"192.0.2.10:80\"")?;
    parse(text).map_err(|why| entry.wrong(why)).ok()
}

/// An address without a port.
pub(super) fn alone(entry: &Entry<'_>) -> Option<IpAddr> {
    match with_port(entry)? {
        (addr, None) => Some(addr),
        (addr, Some(port)) => {
            entry
                .wrong(format!("`{}` is an address alone: write \"{addr}\", and `port` = {port}", entry.key));
            None
        }
    }
}
