//! Which number every service and server has in the tables, and since when.
//!
//! Pure bookkeeping: the same changes in the same order give the same numbers, which is how a restarted daemon finds its
//! way back into tables that it did not make. A number is not given to another while a connection may hold it: a server
//! that was removed waits in the trash with its counts, and comes back under its old number when it is added again.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use serde_with_pairs as pairs;
use xlvs_model::view::Stats;
use xlvs_model::{Change, Model, Refusal, ServerKey, ServiceKey};

use xlvs_core::service::{BLOCK, server_in};

use crate::tables::Sizes;

/// A number that is given out again once it was returned: the smallest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Numbers {
    next: u32,
    limit: u32,
    returned: BTreeSet<u32>,
}

impl Numbers {
    fn up_to(limit: u32) -> Self {
        Self { next: 0, limit, returned: Default::default() }
    }

    /// All numbers that were ever given out are below this one.
    fn bound(&self) -> u32 {
        self.next
    }

    fn left(&self) -> u32 {
        self.limit - self.next + self.returned.len() as u32
    }

    fn take(&mut self) -> Option<u32> {
        if let Some(n) = self.returned.pop_first() {
            return Some(n);
        }
        (self.next < self.limit).then(|| {
            self.next += 1;
            self.next - 1
        })
    }

    fn give_back(&mut self, n: u32) {
        self.returned.insert(n);
    }
}

/// A server's place in the tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    /// Its id: block × 16 + lane.
    pub id: u32,
    /// Its statistics record.
    pub stats: u32,
    /// Order of addition in its service; 0 while it is in the trash.
    pub order: u32,
    /// Its last weight that was not 0 (mh goes by it).
    pub last_weight: u32,
    /// It has had NAT connections, so its replies are looked at.
    pub masqueraded: bool,
    /// What its counters held when they were zeroed or given to it.
    pub base: Stats,
}

impl Lane {
    /// Is it in the trash?
    pub fn in_trash(&self) -> bool {
        self.order == 0
    }
}

/// A service's place in the tables; it stays while connections of its servers may exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// Its id.
    pub id: u32,
    /// Does the service exist, or are only its former servers left?
    pub alive: bool,
    /// Its blocks.
    pub blocks: Vec<u32>,
    /// The ids in its blocks that no server has.
    free: BTreeSet<u32>,
    /// The order of the server added last.
    pub last_order: u32,
    /// Its servers, those in the trash included.
    #[serde(with = "pairs")]
    pub lanes: HashMap<ServerKey, Lane>,
    /// Counters of servers that are gone for good.
    pub retired: Stats,
    /// What its counters held when they were zeroed.
    pub base: Stats,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    #[serde(with = "pairs")]
    seats: HashMap<ServiceKey, Seat>,
    /// Moves with every service that may have been given a scheduler.
    pub serial: u32,
    services: Numbers,
    blocks: Numbers,
    stats: Numbers,
}

/// Maps with keys that are not strings, as lists of pairs.
mod serde_with_pairs {
    use std::collections::HashMap;
    use std::hash::Hash;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &HashMap<K, V>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        s.collect_seq(map.iter())
    }

    pub fn deserialize<'de, K, V, D>(d: D) -> Result<HashMap<K, V>, D::Error>
    where
        K: Deserialize<'de> + Eq + Hash,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        Ok(Vec::<(K, V)>::deserialize(d)?.into_iter().collect())
    }
}

impl Roster {
    /// Nobody has a number yet.
    pub fn new(sizes: &Sizes) -> Self {
        Self {
            seats: HashMap::new(),
            serial: 0,
            services: Numbers::up_to(sizes.services),
            blocks: Numbers::up_to(sizes.blocks - 1),
            stats: Numbers::up_to(sizes.stats - 1),
        }
    }

    /// A service's place.
    pub fn seat(&self, key: &ServiceKey) -> Option<&Seat> {
        self.seats.get(key)
    }

    /// A service's place, to be changed.
    pub fn seat_mut(&mut self, key: &ServiceKey) -> Option<&mut Seat> {
        self.seats.get_mut(key)
    }

    /// All statistics records that any server ever had are below this one.
    pub fn stats_bound(&self) -> u32 {
        self.stats.bound()
    }

    /// All places, those of deleted services included.
    pub fn seats(&self) -> impl Iterator<Item = (&ServiceKey, &Seat)> {
        self.seats.iter()
    }

    /// Is there room for what this change needs? Ask before the model is changed.
    pub fn has_room(&self, change: &Change) -> Result<(), Refusal> {
        match change {
            Change::AddService(spec) if !self.seats.contains_key(&spec.key) => {
                enough(self.services.left(), 1, "services", "--max-services")
            }
            Change::AddServer(key, spec) => {
                let Some(seat) = self.seats.get(key) else { return Ok(()) };
                if seat.lanes.contains_key(&spec.key) {
                    return Ok(());
                }
                enough(self.stats.left(), 1, "servers", "--max-servers")?;
                enough(
                    self.blocks.left(),
                    u32::from(seat.free.is_empty()),
                    "blocks of servers",
                    "--max-servers",
                )
            }
            _ => Ok(()),
        }
    }

