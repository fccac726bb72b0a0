//! `xlvs trace`: what becomes of a client's packets, step by step, told by the programs in the kernel.

use std::fmt;
use std::io::{self, Write};
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Args;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::json;
use xlvs_model::view::ConnView;
use xlvs_model::{ServerKey, ServiceKey};

use crate::client::Client;
use crate::drain::duration;
use crate::explain::{Fate, connection_words};
use crate::listings;
use crate::paint::Paint;
use crate::paths::Paths;
use crate::plan;
use crate::protocol::{Answer, Request};

/// Whose packets, and for how long.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The client, or a prefix of clients: packets from there, and packets to there.
    #[arg(long, value_name = "CIP[/BITS]", value_parser = clients)]
    from: IpNet,
    /// Of their packets on each processor, tell of every Nth only.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    every: u32,
    /// End after so many packets.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after so long: seconds, or with s, m or h.
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    limit: Option<Duration>,
    /// A line of JSON for each packet.
    #[arg(long)]
    json: bool,
    /// The director's places.
    #[command(flatten)]
    paths: Paths,
}

fn clients(text: &str) -> Result<IpNet, String> {
    let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    net.map_err(|_| "write an address, 192.0.2.7, or a prefix, 192.0.2.0/24".to_owned())
}

/// Which packets are to be told of.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Wanted {
    /// From or to these.
    pub clients: IpNet,
    /// On each processor every so many of them.
    pub every: u32,
    /// Up to so many.
    pub count: Option<u64>,
    /// For so long.
    pub limit: Option<Duration>,
}

/// A packet, and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Traced {
    /// When it came in: milliseconds since 1970.
    pub time_ms: u64,
    /// The processor that had it.
    pub cpu: u32,
    /// The interface that it came in by.
    pub interface: String,
    /// The packet, in words.
    pub packet: String,
    /// Its way.
    pub steps: Vec<Step>,
    /// Its fate.
    pub fate: Fate,
    /// The reason's label, where there is one: as in `xlvs status`.
    pub reason: Option<String>,
    /// The fate in a sentence.
    pub sentence: String,
    /// The packet as it leaves, in words, if it does.
    pub leaves: Option<String>,
    /// Nanoseconds between coming in and leaving; telling of it costs most of them.
    pub took_ns: u64,
}

/// A step on a packet's way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// The next program looks at it.
    Stage {
        /// At what it looks.
        name: String,
    },
    /// It belongs to this connection, shown as the packet leaves it.
    Connection {
        /// Gone already: not there.
        connection: Option<ConnView>,
    },
    /// There is no connection that it belongs to.
    NoConnection,
    /// The connection that was found has had its time.
    Ended,
    /// It is for this service.
    Service {
        /// Gone already: not there.
        service: Option<ServiceKey>,
    },
    /// Persistence names its server.
    Persistence,
    /// The scheduler has chosen.
    Scheduled {
        /// The server; gone already: not there.
        server: Option<ServerKey>,
    },
    /// The scheduler has found no usable server.
    NobodyScheduled,
    /// The connection is made.
    Opened {
        /// As the packet leaves it; gone already: not there.
        connection: Option<ConnView>,
    },
    /// It is looked at again.
    Again,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = |connection: &Option<ConnView>| {
            connection.as_ref().map_or_else(|| "gone by now".to_owned(), connection_words)
        };
        match self {
            Self::Stage { name } => write!(f, "on to {name}"),
            Self::Connection { connection } => write!(f, "connection: {}", told(connection)),
            Self::NoConnection => write!(f, "no connection yet"),
            Self::Ended => write!(f, "the connection that was found has had its time and goes"),
            Self::Service { service: Some(key) } => write!(f, "service {}", plan::service(key)),
            Self::Service { service: None } => write!(f, "a service that is gone by now"),
            Self::Persistence => write!(f, "persistence names its server"),
            Self::Scheduled { server: Some(key) } => write!(f, "scheduled to {}", plan::server(key)),
            Self::Scheduled { server: None } => write!(f, "scheduled to a server that is gone by now"),
            Self::NobodyScheduled => write!(f, "no server is usable"),
            Self::Opened { connection } => write!(f, "connection opened: {}", told(connection)),
            Self::Again => write!(f, "looked at again"),
        }
    }
}

