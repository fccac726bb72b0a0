//! A director without a kernel: the core over plain memory, a clock that only we move, and `ipvsadm` in front of it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Result, bail};
use xlvs_core::conn::word::Tick;
use xlvs_core::director;
use xlvs_core::env::{Env, Route};
use xlvs_core::packet::Frame;
use xlvs_core::pressure::DropEntry;
use xlvs_core::server;
use xlvs_core::verdict::Verdict;
use xlvs_core::wire::ip_protocol;
use xlvs_datapath::conns;
use xlvs_datapath::engine::{ApplyError, Engine};
use xlvs_datapath::evict;
use xlvs_datapath::fragments::{self, Outgoing};
use xlvs_datapath::host::{Asked, HostEnv};
use xlvs_datapath::sweep::Sweeper;
use xlvs_datapath::tables::{Sizes, Tables};
use xlvs_ipvsadm::{Applet, Backend, Session, Stopped, System, Unreachable};
use xlvs_model::view::{ConnView, Info, ServiceView};
use xlvs_model::{Change, Family, MarkRule, ServiceKey, Timeouts, Tunable};

use super::wire;

/// Buckets of the connection table: as many as the kernel's has by default, so that listings begin alike.
const BUCKETS: u32 = 4096;

/// Pages of free memory: never short.
const AMPLE: u32 = u32::MAX;

/// Milliseconds of a tick.
const TICK_MS: u64 = 1000 / Tick::PER_SECOND as u64;
/// Seconds between two looks at the counters.
const ESTIMATES_S: u64 = 2;
/// Seconds between two looks into the trash.
const TRASH_S: u64 = 60;

/// The interface towards the clients.
pub const CLIENT_SIDE: u32 = 1;
/// The interface towards the servers.
pub const SERVER_SIDE: u32 = 2;

/// Tables for one case.
pub fn tables() -> Arc<Tables> {
    let sizes = Sizes {
        conns: BUCKETS,
        replies: BUCKETS,
        conns_v6: BUCKETS,
        affinity: 512,
        ..Sizes::for_site(1, 64, 1024, 1)
    };
    Arc::new(Tables::on_heap(sizes, 0x5eed))
}

/// What became of a frame.
#[derive(Debug)]
pub enum Fate {
    /// It was sent on.
    Sent(Vec<u8>),
    /// Its sender is told that nobody is there: by ICMP, or by the director's own stack.
    Refused,
    /// It is gone.
    Lost,
}

/// See the module.
pub struct Director<'t> {
    engine: Engine,
    env: HostEnv<'t>,
    drop_entry: DropEntry,
    ways: Rc<dyn Ways>,
    path_mtus: RefCell<BTreeMap<IpAddr, u16>>,
    ms: u64,
}

/// What a command printed and returned.
pub struct Printed {
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// Exit code.
    pub rc: i32,
}

/// How the director reaches others.
pub trait Ways {
    /// The way of its packets towards an address; none: it cannot be reached.
    fn towards(&self, destination: IpAddr) -> Option<Way>;

    /// Would the director send a packet with this mark on?
    fn leads_elsewhere(&self, _destination: IpAddr, _mark: u32) -> bool {
        false
    }
}

/// A way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// The address is the director's own.
    Local,
    /// To a neighbour, which may be a router.
    Via(Hop),
}

/// A neighbour, and how it is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hop {
    /// The interface.
    pub ifindex: u32,
    /// The director's MAC there.
    pub from: [u8; 6],
    /// The neighbour's MAC.
    pub to: [u8; 6],
    /// Largest packet, in bytes.
    pub mtu: u16,
    /// The director's address that it sends from.
    pub source: IpAddr,
}

/// The networks of the recorded cases: clients on the one side, all behind one MAC, and servers on the other.
struct OnLink;

impl Ways for OnLink {
    fn towards(&self, destination: IpAddr) -> Option<Way> {
        let mtu = 1500;
        Some(Way::Via(match server_number(destination) {
            Some(number) => Hop {
                ifindex: SERVER_SIDE,
                from: [2, 0, 0, 0, 1, 0xfe],
                to: wire::server_mac(number),
                mtu,
                source: source_towards(destination),
            },
            None => Hop {
                ifindex: CLIENT_SIDE,
                from: [2, 0, 0, 0, 0, 0xfe],
                to: [2, 0, 0, 0, 0, 1],
                mtu,
                source: source_towards(destination),
            },
        }))
    }
}

impl<'t> Director<'t> {
    /// A director over these tables, which are empty, with the networks of the recorded cases.
    pub fn new(tables: &'t Arc<Tables>) -> Self {
        Self::among(tables, Rc::new(OnLink))
    }

    /// A director over these tables, which are empty.
    pub fn among(tables: &'t Arc<Tables>, ways: Rc<dyn Ways>) -> Self {
        let env = HostEnv::new(tables, 0);
        let asked = Rc::clone(&ways);
        env.set_routes(move |query| route(&*asked, query));
        let asked = Rc::clone(&ways);
        env.set_elsewhere(move |destination, mark| asked.leads_elsewhere(destination, mark));
        let engine = Engine::new(Arc::clone(tables));
        engine.see_own(true);
        Self { engine, env, drop_entry: DropEntry::default(), ways, path_mtus: RefCell::default(), ms: 0 }
    }

