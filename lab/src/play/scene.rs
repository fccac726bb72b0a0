//! The sockets of one case: listeners on every server, and the connections between.
//!
//! One thread moves both ends, so that steps follow each other exactly as recorded, and servers
//! close only when a step says so.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::Ipv6RecvPacketInfo;
use serde_json::Value;

use super::text;
use crate::client::{PATIENCE, refused};
use crate::name_server::{answer, receive};
use crate::topology::Lab;

const ACCEPT_PATIENCE: Duration = Duration::from_secs(1);
const DATAGRAM_PATIENCE: Duration = Duration::from_millis(700);
/// Answers to one-packet NAT never come; waiting longer would only let entries expire.
const HOPELESS_PATIENCE: Duration = Duration::from_millis(80);

/// Nobody: what the sequence says when no server got a connection.
const NOBODY: &str = "-";

/// The sockets of one case.
pub(super) struct Scene<'a> {
    lab: &'a Lab,
    port: u16,
    answer_patience: Duration,
    listeners: Listeners,
    // By the number of the step that opened them; none when it failed or has been closed.
    connections: Vec<Option<Connection>>,
}

/// One listening socket for each server, in their order.
enum Listeners {
    Tcp(Vec<TcpListener>),
    Udp(Vec<UdpSocket>),
}

enum Connection {
    Tcp { client: TcpStream, server: TcpStream },
    Udp { client: UdpSocket },
}

impl<'a> Scene<'a> {
    /// Listens on the case's port everywhere.
    pub(super) fn new(lab: &'a Lab, case: &Value) -> Result<Scene<'a>> {
        let port = case["vport"]
            .as_u64()
            .and_then(|port| u16::try_from(port).ok())
            .context("the case has no vport")?;
        let udp = text(case, "proto") == "udp";
        let listeners = if udp { Listeners::udp(lab, port)? } else { Listeners::tcp(lab, port)? };
        let one_packet =
            case["service_flags"].as_array().is_some_and(|flags| flags.iter().any(|flag| flag == "-o"));
        let hopeless = one_packet && text(case, "forward") == "nat";
        let answer_patience = if hopeless { HOPELESS_PATIENCE } else { DATAGRAM_PATIENCE };
        Ok(Scene { lab, port, answer_patience, listeners, connections: Vec::new() })
    }

    /// The case's virtual port.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Opens a connection as the step says; the digit of the server that got it.
    pub(super) fn open(&mut self, step: &Value) -> Result<String> {
        let from = SocketAddr::new(text(step, "client").parse()?, source_port(step)?);
        let to = SocketAddr::new(text(step, "vip").parse()?, self.port);
        match &self.listeners {
            Listeners::Tcp(listeners) => {
                let (who, connection) = open_tcp(self.lab, listeners, from, to)?;
                self.connections.push(connection);
                Ok(who)
            }
            Listeners::Udp(_) => {
                let client = self.lab.client().datagrams(from, to)?;
                self.connections.push(Some(Connection::Udp { client }));
                self.datagram(self.connections.len() - 1)
            }
        }
    }

    /// Opens a connection and closes it at once.
    pub(super) fn short(&mut self, step: &Value) -> Result<String> {
        let who = self.open(step)?;
        self.close(self.connections.len() - 1);
        Ok(who)
    }

    /// One more datagram, and its answer.
    pub(super) fn datagram(&mut self, index: usize) -> Result<String> {
        let Listeners::Udp(listeners) = &self.listeners else { anyhow::bail!("a datagram in a TCP case") };
        let Some(Some(Connection::Udp { client })) = self.connections.get(index) else {
            return Ok(NOBODY.to_owned());
        };
        // What an earlier datagram met with (such as a refusal) is told to the next call: ours does not care.
        if client.send(b"hi").is_err() {
            return Ok(NOBODY.to_owned());
        }
        let Some(server) = ready(listeners, DATAGRAM_PATIENCE)? else { return Ok(NOBODY.to_owned()) };
        if let Some((asker, asked)) = receive(&listeners[server])? {
            answer(&listeners[server], &format!("rs{}", server + 1), asker, asked).ok();
            client.set_read_timeout(Some(self.answer_patience))?;
            client.recv(&mut [0; 16]).ok();
        }
        Ok((server + 1).to_string())
    }

    /// The client closes first, then the server, having read the end.
    pub(super) fn close(&mut self, index: usize) {
        if let Some(Connection::Tcp { client, mut server }) = self.take(index) {
            drop(client);
            std::io::copy(&mut server, &mut std::io::sink()).ok();
        }
    }

    /// The client resets.
    pub(super) fn reset(&mut self, index: usize) -> Result<()> {
        if let Some(Connection::Tcp { client, server }) = self.take(index) {
            reset(client)?;
            drop(server);
        }
        Ok(())
    }

    fn take(&mut self, index: usize) -> Option<Connection> {
        self.connections.get_mut(index).and_then(Option::take)
    }
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        for index in 0..self.connections.len() {
            self.reset(index).ok();
        }
    }
}

