//! Which addresses and ports somebody on this host listens on.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::str::FromStr;

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port that a service is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Of which protocol.
    pub transport: Transport,
    /// Its number.
    pub number: u16,
}

impl FromStr for Port {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (transport, number) = match text.split_once('/') {
            None => (Transport::Tcp, text),
            Some(("tcp", number)) => (Transport::Tcp, number),
            Some(("udp", number)) => (Transport::Udp, number),
            Some(_) => return Err(format!("{text} is no port; write 80, tcp/80 or udp/53")),
        };
        match number.parse() {
            Ok(number) if number != 0 => Ok(Self { transport, number }),
            _ => Err(format!("{text} is no port; write 80, tcp/80 or udp/53")),
        }
    }
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let transport = match self.transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        write!(f, "{transport}/{}", self.number)
    }
}

/// Somebody who listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where.
    pub port: Port,
    /// At this address; the unspecified one is all.
    pub address: IpAddr,
}

impl Listener {
    /// Does it hear what comes for this address and port? At `::` it usually hears IPv4, too.
    pub fn hears(&self, address: IpAddr, port: Port) -> bool {
        let at = self.address.to_canonical();
        let everywhere = at.is_unspecified() && (at.is_ipv6() || address.is_ipv4());
        self.port == port && (everywhere || at == address)
    }
}

/// All of them, of this thread's network namespace.
pub fn listeners() -> io::Result<Vec<Listener>> {
    let mut all = Vec::new();
    for (file, transport) in
        [("tcp", Transport::Tcp), ("tcp6", Transport::Tcp), ("udp", Transport::Udp), ("udp6", Transport::Udp)]
    {
        let text = match std::fs::read_to_string(Path::new("/proc/thread-self/net").join(file)) {
            Ok(text) => text,
            // A kernel without IPv6.
            Err(why) if why.kind() == io::ErrorKind::NotFound => continue,
            Err(why) => return Err(why),
        };
        all.extend(text.lines().filter_map(|line| listener(line, transport)));
    }
    Ok(all)
}

/// `0: 0100007F:1F90 00000000:0000 0A …`: number, own address and port, the other's, state.
fn listener(line: &str, transport: Transport) -> Option<Listener> {
    const LISTEN: &str = "0A";
    // Of UDP a socket that is not connected.
    const CLOSE: &str = "07";
    let mut words = line.split_whitespace().skip(1);
    let (own, _other, state) = (words.next()?, words.next()?, words.next()?);
    if state != if transport == Transport::Tcp { LISTEN } else { CLOSE } {
        return None;
    }
    let (address, number) = own.split_once(':')?;
    let number = u16::from_str_radix(number, 16).ok()?;
    Some(Listener { port: Port { transport, number }, address: address_of(address)? })
}

/// Words of 32 bits in hexadecimal, each in the machine's byte order.
fn address_of(text: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(text.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let bytes: [u8; 16] = [word(0)?, word(1)?, word(2)?, word(3)?].concat().try_into().ok()?;
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_read() {
        let line = "   0: 6400000A:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1 1";
        let port: Port = "80".parse().unwrap();
        let found = listener(line, Transport::Tcp).expect("it listens");
        assert_eq!(found, Listener { port, address: "10.0.0.100".parse().unwrap() });
        assert_eq!(listener(line, Transport::Udp), None);
        assert_eq!(listener(&line.replace(" 0A ", " 01 "), Transport::Tcp), None);
        assert_eq!(listener("  sl  local_address rem_address   st", Transport::Tcp), None);
    }

    #[test]
    fn who_listens_everywhere_hears_a_vip() {
        let vip = |text: &str| text.parse::<IpAddr>().unwrap();
        let port: Port = "udp/53".parse().unwrap();
        let at = |text: &str| Listener { port, address: text.parse().unwrap() };
        assert!(at("0.0.0.0").hears(vip("10.0.0.100"), port) && at("::").hears(vip("10.0.0.100"), port));
        assert!(at("::").hears(vip("fd00::100"), port) && !at("0.0.0.0").hears(vip("fd00::100"), port));
        assert!(at("10.0.0.100").hears(vip("10.0.0.100"), port));
        assert!(!at("10.1.0.11").hears(vip("10.0.0.100"), port));
        assert!(!at("0.0.0.0").hears(vip("10.0.0.100"), "53".parse().unwrap()));
    }

    #[test]
    fn ports_are_read() {
        let shown = |text: &str| text.parse::<Port>().map(|port| port.to_string());
        assert_eq!(shown("80").as_deref(), Ok("tcp/80"));
        assert_eq!(shown("udp/53").as_deref(), Ok("udp/53"));
        for wrong in ["0", "65536", "sctp/80", "udp/", "http"] {
            assert!(shown(wrong).is_err_and(|why| why.contains("write 80")), "{wrong}");
        }
    }
}