    /// Random choices begin from this number.
    pub fn seed(&self, seed: u64) {
        self.env.set_random_seed(seed);
    }

    /// Runs an `ipvsadm` command line (without the command's name).
    pub fn ipvsadm(&mut self, words: &[&str]) -> Printed {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut session = Session {
            program: "ipvsadm",
            backend: self,
            names: &System::default(),
            stdin: &mut io::empty(),
            out: &mut out,
            err: &mut err,
        };
        let rc = session.run(Applet::Ipvsadm, words.iter().map(Into::into).collect());
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Printed { out: text(out), err: text(err), rc }
    }

    /// Sets one of the director's tunables.
    pub fn sysctl(&mut self, name: &str, value: u32) -> Result<()> {
        self.must(Change::Tune(name.parse()?, value))
    }

    /// Packets to this port, whatever their address, carry this mark.
    pub fn mark(&mut self, mark: u32, is_v6: bool, port: u16, udp: bool) -> Result<()> {
        let family = if is_v6 { Family::Inet6 } else { Family::Inet };
        let protocol = Some(if udp { ip_protocol::UDP } else { ip_protocol::TCP });
        let rule = MarkRule { mark, family, to: None, ports: (port, port), protocol };
        self.must(Change::AddMark(rule))
    }

    fn must(&mut self, change: Change) -> Result<()> {
        match self.apply(&[change]) {
            Ok(()) => Ok(()),
            Err(Stopped::Refused { why, .. }) => bail!("{why}"),
            Err(Stopped::Broken(why)) => Err(why.into()),
        }
    }

    /// A frame comes in by this interface: the verdict, and its bytes afterwards.
    pub fn forward(&self, ingress: u32, frame: &[u8]) -> (Verdict, Vec<u8>) {
        self.decide(ingress, frame, 0, |packet, env| director::balance(packet, env))
    }

    /// The director's own stack sends a frame by this interface: it, as it leaves.
    pub fn see_off(&self, ifindex: u32, frame: Vec<u8>) -> Vec<u8> {
        self.decide(ifindex, &frame, 0, |packet, env| director::see_off(packet, env)).1
    }

    /// What a stage says of a frame that was put together from fragments of which the largest was so long (0: it came whole).
    fn decide(
        &self,
        ingress: u32,
        frame: &[u8],
        largest: u16,
        stage: impl Fn(&mut Frame<'_>, &HostEnv<'t>) -> Verdict,
    ) -> (Verdict, Vec<u8>) {
        let mut buffer = vec![0; Frame::HEADROOM];
        buffer.extend(frame);
        let mut packet = Frame::new(&mut buffer, Frame::HEADROOM).put_together_from(largest);
        self.env.set_ingress(ingress);
        let verdict = stage(&mut packet, &self.env);
        self.learn_path_mtus();
        (verdict, packet.bytes().to_vec())
    }

    /// In pieces of how many bytes the latest packet leaves that is to be cut.
    pub fn cut_to(&self) -> u16 {
        self.env.cut_to.get()
    }

    fn fate(&self, (verdict, frame): (Verdict, Vec<u8>), largest: u16) -> fragments::Fate {
        match verdict {
            Verdict::Transmit { ifindex } | Verdict::Redirect { ifindex } | Verdict::Answer { ifindex } => {
                fragments::Fate::Leaves(Outgoing { ifindex, frame })
            }
            Verdict::Cut { ifindex } => {
                fragments::Fate::LeavesInPieces(Outgoing { ifindex, frame }, self.cut_to())
            }
            Verdict::Pass(_) => fragments::Fate::Passes,
            Verdict::Local { .. } => fragments::Fate::PassesRewritten(frame, largest),
            Verdict::Drop(_) | Verdict::PutTogether { .. } => fragments::Fate::Dropped,
        }
    }

    fn learn_path_mtus(&self) {
        let learned = self.env.path_mtus.take();
        if !learned.is_empty() {
            self.path_mtus.borrow_mut().extend(learned);
            self.resolve();
        }
    }

    /// The same, as clients and servers see it.
    pub fn receive(&self, ingress: u32, frame: &[u8]) -> Fate {
        let (verdict, bytes) = self.forward(ingress, frame);
        match verdict {
            // No packet of the cases is longer than its way takes.
            Verdict::Transmit { .. } | Verdict::Redirect { .. } | Verdict::Cut { .. } => Fate::Sent(bytes),
            Verdict::Answer { .. } | Verdict::Pass(_) | Verdict::Local { .. } => Fate::Refused,
            Verdict::Drop(_) | Verdict::PutTogether { .. } => Fate::Lost,
        }
    }

