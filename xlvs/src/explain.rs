//! `xlvs explain`: what would happen to a packet now, and why.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use xlvs_ipvsadm::Backend;
use xlvs_model::spec::Protocol;
use xlvs_model::view::ConnView;
use xlvs_model::{ServerKey, ServiceKey};

use crate::client::Client;
use crate::listings::{self, json, print};
use crate::paint::Paint;
use crate::paths::Paths;
use crate::plan::{server, service};
use crate::protocol::{Answer, Request};

/// Which packet.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Where the packet goes: [tcp:|udp:]ADDRESS:PORT, an IPv6 address in brackets. Without it, a packet to each service.
    #[arg(long, value_name = "SERVICE")]
    service: Option<Destination>,
    /// The client's address and port.
    #[arg(long, value_name = "CIP:PORT")]
    from: SocketAddr,
    /// Which TCP packet it is; by default one of the connection if there is one, else a SYN.
    #[arg(long, value_enum)]
    packet: Option<Kind>,
    /// The VLAN that it comes by, or the outer and the inner one: 100, 5.6. By default that by which the client is reached.
    #[arg(long, value_name = "ID[.ID]")]
    vlan: Option<Vlan>,
    /// As JSON.
    #[arg(long)]
    json: bool,
    /// The director's places.
    #[command(flatten)]
    paths: Paths,
}

/// A TCP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It opens a connection.
    Syn,
    /// A packet of a connection.
    Ack,
    /// It ends one.
    Fin,
    /// It breaks one off.
    Rst,
}

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Its protocol.
    pub protocol: Protocol,
    /// Address and port.
    pub addr: SocketAddr,
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (protocol, addr) = match text.split_once(':') {
            Some(("tcp", addr)) => (Protocol::Tcp, addr),
            Some(("udp", addr)) => (Protocol::Udp, addr),
            _ => (Protocol::Tcp, text),
        };
        let addr =
            addr.parse().map_err(|_| "write ADDRESS:PORT or udp:ADDRESS:PORT, with numbers".to_owned())?;
        Ok(Self { protocol, addr })
    }
}

/// The identifiers of a frame's one or two VLAN tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vlan {
    /// The outer tag's.
    pub outer: u16,
    /// The inner tag's, if there are two.
    pub inner: Option<u16>,
}

impl FromStr for Vlan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let id = |text: &str| text.parse().ok().filter(|id| (1..4095).contains(id));
        let (outer, inner) = text.split_once('.').map_or((text, None), |(outer, inner)| (outer, Some(inner)));
        let vlan = match inner {
            Some(inner) => id(outer).zip(id(inner)).map(|(outer, inner)| Self { outer, inner: Some(inner) }),
            None => id(outer).map(|outer| Self { outer, inner: None }),
        };
        vlan.ok_or_else(|| {
            "write the identifier, 100, or the outer and the inner one, 5.6, of 1 to 4094".to_owned()
        })
    }
}

/// A packet to be explained.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Question {
    /// The client.
    pub from: SocketAddr,
    /// Where the packet goes.
    pub to: SocketAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Which TCP packet, if that was said.
    pub kind: Option<Kind>,
    /// By which VLAN it comes, if that was said.
    pub vlan: Option<Vlan>,
}

/// What would become of a packet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// The packet, in words.
    pub packet: String,
    /// The service that it belongs to.
    pub service: Option<ServiceKey>,
    /// The connection that it belongs to, as it is now.
    pub connection: Option<ConnView>,
    /// What the scheduler looked at, if it was asked.
    pub scheduling: Option<Scheduling>,
    /// The server that it is for.
    pub server: Option<ServerKey>,
    /// How it is forwarded there.
    pub method: Option<String>,
    /// Where the server is found, in a sentence.
    pub next_hop: Option<String>,
    /// The connection as the packet would leave it: state and timeout.
    pub leaves: Option<ConnView>,
    /// Its fate: `forward`, `pass`, `drop`, `answer`.
    pub fate: Fate,
    /// The reason's label, where there is one: as in `xlvs status`.
    pub reason: Option<String>,
    /// The fate in a sentence.
    pub sentence: String,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It is sent on.
    Forward,
    /// The director's own stack gets it.
    Pass,
    /// It is dropped.
    Drop,
    /// Its sender gets an ICMP error.
    Answer,
}

