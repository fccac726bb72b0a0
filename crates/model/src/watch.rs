//! How a service's servers are looked after: checks, agents, quorum and a sorry server.
//!
//! The words are keepalived's where it has them, so that its configuration can be expressed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::spec::{Protocol, ServerKey, ServerSpec, ServiceKey};

/// How the servers of one service are looked after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The weights that must be in force together for the service to be served by its servers; more than all of them have
    /// counts as all of them.
    pub quorum: u32,
    /// How far the weights must go beyond the quorum, either way, before it is gained or lost. Less than the quorum.
    pub hysteresis: u32,
    /// When less than so many percent of the checked servers are up, checks are not believed; 0: they always are.
    pub panic: u32,
    /// Serves while the quorum is lost.
    pub sorry: Option<ServerSpec>,
    /// Run when the quorum is gained.
    pub quorum_up: Option<Command>,
    /// Run when the quorum is lost.
    pub quorum_down: Option<Command>,
    /// Those servers of which anything is said.
    pub servers: BTreeMap<ServerKey, Watch>,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            quorum: 1,
            hysteresis: 0,
            panic: 0,
            sorry: None,
            quorum_up: None,
            quorum_down: None,
            servers: BTreeMap::new(),
        }
    }
}

/// How one server is looked after.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// It is up while all of these succeed.
    pub checks: Vec<CheckSpec>,
    /// Whom to ask what share of its weight it wants.
    pub agent: Option<AgentSpec>,
    /// Down until a check has succeeded.
    pub alpha: bool,
    /// Weight 0 instead of removal when it fails.
    pub inhibit_on_failure: bool,
    /// What becomes of its connections when it fails.
    pub on_failure: OnFailure,
    /// The time in which half of its failures is forgotten; with too many it is held out. `None`: it never is.
    pub damping: Option<Duration>,
    /// Run when it comes up.
    pub notify_up: Option<Command>,
    /// Run when it goes down.
    pub notify_down: Option<Command>,
}

/// What becomes of a server's connections when it fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// They stay, and go on when it is back.
    #[default]
    Keep,
    /// They end: their entries go, and TCP clients are brought to find out.
    Reset,
}

impl OnFailure {
    /// All, by the words that files have for them.
    pub const ALL: [(&'static str, Self); 2] = [("keep", Self::Keep), ("reset", Self::Reset)];

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Reset => "reset",
        }
    }
}

/// A program and its arguments; never empty.
pub type Command = Vec<String>;

/// One check of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckSpec {
    /// What is asked.
    pub kind: CheckKind,
    /// Whom to connect to instead of the server's own address (keepalived: `connect_ip`).
    pub address: Option<IpAddr>,
    /// Port to connect to; the server's own where the file names none.
    pub port: u16,
    /// Which way its packets take.
    pub via: Via,
    /// When.
    pub timing: Timing,
}

/// Which way a check's packets take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// A client's: to the service's address, and from there as the server's method has it (NAT, direct routing, tunnel).
    Path,
    /// From the director's own stack to the server's own address, as keepalived does it.
    Server,
}

impl Via {
    /// All, by the words that files have for them.
    pub const ALL: [(&'static str, Self); 2] = [("path", Self::Path), ("server", Self::Server)];

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Server => "server",
        }
    }

    /// What a check does of which the file does not say it: it goes a client's way if it asks what clients ask for.
    pub fn usual(
        kind: &CheckKind,
        address: Option<IpAddr>,
        port: u16,
        service: &ServiceKey,
        server: &ServerKey,
    ) -> Self {
        let ServiceKey::Address { protocol, .. } = service else { return Self::Server };
        let is_clients_question = match protocol {
            Protocol::Tcp => kind.speaks_tcp(),
            Protocol::Udp => kind.speaks_udp(),
            Protocol::Sctp => false,
        };
        let is_clients_port = server.port == 0 || server.port == port;
        if is_clients_question && is_clients_port && address.is_none() { Self::Path } else { Self::Server }
    }
}

/// What a check asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// A connection is accepted.
    Tcp,
    /// A request is answered as it should be.
    Http(HttpSpec),
    /// A server says by gRPC's health checking protocol (`grpc.health.v1`) that it serves.
    Grpc(GrpcSpec),
    /// Nobody refuses a datagram, or it is answered.
    Udp(UdpSpec),
    /// A name server answers without an error.
    Dns(DnsSpec),
    /// A mail server greets, and takes a greeting.
    Smtp(SmtpSpec),
    /// An echo request is answered.
    Ping,
    /// A file holds no number but 0 (keepalived: `FILE_CHECK` without a weight).
    File(String),
    /// A program ends with exit code 0 (keepalived: `MISC_CHECK`). It finds address and port in its environment.
    Script(Command),
}

/// A request and the answer that counts as success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSpec {
    /// `None`: plain HTTP.
    pub tls: Option<TlsSpec>,
    /// Which HTTP is spoken.
    pub version: HttpVersion,
    /// Begins with `/`.
    pub path: String,
    /// The `Host` header; the server's address and port where the file names none.
    pub host: Option<String>,
    /// Ranges of status codes, in order.
    pub status: Vec<(u16, u16)>,
    /// A regular expression that is found in the answer's body.
    pub body: Option<String>,
    /// The body's SHA-256 digest, in lower-case hexadecimal digits.
    pub digest: Option<String>,
}

