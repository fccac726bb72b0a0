//! The real server's end of a tunnel: takes the outer headers from a director's packets and gives what was inside to the stack.
//!
//! IP in IP, GRE and GUE, either family in either. Only what is for a VIP of this server comes out, and, where directors are named,
//! only what they have sent: nobody else can put packets into the server that way. Everything that is no tunnel's packet, or is one of
//! somebody else's tunnels, goes on as it came.
//!
//! Checksums of GRE and of GUE's UDP are not looked at: the packet inside has its own, and the stack looks at that.

use crate::checksum::Update;
use crate::packet::Packet;
use crate::parse::L3;
use crate::wire::{AddrV6, Ethernet, FrameV4, Gre, GreSum, Gue, Ipv4, Ipv6, Udp, ethertype, ip_protocol};

/// So many VIPs an end may have.
pub const MAX_VIPS: usize = 4096;
/// So many prefixes of directors.
pub const MAX_DIRECTORS: usize = 1024;

/// What the end is told by its operator, and where it counts. Addresses of IPv4 are [mapped](AddrV6::mapped).
pub trait TunnelEnd {
    /// Is it a VIP of this server?
    fn is_vip(&self, addr: AddrV6) -> bool;
    /// May it send tunnels' packets? Everybody may where nobody is named.
    fn is_director(&self, addr: AddrV6) -> bool;
    /// UDP port of GUE, network order; 0 is none.
    fn gue_port(&self) -> [u8; 2];
    /// Counts what became of a tunnel's packet.
    fn count(&self, outcome: Outcome);
}

/// What became of a tunnel's packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Outcome {
    /// Unwrapped: IP in IP.
    Ipip,
    /// Unwrapped: GRE.
    Gre,
    /// Unwrapped: GUE.
    Gue,
    /// Passed as it came: what is inside is for no VIP.
    NotForVip,
    /// Dropped: from somebody who is no director.
    Stranger,
    /// Dropped: a way that was full marked it, and who sent the packet inside does not know what that means (RFC 6040).
    Congested,
    /// Dropped: options of GUE that nothing here understands.
    Option,
    /// Dropped: cut short.
    Malformed,
}

impl Outcome {
    /// How many there are.
    pub const COUNT: usize = 8;

    /// All, by their number.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Ipip,
        Self::Gre,
        Self::Gue,
        Self::NotForVip,
        Self::Stranger,
        Self::Congested,
        Self::Option,
        Self::Malformed,
    ];

    /// The counter's name.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Gre => "gre",
            Self::Gue => "gue",
            Self::NotForVip => "not_for_vip",
            Self::Stranger => "stranger",
            Self::Congested => "congested",
            Self::Option => "option",
            Self::Malformed => "malformed",
        }
    }

    /// The same in a sentence.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Ipip => "IP in IP, unwrapped",
            Self::Gre => "GRE, unwrapped",
            Self::Gue => "GUE, unwrapped",
            Self::NotForVip => "a tunnel's packet for none of the VIPs, left to the stack as it came",
            Self::Stranger => "dropped: not from a director that was named",
            Self::Congested => "dropped: marked as congested, and its sender does not know such marks",
            Self::Option => "dropped: GUE with options that are not understood",
            Self::Malformed => "dropped: cut short",
        }
    }

    /// Was the packet dropped?
    pub const fn is_drop(self) -> bool {
        matches!(self, Self::Stranger | Self::Congested | Self::Option | Self::Malformed)
    }
}

/// Whether a frame goes on to the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Fate {
    /// It does, unwrapped or as it came.
    Pass,
    /// It does not.
    Drop,
}

/// The outer headers.
#[derive(Clone, Copy)]
struct Outer {
    src: AddrV6,
    /// Of what follows the IP header.
    protocol: u8,
    /// Where that begins.
    l4: usize,
    /// ECN's two bits.
    ecn: u8,
}

/// What is inside.
#[derive(Clone, Copy)]
struct Inside {
    /// Where it begins.
    at: usize,
    ethertype: u16,
    kind: Outcome,
}

/// "Congestion experienced" in ECN's two bits (RFC 3168).
const CE: u8 = 3;

