//! What would become of a packet now: the core itself, run over copies of the tables' records, so that nothing changes.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use xlvs_core::config::Config;
use xlvs_core::conn::Bucket;
use xlvs_core::conn::entry::Entry;
use xlvs_core::conn::key::{self, Kind};
use xlvs_core::conn::table::{self, Memory, Probe};
use xlvs_core::conn::word::{Tick, Word};
use xlvs_core::director;
use xlvs_core::env::{Env, Route, RouteQuery, Step};
use xlvs_core::family::{self, Ends, Family};
use xlvs_core::marks::Rule;
use xlvs_core::method::BYPASS;
use xlvs_core::options::Progress;
use xlvs_core::packet::Frame;
use xlvs_core::sched::affinity::{self, Set};
use xlvs_core::sched::choices::Choices;
use xlvs_core::sched::{self, Choice, Question};
use xlvs_core::server::Server;
use xlvs_core::service::{Block, Service};
use xlvs_core::stats::{Counters, Stats};
use xlvs_core::verdict::Verdict;
use xlvs_core::vlan::{Arrival, Device};
use xlvs_core::wire::AddrV6;
use xlvs_model::view::ConnView;

use crate::conns::{self, Held};
use crate::overlay::Overlay;
use crate::tables::Tables;

/// A packet's client, its destination and its transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Where it comes from.
    pub client: SocketAddr,
    /// Where it goes to.
    pub dest: SocketAddr,
    /// IP protocol number.
    pub protocol: u8,
}

/// What became of a packet.
#[derive(Debug)]
pub struct Outcome {
    /// Its fate.
    pub verdict: Verdict,
    /// Its bytes afterwards.
    pub frame: Vec<u8>,
    /// What a scheduler was asked, if one was.
    pub asked: Option<Asked>,
    /// Its connection afterwards.
    pub connection: Option<Connection>,
    /// The host's routing table has the last word on where it goes: it is a reply, or has no server.
    pub routed: bool,
}

impl Outcome {
    /// Is it of a connection that has no server (`cache_bypass`)?
    pub fn is_bypassed(&self) -> bool {
        let nobody = || self.routed && self.asked.is_some_and(|asked| asked.chosen.is_none());
        self.connection.as_ref().map_or_else(nobody, |connection| connection.method == BYPASS)
    }
}

/// The host's routes, as far as packets that are rehearsed ask for them.
pub trait Routes {
    /// The way of a packet between these addresses that came in by this interface.
    fn route(&self, ifindex: u32, from: IpAddr, to: IpAddr) -> Route;
    /// Would such a packet with this mark be sent on, rather than be the director's?
    fn leads_elsewhere(&self, ifindex: u32, from: IpAddr, to: IpAddr, mark: u32) -> bool;
}

/// No routes: all replies go back by one interface, and whatever is addressed to anybody is the director's.
struct OneWay {
    ifindex: u32,
}

impl Routes for OneWay {
    fn route(&self, _ifindex: u32, _from: IpAddr, _to: IpAddr) -> Route {
        Route::Via { ifindex: self.ifindex, from: [0; 6], to: [0; 6] }
    }

    fn leads_elsewhere(&self, _ifindex: u32, _from: IpAddr, _to: IpAddr, _mark: u32) -> bool {
        false
    }
}

/// A question to a scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The service's number.
    pub service: u32,
    /// The number of the server that was chosen, if any was usable.
    pub chosen: Option<u32>,
}

/// A connection and the number of its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// As listings show it.
    pub view: ConnView,
    /// The server's number.
    pub server: u32,
    /// How its packets are forwarded.
    pub method: u8,
}

