//! Connections as listings show them, and whether the counters agree with them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use xlvs_core::conn::Memory;
use xlvs_core::conn::entry::{Entry, Link};
use xlvs_core::conn::table::{SlotId, at, is_expired};
use xlvs_core::conn::word::{Tick, Word};
use xlvs_core::expire::rearmed;
use xlvs_core::family::{self, Ends, Family};
use xlvs_core::sctp::state::SctpState;
use xlvs_core::server::{self, Server};
use xlvs_core::service::{BLOCK, server_in};
use xlvs_core::state::TcpState;
use xlvs_core::wire::{AddrV6, ip_protocol};
use xlvs_model::view::ConnView;

use crate::tables::{Buckets, Tables};

/// The port of a void template in listings.
const VOID_PORT: [u8; 2] = [0xff, 0xff];

/// Milliseconds in a tick.
const TICK_MS: u64 = 1000 / Tick::PER_SECOND as u64;

/// Shows every entry in these slots ([`Tables::slots`]) that has not expired. A template that controls connections has not,
/// whether or not the sweep has seen it yet.
pub fn each_in(tables: &Tables, now: Tick, slots: Range<u32>, mut show: impl FnMut(ConnView)) {
    for slot in slots {
        let view = held_in(tables, slot).and_then(|held| view(tables, now, held.lasting(tables, now), &held));
        view.into_iter().for_each(&mut show);
    }
}

/// Shows both ends, client and VIP, of every TCP connection in these slots that is one of these servers', by their numbers.
pub fn each_tcp_of(
    tables: &Tables,
    slots: Range<u32>,
    which: impl Fn(u32) -> bool,
    mut show: impl FnMut(SocketAddr, SocketAddr),
) {
    for held in slots.filter_map(|slot| held_in(tables, slot)) {
        let Held { word, ends, entry, .. } = held;
        if ends.protocol == ip_protocol::TCP && !word.template() && which(entry.server()) {
            show(socket(ends.from, ends.from_port), socket(ends.to, ends.to_port));
        }
    }
}

/// The entry in this slot as it was when it had this word. `None`: another one is there by now.
pub fn as_it_was(tables: &Tables, slot: u32, word: Word) -> Option<ConnView> {
    let held = held_in(tables, slot).filter(|held| held.word.is_same_entry(word))?;
    view(tables, word.last_seen(), word, &held)
}

/// An entry, of either family.
pub(crate) struct Held {
    /// Its word.
    pub word: Word,
    /// Client and VIP.
    pub ends: Ends<IpAddr>,
    /// Its server.
    pub entry: Entry,
    /// It is a template that controls connections.
    pub controls: bool,
}

impl Held {
    /// Its word, with the time that it gets for as long as it controls connections.
    fn lasting(&self, tables: &Tables, now: Tick) -> Word {
        let (mut word, config) = (self.word, tables.config());
        while self.controls && is_expired(word, now, config.timeout(word.class())) {
            word = rearmed(config, word);
        }
        word
    }
}

fn held_in(tables: &Tables, slot: u32) -> Option<Held> {
    match tables.family_of(slot) {
        (false, slot) => held::<family::V4, _, 2>(&Buckets(&tables.conns_v4), slot, IpAddr::from),
        (true, slot) => {
            let address = |addr: AddrV6| IpAddr::from(addr.bytes());
            held::<family::V6, _, 5>(&Buckets(&tables.conns_v6), slot, address)
        }
    }
}

fn held<F, M, const K: usize>(memory: &M, slot: SlotId, address: impl Fn(F::Addr) -> IpAddr) -> Option<Held>
where
    F: Family<K>,
    M: Memory<K>,
{
    let found = at(memory, slot)?;
    let (ends, entry) = (F::ends(found.body.key()), Entry(found.body.entry.load()));
    let ends = Ends {
        from: address(ends.from),
        from_port: ends.from_port,
        to: address(ends.to),
        to_port: ends.to_port,
        protocol: ends.protocol,
    };
    let controls = found.word.template() && Link(found.body.link.load()).controlled() != 0;
    found.is_there().then_some(Held { word: found.word, ends, entry, controls })
}