/// Unwraps a frame if it is a director's for a VIP.
#[inline(always)]
pub fn unwrap<P: Packet, T: TunnelEnd>(packet: &mut P, end: &T) -> Fate {
    let Some(eth) = packet.header::<Ethernet>(0).copied() else { return Fate::Pass };
    let Some(outer) = read_outer(packet, &eth) else { return Fate::Pass };
    let inside = match find_inside(packet, &outer, end) {
        Ok(Some(inside)) => inside,
        Ok(None) => return Fate::Pass,
        Err(outcome) => return settle(end, outcome),
    };
    match admit(packet, &outer, &inside, end) {
        Ok(()) => {}
        Err(outcome) => return settle(end, outcome),
    }
    // The MACs stay; what lay between them and the packet inside goes.
    if !packet.shrink_head(inside.at - Ethernet::LEN) {
        return settle(end, Outcome::Malformed);
    }
    let Some(place) = packet.header_mut::<Ethernet>(0) else { return settle(end, Outcome::Malformed) };
    *place = Ethernet { kind: inside.ethertype.to_be_bytes(), ..eth };
    settle(end, inside.kind)
}

#[inline(always)]
fn settle<T: TunnelEnd>(end: &T, outcome: Outcome) -> Fate {
    end.count(outcome);
    if outcome.is_drop() { Fate::Drop } else { Fate::Pass }
}

/// `None`: not IP for this host alone, or something that the stack must look at first: options, fragments, a wrong checksum.
#[inline(always)]
fn read_outer<P: Packet>(packet: &P, eth: &Ethernet) -> Option<Outer> {
    let is_group = eth.dst[0] & 1 != 0;
    if is_group {
        return None;
    }
    match eth.ethertype() {
        ethertype::IPV4 => {
            let frame = packet.header::<FrameV4>(0)?;
            let ip = &frame.ip;
            let plain = ip.version_ihl == 0x45 && !ip.is_fragment();
            if !plain || frame.header_sum().fold() != 0xffff {
                return None;
            }
            Some(Outer {
                src: AddrV6::mapped(ip.src),
                protocol: ip.protocol,
                l4: L3 + Ipv4::LEN,
                ecn: ip.tos & 3,
            })
        }
        ethertype::IPV6 => {
            let ip = packet.header::<Ipv6>(L3)?;
            Some(Outer { src: ip.src.get(), protocol: ip.next, l4: L3 + Ipv6::LEN, ecn: ip.class() & 3 })
        }
        _ => None,
    }
}

/// `None`: no tunnel's packet, or none of the kinds that a director sends.
#[inline(always)]
fn find_inside<P: Packet, T: TunnelEnd>(
    packet: &P,
    outer: &Outer,
    end: &T,
) -> Result<Option<Inside>, Outcome> {
    let l4 = outer.l4;
    let inside = |at, ethertype, kind| Ok(Some(Inside { at, ethertype, kind }));
    match outer.protocol {
        ip_protocol::IPIP => inside(l4, ethertype::IPV4, Outcome::Ipip),
        ip_protocol::IPV6 => inside(l4, ethertype::IPV6, Outcome::Ipip),
        ip_protocol::GRE => {
            let gre = packet.header::<Gre>(l4).ok_or(Outcome::Malformed)?;
            let kind = u16::from_be_bytes(gre.kind);
            if !matches!(kind, ethertype::IPV4 | ethertype::IPV6) {
                return Ok(None);
            }
            match gre.flags {
                [0, 0] => inside(l4 + Gre::LEN, kind, Outcome::Gre),
                [0x80, 0] => inside(l4 + GreSum::LEN, kind, Outcome::Gre),
                // Keys and sequence numbers: somebody else's tunnel.
                _ => Ok(None),
            }
        }
        ip_protocol::UDP => {
            let udp = packet.header::<Udp>(l4).ok_or(Outcome::Malformed)?;
            if udp.dst != end.gue_port() || udp.dst == [0, 0] {
                return Ok(None);
            }
            let gue = packet.header::<Gue>(l4 + Udp::LEN).ok_or(Outcome::Malformed)?;
            if gue.control != 0 || gue.flags != [0, 0] {
                return Err(Outcome::Option);
            }
            let at = l4 + Udp::LEN + Gue::LEN;
            match gue.protocol {
                ip_protocol::IPIP => inside(at, ethertype::IPV4, Outcome::Gue),
                ip_protocol::IPV6 => inside(at, ethertype::IPV6, Outcome::Gue),
                _ => Ok(None),
            }
        }
        _ => Ok(None),
    }
}

