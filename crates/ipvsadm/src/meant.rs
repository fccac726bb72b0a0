//! What is meant: a command line, word by word in its order, made into one thing to do, or into a complaint.
//!
//! The order of the words matters, as it does in the original: `-6` and `-r` look at the service that stands before them,
//! and of several mistakes the first is told.

use std::net::IpAddr;

use xlvs_model::change::{SyncDaemon, SyncRole};
use xlvs_model::spec::{Method, Protocol, Scheduler, TunnelChecksum, TunnelType};
use xlvs_model::{
    Change, Family, Persistence, SchedFlags, ServerKey, ServerSpec, ServiceKey, ServiceSpec, Timeouts, Tunnel,
};

use crate::address::{self, Address};
use crate::count::Counts;
use crate::failure::Failure;
use crate::legal::{self, Given};
use crate::names::Resolver;
use crate::number;
use crate::table::{Command, Kind, Word};
use crate::typed::{CommandLine, Typed};

/// A thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meant {
    /// Show all commands and options.
    Help,
    /// Show the version.
    Version,
    /// Change something.
    Change(Command, Change),
    /// Add or edit a service with a scheduler that does not exist, which the director only says after it has looked for the
    /// service.
    UnknownScheduler(Command, ServiceKey),
    /// Show something.
    List(Listing),
    /// Print the commands that make the table.
    Save {
        /// Without names.
        numeric: bool,
    },
    /// Read commands from standard input.
    Restore,
}

/// What to list, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) subject: Subject,
    pub(crate) columns: Columns,
    pub(crate) numeric: bool,
    pub(crate) counts: Counts,
    pub(crate) sorted: bool,
}

/// What to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// All services.
    Services,
    /// One service.
    Service(ServiceKey),
    /// Connections, with the engine's data if asked for.
    Connections { engine_data: bool },
    /// The timeouts.
    Timeouts,
    /// The synchronisation daemons.
    Daemons,
}

/// The layout of a listing of services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Columns {
    Usual,
    Stats,
    Rate,
    Thresholds,
    PersistentConn,
    TunInfo,
}

/// The longest timeout that the command takes, in seconds.
const MAX_TIMEOUT: i64 = xlvs_model::check::MAX_PERSISTENCE as i64;
/// The persistence timeout when none is said.
const DEFAULT_PERSISTENCE: u32 = 6 * 60;
const INT_MAX: i64 = i32::MAX as i64;
/// The room for an interface's name in the kernel's interface.
const INTERFACE_NAME_MAX: usize = 15;
/// What UDP over IPv4 carries at most.
const MAX_UDP_PAYLOAD: i64 = 65_535 - 20 - 8;

/// Makes sense of a command line. `program` is how messages name the program.
pub(crate) fn understand(
    line: &CommandLine<'_>,
    program: &str,
    names: &dyn Resolver,
) -> Result<Meant, Failure> {
    let Some((first, rest)) = line.words.split_first() else { return Err(Failure::try_help(program)) };
    let command = match first.row.word {
        Word::Command(command) => command,
        Word::Help => return Ok(Meant::Help),
        Word::Version => return Ok(Meant::Version),
        _ => return Err(Failure::try_help(program)),
    };
    let role = read_role(command, first)?;
    let mut said = Said::new();
    for word in rest {
        said.take(word, names)?;
    }
    if let Some(wrong) = &line.wrong {
        return Err(Failure::grammar(wrong.quoted, wrong.why));
    }
    let timeouts = read_arguments(command, &line.arguments)?;
    said.read_flags()?;
    legal::check_command(command, said.given)?;
    said.meaning(command, role, timeouts)
}

fn read_role(command: Command, first: &Typed<'_>) -> Result<SyncRole, Failure> {
    match (command, first.value) {
        (Command::StartDaemon | Command::StopDaemon, Some(b"backup")) => Ok(SyncRole::Backup),
        (Command::StartDaemon | Command::StopDaemon, Some(b"master")) => Ok(SyncRole::Master),
        (Command::StartDaemon, _) => Err(Failure::usage("illegal start-daemon parameter specified")),
        (Command::StopDaemon, _) => Err(Failure::usage("illegal start_daemon specified")),
        _ => Ok(SyncRole::Master),
    }
}