impl Listeners {
    fn tcp(lab: &Lab, port: u16) -> Result<Listeners> {
        let listen = |server: &crate::Server| -> Result<TcpListener> {
            let listener = server.netns.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        lab.servers.iter().map(listen).collect::<Result<_>>().map(Listeners::Tcp)
    }

    fn udp(lab: &Lab, port: u16) -> Result<Listeners> {
        let listen = |server: &crate::Server| -> Result<UdpSocket> {
            let socket = server.netns.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)))?;
            setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
            Ok(socket)
        };
        lab.servers.iter().map(listen).collect::<Result<_>>().map(Listeners::Udp)
    }
}

/// Connects, sees who accepts, and proves that data passes both ways.
fn open_tcp(
    lab: &Lab,
    listeners: &[TcpListener],
    from: SocketAddr,
    to: SocketAddr,
) -> Result<(String, Option<Connection>)> {
    let nobody = || (NOBODY.to_owned(), None);
    let mut client = match lab.client().connect(from, to) {
        Ok(client) => client,
        Err(error) if refused(&error) => return Ok(nobody()),
        Err(error) => return Err(error),
    };
    let Some(index) = ready(listeners, ACCEPT_PATIENCE)? else { return Ok(nobody()) };
    let (mut server, _) = listeners[index].accept().context("accept")?;
    server.set_nonblocking(false)?;
    server.set_read_timeout(Some(PATIENCE))?;
    let mut heard = [0; 16];
    client.write_all(b"hi")?;
    ensure!(server.read(&mut heard)? == 2, "the server does not hear the client");
    server.write_all(format!("rs{}", index + 1).as_bytes())?;
    ensure!(client.read(&mut heard)? == 3, "the client does not hear the server");
    Ok(((index + 1).to_string(), Some(Connection::Tcp { client, server })))
}

/// The first socket that has something for us within this time.
fn ready<S: AsFd>(sockets: &[S], patience: Duration) -> Result<Option<usize>> {
    let mut polled: Vec<PollFd> =
        sockets.iter().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
    poll(&mut polled, PollTimeout::try_from(patience)?).context("poll the servers' sockets")?;
    Ok(polled.iter().position(|socket| socket.any().unwrap_or(false)))
}

/// Closes with an RST instead of a FIN.
fn reset(client: TcpStream) -> Result<()> {
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).context("let a close reset")?;
    drop(client);
    Ok(())
}

fn source_port(step: &Value) -> Result<u16> {
    step["sport"].as_u64().and_then(|port| u16::try_from(port).ok()).context("the step has no sport")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    // Without a director: the steps go to a server's own address.
    fn step(sport: u16) -> Value {
        json!({ "client": "10.0.0.3", "sport": sport, "vip": "10.1.0.12" })
    }

    #[test]
    fn tcp_steps_see_who_accepts_and_leave_no_connection() -> Result<()> {
        let lab = Lab::two_network(2)?;
        lab.client_netns()
            .ip(&["rule add from 10.0.0.0/24 lookup 200", "route add default via 10.0.0.254 table 200"])?;
        let mut scene = Scene::new(&lab, &json!({ "vport": 2001, "proto": "tcp" }))?;
        assert_eq!(scene.open(&step(10_000))?, "2");
        assert_eq!(scene.short(&step(10_001))?, "2");
        assert_eq!(scene.open(&step(10_002))?, "2");
        scene.close(0);
        scene.reset(2)?;
        assert!(scene.connections.iter().all(Option::is_none));
        // Nobody listens at the director.
        let nobody = json!({ "client": "10.0.0.3", "sport": 10_003, "vip": "10.0.0.100" });
        assert_eq!(scene.open(&nobody)?, NOBODY);
        scene.close(3);
        Ok(())
    }

    #[test]
    fn udp_steps_see_who_receives() -> Result<()> {
        let lab = Lab::two_network(2)?;
        lab.client_netns()
            .ip(&["rule add from 10.0.0.0/24 lookup 200", "route add default via 10.0.0.254 table 200"])?;
        let mut scene = Scene::new(&lab, &json!({ "vport": 2001, "proto": "udp" }))?;
        assert_eq!(scene.open(&step(10_000))?, "2");
        assert_eq!(scene.datagram(0)?, "2");
        scene.close(0);
        assert_eq!(scene.datagram(0)?, NOBODY);
        Ok(())
    }
}
