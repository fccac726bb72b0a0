//! Scheduling: which server gets a new connection.
//!
//! Packets call [`pick`]. An operator's changes reach the schedulers by [`start`] and [`refresh`], and by the tables that
//! [`fill`] makes for those that choose by one.
//!
//! | scheduler | chooses by |
//! |---|---|
//! | [`rr`], [`wrr`] | turns, in a list |
//! | [`wlc`], [`lc`], [`sed`], [`nq`] | connections, weighted or not |
//! | [`fo`], [`ovf`] | the largest weight |
//! | [`sh`], [`mh`] | the client |
//! | [`dh`], [`lblc`], [`lblcr`] | the destination |
//! | [`twos`] | chance |

pub mod affinity;
pub mod choices;
pub mod dh;
pub mod fo;
pub mod heaviest;
pub mod lblc;
pub mod lblcr;
pub mod lc;
pub mod least;
pub mod mh;
pub mod nq;
pub mod ovf;
pub mod rr;
pub mod sed;
pub mod sh;
pub mod twos;
pub mod walk;
pub mod weights;
pub mod wlc;
pub mod wrr;

use crate::env::Env;
use crate::service::{Service, flag};
use crate::wire::AddrV6;

use choices::Listed;

/// A scheduler, named as LVS names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Scheduler {
    /// Weighted least connection, the default.
    Wlc = 0,
    /// Round robin.
    Rr = 1,
    /// Weighted round robin.
    Wrr = 2,
    /// Least connection.
    Lc = 3,
    /// Locality-based least connection.
    Lblc = 4,
    /// The same with replication.
    Lblcr = 5,
    /// Destination hashing.
    Dh = 6,
    /// Source hashing.
    Sh = 7,
    /// Shortest expected delay.
    Sed = 8,
    /// Never queue.
    Nq = 9,
    /// Weighted failover.
    Fo = 10,
    /// Weighted overflow.
    Ovf = 11,
    /// Maglev hashing.
    Mh = 12,
    /// Power of two choices.
    Twos = 13,
    /// The service has no scheduler (`-s none`): every new connection finds no server.
    None = 14,
}

impl Scheduler {
    /// All that an operator can name, in the order of the documents.
    pub const ALL: [Self; 14] = [
        Self::Rr,
        Self::Wrr,
        Self::Lc,
        Self::Wlc,
        Self::Lblc,
        Self::Lblcr,
        Self::Dh,
        Self::Sh,
        Self::Sed,
        Self::Nq,
        Self::Fo,
        Self::Ovf,
        Self::Mh,
        Self::Twos,
    ];

    /// LVS's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Wrr => "wrr",
            Self::Lc => "lc",
            Self::Wlc => "wlc",
            Self::Lblc => "lblc",
            Self::Lblcr => "lblcr",
            Self::Dh => "dh",
            Self::Sh => "sh",
            Self::Sed => "sed",
            Self::Nq => "nq",
            Self::Fo => "fo",
            Self::Ovf => "ovf",
            Self::Mh => "mh",
            Self::Twos => "twos",
            Self::None => "none",
        }
    }

    /// The scheduler of this number.
    #[inline(always)]
    pub const fn from_u8(n: u8) -> Option<Self> {
        match n {
            0 => Some(Self::Wlc),
            1 => Some(Self::Rr),
            2 => Some(Self::Wrr),
            3 => Some(Self::Lc),
            4 => Some(Self::Lblc),
            5 => Some(Self::Lblcr),
            6 => Some(Self::Dh),
            7 => Some(Self::Sh),
            8 => Some(Self::Sed),
            9 => Some(Self::Nq),
            10 => Some(Self::Fo),
            11 => Some(Self::Ovf),
            12 => Some(Self::Mh),
            13 => Some(Self::Twos),
            14 => Some(Self::None),
            _ => None,
        }
    }

    /// The scheduler of this name (`none` included).
    pub fn from_name(name: &str) -> Option<Self> {
        if name == "none" {
            return Some(Self::None);
        }
        Self::ALL.into_iter().find(|s| s.name() == name)
    }
}

/// What a scheduler may look at besides the servers.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// The service's id.
    pub service: u32,
    /// The client's address, folded to 32 bits ([`AddrV6::folded`]), host order.
    pub client: u32,
    /// The client's port, host order.
    pub client_port: u16,
    /// The packet's destination address, folded to 32 bits, host order.
    pub dest: u32,
    /// The packet's destination address as it is on the wire, filled up with zeros.
    pub dest_words: [u64; 2],
}

impl Question {
    /// Asks for the server of an IPv4 packet's connection. Addresses and port as on the wire.
    #[inline(always)]
    pub const fn v4(service: u32, client: [u8; 4], client_port: [u8; 2], dest: [u8; 4]) -> Self {
        Self {
            service,
            client: u32::from_be_bytes(client),
            client_port: u16::from_be_bytes(client_port),
            dest: u32::from_be_bytes(dest),
            dest_words: [u32::from_ne_bytes(dest) as u64, 0],
        }
    }

