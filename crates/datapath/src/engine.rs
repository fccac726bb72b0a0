//! Carries out an operator's changes in the tables, and says what is in them.
//!
//! The engine owns what is desired (the [`Model`]), who has which number (the [`Roster`]) and the journal of both. A
//! change set is checked first and journalled, then written; writing cannot fail. Packets flow all the while, so every
//! write order here is chosen so that a packet sees the old state or the new one.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use xlvs_core::cell::Cell64;
use xlvs_core::config::{FILTER_PLACES, class, filter_place_v4, filter_place_v6, switch};
use xlvs_core::conn::key::{self, Kind};
use xlvs_core::conn::table::{self, New, Probe, Refused};
use xlvs_core::conn::word::{Tick, Word};
use xlvs_core::conn::{Bucket, Memory as _};
use xlvs_core::director::{mark_key, server_key, service_key};
use xlvs_core::family;
use xlvs_core::marks::Rule;
use xlvs_core::method::BYPASS;
use xlvs_core::pressure::{self, Memory, Mode};
use xlvs_core::sched::{self, choices};
use xlvs_core::server::{Hop, Place, Server, flag as server_flag};
use xlvs_core::service::{self, BLOCK, Block, NO_BLOCK, block_of, effective_lower, lane_of};
use xlvs_core::state::TcpState;
use xlvs_core::stats::Counters;
use xlvs_core::vlan;
use xlvs_core::wire::AddrV6;
use xlvs_model::spec::{Method, Mss, Scheduler};
use xlvs_model::state::Service;
use xlvs_model::view::{ServerView, ServiceView, Stats};
use xlvs_model::{
    Change, Family, MarkRule, Model, Refusal, ServerKey, ServerSpec, ServiceKey, ServiceSpec, Timeouts,
    Tunable, supported,
};

use crate::estimator::Estimator;
use crate::journal::{Journal, JournalError, Line};
use crate::lines::Lines;
use crate::nexthop::VlanDevice;
use crate::roster::{self, Lane, Roster, Seat};
use crate::tables::{Buckets, Tables};

/// Seconds that a server without connections stays in the trash (the kernel: two of its 60 s rounds).
pub const TRASH_IDLE_S: u64 = 120;

/// Why a change set was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The change with this number was refused; those before it stand.
    #[error("change {0}: {1}")]
    Refused(usize, Refusal),
    /// The journal could not be written; nothing was applied.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// A server that needs a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The server's id.
    pub id: u32,
    /// Its address.
    pub addr: IpAddr,
}

/// See the module.
pub struct Engine {
    tables: Arc<Tables>,
    model: Model,
    roster: Roster,
    journal: Option<Journal>,
    estimators: HashMap<u32, Estimator>,
    service_estimators: HashMap<ServiceKey, Estimator>,
    idle_since: HashMap<u32, u64>,
    lines: Lines,
    /// NAT servers in the service table, with their ids.
    nat_servers: BTreeMap<NatServer, u32>,
    /// What [`Self::forwarded`] said at the most.
    forwarded: Cell<u64>,
}

/// Where a NAT server's packets come from: address, port, and protocol (0: a mark's, any).
type NatServer = (IpAddr, u16, u8);

/// What a change set touched.
#[derive(Default)]
struct Touched {
    services: BTreeMap<ServiceKey, Touch>,
    reach: Reach,
    services_differ: bool,
    /// Other servers than before, or others of them by NAT: more than a weight.
    servers_differ: bool,
    timeouts: bool,
    tunables: bool,
    marks: bool,
    zeroed: Vec<Option<ServiceKey>>,
}

/// What a change set did to the set of addresses whose packets may concern the data plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    /// Nothing: a removed server still has its connections.
    #[default]
    Same,
    /// Those of the touched services were added.
    Wider,
    /// Some may be gone.
    Anew,
}

impl Reach {
    fn after(change: &Change, before: &Model) -> Self {
        match change {
            // Without any service no address counts, not even those of servers that are still in the trash.
            Change::AddService(_) if before.services().is_empty() => Self::Anew,
            Change::AddService(_) | Change::AddServer(..) | Change::EditServer(..) => Self::Wider,
            Change::DeleteService(_) | Change::Flush => Self::Anew,
            _ => Self::Same,
        }
    }
}

/// What a change set did to a service.
#[derive(Clone, Copy, Debug, Default)]
struct Touch {
    /// It was made, or got another scheduler.
    started: bool,
    /// Its servers changed.
    servers: bool,
}

/// What counters held when they began to count from nothing.
type Base = (ServiceKey, Option<ServerKey>, Stats);

/// What is to be done about changes that were accepted.
#[derive(Default)]
struct Noted {
    touched: Touched,
    bases: Vec<Base>,
}

impl Touched {
    fn by(change: &Change, before: &Model) -> Self {
        let mut touched = Self::default();
        let scheduler = |key: &ServiceKey| before.service(key).map(|s| s.spec.scheduler);
        match change {
            Change::AddService(spec) => touched.touch(spec.key, Touch { started: true, servers: true }),
            Change::EditService(spec) => {
                let started = scheduler(&spec.key) != Some(spec.scheduler);
                touched.touch(spec.key, Touch { started, servers: started });
            }
            Change::DeleteService(key) => touched.touch(*key, Touch::default()),
            Change::AddServer(key, _) | Change::DeleteServer(key, _) | Change::EditServer(key, _) => {
                touched.touch(*key, Touch { started: false, servers: true });
            }
            Change::Flush => {
                before.services().iter().for_each(|s| touched.touch(s.spec.key, Touch::default()));
            }
            Change::SetTimeouts(_) => touched.timeouts = true,
            Change::Tune(..) => touched.tunables = true,
            Change::AddMark(_) | Change::DeleteMark(_) => touched.marks = true,
            Change::Zero(which) => touched.zeroed.push(*which),
            Change::StartSync(_) | Change::StopSync(_) => {}
        }
        touched.reach = Reach::after(change, before);
        touched.servers_differ = match change {
            Change::EditServer(key, spec) => {
                let method = |model: &Model| Some(model.service(key)?.server(&spec.key)?.method);
                method(before) != Some(spec.method)
            }
            _ => !touched.services.is_empty(),
        };
        touched.services_differ = matches!(
            change,
            Change::AddService(_) | Change::EditService(_) | Change::DeleteService(_) | Change::Flush
        );
        touched
    }

