//! What is measured: one row, one kind of packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use xlvs_model::spec::Scheduler;

use crate::frames::{Frame, LONG, Payload, SHORT, flag, fragmentation_needed};
use crate::outcome::Outcome;
use crate::site::{VIPS, only_server, port};

/// Writes the frame of this number.
pub type Maker = Box<dyn Fn(u32, &mut [u8])>;

/// A kind of packet.
pub struct Row {
    /// What it is called, also by who compares.
    pub name: String,
    /// Frames of this length.
    pub length: usize,
    /// So many different ones.
    pub frames: u32,
    /// How often the program runs in one measurement.
    pub repeat: u32,
    /// Sent once before, in this order.
    pub opening: Vec<Maker>,
    /// What is sent while the clock runs.
    pub packet: Maker,
    /// What becomes of it.
    pub outcome: Outcome,
    /// Is each packet a new connection?
    pub opens: bool,
    /// Is there a floor for it: an IPv4 packet through the tunnel, or one that is not ours?
    pub has_floor: bool,
    /// Can a rival that only tunnels, with this service, be given the same packets?
    pub for_rivals: bool,
}

/// A family, as rows are named by it.
fn family(is_v6: bool) -> &'static str {
    if is_v6 { "IPv6" } else { "IPv4" }
}

/// Frames that hold its headers.
fn length(is_v6: bool) -> usize {
    if is_v6 { LONG } else { SHORT }
}

/// A client, by number.
pub fn client(is_v6: bool, number: u32) -> (IpAddr, u16) {
    // Scattered, as clients are: neighbours in time are none in the address space.
    let scattered = number.wrapping_mul(0x9e37_79b1);
    let port = 1024 + (scattered & 0x7fff) as u16;
    let address = match is_v6 {
        false => IpAddr::from((0x0a40_0000 + (number >> 3)).to_be_bytes()),
        true => IpAddr::V6(Ipv6Addr::from((0x2001_0db8u128) << 96 | u128::from(number >> 3))),
    };
    (address, port)
}

/// From a client to a service.
fn to_service(is_v6: bool, port: u16, payload: Payload) -> Maker {
    let to = (VIPS[usize::from(is_v6)], port);
    Box::new(move |number, frame| Frame { from: client(is_v6, number), to, payload }.write(frame))
}

/// From the only server of its service to a client.
fn from_server(is_v6: bool, payload: Payload) -> Maker {
    let from = only_server(is_v6);
    Box::new(move |number, frame| Frame { from, to: client(is_v6, number), payload }.write(frame))
}

/// How connections of each protocol are opened.
fn opening(is_v6: bool, port: u16, payload: Payload) -> Vec<Maker> {
    match payload {
        Payload::Udp => vec![to_service(is_v6, port, payload)],
        Payload::Tcp(_) => [flag::SYN, flag::ACK].map(|f| to_service(is_v6, port, Payload::Tcp(f))).into(),
    }
}

/// A way of going through the director.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    port: u16,
    outcome: Outcome,
}

const TUNNEL: Way = Way { name: "TUN", port: port::TUNNEL, outcome: Outcome::Tunnelled };
const DIRECT: Way = Way { name: "DR", port: port::DIRECT, outcome: Outcome::Direct };
const NAT: Way = Way { name: "NAT request", port: port::NAT, outcome: Outcome::Translated };
const REPLY: Way = Way { name: "NAT reply", port: port::NAT_ONE, outcome: Outcome::Replied };
const PERSISTENT: Way = Way { name: "DR, persistent", port: port::PERSISTENT, outcome: Outcome::Direct };

const TCP: Payload = Payload::Tcp(flag::ACK);

/// A connection of somebody of whom nothing is measured.
pub fn stranger(number: u32, frame: &mut [u8]) {
    to_service(false, port::DIRECT, Payload::Tcp(flag::SYN))(number + 0x10_0000, frame);
}

/// Packets of connections that exist: one flow in every way, many in those that differ.
pub fn established(flows: &[u32]) -> Vec<Row> {
    let mut rows = Vec::new();
    for way in [TUNNEL, DIRECT, NAT, REPLY] {
        for payload in [TCP, Payload::Udp] {
            rows.extend([false, true].map(|is_v6| established_row(way, payload, is_v6, 1)));
        }
    }
    rows.push(established_row(PERSISTENT, TCP, false, 1));
    for flows in flows.iter().copied() {
        rows.extend([TUNNEL, DIRECT, NAT, REPLY].map(|way| established_row(way, TCP, false, flows)));
        rows.push(established_row(TUNNEL, Payload::Udp, false, flows));
        rows.push(established_row(TUNNEL, TCP, true, flows));
    }
    rows
}

fn established_row(way: Way, payload: Payload, is_v6: bool, flows: u32) -> Row {
    let protocol = if payload == Payload::Udp { "UDP" } else { "TCP" };
    let is_reply = way.outcome == Outcome::Replied;
    Row {
        name: format!("{}, {protocol} {}, established, {}", way.name, family(is_v6), counted(flows)),
        length: length(is_v6),
        frames: flows,
        repeat: flows.max(20_000),
        opening: opening(is_v6, way.port, payload),
        packet: if is_reply { from_server(is_v6, payload) } else { to_service(is_v6, way.port, payload) },
        outcome: way.outcome,
        opens: false,
        has_floor: way.port == port::TUNNEL && !is_v6,
        for_rivals: way.port == port::TUNNEL,
    }
}

