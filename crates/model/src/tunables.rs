//! LVS's tunables: what the kernel has as `net.ipv4.vs.*`, with its names and defaults (Linux 6.12).

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::nearest::nearest;

/// What is known of a tunable.
struct Entry {
    tunable: Tunable,
    name: &'static str,
    default: u32,
    most: u32,
    meaning: &'static str,
    /// Why it cannot be changed, where it cannot.
    fixed: Option<&'static str>,
}

macro_rules! tunables {
    ($($variant:ident $name:literal = $default:literal ..= $most:expr, $meaning:literal $(, fixed: $why:literal)?;)*) => {
        /// A tunable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Tunable { $(#[doc = $meaning] $variant,)* }

        const TABLE: &[Entry] = &[$(Entry {
            tunable: Tunable::$variant,
            name: $name,
            default: $default,
            most: $most,
            meaning: $meaning,
            fixed: first(&[$(Some($why),)? None]),
        },)*];
    };
}

/// The first of one or two.
const fn first(reasons: &[Option<&'static str>]) -> Option<&'static str> {
    reasons[0]
}

/// The kernel takes any number for a switch; 0 is off.
const ANY: u32 = i32::MAX as u32;
/// Seconds that the data plane's clock can tell: 31 days.
const LONGEST: u32 = 31 * 86_400;

tunables! {
    AmDroprate "am_droprate" = 10 ..= ANY, "the n of drop_packet=3: every n-th packet that would open a connection is dropped";
    Amemthresh "amemthresh" = 1024 ..= ANY, "pages of free memory below which modes 1 and 2 of the defences engage";
    BackupOnly "backup_only" = 0 ..= ANY, "stop directing while only a backup", fixed: "there is no synchronisation yet";
    CacheBypass "cache_bypass" = 0 ..= ANY, "send what finds no server of a mark's service where it is addressed to";
    ConnReuseMode "conn_reuse_mode" = 1 ..= ANY, "when a SYN on an old connection opens a new one: 0 never, 1 in TIME_WAIT and CLOSE, 2 adds FIN_WAIT where replies are not seen";
    Conntrack "conntrack" = 0 ..= ANY, "keep netfilter's connection tracking", fixed: "balanced packets never pass netfilter";
    DropEntry "drop_entry" = 0 ..= 3, "drop half-open and idle connections: 0 off, 1 and 2 when memory is short, 3 always";
    DropPacket "drop_packet" = 0 ..= 3, "drop packets that would open a connection: 0 off, 1 and 2 when memory is short, 3 always";
    ExpireNodestConn "expire_nodest_conn" = 0 ..= ANY, "connections end when their server is removed";
    ExpireQuiescentTemplate "expire_quiescent_template" = 0 ..= ANY, "clients do not stay on a server of weight 0";
    IgnoreTunneled "ignore_tunneled" = 0 ..= ANY, "leave alone what comes out of tunnels", fixed: "packets are seen before they leave a tunnel";
    LblcExpiration "lblc_expiration" = 86400 ..= LONGEST, "seconds that lblc remembers a destination that is not asked for";
    LblcrExpiration "lblcr_expiration" = 86400 ..= LONGEST, "the same for lblcr, and until a set of servers shrinks";
    NatIcmpSend "nat_icmp_send" = 0 ..= ANY, "tell a NAT server whose packet belongs to no connection";
    PmtuDisc "pmtu_disc" = 1 ..= ANY, "let the client know how long packets may be in a tunnel, and keep its don't-fragment flag outside";
    RunEstimation "run_estimation" = 1 ..= ANY, "refresh rates and the counters that listings show";
    ScheduleIcmp "schedule_icmp" = 0 ..= ANY, "schedule ICMP errors that belong to no connection";
    SecureTcp "secure_tcp" = 0 ..= 3, "ask for the server's answer before a connection counts as established: 0 off, 1 and 2 when memory is short, 3 always";
    SloppySctp "sloppy_sctp" = 0 ..= ANY, "let any SCTP packet but ABORT open a connection";
    SloppyTcp "sloppy_tcp" = 0 ..= ANY, "let any TCP packet but RST open a connection";
    SnatReroute "snat_reroute" = 1 ..= ANY, "route replies by the VIP as their source", fixed: "replies are always routed so";
}

/// Names of the kernel's that are no tunables here, and why.
const FOREIGN: [(&str, &str); 14] = [
    ("conn_lfactor", "the table's size is set at the start, by --max-conns"),
    ("conn_max", "the table's size is set at the start, by --max-conns"),
    ("debug_level", "the daemon's log is set by RUST_LOG"),
    ("est_cpulist", "the daemon estimates"),
    ("est_nice", "the daemon estimates"),
    ("svc_lfactor", "the table's size is set at the start, by --max-services"),
    ("sync_persist_mode", "there is no synchronisation yet"),
    ("sync_ports", "there is no synchronisation yet"),
    ("sync_qlen_max", "there is no synchronisation yet"),
    ("sync_refresh_period", "there is no synchronisation yet"),
    ("sync_retries", "there is no synchronisation yet"),
    ("sync_sock_size", "there is no synchronisation yet"),
    ("sync_threshold", "there is no synchronisation yet"),
    ("sync_version", "there is no synchronisation yet"),
];

/// Why a tunable was not set.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TunableError {
    /// No such name.
    #[error("there is no tunable {0}{near}", near = .1.map(|name| format!("; do you mean {name}?")).unwrap_or_default())]
    Unknown(String, Option<&'static str>),
    /// The kernel has it, this director has not.
    #[error("{0} cannot be set: {1}")]
    Fixed(&'static str, &'static str),
    /// The number is out of range.
    #[error("{0} takes 0 to {1}, not {2}")]
    OutOfRange(&'static str, u32, String),
}

impl Tunable {
    /// All, by name.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|entry| entry.tunable)
    }

    fn entry(self) -> &'static Entry {
        // The table is in the order of the variants, which the macro makes from the same list.
        &TABLE[self as usize]
    }

    /// The kernel's name.
    pub fn name(self) -> &'static str {
        self.entry().name
    }

    /// The kernel's default.
    pub fn default_value(self) -> u32 {
        self.entry().default
    }

    /// What it does, in a few words.
    pub fn meaning(self) -> &'static str {
        self.entry().meaning
    }

    /// Why it stays at its default, where it does.
    pub fn fixed(self) -> Option<&'static str> {
        self.entry().fixed
    }

    /// Reads a value for it.
    pub fn parse(self, text: &str) -> Result<u32, TunableError> {
        let out_of_range = || TunableError::OutOfRange(self.name(), self.entry().most, text.to_owned());
        let value = text.trim().parse().map_err(|_| out_of_range())?;
        self.check(value)?;
        Ok(value)
    }

    /// May it have this value?
    pub fn check(self, value: u32) -> Result<(), TunableError> {
        let Entry { name, default, most, fixed, .. } = *self.entry();
        match fixed {
            Some(why) if value != default => Err(TunableError::Fixed(name, why)),
            _ if value > most => Err(TunableError::OutOfRange(name, most, value.to_string())),
            _ => Ok(()),
        }
    }
}

