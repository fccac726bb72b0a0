//! The sockets of one case: listeners on every server, and the connections between.
//!
//! One thread moves both ends, so that steps follow each other exactly as recorded, and servers
//! close only when a step says so.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::Ipv6RecvPacketInfo;
use serde_json::Value;

use super::{list, number, text};
use crate::client::{PATIENCE, refused};
use crate::name_server::{Asked, answer, receive};
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
    vip: IpAddr,
    port: u16,
    answer_patience: Duration,
    listeners: Listeners,
    // By the number of the step that opened them; none when it failed or has been closed.
    connections: Vec<Option<Connection>>,
}

/// Listening sockets, each with the number of the server that it is on.
enum Listeners {
    Tcp(Vec<On<TcpListener>>),
    Udp(Vec<On<UdpSocket>>),
}

struct On<S> {
    server: usize,
    socket: S,
}

enum Connection {
    Tcp { client: TcpStream, server: TcpStream },
    Udp { client: UdpSocket },
}

impl<'a> Scene<'a> {
    /// Listens everywhere, on the case's port and on those that its commands name.
    pub(super) fn new(lab: &'a Lab, case: &Value) -> Result<Scene<'a>> {
        let port = number(case, "vport").context("the case has no vport")?;
        let vip = text(case, "vip").parse().context("the case has no vip")?;
        let (udp, ports) = (text(case, "proto") == "udp", server_ports(case, port));
        let listeners = if udp { Listeners::udp(lab, &ports)? } else { Listeners::tcp(lab, &ports)? };
        let one_packet =
            case["service_flags"].as_array().is_some_and(|flags| flags.iter().any(|flag| flag == "-o"));
        let hopeless = one_packet && text(case, "forward") == "nat";
        let answer_patience = if hopeless { HOPELESS_PATIENCE } else { DATAGRAM_PATIENCE };
        Ok(Scene { lab, vip, port, answer_patience, listeners, connections: Vec::new() })
    }

    /// The case's virtual port.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Opens a connection as the step says; the digit of the server that got it.
    pub(super) fn open(&mut self, step: &Value) -> Result<String> {
        let client = text(step, "client").parse().context("the step has no client")?;
        let from = SocketAddr::new(client, number(step, "sport").context("the step has no sport")?);
        let vip = step["vip"].as_str().map_or(Ok(self.vip), str::parse).context("the step's vip")?;
        let to = SocketAddr::new(vip, number(step, "vport").unwrap_or(self.port));
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
        if client.send(b"hi").is_err() {
            return Ok(NOBODY.to_owned());
        }
        let Some(On { server, socket }) = ready(listeners, Some(client), DATAGRAM_PATIENCE)? else {
            // Else the next datagram would be told of this one's refusal, and not be sent.
            client.take_error()?;
            return Ok(NOBODY.to_owned());
        };
        if let Some(Asked { asker, at, .. }) = receive(socket, &mut [0; 16])? {
            answer(socket, format!("rs{server}").as_bytes(), asker, at).ok();
            client.set_read_timeout(Some(self.answer_patience))?;
            client.recv(&mut [0; 16]).ok();
        }
        Ok(server.to_string())
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
    fn tcp(lab: &Lab, ports: &BTreeSet<u16>) -> Result<Listeners> {
        on_every_server(lab, ports, |port| {
            let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        })
        .map(Listeners::Tcp)
    }

    fn udp(lab: &Lab, ports: &BTreeSet<u16>) -> Result<Listeners> {
        on_every_server(lab, ports, |port| {
            let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?;
            setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
            Ok(socket)
        })
        .map(Listeners::Udp)
    }
}

fn on_every_server<S: Send>(
    lab: &Lab,
    ports: &BTreeSet<u16>,
    listen: impl Fn(u16) -> std::io::Result<S> + Sync,
) -> Result<Vec<On<S>>> {
    let mut sockets = Vec::new();
    for (server, host) in (1..).zip(&lab.servers) {
        // One visit for all ports: entering a namespace costs more than a socket.
        let all =
            host.netns.run(|| ports.iter().map(|port| listen(*port)).collect::<std::io::Result<Vec<_>>>());
        let all = all.with_context(|| format!("listen on {}", host.name))?;
        sockets.extend(all.into_iter().map(|socket| On { server, socket }));
    }
    Ok(sockets)
}

/// The ports on which servers are to listen: the virtual one, and those that commands give to servers.
fn server_ports(case: &Value, vport: u16) -> BTreeSet<u16> {
    let lines = list(case, "setup").iter().chain(list(case, "steps"));
    let named = lines.flat_map(|line| {
        let words: Vec<&str> = text(line, "cmd").split_whitespace().collect();
        let servers = words.windows(2).filter(|pair| matches!(pair[0], "-r" | "--real-server"));
        servers.filter_map(|pair| pair[1].parse::<SocketAddr>().ok()).collect::<Vec<_>>()
    });
    named.map(|server| server.port()).filter(|port| *port != 0).chain([vport]).collect()
}

/// Connects, sees who accepts, and proves that data passes both ways.
fn open_tcp(
    lab: &Lab,
    listeners: &[On<TcpListener>],
    from: SocketAddr,
    to: SocketAddr,
) -> Result<(String, Option<Connection>)> {
    let nobody = || (NOBODY.to_owned(), None);
    let mut client = match lab.client().connect(from, to) {
        Ok(client) => client,
        Err(error) if refused(&error) => return Ok(nobody()),
        Err(error) => return Err(error),
    };
    let Some(On { server, socket }) = ready(listeners, None, ACCEPT_PATIENCE)? else { return Ok(nobody()) };
    let (mut accepted, _) = socket.accept().context("accept")?;
    // Whoever accepted is the answer, whatever becomes of the talk.
    talk(&mut client, &mut accepted, &format!("rs{server}")).ok();
    Ok((server.to_string(), Some(Connection::Tcp { client, server: accepted })))
}

/// Data passes both ways.
fn talk(client: &mut TcpStream, server: &mut TcpStream, name: &str) -> std::io::Result<()> {
    server.set_nonblocking(false)?;
    server.set_read_timeout(Some(PATIENCE))?;
    let mut heard = [0; 16];
    client.write_all(b"hi")?;
    server.read_exact(&mut heard[..2])?;
    server.write_all(name.as_bytes())?;
    client.read_exact(&mut heard[..name.len()])
}

/// The first listener that has something for us within this time; none either when the client hears first that nobody
/// will.
fn ready<'s, S: AsFd>(
    listeners: &'s [On<S>],
    client: Option<&UdpSocket>,
    patience: Duration,
) -> Result<Option<&'s On<S>>> {
    let sockets = listeners.iter().map(|listener| listener.socket.as_fd());
    let mut polled: Vec<PollFd> =
        sockets.chain(client.map(AsFd::as_fd)).map(|socket| PollFd::new(socket, PollFlags::POLLIN)).collect();
    poll(&mut polled, PollTimeout::try_from(patience)?).context("poll the servers' sockets")?;
    let heard = polled.iter().position(|socket| socket.any().unwrap_or(false));
    Ok(heard.and_then(|at| listeners.get(at)))
}

