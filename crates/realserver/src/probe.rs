//! Asks a real server for a VIP as a director would reach it, and hears what it answers. For the director's host: the answer comes to
//! one of its own addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, send};
use socket2::{Domain, Protocol, Socket, Type};

use crate::frames::{Mac, bytes, checksum, frames_of, link, pseudo_header, received, v6_header};

/// How packets get to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Road {
    /// To its MAC, by this device.
    Direct {
        /// The device.
        device: String,
        /// The server's MAC.
        mac: Mac,
    },
    /// Inside another packet to it.
    Tunnel {
        /// The server.
        to: IpAddr,
        /// How.
        kind: Encapsulation,
    },
}

/// What is between the outer IP header and the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encapsulation {
    /// Nothing.
    Ipip,
    /// GRE, with or without its checksum.
    Gre {
        /// With it?
        summed: bool,
    },
    /// GUE to this UDP port.
    Gue {
        /// Host order.
        port: u16,
    },
}

/// What it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Does somebody take a TCP connection at this port?
    Connection(u16),
    /// Does somebody take datagrams at this UDP port? (Asked by an empty one.) Who does may well be silent.
    Datagram(u16),
    /// Does it have the VIP? (Asked by an echo request.)
    Presence,
}

/// What it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Yes.
    Yes,
    /// Nobody listens there.
    Refused,
    /// Nothing.
    Silence,
}

/// Answers may take this long.
const PATIENCE: Duration = Duration::from_millis(600);
/// One may be lost.
const TIMES: u32 = 2;
const PAUSE: Duration = Duration::from_millis(5);

const HOPS: u8 = 64;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;
const FIN_SYN_RST: u8 = 7;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// Asks from this address, of the VIP's family.
pub fn ask(road: &Road, from: IpAddr, vip: IpAddr, question: Question) -> io::Result<Answer> {
    // A socket that only holds the port: no other connection of this host has it meanwhile.
    let held = UdpSocket::bind(SocketAddr::new(from, 0))?;
    let talk = Talk { from, vip, port: held.local_addr()?.port(), question };
    let ear = frames_of(None)?;
    for _ in 0..TIMES {
        talk.send(road, &talk.request())?;
        let deadline = Instant::now() + PATIENCE / TIMES;
        while Instant::now() < deadline {
            let answers = received(&ear)?.into_iter().filter_map(|frame| talk.heard(&frame));
            if let Some(heard) = answers.into_iter().next() {
                if let Some(reset) = heard.reset {
                    // What was opened is closed at once.
                    talk.send(road, &reset)?;
                }
                return Ok(heard.answer);
            }
            std::thread::sleep(PAUSE);
        }
    }
    Ok(Answer::Silence)
}

struct Talk {
    from: IpAddr,
    vip: IpAddr,
    /// Our TCP port, or the number of the echo.
    port: u16,
    question: Question,
}

struct Heard {
    answer: Answer,
    reset: Option<Vec<u8>>,
}

impl Talk {
    /// The packet of the question, from the IP header on.
    fn request(&self) -> Vec<u8> {
        match self.question {
            Question::Connection(port) => self.packet(TCP, &segment(self.port, port, 0, SYN)),
            Question::Datagram(port) => {
                let ports = [self.port.to_be_bytes(), port.to_be_bytes()].concat();
                self.packet(UDP, &[&ports[..], &[0, 8, 0, 0]].concat())
            }
            Question::Presence => {
                let [high, low] = self.port.to_be_bytes();
                let kind = if self.vip.is_ipv4() { 8 } else { 128 };
                self.packet(self.icmp(), &[kind, 0, 0, 0, high, low, 0, 1])
            }
        }
    }

    fn icmp(&self) -> u8 {
        if self.vip.is_ipv4() { ICMP } else { ICMP_V6 }
    }

    /// Puts an IP header before it, and checksums into both.
    fn packet(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut payload = payload.to_vec();
        let length = payload.len() as u16;
        let at = match protocol {
            TCP => 16,
            UDP => 6,
            _ => 2,
        };
        let pseudo = pseudo_header(self.from, self.vip, protocol, length);
        let summed = if protocol == ICMP { payload.clone() } else { [&pseudo[..], &payload].concat() };
        let sum = checksum(&summed);
        payload.splice(at..at + 2, sum);
        let head = match (self.from, self.vip) {
            (IpAddr::V4(from), IpAddr::V4(to)) => v4(from, to, protocol, length),
            _ => v6_header(self.from, self.vip, protocol, HOPS, length),
        };
        [head, payload].concat()
    }