    fn touch(&mut self, key: ServiceKey, touch: Touch) {
        let known = self.services.entry(key).or_default();
        known.started |= touch.started;
        known.servers |= touch.servers;
    }

    fn absorb(&mut self, other: Touched) {
        other.services.into_iter().for_each(|(key, touch)| self.touch(key, touch));
        self.reach = self.reach.max(other.reach);
        self.services_differ |= other.services_differ;
        self.servers_differ |= other.servers_differ;
        self.timeouts |= other.timeouts;
        self.tunables |= other.tunables;
        self.marks |= other.marks;
        self.zeroed.extend(other.zeroed);
    }
}

impl Engine {
    /// An engine over empty tables, without a journal.
    pub fn new(tables: Arc<Tables>) -> Self {
        let roster = Roster::new(&tables.sizes);
        Self::with(tables, Model::default(), roster)
    }

    fn with(tables: Arc<Tables>, model: Model, roster: Roster) -> Self {
        let lines = Lines::new(tables.sizes.choices);
        Self {
            lines,
            tables,
            model,
            roster,
            journal: None,
            estimators: HashMap::new(),
            service_estimators: HashMap::new(),
            idle_since: HashMap::new(),
            nat_servers: BTreeMap::new(),
            forwarded: Cell::default(),
        }
    }

    /// An engine over tables that another daemon left behind, as its journal tells. Writes everything once more, so
    /// that a change set that was cut short is complete.
    pub fn restore(tables: Arc<Tables>, lines: Vec<Line>) -> Self {
        let mut model = Model::default();
        let mut roster = Roster::new(&tables.sizes);
        for line in lines {
            replay(&mut model, &mut roster, line);
        }
        let mut engine = Self::with(tables, model, roster);
        engine.rewrite();
        engine
    }

    /// From now on, changes are written to this journal first.
    pub fn keep_journal(&mut self, journal: Journal) {
        self.journal = Some(journal);
    }

