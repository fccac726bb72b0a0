//! The director's own IP stack: what becomes of frames that the director passes on to it.
//!
//! Test equipment of the players, not data plane: as much of a host and router as the recorded frames meet. It has no open
//! port. It answers echo and timestamp requests, refuses TCP, UDP and SCTP, puts the fragments of packets for itself together,
//! and routes the rest. Options of IP packets that it answers are not echoed, nor are routes recorded in those it forwards.

mod answers;
mod network;
mod packet;
mod reassembly;

use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use super::director::{Hop, Way};
use answers::{Answer, Error};
use packet::{Packet, Whole};
use reassembly::Reassembly;

pub use network::Network;

const ETHERNET: usize = 14;
const ETHERTYPE_V4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_V6: [u8; 2] = [0x86, 0xdd];

/// A frame that leaves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sent {
    /// By this interface.
    pub ifindex: u32,
    /// The whole frame.
    pub frame: Vec<u8>,
    /// Is it one that only passes?
    pub is_forwarded: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Stack {
    network: Rc<Network>,
    marks: Vec<Mark>,
    reassembly: Reassembly,
    /// The next packet's that may be cut up.
    id: u16,
    now_ms: u64,
    sent: Vec<Sent>,
}

/// A rule of netfilter's that marks packets before they are routed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// The mark.
    pub mark: u32,
    /// Of IPv6 packets.
    pub is_v6: bool,
    /// Of this protocol.
    pub protocol: u8,
    /// To this port.
    pub port: u16,
}

impl Mark {
    fn fits(&self, packet: &Packet) -> bool {
        let port = packet::word(packet.payload(), 2);
        packet.is_v6() == self.is_v6 && packet.protocol == self.protocol && port == Some(self.port)
    }
}

impl Stack {
    /// A stack with these addresses and ways.
    pub fn new(network: Rc<Network>) -> Self {
        let reassembly = Reassembly::default();
        Self { network, marks: Vec::new(), reassembly, id: 1, now_ms: 0, sent: Vec::new() }
    }

    /// From now on these packets are marked.
    pub fn mark(&mut self, mark: Mark) {
        self.marks.push(mark);
    }

    /// A frame came in by this interface; what leaves because of it.
    pub fn receive(&mut self, ifindex: u32, frame: &[u8]) -> Vec<Sent> {
        if let Some(packet) = self.accepted(ifindex, frame) {
            self.input(packet);
        }
        std::mem::take(&mut self.sent)
    }

    /// Time has passed; what leaves because of it.
    pub fn pass(&mut self, ms: u64) -> Vec<Sent> {
        self.now_ms += ms;
        for first in self.reassembly.give_up(self.now_ms) {
            self.complain(&first, Error::Reassembly);
        }
        std::mem::take(&mut self.sent)
    }

    /// The packet of a frame for us, from somebody who may have sent it.
    fn accepted(&self, ifindex: u32, frame: &[u8]) -> Option<Packet> {
        let (to, kind) = (frame.get(..6)?, frame.get(12..ETHERNET)?);
        let packet = Packet::read(frame.get(ETHERNET..)?)?;
        let expected = if packet.is_v6() { ETHERTYPE_V6 } else { ETHERTYPE_V4 };
        let ours = self.network.mac(ifindex)? == *to && kind == expected;
        (ours && self.may_be_from(packet.src) && is_destination(packet.dst)).then_some(packet)
    }

    /// Martian sources. That a packet may not come from ourselves is a rule of IPv4's only.
    fn may_be_from(&self, src: IpAddr) -> bool {
        match src {
            IpAddr::V4(v4) => {
                !is_martian(v4) && !v4.is_multicast() && !v4.is_broadcast() && !self.network.owns(src)
            }
            IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_multicast(),
        }
    }