    fn send(&self, road: &Road, packet: &[u8]) -> io::Result<()> {
        match road {
            Road::Direct { device, mac } => {
                let (at, own) = link(device)?;
                let kind: [u8; 2] = if self.vip.is_ipv4() { [8, 0] } else { [0x86, 0xdd] };
                let frame = [&mac.0[..], &own.0, &kind, packet].concat();
                send(frames_of(Some(&at))?.as_raw_fd(), &frame, MsgFlags::empty())?;
            }
            Road::Tunnel { to, kind } => send_inside(*to, *kind, packet)?,
        }
        Ok(())
    }

    /// What a frame says, if it is the answer.
    fn heard(&self, frame: &[u8]) -> Option<Heard> {
        let (protocol, payload) = match frame.get(12..14)? {
            [8, 0] => {
                let head = frame.get(14..34)?;
                let addresses = (head.get(12..16)?, head.get(16..20)?);
                let ours = addresses == (&bytes(self.vip)[..], &bytes(self.from)[..]);
                let length = usize::from(head.first()? & 15) * 4;
                ours.then_some((*head.get(9)?, frame.get(14 + length..)?))?
            }
            [0x86, 0xdd] => {
                let head = frame.get(14..54)?;
                let addresses = (head.get(8..24)?, head.get(24..40)?);
                let ours = addresses == (&bytes(self.vip)[..], &bytes(self.from)[..]);
                ours.then_some((*head.get(6)?, frame.get(54..)?))?
            }
            _ => return None,
        };
        match self.question {
            Question::Connection(port) if protocol == TCP => self.heard_tcp(port, payload),
            Question::Datagram(port) if protocol == UDP => {
                let is_answer = payload.get(..4)? == self.ports_of_theirs(port);
                is_answer.then_some(Heard { answer: Answer::Yes, reset: None })
            }
            Question::Datagram(port) if protocol == self.icmp() => self.heard_unreachable(port, payload),
            Question::Presence if protocol == self.icmp() => {
                let kind = if self.vip.is_ipv4() { 0 } else { 129 };
                let is_reply = *payload.first()? == kind && payload.get(4..6)? == self.port.to_be_bytes();
                is_reply.then_some(Heard { answer: Answer::Yes, reset: None })
            }
            _ => None,
        }
    }

    /// The first bytes of what they send us from this port.
    fn ports_of_theirs(&self, port: u16) -> [u8; 4] {
        let ([a, b], [c, d]) = (port.to_be_bytes(), self.port.to_be_bytes());
        [a, b, c, d]
    }

    /// "Port unreachable", with the beginning of our datagram in it.
    fn heard_unreachable(&self, port: u16, message: &[u8]) -> Option<Heard> {
        let (unreachable, inner) = if self.vip.is_ipv4() { ([3, 3], 8 + 20) } else { ([1, 4], 8 + 40) };
        let ports = [self.port.to_be_bytes(), port.to_be_bytes()].concat();
        let is_ours = message.get(..2)? == unreachable && message.get(inner..inner + 4)? == ports;
        is_ours.then_some(Heard { answer: Answer::Refused, reset: None })
    }

    fn heard_tcp(&self, port: u16, segment_of_theirs: &[u8]) -> Option<Heard> {
        if segment_of_theirs.get(..4)? != self.ports_of_theirs(port) {
            return None;
        }
        match segment_of_theirs.get(13)? & (FIN_SYN_RST | ACK) {
            flags if flags & RST != 0 => Some(Heard { answer: Answer::Refused, reset: None }),
            flags if flags == SYN | ACK => {
                let next = u32::from_be_bytes(segment_of_theirs.get(8..12)?.try_into().ok()?);
                let reset = self.packet(TCP, &segment(self.port, port, next, RST));
                Some(Heard { answer: Answer::Yes, reset: Some(reset) })
            }
            _ => None,
        }
    }
}

fn send_inside(to: IpAddr, kind: Encapsulation, packet: &[u8]) -> io::Result<()> {
    let is_v4 = packet.first().is_some_and(|first| first >> 4 == 4);
    let (number, ethertype): (u8, [u8; 2]) = if is_v4 { (4, [8, 0]) } else { (41, [0x86, 0xdd]) };
    let domain = Domain::for_address(SocketAddr::new(to, 0));
    let (protocol, payload) = match kind {
        Encapsulation::Ipip => (number, packet.to_vec()),
        Encapsulation::Gre { summed: false } => (47, [&[0, 0][..], &ethertype, packet].concat()),
        Encapsulation::Gre { summed: true } => {
            let mut payload = [&[0x80, 0][..], &ethertype, &[0; 4], packet].concat();
            let sum = checksum(&payload);
            payload.splice(4..6, sum);
            (47, payload)
        }
        Encapsulation::Gue { port } => {
            let any: IpAddr =
                if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let gue = [&[0, number, 0, 0][..], packet].concat();
            return UdpSocket::bind((any, 0))?.send_to(&gue, (to, port)).map(drop);
        }
    };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(i32::from(protocol))))?;
    socket.send_to(&payload, &SocketAddr::new(to, 0).into()).map(drop)
}