    /// Follows a change that the model (as it is after the change) accepted.
    pub fn follow(&mut self, change: &Change, model: &Model) {
        match change {
            Change::AddService(spec) => {
                self.serial = self.serial.wrapping_add(1);
                self.seat_service(spec.key);
            }
            Change::EditService(_) => self.serial = self.serial.wrapping_add(1),
            Change::DeleteService(key) => self.unseat_service(key),
            Change::Flush => {
                let keys: Vec<_> = self.seats.iter().filter(|(_, s)| s.alive).map(|(k, _)| *k).collect();
                keys.iter().for_each(|key| self.unseat_service(key));
            }
            Change::AddServer(key, spec) => self.seat_server(key, spec.key),
            Change::DeleteServer(key, server) => {
                if let Some(lane) = self.seats.get_mut(key).and_then(|s| s.lanes.get_mut(server)) {
                    lane.order = 0;
                }
            }
            _ => {}
        }
        self.note_server(change, model);
    }

    fn seat_service(&mut self, key: ServiceKey) {
        if let Some(seat) = self.seats.get_mut(&key) {
            seat.alive = true;
            return;
        }
        let Some(id) = self.services.take() else { return };
        let seat = Seat {
            id,
            alive: true,
            blocks: Vec::new(),
            free: BTreeSet::new(),
            last_order: 0,
            lanes: HashMap::new(),
            retired: Stats::default(),
            base: Stats::default(),
        };
        self.seats.insert(key, seat);
    }

    fn unseat_service(&mut self, key: &ServiceKey) {
        let Some(seat) = self.seats.get_mut(key) else { return };
        seat.alive = false;
        seat.lanes.values_mut().for_each(|lane| lane.order = 0);
        self.vacate_if_empty(key);
    }

    fn seat_server(&mut self, key: &ServiceKey, server: ServerKey) {
        let Some(seat) = self.seats.get_mut(key) else { return };
        seat.last_order += 1;
        if let Some(lane) = seat.lanes.get_mut(&server) {
            lane.order = seat.last_order;
            return;
        }
        let Some(stats) = self.stats.take() else { return };
        if seat.free.is_empty() {
            let Some(block) = self.blocks.take() else { return };
            seat.blocks.push(block);
            seat.free.extend((0..BLOCK).map(|lane| server_in(block, lane)));
        }
        let Some(id) = seat.free.pop_first() else { return };
        let lane = Lane {
            id,
            stats,
            order: seat.last_order,
            last_weight: 0,
            masqueraded: false,
            base: Stats::default(),
        };
        seat.lanes.insert(server, lane);
    }

    fn note_server(&mut self, change: &Change, model: &Model) {
        let (Change::AddServer(key, spec) | Change::EditServer(key, spec)) = change else { return };
        let Some(spec) = model.service(key).and_then(|s| s.server(&spec.key)) else { return };
        let Some(lane) = self.seats.get_mut(key).and_then(|s| s.lanes.get_mut(&spec.key)) else { return };
        lane.masqueraded |= spec.method == xlvs_model::spec::Method::Masquerade;
        if spec.weight != 0 {
            lane.last_weight = spec.weight;
        } else if matches!(change, Change::AddServer(..)) {
            lane.last_weight = 0;
        }
    }

    /// Frees the number of a server that has been in the trash long enough without connections. `last` is what its
    /// counters held.
    pub fn release(&mut self, key: &ServiceKey, server: &ServerKey, last: Stats) {
        let Some(seat) = self.seats.get_mut(key) else { return };
        if !seat.lanes.get(server).is_some_and(Lane::in_trash) {
            return;
        }
        if let Some(lane) = seat.lanes.remove(server) {
            seat.retired = sum(seat.retired, last);
            seat.free.insert(lane.id);
            self.stats.give_back(lane.stats);
        }
        self.vacate_if_empty(key);
    }

    fn vacate_if_empty(&mut self, key: &ServiceKey) {
        if !self.seats.get(key).is_some_and(|s| !s.alive && s.lanes.is_empty()) {
            return;
        }
        if let Some(seat) = self.seats.remove(key) {
            self.services.give_back(seat.id);
            seat.blocks.iter().for_each(|b| self.blocks.give_back(*b));
        }
    }
}

fn enough(left: u32, needed: u32, what: &str, option: &str) -> Result<(), Refusal> {
    if left >= needed {
        return Ok(());
    }
    Err(Refusal::NoRoom(format!("all {what} are taken; start xlvs with a larger {option}")))
}

/// Two sets of counters together.
pub fn sum(a: Stats, b: Stats) -> Stats {
    Stats {
        conns: a.conns + b.conns,
        in_packets: a.in_packets + b.in_packets,
        out_packets: a.out_packets + b.out_packets,
        in_bytes: a.in_bytes + b.in_bytes,
        out_bytes: a.out_bytes + b.out_bytes,
    }
}

/// What was added to counters since they held `base`.
pub fn since(now: Stats, base: Stats) -> Stats {
    Stats {
        conns: now.conns.wrapping_sub(base.conns),
        in_packets: now.in_packets.wrapping_sub(base.in_packets),
        out_packets: now.out_packets.wrapping_sub(base.out_packets),
        in_bytes: now.in_bytes.wrapping_sub(base.in_bytes),
        out_bytes: now.out_bytes.wrapping_sub(base.out_bytes),
    }
}
