//! Connections as listings show them, and whether the counters agree with them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;

use xlvs_core::conn::entry::Entry;
use xlvs_core::conn::key::{self, Kind};
use xlvs_core::conn::table::{SlotId, at, is_expired};
use xlvs_core::conn::word::{Tick, Word};
use xlvs_core::service::{BLOCK, server_in};
use xlvs_core::state::TcpState;
use xlvs_core::wire::ip_protocol;
use xlvs_model::view::ConnView;

use crate::tables::{Buckets, Tables};

/// Milliseconds in a tick.
const TICK_MS: u64 = 1000 / Tick::PER_SECOND as u64;

/// Shows every entry in these slots that has not expired.
pub fn each_in(tables: &Tables, now: Tick, slots: Range<u32>, mut show: impl FnMut(ConnView)) {
    let memory = Buckets(&tables.conns_v4);
    for slot in slots {
        if let Some(found) = at(&memory, SlotId(slot))
            && let Some(view) =
                view(tables, now, found.word, found.body.key(), Entry(found.body.entry.load()))
            && found.is_there()
        {
            show(view);
        }
    }
}

/// An entry as listings show it, unless it has expired.
pub(crate) fn view(tables: &Tables, now: Tick, word: Word, key: [u64; 2], entry: Entry) -> Option<ConnView> {
    let timeout = tables.config().timeout(word.class());
    if is_expired(word, now, timeout) {
        return None;
    }
    let (client, client_port, vip, vport, protocol, kind) = key::parts_v4(key);
    let server = tables.servers.get(entry.server() as usize)?;
    let left = timeout.saturating_sub(now.since(word.last_seen()));
    Some(ConnView {
        protocol,
        expires_ms: u64::from(left) * TICK_MS,
        state: state_name(protocol, kind, word).to_owned(),
        client: socket(client, client_port),
        virt: socket(vip, vport),
        dest: socket(server.addr_v4(), entry.port()),
        engine: None,
        engine_data: None,
    })
}

fn socket(addr: [u8; 4], port: [u8; 2]) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from(addr)), u16::from_be_bytes(port))
}

fn state_name(protocol: u8, kind: u8, word: Word) -> &'static str {
    if kind == Kind::Template as u8 {
        return if word.state() == xlvs_core::state::template::ASSURED { "ASSURED" } else { "NONE" };
    }
    match protocol {
        ip_protocol::TCP => TcpState::ALL.get(usize::from(word.state())).map_or("NONE", |s| s.name()),
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
    let memory = Buckets(&tables.conns_v4);
    for slot in 0..tables.conns_v4.len() as u32 * 8 {
        if let Some(entry) = at(&memory, SlotId(slot)) {
            let tally = found.entry(Entry(entry.body.entry.load()).server()).or_default();
            if entry.word.template() {
                tally.persistent += 1;
            } else {
                tally.total += 1;
                tally.active += u32::from(entry.word.active());
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
