//! Whole packets through the core, with tables of any services and servers.

use xlvs_core::verdict::Verdict;
use xlvs_datapath::conns;
use xlvs_model::spec::{Method, Protocol, Scheduler, Tunnel, TunnelChecksum, TunnelType};
use xlvs_model::{Change, Persistence, Tunable};

use crate::input::Input;
use crate::look::{self, Sum};
use crate::packets::{self, Ends};
use crate::site::{self, Site, VIP};

const PORTS: [u16; 5] = [80, 21, 53, 500, 0];

/// mh is left out, whose tables are large, and twos, which asks for random numbers.
const SCHEDULERS: [Scheduler; 11] = [
    Scheduler::Rr,
    Scheduler::Wrr,
    Scheduler::Wlc,
    Scheduler::Lc,
    Scheduler::Lblc,
    Scheduler::Lblcr,
    Scheduler::Sh,
    Scheduler::Sed,
    Scheduler::Nq,
    Scheduler::Fo,
    Scheduler::Ovf,
];

const TUNABLES: [(Tunable, u32); 8] = [
    (Tunable::SloppyTcp, 1),
    (Tunable::SloppySctp, 1),
    (Tunable::ScheduleIcmp, 1),
    (Tunable::ConnReuseMode, 0),
    (Tunable::ExpireNodestConn, 1),
    (Tunable::ExpireQuiescentTemplate, 1),
    (Tunable::SecureTcp, 3),
    (Tunable::PmtuDisc, 0),
];

/// See the module.
pub fn whole(data: &[u8]) {
    let mut input = Input::new(data);
    let site = any_site(&mut input);
    let mut tick = 1000;
    for _ in 0..40 {
        if input.is_empty() {
            break;
        }
        if input.one_in(16) {
            tick += u32::from(input.byte()) * 4;
        }
        let largest = input.of(&[0, 0, 0, 0, 0, 0, 576, 1400]);
        let frame = any_frame(&mut input);
        leave(&site, tick, &frame);
        follow(&site, tick, &frame, largest);
    }
    assert_eq!(conns::discrepancies(&site.tables), [], "counts and table agree");
}