/// A choice between servers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scheduling {
    /// The scheduler, with its flags.
    pub scheduler: String,
    /// The servers in the order in which the scheduler sees them: the newest first.
    pub candidates: Vec<Candidate>,
    /// The one that it chose.
    pub chosen: Option<ServerKey>,
}

/// A server that could be chosen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Candidate {
    /// Which.
    pub server: ServerKey,
    /// Its weight.
    pub weight: u32,
    /// Active connections.
    pub active: u32,
    /// Inactive ones.
    pub inactive: u32,
    /// What the scheduler compares, where it compares numbers: the smallest is chosen.
    pub load: Option<f64>,
    /// Why it gets nothing new.
    pub unusable: Option<String>,
}

/// Asks the daemon and prints what it says.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mut client = Client::connected(&options.paths)?;
    let destinations = match options.service {
        Some(destination) => vec![destination],
        None => every_service(&mut client, options.from)?,
    };
    let mut explanations = Vec::new();
    for Destination { protocol, addr: to } in destinations {
        let protocol = protocol as u8;
        let question =
            Question { from: options.from, to, protocol, kind: options.packet, vlan: options.vlan };
        match client.ask(&Request::Explain(question))? {
            Answer::Explanation(explanation) => explanations.push(*explanation),
            other => return Err(other.unexpected().into()),
        }
    }
    let paint = Paint::of_stdout();
    print(|out| {
        if options.json {
            return json(out, &explanations);
        }
        for (at, explanation) in explanations.iter().enumerate() {
            if at > 0 {
                writeln!(out)?;
            }
            write(out, explanation, paint)?;
        }
        Ok(())
    })
}

/// Services with one address and port of the client's family; others take packets to many.
fn every_service(client: &mut Client, from: SocketAddr) -> anyhow::Result<Vec<Destination>> {
    let services = client.services(None).context("list the services")?;
    let destination = |key: &ServiceKey| match *key {
        ServiceKey::Address { protocol: protocol @ (Protocol::Tcp | Protocol::Udp), addr, port }
            if port != 0 && addr.is_ipv4() == from.is_ipv4() =>
        {
            Some(Destination { protocol, addr: SocketAddr::new(addr, port) })
        }
        _ => None,
    };
    let found: Vec<Destination> = services.iter().filter_map(|s| destination(&s.spec.key)).collect();
    ensure!(
        !found.is_empty(),
        "there is no service with one address and port; say with --service where it goes"
    );
    Ok(found)
}

fn write(out: &mut dyn Write, told: &Explanation, paint: Paint) -> io::Result<()> {
    writeln!(out, "{}", paint.bold(&told.packet))?;
    if let Some(key) = &told.service {
        writeln!(out, "  Service     {}", service(key))?;
    }
    match (&told.connection, &told.scheduling, &told.leaves) {
        (Some(conn), _, _) => writeln!(out, "  Connection  {}", connection_words(conn))?,
        (None, Some(_), _) => writeln!(out, "  Connection  none yet")?,
        // A new connection without a choice: somebody remembered the client.
        (None, None, Some(_)) => writeln!(out, "  Connection  none yet; persistence names its server")?,
        (None, None, None) => {}
    }
    if let Some(scheduling) = &told.scheduling {
        write_scheduling(out, scheduling, paint)?;
    }
    if let Some(key) = &told.server {
        let method = told.method.as_deref().unwrap_or("no method");
        writeln!(out, "  Server      {}, {method}", server(key))?;
    }
    if let Some(next_hop) = &told.next_hop {
        writeln!(out, "  Next hop    {next_hop}")?;
    }
    if let Some(conn) = &told.leaves {
        writeln!(out, "  Afterwards  {}", connection_words(conn))?;
    }
    let fate = match told.fate {
        Fate::Forward => paint.green(&told.sentence),
        Fate::Pass => paint.yellow(&told.sentence),
        Fate::Drop | Fate::Answer => paint.red(&told.sentence),
    };
    writeln!(out, "  Fate        {fate}")
}

/// A connection in words: its state, what time is left, and its server.
pub fn connection_words(conn: &ConnView) -> String {
    let seconds = conn.expires_ms / 1000;
    format!("{}, {}:{:02} left, to {}", conn.state, seconds / 60, seconds % 60, conn.dest)
}