    /// What is desired.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Who has which number.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// The tables.
    pub fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// Applies changes in order up to the first that is refused, as `ipvsadm -R` does.
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), ApplyError> {
        let mut noted = Noted::default();
        let refused = self.accept_all(changes, &mut noted);
        let done = refused.as_ref().map_or(changes.len(), |(i, _)| *i);
        self.carry_out(&changes[..done], noted)?;
        refused.map_or(Ok(()), |(i, refusal)| Err(ApplyError::Refused(i, refusal)))
    }

    /// Applies all of these changes in order, or none when one of them is refused.
    pub fn apply_all(&mut self, changes: &[Change]) -> Result<(), ApplyError> {
        // A single change leaves nothing behind when it is refused.
        if changes.len() > 1 {
            self.rehearse(changes)?;
        }
        self.apply(changes)
    }

    /// Would all of these changes be accepted?
    fn rehearse(&self, changes: &[Change]) -> Result<(), ApplyError> {
        let (mut model, mut roster) = (self.model.clone(), self.roster.clone());
        let refused = |i| move |refusal| ApplyError::Refused(i, refusal);
        let mut changes = changes.iter().enumerate();
        changes.try_for_each(|(i, change)| admit(change, &mut model, &mut roster).map_err(refused(i)))
    }

    /// Takes changes into the model and the roster, up to the first that is refused.
    fn accept_all(&mut self, changes: &[Change], noted: &mut Noted) -> Option<(usize, Refusal)> {
        let mut changes = changes.iter().enumerate();
        changes.find_map(|(i, change)| Some((i, self.accept(change, noted).err()?)))
    }

    /// Journals accepted changes and writes what they touched.
    fn carry_out(&mut self, changes: &[Change], noted: Noted) -> Result<(), ApplyError> {
        if !changes.is_empty() {
            self.record_changes(changes)?;
        }
        self.set_bases(noted.bases)?;
        Ok(self.write(&noted.touched)?)
    }

    /// Takes a change into the model and the roster, or refuses it and changes nothing.
    fn accept(&mut self, change: &Change, noted: &mut Noted) -> Result<(), Refusal> {
        let note = Touched::by(change, &self.model);
        let returning = match change {
            Change::AddService(spec) => self.roster.seat(&spec.key).is_some(),
            _ => false,
        };
        admit(change, &mut self.model, &mut self.roster)?;
        self.tell_scheduler(&note);
        noted.touched.absorb(note);
        match change {
            Change::AddService(spec) if returning => noted.bases.extend(self.bases_of(&spec.key)),
            Change::AddServer(key, spec) => noted.bases.extend(self.base_of_newcomer(key, &spec.key)),
            _ => {}
        }
        Ok(())
    }

    /// Lets the schedulers follow a single change: where a wrr service stands depends on every step that led there.
    fn tell_scheduler(&self, note: &Touched) {
        for (key, touch) in &note.services {
            let (Some(service), Some(seat)) = (self.model.service(key), self.roster.seat(key)) else {
                continue;
            };
            let record = &self.tables.services[seat.id as usize];
            let scheduler = service.spec.scheduler;
            if touch.started {
                // wlc needs neither a table nor a cursor: packets have it until both are the new scheduler's.
                record.kind.store(Scheduler::Wlc as u32);
                sched::start(record, scheduler, &listed(service, seat), self.roster.serial);
            } else if touch.servers {
                sched::refresh(record, scheduler, &listed(service, seat));
            }
        }
    }

    /// A statistics record that another server used before does not start at zero.
    fn base_of_newcomer(&self, key: &ServiceKey, server: &ServerKey) -> Option<Base> {
        let lane = self.roster.seat(key)?.lanes.get(server)?;
        let raw = self.raw_stats(lane.stats);
        let is_new = lane.base == Stats::default() && !self.estimators.contains_key(&lane.id);
        (is_new && raw != Stats::default() && !self.holds_connections(lane.id)).then_some((
            *key,
            Some(*server),
            raw,
        ))
    }

    /// Journals changes. When that fails, the model goes back to what the journal says: nothing was applied.
    fn record_changes(&mut self, changes: &[Change]) -> Result<(), JournalError> {
        let Some(journal) = &mut self.journal else { return Ok(()) };
        let Err(why) = journal.append(&Line::Changes(changes.to_vec())) else { return Ok(()) };
        if let Some((_, lines)) = Journal::read(journal.path())? {
            self.model = Model::default();
            self.roster = Roster::new(&self.tables.sizes);
            for line in lines {
                replay(&mut self.model, &mut self.roster, line);
            }
            self.rewrite();
        }
        Err(why)
    }

    fn write(&mut self, touched: &Touched) -> Result<(), JournalError> {
        for (key, touch) in &touched.services {
            self.write_service(key, *touch);
        }
        if touched.services_differ {
            self.write_port_switches();
        }
        match touched.reach {
            Reach::Same => {}
            Reach::Wider => self.widen_filters(touched.services.keys()),
            Reach::Anew => self.write_filters(),
        }
        if touched.timeouts {
            self.write_timeouts();
        }
        if touched.tunables {
            self.write_tunables();
        }
        if touched.tunables || touched.servers_differ {
            self.list_nat_servers();
        }
        if touched.marks {
            self.write_marks();
        }
        let zeroed = touched.zeroed.clone();
        zeroed.into_iter().try_for_each(|which| self.zero(which))
    }

    /// Writes all that is desired into the tables, whatever is there.
    fn rewrite(&mut self) {
        self.clear_stale_services();
        let seats: Vec<_> = self.roster.seats().map(|(key, seat)| (*key, seat.id)).collect();
        for (_, id) in &seats {
            let record = &self.tables.services[*id as usize];
            self.lines.reserve(record.table.load(), record.table_len.load());
        }
        for (key, id) in &seats {
            let kept = self.tables.services[*id as usize].kind.load() & service::flag::SCHEDULER;
            let started = self.model.service(key).is_some_and(|s| s.spec.scheduler as u32 != kept);
            let mut touched = Touched::default();
            touched.touch(*key, Touch { started, servers: true });
            self.tell_scheduler(&touched);
            self.write_service(key, Touch { started, servers: true });
        }
        self.write_port_switches();
        self.write_filters();
        self.write_timeouts();
        self.write_tunables();
        // None is left there: clearing took them all.
        self.nat_servers.clear();
        self.list_nat_servers();
        self.write_marks();
    }

    // ------------------------------------------------------------------------------------------------- services

    fn write_service(&mut self, key: &ServiceKey, touch: Touch) {
        let service = self.model.service(key);
        if service.is_none() {
            self.unlist_service(key);
        }
        let Some(seat) = self.roster.seat(key) else { return };
        for (server, lane) in &seat.lanes {
            let spec = service.and_then(|s| s.server(server)).filter(|_| !lane.in_trash());
            self.write_server(seat, server, lane, spec);
        }
        let Some(service) = service else {
            let id = seat.id;
            self.drop_table(id);
            return;
        };
        self.write_chain(seat);
        let (id, spec, listed) = (seat.id, service.spec.clone(), listed(service, seat));
        self.write_record(id, &spec, &listed, touch);
        self.list_service(key, id);
    }

    fn write_chain(&self, seat: &Seat) {
        for (i, block) in seat.blocks.iter().enumerate() {
            let next = seat.blocks.get(i + 1).copied().unwrap_or(NO_BLOCK);
            self.block(*block).next.store(next);
        }
        let record = &self.tables.services[seat.id as usize];
        record.first_block.store(seat.blocks.first().copied().unwrap_or(NO_BLOCK));
        record.blocks.store(seat.blocks.len() as u32);
    }

    fn write_record(&mut self, id: u32, spec: &ServiceSpec, listed: &[choices::Listed], touch: Touch) {
        if touch.servers {
            self.replace_table(id, spec, listed);
        }
        let record = &self.tables.services[id as usize];
        let (port, mark) = match spec.key {
            ServiceKey::Address { port, .. } => (port, 0),
            ServiceKey::Mark { mark, .. } => (0, mark),
        };
        record.port.store(u32::from(port));
        record.mark.store(mark);
        record.mss.store(match spec.mss {
            None => 0,
            Some(Mss::Auto) => service::AUTO,
            Some(Mss::Most(bytes)) => u32::from(bytes),
        });
        if let Some(persistence) = spec.persistence {
            record.persist_mask.store(mask_as_compared(spec.key.family(), persistence.netmask));
            if let Some(class) = self.class_for(persistence.timeout) {
                self.tables.services[id as usize].persist_class.store(u32::from(class));
            }
        }
        self.tables.services[id as usize].kind.store(kind_of(spec));
    }

    /// Whether there is a service for all ports, one for FTP, and one that has a say in segments: packets look for them only then.
    fn write_port_switches(&self) {
        let tally = self.model.tally();
        self.switch(switch::CLAMPS_MSS, tally.has_mss());
        self.switch(switch::ANY_PORT_SERVICE, tally.serves_all_ports());
        self.switch(switch::FTP_SERVICE, tally.serves_ftp());
    }

    /// Fills a new table beside the old one and puts it in its place.
    fn replace_table(&mut self, id: u32, spec: &ServiceSpec, listed: &[choices::Listed]) {
        let now = Instant::now();
        let len = choices::lines(spec.scheduler, listed.len()) as u32;
        let record = &self.tables.services[id as usize];
        let old = (record.table.load(), record.table_len.load());
        let first = match (len, self.lines.take(len, now)) {
            (0, _) => choices::NO_TABLE,
            (_, Some(first)) => {
                sched::fill(
                    spec.scheduler,
                    listed,
                    &self.tables.choices[first as usize..(first + len) as usize],
                );
                first
            }
            (_, None) => {
                tracing::error!(service = ?spec.key, "no room for the scheduler's table; the service keeps the one it has");
                return;
            }
        };
        record.table.store(first);
        record.table_len.store(len);
        self.lines.give_back(old.0, old.1, now);
    }

    fn drop_table(&mut self, id: u32) {
        let record = &self.tables.services[id as usize];
        let old = (record.table.load(), record.table_len.load());
        record.table.store(choices::NO_TABLE);
        record.table_len.store(0);
        self.lines.give_back(old.0, old.1, Instant::now());
    }

    fn list_service(&self, key: &ServiceKey, id: u32) {
        let Some(place) = self.place_of(key) else { return };
        if let Err(why) = self.list_at(place, id) {
            tracing::error!(
                ?key,
                ?why,
                "the service table has no room for this service; start xlvs with a larger --max-services"
            );
        }
    }

    fn unlist_service(&self, key: &ServiceKey) {
        if let Some(place) = self.place_of(key) {
            self.unlist_at(place);
        }
    }

    fn list_at(&self, place: Listing, id: u32) -> Result<(), Refused> {
        match place {
            Listing::V4(key) => list(&Buckets(&self.tables.services_v4), self.seed(), key, id),
            Listing::V6(key) => list(&Buckets(&self.tables.services_v6), self.seed(), key, id),
        }
    }

    fn unlist_at(&self, place: Listing) {
        match place {
            Listing::V4(key) => unlist(&Buckets(&self.tables.services_v4), self.seed(), key),
            Listing::V6(key) => unlist(&Buckets(&self.tables.services_v6), self.seed(), key),
        }
    }

    /// Has the data plane know the servers of NAT by address and port, while `nat_icmp_send` is on.
    fn list_nat_servers(&mut self) {
        let wanted = if self.model.tunables().is_on(Tunable::NatIcmpSend) {
            self.wanted_nat_servers()
        } else {
            BTreeMap::new()
        };
        for gone in self.nat_servers.keys().filter(|server| !wanted.contains_key(server)) {
            self.unlist_at(place_of_server(gone));
        }
        for (server, id) in wanted.iter().filter(|(server, id)| self.nat_servers.get(server) != Some(id)) {
            if let Err(why) = self.list_at(place_of_server(server), *id) {
                tracing::error!(
                    ?server,
                    ?why,
                    "the service table has no room for this server, and nat_icmp_send overlooks it; start xlvs with a larger --max-servers"
                );
            }
        }
        self.nat_servers = wanted;
    }

    /// One of several servers at one address and port stands for all.
    fn wanted_nat_servers(&self) -> BTreeMap<NatServer, u32> {
        let mut wanted = BTreeMap::new();
        for service in self.model.services() {
            let Some(seat) = self.roster.seat(&service.spec.key) else { continue };
            let protocol = match service.spec.key {
                ServiceKey::Address { protocol, .. } => protocol as u8,
                ServiceKey::Mark { .. } => 0,
            };
            for spec in service.servers.iter().filter(|spec| spec.method == Method::Masquerade) {
                if let Some(lane) = seat.lanes.get(&spec.key) {
                    wanted.entry((spec.key.addr, spec.key.port, protocol)).or_insert(lane.id);
                }
            }
        }
        wanted
    }

    fn seed(&self) -> u64 {
        self.tables.config().seed.load()
    }

    /// Removes entries of services that do not exist, and slots that a killed daemon was filling.
    fn clear_stale_services(&self) {
        let alive: HashSet<u64> =
            self.roster.seats().filter(|(_, s)| s.alive).map(|(_, s)| u64::from(s.id)).collect();
        self.tables.services_v4.iter().for_each(|bucket| clear_stale(bucket, &alive));
        self.tables.services_v6.iter().for_each(|bucket| clear_stale(bucket, &alive));
    }

    fn place_of(&self, key: &ServiceKey) -> Option<Listing> {
        let ServiceKey::Address { protocol, addr, port } = *key else {
            let ServiceKey::Mark { mark, family } = *key else { return None };
            return Some(match family {
                Family::Inet => Listing::V4(mark_key::<family::V4, 2>(mark)),
                Family::Inet6 => Listing::V6(mark_key::<family::V6, 5>(mark)),
            });
        };
        let (port, protocol) = (port.to_be_bytes(), protocol as u8);
        Some(match addr {
            IpAddr::V4(vip) => Listing::V4(service_key::<family::V4, 2>(vip.octets(), port, protocol)),
            IpAddr::V6(vip) => Listing::V6(service_key::<family::V6, 5>(vip.octets().into(), port, protocol)),
        })
    }

    // -------------------------------------------------------------------------------------------------- servers

    /// Writes a server's records; without a specification it is in the trash.
    fn write_server(&self, seat: &Seat, key: &ServerKey, lane: &Lane, spec: Option<&ServerSpec>) {
        let block = self.block(block_of(lane.id));
        let at = lane_of(lane.id);
        let record = &self.tables.servers[lane.id as usize];
        let Some(spec) = spec else {
            block.weight[at].store(0);
            block.order[at].store(0);
            record.set_flags(record.flags() & !server_flag::AVAILABLE);
            return;
        };
        record.set_addr(addr_bytes(key.addr));
        record.set_place(Place { service: seat.id, stats: lane.stats });
        record.set_tunnel_port(spec.tunnel.port.to_be_bytes());
        record.set_flags(self.with_tunables(flags_of(spec, record.flags())));
        block.port[at].store(u32::from(u16::from_ne_bytes(key.port.to_be_bytes())));
        write_thresholds(block, at, spec);
        block.order[at].store(lane.order);
        block.weight[at].store(spec.weight);
    }

    fn block(&self, id: u32) -> &Block {
        &self.tables.blocks[id as usize]
    }

    fn record(&self, id: u32) -> &Server {
        &self.tables.servers[id as usize]
    }

    /// The servers that packets are or may be sent to, with how they must be reached.
    pub fn destinations(&self) -> Vec<Destination> {
        let seats = self.roster.seats().flat_map(|(_, seat)| seat.lanes.iter());
        seats.map(|(key, lane)| self.destination_of(key, lane)).collect()
    }

    /// One of them.
    pub fn destination(&self, service: &ServiceKey, server: &ServerKey) -> Option<Destination> {
        let lane = self.roster.seat(service)?.lanes.get(server)?;
        Some(self.destination_of(server, lane))
    }

    fn destination_of(&self, key: &ServerKey, lane: &Lane) -> Destination {
        Destination { id: lane.id, addr: key.addr }
    }

    /// Is a server's next hop known, or is it the director itself?
    pub fn is_reached(&self, id: u32) -> bool {
        self.record(id).flags() & (server_flag::RESOLVED | server_flag::LOCAL) != 0
    }

    /// Is a server over its connection threshold?
    pub fn is_overloaded(&self, service: &ServiceKey, server: &ServerKey) -> bool {
        let lane = self.roster.seat(service).and_then(|seat| seat.lanes.get(server));
        lane.is_some_and(|lane| self.block(block_of(lane.id)).overload[lane_of(lane.id)].load() != 0)
    }

    /// A server's next hop is known.
    pub fn resolve(&self, id: u32, hop: &Hop, source: IpAddr) {
        if let Some(record) = self.tables.servers.get(id as usize) {
            record.set_flags(record.flags() & !server_flag::LOCAL);
            if self.is_vlan_device(hop.ifindex) {
                record.set_flags(record.flags() | server_flag::TAGGED);
                record.resolve(hop, addr_bytes(source));
            } else {
                record.resolve(hop, addr_bytes(source));
                record.set_flags(record.flags() & !server_flag::TAGGED);
            }
        }
    }

    fn is_vlan_device(&self, ifindex: u32) -> bool {
        let known = self.tables.config().vlan_devices.load() as usize;
        self.tables.vlan_devices.iter().take(known).any(|device| device.ifindex.load() == ifindex)
    }

    /// There are these VLAN devices now. Returns for how many there is no room.
    pub fn set_vlan_devices(&self, devices: &[VlanDevice]) -> usize {
        for (record, device) in self.tables.vlan_devices.iter().zip(devices) {
            record.ifindex.store(0);
            record.lower.store(device.lower);
            record.tags.store(device.tags.0);
            record.ifindex.store(device.ifindex);
        }
        let known = devices.len().min(vlan::MOST as usize);
        self.tables.config().vlan_devices.store(known as u32);
        for lane in self.roster.seats().flat_map(|(_, seat)| seat.lanes.values()) {
            let record = self.record(lane.id);
            let others = record.flags() & !server_flag::TAGGED;
            let is_tagged = self.is_vlan_device(record.onward().ifindex());
            record.set_flags(if is_tagged { others | server_flag::TAGGED } else { others });
        }
        devices.len() - known
    }

    /// A server's next hop is not known; `local`: because it is the director itself.
    pub fn unresolve(&self, id: u32, local: bool) {
        if let Some(record) = self.tables.servers.get(id as usize) {
            record.unresolve();
            let flags = record.flags() & !server_flag::LOCAL;
            record.set_flags(if local { flags | server_flag::LOCAL } else { flags });
        }
    }

    /// Is the director itself one of the servers?
    pub fn serves_itself(&self) -> bool {
        let mut lanes = self.roster.seats().flat_map(|(_, seat)| seat.lanes.values());
        lanes.any(|lane| self.record(lane.id).flags() & server_flag::LOCAL != 0)
    }

    /// Is what the director's own stack sends seen as it leaves ([`xlvs_core::director::outgoing`])? Only then NAT leads to the director.
    pub fn see_own(&self, is_seen: bool) {
        self.switch(switch::SEES_OWN, is_seen);
    }

    // --------------------------------------------------------------------------------------------------- globals

    /// Tells the data plane whose packets may concern it. Without any service nothing does, as when IPVS unhooks.
    fn write_filters(&self) {
        let mut places = vec![Held::default(); FILTER_PLACES];
        if !self.model.services().is_empty() {
            for (key, seat) in self.roster.seats() {
                vip(key).into_iter().for_each(|place| places[place].vip = true);
                rips(seat).for_each(|place| places[place].rip = true);
            }
        }
        let config = self.tables.config();
        for (place, held) in places.iter().enumerate() {
            config.vips.store(place, held.vip);
            config.rips.store(place, held.rip);
        }
    }

    /// Adds these services' addresses to what is there.
    fn widen_filters<'k>(&self, services: impl Iterator<Item = &'k ServiceKey>) {
        let config = self.tables.config();
        for (key, seat) in services.filter_map(|key| Some((key, self.roster.seat(key)?))) {
            vip(key).into_iter().for_each(|place| config.vips.store(place, true));
            rips(seat).for_each(|place| config.rips.store(place, true));
        }
    }

    /// The timeouts of `--set`. A connection takes the new one at its next packet: it goes by its class, and the class of
    /// a value never changes while a connection may have it.
    fn write_timeouts(&self) {
        let config = self.tables.config();
        let Timeouts { tcp, tcp_fin, udp } = self.model.timeouts();
        let class = |seconds: u32, usual: u8, usual_s: u32| {
            if seconds == usual_s { Some(usual) } else { self.class_for(seconds) }
        };
        let tcp_classes = [(TcpState::Established, tcp), (TcpState::FinWait, tcp_fin)];
        for (state, seconds) in tcp_classes {
            if let Some(c) = class(seconds, class::TCP + state as u8, state.timeout()) {
                config.tcp_class[state as usize].store(u32::from(c));
            }
        }
        if let Some(c) = class(udp, class::UDP, xlvs_core::state::UDP_TIMEOUT) {
            config.udp_class.store(u32::from(c));
        }
    }

    /// The tunables that packets see as they are; the defences are [`Self::defend`]'s.
    fn write_tunables(&self) {
        let (config, tunables) = (self.tables.config(), self.model.tunables());
        for (tunable, bit) in [
            (Tunable::SloppyTcp, switch::SLOPPY_TCP),
            (Tunable::ExpireNodestConn, switch::EXPIRE_NODEST_CONN),
            (Tunable::ExpireQuiescentTemplate, switch::EXPIRE_QUIESCENT_TEMPLATE),
            (Tunable::NatIcmpSend, switch::NAT_ICMP_SEND),
            (Tunable::ScheduleIcmp, switch::SCHEDULE_ICMP),
            (Tunable::SloppySctp, switch::SLOPPY_SCTP),
        ] {
            self.switch(bit, tunables.is_on(tunable));
        }
        config.reuse_mode.store(tunables.get(Tunable::ConnReuseMode));
        self.write_bypass();
        let ticks = |tunable| tunables.get(tunable) * Tick::PER_SECOND;
        config.lblc_expiration.store(ticks(Tunable::LblcExpiration));
        config.lblcr_expiration.store(ticks(Tunable::LblcrExpiration));
        let lanes = self.roster.seats().flat_map(|(_, seat)| seat.lanes.values());
        lanes
            .map(|lane| self.record(lane.id))
            .for_each(|record| record.set_flags(self.with_tunables(record.flags())));
    }

    /// What stands in for a server in entries of connections that have none. It stays when `cache_bypass` is switched off, for those
    /// that there are.
    fn write_bypass(&self) {
        let (sizes, bypass) = (self.tables.sizes, self.tables.sizes.bypass());
        for (id, family) in [(bypass, 0), (bypass + 1, server_flag::IPV6)] {
            let record = self.record(id);
            record.set_place(Place { service: u32::MAX, stats: sizes.stats - 1 });
            record.set_flags(u16::from(BYPASS) | server_flag::AVAILABLE | server_flag::LOCAL | family);
        }
        let is_on = self.model.tunables().is_on(Tunable::CacheBypass);
        self.tables.config().bypass.store(if is_on { bypass } else { 0 });
    }

    /// A server's flags with those that tunables decide.
    fn with_tunables(&self, flags: u16) -> u16 {
        if self.model.tunables().is_on(Tunable::PmtuDisc) {
            flags & !server_flag::CUT_OUTSIDE
        } else {
            flags | server_flag::CUT_OUTSIDE
        }
    }

    /// The rules of marks. A packet that comes while they are written may see some of the old and some of the new ones.
    fn write_marks(&self) {
        let rules = self.model.marks();
        for (record, rule) in self.tables.marks.iter().zip(rules) {
            write_mark(record, rule);
        }
        self.tables.marks.iter().skip(rules.len()).for_each(|record| record.mark.store(0));
        self.tables.config().mark_rules.store(rules.len() as u32);
    }

    /// Raises and lowers LVS's defences; to be called once a second and after a change of tunables. `available` is the free
    /// memory in pages. Returns whether `drop_entry` is up.
    pub fn defend(&self, available: u32) -> bool {
        let tunables = self.model.tunables();
        let mode = |tunable| Mode::from_number(tunables.get(tunable));
        let memory = Memory { available, threshold: tunables.get(Tunable::Amemthresh) };
        let rate = pressure::drop_rate(mode(Tunable::DropPacket), memory, tunables.get(Tunable::AmDroprate));
        self.tables.config().drop_rate.store(rate);
        self.switch(switch::SECURE_TCP, pressure::is_up(mode(Tunable::SecureTcp), memory));
        pressure::is_up(mode(Tunable::DropEntry), memory)
    }

    /// The class of this timeout: one that exists, a free one, or one that nothing uses any more.
    fn class_for(&self, seconds: u32) -> Option<u8> {
        let config = self.tables.config();
        let ticks = seconds * Tick::PER_SECOND;
        let given_out = || usize::from(class::FREE)..config.ticks.len();
        let of = |value: u32| given_out().find(|c| config.ticks[*c].load() == value);
        let found = of(ticks).or_else(|| of(0)).or_else(|| {
            let used = self.classes_in_use();
            given_out().find(|c| !used[*c])
        });
        let Some(c) = found else {
            tracing::error!(
                seconds,
                "too many different timeouts are in use at once; connections keep the present one"
            );
            return None;
        };
        config.ticks[c].store(ticks);
        Some(c as u8)
    }

    fn classes_in_use(&self) -> [bool; 256] {
        let mut used = [false; 256];
        let config = self.tables.config();
        config.tcp_class.iter().for_each(|c| used[c.load() as usize & 255] = true);
        used[config.udp_class.load() as usize & 255] = true;
        self.tables.services.iter().for_each(|s| used[s.persist_class.load() as usize & 255] = true);
        let words_v4 = self.tables.conns_v4.iter().flat_map(|b| &b.words);
        for cell in words_v4.chain(self.tables.conns_v6.iter().flat_map(|b| &b.words)) {
            used[usize::from(Word(cell.load()).class())] = true;
        }
        used
    }

    fn switch(&self, bit: u32, on: bool) {
        let switches = &self.tables.config().switches;
        let now = switches.load();
        switches.store(if on { now | bit } else { now & !bit });
    }

    /// A minute went by for the destination caches of lblc and lblcr. `false`: no service has one.
    pub fn begin_cache_round(&self) -> bool {
        let caching = |s: &&Service| matches!(s.spec.scheduler, Scheduler::Lblc | Scheduler::Lblcr);
        let mut any = false;
        for service in self.model.services().iter().filter(caching) {
            if let Some(seat) = self.roster.seat(&service.spec.key) {
                sched::affinity::begin_round(&self.tables.services[seat.id as usize]);
                any = true;
            }
        }
        any
    }

    // ----------------------------------------------------------------------------------------------------- trash

    /// Frees the numbers of removed servers that have had no connection for two minutes. `now_s` is any steady clock.
    /// Returns how many it were.
    pub fn empty_trash(&mut self, now_s: u64) -> Result<usize, JournalError> {
        let mut leaving = Vec::new();
        let mut waiting = HashMap::new();
        for (key, seat) in self.roster.seats() {
            for (server, lane) in seat.lanes.iter().filter(|(_, lane)| lane.in_trash()) {
                if self.holds_connections(lane.id) {
                    continue;
                }
                let since = self.idle_since.get(&lane.id).copied().unwrap_or(now_s);
                if now_s.saturating_sub(since) >= TRASH_IDLE_S {
                    leaving.push((*key, *server, since_base(self.raw_stats(lane.stats), lane.base)));
                } else {
                    waiting.insert(lane.id, since);
                }
            }
        }
        self.idle_since = waiting;
        if leaving.is_empty() {
            return Ok(0);
        }
        for (key, server, last) in &leaving {
            self.release(key, server, *last)?;
        }
        self.write_filters();
        Ok(leaving.len())
    }

    fn release(&mut self, key: &ServiceKey, server: &ServerKey, last: Stats) -> Result<(), JournalError> {
        if let Some(journal) = &mut self.journal {
            journal.append(&Line::Released(*key, *server, last))?;
        }
        if let Some(lane) = self.roster.seat(key).and_then(|s| s.lanes.get(server)) {
            self.record(lane.id).vacate();
            self.estimators.remove(&lane.id);
        }
        self.roster.release(key, server, last);
        Ok(())
    }

    fn holds_connections(&self, id: u32) -> bool {
        let (block, lane) = (self.block(block_of(id)), lane_of(id));
        block.total[lane].load() != 0 || block.persistent[lane].load() != 0
    }

    // ------------------------------------------------------------------------------------------------ statistics

    fn raw_stats(&self, record: u32) -> Stats {
        self.tables.stats_of(record).fold(Stats::default(), |sum, s| {
            roster::sum(
                sum,
                Stats {
                    conns: s.conns.load(),
                    in_packets: s.in_packets.load(),
                    out_packets: s.out_packets.load(),
                    in_bytes: s.in_bytes.load(),
                    out_bytes: s.out_bytes.load(),
                },
            )
        })
    }

    /// Packets that were sent on, by all processors since the tables were made. Those of the short way are in servers' statistics only.
    pub fn forwarded(&self) -> u64 {
        let stand_in = self.tables.sizes.stats - 1;
        let in_statistics: u64 = (0..self.roster.stats_bound())
            .chain([stand_in])
            .map(|record| self.raw_stats(record))
            .map(|stats| stats.in_packets.wrapping_add(stats.out_packets))
            .sum();
        let total = |cell: fn(&Counters) -> &Cell64| -> u64 {
            self.tables.counters.iter().map(|counters| cell(counters).load()).sum()
        };
        let at_once = in_statistics.saturating_sub(total(|c| &c.told_apart));
        let forwarded = at_once + total(|c| &c.forwarded);
        // A packet that is being counted meanwhile must not make it less than it was.
        self.forwarded.set(self.forwarded.get().max(forwarded));
        self.forwarded.get()
    }

    fn server_stats(&self, lane: &Lane) -> Stats {
        since_base(self.raw_stats(lane.stats), lane.base)
    }

    fn service_stats(&self, seat: &Seat) -> Stats {
        let lanes = seat.lanes.values().map(|lane| self.server_stats(lane));
        since_base(lanes.fold(seat.retired, roster::sum), seat.base)
    }

    fn zero(&mut self, which: Option<ServiceKey>) -> Result<(), JournalError> {
        let keys: Vec<ServiceKey> = match which {
            Some(key) => vec![key],
            None => self.model.services().iter().map(|s| s.spec.key).collect(),
        };
        let bases = keys.iter().flat_map(|key| self.bases_of(key)).collect();
        self.set_bases(bases)
    }

    /// What a service's counters and its servers' hold now.
    fn bases_of(&self, key: &ServiceKey) -> Vec<Base> {
        let Some(seat) = self.roster.seat(key) else { return Vec::new() };
        let servers =
            seat.lanes.iter().map(|(server, lane)| (*key, Some(*server), self.raw_stats(lane.stats)));
        // A service's counters are its servers' since their bases, which just became nothing, and those retired.
        servers.chain([(*key, None, seat.retired)]).collect()
    }

    fn set_bases(&mut self, bases: Vec<Base>) -> Result<(), JournalError> {
        if bases.is_empty() {
            return Ok(());
        }
        for (key, server, _) in &bases {
            match server {
                None => drop(self.service_estimators.remove(key)),
                Some(server) => {
                    let lane = self.roster.seat(key).and_then(|s| s.lanes.get(server)).map(|l| l.id);
                    lane.and_then(|id| self.estimators.remove(&id));
                }
            }
        }
        let line = Line::Bases(bases);
        if let Some(journal) = &mut self.journal {
            journal.append(&line)?;
        }
        replay(&mut self.model, &mut self.roster, line);
        Ok(())
    }

    /// Two seconds went by: rates move, and listings show the counters as they are now.
    ///
    /// With `run_estimation` off they stay as they are.
    pub fn estimate(&mut self) {
        if !self.model.tunables().is_on(Tunable::RunEstimation) {
            return;
        }
        for service in self.model.services() {
            let Some(seat) = self.roster.seat(&service.spec.key) else { continue };
            for lane in seat.lanes.values() {
                let now = self.server_stats(lane);
                self.estimators.entry(lane.id).or_default().estimate(now);
            }
            let now = self.service_stats(seat);
            self.service_estimators.entry(service.spec.key).or_default().estimate(now);
        }
    }

    // ------------------------------------------------------------------------------------------------------ views

    /// What a server has: connections and persistence templates. `None`: there is no such server.
    pub fn held(&self, service: &ServiceKey, server: &ServerKey) -> Option<u32> {
        let lane = self.roster.seat(service)?.lanes.get(server)?;
        let (block, at) = (self.block(block_of(lane.id)), lane_of(lane.id));
        Some(block.total[at].load().saturating_add(block.persistent[at].load()))
    }

    /// The services (or one) with all that listings show of them; servers newest first.
    pub fn services(&self, only: Option<&ServiceKey>) -> Vec<ServiceView> {
        let wanted = |s: &&Service| only.is_none_or(|key| s.spec.key == *key);
        self.model.services().iter().filter(wanted).filter_map(|s| self.view(s)).collect()
    }

    fn view(&self, service: &Service) -> Option<ServiceView> {
        let seat = self.roster.seat(&service.spec.key)?;
        let servers = service.servers.iter().rev().filter_map(|spec| {
            let lane = seat.lanes.get(&spec.key)?;
            let (block, at) = (self.block(block_of(lane.id)), lane_of(lane.id));
            let active = block.active[at].load();
            let estimator = self.estimators.get(&lane.id).copied().unwrap_or_default();
            Some(ServerView {
                spec: *spec,
                active,
                inactive: block.total[at].load().saturating_sub(active),
                persistent: block.persistent[at].load(),
                stats: estimator.snapshot(),
                rates: estimator.rates(),
            })
        });
        let estimator = self.service_estimators.get(&service.spec.key).copied().unwrap_or_default();
        Some(ServiceView {
            spec: service.spec.clone(),
            stats: estimator.snapshot(),
            rates: estimator.rates(),
            servers: servers.collect(),
        })
    }
}