fn any_site(input: &mut Input<'_>) -> Site {
    let tuned = input.byte();
    let mut changes: Vec<Change> = TUNABLES
        .iter()
        .enumerate()
        .filter(|(i, _)| tuned & 1 << i != 0)
        .map(|(_, (tunable, value))| Change::Tune(*tunable, *value))
        .collect();
    let mut keys = Vec::new();
    for _ in 0..1 + input.below(5) {
        let (v6, port) = (input.one_in(2), input.of(&PORTS));
        let protocol = input.of(&[Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
        let mut spec = site::service(v6, protocol, port, input.of(&SCHEDULERS));
        if keys.contains(&spec.key) {
            continue;
        }
        keys.push(spec.key);
        if input.one_in(3) || port == 0 {
            let netmask = if v6 { input.of(&[128, 64]) } else { input.of(&[u32::MAX, 0xffff_fffc]) };
            spec.persistence = Some(Persistence { timeout: input.of(&[10, 360]), netmask });
        }
        spec.one_packet = protocol == Protocol::Udp && input.one_in(4);
        changes.push(Change::AddService(spec.clone()));
        for number in 0..input.below(4) {
            let method = input.of(&[Method::Masquerade, Method::Direct, Method::Tunnel]);
            let over_v6 = v6 != (method == Method::Tunnel && input.one_in(3));
            let inside =
                if method == Method::Masquerade && port != 0 && input.one_in(2) { 8080 } else { port };
            let mut server = site::server(over_v6, 11 + number, inside, method, any_tunnel(input));
            server.weight = u32::from(input.below(3));
            server.upper = input.of(&[0, 0, 0, 1, 2]);
            changes.push(Change::AddServer(spec.key, server));
        }
    }
    let site = Site::of(&changes);
    let (mtu, serves_itself) =
        input.of(&[(1500, false), (1500, true), (1500, false), (600, false), (1280, true), (80, false)]);
    site.resolve(mtu);
    if serves_itself {
        site.serve_itself();
    }
    site
}

fn any_tunnel(input: &mut Input<'_>) -> Tunnel {
    let kind = input.of(&[TunnelType::IpIp, TunnelType::Gre, TunnelType::Gue]);
    let checksum = input.of(&[TunnelChecksum::None, TunnelChecksum::Full, TunnelChecksum::Remote]);
    Tunnel { kind, port: if kind == TunnelType::Gue { 6080 } else { 0 }, checksum }
}

fn any_frame(input: &mut Input<'_>) -> Vec<u8> {
    if input.one_in(16) {
        // Anything at all.
        let length = 14 + usize::from(input.byte());
        let mut frame = input.take(length).to_vec();
        frame.resize(frame.len().max(14), 0);
        return frame;
    }
    let v6 = input.one_in(2);
    let (client, server) = ([10, 0, 0, 1 + input.below(3)], [10, 1, 0, 11 + input.below(3)]);
    let ports = (4000 + u16::from(input.below(4)), input.of(&[80, 21, 53, 500, 8080, 20]));
    let request = Ends { v6, from: client, to: VIP, ports };
    let ends = match input.below(6) {
        0..=3 => request,
        4 => Ends { v6, from: server, to: client, ports: (ports.1, ports.0) },
        _ => request.reversed(),
    };
    let protocol = input.of(&[6, 6, 6, 17, 17, 132, 50, 51, 1, 58]);
    let packet = if protocol == 1 || protocol == 58 {
        let mut icmp = vec![input.of(&[3, 2, 11, 1, 8]), 4, 0, 0, 0, 0, 5, 0];
        let (l4, sum_at) = packets::transport(input, (ends.ports.1, ends.ports.0), 6);
        icmp.extend(packets::ip(input, &request.reversed(), 6, l4, sum_at));
        packets::ip(input, &ends, if v6 { 58 } else { 1 }, icmp, Some(2))
    } else {
        let (mut l4, sum_at) = packets::transport(input, ends.ports, protocol);
        if input.one_in(8) {
            l4.extend(vec![7; usize::from(input.word()) % 1500]);
            if protocol == 17 {
                let length = l4.len() as u16;
                l4[4..6].copy_from_slice(&length.to_be_bytes());
            }
        }
        packets::ip(input, &ends, protocol, l4, sum_at)
    };
    let mut frame = packets::frame(v6, &packet);
    packets::spoil(input, &mut frame);
    frame
}

/// Has the director's own stack send a frame, and looks at what becomes of it. Where nothing is seen of that, nothing does.
fn leave(site: &Site, tick: u32, frame: &[u8]) {
    let (verdict, after) = site::see_off(&site.env(tick), frame);
    match verdict {
        Verdict::Pass(_) => assert_eq!(after, frame, "it leaves as it was sent"),
        Verdict::Local { .. } => assert_rewritten_here(frame, &after),
        Verdict::Drop(_) => {}
        other => panic!("a packet that is on its way stays there: {other:?}"),
    }
}

/// A packet to or from the director's own stack has other ends, and nothing else.
fn assert_rewritten_here(before: &[u8], after: &[u8]) {
    assert_eq!((before.len(), &before[..14]), (after.len(), &after[..14]), "in the frame that it was in");
    assert_eq!(look::ttl(after), look::ttl(before), "no router is passed");
    look::assert_sound(look::without_padding(after));
    let wrong = look::transport_sum(before) == Sum::Wrong;
    assert!(wrong || look::transport_sum(after) != Sum::Wrong, "a right checksum stays right");
}

/// Decides about a frame, and looks at what became of it; `largest`: of the fragments that it was put together from, or 0.
fn follow(site: &Site, tick: u32, frame: &[u8], largest: u16) {
    let env = site.env(tick);
    let (verdict, after) = site.decide_about(&env, frame, largest);
    let leaves_whole = matches!(verdict, Verdict::Transmit { .. } | Verdict::Redirect { .. });
    assert!(largest == 0 || !leaves_whole, "what came in fragments leaves in pieces");
    match verdict {
        Verdict::Pass(_) => assert_eq!(after, frame, "the stack gets it as it came"),
        Verdict::Drop(_) => {}
        Verdict::Local { .. } => assert_rewritten_here(frame, &after),
        Verdict::PutTogether { .. } => assert_eq!(after, frame, "a fragment is handed on as it came"),
        Verdict::Answer { .. } => {
            look::assert_sound(&after);
            assert_eq!(look::transport_sum(&after), Sum::Right, "the director's own checksum is right");
            assert_eq!((&after[..6], &after[6..12]), (&frame[6..12], &frame[..6]), "back to who sent it");
        }
        Verdict::Transmit { .. } | Verdict::Redirect { .. } | Verdict::Cut { .. } => {
            look::assert_sound(&after);
            assert_eq!(look::ttl(&after), look::ttl(frame) - 1, "one router further on");
            let wrong = look::transport_sum(frame) == Sum::Wrong;
            assert!(wrong || look::transport_sum(&after) != Sum::Wrong, "a right checksum stays right");
            if matches!(verdict, Verdict::Cut { .. }) {
                assert!(env.cut_to.get() > 0, "it is said how long pieces may be");
            }
        }
    }
}