    fn input(&mut self, packet: Packet) {
        let mark = self.marks.iter().find(|mark| mark.fits(&packet)).map_or(0, |mark| mark.mark);
        match self.network.way(packet.dst, mark) {
            Some(Way::Local) => self.deliver(packet),
            Some(Way::Via(hop)) => self.forward(&packet, hop),
            None => self.complain(&packet, Error::NoRoute),
        }
    }

    fn deliver(&mut self, packet: Packet) {
        let whole = match packet.fragment {
            Some(part) => self.reassembly.add(packet, part, self.now_ms),
            None => Some(packet),
        };
        let Some(packet) = whole else { return };
        match answers::answer(&packet, self.now_ms) {
            Some(Answer::Packet { class, whole, payload }) => {
                let whole = if whole { Whole::Always } else { Whole::If(self.next_id()) };
                self.send(packet::packet(packet.dst, packet.src, packet.protocol, class, whole, &payload));
            }
            Some(Answer::PortUnreachable) => self.complain(&packet, Error::Port),
            Some(Answer::ProtocolUnreachable) => self.complain(&packet, Error::Protocol),
            None => {}
        }
    }

    fn forward(&mut self, packet: &Packet, hop: Hop) {
        if packet.hops <= 1 {
            return self.complain(packet, Error::TimeToLive);
        }
        if packet.bytes.len() > usize::from(hop.mtu) && packet.must_stay_whole() {
            return self.complain(packet, Error::TooBig(hop.mtu));
        }
        self.leave(packet.aged(), hop, true);
    }

    /// Tells the sender of a packet what became of it. It hears it from whom it wrote to, or else from the director's address
    /// on its side.
    fn complain(&mut self, packet: &Packet, error: Error) {
        if !Error::may_be_about(packet) {
            return;
        }
        let Some(Way::Via(hop)) = self.network.way(packet.src, 0) else { return };
        let from = if self.network.owns(packet.dst) { packet.dst } else { hop.source };
        let id = self.next_id();
        self.leave(error.about(packet, from, id), hop, false);
    }

    /// Sends a packet of our own. IPv4 does not speak for an address that no interface has, even where routing calls it local.
    fn send(&mut self, packet: Vec<u8>) {
        let Some(read) = Packet::read(&packet) else { return };
        let Some(Way::Via(hop)) = self.network.way(read.dst, 0) else { return };
        if read.is_v6() || self.network.owns(read.src) {
            self.leave(packet, hop, false);
        }
    }

    fn leave(&mut self, packet: Vec<u8>, hop: Hop, is_forwarded: bool) {
        let is_v6 = packet[0] >> 4 == 6;
        let parts = if is_v6 { vec![packet] } else { packet::cut_up(&packet, usize::from(hop.mtu)) };
        for part in parts {
            let kind = if is_v6 { ETHERTYPE_V6 } else { ETHERTYPE_V4 };
            let frame = [&hop.to[..], &hop.from, &kind, &part].concat();
            self.sent.push(Sent { ifindex: hop.ifindex, frame, is_forwarded });
        }
    }

    fn next_id(&mut self) -> u16 {
        self.id = self.id.wrapping_add(1);
        self.id
    }
}

/// 0/8 and 127/8 are nowhere on a wire.
fn is_martian(addr: Ipv4Addr) -> bool {
    matches!(addr.octets()[0], 0 | 127)
}