/// Is it for a VIP, and from a director? Hands the mark of congestion on to the packet inside.
#[inline(always)]
fn admit<P: Packet, T: TunnelEnd>(
    packet: &mut P,
    outer: &Outer,
    inside: &Inside,
    end: &T,
) -> Result<(), Outcome> {
    let (vip, ecn) = match inside.ethertype {
        ethertype::IPV4 => {
            let ip = packet.header::<Ipv4>(inside.at).ok_or(Outcome::Malformed)?;
            (AddrV6::mapped(ip.dst), ip.tos & 3)
        }
        _ => {
            let ip = packet.header::<Ipv6>(inside.at).ok_or(Outcome::Malformed)?;
            (ip.dst.get(), ip.class() & 3)
        }
    };
    if !end.is_vip(vip) {
        return Err(Outcome::NotForVip);
    }
    if !end.is_director(outer.src) {
        return Err(Outcome::Stranger);
    }
    if outer.ecn == CE && ecn != CE {
        if ecn == 0 {
            return Err(Outcome::Congested);
        }
        mark_congested(packet, inside)?;
    }
    Ok(())
}

#[inline(always)]
fn mark_congested<P: Packet>(packet: &mut P, inside: &Inside) -> Result<(), Outcome> {
    if inside.ethertype == ethertype::IPV4 {
        let ip = packet.header_mut::<Ipv4>(inside.at).ok_or(Outcome::Malformed)?;
        let (old, new) = ([ip.version_ihl, ip.tos], [ip.version_ihl, ip.tos | CE]);
        ip.tos |= CE;
        ip.checksum = Update::NONE.replace16(old, new).apply(ip.checksum);
    } else {
        let ip = packet.header_mut::<Ipv6>(inside.at).ok_or(Outcome::Malformed)?;
        ip.version_class_flow[1] |= CE << 4;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;

    use super::*;
    use crate::packet::Frame;

    const DIRECTOR: [u8; 4] = [10, 1, 0, 254];
    const SERVER: [u8; 4] = [10, 1, 0, 11];
    const CLIENT: [u8; 4] = [10, 0, 0, 1];
    const VIP: [u8; 4] = [10, 0, 0, 100];
    const PORT: u16 = 6080;
    const EVERY_KIND: [Wrap; 6] = [
        Wrap::Ipip,
        Wrap::Ip6ip,
        Wrap::Gre { summed: false },
        Wrap::Gre { summed: true },
        Wrap::Gue,
        Wrap::Gue6,
    ];

    /// An end with one VIP of each family, and perhaps a named director.
    struct TestEnd {
        director: Option<[u8; 4]>,
        counted: RefCell<Vec<Outcome>>,
    }

    impl TestEnd {
        fn for_everybody() -> Self {
            Self { director: None, counted: RefCell::default() }
        }

        fn only_for(director: [u8; 4]) -> Self {
            Self { director: Some(director), counted: RefCell::default() }
        }

        fn play(&self, bytes: &[u8]) -> (Fate, Vec<u8>, Vec<Outcome>) {
            let mut buffer = [&[0; Frame::HEADROOM], bytes].concat();
            let mut frame = Frame::new(&mut buffer, Frame::HEADROOM);
            let fate = unwrap(&mut frame, self);
            (fate, frame.bytes().to_vec(), self.counted.take())
        }
    }

    impl TunnelEnd for TestEnd {
        fn is_vip(&self, addr: AddrV6) -> bool {
            addr == AddrV6::mapped(VIP) || addr == vip6()
        }
        fn is_director(&self, addr: AddrV6) -> bool {
            self.director.is_none_or(|director| AddrV6::mapped(director) == addr)
        }
        fn gue_port(&self) -> [u8; 2] {
            PORT.to_be_bytes()
        }
        fn count(&self, outcome: Outcome) {
            self.counted.borrow_mut().push(outcome);
        }
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Wrap {
        Ipip,
        Ip6ip,
        Gre { summed: bool },
        Gue,
        Gue6,
    }

    impl Wrap {
        fn holds_v6(self) -> bool {
            matches!(self, Wrap::Ip6ip | Wrap::Gue6)
        }

        fn outcome(self) -> Outcome {
            match self {
                Wrap::Ipip | Wrap::Ip6ip => Outcome::Ipip,
                Wrap::Gre { .. } => Outcome::Gre,
                Wrap::Gue | Wrap::Gue6 => Outcome::Gue,
            }
        }
    }

    fn vip6() -> AddrV6 {
        let mut bytes = [0; 16];
        (bytes[0], bytes[14]) = (0xfd, 1);
        AddrV6::from_bytes(bytes)
    }

    fn ethernet(kind: u16) -> Vec<u8> {
        [&[2, 0, 0, 0, 2, 1, 2, 0, 0, 0, 1, 0xfe][..], &kind.to_be_bytes()].concat()
    }

    fn ipv4(from: [u8; 4], to: [u8; 4], protocol: u8, tos: u8, payload: &[u8]) -> Vec<u8> {
        let [high, low] = (20 + payload.len() as u16).to_be_bytes();
        let mut bytes = vec![0x45, tos, high, low, 0, 0, 0x40, 0, 64, protocol, 0, 0];
        bytes.extend(from.iter().chain(&to));
        let sum =
            bytes.chunks_exact(2).fold(crate::checksum::Sum::ZERO, |sum, pair| sum.add16([pair[0], pair[1]]));
        bytes[10..12].copy_from_slice(&sum.checksum());
        [&bytes[..], payload].concat()
    }

    fn ipv6(to: AddrV6, next: u8, class: u8, payload: &[u8]) -> Vec<u8> {
        let [high, low] = (payload.len() as u16).to_be_bytes();
        let mut bytes = vec![0x60 | class >> 4, class << 4, 0, 0, high, low, next, 64];
        bytes.extend([0xfd; 16].iter().chain(&to.bytes()));
        [&bytes[..], payload].concat()
    }

    /// What a client sends to the VIP.
    fn request(v6: bool, tos: u8) -> Vec<u8> {
        match v6 {
            true => ipv6(vip6(), ip_protocol::UDP, tos, b"\x0f\xa0\x00\x50\x00\x0a\x00\x00hi"),
            false => ipv4(CLIENT, VIP, ip_protocol::UDP, tos, b"\x0f\xa0\x00\x50\x00\x0a\x00\x00hi"),
        }
    }

    fn gue(protocol: u8, inside: &[u8]) -> Vec<u8> {
        let length = 12 + inside.len() as u16;
        let udp = [40_000u16, PORT, length, 0].map(u16::to_be_bytes).concat();
        [&udp[..], &[0, protocol, 0, 0], inside].concat()
    }

    fn payload(wrap: Wrap, inside: &[u8]) -> (u8, Vec<u8>) {
        match wrap {
            Wrap::Ipip => (ip_protocol::IPIP, inside.to_vec()),
            Wrap::Ip6ip => (ip_protocol::IPV6, inside.to_vec()),
            Wrap::Gre { summed: false } => (ip_protocol::GRE, [&[0, 0, 8, 0], inside].concat()),
            Wrap::Gre { summed: true } => {
                (ip_protocol::GRE, [&[0x80, 0, 8, 0, 0xab, 0xcd, 0, 0], inside].concat())
            }
            Wrap::Gue => (ip_protocol::UDP, gue(ip_protocol::IPIP, inside)),
            Wrap::Gue6 => (ip_protocol::UDP, gue(ip_protocol::IPV6, inside)),
        }
    }

    fn wrapped(wrap: Wrap, outer_v6: bool, inside: &[u8], ecn: u8) -> Vec<u8> {
        let (protocol, payload) = payload(wrap, inside);
        if outer_v6 {
            let to = AddrV6::from_bytes([0xfd; 16]);
            return [ethernet(ethertype::IPV6), ipv6(to, protocol, ecn, &payload)].concat();
        }
        [ethernet(ethertype::IPV4), ipv4(DIRECTOR, SERVER, protocol, ecn, &payload)].concat()
    }

    fn bare(v6: bool, inside: &[u8]) -> Vec<u8> {
        [&ethernet(if v6 { ethertype::IPV6 } else { ethertype::IPV4 })[..], inside].concat()
    }

    #[test]
    fn every_tunnel_in_either_family_is_unwrapped() {
        for (wrap, outer_v6) in EVERY_KIND.into_iter().flat_map(|wrap| [(wrap, false), (wrap, true)]) {
            let inside = request(wrap.holds_v6(), 0);
            let end = TestEnd::for_everybody();
            let (fate, frame, counted) = end.play(&wrapped(wrap, outer_v6, &inside, 0));
            assert_eq!(fate, Fate::Pass, "{wrap:?}");
            assert_eq!(frame, bare(wrap.holds_v6(), &inside), "{wrap:?}");
            assert_eq!(counted, [wrap.outcome()], "{wrap:?}");
        }
    }

    #[test]
    fn a_packet_for_no_vip_goes_on_as_it_came() {
        let inside = ipv4(CLIENT, SERVER, ip_protocol::UDP, 0, b"12345678");
        let frame = wrapped(Wrap::Ipip, false, &inside, 0);
        let end = TestEnd::for_everybody();
        assert_eq!(end.play(&frame), (Fate::Pass, frame.clone(), vec![Outcome::NotForVip]));
    }

    #[test]
    fn only_a_named_director_gets_packets_in() {
        let frame = wrapped(Wrap::Gre { summed: false }, false, &request(false, 0), 0);
        let (fate, _, counted) = TestEnd::only_for(DIRECTOR).play(&frame);
        assert_eq!((fate, counted), (Fate::Pass, vec![Outcome::Gre]));
        let (fate, _, counted) = TestEnd::only_for([10, 1, 0, 66]).play(&frame);
        assert_eq!((fate, counted), (Fate::Drop, vec![Outcome::Stranger]));
        // Of another family than the one who is named.
        let (fate, _, counted) =
            TestEnd::only_for(DIRECTOR).play(&wrapped(Wrap::Ipip, true, &request(false, 0), 0));
        assert_eq!((fate, counted), (Fate::Drop, vec![Outcome::Stranger]));
    }

    #[test]
    fn what_is_no_tunnels_packet_is_not_counted() {
        let mut other_port = wrapped(Wrap::Gue, false, &request(false, 0), 0);
        other_port[L3 + Ipv4::LEN + 3] ^= 1;
        let mut keyed = wrapped(Wrap::Gre { summed: false }, false, &request(false, 0), 0);
        keyed[L3 + Ipv4::LEN] = 0x20;
        let mut group = wrapped(Wrap::Ipip, false, &request(false, 0), 0);
        group[0] |= 1;
        let mut fragment = wrapped(Wrap::Ipip, false, &request(false, 0), 0);
        fragment[L3 + 6] = 0x20;
        let mut wrong_sum = wrapped(Wrap::Ipip, false, &request(false, 0), 0);
        wrong_sum[L3 + 10] ^= 1;
        let plain = bare(false, &request(false, 0));
        let arp = ethernet(0x0806);
        for frame in [other_port, keyed, group, fragment, wrong_sum, plain, arp] {
            assert_eq!(TestEnd::for_everybody().play(&frame), (Fate::Pass, frame.clone(), vec![]));
        }
    }

    #[test]
    fn options_of_gue_are_refused() {
        let at = L3 + Ipv4::LEN + Udp::LEN;
        for (offset, value) in [(0, 1), (0, 0x20), (2, 0x80)] {
            let mut frame = wrapped(Wrap::Gue, false, &request(false, 0), 0);
            frame[at + offset] = value;
            let (fate, _, counted) = TestEnd::for_everybody().play(&frame);
            assert_eq!((fate, counted), (Fate::Drop, vec![Outcome::Option]));
        }
    }

    #[test]
    fn a_mark_of_congestion_is_handed_on_or_ends_the_packet() {
        for wrap in [Wrap::Ipip, Wrap::Ip6ip] {
            let v6 = wrap.holds_v6();
            let (fate, frame, _) = TestEnd::for_everybody().play(&wrapped(wrap, false, &request(v6, 2), CE));
            assert_eq!(fate, Fate::Pass);
            assert_eq!(frame, bare(v6, &request(v6, CE)), "with a checksum that holds");
            let (fate, _, counted) =
                TestEnd::for_everybody().play(&wrapped(wrap, false, &request(v6, 0), CE));
            assert_eq!((fate, counted), (Fate::Drop, vec![Outcome::Congested]));
        }
    }

    #[test]
    fn numbers_and_names_of_outcomes_agree() {
        for (number, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, number);
            assert_eq!(outcome.is_drop(), outcome.sentence().starts_with("dropped"));
        }
    }

    proptest! {
        /// Wherever a frame ends, it is unwrapped whole, dropped, or goes on unchanged.
        #[test]
        fn cut_frames_do_no_harm(kind in 0..EVERY_KIND.len(), outer_v6: bool, keep in 0usize..120) {
            let wrap = EVERY_KIND[kind];
            let inside = request(wrap.holds_v6(), 0);
            let mut frame = wrapped(wrap, outer_v6, &inside, 0);
            frame.truncate(keep.max(1));
            let (fate, after, counted) = TestEnd::for_everybody().play(&frame);
            let unwrapped = counted == [wrap.outcome()];
            prop_assert!(fate == Fate::Drop || after == frame || unwrapped);
            prop_assert_eq!(fate == Fate::Drop, counted.iter().any(|outcome| outcome.is_drop()));
        }
    }
}
