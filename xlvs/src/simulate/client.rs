//! Clients and servers, packet by packet, as the recorded cases have them.

use std::net::SocketAddr;

use super::director::{CLIENT_SIDE, Director, Fate, SERVER_SIDE};
use super::wire::{self, ACK, FIN, PSH, RST, SYN, Transport};

/// What a client says.
const HELLO: &[u8] = b"hi";
/// How long a client tries to connect, and how long a server waits for it to close, milliseconds.
const PATIENCE_MS: u64 = 1500;
/// When a client sends its first packet again, milliseconds.
const RETRANSMIT_MS: u64 = 1000;
/// How long everybody waits for a datagram, milliseconds.
const DATAGRAM_MS: u64 = 700;
/// How long a client waits for an answer that translation leaves out, milliseconds.
const LOST_ANSWER_MS: u64 = 80;

/// How a server answers.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// By the director, from this address of its own.
    Back(SocketAddr),
    /// Past the director.
    Direct,
}

/// A connection between a client and a server.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    client: SocketAddr,
    vip: SocketAddr,
    transport: Transport,
    /// The server that got its last packet that asked for one.
    server: Option<u8>,
    way: Way,
    open: bool,
}

impl Connection {
    /// Opens a connection. Where nobody answers it has no [`Connection::server`]: of TCP nothing is left then, of UDP the
    /// client's socket, which may send again.
    pub fn open(director: &mut Director, udp: bool, client: SocketAddr, vip: SocketAddr) -> Self {
        let transport = if udp { Transport::Udp } else { Transport::Tcp(SYN) };
        let mut connection = Self { client, vip, transport, server: None, way: Way::Direct, open: true };
        if udp {
            connection.datagram(director);
        } else if connection.find_server(director).is_some() {
            connection.shake_hands_and_talk(director);
        } else {
            connection.open = false;
        }
        connection
    }

    /// The number of its server.
    pub fn server(&self) -> Option<u8> {
        self.server
    }

    /// One more datagram and its answer: the server that got it.
    pub fn datagram(&mut self, director: &mut Director) -> Option<u8> {
        if self.find_server(director).is_none() {
            director.pass(DATAGRAM_MS);
        } else if !self.answer(director, Transport::Udp, &self.name()) {
            director.pass(LOST_ANSWER_MS);
        }
        self.server
    }

    /// Both sides close, the client first. A server that does not hear of it loses patience.
    pub fn close(&mut self, director: &mut Director) {
        if std::mem::take(&mut self.open) && self.is_tcp() {
            if !self.ask(director, FIN | ACK, &[]) {
                director.pass(PATIENCE_MS);
            }
            self.answer(director, Transport::Tcp(FIN | ACK), &[]);
            self.ask(director, ACK, &[]);
        }
    }

    /// The client resets, and the server closes: a server that has not heard of it says so.
    pub fn reset(&mut self, director: &mut Director) {
        if std::mem::take(&mut self.open) && self.is_tcp() && !self.ask(director, RST | ACK, &[]) {
            self.answer(director, Transport::Tcp(FIN | ACK), &[]);
        }
    }

    fn is_tcp(&self) -> bool {
        matches!(self.transport, Transport::Tcp(_))
    }

    /// Sends the first packet, again after a second when it is lost, and notes whom it reached and how.
    fn find_server(&mut self, director: &mut Director) -> Option<()> {
        let hello = if self.is_tcp() { &[][..] } else { HELLO };
        let frame = wire::frame(self.client, self.vip, self.transport, hello);
        let mut fate = director.receive(CLIENT_SIDE, &frame);
        if matches!(fate, Fate::Lost) && self.is_tcp() {
            director.pass(RETRANSMIT_MS);
            fate = director.receive(CLIENT_SIDE, &frame);
            director.pass(PATIENCE_MS - RETRANSMIT_MS);
        }
        self.server = match &fate {
            Fate::Sent(sent) => wire::server_of(sent),
            _ => None,
        };
        let (Fate::Sent(sent), Some(_)) = (fate, self.server) else { return None };
        let reached = wire::destination(&sent);
        self.way = match reached {
            Some(addr) if addr != self.vip && sent.len() == frame.len() => Way::Back(addr),
            _ => Way::Direct,
        };
        Some(())
    }

    fn shake_hands_and_talk(&self, director: &Director) {
        self.answer(director, Transport::Tcp(SYN | ACK), &[]);
        self.ask(director, ACK, &[]);
        self.ask(director, PSH | ACK, HELLO);
        self.answer(director, Transport::Tcp(ACK), &[]);
        self.answer(director, Transport::Tcp(PSH | ACK), &self.name());
        self.ask(director, ACK, &[]);
    }

    /// Did the segment reach a server?
    fn ask(&self, director: &Director, flags: u8, payload: &[u8]) -> bool {
        let frame = wire::frame(self.client, self.vip, Transport::Tcp(flags), payload);
        matches!(director.receive(CLIENT_SIDE, &frame), Fate::Sent(sent) if wire::server_of(&sent).is_some())
    }

    /// Does the answer find its way? Past the director it does.
    fn answer(&self, director: &Director, transport: Transport, payload: &[u8]) -> bool {
        let Way::Back(server) = self.way else { return true };
        let fate = director.receive(SERVER_SIDE, &wire::frame(server, self.client, transport, payload));
        matches!(fate, Fate::Sent(_))
    }

    fn name(&self) -> Vec<u8> {
        format!("rs{}", self.server.unwrap_or_default()).into_bytes()
    }
}