/// The key under which a service is listed.
enum Listing {
    V4([u64; 2]),
    V6([u64; 5]),
}

fn list<const K: usize>(memory: &Buckets<'_, K>, seed: u64, key: [u64; K], id: u32) -> Result<(), Refused> {
    let probe = Probe::new(key, seed, memory.buckets());
    if let Some(found) = table::find(memory, &probe) {
        found.body.entry.store(u64::from(id));
        return Ok(());
    }
    let new = New { word: Word(0), entry: u64::from(id), link: 0 };
    table::insert(memory, &probe, &new).map(|_| ())
}

fn unlist<const K: usize>(memory: &Buckets<'_, K>, seed: u64, key: [u64; K]) {
    let probe = Probe::new(key, seed, memory.buckets());
    if let Some(found) = table::find(memory, &probe) {
        let removed = table::remove(&found);
        debug_assert!(removed, "only the engine changes the service table");
    }
}

fn place_of_server(&(addr, port, protocol): &NatServer) -> Listing {
    let port = port.to_be_bytes();
    match addr {
        IpAddr::V4(addr) => Listing::V4(server_key::<family::V4, 2>(addr.octets(), port, protocol)),
        IpAddr::V6(addr) => Listing::V6(server_key::<family::V6, 5>(addr.octets().into(), port, protocol)),
    }
}

