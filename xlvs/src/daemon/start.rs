//! From nothing, or from what another daemon left, to a director that forwards.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use nix::net::if_::if_nametoindex;
use xlvs_datapath::engine::Engine;
use xlvs_datapath::journal::{ABI_VERSION, Head, Journal, Line};
use xlvs_datapath::kernel;
use xlvs_datapath::tables::Sizes;
use xlvs_datapath::xdp::{Mode, Pins, Place, Xdp};
use xlvs_model::config::Hook;

use super::checks::Checks;
use super::events::Events;
use super::site::Site;
use super::work::Work;
use super::{Daemon, Options, hops};
use crate::event::Happening;

/// Loads, takes over what is pinned, attaches.
///
/// If there was nothing to take over, what is given back besides can take it all away again.
pub fn start(options: Options, fixed_interfaces: bool) -> anyhow::Result<(Daemon, Option<Pins>)> {
    for interface in &options.interfaces {
        if if_nametoindex(interface.as_str()).is_err() {
            bail!("there is no interface {interface}; `ip link` lists them");
        }
    }
    let pins = Pins::on(&options.paths.bpffs)?;
    let earlier = earlier_state(&options, &pins)?;
    let sizes = sizes(&options, earlier.as_ref().map(|(head, _)| head.sizes));
    let fresh = earlier.is_none();
    match load_and_attach(&options, &pins, sizes) {
        Ok((xdp, places)) => {
            let engine = engine(&options, &xdp, earlier, sizes)?;
            engine.see_own(xdp.sees_own());
            warn_about_forwarding(&options);
            let site = Site::resume(&options, fixed_interfaces, !fresh);
            let checks = Checks::resume(&options.paths, site.policy(), !fresh);
            let daemon = Daemon {
                options,
                checks,
                site: site.into(),
                engine: engine.into(),
                xdp: xdp.into(),
                hops: hops::Hops::default(),
                path: super::path::Path::default(),
                places: places.into(),
                fragments: Cell::default(),
                work: Work::default(),
                events: Events::default(),
                tracing: Cell::new(false),
                own_is_hidden: Cell::new(false),
                began: Instant::now(),
            };
            for (interface, place) in &*daemon.places.borrow() {
                daemon.events.tell(Happening::attached(interface, *place));
            }
            Ok((daemon, Some(pins).filter(|_| fresh)))
        }
        Err(why) => {
            // Nothing half-made stays behind; what an earlier daemon left is not ours to remove.
            if fresh {
                pins.remove()?;
            }
            Err(why)
        }
    }
}

/// The journal of the pinned state, if there is one of this boot. Journal and pins must be there together.
fn earlier_state(options: &Options, pins: &Pins) -> anyhow::Result<Option<(Head, Vec<Line>)>> {
    let pinned = pins.exist()?;
    let journal = Journal::read(&options.paths.journal())?;
    match (pinned, journal) {
        (true, Some((head, lines))) if head.boot == boot_id()? => Ok(Some((head, lines))),
        (true, _) => bail!(
            "programs are pinned in {}, but their state file {} is missing or of another boot; \
             `xlvs unload` removes the pins, then start again",
            options.paths.bpffs.display(),
            options.paths.journal().display()
        ),
        // The machine was restarted: pins are gone, and with them what the journal was about.
        (false, _) => Ok(None),
    }
}

fn sizes(options: &Options, pinned: Option<Sizes>) -> Sizes {
    let cpus = possible_cpus();
    let mut wanted = Sizes::for_site(
        options.max_conns.unwrap_or(1 << 20),
        options.max_services.unwrap_or(1 << 14),
        options.max_servers.unwrap_or(1 << 16),
        cpus,
    );
    if let Some(conns) = options.max_conns_v6 {
        wanted = wanted.with_v6(conns);
    }
    match pinned {
        Some(pinned) if pinned != wanted => {
            tracing::warn!(
                "the pinned tables keep their sizes; `xlvs unload` and a new start give them those asked for now"
            );
            pinned
        }
        _ => wanted,
    }
}

