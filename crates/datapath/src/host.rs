//! The data plane on the host: the same core over plain memory, with a clock that the caller moves.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv6Addr};

use xlvs_core::config::Config;
use xlvs_core::conn::word::Tick;
use xlvs_core::env::{Env, Route, RouteQuery, Step};
use xlvs_core::expire;
use xlvs_core::marks::Rule;
use xlvs_core::options::Progress;
use xlvs_core::sched::affinity::{self, Set};
use xlvs_core::sched::choices::Choices;
use xlvs_core::server::Server;
use xlvs_core::service::{Block, Service};
use xlvs_core::stats::{Counters, Stats};
use xlvs_core::vlan::{Arrival, Device};
use xlvs_core::ways::{self, Way};
use xlvs_core::wire::AddrV6;

use crate::evict::{Doomed, Evictor};
use crate::sweep::Remover;
use crate::tables::{Buckets, Tables};

/// What the routing table is asked, of either family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    /// The interface by which the packet came in.
    pub ifindex: u32,
    /// Source of the packet.
    pub src: IpAddr,
    /// Its destination.
    pub dst: IpAddr,
    /// Its length in bytes.
    pub len: u16,
}

type Routes<'t> = Box<dyn Fn(&Asked) -> Route + 't>;
type Elsewhere<'t> = Box<dyn Fn(IpAddr, u32) -> bool + 't>;

/// The surroundings of packets on one (imagined) processor of a host.
pub struct HostEnv<'t> {
    tables: &'t Tables,
    conns_v4: Buckets<'t, 2>,
    replies_v4: Buckets<'t, 2>,
    services_v4: Buckets<'t, 2>,
    conns_v6: Buckets<'t, 5>,
    replies_v6: Buckets<'t, 5>,
    services_v6: Buckets<'t, 5>,
    affinity: Buckets<'t, { affinity::KEY }>,
    cpu: usize,
    now: Cell<u32>,
    ingress: Cell<u32>,
    random: Cell<u64>,
    options_progress: Progress,
    arrival: Arrival,
    ways: Vec<Way>,
    routes: RefCell<Routes<'t>>,
    elsewhere: RefCell<Elsewhere<'t>>,
    /// Addresses whose neighbours were asked for.
    pub wanted: RefCell<Vec<IpAddr>>,
    /// In pieces of how many bytes the latest packet leaves that is to be cut.
    pub cut_to: Cell<u16>,
    /// What the ways to servers have turned out to take.
    pub path_mtus: RefCell<Vec<(IpAddr, u16)>>,
}

impl<'t> HostEnv<'t> {
    /// A processor of a host with these tables, at tick 0.
    pub fn new(tables: &'t Tables, cpu: usize) -> Self {
        Self {
            tables,
            conns_v4: Buckets(&tables.conns_v4),
            replies_v4: Buckets(&tables.replies_v4),
            services_v4: Buckets(&tables.services_v4),
            conns_v6: Buckets(&tables.conns_v6),
            replies_v6: Buckets(&tables.replies_v6),
            services_v6: Buckets(&tables.services_v6),
            affinity: Buckets(&tables.affinity),
            cpu,
            now: Cell::new(0),
            ingress: Cell::new(1),
            random: Cell::new(0x9e37_79b9_7f4a_7c15),
            options_progress: Progress::default(),
            arrival: Arrival::default(),
            ways: (0..ways::MOST).map(|_| Way::default()).collect(),
            routes: RefCell::new(Box::new(|_| Route::None)),
            elsewhere: RefCell::new(Box::new(|_, _| false)),
            wanted: RefCell::default(),
            cut_to: Cell::new(0),
            path_mtus: RefCell::default(),
        }
    }

    /// Moves the clock to this many quarter seconds.
    pub fn set_now(&self, tick: u32) {
        self.now.set(tick);
    }

    /// Says by which interface the next packets come in.
    pub fn set_ingress(&self, ifindex: u32) {
        self.ingress.set(ifindex);
    }

    /// From now on there is one way for all packets.
    pub fn set_route(&self, route: Route) {
        self.set_routes(move |_| route);
    }

    /// From now on this is the routing table: what [`Env::route_v4`] and [`Env::route_v6`] say. Without one there is no way.
    pub fn set_routes(&self, routes: impl Fn(&Asked) -> Route + 't) {
        *self.routes.borrow_mut() = Box::new(routes);
    }

    /// From now on this says which packets, by destination and mark, the host's own routes would send on. Until then: none.
    pub fn set_elsewhere(&self, elsewhere: impl Fn(IpAddr, u32) -> bool + 't) {
        *self.elsewhere.borrow_mut() = Box::new(elsewhere);
    }

    /// Starts the random numbers anew.
    pub fn set_random_seed(&self, seed: u64) {
        self.random.set(seed | 1);
    }

    /// The tables.
    pub fn tables(&self) -> &'t Tables {
        self.tables
    }
}