fn clear_stale<const K: usize>(bucket: &Bucket<K>, alive: &HashSet<u64>) {
    for (cell, body) in bucket.words.iter().zip(&bucket.bodies) {
        let word = Word(cell.load());
        let is_service = key::kind_of(&body.key()) != Kind::Server as u8;
        let listed = word.is_live() && is_service && alive.contains(&body.entry.load());
        if !word.is_empty() && !listed {
            cell.store(word.removed().0);
        }
    }
}

/// Takes a change into these books, or refuses it and changes nothing.
fn admit(change: &Change, model: &mut Model, roster: &mut Roster) -> Result<(), Refusal> {
    supported(change)?;
    roster.has_room(change)?;
    scheduler_takes(change, model)?;
    model.apply(change)?;
    roster.follow(change, model);
    Ok(())
}

/// mh has no more slots than it has; the kernel says EINVAL too.
fn scheduler_takes(change: &Change, model: &Model) -> Result<(), Refusal> {
    let (scheduler, servers) = match change {
        Change::EditService(spec) => {
            (spec.scheduler, model.service(&spec.key).map_or(0, |s| s.servers.len()))
        }
        Change::AddServer(key, _) => {
            let Some(service) = model.service(key) else { return Ok(()) };
            (service.spec.scheduler, service.servers.len() + 1)
        }
        _ => return Ok(()),
    };
    if sched::accepts(scheduler, servers) { Ok(()) } else { Err(Refusal::Invalid) }
}