/// Closes with an RST instead of a FIN.
fn reset(client: TcpStream) -> Result<()> {
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).context("let a close reset")?;
    drop(client);
    Ok(())
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
        let mut scene = Scene::new(&lab, &json!({ "vport": 2001, "vip": "10.0.0.100", "proto": "tcp" }))?;
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
    fn servers_listen_where_commands_say() {
        let case = json!({
            "setup": [{ "cmd": "ipvsadm -a -t 10.0.0.100:80 -r 10.1.0.11:8080 -m" }, { "cmd": "ipvsadm -a -f 7 -r fd01::12 -m" }],
            "steps": [{ "op": "adm", "cmd": "ipvsadm -a -t [fd00::100]:80 --real-server [fd01::11]:8081 -m" }],
        });
        assert_eq!(server_ports(&case, 80), BTreeSet::from([80, 8080, 8081]));
    }

    #[test]
    fn udp_steps_see_who_receives() -> Result<()> {
        let lab = Lab::two_network(2)?;
        lab.client_netns()
            .ip(&["rule add from 10.0.0.0/24 lookup 200", "route add default via 10.0.0.254 table 200"])?;
        let mut scene = Scene::new(&lab, &json!({ "vport": 2001, "vip": "10.0.0.100", "proto": "udp" }))?;
        assert_eq!(scene.open(&step(10_000))?, "2");
        assert_eq!(scene.datagram(0)?, "2");
        scene.close(0);
        assert_eq!(scene.datagram(0)?, NOBODY);
        Ok(())
    }
}
