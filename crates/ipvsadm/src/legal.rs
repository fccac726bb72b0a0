//! Which options go with which command, and with which tunnel type.

use xlvs_model::spec::TunnelType;

use crate::failure::Failure;
use crate::table::{Command, Kind};

/// The kinds of options that were given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Given(u64);

impl Given {
    /// Notes an option; a second one of its kind is an error.
    pub(crate) fn once(&mut self, kind: Kind) -> Result<(), Failure> {
        if self.has(kind) {
            return Err(Failure::usage(format!("multiple '{}' options specified", kind.name())));
        }
        self.0 |= 1 << kind as u8;
        Ok(())
    }

    pub(crate) fn has(self, kind: Kind) -> bool {
        self.0 & 1 << kind as u8 != 0
    }

    pub(crate) fn has_any(self, kinds: &[Kind]) -> bool {
        kinds.iter().any(|&kind| self.has(kind))
    }
}

/// What a command, or a tunnel type, makes of an option.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    Required,
    Optional,
    /// At most one of all that are so.
    Exclusive,
    Illegal,
}

/// Checks every option against the command.
pub(crate) fn check_command(command: Command, given: Given) -> Result<(), Failure> {
    check(&Kind::ALL, given, |kind| rule_of(command, kind), name_of(command), "command")
}

/// Checks the tunnel's options against its type.
pub(crate) fn check_tunnel(tunnel: TunnelType, given: Given) -> Result<(), Failure> {
    let kinds = [Kind::TunPort, Kind::TunNoCsum, Kind::TunCsum, Kind::TunRemCsum];
    check(&kinds, given, |kind| tunnel_rule(tunnel, kind), tunnel_name(tunnel), "tunnel type")
}

fn check(
    kinds: &[Kind],
    given: Given,
    rule: impl Fn(Kind) -> Rule,
    object: &str,
    what: &str,
) -> Result<(), Failure> {
    let mut exclusive: Option<Kind> = None;
    for &kind in kinds {
        let name = kind.name();
        match (rule(kind), given.has(kind)) {
            (Rule::Required, false) => {
                return Err(needed(name, object, what));
            }
            (Rule::Illegal, true) => {
                return Err(Failure::usage(format!("Illegal '{name}' option with the '{object}' {what}")));
            }
            (Rule::Exclusive, true) => {
                if let Some(other) = exclusive.replace(kind) {
                    return Err(Failure::usage(format!(
                        "The option '{name}' conflicts with the '{}' option in the '{object}' {what}",
                        other.name()
                    )));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The complaint about a command without an option that it needs.
pub(crate) fn missing(kind: Kind, command: Command) -> Failure {
    needed(kind.name(), name_of(command), "command")
}

fn needed(option: &str, object: &str, what: &str) -> Failure {
    Failure::usage(format!("You need to supply the '{option}' option for the '{object}' {what}"))
}

/// The options that a command takes.
pub(crate) fn options_of(command: Command) -> impl Iterator<Item = Kind> {
    Kind::ALL.into_iter().filter(move |&kind| rule_of(command, kind) != Rule::Illegal)
}

fn rule_of(command: Command, kind: Kind) -> Rule {
    use Rule::{Exclusive, Illegal, Optional, Required};
    match (command, kind) {
        (Command::List, Kind::Connection | Kind::Service | Kind::Timeout | Kind::Daemon) => Exclusive,
        (Command::List, Kind::Numeric | Kind::SyncId) => Optional,
        (Command::List, kind) if LISTING.contains(&kind) => Optional,
        (Command::Save, Kind::Numeric) | (Command::Zero, Kind::Service) => Optional,
        (Command::StopDaemon, Kind::SyncId) => Optional,
        (Command::StartDaemon, kind) if DAEMON.contains(&kind) => Optional,
        (command, Kind::Service) if names_a_service(command) => Required,
        (Command::AddService | Command::EditService, kind) if SERVICE.contains(&kind) => Optional,
        (Command::AddServer | Command::EditServer | Command::DeleteServer, Kind::Server) => Required,
        (Command::AddServer | Command::EditServer, kind) if SERVER.contains(&kind) => Optional,
        _ => Illegal,
    }
}

const SERVICE: [Kind; 6] =
    [Kind::Scheduler, Kind::Persistent, Kind::Netmask, Kind::OnePacket, Kind::Engine, Kind::SchedFlags];

const SERVER: [Kind; 9] = [
    Kind::Forward,
    Kind::Weight,
    Kind::Upper,
    Kind::Lower,
    Kind::TunType,
    Kind::TunPort,
    Kind::TunNoCsum,
    Kind::TunCsum,
    Kind::TunRemCsum,
];

const LISTING: [Kind; 7] = [
    Kind::Stats,
    Kind::Rate,
    Kind::Thresholds,
    Kind::PersistentConn,
    Kind::NoSort,
    Kind::Exact,
    Kind::TunInfo,
];

const DAEMON: [Kind; 6] =
    [Kind::McastInterface, Kind::SyncId, Kind::McastGroup, Kind::McastPort, Kind::McastTtl, Kind::SyncMaxlen];

fn names_a_service(command: Command) -> bool {
    matches!(
        command,
        Command::AddService
            | Command::EditService
            | Command::DeleteService
            | Command::AddServer
            | Command::EditServer
            | Command::DeleteServer
    )
}

fn tunnel_rule(tunnel: TunnelType, kind: Kind) -> Rule {
    match (tunnel, kind) {
        (TunnelType::Gue, Kind::TunPort) => Rule::Required,
        (TunnelType::Gue, _) | (TunnelType::Gre, Kind::TunNoCsum | Kind::TunCsum) => Rule::Exclusive,
        _ => Rule::Illegal,
    }
}

/// What messages and commands call a tunnel type.
pub(crate) fn tunnel_name(tunnel: TunnelType) -> &'static str {
    match tunnel {
        TunnelType::IpIp => "ipip",
        TunnelType::Gue => "gue",
        TunnelType::Gre => "gre",
    }
}

/// What messages call a command.
pub(crate) fn name_of(command: Command) -> &'static str {
    match command {
        Command::AddService => "add-service",
        Command::EditService => "edit-service",
        Command::DeleteService => "delete-service",
        Command::Flush => "flush",
        Command::Restore => "restore",
        Command::Save => "save",
        Command::AddServer => "add-server",
        Command::EditServer => "edit-server",
        Command::DeleteServer => "delete-server",
        Command::List => "list",
        Command::Zero => "zero",
        Command::Set => "set",
        Command::StartDaemon => "start-daemon",
        Command::StopDaemon => "stop-daemon",
    }
}