fn replay(model: &mut Model, roster: &mut Roster, line: Line) {
    match line {
        Line::State(m, r) => (*model, *roster) = (*m, *r),
        Line::Changes(changes) => {
            for change in &changes {
                match model.apply(change) {
                    Ok(()) => roster.follow(change, model),
                    Err(why) => {
                        tracing::error!(%why, ?change, "a journalled change is refused now; it is left out")
                    }
                }
            }
        }
        Line::Released(key, server, last) => roster.release(&key, &server, last),
        Line::Bases(bases) => {
            for (key, server, stats) in bases {
                let Some(seat) = roster.seat_mut(&key) else { continue };
                match server {
                    None => seat.base = stats,
                    Some(server) => {
                        if let Some(lane) = seat.lanes.get_mut(&server) {
                            lane.base = stats;
                        }
                    }
                }
            }
        }
    }
}

/// A service's servers as the schedulers' tables are made from them: the newest first.
fn listed(service: &Service, seat: &Seat) -> Vec<choices::Listed> {
    let lanes = service.servers.iter().rev().filter_map(|spec| Some((spec, seat.lanes.get(&spec.key)?)));
    lanes
        .map(|(spec, lane)| choices::Listed {
            id: lane.id,
            order: lane.order,
            weight: spec.weight,
            last_weight: lane.last_weight,
            address: match spec.key.addr {
                IpAddr::V4(v4) => u32::from(v4),
                IpAddr::V6(v6) => AddrV6::from_bytes(v6.octets()).folded(),
            },
            port: spec.key.port,
        })
        .collect()
}