    /// Time goes by.
    pub fn pass(&mut self, ms: u64) {
        let end = self.ms + ms;
        while self.ms < end {
            let tick = self.ms / TICK_MS;
            self.ms = end.min((tick + 1) * TICK_MS);
            self.env.set_now((self.ms / TICK_MS) as u32);
            if self.ms / TICK_MS != tick {
                // The kernel's timers go off by themselves, so what has expired is gone.
                Sweeper::default().slice(self.env.tables(), self.env.now(), usize::MAX / 2, &self.env);
                if self.ms.is_multiple_of(1000) {
                    self.second_has_passed();
                }
            }
        }
    }

    fn second_has_passed(&mut self) {
        let second = self.ms / 1000;
        if self.engine.defend(AMPLE) {
            let random = || self.env.random();
            evict::drop_entries(self.env.tables(), &mut self.drop_entry, self.env.now(), random, &self.env);
        }
        if second.is_multiple_of(ESTIMATES_S) {
            self.engine.estimate();
        }
        if second.is_multiple_of(TRASH_S)
            && let Err(why) = self.engine.empty_trash(second)
        {
            tracing::error!(%why, "without a journal this cannot be");
        }
    }

    /// Asks for all servers' next hops again: the ways may have changed.
    pub fn resolve(&self) {
        for destination in self.engine.destinations() {
            match self.ways.towards(destination.addr) {
                Some(Way::Via(hop)) => {
                    let learned = self.path_mtus.borrow().get(&destination.addr).copied();
                    let mtu = learned.map_or(hop.mtu, |mtu| mtu.min(hop.mtu));
                    let next = server::Hop { to: hop.to, from: hop.from, ifindex: hop.ifindex, mtu };
                    self.engine.resolve(destination.id, &next, hop.source);
                }
                Some(Way::Local) => self.engine.unresolve(destination.id, true),
                None => self.engine.unresolve(destination.id, false),
            }
        }
    }
}

/// What the kernel's look-up says of a packet that is forwarded.
fn route(ways: &dyn Ways, asked: &Asked) -> Route {
    match ways.towards(asked.dst) {
        Some(Way::Via(hop)) if asked.len > hop.mtu => Route::TooBig { mtu: hop.mtu },
        Some(Way::Via(hop)) => Route::Via { ifindex: hop.ifindex, from: hop.from, to: hop.to },
        Some(Way::Local) | None => Route::None,
    }
}

/// The number of a server of the recorded cases: 10.1.0.(10 + n) or fd01::(10 + n), the latter in hexadecimal.
fn server_number(addr: IpAddr) -> Option<u8> {
    match addr {
        IpAddr::V4(v4) => {
            let [10, 1, 0, host] = v4.octets() else { return None };
            host.checked_sub(10)
        }
        IpAddr::V6(v6) if v6.segments()[0] == 0xfd01 => v6.octets()[15].checked_sub(0x10),
        IpAddr::V6(_) => None,
    }
}

fn source_towards(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(_) => IpAddr::from([10, 1, 0, 254]),
        IpAddr::V6(_) => IpAddr::from([0xfd01, 0, 0, 0, 0, 0, 0, 0xfe]),
    }
}

impl fragments::Director for Director<'_> {
    fn decide(&self, ifindex: u32, frame: &[u8], largest: u16) -> fragments::Fate {
        let decided = Director::decide(self, ifindex, frame, largest, |packet, env| {
            director::balance_whole(packet, env)
        });
        self.fate(decided, largest)
    }

    fn decide_incomplete(&self, ifindex: u32, first: &[u8]) -> fragments::Fate {
        let decided =
            Director::decide(self, ifindex, first, u16::MAX, |packet, env| director::fragments(packet, env));
        self.fate(decided, u16::MAX)
    }
}

impl Backend for Director<'_> {
    fn open(&mut self) -> Result<(), Unreachable> {
        Ok(())
    }

    fn apply(&mut self, changes: &[Change]) -> Result<(), Stopped> {
        let applied = self.engine.apply(changes);
        self.resolve();
        self.engine.defend(AMPLE);
        if self.engine.model().tunables().is_on(Tunable::ExpireNodestConn) {
            let slots = 0..self.env.tables().slots();
            evict::drop_of_removed_servers(self.env.tables(), slots, &self.env);
        }
        applied.map_err(|why| match why {
            ApplyError::Refused(at, why) => Stopped::Refused { at, why },
            ApplyError::Journal(why) => io::Error::other(why.to_string()).into(),
        })
    }

    fn services(&mut self, only: Option<&ServiceKey>) -> io::Result<Vec<ServiceView>> {
        Ok(self.engine.services(only))
    }

    fn connections(&mut self, each: &mut dyn FnMut(&ConnView) -> io::Result<()>) -> io::Result<()> {
        let tables = self.env.tables();
        let slots = 0..tables.slots();
        let mut shown = Ok(());
        conns::each_in(tables, self.env.now(), slots, |conn| {
            if shown.is_ok() {
                shown = each(&conn);
            }
        });
        shown
    }

    fn timeouts(&mut self) -> io::Result<Timeouts> {
        Ok(self.engine.model().timeouts())
    }

    fn info(&mut self) -> io::Result<Info> {
        Ok(Info { table_size: BUCKETS, daemons: self.engine.model().daemons().to_vec() })
    }
}