    /// The same for IPv6.
    #[inline(always)]
    pub const fn v6(service: u32, client: AddrV6, client_port: [u8; 2], dest: AddrV6) -> Self {
        Self {
            service,
            client: client.folded(),
            client_port: u16::from_be_bytes(client_port),
            dest: dest.folded(),
            dest_words: dest.0,
        }
    }
}

impl Question {
    /// The client as sh and mh hash it: its address and, if the service wants that, its port.
    #[inline(always)]
    fn client_as_hashed(&self, service: &Service) -> u32 {
        let port = if service.has(flag::PORT) { self.client_port as u32 } else { 0 };
        self.client.wrapping_add(port)
    }
}

/// The server for a new connection; `None` when no server is usable.
#[inline(always)]
pub fn pick<E: Env>(env: &E, question: &Question) -> Option<u32> {
    let choice = env.choose(question);
    let server = choice.server()?;
    if choice.is_to_be_remembered() {
        env.remember(question, server);
    }
    Some(server)
}

/// A scheduler's choice, in a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice(pub u64);

impl Choice {
    const NOBODY: Self = Self(u64::MAX);
    const REMEMBER: u64 = 1 << 32;

    #[inline(always)]
    fn of(server: Option<u32>) -> Self {
        match server {
            Some(server) => Self(server as u64),
            None => Self::NOBODY,
        }
    }

    /// The same, and the destination's cache has no entry for it yet.
    #[inline(always)]
    fn to_be_remembered(self) -> Self {
        Self(self.0 | Self::REMEMBER)
    }

    #[inline(always)]
    fn is_to_be_remembered(self) -> bool {
        self.0 & Self::REMEMBER != 0
    }

    /// The number of the chosen server.
    #[inline(always)]
    pub fn server(self) -> Option<u32> {
        (self.0 != Self::NOBODY.0).then_some(self.0 as u32)
    }
}

/// Is this service one of wlc, as most are?
#[inline(always)]
pub fn is_by_wlc<E: Env>(env: &E, service: u32) -> bool {
    env.service(service).is_some_and(|service| service.scheduler() == Some(Scheduler::Wlc))
}

/// The first half of [`pick`].
#[inline(always)]
pub fn choose<E: Env>(env: &E, question: &Question) -> Choice {
    let Some(service) = env.service(question.service) else { return Choice::NOBODY };
    Choice::of(match service.scheduler() {
        Some(Scheduler::Wlc) => wlc::pick(env, service),
        Some(Scheduler::Rr) => rr::pick(env, service),
        Some(Scheduler::Wrr) => wrr::pick(env, service),
        Some(Scheduler::Lc) => lc::pick(env, service),
        Some(Scheduler::Lblc) => return lblc::choose(env, service, question),
        Some(Scheduler::Lblcr) => return lblcr::choose(env, service, question),
        Some(Scheduler::Dh) => dh::pick(env, service, question),
        Some(Scheduler::Sh) => sh::pick(env, service, question),
        Some(Scheduler::Sed) => sed::pick(env, service),
        Some(Scheduler::Nq) => nq::pick(env, service),
        Some(Scheduler::Fo) => fo::pick(env, service),
        Some(Scheduler::Ovf) => ovf::pick(env, service),
        Some(Scheduler::Mh) => mh::pick(env, service, question),
        Some(Scheduler::Twos) => twos::pick(env, service),
        Some(Scheduler::None) | None => None,
    })
}

/// The second half of [`pick`]: lblc and lblcr remember the server of a destination that is new to them.
#[inline(always)]
pub fn remember<E: Env>(env: &E, question: &Question, server: u32) {
    affinity::remember(env, question, server);
}

/// May a service of this scheduler have so many servers? (mh: no more than its table has slots, as in the kernel.)
pub const fn accepts(scheduler: Scheduler, servers: usize) -> bool {
    !matches!(scheduler, Scheduler::Mh) || servers <= mh::SLOTS
}

/// Fills a table of [`choices::lines`] lines for these servers, the newest first.
#[cfg(not(target_arch = "bpf"))]
pub fn fill(scheduler: Scheduler, servers: &[Listed], table: &[choices::Choices]) {
    match scheduler {
        Scheduler::Rr => rr::fill(servers, table),
        Scheduler::Wrr => wrr::fill(servers, table),
        Scheduler::Dh => dh::fill(servers, table),
        Scheduler::Sh => sh::fill(servers, table),
        Scheduler::Mh => mh::fill(servers, table),
        _ => {}
    }
}

/// The service has just been given this scheduler, and has these servers, the newest first. `serial` is a number that was
/// given to no service before.
pub fn start(service: &Service, scheduler: Scheduler, servers: &[Listed], serial: u32) {
    match scheduler {
        Scheduler::Rr => rr::start(service),
        Scheduler::Wrr => wrr::start(service, servers),
        Scheduler::Lblc | Scheduler::Lblcr => affinity::start(service, serial),
        _ => {}
    }
}

/// A server was added, removed or edited (even if nothing changed in it); now they are these, the newest first.
pub fn refresh(service: &Service, scheduler: Scheduler, servers: &[Listed]) {
    match scheduler {
        Scheduler::Rr => rr::refresh(service, servers),
        Scheduler::Wrr => wrr::refresh(service, servers),
        _ => {}
    }
}