fn since_base(now: Stats, base: Stats) -> Stats {
    roster::since(now, base)
}

fn kind_of(spec: &ServiceSpec) -> u32 {
    let mut kind = spec.scheduler as u32;
    let mut set = |on: bool, flag: u32| kind |= if on { flag } else { 0 };
    set(spec.persistence.is_some(), service::flag::PERSISTENT);
    set(spec.one_packet, service::flag::ONE_PACKET);
    set(spec.flags.fallback, service::flag::FALLBACK);
    set(spec.flags.port, service::flag::PORT);
    set(matches!(spec.key, ServiceKey::Mark { .. }), service::flag::MARK);
    kind
}

/// A netmask as the data plane compares with it: IPv4 in network order.
fn mask_as_compared(family: Family, netmask: u32) -> u32 {
    match family {
        Family::Inet => netmask.to_be(),
        Family::Inet6 => netmask,
    }
}

fn write_mark(record: &Rule, rule: &MarkRule) {
    record.mark.store(0);
    let (addr, prefix) = rule.to.map_or(([0; 16], 0), |(addr, prefix)| (addr_bytes(addr), prefix));
    let bits = if prefix == 0 { 0 } else { u128::MAX << (128 - u32::from(prefix)) };
    let words = |bytes: [u8; 16]| AddrV6::from_bytes(bytes).0;
    for (i, (addr, mask)) in words(addr).into_iter().zip(words(bits.to_be_bytes())).enumerate() {
        record.addr[i].store(addr & mask);
        record.mask[i].store(mask);
    }
    record.ports.store(u32::from(rule.ports.0) | u32::from(rule.ports.1) << 16);
    record.protocol.store(u32::from(rule.protocol.unwrap_or(0)));
    record.is_v6.store(u32::from(rule.family == Family::Inet6));
    record.mark.store(rule.mark);
}

