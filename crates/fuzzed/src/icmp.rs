//! ICMP: any message, about any packet, to a director with connections of every method.

use std::cell::OnceCell;

use xlvs_core::verdict::Verdict;
use xlvs_model::Change;
use xlvs_model::spec::{Method, Protocol, Scheduler, Tunnel, TunnelChecksum, TunnelType};

use crate::input::Input;
use crate::look::{self, L3, Sum};
use crate::packets::{self, Ends};
use crate::site::{self, INSIDE, Site, VIP};

const CLIENT: [u8; 4] = [10, 0, 0, 1];
const SERVER: [u8; 4] = [10, 1, 0, 11];
const GUE: u16 = 6080;

/// The methods, in the order of the services' ports from 1 on.
fn methods() -> Vec<(Method, Tunnel)> {
    let plain = Tunnel::default();
    let tunnel = |kind, port, checksum| (Method::Tunnel, Tunnel { kind, port, checksum });
    vec![
        (Method::Masquerade, plain),
        (Method::Direct, plain),
        (Method::Tunnel, plain),
        tunnel(TunnelType::Gre, 0, TunnelChecksum::None),
        tunnel(TunnelType::Gre, 0, TunnelChecksum::Full),
        tunnel(TunnelType::Gue, GUE, TunnelChecksum::None),
    ]
}

/// A connection of the client's through each of them, of TCP and of UDP.
fn connected() -> Site {
    let mut changes = Vec::new();
    let each = || [false, true].into_iter().flat_map(|v6| [6, 17].map(|protocol| (v6, protocol)));
    for (v6, protocol) in each() {
        let kind = if protocol == 6 { Protocol::Tcp } else { Protocol::Udp };
        for ((method, tunnel), port) in methods().into_iter().zip(1..) {
            let spec = site::service(v6, kind, port, Scheduler::Rr);
            let inside = if method == Method::Masquerade { 8080 } else { port };
            let server = site::server(v6, 11, inside, method, tunnel);
            changes.extend([Change::AddService(spec.clone()), Change::AddServer(spec.key, server)]);
        }
    }
    let site = Site::of(&changes);
    for (v6, protocol) in each() {
        for port in 1..=methods().len() as u16 {
            let ends = Ends { v6, from: CLIENT, to: VIP, ports: (4000, port) };
            let mut none = Input::new(&[]);
            let (l4, sum_at) = packets::transport(&mut none, ends.ports, protocol);
            let packet = packets::ip(&mut none, &ends, protocol, l4, sum_at);
            let (verdict, _) = site.decide(&site.env(1000), &packets::frame(v6, &packet));
            assert!(matches!(verdict, Verdict::Redirect { .. }), "{ends:?}: {verdict:?}");
        }
    }
    site
}

thread_local! {
    static SITE: OnceCell<Site> = const { OnceCell::new() };
}

/// See the module.
pub fn icmp(data: &[u8]) {
    SITE.with(|site| message(&mut Input::new(data), site.get_or_init(connected)));
}