/// The arguments that belong to no option: three of `--set`, else none.
fn read_arguments(command: Command, arguments: &[&[u8]]) -> Result<Timeouts, Failure> {
    let (timeouts, rest) = match (command, arguments) {
        (Command::Set, [tcp, tcp_fin, udp, rest @ ..]) => {
            let read = |text| seconds(text, 0);
            (Timeouts { tcp: read(tcp)?, tcp_fin: read(tcp_fin)?, udp: read(udp)? }, rest)
        }
        (Command::Set, _) => return Err(Failure::usage("--set option requires 3 timeout values")),
        (_, rest) => (Timeouts { tcp: 0, tcp_fin: 0, udp: 0 }, rest),
    };
    match rest {
        [] => Ok(timeouts),
        [unexpected, ..] => Err(Failure::quoting("unexpected argument ", unexpected, "")),
    }
}

fn seconds(text: &[u8], least: i64) -> Result<u32, Failure> {
    number::whole(text, least, MAX_TIMEOUT)
        .and_then(|value| u32::try_from(value).ok())
        .ok_or_else(|| Failure::quoting("invalid timeout value `", text, "' specified"))
}

/// What has been said so far.
struct Said {
    given: Given,
    service: Option<ServiceKey>,
    netmask: u32,
    scheduler: Vec<u8>,
    flag_names: Vec<u8>,
    flags: SchedFlags,
    persistence: Option<u32>,
    engine: Vec<u8>,
    server: Option<ServerKey>,
    method: Method,
    tunnel: Tunnel,
    weight: u32,
    upper: u32,
    lower: u32,
    daemon: SyncDaemon,
}

impl Said {
    fn new() -> Self {
        Self {
            given: Given::default(),
            service: None,
            netmask: Family::Inet.whole_netmask(),
            scheduler: Vec::new(),
            flag_names: Vec::new(),
            flags: SchedFlags::default(),
            persistence: None,
            engine: Vec::new(),
            server: None,
            method: Method::Direct,
            tunnel: Tunnel::default(),
            weight: 1,
            upper: 0,
            lower: 0,
            daemon: SyncDaemon {
                role: SyncRole::Master,
                interface: String::new(),
                syncid: 0,
                maxlen: 0,
                group: None,
                port: 0,
                ttl: 0,
            },
        }
    }

    fn take(&mut self, typed: &Typed<'_>, names: &dyn Resolver) -> Result<(), Failure> {
        let value = typed.value.unwrap_or_default();
        match typed.row.word {
            Word::Tcp => self.take_service(Protocol::Tcp, value, names),
            Word::Udp => self.take_service(Protocol::Udp, value, names),
            Word::Sctp => self.take_service(Protocol::Sctp, value, names),
            Word::Mark => self.take_mark(value),
            Word::Ipv6 => self.take_ipv6(),
            Word::Direct => self.take_method(Method::Direct),
            Word::Tunnel => self.take_method(Method::Tunnel),
            Word::Masquerade => self.take_method(Method::Masquerade),
            Word::Sort => Ok(()),
            Word::Option(kind) => {
                self.given.once(kind)?;
                self.take_option(kind, typed.value, names)
            }
            Word::Command(_) | Word::Help | Word::Version => {
                Err(Failure::quoting("invalid option `", typed.quoted, "'"))
            }
        }
    }

    fn take_service(&mut self, protocol: Protocol, text: &[u8], names: &dyn Resolver) -> Result<(), Failure> {
        self.given.once(Kind::Service)?;
        let Some(Address { addr, port }) = address::parse(text, Some(protocol), names) else {
            return Err(Failure::usage("illegal virtual server address[:port] specified"));
        };
        if addr.is_ipv6() {
            self.netmask = Family::Inet6.whole_netmask();
        }
        self.service = Some(ServiceKey::Address { protocol, addr, port: port.unwrap_or(0) });
        Ok(())
    }

    fn take_mark(&mut self, text: &[u8]) -> Result<(), Failure> {
        self.given.once(Kind::Service)?;
        let Some(mark) =
            number::whole(text, 1, i64::from(u32::MAX)).and_then(|value| u32::try_from(value).ok())
        else {
            return Err(Failure::quoting("invalid fwmark value `", text, "' specified"));
        };
        self.service = Some(ServiceKey::Mark { mark, family: Family::Inet });
        Ok(())
    }