/// An entry as listings show it, unless it has expired.
pub(crate) fn view(tables: &Tables, now: Tick, word: Word, held: &Held) -> Option<ConnView> {
    let timeout = tables.config().timeout(word.class());
    if is_expired(word, now, timeout) {
        return None;
    }
    let Held { ends: Ends { from, from_port, to, to_port, protocol }, entry, .. } = *held;
    let server = tables.servers.get(entry.server() as usize)?;
    let left = timeout.saturating_sub(now.since(word.last_seen()));
    // The kernel's way to make a template void is to give it a port that no packet can name.
    let (to_port, port) = if word.void() { (VOID_PORT, VOID_PORT) } else { (to_port, entry.port()) };
    Some(ConnView {
        protocol,
        expires_ms: u64::from(left) * TICK_MS,
        state: state_name(protocol, word).to_owned(),
        client: socket(from, from_port),
        virt: socket(to, to_port),
        dest: socket(server_addr(server), port),
        engine: None,
        engine_data: None,
    })
}

fn server_addr(server: &Server) -> IpAddr {
    if server.flags() & server::flag::IPV6 != 0 {
        server.addr().bytes().into()
    } else {
        server.addr_v4().into()
    }
}

fn socket(addr: IpAddr, port: [u8; 2]) -> SocketAddr {
    SocketAddr::new(addr, u16::from_be_bytes(port))
}

fn state_name(protocol: u8, word: Word) -> &'static str {
    if word.template() {
        return if word.state() == xlvs_core::state::template::ASSURED { "ASSURED" } else { "NONE" };
    }
    match protocol {
        ip_protocol::TCP => TcpState::ALL.get(usize::from(word.state())).map_or("NONE", |s| s.name()),
        ip_protocol::SCTP => SctpState::ALL.get(usize::from(word.state())).map_or("NONE", |s| s.name()),
        _ => "UDP",
    }
}

/// What a server's connections are, by counting them or as counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Active ones.
    pub active: u32,
    /// All but templates.
    pub total: u32,
    /// Templates.
    pub persistent: u32,
}

/// A server whose counters differ from its entries in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discrepancy {
    /// The server's id.
    pub server: u32,
    /// What its counters say.
    pub counted: Tally,
    /// What the table holds.
    pub found: Tally,
}

/// Compares every server's counters with the table. While packets flow both move, so a difference means something only
/// when it stays.
pub fn discrepancies(tables: &Tables) -> Vec<Discrepancy> {
    let mut found: HashMap<u32, Tally> = HashMap::new();
    for slot in 0..tables.slots() {
        let entry = match tables.family_of(slot) {
            (false, slot) => at(&Buckets(&tables.conns_v4), slot).map(|e| (e.word, e.body.entry.load())),
            (true, slot) => at(&Buckets(&tables.conns_v6), slot).map(|e| (e.word, e.body.entry.load())),
        };
        if let Some((word, entry)) = entry {
            let tally = found.entry(Entry(entry).server()).or_default();
            if word.template() {
                tally.persistent += 1;
            } else {
                tally.total += 1;
                tally.active += u32::from(word.active());
            }
        }
    }
    let mut differing = Vec::new();
    for (index, block) in tables.blocks.iter().enumerate() {
        for lane in 0..BLOCK {
            let server = server_in(index as u32, lane);
            let counted = Tally {
                active: block.active[lane].load(),
                total: block.total[lane].load(),
                persistent: block.persistent[lane].load(),
            };
            let found = found.get(&server).copied().unwrap_or_default();
            if counted != found {
                differing.push(Discrepancy { server, counted, found });
            }
        }
    }
    differing
}
