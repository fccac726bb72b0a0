//! How the director is, taken from its tables.

use xlvs_core::stats::Counters;
use xlvs_core::verdict::{DropReason, PassReason};
use xlvs_datapath::engine::Engine;
use xlvs_datapath::fragments::Tally;
use xlvs_datapath::roster::Lane;
use xlvs_datapath::tables::Tables;
use xlvs_datapath::xdp::{Place, Presence};

use super::Daemon;
use crate::overview::{
    Connections, Fragments, Interface, InterfaceState, Overview, Reason, Room, Unreached, UnreachedKey,
};

/// So many servers' next hops are asked about; the others have the same reasons.
const EXPLAINED: usize = 20;

/// See [`Overview`].
pub async fn overview(daemon: &Daemon) -> Overview {
    let mut overview = seen_now(daemon);
    for unreached in overview.unreached.iter_mut().take(EXPLAINED) {
        unreached.why = daemon.hops.describe(unreached.which.server.addr).await;
    }
    overview
}

fn seen_now(daemon: &Daemon) -> Overview {
    let engine = daemon.engine.borrow();
    let tables = engine.tables();
    let total = |counter: fn(&Counters) -> u64| tables.counters.iter().map(counter).sum();
    Overview {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        running_s: daemon.began.elapsed().as_secs(),
        interfaces: daemon.site.borrow().interfaces().iter().map(|name| interface(daemon, name)).collect(),
        services: Room { used: engine.model().services().len() as u64, limit: tables.sizes.services.into() },
        servers: Room { used: servers(&engine), limit: u64::from(tables.sizes.stats).saturating_sub(1) },
        unreached: unreached(&engine),
        connections: connections(tables),
        forwarded: engine.forwarded(),
        answered: total(|c| c.answered.load()),
        fragments: fragments(daemon, total(|c| c.fragments.load())),
        work: daemon.work.done(),
        revision: daemon.site.borrow().revisions.newest(),
        drops: drops(tables),
        passes: passes(tables),
    }
}

fn interface(daemon: &Daemon, name: &str) -> Interface {
    let state = match daemon.xdp.borrow().presence(name) {
        Presence::Attached => match daemon.places.borrow().get(name) {
            Some(Place::Native) => InterfaceState::Native,
            Some(Place::Tc) => InterfaceState::Tc,
            Some(Place::Generic) | None => InterfaceState::Generic,
        },
        Presence::Gone => InterfaceState::Gone,
        Presence::Returned => InterfaceState::Detached,
    };
    Interface { name: name.to_owned(), state }
}

fn servers(engine: &Engine) -> u64 {
    engine.roster().seats().map(|(_, seat)| seat.lanes.len() as u64).sum()
}

fn unreached(engine: &Engine) -> Vec<Unreached> {
    let mut found = Vec::new();
    for service in engine.model().services() {
        let Some(seat) = engine.roster().seat(&service.spec.key) else { continue };
        let is_unreached = |lane: &&Lane| !engine.is_reached(lane.id);
        for server in service.servers.iter().map(|spec| spec.key) {
            if seat.lanes.get(&server).filter(is_unreached).is_some() {
                let which = UnreachedKey { service: service.spec.key, server };
                found.push(Unreached { which, why: None });
            }
        }
    }
    found
}

/// The servers' counters know how many entries there are; the table need not be walked.
pub fn connections(tables: &Tables) -> Connections {
    let (mut active, mut total, mut persistent) = (0u64, 0u64, 0u64);
    for block in tables.blocks.iter() {
        active += block.active.iter().map(|c| u64::from(c.load())).sum::<u64>();
        total += block.total.iter().map(|c| u64::from(c.load())).sum::<u64>();
        persistent += block.persistent.iter().map(|c| u64::from(c.load())).sum::<u64>();
    }
    Connections {
        active,
        inactive: total.saturating_sub(active),
        persistent,
        slots: u64::from(tables.slots()),
        expired_by_packets: tables.counters.iter().map(|c| c.expired.load()).sum(),
    }
}

fn fragments(daemon: &Daemon, came: u64) -> Fragments {
    let Tally { whole, cut, failed, no_room } = daemon.fragments.get();
    Fragments { came, whole, cut, failed, no_room }
}

fn drops(tables: &Tables) -> Vec<Reason> {
    let reasons = DropReason::ALL.iter().map(|r| (r.label(), r.sentence(), tables.dropped(*r)));
    that_occurred(reasons)
}

fn passes(tables: &Tables) -> Vec<Reason> {
    let packets = |reason: PassReason| tables.counters.iter().map(|c| c.passes[reason as usize].load()).sum();
    let reasons = PassReason::ALL.iter().map(|r| (r.label(), r.sentence(), packets(*r)));
    that_occurred(reasons)
}

fn that_occurred(reasons: impl Iterator<Item = (&'static str, &'static str, u64)>) -> Vec<Reason> {
    let mut occurred: Vec<_> = reasons
        .filter(|(_, _, packets)| *packets != 0)
        .map(|(label, sentence, packets)| Reason {
            label: label.to_owned(),
            sentence: sentence.to_owned(),
            packets,
        })
        .collect();
    occurred.sort_by_key(|reason| std::cmp::Reverse(reason.packets));
    occurred
}