fn write_scheduling(out: &mut dyn Write, scheduling: &Scheduling, paint: Paint) -> io::Result<()> {
    let candidates = &scheduling.candidates;
    let servers = if candidates.is_empty() { "there is no server" } else { "its servers, the newest first:" };
    writeln!(out, "  Scheduler   {}; {servers}", scheduling.scheduler)?;
    for candidate in candidates.iter().take(listings::SHOWN) {
        let Candidate { weight, active, inactive, .. } = candidate;
        let name = server(&candidate.server);
        let mut words = format!("weight {weight}, {active} active, {inactive} inactive");
        words += &candidate.load.map(|load| format!(", load {load:.2}")).unwrap_or_default();
        words += &candidate.unusable.as_ref().map(|why| format!(", {why}")).unwrap_or_default();
        let line = format!("{name:<24} {words}");
        if scheduling.chosen == Some(candidate.server) {
            writeln!(out, "    {} {}", paint.green("=>"), paint.green(&line))?;
        } else {
            writeln!(out, "       {line}")?;
        }
    }
    match candidates.len().saturating_sub(listings::SHOWN) {
        0 => Ok(()),
        more => writeln!(out, "       ... and {more} more; --json names all"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_written_as_people_write_them() {
        let at = |text: &str| text.parse::<Destination>();
        let tcp = Destination { protocol: Protocol::Tcp, addr: "192.0.2.1:80".parse().unwrap() };
        assert_eq!(at("192.0.2.1:80"), Ok(tcp));
        assert_eq!(at("tcp:192.0.2.1:80"), Ok(tcp));
        assert_eq!(at("udp:[fd00::1]:53").map(|d| (d.protocol, d.addr.port())), Ok((Protocol::Udp, 53)));
        assert!(at("192.0.2.1").is_err());
        assert!(at("sctp:192.0.2.1:80").is_err());
    }

    #[test]
    fn vlans_are_written_as_their_devices_are_called() {
        let vlan = |text: &str| text.parse::<Vlan>();
        assert_eq!(vlan("100"), Ok(Vlan { outer: 100, inner: None }));
        assert_eq!(vlan("5.6"), Ok(Vlan { outer: 5, inner: Some(6) }));
        for wrong in ["", "0", "4095", "5.", "5.0", "5.6.7", "eth0.5"] {
            assert!(vlan(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_choice_is_told_with_what_was_compared() {
        let key = |n: u8| ServerKey { addr: [10, 1, 0, n].into(), port: 80 };
        let candidate = |n, active, load, unusable: Option<&str>| Candidate {
            server: key(n),
            weight: u32::from(unusable.is_none()),
            active,
            inactive: 2,
            load,
            unusable: unusable.map(str::to_owned),
        };
        let told = Explanation {
            packet: "TCP SYN 10.0.0.1:40000 -> 10.0.0.100:80".to_owned(),
            service: Some(ServiceKey::Address {
                protocol: Protocol::Tcp,
                addr: [10, 0, 0, 100].into(),
                port: 80,
            }),
            connection: None,
            scheduling: Some(Scheduling {
                scheduler: "wlc".to_owned(),
                candidates: vec![
                    candidate(13, 0, None, Some("weight 0: gets nothing new")),
                    candidate(12, 1, Some(259.0), None),
                    candidate(11, 0, Some(2.0), None),
                ],
                chosen: Some(key(11)),
            }),
            server: Some(key(11)),
            method: Some("NAT".to_owned()),
            next_hop: Some("10.1.0.11 is at 02:00:00:00:02:01 on l1".to_owned()),
            leaves: None,
            fate: Fate::Forward,
            reason: None,
            sentence: "sent to the server by l1".to_owned(),
        };
        let mut out = Vec::new();
        write(&mut out, &told, Paint::of_nothing()).unwrap();
        let expected = "\
TCP SYN 10.0.0.1:40000 -> 10.0.0.100:80
  Service     TCP 10.0.0.100:80
  Connection  none yet
  Scheduler   wlc; its servers, the newest first:
       10.1.0.13:80             weight 0, 0 active, 2 inactive, weight 0: gets nothing new
       10.1.0.12:80             weight 1, 1 active, 2 inactive, load 259.00
    => 10.1.0.11:80             weight 1, 0 active, 2 inactive, load 2.00
  Server      10.1.0.11:80, NAT
  Next hop    10.1.0.11 is at 02:00:00:00:02:01 on l1
  Fate        sent to the server by l1
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