/// A stage on which packets can be tried.
pub struct Rehearsal<'t> {
    tables: &'t Tables,
    now: Tick,
    ingress: u32,
    conns_v4: Overlay<'t, Bucket<2>>,
    replies_v4: Overlay<'t, Bucket<2>>,
    services_v4: Overlay<'t, Bucket<2>>,
    conns_v6: Overlay<'t, Bucket<5>>,
    replies_v6: Overlay<'t, Bucket<5>>,
    services_v6: Overlay<'t, Bucket<5>>,
    affinity: Overlay<'t, Bucket<{ affinity::KEY }>>,
    sets: Overlay<'t, Set>,
    choices: Overlay<'t, Choices>,
    config: Overlay<'t, Config>,
    services: Overlay<'t, Service>,
    blocks: Overlay<'t, Block>,
    servers: Overlay<'t, Server>,
    stats: Overlay<'t, Stats>,
    counters: Overlay<'t, Counters>,
    random: Cell<u64>,
    options_progress: Progress,
    arrival: Arrival,
    routes: Rc<dyn Routes>,
    asked: Cell<Option<Asked>>,
    routed: Cell<bool>,
}

impl<'t> Rehearsal<'t> {
    /// The tables as they are now. Packets come in by this interface; chance begins at `seed`. There are no routes.
    pub fn of(tables: &'t Tables, now: Tick, ingress: u32, seed: u64) -> Self {
        Self::by(Rc::new(OneWay { ifindex: ingress }), tables, now, ingress, seed)
    }

    /// The same with routes.
    pub fn by(routes: Rc<dyn Routes>, tables: &'t Tables, now: Tick, ingress: u32, seed: u64) -> Self {
        Self {
            tables,
            now,
            ingress,
            conns_v4: Overlay::over(&tables.conns_v4),
            replies_v4: Overlay::over(&tables.replies_v4),
            services_v4: Overlay::over(&tables.services_v4),
            conns_v6: Overlay::over(&tables.conns_v6),
            replies_v6: Overlay::over(&tables.replies_v6),
            services_v6: Overlay::over(&tables.services_v6),
            affinity: Overlay::over(&tables.affinity),
            sets: Overlay::over(&tables.sets),
            choices: Overlay::over(&tables.choices),
            config: Overlay::over(&tables.config),
            services: Overlay::over(&tables.services),
            blocks: Overlay::over(&tables.blocks),
            servers: Overlay::over(&tables.servers),
            stats: Overlay::over(&tables.stats),
            counters: Overlay::over(&tables.counters),
            random: Cell::new(seed | 1),
            options_progress: Progress::default(),
            arrival: Arrival::default(),
            routes,
            asked: Cell::new(None),
            routed: Cell::new(false),
        }
    }

    /// The connection that a packet of this tuple belongs to, unless it has expired.
    pub fn connection(&self, tuple: &Tuple) -> Option<Connection> {
        let (from_port, to_port) = (tuple.client.port().to_be_bytes(), tuple.dest.port().to_be_bytes());
        let protocol = tuple.protocol;
        let (word, entry) = match (tuple.client.ip(), tuple.dest.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let ends = Ends { from: from.octets(), from_port, to: to.octets(), to_port, protocol };
                self.find::<family::V4, _, { key::V4 }>(&self.conns_v4, &ends)?
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let (from, to) = (from.octets().into(), to.octets().into());
                let ends = Ends { from, from_port, to, to_port, protocol };
                self.find::<family::V6, _, { key::V6 }>(&self.conns_v6, &ends)?
            }
            _ => return None,
        };
        let ends = Ends { from: tuple.client.ip(), from_port, to: tuple.dest.ip(), to_port, protocol };
        let held = Held { word, ends, entry, controls: false };
        let view = conns::view(self.tables, self.now, word, &held)?;
        Some(Connection { view, server: entry.server(), method: entry.method() })
    }

    fn route(&self, ifindex: u32, from: IpAddr, to: IpAddr) -> Route {
        self.routed.set(true);
        self.routes.route(ifindex, from, to)
    }

    fn find<F, M, const K: usize>(&self, memory: &M, ends: &Ends<F::Addr>) -> Option<(Word, Entry)>
    where
        F: Family<K>,
        M: Memory<K>,
    {
        let probe = Probe::new(F::key(ends, Kind::Conn), self.config()?.seed.load(), memory.buckets());
        let found = table::find(memory, &probe)?;
        Some((found.word, Entry(found.body.entry.load())))
    }

    /// Runs the director on a frame. What it writes stays here.
    pub fn play(&self, frame: &[u8], tuple: &Tuple) -> Outcome {
        let mut buffer = vec![0; Frame::HEADROOM];
        buffer.extend(frame);
        let mut packet = Frame::new(&mut buffer, Frame::HEADROOM);
        let verdict = director::balance(&mut packet, self);
        Outcome {
            verdict,
            frame: packet.bytes().to_vec(),
            asked: self.asked.get(),
            connection: self.connection(tuple),
            routed: self.routed.get(),
        }
    }
}

