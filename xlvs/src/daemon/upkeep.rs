//! What must be done now and then: the end of connections, rates, the trash, interfaces that come and go.

use std::net::Ipv6Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::io::unix::AsyncFd;
use tokio::time::{MissedTickBehavior, interval};
use xlvs_core::conn::LANES;
use xlvs_core::pressure::DropEntry;
use xlvs_core::tidings::Tidings;
use xlvs_core::verdict::DropReason;
use xlvs_datapath::estimator;
use xlvs_datapath::evict;
use xlvs_datapath::kernel;
use xlvs_datapath::sweep::Sweeper;
use xlvs_datapath::xdp::Presence;
use xlvs_model::ServiceKey;

use super::events::{Drains, Pressure};
use super::full_table::FullTable;
use super::{Daemon, local, start, status};
use crate::event::{Happening, Which};

/// A full sweep begins once a second: what has expired is gone within two.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Buckets that are looked at before others have their turn.
const SLICE: usize = 16_384;
/// The kernel looks into its trash every 60 s; more often does no harm, as two idle minutes are asked for anyway.
const TRASH_EVERY: Duration = Duration::from_secs(10);
/// The kernel's timer of lblc and lblcr, and which of its rounds is a full one.
const CACHES_EVERY: Duration = Duration::from_secs(60);
const FULL_ROUND: u32 = 30;
const INTERFACES_EVERY: Duration = Duration::from_secs(1);

