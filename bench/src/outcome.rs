//! What must have become of a packet, byte for byte where it matters: a program that gives up early is fast.

use anyhow::{Context, Result, ensure};

use crate::frames::checksum;
use crate::site::{CLIENTS_MAC, SERVERS_MAC, VIPS};

/// What the director does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing; the stack gets it.
    Passed,
    /// It goes to a server as it is.
    Direct,
    /// It goes to a server with that server's address.
    Translated,
    /// It goes to a server in a packet of its own.
    Tunnelled,
    /// It goes to a client with the VIP's address.
    Replied,
}

impl Outcome {
    /// The XDP action.
    pub fn action(self) -> u32 {
        const PASS: u32 = 2;
        const REDIRECT: u32 = 4;
        if self == Self::Passed { PASS } else { REDIRECT }
    }

    /// Does this action leave of a packet what this outcome does: is it sent, in whichever way, or the stack's?
    pub fn is_as_final(self, action: u32) -> bool {
        const TX: u32 = 3;
        action == self.action() || (self != Self::Passed && action == TX)
    }

    /// Is it counted with a server?
    pub fn is_counted(self) -> bool {
        self != Self::Passed
    }

    /// The same where only the first 64 bytes of what came out are known, and not what went in but a packet of another flow.
    pub fn verify_beginning(self, before: &[u8], after: &[u8]) -> Result<()> {
        ensure!(after[..6] == SERVERS_MAC, "it goes to the MAC {:02x?}", &after[..6]);
        let (sent, arrived) = (Packet::read(&before[14..])?, Packet::read(&after[14..])?);
        ensure!((arrived.protocol == 4) == (self == Self::Tunnelled), "IP protocol {}", arrived.protocol);
        let is_own = arrived.destination == sent.destination;
        ensure!(is_own == (self == Self::Direct), "it goes to {:02x?}", arrived.destination);
        if self != Self::Tunnelled { arrived.has_right_checksum() } else { Ok(()) }
    }

    /// Is what came out what must become of what went in?
    pub fn verify(self, before: &[u8], after: &[u8]) -> Result<()> {
        if self == Self::Passed {
            ensure!(after == before, "the packet that is not ours was changed");
            return Ok(());
        }
        let mac = if self == Self::Replied { CLIENTS_MAC } else { SERVERS_MAC };
        ensure!(after[..6] == mac, "it goes to the MAC {:02x?}", &after[..6]);
        let sent = Packet::read(&before[14..])?;
        let mut arrived = Packet::read(&after[14..])?;
        if self == Self::Tunnelled {
            ensure!([4, 41].contains(&arrived.protocol), "no tunnel's packet");
            arrived = Packet::read(&after[14 + arrived.header..])?;
        }
        let (is_own_source, is_own_destination) =
            (arrived.source == sent.source, arrived.destination == sent.destination);
        ensure!(is_own_source == (self != Self::Replied), "from {:02x?}", arrived.source);
        ensure!(is_own_destination == (self != Self::Translated), "to {:02x?}", arrived.destination);
        let vip = VIPS.map(octets);
        ensure!(self != Self::Replied || vip.contains(&arrived.source), "not from a VIP");
        arrived.has_right_checksum()
    }
}

/// An address's bytes.
fn octets(addr: std::net::IpAddr) -> Vec<u8> {
    match addr {
        std::net::IpAddr::V4(addr) => addr.octets().to_vec(),
        std::net::IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

/// A packet of either family.
struct Packet<'p> {
    source: Vec<u8>,
    destination: Vec<u8>,
    protocol: u8,
    header: usize,
    payload: &'p [u8],
}

impl<'p> Packet<'p> {
    fn read(ip: &'p [u8]) -> Result<Self> {
        let is_v6 = ip.first().context("an empty packet")? >> 4 == 6;
        let (header, addresses, protocol) = if is_v6 { (40, 8, ip[6]) } else { (20, 12, ip[9]) };
        let width = if is_v6 { 16 } else { 4 };
        ensure!(is_v6 || checksum(&[&ip[..20]]) == 0, "the IP header's checksum is wrong");
        Ok(Self {
            source: ip[addresses..addresses + width].to_vec(),
            destination: ip[addresses + width..addresses + 2 * width].to_vec(),
            protocol,
            header,
            payload: &ip[header..],
        })
    }

    fn has_right_checksum(&self) -> Result<()> {
        if self.protocol == 1 {
            ensure!(checksum(&[self.payload]) == 0, "ICMP's checksum is wrong");
            return Ok(());
        }
        let length = (self.payload.len() as u16).to_be_bytes();
        let pseudo = [&self.source, &self.destination, &[0, self.protocol][..], &length, self.payload];
        ensure!(checksum(&pseudo) == 0, "the transport's checksum is wrong");
        Ok(())
    }
}