impl FromStr for Tunable {
    type Err = TunableError;

    /// Finds a tunable by its name, also as `sysctl` writes it (`net.ipv4.vs.…`, with dots or slashes).
    fn from_str(text: &str) -> Result<Self, TunableError> {
        let name = text.rsplit(['.', '/']).next().unwrap_or(text);
        if let Some(entry) = TABLE.iter().find(|entry| entry.name == name) {
            return Ok(entry.tunable);
        }
        if let Some((name, why)) = FOREIGN.iter().find(|(foreign, _)| *foreign == name) {
            return Err(TunableError::Fixed(name, why));
        }
        Err(TunableError::Unknown(text.to_owned(), nearest(name, Self::all().map(Self::name))))
    }
}

/// The tunables as they are set.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tunables(BTreeMap<Tunable, u32>);

impl Tunables {
    /// The value in force.
    pub fn get(&self, tunable: Tunable) -> u32 {
        self.0.get(&tunable).copied().unwrap_or_else(|| tunable.default_value())
    }

    /// Sets one.
    pub fn set(&mut self, tunable: Tunable, value: u32) -> Result<(), TunableError> {
        tunable.check(value)?;
        if value == tunable.default_value() {
            self.0.remove(&tunable);
        } else {
            self.0.insert(tunable, value);
        }
        Ok(())
    }

    /// Is it on?
    pub fn is_on(&self, tunable: Tunable) -> bool {
        self.get(tunable) != 0
    }

    /// Those that differ from their defaults.
    pub fn changed(&self) -> impl Iterator<Item = (Tunable, u32)> {
        self.0.iter().map(|(tunable, value)| (*tunable, *value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_names() {
        for (i, entry) in TABLE.iter().enumerate() {
            assert_eq!(entry.tunable as usize, i);
            assert_eq!(entry.name.parse(), Ok(entry.tunable));
        }
        assert!(TABLE.is_sorted_by_key(|entry| entry.name));
    }

    #[test]
    fn names_are_taken_as_sysctl_writes_them() {
        assert_eq!("net.ipv4.vs.drop_entry".parse(), Ok(Tunable::DropEntry));
        assert_eq!("net/ipv4/vs/sloppy_tcp".parse(), Ok(Tunable::SloppyTcp));
    }

    #[test]
    fn an_unknown_name_suggests_the_nearest() {
        let said = |name: &str| name.parse::<Tunable>().unwrap_err().to_string();
        assert_eq!(said("drop_entries"), "there is no tunable drop_entries; do you mean drop_entry?");
        assert_eq!(said("conn_reuse"), "there is no tunable conn_reuse; do you mean conn_reuse_mode?");
        assert_eq!(said("tcp_syncookies"), "there is no tunable tcp_syncookies");
        assert_eq!(said("sync_threshold"), "sync_threshold cannot be set: there is no synchronisation yet");
    }

    #[test]
    fn values_are_checked() {
        assert_eq!(Tunable::DropEntry.parse("3"), Ok(3));
        let said = |tunable: Tunable, text: &str| tunable.parse(text).unwrap_err().to_string();
        assert_eq!(said(Tunable::DropEntry, "4"), "drop_entry takes 0 to 3, not 4");
        assert_eq!(said(Tunable::SecureTcp, "-1"), "secure_tcp takes 0 to 3, not -1");
        assert_eq!(
            said(Tunable::Conntrack, "1"),
            "conntrack cannot be set: balanced packets never pass netfilter"
        );
        assert_eq!(Tunable::Conntrack.parse("0"), Ok(0));
    }

    #[test]
    fn the_default_is_no_change() {
        let mut tunables = Tunables::default();
        tunables.set(Tunable::DropEntry, 3).expect("3");
        assert_eq!(tunables.changed().collect::<Vec<_>>(), [(Tunable::DropEntry, 3)]);
        tunables.set(Tunable::DropEntry, 0).expect("0");
        assert_eq!(tunables, Tunables::default());
    }
}