/// A version of HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.1.
    #[default]
    One,
    /// HTTP/2: over TLS agreed on by ALPN, else with prior knowledge (RFC 9113, 3.3).
    Two,
}

impl HttpVersion {
    /// All, by the words that files have for them.
    pub const ALL: [(&'static str, Self); 2] = [("1.1", Self::One), ("2", Self::Two)];

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::One => "1.1",
            Self::Two => "2",
        }
    }
}

/// Which of a gRPC server's services is asked for, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrpcSpec {
    /// `None`: without TLS.
    pub tls: Option<TlsSpec>,
    /// The authority that is asked; the server's address and port where the file names none.
    pub host: Option<String>,
    /// The service; empty: the server as a whole.
    pub service: String,
}

/// A datagram, and the answer that counts as success.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UdpSpec {
    /// What is sent.
    pub send: String,
    /// A regular expression that is found in the answer. `None`: no answer is needed, if only nobody says that the port is
    /// unreachable.
    pub answer: Option<String>,
}

/// A question to a name server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsSpec {
    /// The name that is asked for.
    pub name: String,
    /// What of it.
    pub record: Record,
}

impl Default for DnsSpec {
    /// What keepalived asks: the root's SOA.
    fn default() -> Self {
        Self { name: ".".to_owned(), record: Record::Soa }
    }
}

/// A type of record of the DNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// An IPv4 address.
    A,
    /// An IPv6 address.
    Aaaa,
    /// Another name.
    Cname,
    /// A mail server.
    Mx,
    /// A name server.
    Ns,
    /// An address's name.
    Ptr,
    /// The start of a zone.
    Soa,
    /// A server of a service.
    Srv,
    /// A text.
    Txt,
}

impl Record {
    /// All, by the words that files have for them.
    pub const ALL: [(&'static str, Self); 9] = [
        ("A", Self::A),
        ("AAAA", Self::Aaaa),
        ("CNAME", Self::Cname),
        ("MX", Self::Mx),
        ("NS", Self::Ns),
        ("PTR", Self::Ptr),
        ("SOA", Self::Soa),
        ("SRV", Self::Srv),
        ("TXT", Self::Txt),
    ];

    /// Its word.
    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(_, record)| *record == self).map_or("", |(word, _)| word)
    }
}

/// How a mail server is greeted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SmtpSpec {
    /// The name that the director gives itself; its own address where the file names none.
    pub helo: Option<String>,
}

impl CheckKind {
    /// Does it find the server without a port?
    pub fn needs_no_port(&self) -> bool {
        matches!(self, Self::Ping | Self::File(_) | Self::Script(_))
    }

    /// Does it speak TCP, so that a port of another protocol says nothing?
    pub fn speaks_tcp(&self) -> bool {
        matches!(self, Self::Tcp | Self::Http(_) | Self::Grpc(_) | Self::Smtp(_))
    }

    /// Does it speak UDP?
    pub fn speaks_udp(&self) -> bool {
        matches!(self, Self::Udp(_) | Self::Dns(_))
    }
}

/// How a check speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSpec {
    /// The name that the server is told (SNI) and that its certificate must be for if it is verified.
    pub sni: Option<String>,
    /// The certificate must be in order.
    pub verify: bool,
    /// So long before its end it is warned of; zero: never.
    pub warn_expiry: Duration,
}

impl Default for TlsSpec {
    fn default() -> Self {
        Self { sni: None, verify: false, warn_expiry: Duration::from_secs(14 * 86_400) }
    }
}

/// When a check is made, and when it changes its mind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// From one check to the next (keepalived: `delay_loop`).
    pub interval: Duration,
    /// A check that takes longer has failed (keepalived: `connect_timeout`, for all of the check).
    pub timeout: Duration,
    /// Checks in a row that must succeed before a server that is down is up.
    pub rise: u32,
    /// Checks in a row that must fail before a server that is up is down.
    pub fall: u32,
    /// While a server is up, a check that fails is made again so often before it counts as failed.
    pub retry: u32,
    /// Wait before each of these.
    pub delay_before_retry: Duration,
    /// The first check is made at a random time within this; the interval where the file says nothing.
    pub warmup: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(2),
            rise: 2,
            fall: 3,
            retry: 0,
            delay_before_retry: Duration::from_secs(1),
            warmup: Duration::from_secs(2),
        }
    }
}

/// Whom to ask for a server's own opinion, in HAProxy's agent protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentSpec {
    /// Whom to connect to instead of the server's own address.
    pub address: Option<IpAddr>,
    /// TCP port of the agent.
    pub port: u16,
    /// From one question to the next.
    pub interval: Duration,
    /// An agent that takes longer has said nothing.
    pub timeout: Duration,
    /// Sent to the agent once connected.
    pub send: Option<String>,
    /// The largest share of its weight that it may ask for, in percent.
    pub most: u16,
    /// Of each new figure so many percent count, and the rest of the average that was.
    pub smoothing: u16,
    /// The share in force moves when the average is so many percent points away from it.
    pub step: u16,
    /// A server that was away and returns gets its share within this, in equal parts.
    pub slow_start: Duration,
}

impl AgentSpec {
    /// An agent at this port with every default.
    pub fn at(port: u16) -> Self {
        Self {
            address: None,
            port,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(2),
            send: None,
            most: 100,
            smoothing: 50,
            step: 5,
            slow_start: Duration::from_secs(20),
        }
    }
}