    fn take_ipv6(&mut self) -> Result<(), Failure> {
        // The original's message ends in a newline of its own.
        let Some(ServiceKey::Mark { family, .. }) = &mut self.service else {
            return Err(Failure::usage("-6 used before -f\n"));
        };
        *family = Family::Inet6;
        self.netmask = Family::Inet6.whole_netmask();
        Ok(())
    }

    fn take_method(&mut self, method: Method) -> Result<(), Failure> {
        self.given.once(Kind::Forward)?;
        self.method = method;
        Ok(())
    }

    fn take_option(&mut self, kind: Kind, value: Option<&[u8]>, names: &dyn Resolver) -> Result<(), Failure> {
        let text = value.unwrap_or_default();
        match kind {
            Kind::Scheduler => self.scheduler = text.to_vec(),
            Kind::SchedFlags => self.flag_names = text.to_vec(),
            Kind::Engine => self.engine = text.to_vec(),
            Kind::Persistent => {
                self.persistence = Some(value.map_or(Ok(DEFAULT_PERSISTENCE), |text| seconds(text, 1))?);
            }
            Kind::Netmask => self.netmask = self.read_netmask(text, names)?,
            Kind::Server => self.server = Some(self.read_server(text, names)?),
            Kind::Weight => self.weight = within(text, 0, INT_MAX, "illegal weight specified")?,
            Kind::Upper => self.upper = within(text, 0, INT_MAX, "illegal u_threshold specified")?,
            Kind::Lower => self.lower = within(text, 0, INT_MAX, "illegal l_threshold specified")?,
            Kind::TunType => self.tunnel.kind = read_tunnel(text)?,
            Kind::TunPort => self.tunnel.port = within(text, 1, 65_535, "illegal tunnel port specified")?,
            Kind::TunNoCsum => self.tunnel.checksum = TunnelChecksum::None,
            Kind::TunCsum => self.tunnel.checksum = TunnelChecksum::Full,
            Kind::TunRemCsum => self.tunnel.checksum = TunnelChecksum::Remote,
            Kind::SyncId => self.daemon.syncid = within(text, 0, 255, "illegal syncid specified")?,
            Kind::SyncMaxlen => {
                self.daemon.maxlen = within(text, 1, MAX_UDP_PAYLOAD, "illegal sync-maxlen specified")?;
            }
            Kind::McastInterface => self.daemon.interface = read_interface(text),
            Kind::McastGroup => self.daemon.group = Some(read_group(text)?),
            Kind::McastPort => self.daemon.port = within(text, 1, 65_535, "illegal mcast-port specified")?,
            Kind::McastTtl => self.daemon.ttl = within(text, 1, 255, "illegal mcast-ttl specified")?,
            Kind::Numeric
            | Kind::Connection
            | Kind::Service
            | Kind::Forward
            | Kind::Timeout
            | Kind::Daemon
            | Kind::Stats
            | Kind::Rate
            | Kind::Thresholds
            | Kind::PersistentConn
            | Kind::NoSort
            | Kind::Exact
            | Kind::OnePacket
            | Kind::TunInfo => {}
        }
        Ok(())
    }

    /// An IPv4 mask is read as an address, so that 24 is 0.0.0.24; an IPv6 one as a number, whatever follows it.
    fn read_netmask(&self, text: &[u8], names: &dyn Resolver) -> Result<u32, Failure> {
        if self.service.is_some_and(|service| service.family() == Family::Inet6) {
            let prefix = u32::try_from(number::at_start(text)).ok().filter(|bits| (1..=128).contains(bits));
            return prefix.ok_or_else(|| Failure::usage("illegal ipv6 netmask specified"));
        }
        address::inet_aton(text)
            .or_else(|| names.host_address(std::str::from_utf8(text).ok()?))
            .map(u32::from)
            .ok_or_else(|| Failure::usage("illegal virtual server persistent mask specified"))
    }

    fn read_server(&self, text: &[u8], names: &dyn Resolver) -> Result<ServerKey, Failure> {
        let (protocol, service_port) = match self.service {
            Some(ServiceKey::Address { protocol, port, .. }) => (Some(protocol), port),
            Some(ServiceKey::Mark { .. }) => (Some(Protocol::Tcp), 0),
            None => (None, 0),
        };
        let Some(Address { addr, port }) = address::parse(text, protocol, names) else {
            return Err(Failure::usage("illegal real server address[:port] specified"));
        };
        Ok(ServerKey { addr, port: port.unwrap_or(service_port) })
    }

