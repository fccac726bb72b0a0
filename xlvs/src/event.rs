//! What happened to a director: what `xlvs watch` shows.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use xlvs_datapath::xdp::Place;
use xlvs_model::{ServerKey, ServiceKey};

use crate::plan;

/// Something that happened, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counted from 1 since the daemon's start.
    pub number: u64,
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// What.
    #[serde(flatten)]
    pub what: Happening,
}

/// Which server of which service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Which {
    /// The service.
    pub service: ServiceKey,
    /// Its server.
    pub server: ServerKey,
}

/// Who changed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// A command, or an operator's word.
    Operator,
    /// A file or a revision that was applied.
    Configuration,
    /// Checks, quorum and sorry server included.
    Check,
    /// The server's agent.
    Agent,
}

/// What can happen. Weights, services and servers are those in force, which packets meet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Happening {
    /// A server that had failed works again.
    ServerUp {
        /// Which.
        #[serde(flatten)]
        which: Which,
        /// Why it stands where it does now.
        reason: String,
    },
    /// A server failed.
    ServerDown {
        /// Which.
        #[serde(flatten)]
        which: Which,
        /// Why.
        reason: String,
    },
    /// The checks of a server that had failed succeed, but it is held out, since it failed too often lately.
    ServerHeld {
        /// Which.
        #[serde(flatten)]
        which: Which,
        /// Why, and for how long.
        reason: String,
    },
    /// A check of a server succeeds and warns of something that will be wrong, such as the end of a certificate.
    ServerWarning {
        /// Which.
        #[serde(flatten)]
        which: Which,
        /// Of what; none: it warns no more.
        warning: Option<String>,
    },
    /// The servers of a service are enough again.
    QuorumGained {
        /// Of which service.
        service: ServiceKey,
    },
    /// The servers of a service are not enough any more.
    QuorumLost {
        /// Of which service.
        service: ServiceKey,
    },
    /// A server's weight is another.
    WeightChanged {
        /// Whose.
        #[serde(flatten)]
        which: Which,
        /// Before.
        from: u32,
        /// Now.
        to: u32,
        /// By whom.
        by: By,
    },
    /// A server of weight 0 lost its last connection.
    Drained {
        /// Which.
        #[serde(flatten)]
        which: Which,
    },
    /// A service came.
    ServiceAdded {
        /// Which.
        service: ServiceKey,
        /// By whom.
        by: By,
    },
    /// A service went, with all its servers.
    ServiceRemoved {
        /// Which.
        service: ServiceKey,
        /// By whom.
        by: By,
    },
    /// A server came.
    ServerAdded {
        /// Which.
        #[serde(flatten)]
        which: Which,
        /// Its weight.
        weight: u32,
        /// By whom.
        by: By,
    },
    /// A server went.
    ServerRemoved {
        /// Which.
        #[serde(flatten)]
        which: Which,
        /// By whom.
        by: By,
    },
    /// A configuration was applied.
    RevisionApplied {
        /// Its number in `xlvs history`.
        revision: u64,
        /// How many changes led to it.
        changes: usize,
        /// Whose wish it was.
        wish: String,
    },
    /// So much of the connection table is in use.
    TablePressure {
        /// Which threshold was passed upwards, in percent; 0: the lowest one was passed downwards.
        percent: u8,
        /// Entries in use.
        used: u64,
        /// Slots of the table.
        slots: u64,
    },
    /// The connection table refused new connections.
    TableFull {
        /// So many since that was told last.
        refused: u64,
    },
    /// It takes them again.
    TableTakesAgain,
    /// The director is on an interface.
    InterfaceAttached {
        /// Which.
        interface: String,
        /// Its driver runs the program itself.
        native: bool,
        /// It runs at the tc hook.
        #[serde(default)]
        tc: bool,
    },
    /// The director is not on an interface any more.
    InterfaceDetached {
        /// Which.
        interface: String,
        /// Why.
        reason: String,
    },
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Operator => "an operator",
            Self::Configuration => "a configuration",
            Self::Check => "a check",
            Self::Agent => "its agent",
        })
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", plan::service(&self.service), plan::server(&self.server))
    }
}