/// Never ends.
pub async fn run(daemon: Rc<Daemon>) {
    let mut sweep = every(SWEEP_EVERY);
    let mut estimate = every(Duration::from_secs(estimator::PERIOD_S));
    let mut trash = every(TRASH_EVERY);
    let mut interfaces = every(INTERFACES_EVERY);
    let mut caches = every(CACHES_EVERY);
    let mut round = 0u32;
    let mut drop_entry = DropEntry::default();
    let mut full_table = FullTable::since(refused(&daemon));
    let mut watched = Watched::default();
    // Nothing to warn of, or no more.
    let mut marks_are_settled = kernel::routes_take_marks();
    let began = Instant::now();
    loop {
        tokio::select! {
            _ = sweep.tick() => {
                tell_time(&daemon);
                defend(&daemon, &mut drop_entry);
                sweep_once(&daemon).await;
                marks_are_settled = marks_are_settled || has_warned_of_marks(&daemon);
                let news = full_table.watch(refused(&daemon), began.elapsed());
                daemon.events.tell_all(news.into_iter().chain(watched.look(&daemon)));
            }
            _ = estimate.tick() => daemon.engine.borrow_mut().estimate(),
            _ = trash.tick() => {
                empty_trash(&daemon, began.elapsed().as_secs()).await;
                local::settle(&daemon);
            }
            _ = interfaces.tick() => watch_interfaces(&daemon),
            _ = caches.tick() => {
                round = round.wrapping_add(1);
                keep_caches(&daemon, round.is_multiple_of(FULL_ROUND));
            }
        }
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn empty_trash(daemon: &Daemon, now_s: u64) {
    let emptied = daemon.engine.borrow_mut().empty_trash(now_s);
    match emptied {
        Ok(0) => {}
        Ok(_) => {
            let destinations = daemon.engine.borrow().destinations();
            daemon.hops.want(destinations).await;
        }
        Err(why) => tracing::error!(%why, "removed servers keep their numbers"),
    }
}

async fn sweep_once(daemon: &Daemon) {
    let tables = Arc::clone(daemon.engine.borrow().tables());
    let mut sweeper = Sweeper::default();
    loop {
        let now = match daemon.xdp.borrow().now() {
            Ok(now) => now,
            Err(why) => {
                tracing::error!(%why, "the kernel's clock cannot be read; connections are not swept");
                return;
            }
        };
        let began = Instant::now();
        let swept = sweeper.slice(&tables, now, SLICE, &*daemon.xdp.borrow());
        daemon.work.swept(began.elapsed(), swept.removed, swept.finished);
        if swept.finished {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// What is looked at once a second for those who watch.
#[derive(Default)]
struct Watched {
    pressure: Pressure,
    drains: Drains,
}

impl Watched {
    fn look(&mut self, daemon: &Daemon) -> Vec<Happening> {
        let engine = daemon.engine.borrow();
        let connections = status::connections(engine.tables());
        let used = connections.active + connections.inactive + connections.persistent;
        let resting = engine.model().services().iter().flat_map(|service| {
            let resting = service.servers.iter().filter(|spec| spec.weight == 0);
            resting.map(|spec| Which { service: service.spec.key, server: spec.key })
        });
        let held = |which: Which| Some((which, engine.held(&which.service, &which.server)?));
        let mut news = self.drains.look(resting.filter_map(held));
        news.extend(self.pressure.look(used, connections.slots));
        news
    }
}

/// Says of services of marks that routes of this kernel are asked about their packets without the mark. Returns whether there are any.
fn has_warned_of_marks(daemon: &Daemon) -> bool {
    let engine = daemon.engine.borrow();
    let is_marks = |key: &ServiceKey| matches!(key, ServiceKey::Mark { .. });
    let has_any = engine.model().services().iter().any(|service| is_marks(&service.spec.key));
    if has_any {
        tracing::warn!(
            "this kernel's routes cannot be asked about packets with a mark (Linux 6.10 or later can): packets to addresses that are the \
             director's only by a rule of their mark (`ip rule add fwmark …`) go to the stack instead of a mark's service"
        );
    }
    has_any
}

/// New connections that the table had no room for, so far.
fn refused(daemon: &Daemon) -> u64 {
    daemon.engine.borrow().tables().dropped(DropReason::TableFull)
}

/// The time of day, which timestamp options ask for.
fn tell_time(daemon: &Daemon) {
    let Ok(now) = daemon.xdp.borrow().now() else { return };
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    daemon.engine.borrow().tables().config().set_time(now, since_epoch.as_millis() as u64);
}

/// LVS's defences, which the kernel looks after once a second too.
fn defend(daemon: &Daemon, drop_entry: &mut DropEntry) {
    if !raise_defences(daemon) {
        return;
    }
    let Ok(now) = daemon.xdp.borrow().now() else { return };
    let tables = Arc::clone(daemon.engine.borrow().tables());
    let dropped = evict::drop_entries(&tables, drop_entry, now, || fastrand::u32(..), &*daemon.xdp.borrow());
    if dropped != 0 {
        tracing::debug!(dropped, "drop_entry removed connections");
    }
}

/// Brings the defences to where tunables and memory want them. Returns whether `drop_entry` is up.
pub fn raise_defences(daemon: &Daemon) -> bool {
    daemon.engine.borrow().defend(available_pages())
}

/// Memory that is free or in buffers, in pages: what the kernel compares with `amemthresh`.
fn available_pages() -> u32 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kibibytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
    };
    match (kibibytes("MemFree:"), kibibytes("Buffers:")) {
        (Some(free), Some(buffers)) => u32::try_from((free + buffers) / 4).unwrap_or(u32::MAX),
        _ => u32::MAX,
    }
}

/// Ends the connections of removed servers, as `expire_nodest_conn` wants it.
pub async fn expire_nodest(daemon: &Daemon) {
    let tables = Arc::clone(daemon.engine.borrow().tables());
    let slots = tables.slots();
    for first in (0..slots).step_by(SLICE * LANES) {
        let end = slots.min(first.saturating_add((SLICE * LANES) as u32));
        evict::drop_of_removed_servers(&tables, first..end, &*daemon.xdp.borrow());
        tokio::task::yield_now().await;
    }
}

/// The destination caches of lblc and lblcr.
fn keep_caches(daemon: &Daemon, full: bool) {
    if !daemon.engine.borrow().begin_cache_round() {
        return;
    }
    if let Err(why) = daemon.xdp.borrow().collect_caches(full) {
        tracing::error!(%why, "the destination caches of lblc and lblcr are not cleaned");
    }
}

/// An interface that was deleted and made again has lost its program.
fn watch_interfaces(daemon: &Daemon) {
    for interface in daemon.site.borrow().interfaces() {
        let presence = daemon.xdp.borrow().presence(interface);
        let mut xdp = daemon.xdp.borrow_mut();
        match presence {
            Presence::Attached => {}
            Presence::Gone => {
                if xdp.forget(interface) {
                    let reason = "the interface is gone".to_owned();
                    daemon.events.tell(Happening::InterfaceDetached { interface: interface.clone(), reason });
                    tracing::error!(%interface, "the interface is gone; the director attaches again when it comes back");
                }
            }
            Presence::Returned => match start::attach(&mut xdp, interface, &daemon.options) {
                Ok(place) => {
                    daemon.places.borrow_mut().insert(interface.clone(), place);
                    daemon.events.tell(Happening::attached(interface, place));
                    tracing::warn!(%interface, "the interface came back");
                }
                Err(why) => {
                    tracing::error!(%interface, %why, "the interface came back, but the director cannot attach")
                }
            },
        }
    }
}

/// Does what packets have the daemon know: looks for the next hops that replies have missed, and learns what ways take.
pub async fn heed_tidings(daemon: Rc<Daemon>) {
    let ring = daemon.xdp.borrow_mut().take_wanted();
    // SAFETY: the ring owns its descriptor, which stays open and the same for as long as the ring lives.
    let Some(mut ring) = ring.and_then(|ring| unsafe { AsyncFd::register(ring) }.ok()) else {
        tracing::error!("clients' next hops are not looked for: the ring of questions cannot be read");
        return std::future::pending().await;
    };
    loop {
        let Ok(mut ready) = ring.readable_mut().await else { return std::future::pending().await };
        let mut tidings = Vec::new();
        while let Some(item) = ready.get_inner_mut().next() {
            if let Some(Tidings { addr, mtu }) = Tidings::from_bytes(&item) {
                tidings.push((Ipv6Addr::from(addr.bytes()).to_canonical(), mtu));
            }
        }
        ready.clear_ready();
        tidings.sort();
        tidings.dedup();
        for (addr, mtu) in tidings {
            match u32::try_from(mtu) {
                Ok(0) => daemon.hops.want_client(addr).await,
                Ok(mtu) => daemon.hops.learn_path_mtu(addr, mtu).await,
                Err(_) => {}
            }
        }
    }
}