    /// Named flags belong to one scheduler, wherever in the line that is said.
    fn read_flags(&mut self) -> Result<(), Failure> {
        for name in self.flag_names.split(|&byte| byte == b',').filter(|name| !name.is_empty()) {
            let (scheduler, flag) = match name {
                b"flag-1" => (None, &mut self.flags.fallback),
                b"flag-2" => (None, &mut self.flags.port),
                b"flag-3" => (None, &mut self.flags.third),
                b"sh-fallback" => (Some("sh"), &mut self.flags.fallback),
                b"sh-port" => (Some("sh"), &mut self.flags.port),
                b"mh-fallback" => (Some("mh"), &mut self.flags.fallback),
                b"mh-port" => (Some("mh"), &mut self.flags.port),
                _ => return Err(Failure::quoting("invalid scheduler flag `", name, "'")),
            };
            if scheduler.is_some_and(|needed| needed.as_bytes() != self.scheduler) {
                return Err(Failure::quoting("incompatible scheduler flag `", name, "'"));
            }
            *flag = true;
        }
        Ok(())
    }

    fn meaning(self, command: Command, role: SyncRole, timeouts: Timeouts) -> Result<Meant, Failure> {
        let change = match command {
            Command::List => return self.listing(),
            Command::Save => return Ok(Meant::Save { numeric: self.given.has(Kind::Numeric) }),
            Command::Restore => return Ok(Meant::Restore),
            Command::AddService | Command::EditService => return self.service_change(command),
            Command::AddServer | Command::EditServer | Command::DeleteServer => {
                self.server_change(command)?
            }
            Command::DeleteService => Change::DeleteService(self.required_service(command)?),
            Command::Flush => Change::Flush,
            Command::Zero => Change::Zero(self.service),
            Command::Set => Change::SetTimeouts(timeouts),
            Command::StartDaemon => Change::StartSync(self.sync_daemon(role)),
            Command::StopDaemon => Change::StopSync(role),
        };
        Ok(Meant::Change(command, change))
    }

    fn required_service(&self, command: Command) -> Result<ServiceKey, Failure> {
        self.service.ok_or_else(|| legal::missing(Kind::Service, command))
    }

    fn service_change(self, command: Command) -> Result<Meant, Failure> {
        let key = self.required_service(command)?;
        let one_packet = self.given.has(Kind::OnePacket);
        if let ServiceKey::Address { protocol, port, .. } = key {
            if port == 0 && self.persistence.is_none() {
                return Err(Failure::usage("Zero port specified for non-persistent service"));
            }
            if one_packet && protocol != Protocol::Udp {
                return Err(Failure::usage("One-Packet Scheduling is only for UDP virtual services"));
            }
        }
        let scheduler = match std::str::from_utf8(&self.scheduler) {
            Ok("") => Some(Scheduler::Wlc),
            Ok(name) => Scheduler::from_name(name),
            Err(_) => None,
        };
        let Some(scheduler) = scheduler else { return Ok(Meant::UnknownScheduler(command, key)) };
        let spec = ServiceSpec {
            key,
            scheduler,
            flags: self.flags,
            persistence: self.persistence.map(|timeout| Persistence { timeout, netmask: self.netmask }),
            netmask: self.netmask,
            engine: Some(self.engine)
                .filter(|name| !name.is_empty())
                .map(|name| String::from_utf8_lossy(&name).into_owned()),
            one_packet,
            mss: None,
        };
        let change = match command {
            Command::AddService => Change::AddService(spec),
            _ => Change::EditService(spec),
        };
        Ok(Meant::Change(command, change))
    }

    fn server_change(self, command: Command) -> Result<Change, Failure> {
        let service = self.required_service(command)?;
        let key = self.server.ok_or_else(|| legal::missing(Kind::Server, command))?;
        if command == Command::DeleteServer {
            return Ok(Change::DeleteServer(service, key));
        }
        if key.family() != service.family() && self.method != Method::Tunnel {
            return Err(Failure::usage("Different address family is allowed only for tunneling servers"));
        }
        self.check_tunnel()?;
        let key = ServerKey { port: self.server_port(service, key.port), ..key };
        let spec = ServerSpec {
            key,
            method: self.method,
            tunnel: self.tunnel,
            weight: self.weight,
            upper: self.upper,
            lower: self.lower,
        };
        Ok(match command {
            Command::AddServer => Change::AddServer(service, spec),
            _ => Change::EditServer(service, spec),
        })
    }

