//! Ethernet addresses of neighbours, and the care that keeps the kernel resolving them.
//!
//! XDP traffic never touches the kernel's neighbour table, so an entry would go stale and be collected while
//! in full use. So each neighbour that is needed is made *managed* (`NTF_EXT_MANAGED`, Linux 5.16): the
//! kernel renews it by itself. It is also marked externally learned, which exempts it from the garbage
//! collector and from the limit `gc_thresh3` (1024 entries by default, fewer than a large pool of servers).
//! Where the kernel refuses, the entry is poked (`NTF_USE`) every five seconds instead.
//!
//! Two rules protect the operator. A permanent or no-ARP entry is left alone: asking the kernel to manage one
//! takes its permanence and its address away (`__neigh_update`: `new = old & ~NUD_PERMANENT`). And only entries
//! that carry our protocol number are ever released.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    time::{Duration, Instant},
};

use nix::libc;

use super::{Mac, Reason, Request, Upkeep, mirror::Mirror};

/// From one round over all neighbours to the next; the kernel's own `interval_probe_time_ms`.
const ROUND: Duration = Duration::from_secs(5);
/// Between two requests for the same neighbour at least.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the address of a vanished entry is still used.
const GRACE: Duration = Duration::from_secs(10);

/// Names a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NeighbourKey {
    /// Interface it is on.
    pub ifindex: u32,
    /// Its address.
    pub addr: IpAddr,
}

/// What the kernel knows of a neighbour's reachability (`NUD_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nud {
    /// Nothing yet.
    None,
    /// Being asked for.
    Incomplete,
    /// Confirmed lately.
    Reachable,
    /// Not confirmed lately; still used.
    Stale,
    /// About to be confirmed; still used.
    Delay,
    /// Being confirmed; still used.
    Probe,
    /// Does not answer.
    Failed,
    /// Needs no confirmation: the interface does without.
    NoArp,
    /// Needs no confirmation: an operator set it.
    Permanent,
}

impl Nud {
    /// Whether the kernel would send to its address (`NUD_VALID`).
    pub fn is_usable(self) -> bool {
        !matches!(self, Nud::None | Nud::Incomplete | Nud::Failed)
    }

    /// Whether the entry is not ours to touch.
    pub fn is_fixed(self) -> bool {
        matches!(self, Nud::NoArp | Nud::Permanent)
    }
}

/// An entry of the kernel's neighbour table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// Which one.
    pub key: NeighbourKey,
    /// How well it is known.
    pub nud: Nud,
    /// Its Ethernet address; the kernel shows one only while it is usable.
    pub mac: Option<Mac>,
    /// The kernel keeps it resolved by itself.
    pub managed: bool,
    /// This project made it managed, now or in an earlier life.
    pub ours: bool,
}

/// What is remembered of a neighbour beyond what the kernel shows of it just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Memory {
    Unknown,
    Mac(Mac),
    Failed,
}

impl Memory {
    /// What is remembered after an entry was seen.
    fn after(self, entry: &Neighbour) -> Self {
        match (entry.nud, entry.mac) {
            (nud, Some(mac)) if nud.is_usable() => Self::Mac(mac),
            (Nud::Failed, _) => Self::Failed,
            // Asked for again: after a failure the kernel retries for ever, so that is no hope yet.
            _ => self,
        }
    }
}

/// A neighbour that the ways to some targets lead through.
#[derive(Debug)]
struct Wanted {
    targets: BTreeSet<IpAddr>,
    memory: Memory,
    lost_at: Option<Instant>,
    asked_at: Option<Instant>,
    refused: Option<i32>,
}

/// The kernel's neighbour table and our part in it.
#[derive(Debug)]
pub(super) struct Neighbours {
    table: Mirror<NeighbourKey, Neighbour>,
    wanted: BTreeMap<NeighbourKey, Wanted>,
    by_target: HashMap<IpAddr, NeighbourKey>,
    due: BTreeSet<NeighbourKey>,
    due_at: Option<Instant>,
    round_at: Instant,
}