impl<'t> Env for HostEnv<'t> {
    type ConnsV4 = Buckets<'t, 2>;
    type RepliesV4 = Buckets<'t, 2>;
    type ServicesV4 = Buckets<'t, 2>;
    type ConnsV6 = Buckets<'t, 5>;
    type RepliesV6 = Buckets<'t, 5>;
    type ServicesV6 = Buckets<'t, 5>;
    type Affinity = Buckets<'t, { affinity::KEY }>;

    fn conns_v4(&self) -> &Self::ConnsV4 {
        &self.conns_v4
    }

    fn replies_v4(&self) -> &Self::RepliesV4 {
        &self.replies_v4
    }

    fn services_v4(&self) -> &Self::ServicesV4 {
        &self.services_v4
    }

    fn conns_v6(&self) -> &Self::ConnsV6 {
        &self.conns_v6
    }

    fn replies_v6(&self) -> &Self::RepliesV6 {
        &self.replies_v6
    }

    fn services_v6(&self) -> &Self::ServicesV6 {
        &self.services_v6
    }

    fn affinity(&self) -> &Self::Affinity {
        &self.affinity
    }

    fn options_progress(&self) -> Option<&Progress> {
        Some(&self.options_progress)
    }

    fn set(&self, slot: u32) -> Option<&Set> {
        self.tables.sets.get(slot as usize)
    }

    fn choices(&self, line: u32) -> Option<&Choices> {
        self.tables.choices.get(line as usize)
    }

    fn mark_rule(&self, number: u32) -> Option<&Rule> {
        self.tables.marks.get(number as usize)
    }

    fn vlan_device(&self, number: u32) -> Option<&Device> {
        self.tables.vlan_devices.get(number as usize)
    }

    fn arrival(&self) -> Option<&Arrival> {
        Some(&self.arrival)
    }

    fn config(&self) -> Option<&Config> {
        self.tables.config.first()
    }

    fn service(&self, id: u32) -> Option<&Service> {
        self.tables.services.get(id as usize)
    }

    fn block(&self, id: u32) -> Option<&Block> {
        self.tables.blocks.get(id as usize)
    }

    fn server(&self, id: u32) -> Option<&Server> {
        self.tables.servers.get(id as usize)
    }

    fn stats(&self, id: u32) -> Option<&Stats> {
        self.tables.stats.get(self.cpu * self.tables.sizes.stats as usize + id as usize)
    }

    fn counters(&self) -> Option<&Counters> {
        self.tables.counters.get(self.cpu)
    }

    fn now(&self) -> Tick {
        Tick::new(self.now.get())
    }

    fn ingress(&self) -> u32 {
        self.ingress.get()
    }

    fn random(&self) -> u32 {
        // xorshift64*, Marsaglia's: enough for choices that tests only look at in bulk.
        let mut x = self.random.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random.set(x);
        (x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    fn route_v4(&self, query: &RouteQuery<[u8; 4]>) -> Route {
        let (src, dst) = (query.src.into(), query.dst.into());
        (self.routes.borrow())(&Asked { ifindex: query.ifindex, src, dst, len: query.len })
    }

    fn way(&self, place: u32) -> Option<&Way> {
        self.ways.get(place as usize)
    }

    fn route_v6(&self, query: &RouteQuery<AddrV6>) -> Route {
        let (src, dst) = (query.src.bytes().into(), query.dst.bytes().into());
        (self.routes.borrow())(&Asked { ifindex: query.ifindex, src, dst, len: query.len })
    }

    fn leads_elsewhere_v4(&self, _ifindex: u32, _src: &[u8; 4], dst: &[u8; 4], mark: u32) -> bool {
        (self.elsewhere.borrow())((*dst).into(), mark)
    }

    fn leads_elsewhere_v6(&self, _ifindex: u32, _src: &AddrV6, dst: &AddrV6, mark: u32) -> bool {
        (self.elsewhere.borrow())(dst.bytes().into(), mark)
    }

    fn want_neighbour_v4(&self, addr: [u8; 4]) {
        self.wanted.borrow_mut().push(IpAddr::from(addr));
    }

    fn want_neighbour_v6(&self, addr: AddrV6) {
        self.wanted.borrow_mut().push(IpAddr::from(addr.bytes()));
    }

    fn learned_path_mtu(&self, server: AddrV6, mtu: u16) {
        self.path_mtus.borrow_mut().push((Ipv6Addr::from(server.bytes()).to_canonical(), mtu));
    }

    fn cut_to(&self, bytes: u16) {
        self.cut_to.set(bytes);
    }

    fn repeat<S: Step>(&self, n: u32, step: &mut S) {
        for i in 0..n {
            if !step.turn(i) {
                break;
            }
        }
    }
}

impl Remover for HostEnv<'_> {
    fn remove_expired(&self, slots: &[u32]) -> usize {
        let (config, now) = (self.tables.config(), self.now());
        slots.iter().filter(|slot| expire::sweep_numbered(self, config, **slot, now)).count()
    }
}

impl Evictor for HostEnv<'_> {
    fn evict(&self, doomed: &[Doomed]) -> usize {
        let config = self.tables.config();
        doomed.iter().filter(|(slot, seen)| expire::evict_numbered(self, config, *slot, *seen)).count()
    }
}