/// Tells until there has been enough; that the daemon ends is an error.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let Options { from, every, count, limit, .. } = *options;
    let mut out = io::stdout().lock();
    let paint = Paint::of_stdout();
    let request = Request::Trace(Wanted { clients: from.trunc(), every, count, limit });
    let traced = Client::connected(&options.paths)?.stream(&request, |answer| {
        match answer {
            Answer::Done => return Ok(false),
            Answer::Tracing => eprintln!("tracing {from}; its packets follow"),
            answer if options.json => writeln!(out, "{}", as_json(&answer)?)?,
            answer => write(&mut out, &answer, paint)?,
        }
        out.flush()?;
        Ok(true)
    });
    listings::printed(traced)
}

fn as_json(answer: &Answer) -> io::Result<String> {
    match answer {
        Answer::Traced(packet) => Ok(serde_json::to_string(packet)?),
        Answer::Missed(count) => Ok(json!({ "missed": count }).to_string()),
        other => Err(other.unexpected()),
    }
}

fn write(out: &mut dyn Write, answer: &Answer, paint: Paint) -> io::Result<()> {
    let told = match answer {
        Answer::Traced(packet) => packet,
        Answer::Missed(count) => {
            return writeln!(
                out,
                "{}",
                paint.yellow(&format!("{count} steps came too fast and are not shown"))
            );
        }
        other => return Err(other.unexpected()),
    };
    let time = humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + Duration::from_millis(told.time_ms));
    writeln!(out, "{time}  {}  {}", told.interface, paint.bold(&told.packet))?;
    for step in &told.steps {
        writeln!(out, "    {step}")?;
    }
    let fate = match told.fate {
        Fate::Forward => paint.green(&told.sentence),
        Fate::Pass => paint.yellow(&told.sentence),
        Fate::Drop | Fate::Answer => paint.red(&told.sentence),
    };
    let leaves = told.leaves.as_ref().map_or_else(String::new, |packet| format!(": {packet}"));
    writeln!(out, "    {fate}{leaves}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_an_address_or_a_prefix() {
        assert_eq!(clients("192.0.2.7").map(|net| net.to_string()), Ok("192.0.2.7/32".to_owned()));
        assert_eq!(clients("fd00::/64").map(|net| net.to_string()), Ok("fd00::/64".to_owned()));
        for wrong in ["", "client", "192.0.2.7:80", "192.0.2.0/33"] {
            assert!(clients(wrong).is_err_and(|why| why.contains("192.0.2.0/24")), "{wrong}");
        }
    }

    #[test]
    fn a_packet_is_told_step_by_step() {
        let server = ServerKey { addr: [10, 1, 0, 11].into(), port: 80 };
        let told = Traced {
            time_ms: 1_800_000_000_123,
            cpu: 0,
            interface: "l0".to_owned(),
            packet: "TCP SYN 10.0.0.1:40000 > 10.0.0.100:80, TTL 64, 74 bytes".to_owned(),
            steps: vec![
                Step::Stage { name: "requests".to_owned() },
                Step::NoConnection,
                Step::Scheduled { server: Some(server) },
                Step::Opened { connection: None },
            ],
            fate: Fate::Forward,
            reason: None,
            sentence: "sent by l1".to_owned(),
            leaves: Some("TCP SYN 10.0.0.1:40000 > 10.1.0.11:80, TTL 63, 74 bytes".to_owned()),
            took_ns: 12_000,
        };
        let mut out = Vec::new();
        write(&mut out, &Answer::Traced(Box::new(told)), Paint::of_nothing()).expect("words");
        let expected = "\
2027-01-15T08:00:00.123Z  l0  TCP SYN 10.0.0.1:40000 > 10.0.0.100:80, TTL 64, 74 bytes
    on to requests
    no connection yet
    scheduled to 10.1.0.11:80
    connection opened: gone by now
    sent by l1: TCP SYN 10.0.0.1:40000 > 10.1.0.11:80, TTL 63, 74 bytes
";
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }
}