impl Neighbours {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            table: Mirror::new(),
            wanted: BTreeMap::new(),
            by_target: HashMap::new(),
            due: BTreeSet::new(),
            due_at: None,
            round_at: now + ROUND,
        }
    }

    // What the kernel says.

    /// An entry is like this now. Returns the targets whose answer may have changed.
    pub(super) fn put(&mut self, entry: Neighbour, now: Instant) -> Vec<IpAddr> {
        self.table.put(entry.key, entry);
        let Some(wanted) = self.wanted.get_mut(&entry.key) else { return Vec::new() };
        wanted.lost_at = None;
        if !entry.managed && !entry.nud.is_fixed() {
            self.attend_to(entry.key, now);
        }
        self.remember(entry.key, |memory| memory.after(&entry))
    }

    /// An entry has gone. What was known of it holds until the next round finds it lost for too long.
    pub(super) fn gone(&mut self, key: NeighbourKey, now: Instant) {
        self.table.remove(&key);
        if let Some(wanted) = self.wanted.get_mut(&key) {
            wanted.lost_at.get_or_insert(now);
            self.attend_to(key, now);
        }
    }

    pub(super) fn begin_dump(&mut self) {
        self.table.begin();
        self.wanted.values_mut().for_each(|wanted| wanted.refused = None);
    }

    pub(super) fn finish_dump(&mut self, complete: bool, now: Instant) {
        for key in self.table.finish(complete) {
            self.gone(key, now);
        }
    }

    /// The kernel refused to look after a neighbour; what to send instead.
    pub(super) fn refused(&mut self, key: NeighbourKey, errno: i32) -> Option<Request> {
        // The table changed before the request arrived: its notification, or the next round, sets it right.
        if matches!(errno, libc::EEXIST | libc::ENOENT) {
            return None;
        }
        let wanted = self.wanted.get_mut(&key)?;
        let first = wanted.refused.replace(errno).is_none();
        first.then_some(Request::Neighbour { key, upkeep: Upkeep::Probe })
    }

    /// An interface has gone, and its entries with it.
    pub(super) fn forget_link(&mut self, ifindex: u32) {
        self.table.retain(|key| key.ifindex != ifindex);
    }

    // What the targets need.

    /// The way to `addr` leads through `key` from now on, or through no neighbour.
    pub(super) fn follow(&mut self, addr: IpAddr, key: Option<NeighbourKey>, now: Instant) {
        if self.by_target.get(&addr).copied() == key {
            return;
        }
        if let Some(old) = self.by_target.remove(&addr) {
            self.unfollow(addr, old);
        }
        let Some(key) = key else { return };
        self.by_target.insert(addr, key);
        let entry = self.table.get(&key);
        let memory = entry.map_or(Memory::Unknown, |entry| Memory::Unknown.after(entry));
        let new = Wanted { targets: BTreeSet::new(), memory, lost_at: None, asked_at: None, refused: None };
        self.wanted.entry(key).or_insert(new).targets.insert(addr);
        self.due.insert(key);
        self.due_at = Some(now);
    }

    fn unfollow(&mut self, addr: IpAddr, key: NeighbourKey) {
        let Some(wanted) = self.wanted.get_mut(&key) else { return };
        wanted.targets.remove(&addr);
        if wanted.targets.is_empty() {
            self.wanted.remove(&key);
        }
    }

    /// The address to send to, or why there is none.
    pub(super) fn mac(&self, key: &NeighbourKey) -> Result<Mac, Reason> {
        match self.wanted.get(key).map_or(Memory::Unknown, |wanted| wanted.memory) {
            Memory::Mac(mac) => Ok(mac),
            Memory::Failed => Err(Reason::NeighbourFailed),
            Memory::Unknown => Err(Reason::NeighbourPending),
        }
    }

    /// The kernel's entry, and the error with which it refused to look after it.
    pub(super) fn look_at(&self, key: &NeighbourKey) -> (Option<&Neighbour>, Option<i32>) {
        (self.table.get(key), self.wanted.get(key).and_then(|wanted| wanted.refused))
    }

    // Upkeep.

    /// An interface works again: its neighbours want care without waiting for the next round.
    pub(super) fn attend_to_link(&mut self, ifindex: u32, now: Instant) {
        let keys: Vec<_> = self.wanted.keys().filter(|key| key.ifindex == ifindex).copied().collect();
        keys.into_iter().for_each(|key| self.attend_to(key, now));
    }

    /// Care for `key` soon. Not at once: when an interface goes down, its neighbours are reported gone
    /// before the interface is reported down.
    fn attend_to(&mut self, key: NeighbourKey, now: Instant) {
        self.due.insert(key);
        let at = now + super::resolver::SETTLE;
        self.due_at = Some(self.due_at.map_or(at, |already| already.min(at)));
    }

    /// The requests that are due now.
    pub(super) fn requests_due(&mut self, now: Instant, works: impl Fn(u32) -> bool) -> Vec<Request> {
        if self.due_at.is_none_or(|at| now < at) {
            return Vec::new();
        }
        self.due_at = None;
        let due = std::mem::take(&mut self.due);
        due.into_iter().filter(|key| works(key.ifindex)).filter_map(|key| self.care_for(key, now)).collect()
    }

    fn care_for(&mut self, key: NeighbourKey, now: Instant) -> Option<Request> {
        let wanted = self.wanted.get_mut(&key)?;
        let entry = self.table.get(&key);
        if entry.is_some_and(|entry| entry.managed || entry.nud.is_fixed()) {
            return None;
        }
        if wanted.asked_at.is_some_and(|at| now < at + PAUSE) {
            return None;
        }
        wanted.asked_at = Some(now);
        let upkeep = match wanted.refused {
            Some(_) => Upkeep::Probe,
            None if entry.is_some() => Upkeep::Manage,
            None => Upkeep::CreateManaged,
        };
        Some(Request::Neighbour { key, upkeep })
    }

    /// If a round is due: marks all neighbours for care, and gives up those that were lost for too long.
    /// Returns the targets whose answer may have changed.
    pub(super) fn round_due(&mut self, now: Instant) -> Option<Vec<IpAddr>> {
        if now < self.round_at {
            return None;
        }
        self.round_at = now + ROUND;
        self.due.extend(self.wanted.keys());
        self.due_at = Some(now);
        let lost: Vec<NeighbourKey> = self
            .wanted
            .iter()
            .filter(|(_, wanted)| wanted.lost_at.is_some_and(|at| now >= at + GRACE))
            .map(|(key, _)| *key)
            .collect();
        Some(lost.into_iter().flat_map(|key| self.remember(key, |_| Memory::Unknown)).collect())
    }

    /// Entries of ours that nobody needs any more.
    pub(super) fn orphans(&self) -> Vec<Request> {
        self.table
            .iter()
            .filter(|(key, entry)| entry.ours && entry.managed && !self.wanted.contains_key(key))
            .map(|(key, _)| Request::Neighbour { key: *key, upkeep: Upkeep::Release })
            .collect()
    }

    pub(super) fn deadline(&self) -> Instant {
        self.due_at.map_or(self.round_at, |at| at.min(self.round_at))
    }

    fn remember(&mut self, key: NeighbourKey, next: impl Fn(Memory) -> Memory) -> Vec<IpAddr> {
        let Some(wanted) = self.wanted.get_mut(&key) else { return Vec::new() };
        let old = wanted.memory;
        wanted.memory = next(old);
        if old == wanted.memory { Vec::new() } else { wanted.targets.iter().copied().collect() }
    }
}