fn is_destination(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => !is_martian(v4),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::director::{CLIENT_SIDE, SERVER_SIDE};
    use super::*;

    const L0: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];

    fn stack() -> Stack {
        Stack::new(Rc::new(Network::of_the_recordings().unwrap()))
    }

    fn datagram(dst: &str, len: usize, whole: Whole) -> Vec<u8> {
        let src = if dst.contains(':') { "fd00::1" } else { "10.0.0.1" };
        packet::packet(src.parse().unwrap(), dst.parse().unwrap(), 99, 0, whole, &vec![7; len])
    }

    /// What a frame from the client leads to: interfaces and packets.
    fn sent(stack: &mut Stack, packet: &[u8]) -> Vec<(u32, Packet)> {
        let kind = if packet[0] >> 4 == 6 { ETHERTYPE_V6 } else { ETHERTYPE_V4 };
        let frame = [&L0[..], &[2, 0, 0, 0, 0, 1], &kind, packet].concat();
        let sent = stack.receive(CLIENT_SIDE, &frame).into_iter();
        sent.map(|sent| (sent.ifindex, Packet::read(&sent.frame[ETHERNET..]).unwrap())).collect()
    }

    fn with_small_links() -> Stack {
        let stack = stack();
        stack.network.ip(&["link", "set", "l1", "mtu", "1400"]).unwrap();
        stack
    }

    #[test]
    fn what_is_for_others_is_routed_and_aged() {
        for dst in ["192.0.2.9", "2001:db8:2::9"] {
            let out = sent(&mut stack(), &datagram(dst, 100, Whole::Always));
            let [(SERVER_SIDE, packet)] = &out[..] else { panic!("{out:?}") };
            assert_eq!((packet.dst, packet.hops), (dst.parse().unwrap(), 63));
        }
    }

    #[test]
    fn what_may_be_cut_up_is_and_comes_together_again() {
        let out = sent(&mut with_small_links(), &datagram("10.1.0.11", 1480, Whole::If(77)));
        let mut reassembly = Reassembly::default();
        let [(_, first), (_, last)] = &out[..] else { panic!("{out:?}") };
        assert_eq!((first.bytes.len(), last.bytes.len()), (1396, 124));
        let [first, last] = [first, last].map(|packet| (packet.clone(), packet.fragment.unwrap()));
        assert!(reassembly.add(last.0, last.1, 0).is_none());
        let whole = reassembly.add(first.0, first.1, 0).unwrap();
        assert_eq!(whole.payload(), vec![7; 1480]);
    }

    #[test]
    fn what_must_stay_whole_is_answered_with_what_the_way_takes() {
        for (dst, kind) in [("10.1.0.11", [3, 4]), ("fd01::11", [2, 0])] {
            let out = sent(&mut with_small_links(), &datagram(dst, 1460, Whole::Always));
            let [(CLIENT_SIDE, error)] = &out[..] else { panic!("{out:?}") };
            assert_eq!(error.payload()[..2], kind);
            assert_eq!(packet::word(error.payload(), 6), Some(1400));
        }
    }

    #[test]
    fn who_asks_for_a_way_of_its_own_or_lies_about_its_source_hears_nothing() {
        let vip = "10.0.0.100".parse().unwrap();
        for src in ["127.0.0.1", "0.1.2.3", "224.0.0.1", "255.255.255.255", "10.0.0.100"] {
            let packet = packet::packet(src.parse().unwrap(), vip, 99, 0, Whole::Always, &[]);
            assert_eq!(sent(&mut stack(), &packet).len(), 0, "{src}");
        }
        let mut routed = datagram("10.0.0.100", 8, Whole::Always);
        routed[0] = 0x47;
        routed[20..28].copy_from_slice(&[1, 0x83, 7, 8, 10, 9, 9, 9]);
        routed[10..12].fill(0);
        let sum = super::super::wire::checksum(&[&routed[..28]]);
        routed[10..12].copy_from_slice(&sum.to_be_bytes());
        assert!(Packet::read(&routed).is_none());
    }

    #[test]
    fn an_error_is_not_answered_by_another() {
        let quench = packet::packet(
            "10.0.0.1".parse().unwrap(),
            "203.0.113.1".parse().unwrap(),
            1,
            0,
            Whole::Always,
            &[4, 0, 0, 0, 0, 0, 0, 0],
        );
        assert_eq!(sent(&mut stack(), &quench).len(), 0);
        let lost = sent(&mut stack(), &datagram("203.0.113.1", 8, Whole::Always));
        assert_eq!(lost[0].1.payload()[..2], [3, 0], "anything else is");
    }
}
