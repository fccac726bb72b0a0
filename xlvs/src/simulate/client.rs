//! Clients and servers, packet by packet, as the recorded cases have them.

use std::net::SocketAddr;

use super::director::{CLIENT_SIDE, Director, Fate, SERVER_SIDE};
use super::wire::{self, ACK, FIN, PSH, RST, SYN, Transport};

/// What a client says.
const HELLO: &[u8] = b"hi";
/// How long a client tries to connect, milliseconds.
const PATIENCE_MS: u64 = 1500;

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
    server: u8,
    way: Way,
    open: bool,
}

impl Connection {
    /// Opens a connection. `None`: nobody answers.
    pub fn open(director: &mut Director, udp: bool, client: SocketAddr, vip: SocketAddr) -> Option<Self> {
        let transport = if udp { Transport::Udp } else { Transport::Tcp(SYN) };
        let mut connection = Self { client, vip, transport, server: 0, way: Way::Direct, open: true };
        connection.find_server(director)?;
        if !udp {
            connection.shake_hands_and_talk(director);
        } else {
            connection.answer(director, Transport::Udp, &connection.name());
        }
        Some(connection)
    }

    /// The number of its server.
    pub fn server(&self) -> u8 {
        self.server
    }

    /// One more datagram and its answer: the server that got it.
    pub fn datagram(&mut self, director: &mut Director) -> Option<u8> {
        self.find_server(director)?;
        self.answer(director, Transport::Udp, &self.name());
        Some(self.server)
    }

    /// Both sides close, the client first.
    pub fn close(&mut self, director: &Director) {
        if std::mem::take(&mut self.open) && self.is_tcp() {
            self.ask(director, FIN | ACK, &[]);
            self.answer(director, Transport::Tcp(FIN | ACK), &[]);
            self.ask(director, ACK, &[]);
        }
    }

    /// The client resets.
    pub fn reset(&mut self, director: &Director) {
        if std::mem::take(&mut self.open) && self.is_tcp() {
            self.ask(director, RST | ACK, &[]);
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
            director.pass(1000);
            fate = director.receive(CLIENT_SIDE, &frame);
            director.pass(PATIENCE_MS - 1000);
        }
        let Fate::Sent(sent) = fate else { return None };
        self.server = wire::server_of(&sent)?;
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

    fn ask(&self, director: &Director, flags: u8, payload: &[u8]) {
        let frame = wire::frame(self.client, self.vip, Transport::Tcp(flags), payload);
        director.receive(CLIENT_SIDE, &frame);
    }

    fn answer(&self, director: &Director, transport: Transport, payload: &[u8]) {
        if let Way::Back(server) = self.way {
            director.receive(SERVER_SIDE, &wire::frame(server, self.client, transport, payload));
        }
    }

    fn name(&self) -> Vec<u8> {
        format!("rs{}", self.server).into_bytes()
    }
}