impl Happening {
    /// The director is on an interface, there.
    pub fn attached(interface: &str, place: Place) -> Self {
        let interface = interface.to_owned();
        Self::InterfaceAttached { interface, native: place == Place::Native, tc: place == Place::Tc }
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServerUp { which, reason } => write!(f, "{which} is up: {reason}"),
            Self::ServerDown { which, reason } => write!(f, "{which} is down: {reason}"),
            Self::ServerHeld { which, reason } => write!(f, "{which} stays out: {reason}"),
            Self::ServerWarning { which, warning: Some(warning) } => write!(f, "{which}: {warning}"),
            Self::ServerWarning { which, warning: None } => write!(f, "{which}: nothing to warn of any more"),
            Self::QuorumGained { service } => write!(f, "{} has its quorum", plan::service(service)),
            Self::QuorumLost { service } => write!(f, "{} has lost its quorum", plan::service(service)),
            Self::WeightChanged { which, from, to, by } => {
                write!(f, "{which} has weight {to} instead of {from}, by {by}")
            }
            Self::Drained { which } => write!(f, "{which} is drained: it has no connection left"),
            Self::ServiceAdded { service, by } => write!(f, "{} was added by {by}", plan::service(service)),
            Self::ServiceRemoved { service, by } => {
                write!(f, "{} was removed by {by}", plan::service(service))
            }
            Self::ServerAdded { which, weight, by } => {
                write!(f, "{which} was added with weight {weight} by {by}")
            }
            Self::ServerRemoved { which, by } => write!(f, "{which} was removed by {by}"),
            Self::RevisionApplied { revision, changes, wish } => {
                let s = if *changes == 1 { "" } else { "s" };
                write!(f, "revision {revision} was applied: {changes} change{s}, {wish}")
            }
            Self::TablePressure { percent: 0, used, slots } => {
                write!(f, "the connection table has room again: {used} of {slots} slots are in use")
            }
            Self::TablePressure { percent, used, slots } => {
                write!(
                    f,
                    "the connection table is more than {percent} % full: {used} of {slots} slots are in use"
                )
            }
            Self::TableFull { refused } => {
                write!(f, "the connection table is full and refused {refused} new connections")
            }
            Self::TableTakesAgain => f.write_str("the connection table takes new connections again"),
            Self::InterfaceAttached { interface, tc: true, .. } => {
                write!(f, "{interface} has the director, at the tc hook")
            }
            Self::InterfaceAttached { interface, native: true, .. } => {
                write!(f, "{interface} has the director, in its driver")
            }
            Self::InterfaceAttached { interface, native: false, .. } => {
                write!(f, "{interface} has the director, in generic mode")
            }
            Self::InterfaceDetached { interface, reason } => {
                write!(f, "{interface} has the director no more: {reason}")
            }
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(self.time_ms);
        write!(f, "{}  {}", humantime::format_rfc3339_millis(time), self.what)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use xlvs_model::spec::Protocol;

    use super::*;

    #[test]
    fn an_event_is_a_line_for_people_and_an_object_for_programs() {
        let service = ServiceKey::Address { protocol: Protocol::Tcp, addr: [192, 0, 2, 1].into(), port: 80 };
        let which = Which { service, server: ServerKey { addr: [10, 0, 0, 1].into(), port: 8080 } };
        let what = Happening::WeightChanged { which, from: 4, to: 2, by: By::Agent };
        let event = Event { number: 7, time_ms: 1_764_170_000_250, what };
        assert_eq!(
            event.to_string(),
            "2025-11-26T15:13:20.250Z  TCP 192.0.2.1:80 -> 10.0.0.1:8080 has weight 2 instead of 4, by its agent"
        );
        let told = serde_json::to_value(&event).expect("JSON");
        assert_eq!(told["event"], "weight-changed");
        assert_eq!((&told["from"], &told["to"], &told["by"]), (&json!(4), &json!(2), &json!("agent")));
        assert_eq!(told["number"], 7);
        assert_eq!(serde_json::from_value::<Event>(told).expect("the same type"), event);
    }
}