fn load_and_attach(
    options: &Options,
    pins: &Pins,
    sizes: Sizes,
) -> anyhow::Result<(Xdp, HashMap<String, Place>)> {
    if options.mode() == Mode::Tc {
        // Before the verifier takes its seconds for the others.
        kernel::runs_at_tc()?;
    }
    let mut xdp = Xdp::load(pins.clone(), sizes, random_seed()?)?;
    if options.mode() == Mode::Tc {
        xdp.load_for_tc()?;
    }
    let mut places = HashMap::new();
    for interface in &options.interfaces {
        places.insert(interface.clone(), attach(&mut xdp, interface, options)?);
    }
    for interface in xdp.detach_others(&options.interfaces)? {
        tracing::info!(%interface, "detached: it is not named any more");
    }
    // An older daemon may have been killed while it traced; its programs have all been replaced now.
    xdp.pins().forget_trace()?;
    if xdp.hook() == Hook::Xdp {
        xdp.pins().forget_tc()?;
    }
    if !xdp.pins().seen().is_empty() {
        // With an older daemon the director has served itself.
        if let Err(why) = xdp.see_own() {
            tracing::warn!(%why, "what the director sends is not seen any more");
            xdp.overlook_own()?;
        }
    }
    Ok((xdp, places))
}

/// Attaches to one interface and says how.
pub fn attach(xdp: &mut Xdp, interface: &str, options: &Options) -> anyhow::Result<Place> {
    let mode = options.mode();
    if mode != Mode::Tc && is_vlan_device(interface) {
        tracing::warn!(
            %interface,
            "a VLAN device has no native XDP; name the interface below it instead: the director takes VLAN tags off and puts them on by itself"
        );
    }
    let place = xdp.attach(interface, mode)?;
    match place {
        Place::Native => tracing::info!(%interface, "attached"),
        Place::Tc => tracing::info!(%interface, "attached at the tc hook"),
        Place::Generic if mode == Mode::Auto => {
            tracing::warn!(%interface, "attached in generic mode: the driver has no native XDP; expect a fraction of the speed, and see `--hook tc`");
        }
        Place::Generic => tracing::info!(%interface, "attached in generic mode"),
    }
    Ok(place)
}

fn is_vlan_device(interface: &str) -> bool {
    let uevent = std::fs::read_to_string(format!("/sys/class/net/{interface}/uevent"));
    uevent.is_ok_and(|text| text.lines().any(|line| line == "DEVTYPE=vlan"))
}

fn engine(
    options: &Options,
    xdp: &Xdp,
    earlier: Option<(Head, Vec<Line>)>,
    sizes: Sizes,
) -> anyhow::Result<Engine> {
    let tables = Arc::clone(xdp.tables());
    let mut engine = match earlier {
        Some((_, lines)) => {
            let engine = Engine::restore(tables, lines);
            tracing::info!(services = engine.model().services().len(), "took over the pinned state");
            engine
        }
        None => Engine::new(tables),
    };
    let head = Head { abi: ABI_VERSION, boot: boot_id()?, sizes };
    let journal = Journal::start(&options.paths.journal(), &head, engine.model(), engine.roster())?;
    engine.keep_journal(journal);
    Ok(engine)
}

/// NAT's replies are forwarded by the host's routing table, which says no while forwarding is off.
fn warn_about_forwarding(options: &Options) {
    for interface in &options.interfaces {
        let path = format!("/proc/sys/net/ipv4/conf/{interface}/forwarding");
        if std::fs::read_to_string(&path).is_ok_and(|v| v.trim() == "0") {
            tracing::warn!(%interface, "IPv4 forwarding is off: replies of NAT servers are dropped; `sysctl -w net.ipv4.ip_forward=1`");
        }
    }
}

fn boot_id() -> anyhow::Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let id = std::fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    Ok(id.trim().to_owned())
}

fn random_seed() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut f| f.read_exact(&mut bytes))
        .context("read /dev/urandom")?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Processors that may ever come: a program may run on any of them.
fn possible_cpus() -> u32 {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
    let last = text.trim().rsplit([',', '-']).next().and_then(|n| n.parse::<u32>().ok());
    last.map_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get() as u32), |n| n + 1)
}