fn segment(from: u16, to: u16, sequence: u32, flags: u8) -> Vec<u8> {
    const WORDS_OF_HEADER: u8 = 5;
    let window: [u8; 2] = [0xff, 0xff];
    let mut bytes = [from.to_be_bytes(), to.to_be_bytes()].concat();
    bytes.extend(sequence.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend([WORDS_OF_HEADER << 4, flags, window[0], window[1], 0, 0, 0, 0]);
    bytes
}

fn v4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: u16) -> Vec<u8> {
    let [high, low] = (20 + payload).to_be_bytes();
    let mut head = vec![0x45, 0, high, low, 0, 0, 0x40, 0, HOPS, protocol, 0, 0];
    head.extend(from.octets().iter().chain(&to.octets()));
    let sum = checksum(&head);
    head.splice(10..12, sum);
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk(from: &str, vip: &str, question: Question) -> Talk {
        Talk { from: from.parse().unwrap(), vip: vip.parse().unwrap(), port: 4000, question }
    }

    /// A frame of the answer: addresses the other way round.
    fn answer(talk: &Talk, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let back = Talk { from: talk.vip, vip: talk.from, ..*talk };
        let kind: [u8; 2] = if talk.vip.is_ipv4() { [8, 0] } else { [0x86, 0xdd] };
        [&[0; 12][..], &kind, &back.packet(protocol, payload)].concat()
    }

    #[test]
    fn a_question_has_checksums_that_hold() {
        for (from, vip) in [("10.0.0.254", "10.0.0.100"), ("fd00::fe", "fd00::100")] {
            let talk = talk(from, vip, Question::Connection(80));
            let packet = talk.request();
            let head = if talk.vip.is_ipv4() { 20 } else { 40 };
            if head == 20 {
                assert_eq!(checksum(&packet[..head]), [0, 0]);
            }
            let pseudo = [&bytes(talk.from)[..], &bytes(talk.vip), &[0, TCP, 0, 20]].concat();
            assert_eq!(checksum(&[&pseudo[..], &packet[head..]].concat()), [0, 0]);
        }
    }

    #[test]
    fn answers_are_told_apart() {
        for (from, vip) in [("10.0.0.254", "10.0.0.100"), ("fd00::fe", "fd00::100")] {
            let connection = talk(from, vip, Question::Connection(80));
            let heard = |flags| connection.heard(&answer(&connection, TCP, &segment(80, 4000, 7, flags)));
            let taken = heard(SYN | ACK).expect("an answer");
            assert!(taken.answer == Answer::Yes && taken.reset.is_some());
            assert_eq!(heard(RST | ACK).expect("an answer").answer, Answer::Refused);
            assert!(heard(ACK).is_none());
            let other_port = answer(&connection, TCP, &segment(81, 4000, 7, RST));
            assert!(connection.heard(&other_port).is_none());

            let datagram = talk(from, vip, Question::Datagram(53));
            let unreachable: &[u8] = if datagram.vip.is_ipv4() { &[3, 3] } else { &[1, 4] };
            let refusal = [unreachable, &[0; 6], &datagram.request()].concat();
            let heard = |protocol, payload: &[u8]| datagram.heard(&answer(&datagram, protocol, payload));
            assert_eq!(heard(datagram.icmp(), &refusal).expect("an answer").answer, Answer::Refused);
            assert!(heard(datagram.icmp(), &refusal[..30]).is_none());
            assert_eq!(heard(UDP, &[0, 53, 0x0f, 0xa0, 0, 8, 0, 0]).expect("an answer").answer, Answer::Yes);
            assert!(heard(UDP, &[0, 54, 0x0f, 0xa0, 0, 8, 0, 0]).is_none());

            let presence = talk(from, vip, Question::Presence);
            let kind = if presence.vip.is_ipv4() { 0 } else { 129 };
            let echo = [kind, 0, 0, 0, 0x0f, 0xa0, 0, 1];
            assert_eq!(
                presence.heard(&answer(&presence, presence.icmp(), &echo)).expect("an answer").answer,
                Answer::Yes
            );
            assert!(presence.heard(&answer(&presence, TCP, &segment(80, 4000, 7, RST))).is_none());
            assert!(presence.heard(&[0; 13]).is_none());
        }
    }
}