    /// Direct routing and tunnels cannot change a packet's port, so the server's is the service's; a mark has none.
    fn server_port(&self, service: ServiceKey, said: u16) -> u16 {
        match service {
            ServiceKey::Address { port, .. } if self.method != Method::Masquerade => port,
            _ => said,
        }
    }

    fn check_tunnel(&self) -> Result<(), Failure> {
        const TUNNEL: [Kind; 5] =
            [Kind::TunType, Kind::TunPort, Kind::TunNoCsum, Kind::TunCsum, Kind::TunRemCsum];
        if self.method == Method::Tunnel {
            return legal::check_tunnel(self.tunnel.kind, self.given);
        }
        if self.given.has_any(&TUNNEL) {
            return Err(Failure::usage("Tunnel options conflict with forward method"));
        }
        Ok(())
    }

    fn sync_daemon(self, role: SyncRole) -> SyncDaemon {
        let interface =
            if self.daemon.interface.is_empty() { "eth0".to_owned() } else { self.daemon.interface };
        SyncDaemon { role, interface, ..self.daemon }
    }

    fn listing(self) -> Result<Meant, Failure> {
        let given = self.given;
        let counters = given.has_any(&[Kind::Stats, Kind::Rate, Kind::Thresholds]);
        let not_services = given.has_any(&[Kind::Timeout, Kind::Daemon]);
        if (counters && (not_services || given.has(Kind::Connection)))
            || (not_services && given.has(Kind::PersistentConn))
        {
            return Err(Failure::usage("options conflicts in the list command"));
        }
        let subject = if given.has(Kind::Connection) {
            Subject::Connections { engine_data: given.has(Kind::PersistentConn) }
        } else if given.has(Kind::Timeout) {
            Subject::Timeouts
        } else if given.has(Kind::Daemon) {
            Subject::Daemons
        } else {
            self.service.map_or(Subject::Services, Subject::Service)
        };
        Ok(Meant::List(Listing {
            subject,
            columns: columns(given),
            numeric: given.has(Kind::Numeric),
            counts: if given.has(Kind::Exact) { Counts::Exact } else { Counts::Short },
            sorted: !given.has(Kind::NoSort),
        }))
    }
}

/// Of several layouts, one wins.
fn columns(given: Given) -> Columns {
    let by_rank = [
        (Kind::Stats, Columns::Stats),
        (Kind::Rate, Columns::Rate),
        (Kind::Thresholds, Columns::Thresholds),
        (Kind::PersistentConn, Columns::PersistentConn),
        (Kind::TunInfo, Columns::TunInfo),
    ];
    by_rank.into_iter().find(|&(kind, _)| given.has(kind)).map_or(Columns::Usual, |(_, columns)| columns)
}

fn within<T: TryFrom<i64>>(
    text: &[u8],
    least: i64,
    most: i64,
    complaint: &'static str,
) -> Result<T, Failure> {
    number::whole(text, least, most)
        .and_then(|value| T::try_from(value).ok())
        .ok_or_else(|| Failure::usage(complaint))
}

fn read_tunnel(text: &[u8]) -> Result<TunnelType, Failure> {
    [TunnelType::IpIp, TunnelType::Gue, TunnelType::Gre]
        .into_iter()
        .find(|&tunnel| legal::tunnel_name(tunnel).as_bytes() == text)
        .ok_or_else(|| Failure::usage("illegal tunnel type specified"))
}

fn read_interface(text: &[u8]) -> String {
    let kept = &text[..text.len().min(INTERFACE_NAME_MAX)];
    String::from_utf8_lossy(kept).into_owned()
}

fn read_group(text: &[u8]) -> Result<IpAddr, Failure> {
    let group = std::str::from_utf8(text).ok().and_then(|text| text.parse::<IpAddr>().ok());
    match group {
        Some(group) if group.is_multicast() => Ok(group),
        Some(IpAddr::V6(_)) => Err(Failure::quoting("invalid IPv6 mcast-group `", text, "'")),
        _ => Err(Failure::quoting("invalid IPv4 mcast-group `", text, "'")),
    }
}