impl<'t> Env for Rehearsal<'t> {
    type ConnsV4 = Overlay<'t, Bucket<2>>;
    type RepliesV4 = Overlay<'t, Bucket<2>>;
    type ServicesV4 = Overlay<'t, Bucket<2>>;
    type ConnsV6 = Overlay<'t, Bucket<5>>;
    type RepliesV6 = Overlay<'t, Bucket<5>>;
    type ServicesV6 = Overlay<'t, Bucket<5>>;
    type Affinity = Overlay<'t, Bucket<{ affinity::KEY }>>;

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
        self.sets.get(slot as usize)
    }

    fn choose(&self, question: &Question) -> Choice {
        let choice = sched::choose(self, question);
        self.asked.set(Some(Asked { service: question.service, chosen: choice.server() }));
        choice
    }

    fn choices(&self, line: u32) -> Option<&Choices> {
        self.choices.get(line as usize)
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
        self.config.get(0)
    }

    fn service(&self, id: u32) -> Option<&Service> {
        self.services.get(id as usize)
    }

    fn block(&self, id: u32) -> Option<&Block> {
        self.blocks.get(id as usize)
    }

    fn server(&self, id: u32) -> Option<&Server> {
        self.servers.get(id as usize)
    }

    fn stats(&self, id: u32) -> Option<&Stats> {
        self.stats.get(id as usize)
    }

    fn counters(&self) -> Option<&Counters> {
        self.counters.get(0)
    }

    fn now(&self) -> Tick {
        self.now
    }

    fn ingress(&self) -> u32 {
        self.ingress
    }

    fn random(&self) -> u32 {
        // xorshift64*, Marsaglia's.
        let mut x = self.random.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random.set(x);
        (x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    fn route_v4(&self, query: &RouteQuery<[u8; 4]>) -> Route {
        self.route(query.ifindex, query.src.into(), query.dst.into())
    }

    fn route_v6(&self, query: &RouteQuery<AddrV6>) -> Route {
        self.route(query.ifindex, query.src.bytes().into(), query.dst.bytes().into())
    }

    fn leads_elsewhere_v4(&self, ifindex: u32, src: &[u8; 4], dst: &[u8; 4], mark: u32) -> bool {
        self.routes.leads_elsewhere(ifindex, (*src).into(), (*dst).into(), mark)
    }

    fn leads_elsewhere_v6(&self, ifindex: u32, src: &AddrV6, dst: &AddrV6, mark: u32) -> bool {
        self.routes.leads_elsewhere(ifindex, src.bytes().into(), dst.bytes().into(), mark)
    }

    fn want_neighbour_v4(&self, _addr: [u8; 4]) {}

    fn want_neighbour_v6(&self, _addr: AddrV6) {}

    fn learned_path_mtu(&self, _server: AddrV6, _mtu: u16) {}

    fn cut_to(&self, _bytes: u16) {}

    fn repeat<S: Step>(&self, n: u32, step: &mut S) {
        for i in 0..n {
            if !step.turn(i) {
                break;
            }
        }
    }
}