fn counted(flows: u32) -> String {
    match flows {
        1 => "one flow".to_owned(),
        n if n % 1_000_000 == 0 => format!("{} M flows", n / 1_000_000),
        n => format!("{} k flows", n / 1000),
    }
}

/// Packets that concern no service.
pub fn not_ours() -> [Row; 2] {
    [false, true].map(|is_v6| {
        let elsewhere = match is_v6 {
            false => IpAddr::from([10, 200, 9, 1]),
            true => IpAddr::from([0xfc00, 9, 0, 0, 0, 0, 0, 1]),
        };
        Row {
            name: format!("not ours, TCP {}", family(is_v6)),
            length: length(is_v6),
            frames: 1,
            repeat: 20_000,
            opening: Vec::new(),
            packet: Box::new(move |number, frame| {
                Frame { from: client(is_v6, number), to: (elsewhere, 80), payload: TCP }.write(frame);
            }),
            outcome: Outcome::Passed,
            opens: false,
            has_floor: !is_v6,
            for_rivals: true,
        }
    })
}

/// ICMP errors about what a server has sent: each finds the connection and goes to that server.
pub fn icmp() -> Row {
    let packet: Maker = Box::new(|number, frame| {
        let (IpAddr::V4(vip), (IpAddr::V4(client), client_port)) = (VIPS[0], client(false, number)) else {
            unreachable!("IPv4 was asked for")
        };
        let router = Ipv4Addr::new(10, 65, 0, 1);
        fragmentation_needed(router, (vip, port::DIRECT), (client, client_port), frame);
    });
    Row {
        name: "DR, ICMP IPv4, fragmentation needed, to the right server".to_owned(),
        length: LONG,
        packet,
        ..established_row(DIRECT, TCP, false, 1)
    }
}

/// Whole TCP connections, one after the other: all that one sends through the director.
pub fn lives(flows: u32) -> [Row; 2] {
    let to = |port, flag| to_service(false, port, Payload::Tcp(flag));
    let back = |flag| from_server(false, Payload::Tcp(flag));
    let direct = [flag::SYN, flag::ACK, flag::ACK, flag::FIN_ACK, flag::ACK];
    let direct = direct.map(|flag| to(port::DIRECT, flag));
    let nat = [
        to(port::NAT_ONE, flag::SYN),
        back(flag::SYN_ACK),
        to(port::NAT_ONE, flag::ACK),
        to(port::NAT_ONE, flag::ACK),
        back(flag::ACK),
        to(port::NAT_ONE, flag::FIN_ACK),
        back(flag::FIN_ACK),
        to(port::NAT_ONE, flag::ACK),
    ];
    [
        life("DR, TCP IPv4, a whole connection, each of 5 packets", flows, direct.into(), Outcome::Direct),
        life("NAT, TCP IPv4, a whole connection, each of 8 packets", flows, nat.into(), Outcome::Translated),
    ]
}

fn life(name: &str, flows: u32, course: Vec<Maker>, outcome: Outcome) -> Row {
    let steps = course.len() as u32;
    Row {
        name: name.to_owned(),
        length: SHORT,
        frames: flows * steps,
        repeat: flows * steps,
        opening: Vec::new(),
        packet: Box::new(move |number, frame| course[(number % steps) as usize](number / steps, frame)),
        outcome,
        opens: false,
        has_floor: false,
        for_rivals: false,
    }
}

/// Connections that are opened, one with each packet.
pub fn openings(flows: u32) -> Vec<Row> {
    let mut rows = Vec::new();
    for way in [TUNNEL, DIRECT, Way { name: "NAT", ..NAT }] {
        rows.push(opening_row(way, Payload::Tcp(flag::SYN), false, "wlc over 16", flows));
    }
    rows.push(opening_row(TUNNEL, Payload::Udp, false, "wlc over 16", flows));
    rows.push(opening_row(TUNNEL, Payload::Tcp(flag::SYN), true, "wlc over 16", flows.min(100_000)));
    let persistent = "wlc over 16, eight connections a client";
    rows.push(opening_row(PERSISTENT, Payload::Tcp(flag::SYN), false, persistent, flows));
    rows
}

/// The same for each scheduler, by the port of its service.
pub fn choices(flows: u32, kinds: &[(Scheduler, u16)]) -> Vec<Row> {
    let named = (port::CHOICES..).zip(kinds);
    named
        .map(|(port, (scheduler, servers))| {
            let how = format!("{} over {servers}", scheduler.name());
            opening_row(Way { port, ..DIRECT }, Payload::Tcp(flag::SYN), false, &how, flows)
        })
        .collect()
}

fn opening_row(way: Way, payload: Payload, is_v6: bool, how: &str, flows: u32) -> Row {
    let protocol = if payload == Payload::Udp { "UDP" } else { "TCP" };
    Row {
        name: format!("{}, {protocol} {}, new, {how}", way.name, family(is_v6)),
        length: length(is_v6),
        frames: flows,
        repeat: flows,
        opening: Vec::new(),
        packet: to_service(is_v6, way.port, payload),
        outcome: way.outcome,
        opens: true,
        has_floor: way.port == port::TUNNEL && !is_v6,
        for_rivals: way.port == port::TUNNEL,
    }
}
