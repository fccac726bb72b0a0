//! Tunnels: what the director wraps, a server's end unwraps to the packet that direct routing would have brought; and anything
//! else goes through that end as it came.

use std::cell::{Cell, OnceCell};

use xlvs_core::packet::Frame;
use xlvs_core::tunnel_end::{Fate, Outcome, TunnelEnd, unwrap};
use xlvs_core::verdict::Verdict;
use xlvs_core::wire::AddrV6;
use xlvs_model::Change;
use xlvs_model::spec::{Method, Protocol, Scheduler, Tunnel, TunnelChecksum, TunnelType};

use crate::input::Input;
use crate::look::{self, L3};
use crate::packets::{self, Ends};
use crate::site::{self, Site, VIP};

const GUE: u16 = 6080;

/// The end of tunnels on a server: for the VIP, from everybody.
struct End(Cell<Option<Outcome>>);

impl TunnelEnd for End {
    fn is_vip(&self, addr: AddrV6) -> bool {
        addr == AddrV6::mapped(VIP) || addr.bytes() == packets::beside(VIP)
    }

    fn is_director(&self, _addr: AddrV6) -> bool {
        true
    }

    fn gue_port(&self) -> [u8; 2] {
        GUE.to_be_bytes()
    }

    fn count(&self, outcome: Outcome) {
        self.0.set(Some(outcome));
    }
}

/// Every kind of tunnel, in the order of the services' ports from 1 on.
fn kinds() -> impl Iterator<Item = (bool, Tunnel)> {
    let kinds = [(TunnelType::IpIp, 0), (TunnelType::Gre, 0), (TunnelType::Gue, GUE)];
    let sums = [TunnelChecksum::None, TunnelChecksum::Full, TunnelChecksum::Remote];
    let tunnels = kinds
        .into_iter()
        .flat_map(move |(kind, port)| sums.into_iter().map(move |checksum| Tunnel { kind, port, checksum }));
    tunnels.flat_map(|tunnel| [false, true].map(|over_v6| (over_v6, tunnel)))
}

/// Services of datagrams, each a choice of its own so that no table grows.
fn tunnel_site() -> Site {
    let mut changes = Vec::new();
    for v6 in [false, true] {
        for ((over_v6, tunnel), port) in kinds().zip(1..) {
            let mut spec = site::service(v6, Protocol::Udp, port, Scheduler::Rr);
            spec.one_packet = true;
            let server = site::server(over_v6, 11, port, Method::Tunnel, tunnel);
            changes.extend([Change::AddService(spec.clone()), Change::AddServer(spec.key, server)]);
        }
    }
    let site = Site::of(&changes);
    site.resolve(9000);
    site
}

thread_local! {
    static SITE: OnceCell<Site> = const { OnceCell::new() };
}

/// See the module.
pub fn tunnels(data: &[u8]) {
    let mut input = Input::new(data);
    if input.byte() & 1 == 0 {
        unwrap_anything(input.rest());
        return;
    }
    SITE.with(|site| there_and_out(&mut input, site.get_or_init(tunnel_site)));
}

/// Runs the end on a frame; what was counted, and the frame afterwards.
fn at_the_end(frame: &[u8]) -> (Fate, Option<Outcome>, Vec<u8>) {
    let mut buffer = [&[0; Frame::HEADROOM][..], frame].concat();
    let mut packet = Frame::new(&mut buffer, Frame::HEADROOM);
    let end = End(Cell::new(None));
    let fate = unwrap(&mut packet, &end);
    (fate, end.0.get(), packet.bytes().to_vec())
}

fn unwrap_anything(frame: &[u8]) {
    let (fate, outcome, after) = at_the_end(frame);
    match outcome {
        Some(Outcome::Ipip | Outcome::Gre | Outcome::Gue) => {
            assert_eq!(fate, Fate::Pass);
            assert!(after.len() + 20 <= frame.len(), "outer headers went");
            let behind = &frame[frame.len() - (after.len() - L3)..];
            assert_eq!(after[L3 + 12..], behind[12..], "what was inside comes out as it was");
            assert_eq!(after[..12], frame[..12], "the MACs stay");
            let version = if after[12..L3] == [8, 0] { 4 } else { 6 };
            assert!(matches!((version, &after[12..L3]), (4, [8, 0]) | (6, [0x86, 0xdd])));
        }
        Some(outcome) if outcome.is_drop() => assert_eq!(fate, Fate::Drop),
        Some(_) | None => {
            assert_eq!(fate, Fate::Pass);
            assert_eq!(after, frame, "what is none of the end's stays as it came");
        }
    }
}

fn there_and_out(input: &mut Input<'_>, site: &Site) {
    let count = kinds().count() as u8;
    let port = 1 + u16::from(input.below(count));
    let ends = Ends { v6: input.one_in(2), from: [10, 0, 0, 1], to: VIP, ports: (input.word(), port) };
    let (l4, sum_at) = packets::transport(input, ends.ports, 17);
    let packet = packets::ip(input, &ends, 17, l4, sum_at);
    let mut frame = packets::frame(ends.v6, &packet);
    frame.extend(vec![0; usize::from(input.below(4))]);
    let (verdict, wrapped) = site.decide(&site.env(1000), &frame);
    if !matches!(verdict, Verdict::Redirect { .. }) {
        return;
    }
    look::assert_sound(&wrapped);
    if look::transport_sum(&wrapped) == look::Sum::Wrong {
        let (_, _, inner) = at_the_end(&wrapped);
        panic!("the outer checksum is wrong: {wrapped:02x?}\naround {inner:02x?}");
    }
    let (fate, outcome, inner) = at_the_end(&wrapped);
    assert_eq!(fate, Fate::Pass, "{outcome:?}");
    assert!(matches!(outcome, Some(Outcome::Ipip | Outcome::Gre | Outcome::Gue)), "{outcome:?}");
    look::assert_sound(&inner);
    assert_eq!(look::ttl(&inner), look::ttl(&frame) - 1);
    // All but the time to live, the header's checksum and what options record.
    assert_eq!(inner.len(), L3 + packet.len());
    let (addresses, header) = if ends.v6 { (8, 40) } else { (12, usize::from(packet[0] & 15) * 4) };
    let fixed = if ends.v6 { 40 } else { 20 };
    assert_eq!(inner[L3 + addresses..L3 + fixed], packet[addresses..fixed], "the addresses stay");
    assert_eq!(inner[L3 + header..], packet[header..], "what is behind the header stays");
}