fn message(input: &mut Input<'_>, site: &Site) {
    let v6 = input.one_in(2);
    let (to, quote) = about(input, v6);
    let kind = if v6 { input.of(&[1, 2, 3, 4, 128, 0, 127]) } else { input.of(&[3, 3, 4, 11, 5, 8, 12]) };
    let mut icmp = vec![kind, input.of(&[0, 4, 1, 3]), 0, 0, 0, 0];
    icmp.extend(input.word().to_be_bytes());
    icmp.extend(quote);
    let ends = Ends { v6, from: [10, 0, 0, 200], to, ports: (0, 0) };
    let protocol = if v6 { 58 } else { 1 };
    let packet = packets::ip(input, &ends, protocol, icmp, Some(2));
    let mut frame = packets::frame(v6, &packet);
    packets::spoil(input, &mut frame);
    let (verdict, after) = site.decide(&site.env(1000), &frame);
    match verdict {
        Verdict::Pass(_) => assert_eq!(after, frame, "the stack gets it as it came"),
        Verdict::Drop(_) | Verdict::PutTogether { .. } => {}
        Verdict::Local { .. } => panic!("no server is the director"),
        Verdict::Answer { .. } => panic!("an error is never answered by another"),
        Verdict::Cut { .. } => panic!("an error is never cut"),
        Verdict::Transmit { .. } | Verdict::Redirect { .. } => {
            look::assert_sound(&after);
            // What is about a tunnel has reached whom it is for, and is told to the client anew.
            assert!(to == INSIDE || look::ttl(&frame) > 1, "its time to live was over");
            let wrong = look::transport_sum(&frame) != Sum::Right;
            assert!(wrong || look::transport_sum(&after) != Sum::Wrong, "a right checksum stays right");
            if is_icmp(&after) && after[L3..] != frame[L3..] && is_translated(&frame, &after) {
                assert_eq!(look::transport_sum(&after), Sum::Right, "only sound messages are translated");
            }
        }
    }
}

fn is_icmp(frame: &[u8]) -> bool {
    if frame[12..L3] == [8, 0] { frame[L3 + 9] == 1 } else { frame[L3 + 6] == 58 }
}

/// Has one of its addresses changed?
fn is_translated(before: &[u8], after: &[u8]) -> bool {
    let addresses = if before[12..L3] == [8, 0] { L3 + 12..L3 + 20 } else { L3 + 8..L3 + 40 };
    before.get(addresses.clone()) != after.get(addresses)
}

/// Whom the message is for, and what it quotes.
fn about(input: &mut Input<'_>, v6: bool) -> ([u8; 4], Vec<u8>) {
    let protocol = input.of(&[6, 17]);
    let port = 1 + u16::from(input.below(methods().len() as u8));
    let request = Ends { v6, from: CLIENT, to: VIP, ports: (4000, port) };
    let (to, mut quote) = match input.below(4) {
        0 => (VIP, quoted(input, request.reversed(), protocol)),
        1 => {
            let at_the_server = Ends { to: SERVER, ports: (4000, 8080), ..request };
            (CLIENT, quoted(input, at_the_server, protocol))
        }
        2 => {
            let inner = quoted(input, request, protocol);
            (INSIDE, in_tunnel(input, v6, &inner))
        }
        _ => (input.of(&[VIP, CLIENT, INSIDE]), input.take(120).to_vec()),
    };
    if input.one_in(3) {
        quote.truncate(usize::from(input.byte()));
    }
    if input.one_in(4) && !quote.is_empty() {
        let at = usize::from(input.word()) % quote.len();
        quote[at] = input.byte();
    }
    (to, quote)
}

fn quoted(input: &mut Input<'_>, ends: Ends, protocol: u8) -> Vec<u8> {
    let (l4, sum_at) = packets::transport(input, ends.ports, protocol);
    packets::ip(input, &ends, protocol, l4, sum_at)
}

fn in_tunnel(input: &mut Input<'_>, v6: bool, inner: &[u8]) -> Vec<u8> {
    let ends = Ends { v6, from: INSIDE, to: SERVER, ports: (40_000, GUE) };
    let inside: u8 = if v6 { 41 } else { 4 };
    let kind: [u8; 2] = if v6 { [0x86, 0xdd] } else { [8, 0] };
    let (protocol, head) = match input.below(4) {
        0 => (inside, vec![]),
        1 => (47, [&[0, 0], &kind[..]].concat()),
        2 => (47, [&[0x80, 0], &kind[..], &[1, 2, 0, 0]].concat()),
        _ => {
            let ports = [40_000u16, GUE, (12 + inner.len()) as u16, 0].map(u16::to_be_bytes).concat();
            (17, [&ports[..], &[0, inside, 0, 0]].concat())
        }
    };
    packets::ip(input, &ends, protocol, [&head[..], inner].concat(), None)
}