/// A server's flags as specified; whether its next hop is known stays.
pub(crate) fn flags_of(spec: &ServerSpec, before: u16) -> u16 {
    let mut flags = before & (server_flag::RESOLVED | server_flag::LOCAL | server_flag::TAGGED);
    flags |= spec.method as u16 | server_flag::AVAILABLE;
    flags |= (spec.tunnel.kind as u16) << server_flag::TUNNEL_TYPE;
    flags |= (spec.tunnel.checksum as u16) << server_flag::TUNNEL_CHECKSUM;
    if spec.weight == 0 {
        flags |= server_flag::QUIESCED;
    }
    if spec.key.addr.is_ipv6() {
        flags |= server_flag::IPV6;
    }
    flags
}

fn write_thresholds(block: &Block, at: usize, spec: &ServerSpec) {
    let lower = effective_lower(spec.upper, spec.lower);
    if block.upper[at].load() == spec.upper && block.lower[at].load() == lower {
        return;
    }
    block.upper[at].store(spec.upper);
    block.lower[at].store(lower);
    block.judge_overload(at);
}

/// Whether anybody falls on a place of the data plane's filters.
#[derive(Clone, Copy, Default)]
struct Held {
    vip: bool,
    rip: bool,
}

/// The place of a service's address.
fn vip(key: &ServiceKey) -> Option<usize> {
    match key {
        ServiceKey::Address { addr, .. } => Some(filter_place(*addr)),
        ServiceKey::Mark { .. } => None,
    }
}

/// The places of the servers whose replies are looked at.
fn rips(seat: &Seat) -> impl Iterator<Item = usize> {
    seat.lanes.iter().filter(|(_, lane)| lane.masqueraded).map(|(server, _)| filter_place(server.addr))
}

fn filter_place(addr: IpAddr) -> usize {
    match addr {
        IpAddr::V4(addr) => filter_place_v4(addr.octets()),
        IpAddr::V6(addr) => filter_place_v6(addr.octets().into()),
    }
}

/// An address in sixteen bytes as the records hold it: an IPv4 one in the first four.
pub fn addr_bytes(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V6(v6) => v6.octets(),
        IpAddr::V4(v4) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&v4.octets());
            bytes
        }
    }
}

const _: () = assert!(BLOCK == 16);
