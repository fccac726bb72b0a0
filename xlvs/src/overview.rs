//! How a director is, in numbers: what `xlvs status` shows.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use xlvs_model::{ServerKey, ServiceKey};

/// See the module.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Overview {
    /// Version of the daemon.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Seconds since it was started; packets may have been forwarded for longer.
    pub running_s: u64,
    /// Where it forwards.
    pub interfaces: Vec<Interface>,
    /// Services.
    pub services: Room,
    /// Real servers, those that were removed and still have connections included.
    pub servers: Room,
    /// Servers without a next hop: nothing can be sent to them.
    pub unreached: Vec<Unreached>,
    /// Connections.
    pub connections: Connections,
    /// Packets that were sent on.
    pub forwarded: u64,
    /// Packets that were answered with an ICMP error.
    pub answered: u64,
    /// Fragments, and packets that were cut.
    pub fragments: Fragments,
    /// What the daemon has done since its start.
    pub work: WorkDone,
    /// The newest revision; 0: none yet.
    pub revision: u64,
    /// Packets dropped, by reason; only reasons that occurred.
    pub drops: Vec<Reason>,
    /// Packets passed to the director's own stack, by reason; only reasons that occurred.
    pub passes: Vec<Reason>,
}

/// An interface with balanced traffic.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: InterfaceState,
}

/// What the program does on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum InterfaceState {
    /// It runs in the driver.
    Native,
    /// It runs after the driver: slowly.
    Generic,
    /// It runs at the tc hook.
    Tc,
    /// The interface is not there.
    Gone,
    /// The interface came back, and the program is not on it yet.
    Detached,
}

/// How full something is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct Room {
    /// In use.
    pub used: u64,
    /// There is room for.
    pub limit: u64,
}

/// The connection table.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct Connections {
    /// Active ones.
    pub active: u64,
    /// Inactive ones.
    pub inactive: u64,
    /// Persistence templates.
    pub persistent: u64,
    /// Slots of the table.
    pub slots: u64,
    /// Connections that packets found expired and removed.
    pub expired_by_packets: u64,
}

/// What became of fragments, and of packets that were too long for their way, since the daemon's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fragments {
    /// Fragments that came, also before the daemon's start.
    pub came: u64,
    /// Packets that were put together.
    pub whole: u64,
    /// Packets that were cut.
    pub cut: u64,
    /// Packets whose fragments did not all come, or contradicted each other.
    pub failed: u64,
    /// Fragments that there was no memory for.
    pub no_room: u64,
}

/// What the daemon has done since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkDone {
    /// Sweeps through the connection table.
    pub sweeps: u64,
    /// Connections that they removed.
    pub swept: u64,
    /// Microseconds that they took.
    pub sweeping_us: u64,
    /// Checks that succeeded.
    pub checks_succeeded: u64,
    /// Checks that failed, or said nothing.
    pub checks_failed: u64,
    /// Questions to agents that were answered.
    pub agents_answered: u64,
    /// Those that were not, or not with sense.
    pub agents_silent: u64,
}

/// A server that nothing can be sent to.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct UnreachedKey {
    /// Its service.
    pub service: ServiceKey,
    /// The server.
    pub server: ServerKey,
}

/// The same with the reason, where it was asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Unreached {
    /// Which server.
    #[serde(flatten)]
    pub which: UnreachedKey,
    /// Why, in a sentence.
    pub why: Option<String>,
}

/// So many packets for this reason.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Reason {
    /// The metric's label.
    pub label: String,
    /// The reason in a sentence.
    pub sentence: String,
    /// Packets.
    pub packets: u64,
}
